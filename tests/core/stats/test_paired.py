"""Expected numbers are derived in the comments; z = 1.959964 and z^2 = 3.841459 for 95 %."""

from __future__ import annotations

from fractions import Fraction
from itertools import product
from math import comb, sqrt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spotcli.core.stats import compare, holm, mcnemar, paired, sign_flip

near: Any = pytest.approx


def one_trial(outcomes: str) -> dict[str, list[int]]:
    return {str(place): [int(outcome)] for place, outcome in enumerate(outcomes)}


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
    # squares 0.390625 + 0.015625 + 0.015625 + 0.765625 = 1.1875; sqrt(1.1875 / 12) = 0.314576.
    # With the added 1/2: sqrt(1.6875 / 12) = 0.375; t(3) = 3.182446: 0.375 -+ 1.193417, and a difference is at most 1.
    assert result.error == near(0.314576, abs=1e-6)
    assert (result.low, result.high) == (near(-0.818417, abs=1e-5), 1.0)


def test_the_order_of_problems_does_not_matter() -> None:
    before = {"a": [0, 0], "b": [1, 1]}
    assert compare(before, {"b": [1, 1], "a": [1, 1]}).wins == 1


def test_equal_scores_do_not_prove_equal_models() -> None:
    same = {str(place): [1, 0] for place in range(10)}
    result = compare(same, same)
    assert (result.difference, result.p_value, result.wins, result.losses) == (0, 1.0, 0, 0)
    # The two added changes of +1/2 and -1/2: sqrt(0.5 / 90) = 0.074536; times t(9) = 2.262157: 0.168611.
    assert (result.low, result.high) == (near(-0.168611, abs=1e-6), near(0.168611, abs=1e-6))
    # With one trial, the two added changes of +1 and -1: variance (2 / 12) / 12, root 0.117851; times z 0.230984.
    result = compare(one_trial("1" * 10), one_trial("1" * 10))
    assert (result.low, result.high) == (near(-0.230984, abs=1e-6), near(0.230984, abs=1e-6))
    assert compare({"a": [1, 1]}, {"a": [1, 0]}).low == -1.0


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
    monkeypatch.setattr(paired, "MAX_BYTES", 0)
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


def test_two_problems_have_students_widest_interval() -> None:
    # The error of the mean of the two values 0 and 1 is half their distance; t(1) = 12.7062.
    result = compare({"a": [0, 0], "b": [0, 0]}, {"a": [0, 0], "b": [1, 1]})
    assert result.error == near(sqrt(0.5 / 2))
    assert (result.low, result.high) == (-1.0, 1.0)


def test_p_values_are_corrected_for_their_number() -> None:
    # Sorted 0.01, 0.03, 0.04: 3 * 0.01 = 0.03, 2 * 0.03 = 0.06, and 1 * 0.04 is not below the one before.
    assert holm({"a": 0.04, "b": 0.01, "c": 0.03}) == {"a": near(0.06), "b": near(0.03), "c": near(0.06)}
    assert holm({"a": 0.6, "b": 0.7}) == {"a": 1.0, "b": 1.0}
    assert holm({"a": 0.04}) == {"a": 0.04}
    assert holm({}) == {}
