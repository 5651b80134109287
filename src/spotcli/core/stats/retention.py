"""Retention: whether a skill that was not trained is kept or lost, or whether the answers cannot tell.

A difference that is not significant proves nothing, because few problems never show one. So "kept" is proved by a test
of non-inferiority: losses as large as the margin must be excluded.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, sqrt
from statistics import NormalDist, fmean
from typing import Literal

from spotcli.core.stats.estimates import Outcomes, normal_quantile
from spotcli.core.stats.paired import adjusted_mean, paired_changes, paired_interval

RetentionVerdict = Literal["kept", "lost", "cannot tell"]

POWER = 0.8
"""Chance with which the smallest excludable loss is excluded, if nothing was lost."""
WITHIN = 1 / 8
"""Assumed variance of an answer to one problem, p (1 - p), as a mean over problems: the mean of Beta(1/2, 1/2), where
most problems are almost always or almost never solved."""
CHANGED = 1 / 10
"""Assumed share of the problems whose difficulty training changes at random, up or down, without a loss on average."""


@dataclass(frozen=True, slots=True)
class Retention:
    """A test whether the second model kept what the first one had; all numbers are shares."""

    verdict: RetentionVerdict
    margin: float
    """The largest loss that does not matter."""
    bound: float
    """Lower bound of the difference after - before, one-sided 97.5 % for 95 % confidence."""
    excludable: float
    """The smallest loss that these problems and trials can exclude: with a chance of 80 % if nothing was lost."""

    @property
    def largest_loss(self) -> float:
        """The largest loss that is not excluded; 0 if a gain is proved."""
        return max(0.0, -self.bound)


def retained(before: Outcomes, after: Outcomes, *, margin: float, confidence: float = 0.95) -> Retention:
    """Test whether the second model kept what the first one had.

    lost         the interval of ``compare`` is below 0; it may be a loss smaller than the margin
    kept         not lost, and the bound is above -margin
    cannot tell  all other cases

    The bound is that of ``_loss_bound``, or the lower limit of ``compare`` if it is lower.

    Args:
        before: outcomes of the first model.
        after: outcomes of the second model on the same problems.
        margin: the largest loss that does not matter, as a share.
        confidence: of the interval; the bound is one-sided, with (1 + confidence) / 2.

    Raises:
        ValueError: as ``compare``.
    """
    changes, z = paired_changes(before, after), normal_quantile(confidence)
    single = sum(map(len, before.values())) == len(changes)
    low, high, _ = paired_interval(changes, single=single, confidence=confidence)
    _, error = adjusted_mean(changes)
    bound = max(-1.0, min(_loss_bound(changes, z), low))
    verdict: RetentionVerdict = "cannot tell"
    if high < 0:
        verdict = "lost"
    elif bound > -margin:
        verdict = "kept"
    return Retention(verdict, margin, bound, min(1.0, (z + NormalDist().inv_cdf(POWER)) * error))


def _loss_bound(changes: Sequence[float], z: float) -> float:
    """Return the lower bound of the mean change of problems, for any number of trials.

    With one +1 and one -1 added to the n changes, N = n + 2, m their mean, v their variance and s their third central
    moment:

        m - z * sqrt(v / N) + min(0, s / v) * (1 + 2 z^2) / (6 N)

    The first part is the lower limit of Bonett and Price (2012). Student's interval is not enough for a proof: a skill
    that few problems need can be lost unseen, and more trials do not help against it. So n problems exclude no loss
    below z * sqrt(2) / N, as the rule of three for events that were never seen. The last part corrects for skewness
    (Edgeworth expansion of the studentized mean, first order; Hall, "The Bootstrap and Edgeworth Expansion", 1992):
    where few problems are lost completely, a sample with fewer of them than expected has a smaller variance too.
    """
    number = len(changes) + 2
    mean, error = adjusted_mean(changes)
    third = sum((change - mean) ** 3 for change in (*changes, 1.0, -1.0)) / number
    variance = number * error**2
    return mean - z * error + min(0.0, third / variance) * (1 + 2 * z**2) / (6 * number)


def excludable_loss(sizes: Iterable[tuple[int, int]], *, confidence: float = 0.95) -> float:
    """Return the smallest loss that problems can exclude, before any of them is answered.

    It is excluded with a chance of 80 % if nothing was lost and the assumptions ``WITHIN`` and ``CHANGED`` are right.
    The expected variance of a problem's change with k trials is then 2 * WITHIN / k + CHANGED * 2 * WITHIN, since the
    variance of Beta(1/2, 1/2) is 1/8 too. As in ``retained``, one +1 and one -1 are added.

    Args:
        sizes: number of problems and trials of each task; several tasks are taken as one set.
        confidence: of the interval.

    Raises:
        ValueError: there is no problem.
    """
    variances = [2 * WITHIN / trials + CHANGED * 2 * WITHIN for problems, trials in sizes for _ in range(problems)]
    if not variances:
        raise ValueError("expected at least one problem, got none")
    error = sqrt(fmean([*variances, 1, 1]) / (len(variances) + 2))
    return min(1.0, (normal_quantile(confidence) + NormalDist().inv_cdf(POWER)) * error)


def least_loss(problems: int, *, confidence: float = 0.95) -> float:
    """Return the smallest loss that this many problems exclude at best: if both models give the same answers.

    It is -``bound`` of ``retained`` for changes that are all 0, and does not depend on the number of trials.
    """
    return normal_quantile(confidence) * sqrt(2) / (problems + 2)


def problems_needed(loss: float, trials: int, *, confidence: float = 0.95) -> int:
    """Return how many problems can exclude a loss, with the assumptions of ``excludable_loss``.

    Raises:
        ValueError: the loss is not positive.
    """
    if loss <= 0:
        raise ValueError(f"expected a positive loss, got {loss}")
    variance = 2 * WITHIN / trials + CHANGED * 2 * WITHIN
    # With N = n + 2: (N - 2) variance + 2 = N^2 c, and c = (loss / quantiles)^2.
    ratio = (loss / (normal_quantile(confidence) + NormalDist().inv_cdf(POWER))) ** 2
    whole = (variance + sqrt(variance**2 + 4 * ratio * (2 - 2 * variance))) / (2 * ratio)
    return max(1, ceil(whole - 2))
