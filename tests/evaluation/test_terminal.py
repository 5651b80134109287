"""What the terminal shows: the verdict first, every column readable at 80 characters, names made harmless."""

from __future__ import annotations

import pytest

from spotcli.evaluation.asked_tasks import ModelRows
from spotcli.evaluation.dry_run import EvalPlan, PlannedTask
from spotcli.evaluation.scores import TaskFacts
from spotcli.evaluation.summary import summarise
from spotcli.evaluation.terminal import show, show_plan
from tests.evaluation.scored import compared, model, rows

TASKS = {
    "aime24": ["r" * 16, "w" * 16] * 15,
    "gpqa-diamond": ["rwrwr", "wwwww", "uwttr"] * 66,
    "connect4": ["rrrrr"] * 250 + ["wwwww"] * 250,
    "ifeval": ["yyyyn"] * 541,
}
"""Names and sizes of the published tasks."""


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def test_all_columns_are_readable_at_80_characters(capsys: pytest.CaptureFixture[str]) -> None:
    answers = [row for task, problems in TASKS.items() for row in rows(task, problems, metrics={"prompt strict": 1.0})]
    models = [
        ModelRows(name, f"scores/{name}.jsonl", answers, seconds=dict.fromkeys(TASKS, 12_345.6))
        for name in ("Qwen/Qwen3-8B", "runs/a-long-name/checkpoint", "another/model-of-70B-instruct")
    ]
    facts = {task: TaskFacts("OOD", {"prompt strict": 0.25}) for task in TASKS}
    show(summarise(models, facts, compared=True, trained=["aime24"], margin=0.02))
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    # Only a name may be shortened, and it keeps its end.
    assert shown.replace("…70B-instruct", "").replace("…", "").count("...") == 0
    for heading in ("95 % interval", "retention", "neither", "excludable", "undec.", "failed", "truncated", "seconds"):
        assert heading in shown
    assert "+0.0" in shown
    assert "12,346" in shown
    # 541 problems with 4 of 5 right: 2164 right and 541 wrong answers of 27050 tokens.
    assert "541×5" in shown
    assert "27k" in shown


def test_averages_have_intervals_in_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    facts = {"aime24": TaskFacts("in-domain"), "amc23": TaskFacts("in-domain"), "gpqa": TaskFacts("OOD")}
    before = {"aime24": ["rw"] * 30, "amc23": ["rr"] * 20 + ["ww"] * 20, "gpqa": ["r"] * 100 + ["w"] * 98}
    after = {"aime24": ["rr"] * 30, "amc23": ["rr"] * 20 + ["ww"] * 20, "gpqa": ["r"] * 100 + ["w"] * 98}
    models = [model("base", before), model("tuned", after)]
    summary = summarise(models, facts, compared=True, trained=["aime24", "amc23"], margin=0.02)
    show(summary)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    change = summary.average_changes["in-domain"]
    gains = [line.split() for line in lines if line.startswith("in-domain, 2 tasks")]
    # 50 and 50 % before, 100 and 50 % after.
    assert gains[0][3:] == ["50.0", "75.0", "+25.0", f"{100 * change.low:+.1f}…{100 * change.high:+.1f}"]
    own = summary.models[1].averages["in-domain"]
    place = next(index for index, line in enumerate(lines) if line.strip() == "in-domain, 2 tasks")
    assert lines[place + 2].split() == ["tuned", "75.0", f"{100 * own.low:.1f}…{100 * own.high:.1f}"]
    assert any(line.startswith("overall, 3 tasks") for line in lines)
    assert not any(line.startswith("OOD, ") for line in lines), "an average of one task is the task"


def test_the_verdict_comes_first_and_the_lost_problems_last(capsys: pytest.CaptureFixture[str]) -> None:
    show(compared({"arithmetic": ["r", "w"], "far": ["r", "r"]}, {"arithmetic": ["r", "w"], "far": ["r", "w"]}))
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[0].startswith("No gain shown in arithmetic")
    assert lines[-1] == "Show the lost problems: spot inspect scores/tuned.jsonl --where lost"


def test_without_lost_problems_there_is_no_command_for_them(capsys: pytest.CaptureFixture[str]) -> None:
    show(compared({"arithmetic": ["r", "w"]}, {"arithmetic": ["r", "r"]}))
    assert "--where lost" not in capsys.readouterr().out


def test_names_cannot_control_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    name = "far\x1b[2J[bold]\nLost"
    answers = {"arithmetic": ["r"], name: ["r", "r"]}
    summary = summarise(
        [model("base", answers), model("tuned\x1b]0;x\x07", {"arithmetic": ["w"], name: ["w", "w"]})],
        {task: TaskFacts() for task in answers},
        compared=True,
        trained=["arithmetic"],
        margin=0.02,
    )
    show(summary)
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "[bold]" in shown


def test_more_than_four_models_are_shown_in_further_tables(capsys: pytest.CaptureFixture[str]) -> None:
    models = [model(f"model-{index}", {"a": ["r"]}) for index in range(9)]
    show(summarise(models, {"a": TaskFacts()}, compared=False, trained=["a"], margin=0.02))
    shown = capsys.readouterr().out
    assert shown.count("Scores, avg@k in %") == 3
    assert "100.0 % right in a (20.7 to 100.0)." in shown


