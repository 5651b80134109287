"""Means per token over prompts. The unit is the prompt: the tokens of one answer are not independent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

from spotcli.core.stats.estimates import student_quantile


@dataclass(frozen=True, slots=True)
class PerToken:
    """A mean over tokens with its confidence interval."""

    mean: float
    low: float | None
    """None with one prompt."""
    high: float | None
    error: float | None
    """Standard error, clustered by prompt."""
    prompts: int
    tokens: int


def mean_per_token(totals: Sequence[float], tokens: Sequence[int], *, confidence: float = 0.95) -> PerToken:
    """Return the mean over all tokens of a quantity that is at least 0, with an interval clustered by prompt.

    With s_p the sum over the tokens of prompt p, t_p the number of its tokens, T = sum t_p and n the number of prompts:

        mean     = sum s_p / T
        error    = sqrt( n / (n - 1) * sum (s_p - mean * t_p)^2 ) / T
        interval = mean -+ t(n - 1) * error,  not below 0

    This is the ratio estimator for clusters of different sizes (Cochran, "Sampling Techniques", 3rd edition 1977,
    section 6.3) with Student's quantile.

    Args:
        totals: s_p.
        tokens: t_p, at least 1.
        confidence: of the interval.

    Raises:
        ValueError: no prompt is given.
    """
    if not tokens:
        raise ValueError("expected at least one prompt, got none")
    n, total = len(tokens), sum(tokens)
    mean = sum(totals) / total
    if n == 1:
        return PerToken(mean, None, None, None, n, total)
    squares = sum((part - mean * count) ** 2 for part, count in zip(totals, tokens, strict=True))
    error = sqrt(n / (n - 1) * squares) / total
    half = student_quantile(confidence, n - 1) * error
    return PerToken(mean, max(0.0, mean - half), mean + half, error, n, total)
