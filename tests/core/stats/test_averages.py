"""Averages over tasks; expected numbers are derived in the comments."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spotcli.core.stats import Comparison, Estimate, average_change, average_score, avg_at_k, compare

near: Any = pytest.approx

CHANGE = Comparison(0.5, 0.6, 0.1, 0.04, 0.16, 0.03, 0.01, "", 3, 1, 7, problems=11, trials=55)


def test_the_interval_of_an_average_score_is_recovered_from_those_of_its_tasks() -> None:
    # Below: sqrt(0.1^2 + 0.1^2) / 2; above: sqrt(0.12^2 + 0.06^2) / 2; error sqrt(0.03^2 + 0.04^2) / 2 = 0.05 / 2.
    average = average_score({"a": Estimate(0.6, 0.5, 0.72, 0.03, 9, 9), "b": Estimate(0.8, 0.7, 0.86, 0.04, 9, 9)})
    assert (average.mean, average.error, average.tasks) == (near(0.7), near(0.025), ["a", "b"])
    assert (average.low, average.high) == (near(0.7 - 0.0707107, abs=1e-6), near(0.7 + 0.0670820, abs=1e-6))


def test_every_task_has_the_same_weight() -> None:
    # 1 of 1 and 0 of 99 are 50 %, not 1 %.
    few, many = {"x": [1.0]}, {str(place): [0.0] for place in range(99)}
    assert average_score({"few": avg_at_k(few), "many": avg_at_k(many)}).mean == 0.5


def test_tasks_with_all_answers_right_are_not_certain() -> None:
    # Wilson at 1, 30 of 30: low = 30 / (30 + 3.841459) = 0.886487. Of two such tasks 1 - 0.113513 / sqrt(2).
    right = avg_at_k({str(place): [1.0] for place in range(30)})
    average = average_score({"a": right, "b": right})
    assert (average.error, average.low, average.high) == (0.0, near(1 - 0.0802658, abs=1e-6), 1.0)


def test_the_interval_of_an_average_difference() -> None:
    # v: 0.03^2 + 1 / (4 * 11 * 10) = 0.00317273 and 0.04^2 + 1 / (4 * 21 * 20) = 0.00219524, together 0.00536797.
    # f = 0.00536797^2 / (0.00317273^2 / 10 + 0.00219524^2 / 20) = 23.1; t(23) = 2.068658.
    # half 2.068658 * 0.0732664 / 2 = 0.0757816; error sqrt(0.03^2 + 0.04^2) / 2 = 0.025.
    second = replace(CHANGE, difference=0.3, error=0.04, problems=21)
    average = average_change({"a": CHANGE, "b": second})
    assert (average.mean, average.error, average.tasks) == (near(0.2), near(0.025), ["a", "b"])
    assert (average.low, average.high) == (near(0.2 - 0.0757816, abs=1e-6), near(0.2 + 0.0757816, abs=1e-6))


def test_an_average_of_one_task_has_the_interval_of_the_task() -> None:
    outcomes = {str(place): [1.0, float(place % 2)] for place in range(9)}
    estimate = avg_at_k(outcomes)
    average = average_score({"a": estimate})
    assert (average.mean, average.low, average.high) == (near(estimate.mean), near(estimate.low), near(estimate.high))
    change = average_change({"a": CHANGE})
    assert (change.mean, change.low, change.high, change.error) == (near(0.1), 0.04, 0.16, near(0.03))


def test_tasks_of_a_single_problem_can_be_averaged() -> None:
    one = compare({"x": [0.0]}, {"x": [1.0]})
    average = average_change({"a": one, "b": CHANGE})
    assert average.mean == near(0.55)
    assert -1 <= average.low < average.mean < average.high <= 1


def test_equal_tasks_are_nearly_one_set_of_all_their_problems() -> None:
    before = {str(place): [0.0, 1.0] for place in range(50)}
    after = {str(place): [float(place % 5 == 0), 1.0] for place in range(50)}
    parts = {name: compare(before, after) for name in "abcd"}
    whole = compare(*({f"{name}{id}": of for name in "abcd" for id, of in side.items()} for side in (before, after)))
    average = average_change(parts)
    assert average.mean == near(whole.difference)
    assert average.high - average.low == near(whole.high - whole.low, rel=0.02)


def test_an_average_requires_a_task() -> None:
    for average in (average_score, average_change):
        with pytest.raises(ValueError, match="at least one task"):
            average({})


OUTCOMES = st.lists(st.lists(st.sampled_from([0.0, 1.0]), min_size=3, max_size=3), min_size=1, max_size=12)


@given(st.lists(st.tuples(OUTCOMES, st.randoms(use_true_random=False)), min_size=1, max_size=5))
def test_intervals_contain_the_mean_and_are_inside_the_range(sets: list[tuple[list[list[float]], Any]]) -> None:
    scores, changes = {}, {}
    for place, (outcomes, chance) in enumerate(sets):
        before = {str(index): trials for index, trials in enumerate(outcomes)}
        after = {id: [float(chance.random() < 0.5) for _ in trials] for id, trials in before.items()}
        scores[str(place)], changes[str(place)] = avg_at_k(before), compare(before, after)
    score, change = average_score(scores), average_change(changes)
    assert 0 <= score.low <= score.mean + 1e-12
    assert score.mean - 1e-12 <= score.high <= 1
    assert -1 <= change.low <= change.mean + 1e-12
    assert change.mean - 1e-12 <= change.high <= 1
    # No wider than the widest of its tasks.
    assert score.high - score.low <= max(one.high - one.low for one in scores.values()) + 1e-12
