"""Expected numbers are derived in the comments; z = 1.959964 and z^2 = 3.841459 for 95 %."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spotcli.core.stats import avg_at_k
from spotcli.core.stats.estimates import student_quantile

near: Any = pytest.approx


def one_trial(outcomes: str) -> dict[str, list[int]]:
    return {str(place): [int(outcome)] for place, outcome in enumerate(outcomes)}


def test_one_trial_per_problem_gives_the_wilson_interval() -> None:
    # 7 of 10: centre (0.7 + 3.841459 / 20) / (1 + 0.3841459) = 0.892073 / 1.3841459 = 0.644493,
    # half 1.959964 / 1.3841459 * sqrt(0.21 / 10 + 3.841459 / 400) = 1.416010 * 0.174939 = 0.247716.
    result = avg_at_k(one_trial("1111111000"))
    assert (result.mean, result.problems, result.trials) == (near(0.7), 10, 10)
    assert (result.low, result.high) == (near(0.396777, abs=1e-5), near(0.892209, abs=1e-5))
    # sum (m_p - m)^2 = 7 * 0.09 + 3 * 0.49 = 2.1; sqrt(2.1 / 90) = 0.152753.
    assert result.error == near(0.152753, abs=1e-6)


def test_trials_of_a_problem_form_a_cluster() -> None:
    # Means 1, 0.5, 0, 1; m = 0.625; squares 0.140625 + 0.015625 + 0.390625 + 0.140625 = 0.6875.
    # error sqrt(0.6875 / 12) = 0.239357. m (1 - m) = 0.234375, and n_eff = 5 / 4 * 0.234375 * 16 / (0.6875 + 0.234375)
    # = 5.084746, between 4 problems and 8 answers. t(3) = 3.182446, t^2 = 10.127964.
    # centre (0.625 + 10.127964 / 10.169492) / (1 + 10.127964 / 5.084746) = 1.620916 / 2.991833 = 0.541780,
    # half 1.063711 * sqrt(0.234375 / 5.084746 + 10.127964 / 103.418559) = 1.063711 * 0.379507 = 0.403686.
    result = avg_at_k({"a": [1, 1], "b": [1, 0], "c": [0, 0], "d": [1, 1]})
    assert (result.mean, result.problems, result.trials) == (0.625, 4, 8)
    assert result.error == near(0.239357, abs=1e-6)
    assert (result.low, result.high) == (near(0.138094, abs=1e-5), near(0.945466, abs=1e-5))


def test_copied_answers_do_not_narrow_the_interval() -> None:
    # Eight copies of each answer carry no more information than one.
    once = avg_at_k(one_trial("1101001011"))
    copied = avg_at_k({key: trials * 8 for key, trials in one_trial("1101001011").items()})
    assert copied.error == near(once.error)
    assert copied.low <= once.low < once.high <= copied.high


def test_the_interval_is_not_a_point_when_all_answers_are_right() -> None:
    # Wilson at 1 with t(19) = 2.093024: low = n / (n + t^2) = 20 / 24.380750 = 0.820319.
    result = avg_at_k({str(place): [1, 1] for place in range(20)})
    assert (result.low, result.high) == (near(0.820319, abs=1e-6), near(1.0))
    result = avg_at_k({str(place): [0, 0] for place in range(20)})
    assert (result.low, result.high) == (near(0.0, abs=1e-12), near(0.179681, abs=1e-6))
    # Every problem half right: no spread between problems, and n_eff = 3 / 2 * 0.25 * 4 / 0.25 = 6 is at most the 4
    # answers. t(1) = 12.706205, t^2 = 161.447638: half 12.706205 / 41.361910 * sqrt(0.0625 + 2.522619) = 0.493919.
    result = avg_at_k({"a": [1, 0], "b": [0, 1]})
    assert (result.low, result.high) == (near(0.006081, abs=1e-5), near(0.993919, abs=1e-5))


def test_one_wrong_answer_of_many_trials_does_not_make_few_problems_certain() -> None:
    # 30 problems of 16 trials, 479 of 480 right: m = 0.997917, m (1 - m) = 0.002079, squares (15/16 - m)^2 +
    # 29 (1 - m)^2 = 0.003776. Without one more problem n_eff would be 900 * 0.002079 / 0.003776 = 480 (at most);
    # with it, 930 * 0.002079 / (0.003776 + 0.002079) = 330.2.
    # t(29) = 2.045230, t^2 = 4.182964: centre (0.997917 + 0.006334) / 1.012668 = 0.991688, half 2.019645 *
    # sqrt(0.002079 / 330.2 + 4.182964 / 436128) = 2.019645 * 0.003985 = 0.008048.
    result = avg_at_k({str(place): [1] * 15 + [min(place, 1)] for place in range(30)})
    assert (result.low, result.high) == (near(0.983640, abs=2e-5), near(0.999736, abs=2e-5))


def test_problems_can_have_weights() -> None:
    # Means 0.25, 1, 0 with weights 2, 1, 3: m = 1.5 / 6 = 0.25, sum w^2 (m_p - m)^2 = 0 + 0.5625 + 9 * 0.0625 = 1.125,
    # error sqrt(3 / 2 * 1.125) / 6 = 0.216506. n_eff = 4 / 3 * 0.1875 * 36 / (1.125 + 0.1875 * 14 / 3) = 9 / 2.
    # t(2) = 4.302653, t^2 = 18.512821: centre (0.25 + 2.056980) / 5.113960 = 0.451114,
    # half 0.841354 * sqrt(0.041667 + 0.228553) = 0.437358.
    outcomes: dict[str, list[float]] = {"a": [0.5, 0], "b": [1, 1], "c": [0, 0]}
    result = avg_at_k(outcomes, weights={"a": 2, "b": 1, "c": 3})
    assert (result.mean, result.error) == (0.25, near(0.216506, abs=1e-6))
    assert (result.low, result.high) == (near(0.013756, abs=1e-5), near(0.888472, abs=1e-5))
    equal = avg_at_k(outcomes, weights=dict.fromkeys(outcomes, 7.0))
    assert (equal.low, equal.high) == (near(avg_at_k(outcomes).low), near(avg_at_k(outcomes).high))
    with pytest.raises(ValueError, match="add up to 0"):
        avg_at_k(outcomes, weights=dict.fromkeys(outcomes, 0.0))


def test_problems_have_equal_weight_whatever_their_number_of_trials() -> None:
    assert avg_at_k({"a": [1, 1, 1, 1], "b": [0]}).mean == 0.5


def test_missing_outcomes_are_an_error() -> None:
    with pytest.raises(ValueError, match="at least one problem"):
        avg_at_k({})
    with pytest.raises(ValueError, match="'a' has no outcomes"):
        avg_at_k({"a": []})


@given(st.dictionaries(st.text(max_size=3), st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=30))
def test_an_interval_contains_its_mean_and_is_between_0_and_1(outcomes: dict[str, list[bool]]) -> None:
    result = avg_at_k(outcomes)
    assert 0 <= result.low <= result.mean + 1e-12
    assert result.mean - 1e-12 <= result.high <= 1


@pytest.mark.parametrize(("degrees", "expected"), [(1, 12.7062), (2, 4.3027), (3, 3.1824), (29, 2.0452), (120, 1.9799)])
def test_student_quantiles_equal_the_printed_table(degrees: int, expected: float) -> None:
    assert student_quantile(0.95, degrees) == near(expected, abs=5e-5)


def test_student_quantiles_meet_the_normal_quantile_without_a_jump() -> None:
    assert student_quantile(0.95, 2000) == near(student_quantile(0.95, 2001), abs=2e-3)
