"""Averages over tasks: every task has the same weight, whatever its number of problems. Tasks are independent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from statistics import fmean

from spotcli.core.stats.estimates import Estimate, normal_quantile, student_quantile
from spotcli.core.stats.paired import Comparison


@dataclass(frozen=True, slots=True)
class Average:
    """A mean over tasks with its confidence interval."""

    mean: float
    low: float
    high: float
    error: float
    """Standard error: sqrt( sum e_i^2 ) / m of m tasks, with the errors e_i clustered by problem."""
    tasks: list[str]


def average_score(estimates: Mapping[str, Estimate]) -> Average:
    """Return the mean of the scores of several tasks with its interval.

    With s_i the score of task i, l_i and u_i the ends of its interval and m tasks:

        s        = sum s_i / m
        interval = s - sqrt( sum (s_i - l_i)^2 ) / m  to  s + sqrt( sum (u_i - s_i)^2 ) / m

    The variance of a mean of independent estimates is the sum of their variances over m^2. It is recovered from the
    tasks' own intervals, below and above (Zou and Donner 2008, "Construction of confidence limits about effect
    measures"), because the standard error is 0 if all answers to a task are right, however few its problems are. The
    interval is inside [0, 1]; of one task it is the task's own.

    Args:
        estimates: by task, all with the same confidence, which the result has too.

    Raises:
        ValueError: no task is given.
    """
    _require(estimates)
    parts = list(estimates.values())
    mean = fmean(part.mean for part in parts)
    below = sqrt(sum((part.mean - part.low) ** 2 for part in parts)) / len(parts)
    above = sqrt(sum((part.high - part.mean) ** 2 for part in parts)) / len(parts)
    error = sqrt(sum(part.error**2 for part in parts)) / len(parts)
    return Average(mean, max(mean - below, 0.0), min(mean + above, 1.0), error, list(estimates))


def average_change(comparisons: Mapping[str, Comparison], *, confidence: float = 0.95) -> Average:
    """Return the mean of the differences after - before of several tasks with its interval.

    With d_i the difference of task i, e_i its standard error, n_i its number of problems and m tasks:

        d        = sum d_i / m
        v_i      = e_i^2 + 1 / (2 m n_i (n_i - 1))
        interval = d -+ t(f) * sqrt( sum v_i ) / m,  f = (sum v_i)^2 / sum ( v_i^2 / (n_i - 1) )

    f are the degrees of freedom of a sum of variances (Satterthwaite 1946), rounded down. The addition is that of
    ``paired_interval`` for several trials; all tasks share one, so tasks of equal size are nearly one set of all their
    problems. The tasks' own additions would make the interval too wide: coverage would be up to 99 %
    (docs/evaluation.md). Of one task the interval is the task's own, and v_i of a single problem is taken from it.

    Args:
        comparisons: by task.
        confidence: of the interval, and of those of the comparisons.

    Raises:
        ValueError: no task is given.
    """
    _require(comparisons)
    parts, number = list(comparisons.values()), len(comparisons)
    mean, error = fmean(part.difference for part in parts), sqrt(sum(part.error**2 for part in parts)) / number
    if number == 1:
        return Average(mean, parts[0].low, parts[0].high, error, list(comparisons))
    variances = [
        part.error**2 + 1 / (2 * number * part.problems * (part.problems - 1))
        if part.problems > 1
        else ((part.high - part.low) / (2 * normal_quantile(confidence))) ** 2
        for part in parts
    ]
    total = sum(variances)
    shares = (variance**2 / max(part.problems - 1, 1) for variance, part in zip(variances, parts, strict=True))
    # Equal tasks give a whole number, which rounding of floats must not lower by one.
    degrees = max(1, int(total**2 / sum(shares) + 1e-9))
    half = student_quantile(confidence, degrees) * sqrt(total) / number
    return Average(mean, max(mean - half, -1.0), min(mean + half, 1.0), error, list(comparisons))


def _require(tasks: Mapping[str, object]) -> None:
    if not tasks:
        raise ValueError("expected at least one task, got none")
