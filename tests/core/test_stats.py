"""Expected numbers are derived in the comments; z = 1.959964 and z^2 = 3.841459 for 95 %."""

from __future__ import annotations

from fractions import Fraction
from itertools import product
from math import comb, sqrt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spotcli.core import stats
from spotcli.core.stats import avg_at_k, compare, mcnemar, sign_flip

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
    # error sqrt(0.6875 / 12) = 0.239357; n_eff = 4 * 0.234375 / 0.171875 = 5.454545, between 4 problems and 8 answers.
    # centre (0.625 + 3.841459 / 10.909091) / (1 + 3.841459 / 5.454545) = 0.977134 / 1.704267 = 0.573345,
    # half 1.150034 * sqrt(0.234375 / 5.454545 + 3.841459 / 119.008264) = 1.150034 * 0.274313 = 0.315469.
    result = avg_at_k({"a": [1, 1], "b": [1, 0], "c": [0, 0], "d": [1, 1]})
    assert (result.mean, result.problems, result.trials) == (0.625, 4, 8)
    assert result.error == near(0.239357, abs=1e-6)
    assert (result.low, result.high) == (near(0.257876, abs=1e-5), near(0.888814, abs=1e-5))


def test_copied_answers_do_not_narrow_the_interval() -> None:
    # Eight copies of each answer carry no more information than one.
    once = avg_at_k(one_trial("1101001011"))
    copied = avg_at_k({key: trials * 8 for key, trials in one_trial("1101001011").items()})
    assert (copied.low, copied.high, copied.error) == (near(once.low), near(once.high), near(once.error))


def test_the_interval_is_not_a_point_when_all_answers_are_right() -> None:
    # Wilson at 1: low = n / (n + z^2) = 20 / 23.841459 = 0.838875.
    result = avg_at_k({str(place): [1, 1] for place in range(20)})
    assert (result.low, result.high) == (near(0.838875, abs=1e-6), near(1.0))
    result = avg_at_k({str(place): [0, 0] for place in range(20)})
    assert (result.low, result.high) == (near(0.0, abs=1e-12), near(0.161125, abs=1e-6))
    # Every problem half right: no spread between problems, and n_eff is at most the 4 answers:
    # centre 0.5, half 1.959964 / 1.960365 * sqrt(0.0625 + 0.060023) = 0.349962.
    result = avg_at_k({"a": [1, 0], "b": [0, 1]})
    assert (result.low, result.high) == (near(0.150038, abs=1e-4), near(0.849962, abs=1e-4))


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


@pytest.mark.parametrize(
    ("wins", "losses", "expected"),
    [
        (9, 1, 22 / 1024),  # 2 * (C(10,0) + C(10,1)) / 2^10 = 2 * 11 / 1024
        (1, 9, 22 / 1024),
        (10, 0, 2 / 1024),
        (5, 5, 1.0),
        (3, 2, 1.0),  # 2 * (1 + 5 + 10) / 32 = 1
        (0, 0, 1.0),
        (1, 0, 1.0),  # 2 * 1 / 2
    ],
)
def test_mcnemar(wins: int, losses: int, expected: float) -> None:
    assert mcnemar(wins, losses) == near(expected, rel=1e-12)


@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemar_equals_the_binomial_sum(wins: int, losses: int) -> None:
    n = wins + losses
    tail = sum(comb(n, place) for place in range(min(wins, losses) + 1))
    assert mcnemar(wins, losses) == near(min(1.0, 2 * tail / 2**n), rel=1e-9)


def test_mcnemar_on_many_flips_is_fast_and_does_not_overflow() -> None:
    assert mcnemar(30_000, 30_000) == 1.0
    assert 0 <= mcnemar(40_000, 20_000) < 1e-300


