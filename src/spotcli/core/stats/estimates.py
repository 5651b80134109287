"""Means over problems with their intervals. The unit is the problem.

Repeated answers to one problem are not independent, so trials are never counted as if they were problems.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import atan, cos, pi, sin, sqrt
from statistics import NormalDist, fmean

Outcomes = Mapping[str, Sequence[float]]
"""The outcomes of all trials of each problem, by the key of the problem."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over problems with its confidence interval."""

    mean: float
    low: float
    high: float
    error: float
    """Standard error, clustered by problem."""
    problems: int
    trials: int
    """Answers to all problems together."""


def avg_at_k(outcomes: Outcomes, *, confidence: float = 0.95) -> Estimate:
    """Return the mean over problems of each problem's mean over trials, with an interval clustered by problem.

    With m_p the mean of problem p, m the mean of all m_p and n the number of problems:

        error    = sqrt( sum (m_p - m)^2 / (n (n - 1)) )
        interval = Wilson's, with n_eff instead of n:  n_eff = n * m (1 - m) / (sum (m_p - m)^2 / n)

    The error is the clustered standard error of Miller, "Adding Error Bars to Evals" (arXiv 2411.00640), for clusters
    of equal size. The interval is Wilson's score interval (1927) with the effective sample size, as Dean and Pagano
    (2015) recommend for proportions in clustered samples: it is inside [0, 1] and is not a point if the mean is 0 or 1.
    With one trial per problem n_eff is n, so the result is the plain Wilson interval. n_eff is at most the number of
    answers; it is n if the mean is 0 or 1.

    Raises:
        ValueError: no problem is given, or a problem has no outcome.
    """
    means = problem_means(outcomes)
    n, trials = len(means), sum(map(len, outcomes.values()))
    mean = fmean(means)
    squares = sum((problem_mean - mean) ** 2 for problem_mean in means)
    spread = mean * (1 - mean)
    effective = float(n) if spread <= 0 else min(float(trials), n * spread * n / squares if squares else float(trials))
    z = normal_quantile(confidence)
    centre = (mean + z * z / (2 * effective)) / (1 + z * z / effective)
    half = z / (1 + z * z / effective) * sqrt(max(spread, 0) / effective + z * z / (4 * effective**2))
    error = sqrt(squares / (n * (n - 1))) if n > 1 else 0.0
    return Estimate(mean, max(centre - half, 0.0), min(centre + half, 1.0), error, n, trials)


def problem_means(outcomes: Outcomes) -> list[float]:
    if not outcomes:
        raise ValueError("expected at least one problem, got none")
    for key, trials in outcomes.items():
        if not trials:
            raise ValueError(f"problem {key!r} has no outcomes")
    return [fmean(trials) for trials in outcomes.values()]


def normal_quantile(confidence: float) -> float:
    """Return z such that a share ``confidence`` of the normal distribution is between -z and z."""
    return NormalDist().inv_cdf((1 + confidence) / 2)


def student_quantile(confidence: float, degrees: int) -> float:
    """Return t such that a share ``confidence`` of Student's distribution is between -t and t."""
    if degrees > 2000:
        return normal_quantile(confidence)
    low, high = 0.0, 1e6
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if _student_share(middle, degrees) < confidence else (low, middle)
    return high


def _student_share(t: float, degrees: int) -> float:
    """Return the share of Student's distribution between -t and t (Abramowitz and Stegun, 26.7.3 and 26.7.4)."""
    angle = atan(t / sqrt(degrees))
    odd = degrees % 2
    term = cos(angle) if odd else 1.0
    total = term if degrees > 1 else 0.0
    for place in range(2 + odd, degrees - 1, 2):
        term *= cos(angle) ** 2 * (place - 1) / place
        total += term
    return 2 / pi * (angle + sin(angle) * total) if odd else sin(angle) * total
