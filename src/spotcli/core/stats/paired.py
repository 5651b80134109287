"""Two models on the same problems: the difference, its interval, paired tests, and the correction for many tasks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import erfc, gcd, lcm, sqrt
from statistics import fmean
from typing import NamedTuple

from spotcli.core.stats.estimates import Outcomes, normal_quantile, problem_means, student_quantile

MAX_BYTES = 4 * 10**9
"""Bytes that the exact sign-flip test may add up, with one addition per problem. Above it the test uses the normal
limit, which is accurate for so many problems."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The scores of two models on the same problems, and a test of their difference."""

    before: float
    after: float
    difference: float
    """After minus before."""
    low: float
    high: float
    error: float
    """Standard error of the difference, clustered by problem, with paired problems."""
    p_value: float
    """Two-sided p-value of ``test``."""
    test: str
    """``McNemar, exact`` for one trial per problem, else ``sign flip, exact``, or ``sign flip, normal`` for very many
    problems."""
    wins: int
    """Problems on which the second model is better."""
    losses: int
    """Problems on which the first model is better."""
    ties: int
    problems: int
    trials: int
    """Answers of each model to all problems together."""


def compare(before: Outcomes, after: Outcomes, *, confidence: float = 0.95) -> Comparison:
    """Compare two models on the same problems: the difference after - before, its interval, and a paired test.

    The interval is that of ``paired_interval``. The test is McNemar's exact test for one trial per problem, else the
    sign-flip test.

    Raises:
        ValueError: no problem is given, the two sides have different problems, or a problem has a different number of
            trials on the two sides, or none.
    """
    changes = paired_changes(before, after)
    n, trials = len(changes), sum(map(len, before.values()))
    single = trials == n
    interval = paired_interval(changes, single=single, confidence=confidence)
    # Fractions, so that a tie is a tie.
    steps = [_change(before[key], after[key]) for key in before]
    wins, losses = sum(step > 0 for step in steps), sum(step < 0 for step in steps)
    if single and all(abs(step) in (0, 1) for step in steps):
        test, p_value = "McNemar, exact", mcnemar(wins, losses)
    else:
        test, p_value = sign_flip(steps)
    return Comparison(
        before=fmean(problem_means(before)),
        after=fmean(problem_means(after)),
        difference=fmean(changes),
        low=interval.low,
        high=interval.high,
        error=interval.error,
        p_value=p_value,
        test=test,
        wins=wins,
        losses=losses,
        ties=n - wins - losses,
        problems=n,
        trials=trials,
    )


class Interval(NamedTuple):
    """An interval of a mean of paired changes, and the standard error of the mean."""

    low: float
    high: float
    error: float


def paired_interval(changes: Sequence[float], *, single: bool, confidence: float = 0.95) -> Interval:
    """Return the interval of the mean d of the changes d_p of n problems.

        one trial per problem   adjusted Wald interval for paired proportions (Bonett and Price 2012): the interval of
                                the mean of all d_p and of one added +1 and one added -1
        more trials             d -+ t(n - 1) * sqrt( (sum (d_p - d)^2 + 1/2) / (n (n - 1)) ): the paired interval of
                                Miller (arXiv 2411.00640) with Student's quantile, and the squares of one added +1/2
                                and one added -1/2

    Without the added squares, the interval is too narrow for few problems that many trials make precise: a change that
    only few problems show is missed by half of all samples, and then the coverage of 95 % intervals was 84 %
    (docs/evaluation.md). With 200 problems the addition widens the interval by 1 to 9 %. A single problem always has
    the interval of Bonett and Price. The standard error is sqrt( sum (d_p - d)^2 / (n (n - 1)) ).
    """
    n, difference = len(changes), fmean(changes)
    squares = sum((change - difference) ** 2 for change in changes)
    error = sqrt(squares / (n * (n - 1))) if n > 1 else 0.0
    if single or n == 1:
        centre, adjusted = adjusted_mean(changes)
        half = normal_quantile(confidence) * adjusted
    else:
        centre, half = difference, student_quantile(confidence, n - 1) * sqrt((squares + 0.5) / (n * (n - 1)))
    return Interval(max(centre - half, -1.0), min(centre + half, 1.0), error)


def adjusted_mean(changes: Sequence[float]) -> tuple[float, float]:
    """Return the mean and its standard error after one +1 and one -1 are added to the changes."""
    n = len(changes) + 2
    mean = sum(changes) / n
    return mean, sqrt(((sum(change**2 for change in changes) + 2) / n - mean**2) / n)


