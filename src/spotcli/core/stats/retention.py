"""Retention: whether a skill that was not trained is kept, lost, or whether the answers cannot tell.

A test without a significant difference proves nothing: few problems never show one. So retention is a test of
non-inferiority: the skill is kept if a loss as large as the margin is outside the interval.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist
from typing import Literal

from spotcli.core.stats.estimates import Outcomes, normal_quantile
from spotcli.core.stats.paired import compare

RetentionVerdict = Literal["kept", "lost", "cannot tell"]

POWER = 0.8
"""Chance with which ``excludable_loss`` is excluded, if nothing was lost."""


@dataclass(frozen=True, slots=True)
class Retention:
    """A test of non-inferiority of the second model; all numbers are shares."""

    verdict: RetentionVerdict
    margin: float
    """The largest loss that does not matter."""
    bound: float
    """Lower bound of the difference after - before, one-sided 97.5 % for 95 % confidence; losses beyond it are
    excluded."""
    excludable: float
    """The smallest loss that this number of problems and trials can exclude: with a chance of 80 % if nothing was
    lost."""

    @property
    def largest_loss(self) -> float:
        """The largest loss that is not excluded; 0 if a gain is shown."""
        return max(0.0, -self.bound)


def retained(before: Outcomes, after: Outcomes, *, margin: float, confidence: float = 0.95) -> Retention:
    """Test whether the second model kept the skill, problem by problem."""
    comparison = compare(before, after, confidence=confidence)
    verdict: RetentionVerdict = "cannot tell"
    if comparison.high < 0:
        verdict = "lost"
    elif comparison.low > -margin:
        verdict = "kept"
    excludable = (normal_quantile(confidence) + NormalDist().inv_cdf(POWER)) * comparison.error
    return Retention(verdict, margin, comparison.low, excludable)


def excludable_loss(problems: int, trials: int, *, within: float = 0.125, confidence: float = 0.95) -> float:
    """Return the smallest loss that this many problems and trials can exclude, before anything is known.

    Args:
        problems: number of problems.
        trials: answers per problem of each model.
        within: variance of an answer to one problem, p (1 - p), as a mean over problems.
        confidence: of the interval.
    """
    variance = (problems * 2 * within / trials + 2) / (problems + 2) / (problems + 2)
    return (normal_quantile(confidence) + NormalDist().inv_cdf(POWER)) * sqrt(variance)
