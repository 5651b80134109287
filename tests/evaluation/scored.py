"""Graded answers made by hand: a task as one string of marks per problem."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from spotcli.evaluation.asked_tasks import ModelRows
from spotcli.evaluation.scores import EvalSummary, TaskFacts
from spotcli.evaluation.summary import summarise
from spotcli.records import Score

MARKS: dict[str, dict[str, Any]] = {
    "r": {"verdict": "right", "extracted": "42"},
    "w": {"verdict": "wrong", "extracted": "7"},
    "v": {"verdict": "wrong", "extracted": "8"},
    "n": {"verdict": "wrong"},
    "y": {"verdict": "right"},
    "u": {"verdict": "undecided", "extracted": "x + 1", "reason": "could not prove it"},
    "t": {"verdict": "undecided", "extracted": "3", "finish_reason": "length", "reason": "truncated"},
}
"""Fields of an answer: right, wrong, another wrong one, wrong and right without an extracted answer, undecided,
truncated."""


def rows(task: str, problems: Sequence[str], **fields: Any) -> list[Score]:
    """The answers to the problems of a task: one string per problem, with one mark per trial."""
    return [
        Score.model_validate(
            {"id": f"p{index}", "prompt": "?", "task": task, "trial": trial, "response": "", "finish_reason": "stop"}
            | {"tokens": 10}
            | fields
            | MARKS[mark]
        )
        for index, marks in enumerate(problems)
        for trial, mark in enumerate(marks)
        if mark != "-"
    ]


def model(name: str, tasks: Mapping[str, Sequence[str]], **facts: Any) -> ModelRows:
    """A model's answers to several tasks."""
    answers = [row for task, problems in tasks.items() for row in rows(task, problems)]
    return ModelRows(name, f"scores/{name}.jsonl", answers, **facts)


def compared(
    before: Mapping[str, Sequence[str]],
    after: Mapping[str, Sequence[str]],
    *,
    trained: Sequence[str] = ("arithmetic",),
    margin: float = 0.02,
    **facts: Any,
) -> EvalSummary:
    """The summary of a tuned model against its base model."""
    return summarise(
        [model("base", before), model("tuned", after, **facts)],
        {task: TaskFacts() for task in before},
        compared=True,
        trained=trained,
        margin=margin,
    )
