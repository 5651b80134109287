"""Grading an answer against a reference: right, wrong, or undecided with the reason.

    >>> grade("... so we get \\\\boxed{\\\\frac{16}{25}}", "0.64").verdict
    'right'

Every verdict becomes training data or a published number, so "wrong" is said only where the two are proved
different. What cannot be found, read or settled in time is "undecided" and never counts as wrong.

How it works, one module a step: ``answers`` finds the answer, ``latex`` gives it one spelling, ``equality``
compares it (with ``exact`` for numbers and ``units``) in this process, without evaluating anything. Only what
needs algebra goes to a killable worker process (``sandbox``, ``worker``, ``symbolic``). Other kinds
of answers are in ``graders``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from spotcli.grading.compare.leaves import Rules
    from spotcli.grading.find_answer import Answer

# The modules that do the work are imported in the functions: with their patterns they cost five times as much
# as this module, and a command that grades nothing should not wait for them.

Verdict = Literal["right", "wrong", "undecided"]


@dataclass(frozen=True, slots=True)
class Grade:
    """``verdict``; ``reason`` in words (always set where undecided); ``extracted``: the text that was graded,
    or None."""

    verdict: Verdict
    reason: str = ""
    extracted: str | None = None


@dataclass(frozen=True, slots=True)
class GradeOptions:
    """How to grade mathematics.

    ``tolerance``: relative, for numbers of which one has a decimal point or an exponent; all others must
    agree exactly.
    ``bare_number``: take the last number of the prose where there is neither box nor announcement. Off,
    because such a number is often not the answer, and a false "wrong" would be trained as a mistake.
    ``ordered_lists``: whether "1, 2" differs from "2, 1".
    ``units``: "compare": another unit is wrong, a missing one forgiven; "ignore": units say nothing.
    ``seconds``: wall clock for one answer in a worker; what takes longer is undecided.
    """

    tolerance: float = 1e-6
    bare_number: bool = False
    ordered_lists: bool = False
    units: Literal["compare", "ignore"] = "compare"
    seconds: float = 5.0


class Grader(Protocol):
    """Any way to grade: a response against a reference. It never raises for what a model wrote."""

    def __call__(self, response: str, reference: str, /) -> Grade: ...


_DEFAULT = GradeOptions()


def grade(response: str, reference: str, options: GradeOptions = _DEFAULT) -> Grade:
    """Grade a model's response to a question of mathematics against the reference answer.

    Works from any thread and inside a running event loop (it blocks: there, call it through
    ``asyncio.to_thread``). Never raises for the content of either text, and returns within about
    ``options.seconds`` + 1 s (plus a second once, when the first worker starts).
    """
    found = _find(response, reference, options)
    if isinstance(found, Grade):
        return found
    answer, gold = found
    quick = _quick(answer, gold, options)
    return quick if quick is not None else _settle(answer, gold, options)


def grade_many(pairs: Iterable[tuple[str, str]], *, options: GradeOptions = _DEFAULT, jobs: int = 2) -> list[Grade]:
    """Grade (response, reference) pairs, in order. ``jobs``: worker processes for what the fast path
    leaves."""
    grades: list[Grade | None] = []
    slow: list[tuple[int, Answer, Answer]] = []
    for index, (response, reference) in enumerate(pairs):
        found = _find(response, reference, options)
        if isinstance(found, Grade):
            grades.append(found)
            continue
        quick = _quick(*found, options)
        if quick is None:
            slow.append((index, *found))
        grades.append(quick)
    if slow:
        from concurrent.futures import ThreadPoolExecutor

        from spotcli.grading.algebra.pool import pool

        pool().grow(jobs)
        with ThreadPoolExecutor(max_workers=jobs, thread_name_prefix="grade") as threads:
            settled = threads.map(lambda item: _settle(item[1], item[2], options), slow)
            for (index, _, _), result in zip(slow, settled, strict=True):
                grades[index] = result
    return [g for g in grades if g is not None]


def _find(response: str, reference: str, options: GradeOptions) -> tuple[Answer, Answer] | Grade:
    from spotcli.grading.compare.leaves import lone_letter
    from spotcli.grading.find_answer import Answer, NoAnswer, find_answer, find_reference, leading_choice

    try:
        gold = find_reference(reference)
    except NoAnswer as problem:
        return Grade("undecided", f"reference: {problem}")
    try:
        return find_answer(response, bare_number=options.bare_number), gold
    except NoAnswer as problem:
        letter = leading_choice(response) if lone_letter(gold.text) else None
        return (Answer(letter, "announced"), gold) if letter else Grade("undecided", str(problem))


def _rules(options: GradeOptions) -> Rules:
    from spotcli.grading.compare.leaves import Rules

    return Rules(options.tolerance, options.ordered_lists, options.units)


def _quick(answer: Answer, gold: Answer, options: GradeOptions) -> Grade | None:
    """The verdict without a worker, or None."""
    from spotcli.grading.compare.equality import equal
    from spotcli.grading.find_answer import Undecidable

    try:
        same = equal(gold.text, answer.text, _rules(options))
    except Undecidable as doubt:
        return Grade("undecided", str(doubt), answer.text)
    except RecursionError:
        return Grade("undecided", "nested too deeply", answer.text[:1000])
    except Exception as error:  # a fault of ours must not end a night's run, nor pass for a verdict
        return Grade("undecided", f"fault in the grader: {error!r}", answer.text[:1000])
    return None if same is None else _verdict(same, answer, gold, options)


def _settle(answer: Answer, gold: Answer, options: GradeOptions) -> Grade:
    """The verdict of a worker."""
    from spotcli.grading.algebra.pool import WorkerLost, pool

    request = {"gold": gold.text, "answer": answer.text, "rules": asdict(_rules(options))}
    try:
        reply = pool().ask(request, options.seconds)
    except WorkerLost as lost:
        return Grade("undecided", str(lost), answer.text)
    if reply["same"] is None:
        return Grade("undecided", reply["reason"] or "neither equality nor difference could be proved", answer.text)
    return _verdict(bool(reply["same"]), answer, gold, options)


def _verdict(same: bool, answer: Answer, gold: Answer, options: GradeOptions) -> Grade:
    from spotcli.grading.compare.leaves import lone_letter

    if same:
        return Grade("right", "", answer.text)
    if answer.last is not None:  # several boxes in a row, of which the last alone may be the answer
        last = grade(f"\\boxed{{{answer.last}}}", f"\\boxed{{{gold.text}}}", options)
        if last.verdict != "wrong":
            return Grade("undecided", "several boxes, and only the last one agrees", answer.text)
    if answer.kind == "announced" and len(answer.text) > 60 and not lone_letter(gold.text):
        return Grade("undecided", "the announced answer is a sentence", answer.text)
    return Grade("wrong", "", answer.text)
