"""Kept, lost or cannot tell; expected numbers are derived in the comments; z = 1.959964, and 0.841621 for 80 %."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spotcli.core.stats import compare, excludable_loss, least_loss, problems_needed, retained

near: Any = pytest.approx


def all_right(problems: int, trials: int = 1) -> dict[str, list[int]]:
    return {str(place): [1] * trials for place in range(problems)}


def with_lost(problems: int, lost: int, trials: int = 1) -> dict[str, list[int]]:
    return {str(place): [int(place >= lost)] * trials for place in range(problems)}


def test_equal_answers_to_enough_problems_prove_retention() -> None:
    # The two added changes: bound -1.959964 * sqrt(2 / 102 / 102) = -0.027175, whatever the number of trials.
    for trials in (1, 16):
        result = retained(all_right(100, trials), all_right(100, trials), margin=0.03)
        assert (result.verdict, result.bound) == ("kept", near(-0.027175, abs=1e-6))
        assert result.largest_loss == near(0.027175, abs=1e-6)
        # 80 % of the time: (1.959964 + 0.841621) * sqrt(2) / 102 = 0.038844.
        assert result.excludable == near(0.038844, abs=1e-6)
        assert retained(all_right(100, trials), all_right(100, trials), margin=0.02).verdict == "cannot tell"
    assert least_loss(100) == near(0.027175, abs=1e-6)


def test_thirty_problems_cannot_prove_retention_within_two_points() -> None:
    # 1.959964 * sqrt(2) / 32 = 0.0866.
    result = retained(all_right(30, 16), all_right(30, 16), margin=0.02)
    assert (result.verdict, result.bound) == ("cannot tell", near(-0.0866, abs=1e-4))


def test_a_significant_loss_is_lost() -> None:
    # Nine of 100 lost: mean -9 / 102 = -0.088235, second moment 11 / 102 = 0.107843, variance (0.107843 - 0.007785) /
    # 102 = 0.000981, root 0.031320: -0.088235 - 0.061386 = -0.149622. Third moment (10 * -0.911765^3 + 91 * 0.088235^3
    # + 1.088235^3) / 102 = -0.061063, over the variance 0.100058: -0.610283; times 8.682918 / 612: -0.008659.
    result = retained(all_right(100), with_lost(100, 9), margin=0.02)
    assert (result.verdict, result.bound) == ("lost", near(-0.158280, abs=1e-5))
    # Two lost: -0.019608 -+ 0.038195 and the skewness; a loss is not shown, and 5.8 points are not excluded.
    assert retained(all_right(100), with_lost(100, 2), margin=0.02).verdict == "cannot tell"
    assert retained(all_right(100), with_lost(100, 2), margin=0.07).verdict == "kept"


def test_a_significant_loss_smaller_than_the_margin_is_still_lost() -> None:
    # 20 of 2000: -20 / 2002 = -0.009990, variance (22 / 2002 - 0.0000998) / 2002 = 5.4392e-6, root 0.002332: upper
    # limit -0.005419, lower -0.014561. Third moment (21 * -0.990010^3 + 1.009990^3) / 2002 = -0.009663, over 0.010889:
    # -0.887365; times 8.682918 / 12012: -0.000641.
    result = retained(all_right(2000), with_lost(2000, 20), margin=0.02)
    assert (result.verdict, result.bound) == ("lost", near(-0.015202, abs=1e-5))


def test_a_loss_in_few_problems_is_not_excluded_by_many_trials() -> None:
    # One of 200 problems lost in all five trials. Student: squares 0.995 + 0.5, sqrt(1.495 / 39800) = 0.006129;
    # -0.005 -+ 1.971957 * 0.006129, low -0.017086.
    # With two added changes: mean -1 / 202 = -0.004950, variance (3 / 202 - 0.0000245) / 202 = 7.3401e-5, root
    # 0.008567: -0.004950 - 0.016792 = -0.021742. Third moment (2 * -0.995050^3 + 1.004950^3) / 202 = -0.004730, over
    # 0.014827: -0.319; times 8.682918 / 1212: -0.002286.
    before, after = all_right(200, 5), with_lost(200, 1, 5)
    assert compare(before, after).low == near(-0.017086, abs=1e-5)
    result = retained(before, after, margin=0.02)
    assert (result.verdict, result.bound) == ("cannot tell", near(-0.024028, abs=1e-5))


def test_a_proved_gain_excludes_every_loss() -> None:
    result = retained(with_lost(100, 40), all_right(100), margin=0.02)
    assert result.verdict == "kept"
    assert result.bound > 0
    assert result.largest_loss == 0


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40))
def test_the_bound_is_never_above_the_interval_of_the_comparison(pairs: list[tuple[int, int]]) -> None:
    before, after = (
        {str(place): [1] * pair[side] + [0] * (3 - pair[side]) for place, pair in enumerate(pairs)} for side in (0, 1)
    )
    result, comparison = retained(before, after, margin=0.02), compare(before, after)
    assert -1 <= result.bound <= comparison.low + 1e-12
    assert (result.verdict == "lost") == (comparison.high < 0)


def test_the_planned_excludable_loss() -> None:
    # Variance per problem 2 / 8 / 5 + 0.1 * 2 / 8 = 0.075; (500 * 0.075 + 2) / 502 = 0.078685; root of that / 502 is
    # 0.012520; times 2.801585 = 0.035075.
    assert excludable_loss([(500, 5)]) == near(0.035075, abs=1e-6)
    # AIME: (30 * (0.015625 + 0.025) + 2) / 32 = 0.100586; root of that / 32 is 0.056065; times 2.801585 = 0.157071.
    assert excludable_loss([(30, 16)]) == near(0.157071, abs=1e-6)
    # Several tasks are one set: 198 and 300 problems of 5 trials as 498.
    assert excludable_loss([(198, 5), (300, 5)]) == near(excludable_loss([(498, 5)]))
    with pytest.raises(ValueError, match="at least one problem"):
        excludable_loss([])


@given(st.integers(1, 40), st.sampled_from([0.01, 0.02, 0.05, 0.2]))
def test_the_needed_problems_are_the_fewest_that_are_enough(trials: int, loss: float) -> None:
    needed = problems_needed(loss, trials)
    assert excludable_loss([(needed, trials)]) <= loss + 1e-12
    if needed > 1:
        assert excludable_loss([(needed - 1, trials)]) > loss


def test_no_number_of_problems_excludes_a_loss_of_nothing() -> None:
    with pytest.raises(ValueError, match="positive"):
        problems_needed(0, 1)
