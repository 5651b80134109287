"""Completions that cannot be right or wrong never reach a grader."""

from __future__ import annotations

from typing import Any

import pytest

from spotcli.errors import UserError
from spotcli.grading import Grade, grade
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


OLYMPIAD: dict[str, Any] = {
    "prompt": "Determine r correct to one decimal place.",
    "final_answer": ["4.2"],
    "answer": "4.2",
    "answer_type": "Numerical",
    "error": "1e-1",
}
"""A row of OlympiadBench whose answer has a tolerance."""


def graded(text: str, **fields: Any) -> str:
    problem = Problem.model_validate(OLYMPIAD | fields)
    (result,) = grade_answers([Completion(problem, f"\\boxed{{{text}}}", "stop")], "math")
    assert result == grade_answer(Completion(problem, f"\\boxed{{{text}}}", "stop"), grade)
    return result.verdict


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ("4.2", "right"),
        ("4.21", "right"),
        ("4.3", "right"),  # 4.3 - 4.2 = 0.1 is the tolerance
        ("4.10", "right"),
        ("4.31", "wrong"),
        ("4.0999", "wrong"),
        (r"\frac{17}{4}", "right"),
        (r"\frac{22}{5}", "wrong"),
        ("r=4.15", "right"),
        (r"4.15\%", "right"),
        (r"4.15\text{ percent}", "right"),
        ("5", "wrong"),
        ("-4.2", "wrong"),
    ],
)
def test_a_published_tolerance_decides(answer: str, verdict: str) -> None:
    assert graded(answer) == verdict


@pytest.mark.parametrize("answer", [r"4.2 \text{ or } 4.3", "x+4.21", r"\text{about four}", "4.21x", "(4.21, 4.2)"])
def test_what_is_no_number_is_not_within_a_tolerance(answer: str) -> None:
    assert graded(answer) != "right"


def test_only_a_published_tolerance_of_a_number_counts() -> None:
    assert graded("4.3", error=None) == "wrong"
    assert graded("4.21", error=None) == "undecided"
    for error in ("0", "-1", "1e-1,1e-2", "inf", "nan", "1e999", "x" * 5000, ["1e-1"], True):
        assert graded("4.3", error=error) == "wrong"
    # Other sets have other meanings of a column of this name.
    assert graded("4.3", answer_type=None) == "wrong"
    assert graded("4.3", error=0.1) == "right"
    assert graded("(1, 2.01)", answer="(1, 2)") != "right"
    # A user's own checker decides alone.
    assert grade_answer(Completion(Problem.model_validate(OLYMPIAD), "4.3", "stop"), exact).verdict == "wrong"


def test_a_tolerance_does_not_settle_other_doubts() -> None:
    problem = Problem.model_validate(OLYMPIAD)
    texts = ["\\boxed{4.21} or \\boxed{9}", "no number", "\\boxed{4.21"]
    for text in texts:
        assert grade_answer(Completion(problem, text, "stop"), grade).verdict != "right"
    assert grade_answer(Completion(problem, "\\boxed{4.21}", "length"), grade).verdict == "undecided"
