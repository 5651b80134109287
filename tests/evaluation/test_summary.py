"""From graded answers to numbers; expected values are counted by hand."""

from __future__ import annotations

import json
from typing import Any

import pytest

from spotcli.errors import RecipeError
from spotcli.evaluation.asked_tasks import ModelRows
from spotcli.evaluation.scores import TaskFacts
from spotcli.evaluation.summary import compare_models, summarise, summarise_model, trained_tasks
from spotcli.records import json_text
from tests.evaluation.scored import compared, model, rows

near: Any = pytest.approx


def test_one_model_on_one_task() -> None:
    # Problem means 1/2, 1, 0, 0, 0: avg@2 0.3; two of five problems have a right answer.
    # Majority: r against w ties (1/2), rr (1), ww (0), one undecided vote and a truncated answer that does not vote
    # (0), no votes (0): (1/2 + 1) / 5 = 0.3.
    answers = model("m", {"math": ["rw", "rr", "ww", "ut", "tt"]}, failed={"math": 3}, seconds={"math": 2.5})
    score = summarise_model(answers, {"math": TaskFacts("OOD")}, []).scores["math"]
    assert (score.estimate.mean, score.pass_at_k, score.maj_at_k) == (near(0.3), near(0.4), near(0.3))
    assert (score.right, score.wrong, score.undecided, score.truncated, score.failed) == (3, 3, 4, 3, 3)
    assert (score.answers, score.k, score.tokens, score.seconds) == (10, "2", 100, 2.5)
    assert (score.group, score.trained) == ("OOD", False)


def test_wrong_answers_vote_as_they_are_written() -> None:
    # r w v: three answers tie, 1/3. r w w: 0. An undecided answer has a vote of its own: r u ties.
    facts = {"math": TaskFacts()}
    scores = [
        summarise_model(model("m", {"math": [marks]}), facts, []).scores["math"].maj_at_k
        for marks in ("rwv", "rww", "ru")
    ]
    assert scores == [near(1 / 3), 0.0, 0.5]


def test_graders_that_extract_nothing_have_no_majority() -> None:
    facts = {"ifeval": TaskFacts()}
    assert summarise_model(model("m", {"ifeval": ["yn", "yt"]}), facts, []).scores["ifeval"].maj_at_k is None


def test_averages_are_means_over_tasks() -> None:
    # in-domain (1 + 0.5) / 2, OOD 0, overall over all four tasks (1 + 0.5 + 0 + 1) / 4; other has no average.
    facts = {"a": TaskFacts("in-domain"), "b": TaskFacts("in-domain"), "c": TaskFacts("OOD"), "d": TaskFacts()}
    scores = summarise_model(model("m", {"a": ["r"], "b": ["r", "w"], "c": ["w"], "d": ["r"]}), facts, [])
    means = {group: average.mean for group, average in scores.averages.items()}
    assert means == {"in-domain": near(0.75), "OOD": 0.0, "overall": near(0.625)}
    assert scores.averages["in-domain"].tasks == ["a", "b"]
    # a: 1 of 1, Wilson 20.7 to 100 %; b: 1 of 2, 9.5 to 90.5 %. Below sqrt(0.793^2 + 0.405^2) / 2, above 0.405 / 2.
    assert scores.averages["in-domain"].low == near(0.75 - 0.44552, abs=1e-4)
    assert scores.averages["in-domain"].high == near(0.75 + 0.20273, abs=1e-4)


def test_a_model_without_a_score_in_a_task_has_no_average_of_it() -> None:
    # An average over fewer tasks is another number, and must not be beside those of the other models.
    facts = {"a": TaskFacts("in-domain"), "b": TaskFacts("in-domain"), "c": TaskFacts("OOD")}
    tasks = {"a": ["r"], "b": ["w"], "c": ["r"]}
    models = [model("base", tasks), model("tuned", tasks), model("earlier", {"a": ["r"], "c": ["r"]})]
    summary = summarise(models, facts, compared=True, trained=["a", "b"], margin=0.02)
    assert [list(one.averages) for one in summary.models] == [["in-domain", "OOD", "overall"]] * 2 + [["OOD"]]
    against = summarise([models[2], models[1]], facts, compared=True, trained=["a", "b"], margin=0.02)
    assert list(against.average_changes) == ["OOD"]


