"""The statistics equal those of scipy and statsmodels; where a definition differs, the test says how."""

from __future__ import annotations

import random
from fractions import Fraction
from itertools import product
from math import sqrt
from typing import Any

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import NormalIndPower
from statsmodels.stats.proportion import proportion_confint

from spotcli.core.stats import (
    average_change,
    average_score,
    avg_at_k,
    compare,
    exact_interval,
    excludable_loss,
    holm,
    mcnemar,
    pass_at_k,
    problems_needed,
    retained,
    sign_flip,
)
from spotcli.core.stats.estimates import normal_quantile, student_quantile
from spotcli.core.stats.paired import adjusted_mean, paired_changes
from spotcli.core.stats.per_token import mean_per_token

Outcomes = dict[str, list[float]]
CONFIDENCES = (0.8, 0.95, 0.99)


def equals(value: float | tuple[float, ...]) -> Any:
    return pytest.approx(value, rel=1e-9, abs=1e-9)


def drawn(problems: int, trials: int, seed: int) -> tuple[Outcomes, Outcomes]:
    """The outcomes of two models; problems differ in difficulty."""
    chance = random.Random(f"{problems} {trials} {seed}")
    sides: tuple[Outcomes, Outcomes] = {}, {}
    for place in range(problems):
        level = chance.random()
        for side, shift in zip(sides, (0.0, 0.1), strict=True):
            side[str(place)] = [float(chance.random() < level + shift) for _ in range(trials)]
    return sides


def changes_of(before: Outcomes, after: Outcomes) -> Any:
    return np.array([np.mean(after[id]) - np.mean(before[id]) for id in before])


@pytest.mark.parametrize("confidence", CONFIDENCES)
def test_quantiles(confidence: float) -> None:
    tail = (1 + confidence) / 2
    assert normal_quantile(confidence) == equals(stats.norm.ppf(tail))
    for degrees in (1, 2, 3, 4, 7, 29, 30, 197, 499, 540, 1238, 2000):
        assert student_quantile(confidence, degrees) == equals(stats.t.ppf(tail, degrees))
    # Above 2000 degrees of freedom the normal quantile is used, which is lower by at most 1 in 1000.
    assert student_quantile(confidence, 2001) == pytest.approx(stats.t.ppf(tail, 2001), rel=1e-3)


@pytest.mark.parametrize("confidence", CONFIDENCES)
def test_the_exact_interval(confidence: float) -> None:
    for hits, trials in [(0, 1), (1, 1), (0, 10), (7, 100), (50, 100), (99, 100), (3, 675), (500, 1000), (10, 10)]:
        peer = stats.binomtest(hits, trials).proportion_ci(confidence, method="exact")
        assert exact_interval(hits, trials, confidence=confidence) == equals((peer.low, peer.high))


@pytest.mark.parametrize("confidence", CONFIDENCES)
def test_the_interval_of_single_trials_is_that_of_wilson(confidence: float) -> None:
    for hits, problems in [(0, 30), (1, 30), (17, 30), (30, 30), (99, 198), (420, 500)]:
        outcomes = {str(place): [float(place < hits)] for place in range(problems)}
        result = avg_at_k(outcomes, confidence=confidence)
        assert (result.low, result.high) == equals(proportion_confint(hits, problems, 1 - confidence, method="wilson"))


@pytest.mark.parametrize(("problems", "trials"), [(30, 16), (198, 5), (12, 2)])
def test_the_interval_of_several_trials_is_that_of_wilson_with_the_effective_number(problems: int, trials: int) -> None:
    # statsmodels uses the normal quantile. Student's is in place of it if the number is scaled by their squared ratio,
    # because Wilson's interval depends on z^2 / n alone.
    before, _ = drawn(problems, trials, 0)
    means = np.array([np.mean(of) for of in before.values()])
    mean, squares = means.mean(), ((means - means.mean()) ** 2).sum()
    spread = mean * (1 - mean)
    effective = min((problems + 1) / problems * spread * problems**2 / (squares + spread), problems * trials)
    scaled = effective * (stats.norm.ppf(0.975) / stats.t.ppf(0.975, problems - 1)) ** 2
    result = avg_at_k(before)
    assert (result.low, result.high) == equals(proportion_confint(mean * scaled, scaled, 0.05, method="wilson"))
    assert result.error == equals(stats.sem(means))


