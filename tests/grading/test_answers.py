"""Completions that cannot be right or wrong never reach a grader."""

from __future__ import annotations

import pytest

from spotcli.errors import UserError
from spotcli.grading import Grade
from spotcli.grading.answers import Completion, grade_answer, grade_answers
from spotcli.records import FinishReason, Problem


def completion(
    response: str, answer: str | None, finish_reason: FinishReason = "stop", grader: str | None = None
) -> Completion:
    return Completion(Problem(prompt="?", answer=answer, grader=grader), response, finish_reason)


def exact(response: str, reference: str) -> Grade:
    return Grade("right" if response == reference else "wrong")


def test_a_truncated_completion_is_undecided() -> None:
    assert grade_answer(completion("4", "4", "length"), exact) == Grade("undecided", "truncated")
    assert grade_answer(completion("4", None, "length"), exact) == Grade("undecided", "truncated")


def test_a_completion_without_a_reference_is_undecided() -> None:
    assert grade_answer(completion("4", None), exact) == Grade("undecided", "no reference answer")


def test_the_grader_decides_otherwise() -> None:
    assert grade_answer(completion("4", "4"), exact).verdict == "right"
    assert grade_answer(completion("5", "4"), exact).verdict == "wrong"


def test_many_completions_keep_their_order_and_their_graders() -> None:
    completions = [
        completion("\\boxed{4}", "4"),
        completion("\\boxed{4}", "4", "length"),
        completion("The answer is (B).", "B", grader="choice"),
        completion("\\boxed{5}", "4"),
        completion("\\boxed{5}", None),
        completion("\\boxed{x + x}", "2x"),
    ]
    verdicts = ["right", "undecided", "right", "wrong", "undecided", "right"]
    assert [grade.verdict for grade in grade_answers(completions, "math")] == verdicts
    assert grade_answers([], "math") == []


def test_an_unknown_grader_is_a_user_error() -> None:
    with pytest.raises(UserError):
        grade_answers([completion("4", "4", grader="chioce")], "math")