def test_one_trial_per_problem_uses_mcnemar() -> None:
    # 4 wins, 1 loss, 5 ties: d = 0.3. p = 2 * (C(5,0) + C(5,1)) / 32 = 12 / 32.
    # Bonett and Price: (4 + 1) / 12 - (1 + 1) / 12 = 0.25; variance (7/12 - 0.0625) / 12 = 0.0434028, root 0.208333;
    # half 1.959964 * 0.208333 = 0.408326.
    result = compare(one_trial("0000111000"), one_trial("1111011000"))
    assert (result.wins, result.losses, result.ties, result.problems) == (4, 1, 5, 10)
    assert (result.before, result.after, result.difference) == (near(0.3), near(0.6), near(0.3))
    assert (result.test, result.p_value) == ("McNemar, exact", near(0.375))
    assert (result.low, result.high) == (near(-0.158326, abs=1e-6), near(0.658326, abs=1e-6))
    # sum (d_p - d)^2 = 4 * 0.49 + 1.69 + 5 * 0.09 = 4.1; sqrt(4.1 / 90) = 0.213437.
    assert result.error == near(0.213437, abs=1e-6)


def test_several_trials_per_problem_use_sign_flips() -> None:
    # d = 1, 0.5, 0.5, -0.5; mean 0.375. In halves 2, 1, 1, -1, which sum to 3. Of the 16 choices of signs, the
    # positive parts sum to 4 in 3 (the 2 and two of the 1s) and to 5 in 1: 4 sums of 3 or more, so p = 2 * 4 / 16.
    before = {"a": [0, 0], "b": [0, 1], "c": [0, 0], "d": [1, 1]}
    after = {"a": [1, 1], "b": [1, 1], "c": [1, 0], "d": [1, 0]}
    result = compare(before, after)
    assert (result.test, result.p_value) == ("sign flip, exact", 0.5)
    assert (result.wins, result.losses, result.ties) == (3, 1, 0)
    assert result.difference == 0.375
    # squares 0.390625 + 0.015625 + 0.015625 + 0.765625 = 1.1875; sqrt(1.1875 / 12) = 0.314576; t(3) = 3.182446:
    # 0.375 -+ 1.001122, and a difference is at most 1.
    assert result.error == near(0.314576, abs=1e-6)
    assert (result.low, result.high) == (near(-0.626122, abs=1e-5), 1.0)


def test_the_order_of_problems_does_not_matter() -> None:
    before = {"a": [0, 0], "b": [1, 1]}
    assert compare(before, {"b": [1, 1], "a": [1, 1]}).wins == 1


def test_equal_scores_do_not_prove_equal_models() -> None:
    same = {str(place): [1, 0] for place in range(10)}
    result = compare(same, same)
    assert (result.difference, result.p_value, result.wins, result.losses) == (0, 1.0, 0, 0)
    # The two added changes of +1 and -1: variance (2 / 12) / 12, root 0.117851; times z 0.230984.
    assert (result.low, result.high) == (near(-0.230984, abs=1e-6), near(0.230984, abs=1e-6))


def test_comparing_different_problems_is_an_error() -> None:
    with pytest.raises(ValueError, match="1 problems have answers of one model only, such as 'b'"):
        compare({"a": [1]}, {"a": [1], "b": [0]})
    with pytest.raises(ValueError, match="different numbers of trials, such as 'a'"):
        compare({"a": [1]}, {"a": [1, 0]})
    with pytest.raises(ValueError, match="at least one problem"):
        compare({}, {})


@given(st.lists(st.fractions(Fraction(-1), Fraction(1), max_denominator=4), max_size=9))
def test_the_sign_flip_test_counts_all_sign_choices(changes: list[Fraction]) -> None:
    observed = abs(sum(changes, Fraction(0)))
    signs = list(product((1, -1), repeat=len(changes)))
    sums = [sum((s * c for s, c in zip(choice, changes, strict=True)), Fraction(0)) for choice in signs]
    far = sum(abs(total) >= observed for total in sums)
    assert sign_flip(changes) == ("sign flip, exact", near(far / len(signs)))


@given(st.lists(st.sampled_from([-1, 0, 1]), min_size=1, max_size=60))
def test_sign_flips_of_single_trials_equal_mcnemar(changes: list[int]) -> None:
    expected = mcnemar(changes.count(1), changes.count(-1))
    assert sign_flip([Fraction(change) for change in changes])[1] == near(expected)


