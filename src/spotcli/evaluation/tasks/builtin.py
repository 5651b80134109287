"""The built-in tasks, as declarations."""

from __future__ import annotations

from spotcli.evaluation.tasks import connect4
from spotcli.evaluation.tasks.task import Task, TaskContext
from spotcli.problems import arithmetic
from spotcli.records import Problem

ARITHMETIC_PROBLEMS = 400
"""Held-out problems of ``arithmetic``; ``eval.limit`` may ask for more."""


def _arithmetic(context: TaskContext) -> list[Problem]:
    """The test split of two-step mental arithmetic."""
    return arithmetic.take(context.seed, "test", context.limit or ARITHMETIC_PROBLEMS)


BUILTIN = {
    task.name: task
    for task in (
        Task("arithmetic", _arithmetic, trials=1, max_new_tokens=48, group="in-domain"),
        connect4.TASK,
    )
}
"""The built-in tasks by name."""
