r"""Grading: compare a response with a reference answer. The verdict is right, wrong, or undecided with a reason.

    >>> grade("... so we get \\boxed{\\frac{16}{25}}", "0.64").verdict
    'right'

Every verdict becomes training data or a published number. Therefore "wrong" requires a proof that the two answers
differ. An answer that cannot be found, read or compared in time is "undecided", which never counts as wrong.

Modules in the order of the work: ``find_answer`` finds the answer in a text with the help of ``extraction``, ``latex``
normalizes its notation with the tables of ``characters`` and ``notation``, and ``compare`` compares it in this process
without evaluating text as code. Formulas that need algebra and long texts are sent to the worker processes of
``algebra``, which have a clock. ``kinds`` grades other kinds of answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from spotcli.grading.algebra.pool import Task
    from spotcli.grading.extraction import FoundAnswer
    from spotcli.records import Verdict

# The functions import the modules that they need: compiling the patterns of those modules takes five times as long as
# importing this module, and commands that grade nothing should not wait for it.

SECONDS = 5.0
"""Wall-clock limit for comparing one answer in a worker; a comparison that takes longer is undecided."""

LONG = 10_000
"""Characters of response and reference together above which a worker does all of the grading. In this process there is
no clock, and work that grows with the square of the length would hang it."""

Prover = Callable[[str, str], tuple[bool | None, str]]
"""Compares a reference with an answer by algebra: whether they are equal, or None and the reason."""


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
    if is_long(response, reference):
        return grade_in_worker("math", response, reference, seconds)
    return grade_with(lambda gold, answer: _prove_in_worker(gold, answer, seconds), response, reference)


def is_long(response: str, reference: str) -> bool:
    """Whether these texts are graded by a worker, under its clock."""
    return len(response) + len(reference) > LONG


def grade_with(prove: Prover, response: str, reference: str) -> Grade:
    """``grade`` in this process; ``prove`` compares the answers that need algebra."""
    answers = _find(response, reference)
    if isinstance(answers, Grade):
        return answers
    quick = _quick(*answers)
    return quick if quick is not None else _settle(*answers, prove)


def grade_in_worker(task: Task, response: str, reference: str, seconds: float = SECONDS) -> Grade:
    """Grade in a worker, which is stopped after ``seconds``: the answer is then undecided."""
    from spotcli.grading.algebra.pool import WorkerLost, shared_pool

    try:
        reply = shared_pool().ask(reference, response, seconds, task)
    except WorkerLost as lost:
        return Grade("undecided", str(lost))
    return Grade("undecided", reply.reason) if reply.result is None else Grade(**reply.result)


def grade_many(pairs: Iterable[tuple[str, str]], *, jobs: int = 2) -> list[Grade]:
    """Grade pairs of response and reference; the grades are in the same order.

    ``jobs``: the number of worker processes for the answers that need algebra.
    """
    grades: list[Grade | None] = []
    slow: list[tuple[int, Callable[[], Grade]]] = []
    for index, (response, reference) in enumerate(pairs):
        if is_long(response, reference):
            slow.append((index, partial(grade_in_worker, "math", response, reference)))
            grades.append(None)
            continue
        answers = _find(response, reference)
        if isinstance(answers, Grade):
            grades.append(answers)
            continue
        quick = _quick(*answers)
        if quick is None:
            slow.append((index, partial(_settle, *answers, _prove_in_worker)))
        grades.append(quick)
    if slow:
        from spotcli.grading.algebra.pool import shared_pool

        shared_pool().grow(jobs)
        for (index, _), result in zip(slow, in_threads([work for _, work in slow], jobs), strict=True):
            grades[index] = result
    return [result for result in grades if result is not None]


def in_threads(work: Sequence[Callable[[], Grade]], jobs: int) -> list[Grade]:
    """Call functions that wait for workers, ``jobs`` at a time; Ctrl-C ends the workers at once."""
    from concurrent.futures import ThreadPoolExecutor

    from spotcli.grading.algebra.pool import close_pool

    with ThreadPoolExecutor(max_workers=jobs, thread_name_prefix="grade") as threads:
        futures = [threads.submit(function) for function in work]
        try:
            return [future.result() for future in futures]
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            close_pool()
            raise


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
    """The grade without algebra; None where algebra is needed."""
    return _graded(answer, gold, _quick_text)


def _settle(answer: FoundAnswer, gold: FoundAnswer, prove: Prover) -> Grade:
    """The grade by algebra, where it is needed."""

    def settle(text: str, reference: str) -> Grade:
        quick = _quick_text(text, reference)
        if quick is not None:
            return quick
        same, reason = prove(reference, text)
        if same is None:
            return Grade("undecided", reason or "could not prove that the answers are equal or different", text)
        return Grade("right" if same else "wrong", "", text)

    result = _graded(answer, gold, settle)
    assert result is not None
    return result


def _graded(answer: FoundAnswer, gold: FoundAnswer, compare: Callable[[str, str], Grade | None]) -> Grade | None:
    """The grade of the text, of its result if it is an equation, and in view of the doubts; None without a comparison.

    ``compare``: grades one text against a reference; None where it cannot.
    """
    grades = [compare(answer.text, gold.text)]
    if grades[0] is not None and grades[0].verdict != "right" and answer.result and "=" not in gold.text:
        grades.append(compare(answer.result, gold.text))
    for result in grades:
        if result is None or result.verdict == "right":
            return result
    if grades[0] is None or grades[0].verdict != "wrong":
        return grades[0]
    if doubt := answer.doubt or gold.doubt:
        return Grade("undecided", doubt, answer.text)
    for other in answer.others:
        if (last := compare(other, gold.text)) is None:
            return None
        if last.verdict != "wrong":
            return Grade("undecided", "several values are stated, and another one may match the reference", answer.text)
    return grades[0]


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


def _prove_in_worker(gold: str, answer: str, seconds: float = SECONDS) -> tuple[bool | None, str]:
    from spotcli.grading.algebra.pool import WorkerLost, shared_pool

    try:
        reply = shared_pool().ask(gold, answer, seconds)
    except WorkerLost as lost:
        return None, str(lost)
    return reply.same, reply.reason