def paired_changes(before: Outcomes, after: Outcomes) -> list[float]:
    """Return each problem's mean in ``after`` minus its mean in ``before``, in the order of ``before``.

    Raises:
        ValueError: no problem is given, the two sides have different problems, or a problem has a different number of
            trials on the two sides, or none.
    """
    if before.keys() != after.keys():
        unmatched = sorted(before.keys() ^ after.keys())
        raise ValueError(f"{len(unmatched)} problems have answers of one model only, such as {unmatched[0]!r}")
    uneven = [key for key in before if len(before[key]) != len(after[key])]
    if uneven:
        raise ValueError(f"{len(uneven)} problems have different numbers of trials, such as {uneven[0]!r}")
    old, new = problem_means(before), problem_means({key: after[key] for key in before})
    return [later - earlier for earlier, later in zip(old, new, strict=True)]


def mcnemar(wins: int, losses: int) -> float:
    """Return the two-sided p-value of McNemar's exact test for paired yes/no outcomes.

    With b wins and c losses, each of the b + c problems is a win with probability 1/2 if the models are equally good:
    p = min(1, 2 * sum of C(b + c, i) for i up to min(b, c), / 2^(b + c)) (McNemar 1947, exact form).
    """
    flips = wins + losses
    tail = term = 1
    for place in range(min(wins, losses)):
        term = term * (flips - place) // (place + 1)
        tail += term
    return min(1.0, float(Fraction(2 * tail, 1 << flips)))


def sign_flip(changes: Sequence[Fraction]) -> tuple[str, float]:
    """Return the name and the two-sided p-value of the sign-flip test (Fisher's randomisation test) on paired changes.

    If the models are equally good, their answers to a problem can be exchanged, so each change is as likely as its
    negative. The p-value is the share of the 2^n sign choices whose sum is at least as far from 0 as the observed sum.
    All sign choices are counted, not sampled, so the test has no seed. On changes of -1, 0 and 1 it is McNemar's exact
    test. Above ``MAX_BYTES`` of work it uses the normal limit with variance ``sum of change^2``.

    Args:
        changes: the mean of each problem after minus before; exact fractions, so that equal sums compare as equal.
    """
    sizes = [abs(change) for change in changes if change]
    observed = abs(sum(changes, Fraction(0)))
    if not observed:
        return "sign flip, exact", 1.0
    unit = Fraction(gcd(*(size.numerator for size in sizes)), lcm(*(size.denominator for size in sizes)))
    whole = sorted(int(size / unit) for size in sizes)
    width = len(whole) // 8 + 1
    if sum(whole) * width * len(whole) > MAX_BYTES:
        # Adjacent sums differ by two units; half of that is the usual continuity correction.
        return "sign flip, normal", erfc(float(observed - unit) / sqrt(2 * sum(float(size) ** 2 for size in sizes)))
    # A polynomial as one integer with ``width`` bytes per coefficient: the coefficient of x^j counts the sign choices
    # whose positive changes sum to j. Each change multiplies it by 1 + x^change, which is a shift and an addition.
    ways = 1
    for size in whole:
        ways += ways << (8 * width * size)
    total = sum(whole)
    least = (total + int(observed / unit)) // 2
    coefficients = (ways >> (8 * width * least)).to_bytes((total - least + 1) * width, "little")
    offsets = range(0, len(coefficients), width)
    tail = sum(int.from_bytes(coefficients[offset : offset + width], "little") for offset in offsets)
    return "sign flip, exact", min(1.0, float(Fraction(2 * tail, 1 << len(whole))))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Return the p-values corrected for their number (Holm 1979): at most ``alpha`` chance of any false finding.

    The i-th smallest of m p-values is multiplied by m - i + 1; no result is smaller than the one before, or above 1.
    """
    corrected: dict[str, float] = {}
    largest = 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[name]))
        corrected[name] = largest
    return {name: corrected[name] for name in p_values}


def _change(before: Sequence[float], after: Sequence[float]) -> Fraction:
    return (_total(after) - _total(before)) / len(after)


def _total(trials: Iterable[float]) -> Fraction:
    # An outcome such as 2/3 (instructions followed) is a float with a denominator of up to 2^53.
    return sum((Fraction(outcome).limit_denominator(1000) for outcome in trials), Fraction(0))
