"""Two-step mental arithmetic: the test split of ``spotcli.problems.arithmetic``."""

from __future__ import annotations

from spotcli import grading
from spotcli.grading import Grade
from spotcli.problems.arithmetic import take
from spotcli.records import Problem

TRIALS = 1
MAX_NEW_TOKENS = 48


def problems(seed: int, limit: int | None = None) -> list[Problem]:
    """The held-out problems: 400 by default."""
    return take(seed, "test", limit or 400)


def grade(response: str, reference: str) -> Grade:
    """Compare the boxed number with the true one."""
    return grading.grade(response, reference)
