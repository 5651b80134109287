"""Confidence intervals of scores, and paired tests between two models. The unit is the problem.

    k trials per problem -> the mean of the problem -> mean over problems, interval, paired test

Repeated answers to one problem are not independent, so trials are never counted as if they were problems. Outcomes are
numbers in [0, 1], usually 1 for a right answer and 0 for any other; all results are shares in the same unit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import atan, cos, erfc, exp, gcd, lcm, lgamma, log, log1p, pi, sin, sqrt
from statistics import NormalDist, fmean

Outcomes = Mapping[str, Sequence[float]]
"""The outcomes of all trials of each problem, by the key of the problem."""

MAX_BYTES = 4 * 10**9
"""Bytes that the exact sign-flip test may add up, with one addition per problem. Above it the test uses the normal
limit, which is accurate for so many problems."""


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
    means = _means(outcomes)
    n, trials = len(means), sum(map(len, outcomes.values()))
    mean = fmean(means)
    squares = sum((problem_mean - mean) ** 2 for problem_mean in means)
    spread = mean * (1 - mean)
    effective = float(n) if spread <= 0 else min(float(trials), n * spread * n / squares if squares else float(trials))
    z = _quantile(confidence)
    centre = (mean + z * z / (2 * effective)) / (1 + z * z / effective)
    half = z / (1 + z * z / effective) * sqrt(max(spread, 0) / effective + z * z / (4 * effective**2))
    error = sqrt(squares / (n * (n - 1))) if n > 1 else 0.0
    return Estimate(mean, max(centre - half, 0.0), min(centre + half, 1.0), error, n, trials)


def compare(before: Outcomes, after: Outcomes, *, confidence: float = 0.95) -> Comparison:
    """Compare two models on the same problems: the difference after - before, its interval, and a paired test.

    The unit is the problem p with d_p = its mean in ``after`` - its mean in ``before``. n is the number of problems, d
    the mean of all d_p.

        one trial per problem   Bonett and Price (2012), adjusted Wald interval for paired proportions: the interval of
                                the mean of all d_p and of one added +1 and one added -1; McNemar's exact test
        more trials             d -+ t(n - 1) * sqrt( sum (d_p - d)^2 / (n (n - 1)) ), the paired interval of Miller
                                (arXiv 2411.00640) with Student's quantile; the exact sign-flip test

    If all d_p are equal, Student's interval would be a point; the interval of Bonett and Price is used instead.
    ``error`` is the square root above in both cases.

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


def _means(outcomes: Outcomes) -> list[float]:
    if not outcomes:
        raise ValueError("expected at least one problem, got none")
    for key, trials in outcomes.items():
        if not trials:
            raise ValueError(f"problem {key!r} has no outcomes")
    return [fmean(trials) for trials in outcomes.values()]


def _change(before: Sequence[float], after: Sequence[float]) -> Fraction:
    return (_total(after) - _total(before)) / len(after)


def _total(trials: Iterable[float]) -> Fraction:
    # An outcome such as 2/3 (instructions followed) is a float with a denominator of up to 2^53.
    return sum((Fraction(outcome).limit_denominator(1000) for outcome in trials), Fraction(0))


def _quantile(confidence: float) -> float:
    """Return z such that a share ``confidence`` of the normal distribution is between -z and z."""
    return NormalDist().inv_cdf((1 + confidence) / 2)


def _student(confidence: float, degrees: int) -> float:
    """Return t such that a share ``confidence`` of Student's distribution is between -t and t."""
    if degrees > 2000:
        return _quantile(confidence)
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
