"""Grade what a policy answered: a truncated completion, or one without a reference answer, is undecided."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from spotcli.grading import Grade, Grader, grade_many, in_threads
from spotcli.grading.algebra.pool import shared_pool
from spotcli.grading.kinds import best_grade, get_grader, grade_any, grader_of
from spotcli.records import FinishReason, Problem

TRUNCATED = "truncated"
"""Reason of completions that reached the token limit: they are no evidence of a mistake."""
JOBS = 2
"""Workers that check instructions."""
NO_REFERENCE = "no reference answer"


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
    return grade_any(grader, completion.response, completion.problem.references)


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
    for (index, _), grade in zip(by_reference, grade_many(pairs), strict=True):
        all_grades.setdefault(index, []).append(grade)
    grades = {index: best_grade(several) for index, several in all_grades.items()}
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


def _why_undecided(completion: Completion) -> str | None:
    if completion.finish_reason == "length":
        return TRUNCATED
    return NO_REFERENCE if completion.problem.reference is None else None