def test_mcnemar_is_the_binomial_test_of_the_problems_that_changed() -> None:
    for wins, losses in [(1, 0), (9, 1), (5, 5), (13, 40), (200, 150), (0, 60)]:
        assert mcnemar(wins, losses) == equals(stats.binomtest(wins, wins + losses).pvalue)


@pytest.mark.parametrize(("problems", "trials", "seed"), [(8, 2, 0), (9, 3, 1), (10, 5, 2), (11, 4, 3)])
def test_the_sign_flip_test_is_the_exact_permutation_test(problems: int, trials: int, seed: int) -> None:
    before, after = drawn(problems, trials, seed)
    comparison = compare(before, after)
    # scipy computes the means in floats; whole numbers of answers keep ties exact.
    counts = np.rint(changes_of(before, after) * trials)
    peer = stats.permutation_test(
        (counts,), lambda values, axis: values.sum(axis), permutation_type="samples", n_resamples=np.inf
    )
    assert comparison.test == "sign flip, exact"
    assert comparison.p_value == equals(peer.pvalue)
    flips = [abs(sum(signs * counts)) for signs in product((-1, 1), repeat=len(counts))]
    assert comparison.p_value == equals(float(np.mean([flip >= abs(counts.sum()) for flip in flips])))


def test_the_sign_flip_test_on_single_trials_is_mcnemars() -> None:
    before, after = drawn(60, 1, 4)
    changes = changes_of(before, after)
    wins, losses = int((changes > 0).sum()), int((changes < 0).sum())
    assert compare(before, after).p_value == equals(stats.binomtest(wins, wins + losses).pvalue)
    assert sign_flip([Fraction(int(change)) for change in changes])[1] == equals(mcnemar(wins, losses))


@pytest.mark.parametrize("confidence", CONFIDENCES)
def test_the_paired_interval_of_several_trials(confidence: float) -> None:
    # scipy's paired interval has no addition for few problems: with the squares of +1/2 and -1/2, 1/2 in all, it is
    # wider by the root of (squares + 1/2) / squares.
    before, after = drawn(198, 5, 5)
    changes = changes_of(before, after)
    peer = stats.ttest_1samp(changes, 0).confidence_interval(confidence)
    squares = ((changes - changes.mean()) ** 2).sum()
    half = (peer.high - peer.low) / 2 * sqrt((squares + 0.5) / squares)
    result = compare(before, after, confidence=confidence)
    assert (result.low, result.high) == equals((changes.mean() - half, changes.mean() + half))
    assert result.error == equals(stats.sem(changes))


def test_the_paired_interval_of_single_trials_is_that_of_two_more_problems() -> None:
    # Bonett and Price (2012): the normal interval of the changes with one +1 and one -1 added, variance over n.
    before, after = drawn(198, 1, 6)
    changes = np.append(changes_of(before, after), (1, -1))
    low, high = stats.norm.interval(0.95, changes.mean(), changes.std() / sqrt(len(changes)))
    result = compare(before, after)
    assert (result.low, result.high) == equals((low, high))


def test_holm() -> None:
    chance = random.Random(7)
    for number in (1, 2, 5, 10, 40):
        p_values = [chance.random() ** 3 for _ in range(number)]
        p_values += p_values[:1]  # equal ones
        corrected = holm({str(place): p_value for place, p_value in enumerate(p_values)})
        assert [*corrected.values()] == [equals(value) for value in multipletests(p_values, method="holm")[1]]


