r"""Grading: compare a response with a reference answer. The verdict is right, wrong, or undecided with a reason.

    >>> grade("... so we get \\boxed{\\frac{16}{25}}", "0.64").verdict
    'right'

Every verdict becomes training data or a published number. Therefore "wrong" requires a proof that the two answers
differ. An answer that cannot be found, read or compared in time is "undecided", which never counts as wrong.

Modules in the order of the work: ``find_answer`` finds the answer in a text, ``latex`` normalizes its notation, and
``compare`` compares it in this process without evaluating text as code. Only formulas that need algebra are sent to
the worker processes of ``algebra``. ``kinds`` grades other kinds of answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from spotcli.grading.extraction import FoundAnswer
    from spotcli.records import Verdict

# The functions import the modules that they need: compiling the patterns of those modules takes five times as long as
# importing this module, and commands that grade nothing should not wait for it.

SECONDS = 5.0
"""Wall-clock limit for comparing one answer in a worker; a comparison that takes longer is undecided."""


@dataclass(frozen=True, slots=True)
class Grade:
    """The result of grading one response."""

    verdict: Verdict
    reason: str = ""
    """Always set where the verdict is undecided."""
    extracted: str | None = None
    """The part of the response that was graded; None where no answer was found."""


class Grader(Protocol):
    """A function that grades a response against a reference. It never raises for the content of the response."""

    def __call__(self, response: str, reference: str, /) -> Grade: ...


def grade(response: str, reference: str, *, seconds: float = SECONDS) -> Grade:
    """Grade a model's response to a mathematics problem against the reference answer.

    It can be called from any thread. It blocks: inside an event loop, use ``asyncio.to_thread``. It never raises for
    the content of either text, and returns within about ``seconds`` + 1 s (plus the start of the first worker, about
    1 s).
    """
    answers = _find(response, reference)
    if isinstance(answers, Grade):
        return answers
    answer, gold = answers
    quick = _quick(answer, gold)
    return quick if quick is not None else _settle(answer, gold, seconds)


def grade_many(pairs: Iterable[tuple[str, str]], *, jobs: int = 2) -> list[Grade]:
    """Grade pairs of response and reference; the grades are in the same order.

    ``jobs``: the number of worker processes for the answers that need algebra.
    """
    grades: list[Grade | None] = []
    slow: list[tuple[int, FoundAnswer, FoundAnswer]] = []
    for index, (response, reference) in enumerate(pairs):
        answers = _find(response, reference)
        if isinstance(answers, Grade):
            grades.append(answers)
            continue
        quick = _quick(*answers)
        if quick is None:
            slow.append((index, *answers))
        grades.append(quick)
    if slow:
        from concurrent.futures import ThreadPoolExecutor

        from spotcli.grading.algebra.pool import shared_pool

        shared_pool().grow(jobs)
        with ThreadPoolExecutor(max_workers=jobs, thread_name_prefix="grade") as threads:
            settled = threads.map(lambda item: _settle(item[1], item[2], SECONDS), slow)
            for (index, _, _), result in zip(slow, settled, strict=True):
                grades[index] = result
    return [result for result in grades if result is not None]


def _find(response: str, reference: str) -> tuple[FoundAnswer, FoundAnswer] | Grade:
    """The answers of the response and of the reference, or the undecided grade."""
    from spotcli.grading.compare.choices import lone_letter
    from spotcli.grading.extraction import FoundAnswer, NoAnswer
    from spotcli.grading.find_answer import find_answer, find_reference, leading_choice

    try:
        gold = find_reference(reference)
    except NoAnswer as problem:
        return Grade("undecided", f"reference: {problem}")
    try:
        return find_answer(response), gold
    except NoAnswer as problem:
        letter = leading_choice(response) if lone_letter(gold.text) else None
        return (FoundAnswer(letter), gold) if letter else Grade("undecided", str(problem))


def _quick(answer: FoundAnswer, gold: FoundAnswer) -> Grade | None:
    """The grade without a worker; None where a worker is needed."""
    grades = [_quick_text(text, gold.text) for text in _texts(answer)]
    for result in grades:
        if result is not None and result.verdict == "right":
            return result
    return None if None in grades else _checked(grades[0], answer, gold, _quick_text)


def _settle(answer: FoundAnswer, gold: FoundAnswer, seconds: float) -> Grade:
    """The grade by a worker."""

    def settle(text: str, reference: str) -> Grade:
        quick = _quick_text(text, reference)
        return quick if quick is not None else _settled_text(text, reference, seconds)

    grades = []
    for text in _texts(answer):
        grades.append(settle(text, gold.text))
        if grades[-1].verdict == "right":
            return grades[-1]
    return _checked(grades[0], answer, gold, settle)


def _texts(answer: FoundAnswer) -> list[str]:
    """The texts of which each may be the answer; the first one decides unless another one is right."""
    return [answer.text, answer.result] if answer.result else [answer.text]


def _quick_text(text: str, reference: str) -> Grade | None:
    from spotcli.grading.compare import Undecidable
    from spotcli.grading.compare.equality import equal

    try:
        same = equal(reference, text)
    except Undecidable as doubt:
        return Grade("undecided", str(doubt), text)
    except RecursionError:
        return Grade("undecided", "nested too deeply", text[:1000])
    except Exception as error:  # an error in this package must not end a long run, nor count as a verdict
        return Grade("undecided", f"internal error of the grader: {error!r}", text[:1000])
    return None if same is None else Grade("right" if same else "wrong", "", text)


def _settled_text(text: str, reference: str, seconds: float) -> Grade:
    from spotcli.grading.algebra.pool import WorkerLost, shared_pool

    try:
        reply = shared_pool().ask(reference, text, seconds)
    except WorkerLost as lost:
        return Grade("undecided", str(lost), text)
    if reply.same is None:
        return Grade("undecided", reply.reason or "could not prove that the answers are equal or different", text)
    return Grade("right" if reply.same else "wrong", "", text)


def _checked(
    result: Grade | None, answer: FoundAnswer, gold: FoundAnswer, compare: Callable[[str, str], Grade | None]
) -> Grade | None:
    """The grade of an answer that is not right: undecided where a doubt about the answer remains."""
    if result is None or result.verdict != "wrong":
        return result
    if doubt := answer.doubt or gold.doubt:
        return Grade("undecided", doubt, answer.text)
    for other in answer.others:
        last = compare(other, gold.text)
        if last is None or last.verdict != "wrong":
            return last and Grade(
                "undecided", "several boxes, and only the last one may match the reference", answer.text
            )
    return result
