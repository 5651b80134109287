"""Benchmarks, one module each: their problems, and how an answer is graded.

A task is a module with the members of ``Task`` whose name is in ``NAMES``.
"""

from __future__ import annotations

from importlib import import_module
from typing import Protocol, cast

from spotcli.errors import UserError
from spotcli.grading import Grade
from spotcli.recipe import suggest
from spotcli.records import Problem

NAMES = ("arithmetic", "connect4")


class Task(Protocol):
    """The members of a task's module."""

    TRIALS: int
    """Default number of answers per problem: k of avg@k."""
    MAX_NEW_TOKENS: int
    """Maximum tokens that an answer needs."""

    def problems(self, seed: int, limit: int | None = None) -> list[Problem]:
        """The held-out problems; the same for the same seed."""

    def grade(self, response: str, reference: str, /) -> Grade:
        """Grade one answer against the reference answer of its problem."""


def load_task(name: str) -> Task:
    """Load a task by name.

    Raises:
        UserError: the task is unknown; the cure suggests the nearest name.
    """
    if name not in NAMES:
        raise UserError(f"unknown task '{name}'", where="eval.tasks", cure=suggest(name, list(NAMES)))
    return cast(Task, import_module(f"spotcli.evaluation.tasks.{name}"))
