"""pass@k, maj@k and attainable scores; expected numbers are derived in the comments."""

from __future__ import annotations

from itertools import combinations
from statistics import fmean
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spotcli.core.stats import attainable, avg_at_k, maj_at_k, pass_at_k
from spotcli.core.stats.repeated import RIGHT

near: Any = pytest.approx


def test_pass_at_k_is_unbiased() -> None:
    # 4 trials: 1 right: 1 - C(3, 2) / C(4, 2) = 1 - 3 / 6; 2 right: 1 - 1 / 6; none: 0; mean (1/2 + 5/6 + 0) / 3 = 4/9.
    outcomes = {"a": [1, 0, 0, 0], "b": [0, 1, 1, 0], "c": [0, 0, 0, 0]}
    assert pass_at_k(outcomes, 2) == near(4 / 9)
    assert pass_at_k(outcomes) == near(2 / 3)  # one right answer among all four


def test_pass_at_k_uses_the_smallest_number_of_trials() -> None:
    # k = 2: b has 1 - C(2, 2) / C(3, 2) = 2 / 3.
    assert pass_at_k({"a": [0, 1], "b": [1, 0, 0]}) == near((1 + 2 / 3) / 2)
    with pytest.raises(ValueError, match="at least 3 trials"):
        pass_at_k({"a": [0, 1], "b": [1, 0, 0]}, 3)
    with pytest.raises(ValueError, match="at least 1 trials"):
        pass_at_k({})


def test_an_outcome_that_is_partly_right_does_not_pass() -> None:
    assert pass_at_k({"a": [0.5, 0.9]}) == 0


@given(st.lists(st.integers(0, 1), min_size=1, max_size=7), st.integers(1, 7))
def test_pass_at_k_is_the_mean_over_all_choices_of_k_trials(trials: list[int], k: int) -> None:
    k = min(k, len(trials))
    assert pass_at_k({"a": trials}, k) == near(fmean(max(chosen) for chosen in combinations(trials, k)))
    assert pass_at_k({"a": trials}, 1) == near(avg_at_k({"a": trials}).mean)


@pytest.mark.parametrize(
    ("votes", "expected"),
    [
        ([RIGHT, RIGHT, "7"], 1.0),
        ([RIGHT, "7", "7"], 0.0),
        ([RIGHT, "7"], 1 / 2),
        ([RIGHT, "7", "8"], 1 / 3),
        (["7", "8"], 0.0),
        ([RIGHT, None, None], 1.0),
        ([None, None], 0.0),
        ([RIGHT, "7", "7", RIGHT, None], 1 / 2),
    ],
)
def test_the_most_frequent_answer_counts_and_ties_are_shared(votes: list[str | None], expected: float) -> None:
    assert maj_at_k({"a": votes}) == near(expected)
    assert maj_at_k({"a": votes[::-1]}) == near(expected)


def test_maj_at_k_is_a_mean_over_problems() -> None:
    assert maj_at_k({"a": [RIGHT, "7"], "b": [RIGHT, RIGHT]}) == near(0.75)
    with pytest.raises(ValueError, match="at least one problem"):
        maj_at_k({})


@pytest.mark.parametrize(
    ("value", "problems", "trials", "expected"),
    [
        # 25.55 to 25.65 % of 480 answers are 122.64 to 123.12: 123. Of 150 answers 38.325 to 38.475: none.
        ("25.6", 30, 16, True),
        (25.6, 30, 5, False),
        # 25.65 to 25.75 % of 480 answers are 123.12 to 123.6: none.
        ("25.7", 30, 16, False),
        # 25.25 to 25.35 % of 150 answers are 37.875 to 38.025: 38.
        ("25.3", 30, 5, True),
        # 66.95 to 67.05 % of 200 answers are 133.9 to 134.1: 134.
        (67.0, 40, 5, True),
        # One decimal more makes it precise: 3 of 8 are 37.5 %, and 37.50 is attainable where 37.46 is not.
        ("37.50", 8, 1, True),
        ("37.46", 8, 1, False),
        # 1 of 8 is 12.5 %, which rounds to 12 or to 13.
        ("12", 8, 1, True),
        ("13", 8, 1, True),
        ("100", 30, 16, True),
        ("100.0", 30, 16, True),
        ("0", 30, 16, True),
        ("101", 30, 16, False),
        ("-1", 30, 16, False),
    ],
)
def test_a_published_score_is_a_multiple_of_one_answer(
    value: str | float, problems: int, trials: int, expected: bool
) -> None:
    assert attainable(value, problems, trials) is expected


@given(st.integers(1, 700), st.integers(1, 16), st.data())
def test_every_score_of_whole_answers_is_attainable(problems: int, trials: int, data: st.DataObject) -> None:
    right = data.draw(st.integers(0, problems * trials))
    assert attainable(f"{100 * right / (problems * trials):.1f}", problems, trials)