def test_averages_of_two_models_have_a_difference_with_its_interval() -> None:
    # a: +1 of 4, b: 0 of 4 problems: (0.25 + 0) / 2; overall with c: -1 of 2: (0.25 + 0 - 0.5) / 3.
    facts = {"a": TaskFacts("in-domain"), "b": TaskFacts("in-domain"), "c": TaskFacts("OOD")}
    before = {"a": ["r", "w", "w", "w"], "b": ["r", "r", "w", "w"], "c": ["r", "r"]}
    after = {"a": ["r", "r", "w", "w"], "b": ["r", "r", "w", "w"], "c": ["r", "w"]}
    models = [model("base", before), model("tuned", after)]
    summary = summarise(models, facts, compared=True, trained=["a", "b"], margin=0.02)
    changes = summary.average_changes
    assert {group: change.mean for group, change in changes.items()} == {
        "in-domain": near(0.125),
        "OOD": near(-0.5),
        "overall": near(-0.25 / 3),
    }
    assert changes["in-domain"].low < 0.125 < changes["in-domain"].high
    only = summary.comparisons["c"].comparison
    assert (changes["OOD"].low, changes["OOD"].high) == (only.low, only.high)
    values = json.loads(json_text(summary.as_dict()))
    assert values["average_changes"]["in-domain"]["tasks"] == ["a", "b"]
    assert set(values["models"][1]["averages"]["overall"]) == {"mean", "low", "high", "error", "tasks"}
    alone = summarise(models[:1], facts, compared=False, trained=["a"], margin=0.02)
    assert alone.average_changes == {}


def test_tasks_without_answers_have_no_score() -> None:
    scores = summarise_model(model("m", {"a": ["r"]}), {"a": TaskFacts(), "b": TaskFacts()}, [])
    assert list(scores.scores) == ["a"]


def test_metrics_of_rows_are_means_with_the_weights_of_the_task() -> None:
    # Shares of instructions 1/2 of two and 1 of one: (2 * 0.5 + 1 * 1) / 3; by problem 0.75.
    answers = model("m", {})
    first = rows("ifeval", ["n"], metrics={"instructions": 0.5, "loose": 0.5})
    second = rows("ifeval", ["-", "y"], metrics={"instructions": 1.0, "loose": 1.0})
    size = {"p0": 2.0, "p1": 1.0}
    facts = TaskFacts("IFEval", {"loose": 0.1}, lambda problem: {"instructions": size[problem.id]})
    model_rows = type(answers)("m", "m.jsonl", first + [row.model_copy(update={"id": "p1"}) for row in second])
    score = summarise_model(model_rows, {"ifeval": facts}, []).scores["ifeval"]
    assert score.metrics["instructions"].mean == near(2 / 3)
    assert score.metrics["loose"].mean == near(0.75)
    assert score.chance == {"loose": 0.1}


def test_problems_are_won_lost_or_equal() -> None:
    before = {"math": ["ww", "rr", "rw", "ww", "rw"]}
    after = {"math": ["rw", "rw", "wr", "wt", "rr"]}
    item = compared(before, after).comparisons["math"]
    assert (item.won, item.lost, item.both, item.neither) == (["p0", "p4"], ["p1"], 1, 1)
    # Changes in halves +1, -1, 0, 0, +1: difference 1 / 10.
    assert item.comparison.difference == near(0.1)


