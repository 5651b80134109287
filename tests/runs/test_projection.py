"""The projection of a run from its first answers: worked numbers, and limits."""

from __future__ import annotations

import pytest

from spotcli.runs.projection import Missing, Probe, Range, RunPlan, StagePlan, hours, money, size

PROBE = Probe(
    problems=32, total=1_000, trials=2, answers=32, wrong=8, right=20, undecided=4, tokens=3_200, seconds=16.0
)


def plan(*stages: StagePlan, max_hours: float | None = None, max_cost: float | None = None) -> RunPlan:
    return RunPlan("runs/demo", PROBE, [*stages], [], free=1e12, max_hours=max_hours, max_cost=max_cost)


def test_wrong_answers_are_projected_with_the_interval_of_their_share() -> None:
    # 1,000 problems, 2 answers each: 8 of 32 are 25 %, 500 of 2,000.
    assert PROBE.wrong_answers.likely == 500
    # Clopper-Pearson for 8 of 32, by scipy.stats.binomtest(8, 32).proportion_ci(): 0.1146 to 0.4340.
    share = PROBE.wrong_share
    assert share.low == pytest.approx(0.1146, abs=1e-4)
    assert share.high == pytest.approx(0.4340, abs=1e-4)
    assert PROBE.tokens_per_second == 200


def test_hours_and_dollars_are_sums_of_what_is_known() -> None:
    whole = plan(
        StagePlan("sample", "", hours=1.5, disk=10.0),
        StagePlan("rectify", "", dollars=Range(1.0, 2.0, None), disk=5.0),
        StagePlan("train", "", hours=2.0),
    )
    assert (whole.hours, whole.disk) == (3.5, 15.0)
    assert whole.cost == Range(1.0, 2.0, None)
    assert plan(StagePlan("rectify", "")).hours is None
    assert plan().cost == Range(0, 0, 0)


def test_a_limit_that_is_likely_to_stop_the_run_is_named() -> None:
    stages = (StagePlan("rectify", "", hours=3.0, dollars=Range(1.0, 2.0, 9.0)),)
    assert list(plan(*stages, max_cost=2.0, max_hours=3.0).exceeded()) == []
    assert list(plan(*stages, max_cost=1.99, max_hours=2.9).exceeded()) == [
        "--max-cost 1.99 is likely to stop the run: about $2.00 are needed.",
        "--max-hours 2.9 is likely to stop the run: about 3.0 h are needed.",
    ]


def test_quantities_in_words() -> None:
    assert [hours(value) for value in (0.01, 0.5, 30.0)] == ["36 s", "30 min", "30.0 h"]
    assert [size(value) for value in (2**20, 2**31)] == ["1.0 MiB", "2.0 GiB"]
    assert money(Range(1.0, 2.0, None)) == "about $2.00 ($1.00 at least, no known limit)"
    assert money(Range(None, None, None)) == "price unknown"
    assert money(Range(0.0, 0.0, 0.0)) == "nothing"


def test_the_dictionary_has_what_the_text_says() -> None:
    values = RunPlan("f", PROBE, [], [Missing("train", "no GPU", "buy one")], free=1.0).as_dict()
    assert values["wrong_answers"]["likely"] == 500
    assert values["missing"] == [{"stage": "train", "problem": "no GPU", "cure": "buy one"}]