def test_a_gain_does_not_cover_up_a_loss(capsys: pytest.CaptureFixture[str]) -> None:
    before = {"a": ["r"] * 200, "b": ["w"] * 200, "arithmetic": ["r"]}
    after = {"a": ["r"] * 180 + ["w"] * 20, "b": ["r"] * 200, "arithmetic": ["r"]}
    show(compared(before, after))
    (line,) = [
        line for line in capsys.readouterr().out.splitlines() if line.startswith("all untrained") and "+" in line
    ]
    assert "kept" not in line


def test_the_plan(capsys: pytest.CaptureFixture[str]) -> None:
    plan = EvalPlan(
        ["Qwen/Qwen3-8B", "checkpoint"],
        True,
        [
            PlannedTask("math500", "in-domain", True, 500, 5, 32768),
            PlannedTask("aime26", "other", False, 30, 16, 32768),
            PlannedTask("gpqa-diamond", "OOD", False, 198, 5, 32768),
        ],
        0.02,
    )
    # (500 * 5 + 30 * 16 + 198 * 5) * 2 = 7940 requests of 32768 tokens.
    assert (plan.requests, plan.tokens) == (7940, 7940 * 32768)
    show_plan(plan)
    shown = " ".join(capsys.readouterr().out.split())
    assert "7,940 requests to Qwen/Qwen3-8B, checkpoint, at most 260.2M tokens. Nothing was sent." in shown
    assert (
        "aime26 cannot prove retention within 2 points: 30 problems with 16 trials can exclude a loss above 15.7 "
        "points if nothing was lost; about 840 problems are needed."
    ) in shown
    assert "gpqa-diamond is not likely to prove retention within 2 points: 198 problems with 5 trials" in shown
    # All 228: mean variance (30 * 0.040625 + 198 * 0.075 + 2) / 230 = 0.078560; root of that / 230 is 0.018482.
    assert "All 228 untrained problems together can exclude a loss above 5.2 points." in shown


def test_a_plan_of_enough_problems_and_plans_without_retention() -> None:
    enough = PlannedTask("far", "other", False, 6000, 1, 10)
    trained = PlannedTask("math", "in-domain", True, 10, 1, 10)
    assert EvalPlan(["a", "b"], True, [trained, enough], 0.02).notes() == [
        "Every untrained task can prove retention within 2 points."
    ]
    assert EvalPlan(["a", "b"], True, [trained], 0.02).notes() == [
        "Retention is not measured: it requires a task that was not trained (--task, eval.trained)."
    ]
    assert EvalPlan(["a"], False, [trained, enough], 0.02).notes() == [
        "Gains and retention are not measured: they require a base model (--against)."
    ]
    values = EvalPlan(["a", "b"], True, [trained, enough], 0.02).as_dict()
    assert (values["requests"], values["tasks"][1]["requests"]) == (12020, 6000)
    assert values["tasks"][1]["excludable"] < 0.02


def test_numbers_are_whole_in_a_narrow_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    task = "a-name-of-30-characters-" * 2
    show(compared({task: ["w"] * 20, "far": ["r"] * 600}, {task: ["r"] * 20, "far": ["r"] * 600}, trained=[task]))
    lines = capsys.readouterr().out.splitlines()
    # 20 of 20: mean 20 / 22, variance 1 - (20 / 22)^2; 90.91 -+ 1.96 * 100 * sqrt(0.17355 / 22) = 90.91 -+ 17.41.
    gained = next(line.split() for line in lines if "+100.0 " in line)
    assert gained[1:] == ["0.0", "100.0", "+100.0", "+73.5…+100.0", "<1e-4", "trained"]
    assert any("95 % interval" in line and "retention" in line for line in lines)


def test_models_with_other_numbers_of_answers_are_below_their_own_heading(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows_of = {"base": ["rrrr"] * 20, "tuned": ["rrrr"] * 19 + ["rr--"], "earlier": ["rw"] * 20}
    models = [model(name, {"math": problems}) for name, problems in rows_of.items()]
    show(summarise(models, {"math": TaskFacts()}, compared=True, trained=["math"], margin=0.02))
    answers = capsys.readouterr().out.partition("Answers, in %")[2].partition("Verdicts")[0]
    assert [line.split()[:2] for line in answers.splitlines()[3:9]] == [
        ["math,", "20×4"],
        ["base", "100.0"],
        ["math,", "20×3.9"],
        ["tuned", "100.0"],
        ["math,", "20×2"],
        ["earlier", "50.0"],
    ]
    assert "tuned in math: pass@2" in answers
    assert "earlier in math: pass" not in answers


def test_the_number_of_answers_is_whole_beside_a_long_name(capsys: pytest.CaptureFixture[str]) -> None:
    answers = [model("m", {"olympiadbench": ["r"] * 675})]
    show(summarise(answers, {"olympiadbench": TaskFacts()}, compared=False, trained=[], margin=0.02))
    # 19 characters: 11 of the name, its dots, and 7 of the numbers.
    assert capsys.readouterr().out.count("olympiadben…, 675×1 ") == 2
