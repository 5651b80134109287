"""The reward functions of exported folders: an answer is graded as ``spot sample`` grades it.

right 1.0, wrong 0.0. An undecided answer is neither; the exported reward file sets what it counts as.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from spotcli.grading import Grade
from spotcli.grading.answers import Completion, grade_answers
from spotcli.records import Problem

GRADED_BY = ("id", "answer", "accepted_answers", "grader", "error", "answer_type")
"""Fields of a problem that its grade depends on; they travel with the prompt as JSON."""


def graded_fields(problem: Problem) -> str:
    """The fields that a grade depends on, as JSON."""
    fields = problem.model_dump(mode="json")
    return json.dumps({name: fields[name] for name in GRADED_BY if fields.get(name) is not None})


def verl_score(
    response: str, reference: str, extra_info: Mapping[str, Any] | None, *, grader: str, undecided: float
) -> dict[str, float]:
    """The result of verl's ``compute_score``: ``score``, and metrics of the same keys for every answer.

    Args:
        response: the answer.
        reference: the reference answer; used where ``extra_info`` has no problem.
        extra_info: the column of the exported file.
        grader: grades problems that name no grader.
        undecided: the score of an undecided answer.

    Raises:
        UserError: the grader is unknown.
    """
    problem = (extra_info or {}).get("problem") or json.dumps({"answer": str(reference)})
    (grade,) = _grades([problem], [response], grader)
    return {
        "score": _reward(grade, undecided),
        "acc": float(grade.verdict == "right"),
        "undecided": float(grade.verdict == "undecided"),
    }


def trl_rewards(
    problems: Sequence[str], completions: Sequence[Any], *, grader: str, undecided: float | None
) -> list[float | None]:
    """The result of a reward function of TRL; None means that the completion does not change the policy.

    Args:
        problems: the column ``problem`` of the exported file.
        completions: texts, or chats whose messages are the completion.
        grader: grades problems that name no grader.
        undecided: the reward of an undecided answer.

    Raises:
        UserError: the grader is unknown.
    """
    return [_reward(grade, undecided) for grade in _grades(problems, list(map(_text, completions)), grader)]


def _grades(problems: Sequence[str], responses: Sequence[str], grader: str) -> list[Grade]:
    completions = [
        Completion(Problem.model_validate({"prompt": "exported", **json.loads(problem)}), response, "stop")
        for problem, response in zip(problems, responses, strict=True)
    ]
    return grade_answers(completions, grader)


def _text(completion: Any) -> str:
    if isinstance(completion, str):
        return completion
    return "".join(str(message.get("content") or "") for message in completion)


def _reward(grade: Grade, undecided: Any) -> Any:
    return undecided if grade.verdict == "undecided" else float(grade.verdict == "right")
