"""Several answers to one problem: pass@k, maj@k, and whether a published score can come from k trials."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from math import ceil, comb, floor
from statistics import fmean

from spotcli.core.stats.estimates import Outcomes

RIGHT = "right"
"""The vote of a right answer in ``maj_at_k``; right answers are equal, however they are written."""


def pass_at_k(outcomes: Outcomes, k: int | None = None) -> float:
    """Return pass@k: the chance that at least one of k answers to a problem is right, as a mean over problems.

    With n trials and c right ones, 1 - C(n - c, k) / C(n, k) is unbiased for every n >= k (Chen et al., "Evaluating
    large language models trained on code", arXiv 2107.03374).

    Args:
        outcomes: 1 is right; every other outcome is not.
        k: by default the smallest number of trials of a problem.

    Raises:
        ValueError: no problem is given, or a problem has fewer than k trials or none.
    """
    fewest = min(map(len, outcomes.values()), default=0)
    k = fewest if k is None else k
    if not 1 <= k <= fewest:
        raise ValueError(f"pass@{k} requires at least {max(k, 1)} trials of every problem, got {fewest}")
    return fmean(
        float(1 - Fraction(comb(len(trials) - sum(outcome == 1 for outcome in trials), k), comb(len(trials), k)))
        for trials in outcomes.values()
    )


def maj_at_k(votes: Mapping[str, Sequence[Hashable | None]]) -> float:
    """Return maj@k: how often the most frequent answer to a problem is right, as a mean over problems.

    Each trial has one vote. ``None`` is a trial without an answer, which does not vote; a problem without votes is not
    solved. If m answers tie for the first place, each is chosen with probability 1/m: the result is the expected value,
    so it does not depend on the order of the trials.

    Args:
        votes: for each problem, the vote of each trial: ``RIGHT``, another hashable for another answer, or None.

    Raises:
        ValueError: no problem is given.
    """
    if not votes:
        raise ValueError("expected at least one problem, got none")
    return fmean(_majority(trials) for trials in votes.values())


def _majority(trials: Sequence[Hashable | None]) -> float:
    counts = Counter(vote for vote in trials if vote is not None)
    most = max(counts.values(), default=0)
    tied = [vote for vote, count in counts.items() if count == most]
    return 1 / len(tied) if RIGHT in tied else 0.0


def attainable(value: str | float, problems: int, trials: int) -> bool:
    """Whether a published score can be the mean of this number of answers, each right or wrong.

    Such a mean is c / (problems * trials) for a whole number c, rounded to the printed decimals; both ways to round a
    half are accepted.

    Args:
        value: the score in percent, as printed: ``"25.6"`` has one decimal, as 25.6 has.
        problems: number of problems.
        trials: answers per problem.
    """
    printed = Decimal(str(value))
    exponent = printed.as_tuple().exponent
    decimals = max(0, -exponent) if isinstance(exponent, int) else 0
    half, answers = Fraction(1, 2 * 10**decimals), problems * trials
    low, high = ((Fraction(printed) + shift) * answers / 100 for shift in (-half, half))
    return max(ceil(low), 0) <= min(floor(high), answers)