@pytest.mark.parametrize(("problems", "trials"), [(30, 16), (198, 5), (500, 1)])
def test_the_bound_of_non_inferiority(problems: int, trials: int) -> None:
    before, after = drawn(problems, trials, 8)
    after = {id: of if int(id) % 9 else [0.0] * trials for id, of in after.items()}  # a skewed loss
    changes = np.append(changes_of(before, after), (1, -1))
    z, number = stats.norm.ppf(0.975), len(changes)
    plain = stats.norm.ppf(0.025, changes.mean(), changes.std() / sqrt(number))
    third = stats.moment(changes, order=3) / changes.var()
    bound = plain + min(third, 0) * (1 + 2 * z**2) / (6 * number)
    expected = min(bound, compare(before, after).low)
    result = retained(before, after, margin=0.02)
    assert result.bound == equals(expected)
    assert (adjusted_mean(paired_changes(before, after))) == equals((changes.mean(), changes.std() / sqrt(number)))
    # The power of a one-sided test with this error: excluded with a chance of 80 % if nothing was lost.
    assert stats.norm.cdf(result.excludable / (changes.std() / sqrt(number)) - z) == equals(0.8)


@pytest.mark.parametrize("trials", [1, 5, 16])
def test_the_planned_power(trials: int) -> None:
    # One sample of changes with the planned variance. statsmodels has no added problems, so they are in the variance.
    variance = 0.25 / trials + 0.1 * 0.25
    for problems in (30, 198, 500):
        with_added = (problems * variance + 2) / (problems + 2)
        loss = excludable_loss([(problems, trials)])
        power = NormalIndPower(ddof=0).power(
            loss / sqrt(with_added), problems + 2, 0.025, ratio=0, alternative="larger"
        )
        assert power == equals(0.8)
    needed = problems_needed(0.02, trials)
    powers = [
        NormalIndPower(ddof=0).power(
            0.02 / sqrt((problems * variance + 2) / (problems + 2)), problems + 2, 0.025, ratio=0, alternative="larger"
        )
        for problems in (needed - 1, needed)
    ]
    assert powers[0] < 0.8 <= powers[1]


def test_pass_at_k_is_hypergeometric() -> None:
    before, _ = drawn(40, 16, 9)
    for k in (1, 3, 16):
        # No right answer among k drawn from 16.
        missed = [stats.hypergeom.pmf(0, 16, int(sum(of)), k) for of in before.values()]
        assert pass_at_k(before, k) == equals(1 - float(np.mean(missed)))


def test_the_mean_per_token() -> None:
    chance = random.Random(10)
    tokens = [chance.randrange(1, 90) for _ in range(32)]
    totals = [count * chance.random() for count in tokens]
    result = mean_per_token(totals, tokens)
    # Cochran's ratio: the residuals around the ratio have mean 0, so their standard error is scipy's.
    residuals = np.array(totals) - result.mean * np.array(tokens)
    error = stats.sem(residuals) / np.mean(tokens)
    assert result.error == equals(error)
    low, high = stats.t.interval(0.95, 31, result.mean, error)
    assert (result.low, result.high) == equals((max(0.0, low), high))


def test_averages_over_tasks() -> None:
    parts = {
        name: drawn(problems, trials, 11) for name, problems, trials in [("a", 30, 16), ("b", 40, 2), ("c", 90, 1)]
    }
    comparisons = {name: compare(*sides) for name, sides in parts.items()}
    average = average_change(comparisons)
    # Welch and Satterthwaite: the variances of the means add up. Each has its share of the addition of 1/2.
    sizes = np.array([30, 40, 90])
    changes = [changes_of(*sides) for sides in parts.values()]
    variances = np.array([stats.sem(of) ** 2 for of in changes]) + 0.5 / 3 / (sizes * (sizes - 1))
    degrees = int(variances.sum() ** 2 / (variances**2 / (sizes - 1)).sum())
    middle = float(np.mean([of.mean() for of in changes]))
    low, high = stats.t.interval(0.95, degrees, middle, sqrt(variances.sum()) / 3)
    assert (average.mean, average.low, average.high) == equals((middle, low, high))
    scores = average_score({name: avg_at_k(before) for name, (before, _) in parts.items()})
    errors = np.array([stats.sem([np.mean(of) for of in before.values()]) for before, _ in parts.values()])
    assert scores.error == equals(float(np.linalg.norm(errors)) / 3)