def test_only_trials_that_both_models_have_are_compared() -> None:
    # The base has three trials, the tuned model two; its second answer to p1 failed.
    before, after = {"math": ["rrr", "wrw"]}, {"math": ["rw", "r-"]}
    item = compared(before, after).comparisons["math"]
    # p0: 1 -> 1/2, p1: 0 -> 1; left out: two third trials, and the base's second answer to p1.
    assert (item.comparison.before, item.comparison.after, item.comparison.trials) == (0.5, 0.75, 3)
    assert item.unpaired == 3


def test_a_task_without_common_answers_is_not_compared() -> None:
    comparisons, pooled = compare_models(
        model("base", {"a": ["r"]}), model("tuned", {"a": ["r"], "b": ["r"]}), ["a", "b"], trained=[], margin=0.02
    )
    assert list(comparisons) == ["a"]
    assert pooled is not None
    assert pooled.tasks == ["a"]


def test_p_values_are_corrected_for_the_number_of_tasks() -> None:
    # Ten wins of ten: p = 2 / 1024 with three tasks 6 / 1024; two of two: p = 1/2; equal: 1.
    lost, won = ["w"] * 10, ["r"] * 10
    result = compared({"a": lost, "b": ["w", "w"], "c": won}, {"a": won, "b": ["r", "r"], "c": won}).comparisons
    assert result["a"].p_holm == near(6 / 1024)
    assert result["a"].comparison.p_value == near(2 / 1024)
    assert (result["b"].p_holm, result["c"].p_holm) == (1.0, 1.0)


def test_the_untrained_tasks_are_also_tested_together() -> None:
    # 100 and 60 problems without a change: one set of 160, bound -1.959964 * sqrt(2) / 162 = -0.017110.
    right = {"arithmetic": ["w"] * 5, "far": ["r"] * 100, "farther": ["rr"] * 60}
    summary = compared(right, right)
    assert {task: item.retention.verdict for task, item in summary.comparisons.items() if not item.trained} == {
        "far": "cannot tell",
        "farther": "cannot tell",
    }
    assert summary.pooled is not None
    assert (summary.pooled.tasks, summary.pooled.problems) == (["far", "farther"], 160)
    assert summary.pooled.retention.verdict == "kept"
    assert summary.pooled.retention.bound == near(-0.017110, abs=1e-6)


def test_the_trained_tasks() -> None:
    tasks = {"a": TaskFacts(), "b": TaskFacts("in-domain"), "c": TaskFacts("in-domain")}
    assert trained_tasks(tasks) == ["b", "c"]
    assert trained_tasks(tasks, ["a"]) == ["a"]
    assert trained_tasks({"math500": TaskFacts(), "aime24": TaskFacts()}, ["MATH-500"]) == ["math500"]
    assert trained_tasks({"a": TaskFacts(), "d": TaskFacts("OOD")}) == ["a"]
    with pytest.raises(RecipeError, match=r"eval\.trained: 'bb' is not among the evaluated tasks|'bb' is not among"):
        trained_tasks(tasks, ["bb"])


def test_the_summary_as_json_repeats_the_main_comparison() -> None:
    before, after = {"far": ["r", "r"], "arithmetic": ["w", "w"]}, {"far": ["r", "w"], "arithmetic": ["r", "w"]}
    summary = compared(before, after)
    values = json.loads(json_text(summary.as_dict()))
    assert (values["before"], values["after"], values["difference"]) == (0, 0.5, 0.5)
    assert (values["p_value"], values["drift"], values["against"]) == (1.0, None, "base")
    assert values["comparisons"]["far"]["lost"] == ["p1"]
    assert values["verdict"] == summary.verdict
    assert values["files"] == ["scores/base.jsonl", "scores/tuned.jsonl"]
    assert [one["model"] for one in values["models"]] == ["base", "tuned"]
    assert summary.base["far"].right == 2
    assert summary.scores["far"].right == 1


