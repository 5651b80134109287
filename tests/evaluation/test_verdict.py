"""The verdict in sentences, word by word."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from spotcli.evaluation.scores import TaskFacts
from spotcli.evaluation.summary import summarise
from tests.evaluation.scored import compared, model


def task(right: int, of: int) -> list[str]:
    """One trial per problem; the first ones are right."""
    return ["r"] * right + ["w"] * (of - right)


def test_a_gain_and_kept_skills() -> None:
    # 20 wins of 100: 20 / 102 = 0.196078, variance (22 / 102 - 0.038447) / 102 = 0.0017376, root 0.041685.
    # 200 equal answers: 1.959964 * sqrt(2) / 202 = 0.0137.
    summary = compared(
        {"arithmetic": task(40, 100), "far": task(80, 200)}, {"arithmetic": task(60, 100), "far": task(80, 200)}
    )
    assert summary.verdict == [
        "Gained 20.0 points (11.4 to 27.8) in arithmetic.",
        "No loss shown in far: a loss above 1.4 points would have been detected.",
        "Kept within 2.0 points: far.",
    ]


def test_a_gain_that_is_not_shown_and_an_open_question() -> None:
    # 2 wins, 1 loss of 40: (2 - 1) / 42 = 0.02381, variance (5 / 42 - 0.000567) / 42 = 0.0028209, root 0.053112.
    before, after = ["w", "w", "r", *task(20, 37)], ["r", "r", "w", *task(20, 37)]
    summary = compared({"arithmetic": before, "far": task(10, 30)}, {"arithmetic": after, "far": task(10, 30)})
    assert summary.verdict == [
        "No gain shown in arithmetic: +2.5 points, -8.0 to +12.8.",
        "No loss shown in far: a loss above 8.7 points would have been detected.",
        "Cannot tell within 2.0 points; a loss is possible in far (up to 8.7 points).",
        "To exclude a loss of 2.0 points, about 5,400 problems with 1 trial each are needed.",
    ]


def test_losses_come_first_and_gains_elsewhere_do_not_hide_them() -> None:
    before = {"arithmetic": task(0, 50), "a": task(150, 200), "b": task(20, 200)}
    after = {"arithmetic": task(0, 50), "a": task(130, 200), "b": task(80, 200)}
    summary = compared(before, after)
    # 20 of 200 lost: -20 / 202 = -0.099010, variance (22 / 202 - 0.009803) / 202 = 0.00049063, root 0.022150.
    # 60 won: 60 / 202 = 0.297030, variance (62 / 202 - 0.088227) / 202 = 0.0010827, root 0.032904.
    assert summary.verdict == [
        "No gain shown in arithmetic: 0.0 points, -5.3 to +5.3.",
        "Gained 30.0 points (23.3 to 36.2) in b, without training on it.",
        "Lost 10.0 points (5.6 to 14.2) in a.",
        "Kept within 2.0 points: b.",
    ]
    assert summary.pooled is not None
    assert summary.pooled.retention.verdict == "kept"


def test_a_small_significant_loss_is_told_with_the_margin() -> None:
    # 20 of 2000 lost: -0.009990 -+ 1.959964 * 0.002332.
    summary = compared({"arithmetic": ["w"], "far": task(2000, 2000)}, {"arithmetic": ["w"], "far": task(1980, 2000)})
    assert "Lost 1.0 points (0.5 to 1.5) in far, less than the margin of 2.0 points." in summary.verdict


def test_a_loss_that_may_be_due_to_the_number_of_tasks() -> None:
    # Six of 100 lost: p = 2 / 64 = 0.03125, for two tasks 0.0625; -6 / 102 -+ 1.959964 * 0.027082.
    summary = compared({"a": task(50, 100), "b": task(5, 5)}, {"a": task(44, 100), "b": task(5, 5)}, trained=["b"])
    assert summary.comparisons["a"].p_holm == pytest.approx(0.0625)
    (sentence,) = [line for line in summary.verdict if line.startswith("Lost")]
    assert sentence == (
        "Lost 6.0 points (0.6 to 11.2) in a; not significant after correction for the number of tasks (p = 0.062)."
    )


def test_a_trained_task_can_be_lost() -> None:
    summary = compared({"arithmetic": task(40, 100), "far": ["r"]}, {"arithmetic": task(20, 100), "far": ["r"]})
    assert summary.verdict[0] == "Lost 20.0 points (11.4 to 27.8) in arithmetic, although it was trained."


def test_a_gain_that_the_number_of_tasks_leaves_open_is_told_with_its_p_value() -> None:
    # Six wins of 100: p = 2 / 64, for two tasks 0.0625, though the interval is above 0.
    summary = compared({"arithmetic": task(44, 100), "far": ["r"]}, {"arithmetic": task(50, 100), "far": ["r"]})
    assert summary.verdict[0] == (
        "No gain shown in arithmetic: +6.0 points, +0.6 to +11.2 (p = 0.062, corrected for 2 tasks)."
    )


def test_many_tasks_are_told_together() -> None:
    # 60 problems: 1.959964 * sqrt(2) / 62 = 0.0447; all 240: 1.959964 * sqrt(2) / 242 = 0.0115.
    tasks = {"arithmetic": task(3, 3)} | {name: task(30, 60) for name in "abcd"}
    assert compared(tasks, tasks).verdict[1:3] == [
        "No loss shown in the 4 untrained tasks: a loss above 4.5 points in one of them, or above 1.1 points in all of "
        "them together, would have been detected.",
        "Cannot tell within 2.0 points; a loss is possible in a (up to 4.5 points), b (up to 4.5 points), "
        "c (up to 4.5 points) and d (up to 4.5 points).",
    ]


def test_losses_that_only_all_tasks_together_show() -> None:
    # Four of 100 lost twice: alone -4 / 102 -+ 1.959964 * 0.023449; together -8 / 202 -+ 1.959964 * 0.015424.
    before = {"arithmetic": ["r"], "a": task(100, 100), "b": task(100, 100)}
    after = {"arithmetic": ["r"], "a": task(96, 100), "b": task(96, 100)}
    assert "No single loss shown in a and b, but a loss of 4.0 points (0.9 to 7.0) in all of them together." in (
        compared(before, after).verdict
    )


def test_an_excluded_loss() -> None:
    summary = compared({"arithmetic": ["r"], "far": task(0, 100)}, {"arithmetic": ["r"], "far": task(60, 100)})
    assert "No loss in far: every loss is excluded." in summary.verdict


def test_only_trained_tasks() -> None:
    summary = compared({"arithmetic": ["r"]}, {"arithmetic": ["r"]})
    assert summary.verdict[1] == (
        "Retention was not measured: it requires a task that was not trained (--task, eval.trained)."
    )


def one_model(problems: Sequence[str], facts: TaskFacts, overlaps: dict[str, int] | None = None) -> list[str]:
    answers = model("checkpoint", {"board": problems}, failed={"board": 4})
    return summarise(
        [answers], {"board": facts}, compared=False, trained=["board"], margin=0.02, overlaps=overlaps
    ).verdict


def test_a_model_without_a_base_model() -> None:
    # 30 of 100: Wilson 21.9 to 39.6.
    assert one_model(task(30, 100), TaskFacts())[:2] == [
        "30.0 % right in board (21.9 to 39.6).",
        "Gains and retention were not measured: they require a base model (--against).",
    ]


def test_what_limits_the_numbers() -> None:
    verdict = one_model(
        [*task(10, 90), *"tttttuuuuu"], TaskFacts("OOD", {"score": 0.2, "opponent": 0.05}), {"board": 3, "other": 9}
    )
    assert verdict[2:] == [
        "Answers of checkpoint that are truncated count as not right: 5 % in board.",
        "Answers of checkpoint that are undecided count as not right: 5 % in board.",
        "Failed answers of checkpoint are left out: 4 in board.",
        "checkpoint scores 10.0 % in board (score); the same answer to every problem would score 20.0 %.",
        "3 of 100 problems of board also occur in the training file.",
    ]


def test_a_score_that_is_one_of_its_metrics_is_named_once() -> None:
    """Connect Four's score is the share of boards on which both players' moves are right."""
    verdict = one_model([*task(10, 100)], TaskFacts("OOD", {"score": 0.2, "opponent": 0.43, "both": 0.2}))
    assert verdict[3:] == [
        f"checkpoint scores 10.0 % in board ({metric}); the same answer to every problem would score {level} %."
        for metric, level in (("opponent", "43.0"), ("both", "20.0"))
    ]


def test_answers_that_are_not_compared() -> None:
    summary = compared({"arithmetic": ["rr", "rr"]}, {"arithmetic": ["r-", "rr"]})
    assert summary.verdict[-1] == "Answers without a counterpart of the other model are not compared: 1 in arithmetic."


def test_models_without_common_answers_are_not_compared() -> None:
    summary = compared({"arithmetic": ["-r"]}, {"arithmetic": ["r-"]})
    assert summary.verdict == ["Gains and retention were not measured: no trial has an answer of both models."]
    assert set(summary.main_results().values()) == {None}


def test_a_task_without_an_answer_of_one_model_is_named() -> None:
    summary = compared({"arithmetic": ["r"], "far": ["r"]}, {"arithmetic": ["r"]}, failed={"far": 1})
    assert summary.verdict[1:] == [
        "Retention was not measured.",
        "Nothing is compared in far: no trial has an answer of both models.",
        "Failed answers of tuned are left out: 1 in far.",
    ]
    # A trained task that is not compared is named too; retention is measured in the other one.
    trained = compared({"arithmetic": ["r"], "far": ["r"]}, {"far": ["r"]}).verdict
    assert trained[-1] == "Nothing is compared in arithmetic: no trial has an answer of both models."
    assert trained[0].startswith("No loss shown in far")


@pytest.mark.parametrize(("margin", "shown"), [(0.02, "2.0"), (0.0125, "1.25"), (0.0004, "0.04")])
def test_the_margin_is_shown_as_it_was_set(margin: float, shown: str) -> None:
    verdict = compared({"arithmetic": ["r"], "far": ["r"]}, {"arithmetic": ["r"], "far": ["r"]}, margin=margin).verdict
    assert any(sentence.startswith(f"Cannot tell within {shown} points;") for sentence in verdict)
