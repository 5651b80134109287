"""How sure a score is, and whether two models differ: intervals and tests with the problem as the unit.

    k trials a problem -> the problem's mean -> mean over problems, interval, paired test

Repeated answers to one problem are not independent, so nothing here counts trials as if they were problems. Outcomes
are numbers in [0, 1], as a rule 1 for a right answer and 0 for any other; all results are shares in the same unit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import atan, cos, erfc, gcd, lcm, pi, sin, sqrt
from statistics import NormalDist, fmean

Outcomes = Mapping[str, Sequence[float]]
"""The outcomes of each problem's trials, by the problem's key."""

# The exact sign-flip distribution is built with one addition a problem; beyond this many bytes added its normal limit
# is taken, which problems in such numbers have long reached.
MAX_BYTES = 4 * 10**9


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over problems with its interval."""

    mean: float
    low: float
    high: float
    error: float
    """Standard error, clustered by problem."""
    problems: int
    trials: int
    """Answers in all."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two models on the same problems."""

    before: float
    after: float
    difference: float
    """After minus before."""
    low: float
    high: float
    error: float
    """Standard error of the difference, clustered by problem; problems are paired."""
    p_value: float
    """Two-sided; of ``test``."""
    test: str
    """``McNemar, exact`` for one trial a problem, else ``sign flip, exact``, or ``sign flip, normal`` for very many."""
    wins: int
    """Problems on which after is better."""
    losses: int
    """Problems on which before is better."""
    ties: int
    problems: int
    trials: int
    """Answers a side."""


def avg_at_k(outcomes: Outcomes, *, confidence: float = 0.95) -> Estimate:
    """The mean over problems of each problem's mean over trials, with an interval clustered by problem.

    With m_p the mean of problem p, m their mean and n the number of problems:

        error    = sqrt( sum (m_p - m)^2 / (n (n - 1)) )
        interval = Wilson's, with n_eff in the place of n:  n_eff = n * m (1 - m) / (sum (m_p - m)^2 / n)

    The error is the clustered one of Miller, "Adding Error Bars to Evals" (arXiv 2411.00640), for clusters of one size.
    The interval is Wilson's score interval (1927) with the effective sample size, as Dean and Pagano (2015) recommend
    for proportions in clustered samples: it stays in [0, 1] and does not shrink to a point at 0 and 1. With one trial a
    problem n_eff is n, so it is the plain Wilson interval. n_eff is at most the number of answers, and n where the mean
    is 0 or 1.

    Raises:
        ValueError: no problem, or a problem without an outcome.
    """
    means = _means(outcomes)
    n, trials = len(means), sum(map(len, outcomes.values()))
    mean = fmean(means)
    squares = sum((each - mean) ** 2 for each in means)
    spread = mean * (1 - mean)
    effective = float(n) if spread <= 0 else min(float(trials), n * spread * n / squares if squares else float(trials))
    z = _quantile(confidence)
    centre = (mean + z * z / (2 * effective)) / (1 + z * z / effective)
    half = z / (1 + z * z / effective) * sqrt(max(spread, 0) / effective + z * z / (4 * effective**2))
    error = sqrt(squares / (n * (n - 1))) if n > 1 else 0.0
    return Estimate(mean, max(centre - half, 0.0), min(centre + half, 1.0), error, n, trials)


def compare(before: Outcomes, after: Outcomes, *, confidence: float = 0.95) -> Comparison:
    """Whether ``after`` is better than ``before`` on the same problems, and by how much.

    The unit is the problem p with d_p = mean of after - mean of before; n problems, d their mean.

        one trial a problem   Bonett and Price (2012), adjusted Wald for paired proportions: the interval of the mean of
                              all d_p and of one +1 and one -1 more; McNemar's exact test
        more trials           d -+ t(n - 1) * sqrt( sum (d_p - d)^2 / (n (n - 1)) ), the paired interval of Miller
                              (arXiv 2411.00640) with Student's quantile; the exact sign-flip test

    Where all d_p are equal, Student's interval would be a point, and Bonett and Price's is given. ``error`` is the
    root above in both cases.

    Raises:
        ValueError: the problems differ, or a problem has another number of trials on the two sides, or none.
    """
    if before.keys() != after.keys():
        odd = sorted(before.keys() ^ after.keys())
        raise ValueError(f"{len(odd)} problems were answered by one side only, such as {odd[0]!r}")
    uneven = [key for key in before if len(before[key]) != len(after[key])]
    if uneven:
        raise ValueError(f"{len(uneven)} problems have more trials on one side, such as {uneven[0]!r}")
    pairs = list(zip(_means(before), _means({key: after[key] for key in before}), strict=True))
    changes = [new - old for old, new in pairs]
    n, trials = len(pairs), sum(map(len, before.values()))
    difference = fmean(changes)
    squares = sum((change - difference) ** 2 for change in changes)
    error = sqrt(squares / (n * (n - 1))) if n > 1 else 0.0
    single = trials == n
    if single or squares < 1e-18:
        centre = sum(changes) / (n + 2)
        second = (sum(change**2 for change in changes) + 2) / (n + 2)
        half = _quantile(confidence) * sqrt((second - centre**2) / (n + 2))
    else:
        centre, half = difference, _student(confidence, n - 1) * error
    # Fractions, so that a tie is a tie.
    steps = [_change(before[key], after[key]) for key in before]
    wins, losses = sum(step > 0 for step in steps), sum(step < 0 for step in steps)
    if single and all(abs(step) in (0, 1) for step in steps):
        test, p_value = "McNemar, exact", mcnemar(wins, losses)
    else:
        test, p_value = sign_flip(steps)
    return Comparison(
        before=fmean(old for old, _ in pairs),
        after=fmean(new for _, new in pairs),
        difference=difference,
        low=max(centre - half, -1.0),
        high=min(centre + half, 1.0),
        error=error,
        p_value=p_value,
        test=test,
        wins=wins,
        losses=losses,
        ties=n - wins - losses,
        problems=n,
        trials=trials,
    )