def test_very_many_problems_use_the_normal_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    changes = [Fraction(place % 5 - 1, 4) for place in range(200)]
    name, exact = sign_flip(changes)
    assert name == "sign flip, exact"
    monkeypatch.setattr(stats, "MAX_BYTES", 0)
    # 40 rounds of -1, 0, 1, 2, 3 quarters: sum 50, sum of squares 40 * 15 / 16 = 37.5; the unit is a quarter:
    # z = (50 - 0.25) / sqrt(37.5) = 8.124, and the normal distribution has 4.5e-16 beyond it on both sides.
    name, limit = sign_flip(changes)
    assert name == "sign flip, normal"
    assert limit == near(4.5e-16, rel=0.02)
    assert exact < 1e-12
    # sum 15 - 11 = 4, squares 60 / 16 + 22 / 4 = 9.25, z = (4 - 0.25) / sqrt(9.25) = 1.23299, p = 0.21758.
    changes = [Fraction(1, 4)] * 60 + [Fraction(-1, 2)] * 22
    assert sign_flip(changes)[1] == near(0.21758, abs=1e-5)
    monkeypatch.undo()
    assert sign_flip(changes)[1] == near(0.21758, abs=1e-3)


def test_shares_of_instructions_are_compared_exactly() -> None:
    # d = 1/3, 2/3, 0, -1/3: in thirds 1, 2, -1, sum 2 of 4. Of 8 choices the positive parts sum to 3 or more in
    # {2, 1}, {2, 1}, {2, 1, 1}: p = 2 * 3 / 8.
    result = compare(
        {"a": [1 / 3], "b": [0], "c": [2 / 3], "d": [1]}, {"a": [2 / 3], "b": [2 / 3], "c": [2 / 3], "d": [2 / 3]}
    )
    assert (result.wins, result.losses, result.ties) == (2, 1, 1)
    assert (result.test, result.p_value) == ("sign flip, exact", 0.75)


@pytest.mark.parametrize(("degrees", "expected"), [(1, 12.7062), (2, 4.3027), (3, 3.1824), (29, 2.0452), (120, 1.9799)])
def test_student_quantiles_equal_the_printed_table(degrees: int, expected: float) -> None:
    assert stats._student(0.95, degrees) == near(expected, abs=5e-5)


def test_student_quantiles_meet_the_normal_quantile_without_a_jump() -> None:
    assert stats._student(0.95, 2000) == near(stats._student(0.95, 2001), abs=2e-3)
    # The error of the mean of the two values 0 and 1 is half their distance; t(1) = 12.7062.
    result = compare({"a": [0, 0], "b": [0, 0]}, {"a": [0, 0], "b": [1, 1]})
    assert result.error == near(sqrt(0.5 / 2))
    assert (result.low, result.high) == (-1.0, 1.0)


def test_the_exact_interval_of_a_proportion() -> None:
    # 7 of 100, the table of Clopper and Pearson: 2.9 to 13.9 %. Wilson's is 3.4 to 13.7 %.
    assert stats.exact_interval(7, 100) == (near(0.0286, abs=5e-5), near(0.1389, abs=5e-5))
    # No hit: (1 - high)^10 = 0.025, so high = 1 - 0.025^(1/10).
    assert stats.exact_interval(0, 10) == (0.0, near(1 - 0.025**0.1))
    assert stats.exact_interval(10, 10) == (near(0.025**0.1), 1.0)
    with pytest.raises(ValueError, match="got 3 of 2"):
        stats.exact_interval(3, 2)


@given(st.integers(1, 40).flatmap(lambda trials: st.tuples(st.integers(0, trials), st.just(trials))))
def test_the_bounds_of_the_exact_interval_have_its_tails(counts: tuple[int, int]) -> None:
    hits, trials = counts
    low, high = stats.exact_interval(hits, trials)

    def chance(share: float, values: range) -> float:
        return sum(comb(trials, k) * share**k * (1 - share) ** (trials - k) for k in values)

    assert 0 <= low <= hits / trials <= high <= 1
    if hits:
        assert chance(low, range(hits, trials + 1)) == near(0.025, abs=1e-9)
    if hits < trials:
        assert chance(high, range(hits + 1)) == near(0.025, abs=1e-9)
