"""Means over problems with their intervals. The unit is the problem.

Repeated answers to one problem are not independent, so trials are never counted as if they were problems.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import atan, cos, exp, lgamma, log, log1p, pi, sin, sqrt
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


def avg_at_k(outcomes: Outcomes, *, weights: Mapping[str, float] | None = None, confidence: float = 0.95) -> Estimate:
    """Return the mean over problems of each problem's mean over trials, with an interval clustered by problem.

    With m_p the mean of problem p, w_p its weight (1 by default), W the sum of all weights, m = sum w_p m_p / W and n
    the number of problems:

        error    = sqrt( n / (n - 1) * sum w_p^2 (m_p - m)^2 ) / W
        interval = Wilson's, with n_eff instead of n and, for several trials, Student's quantile t(n - 1):
                   n_eff = (n + 1) / n * m (1 - m) W^2 / (sum w_p^2 (m_p - m)^2 + m (1 - m) sum w_p^2 / n)

    The error is the clustered standard error of Miller, "Adding Error Bars to Evals" (arXiv 2411.00640), for clusters
    of equal size, and that of a ratio for others. The interval is Wilson's score interval (1927) with the effective
    sample size, as Dean and Pagano (2015) recommend for proportions in clustered samples: it is inside [0, 1] and is
    not a point if the mean is 0 or 1. With one trial per problem and equal weights n_eff is n, so the result is the
    plain Wilson interval. The last term of n_eff is one more problem, as variable as a single trial: with few problems
    the observed variance is often too small. n_eff is at most the number of answers; it is n if the mean is 0 or 1.

    Args:
        outcomes: the outcomes of each problem.
        weights: weight of each problem, such as its number of instructions; all of them, or None.
        confidence: of the interval.

    Raises:
        ValueError: no problem is given, a problem has no outcome, or the weights add up to 0.
    """
    means = problem_means(outcomes)
    shares = [1.0 if weights is None else weights[key] for key in outcomes]
    n, trials, total = len(means), sum(map(len, outcomes.values())), sum(shares)
    if total <= 0:
        raise ValueError("the weights add up to 0")
    mean = sum(share * problem_mean for share, problem_mean in zip(shares, means, strict=True)) / total
    squares = sum((share * (problem_mean - mean)) ** 2 for share, problem_mean in zip(shares, means, strict=True))
    spread = mean * (1 - mean)
    one_more = spread * fmean(share**2 for share in shares)
    effective = min(float(trials), (n + 1) / n * spread * total**2 / (squares + one_more)) if spread > 0 else float(n)
    q = student_quantile(confidence, n - 1) if trials > n > 1 else normal_quantile(confidence)
    centre = (mean + q * q / (2 * effective)) / (1 + q * q / effective)
    half = q / (1 + q * q / effective) * sqrt(max(spread, 0) / effective + q * q / (4 * effective**2))
    error = sqrt(squares * n / (n - 1)) / total if n > 1 else 0.0
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


def exact_interval(hits: int, trials: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Return the exact interval of a proportion by Clopper and Pearson (1934).

    The bounds are the proportions at which ``hits`` or more, and ``hits`` or fewer, of ``trials`` have the probability
    (1 - confidence) / 2. 7 of 100: 0.029 to 0.139.

    Raises:
        ValueError: there is no trial, or ``hits`` is not in 0..trials.
    """
    if trials < 1 or not 0 <= hits <= trials:
        raise ValueError(f"expected 0 <= hits <= trials and a trial, got {hits} of {trials}")
    tail = (1 - confidence) / 2
    low = 0.0 if hits == 0 else _root(lambda share: 1 - _at_most(hits - 1, trials, share) < tail)
    high = 1.0 if hits == trials else _root(lambda share: _at_most(hits, trials, share) > tail)
    return low, high


def _at_most(hits: int, trials: int, share: float) -> float:
    """Return the probability of at most ``hits`` of ``trials`` if each has the probability ``share``, in (0, 1)."""
    terms = (
        lgamma(trials + 1) - lgamma(k + 1) - lgamma(trials - k + 1) + k * log(share) + (trials - k) * log1p(-share)
        for k in range(hits + 1)
    )
    return sum(map(exp, terms))


def _root(is_below: Callable[[float], bool]) -> float:
    """Return the end of the shares from 0 for which the condition is true."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if is_below(middle) else (low, middle)
    return (low + high) / 2
