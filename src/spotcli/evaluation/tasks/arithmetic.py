"""Two-step mental arithmetic, generated from a seed: small enough for a small model to slip, not to fail.

Each problem is a chat with two worked examples as earlier turns, so that a model which was never taught the format
answers in it: one step a line, the last line boxed. A problem belongs to the train or to the test split by a hash of
its expression, so the splits are disjoint whatever the seed.
"""

from __future__ import annotations

from spotcli import grading
from spotcli.grading import Grade
from spotcli.problems.arithmetic import take
from spotcli.records import Problem

TRIALS = 1
MAX_NEW_TOKENS = 48


def problems(seed: int, limit: int | None = None) -> list[Problem]:
    """The held-out problems: 400 unless limited."""
    return take(seed, "test", limit or 400)


def grade(response: str, problem: Problem) -> Grade:
    """The boxed number against the true one."""
    return grading.grade(response, problem.answer or "")
