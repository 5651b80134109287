"""Benchmarks, one a file: where the rows come from, how the question is put, how an answer is graded.

A task is a module with the names of ``Task``. ``find`` loads it by name; nothing else is registered anywhere.
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
    """What a task's module holds."""

    TRIALS: int
    """Answers a problem (k of avg@k) unless the user says otherwise."""
    MAX_NEW_TOKENS: int
    """What an answer may need at most."""

    def problems(self, seed: int, limit: int | None = None) -> list[Problem]:
        """The held-out problems; the same for the same seed."""

    def grade(self, response: str, problem: Problem) -> Grade:
        """The verdict of one answer."""


def find(name: str) -> Task:
    """The task of that name.

    Raises:
        UserError: there is none, with the nearest name.
    """
    if name not in NAMES:
        raise UserError(f"there is no task '{name}'", cure=suggest(name, list(NAMES)))
    return cast(Task, import_module(f"spotcli.evaluation.tasks.{name}"))