def mcnemar(wins: int, losses: int) -> float:
    """The two-sided p-value of McNemar's exact test for paired yes/no outcomes.

    Of the ``b + c`` problems on which the sides differ, each is a win with probability 1/2 if the models are alike:
    p = min(1, 2 * sum of C(b + c, i) for i up to min(b, c), / 2^(b + c)) (McNemar 1947, in its exact form).
    """
    flips = wins + losses
    tail = term = 1
    for place in range(min(wins, losses)):
        term = term * (flips - place) // (place + 1)
        tail += term
    return min(1.0, float(Fraction(2 * tail, 1 << flips)))


def sign_flip(changes: Sequence[Fraction]) -> tuple[str, float]:
    """Which test, and the two-sided p-value of the sign-flip (Fisher's randomisation) test on paired changes.

    If the models are alike, their answers to a problem can be exchanged, so each change is as likely as its negative.
    The p-value is the share of the 2^n ways to choose the signs whose sum is at least as far from 0 as the one seen.
    All ways are counted, none drawn, so there is no seed. On changes of -1, 0 and 1 it is McNemar's exact test. Beyond
    ``MAX_BYTES`` of work the normal limit with variance ``sum of change^2`` is taken.

    Args:
        changes: a problem's mean after minus its mean before; fractions, so that sums which are alike count as alike.
    """
    sizes = [abs(change) for change in changes if change]
    seen = abs(sum(changes, Fraction(0)))
    if not seen:
        return "sign flip, exact", 1.0
    unit = Fraction(gcd(*(size.numerator for size in sizes)), lcm(*(size.denominator for size in sizes)))
    whole = sorted(int(size / unit) for size in sizes)
    width = len(whole) // 8 + 1
    if sum(whole) * width * len(whole) > MAX_BYTES:
        # The sums stand two units apart; half of that is the usual correction for continuity.
        return "sign flip, normal", erfc(float(seen - unit) / sqrt(2 * sum(float(size) ** 2 for size in sizes)))
    # A polynomial as one integer with ``width`` bytes a coefficient: the coefficient of x^j counts the ways in which
    # the positive changes sum to j. Every change multiplies it by 1 + x^change, which is a shift and an addition.
    ways = 1
    for size in whole:
        ways += ways << (8 * width * size)
    total = sum(whole)
    least = (total + int(seen / unit)) // 2
    coefficients = (ways >> (8 * width * least)).to_bytes((total - least + 1) * width, "little")
    tail = sum(int.from_bytes(coefficients[at : at + width], "little") for at in range(0, len(coefficients), width))
    return "sign flip, exact", min(1.0, float(Fraction(2 * tail, 1 << len(whole))))


def _means(outcomes: Outcomes) -> list[float]:
    if not outcomes:
        raise ValueError("there are no outcomes")
    for key, trials in outcomes.items():
        if not trials:
            raise ValueError(f"the problem {key!r} has no outcome")
    return [fmean(trials) for trials in outcomes.values()]


def _change(before: Sequence[float], after: Sequence[float]) -> Fraction:
    return (_total(after) - _total(before)) / len(after)


def _total(trials: Iterable[float]) -> Fraction:
    # A share of instructions followed, such as 2/3, comes as a float with a denominator of 2^53.
    return sum((Fraction(outcome).limit_denominator(1000) for outcome in trials), Fraction(0))


def _quantile(confidence: float) -> float:
    """z with the share ``confidence`` of the normal distribution between -z and z."""
    return NormalDist().inv_cdf((1 + confidence) / 2)


def _student(confidence: float, degrees: int) -> float:
    """t with the share ``confidence`` of Student's distribution between -t and t."""
    if degrees > 2000:
        return _quantile(confidence)
    low, high = 0.0, 1e6
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if _student_share(middle, degrees) < confidence else (low, middle)
    return high


def _student_share(t: float, degrees: int) -> float:
    """The share of Student's distribution between -t and t; Abramowitz and Stegun, 26.7.3 and 26.7.4."""
    angle = atan(t / sqrt(degrees))
    odd = degrees % 2
    term = cos(angle) if odd else 1.0
    total = term if degrees > 1 else 0.0
    for place in range(2 + odd, degrees - 1, 2):
        term *= cos(angle) ** 2 * (place - 1) / place
        total += term
    return 2 / pi * (angle + sin(angle) * total) if odd else sin(angle) * total