def test_earlier_results_are_in_the_table_and_not_in_the_comparison() -> None:
    tasks = {"a": ["r", "w"]}
    summary = summarise(
        [model("base", tasks), model("tuned", tasks), model("earlier", {"a": ["r", "r"]})],
        {"a": TaskFacts()},
        compared=True,
        trained=["a"],
        margin=0.02,
    )
    assert [one.averages["overall"].mean for one in summary.models] == [0.5, 0.5, 1.0]
    assert summary.comparisons["a"].comparison.after == 0.5
    alone = summarise([model("one", tasks)], {"a": TaskFacts()}, compared=False, trained=["a"], margin=0.02)
    assert (alone.model, alone.against, alone.comparisons, alone.pooled) == ("one", None, {}, None)
    assert alone.as_dict()["before"] is None


def test_a_task_is_gained_only_if_its_interval_agrees() -> None:
    # Six problems, each with one more right answer among 16: the sign-flip test has p = 2 / 2^6 = 0.031, but the
    # interval is 6.25 -+ 2.571 * sqrt(0.5 / 30) = 6.25 -+ 33.2 points.
    before, after = ["w" * 16] * 6, ["r" + "w" * 15] * 6
    item = compared({"arithmetic": before}, {"arithmetic": after}).comparisons["arithmetic"]
    assert item.p_holm == near(0.03125)
    assert (item.comparison.low, item.comparison.high) == (near(-0.2694, abs=1e-4), near(0.3944, abs=1e-4))
    assert (item.significant, item.result) == (False, "no gain shown")
    # Ten of ten problems: Bonett and Price, mean 10 / 12, variance 1 - (10 / 12)^2; both agree.
    assert compared({"arithmetic": ["w"] * 10}, {"arithmetic": ["r"] * 10}).comparisons["arithmetic"].result == "gained"


def test_all_tasks_together_have_no_verdict_if_one_is_lost() -> None:
    before = {"arithmetic": ["r"], "lost": ["r"] * 100, "won": ["w"] * 300}
    after = {"arithmetic": ["r"], "lost": ["w"] * 12 + ["r"] * 88, "won": ["r"] * 300}
    pooled = compared(before, after).pooled
    assert pooled is not None
    assert (pooled.retention.verdict, pooled.verdict) == ("kept", None)
    one = compared({"arithmetic": ["r"], "lost": ["r"] * 100}, {"arithmetic": ["r"], "lost": ["w"] * 50 + ["r"] * 50})
    assert one.pooled is not None
    assert one.pooled.verdict == "lost"


def test_problems_of_two_tasks_stay_two_problems() -> None:
    # The task "a" has the problem "b:p0", and the task "a:b" has the problem "p0".
    base, tuned = (
        ModelRows(name, f"{name}.jsonl", [*rows("a", ["r"], id="b:p0"), *rows("a:b", ["r"])])
        for name in ("base", "tuned")
    )
    _, pooled = compare_models(base, tuned, ["a", "a:b"], trained=[], margin=0.02)
    assert pooled is not None
    assert pooled.problems == 2


def test_k_is_written_with_a_decimal_if_answers_are_missing() -> None:
    # Three of 20 problems have three answers instead of four: 77 / 20 = 3.85, and pass@k is pass@3.
    score = summarise_model(model("m", {"math": ["rrrr"] * 17 + ["rrr-"] * 3}), {"math": TaskFacts()}, []).scores[
        "math"
    ]
    assert (score.k, score.pass_k) == ("3.9", 3)


def test_averages_before_and_after_are_of_the_compared_answers() -> None:
    # Half of b has no second answer of the tuned model. On the trials of both, b has 1, ..., 1 before and 1 after,
    # and is (20 * 1 + 20 * 0.5) / 40 = 0.75 before; all answers before are 0.5.
    before = {"a": ["rr"] * 10, "b": ["rw"] * 40}
    after = {"a": ["rr"] * 10, "b": ["r-"] * 20 + ["rw"] * 20}
    summary = compared(before, after, trained=["a"])
    assert summary.compared_averages("overall") == (near((1 + 0.75) / 2), near((1 + 0.75) / 2))
    assert summary.models[0].averages["overall"].mean == near(0.75)
    assert summary.average_changes["overall"].mean == near(0)
