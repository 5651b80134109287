"""Grade what a policy answered: a truncated completion, or one without a reference answer, is undecided."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any

from spotcli.grading import Grade, Grader, grade, grade_many, in_threads
from spotcli.grading.algebra.pool import shared_pool
from spotcli.grading.compare.exact_numbers import NotANumber, read_number
from spotcli.grading.compare.leaves import ROUNDED
from spotcli.grading.kinds import best_grade, get_grader, grade_any, grader_of
from spotcli.grading.latex import tidy
from spotcli.records import FinishReason, Problem

TRUNCATED = "truncated"
"""Reason of completions that reached the token limit: they are no evidence of a mistake."""
JOBS = 2
"""Workers that check instructions."""
NO_REFERENCE = "no reference answer"

_LITERAL = re.compile(r"-?\d+(?:\.\d+)?|-?\.\d+")
_SHORT = 200
"""Characters of an answer that can be one number with its unit."""


@dataclass(frozen=True, slots=True)
class Completion:
    """What a policy answered to a problem, not graded yet."""

    problem: Problem
    response: str
    finish_reason: FinishReason


def grade_answer(completion: Completion, grader: Grader) -> Grade:
    """Grade one completion; ``grader`` sees only completions that can be right or wrong."""
    if reason := _why_undecided(completion):
        return Grade("undecided", reason)
    result = grade_any(grader, completion.response, completion.problem.references)
    return _tolerated(result, completion.problem) if grader is grade else result


def grade_answers(completions: Sequence[Completion], default: str) -> list[Grade]:
    """Grade completions in order, each as its problem asks for, else by the grader ``default``.

    Mathematics and instructions can be slow, so they are graded together by several workers.

    Raises:
        UserError: a problem names an unknown grader.
    """
    mathematics = [
        index
        for index, completion in enumerate(completions)
        if (completion.problem.grader or default) == "math" and not _why_undecided(completion)
    ]
    by_reference = [(index, text) for index in mathematics for text in completions[index].problem.references]
    all_grades: dict[int, list[Grade]] = {}
    pairs = ((completions[index].response, text) for index, text in by_reference)
    for (index, _), one in zip(by_reference, grade_many(pairs), strict=True):
        all_grades.setdefault(index, []).append(one)
    grades = {
        index: _tolerated(best_grade(several), completions[index].problem) for index, several in all_grades.items()
    }
    instructions = [
        index
        for index, completion in enumerate(completions)
        if (completion.problem.grader or default) == "instructions" and not _why_undecided(completion)
    ]
    work = [partial(grade_answer, completions[index], get_grader("instructions")) for index in instructions]
    if work:
        shared_pool("instructions").grow(JOBS)
    grades |= zip(instructions, in_threads(work, JOBS), strict=True)
    return [
        grades[index] if index in grades else grade_answer(completion, grader_of(completion.problem.grader, default))
        for index, completion in enumerate(completions)
    ]


def graded_fields(completion: Completion, grade: Grade) -> dict[str, Any]:
    """The fields that a row of graded answers has beside those of the problem."""
    return {
        "response": completion.response,
        "finish_reason": completion.finish_reason,
        "verdict": grade.verdict,
        "extracted": grade.extracted,
        "reason": grade.reason or None,
    }


def _tolerated(result: Grade, problem: Problem) -> Grade:
    """The grade in view of the problem's tolerance: a number within it is right, and one beyond it is wrong.

    An answer that another doubt leaves undecided stays so. A number with a unit is right if the reference answer with
    this unit is.
    """
    tolerance, reference, text = problem.tolerance, problem.reference, result.extracted
    rounded = result.verdict == "undecided" and result.reason == ROUNDED
    if tolerance is None or reference is None or not text or not (rounded or result.verdict == "wrong"):
        return result
    literals = _LITERAL.findall(text) if len(text) <= _SHORT else []
    try:
        gold, number = (read_number(tidy(one)) for one in (reference, literals[0] if len(literals) == 1 else text))
        gap = abs(Fraction(gold.value) - Fraction(number.value))
    except (NotANumber, ValueError):
        return result
    if len(literals) == 1:
        same_with_unit = text.replace(literals[0], reference.strip())
        if grade(f"\\boxed{{{same_with_unit}}}", reference).verdict != "right":
            return result
    return Grade("right" if gap <= tolerance else "wrong", "", text)


def _why_undecided(completion: Completion) -> str | None:
    if completion.finish_reason == "length":
        return TRUNCATED
    return NO_REFERENCE if completion.problem.reference is None else None
