"""The paper's experiment (`nox -s paper`) without training: its questions, its plan and its report."""

from __future__ import annotations

from dataclasses import replace

import paper
import paper_plan
import paper_questions
import paper_report
import pytest
from paper_plan import MIXED, STRONG, Result, Run

from spotcli import recipe_yaml


def result_of(run: Run, test: list[int], drift: float | None = None) -> Result:
    outcomes = dict.fromkeys(("test", *paper_questions.NEAR, *paper_questions.FAR), test)
    numbered = {
        name: {f"{name}-{index}": right for index, right in enumerate(rights)} for name, rights in outcomes.items()
    }
    return Result(run, numbered, cpu_seconds=1.0, drift=drift, steps=None if run.objective == "none" else 40)


def results_of(*results: Result) -> dict[str, Result]:
    return {result.run.key: result for result in results}


def test_every_family_asks_forty_different_questions() -> None:
    families = paper_questions.families()
    assert list(families) == [*paper_questions.NEAR, *paper_questions.FAR]
    for questions in families.values():
        assert len({question.id for question in questions}) == 40
    answers = {
        "capitals": ("The capital is paris", "Lyon"),  # of France
        "past": ("It WENT.", "goes"),  # of go
        "plural": ("cats", "cat"),
    }
    for name, (right, wrong) in answers.items():
        assert families[name][0].is_right(right)
        assert not families[name][0].is_right(wrong)
    sum_question = families["one-step"][0]
    a, b = map(int, sum_question.id.removeprefix("one-step:").split("+"))
    assert sum_question.is_right(f"{a} + {b} = {a + b}\n\\boxed{{{a + b}}}")
    assert not sum_question.is_right(f"{a} + {b} = {a + b}\n\\boxed{{{a + b + 1}}}")


def test_the_report_of_results_computed_by_hand() -> None:
    first, second = Run("sft", 3e-5, epochs=1, setting=MIXED), Run("spot-bce", 3e-5, 1.0, epochs=1, setting=MIXED)
    results = results_of(
        *(result_of(run, [1, 1, 0, 0]) for run in Run("none", setting=STRONG).seeds()),
        result_of(first, [1, 1, 1, 0], 0.001),
        result_of(replace(first, seed=1), [1, 0, 1, 1]),
        result_of(second, [1, 0, 0, 0], 0.004),
    )
    lines = paper_report.table(results, [first, second, replace(first, options="kept_kl=1")])
    assert len(lines) == 2 + 2  # header and rule; a run without a result has no line
    sft, bce = ([cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines[2:])
    # Two of four right before. SFT: three after at both seeds; one of four answers that were right is lost.
    assert sft[:5] == ["SFT", "3e-05", "40", "2", "50.0 → 75.0"]
    assert sft[5].startswith("+25.0 (")
    assert sft[6:11] == ["+25.0, +25.0", "", "", "75", "0 / 2"]
    assert sft[-1] == "0.0010"
    # One of four after, and SFT has three at the only seed that both have: wrong twice where SFT is right.
    assert bce[:2] == ["SPoT-BCE, beta 1", "3e-05"]
    assert bce[3] == "1"
    assert bce[5].startswith("-25.0 (")
    assert bce[7].startswith("-50.0 (")
    assert bce[8:11] == ["0.5", "50", "1 / 0"]


def test_a_run_is_compared_with_the_policy_that_it_starts_from() -> None:
    run = Run("dpo", 1e-5, 1.0, setting=STRONG)
    results = results_of(result_of(Run("none"), [0, 0, 0, 0]), result_of(run, [1, 1, 1, 0]))
    assert paper_report.existing(results, [run]) == []  # its starting policy is not measured yet
    results |= results_of(result_of(Run("none", setting=STRONG), [1, 1, 0, 0]))
    assert "| 50.0 → 75.0 | +25.0 (" in paper_report.table(results, [run])[2]


def test_how_often_a_policy_repeats_its_right_answers() -> None:
    runs = Run("none").seeds()
    results = results_of(*map(result_of, runs, ([1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1])))
    # Right: 2, 1 and 4 answers. Asked again: one lost, none lost, two lost; none, three and none won.
    assert "57 % of its right answers are right again; 1 lost and 1 won" in paper_report.asked_again(results, "")
    assert paper_report.asked_again(results_of(results[runs[0].key]), "") == ""


def test_every_run_of_the_plan_has_valid_settings_and_a_starting_policy_that_is_measured_before() -> None:
    phases = list(paper_plan.plan(more=True))
    default = list(paper_plan.plan(more=False))
    assert phases[: len(default)] == default
    runs = [run for phase in phases for run in phase]
    assert len({run.key for run in runs}) == len(runs)
    reported = [run for _, table in paper_report.TABLES for run in table]
    for place, run in enumerate(runs):
        if run.objective == "none":
            continue
        assert recipe_yaml.load(paper.RECIPE, paper.settings(run)).train.objective == run.objective
        assert paper_report.start_of(run) in runs[:place]
        assert replace(run, seed=0) in reported


def test_the_worked_examples_of_the_longer_format_are_right() -> None:
    question = paper_questions.arithmetic_questions(paper_plan.WORDY)[0]
    plain = paper_questions.arithmetic_questions()[0]
    assert question.messages[-1] == plain.messages[-1]
    for problem, solution in zip(question.messages[:-1:2], question.messages[1::2], strict=True):
        result = plain.messages[plain.messages.index(problem) + 1]["content"].split("\\boxed")[1]
        assert solution["content"].endswith(f"\\boxed{result}.")


def test_results_on_disk_keep_their_format() -> None:
    trained = {
        "key": "strong-sft-b0-lr3e-05-e4-kept_weight=0.1-s1",
        "objective": "sft", "rate": 3e-5, "beta": 0.0, "seed": 1, "epochs": 4, "setting": "strong",
        "options": "kept_weight=0.1",
        "outcomes": {"test": {"a": 1}}, "drift": 0.001, "steps": 72, "pairs": 284, "final": {"loss": 0.1},
        "train_cpu_seconds": 2.0, "cpu_seconds": 3.0,
    }  # fmt: skip
    untrained = {
        "key": "none-s1",
        "objective": "none", "rate": 0.0, "beta": 0.0, "seed": 1, "epochs": 2, "setting": "", "options": "",
        "outcomes": {"test": {"a": 0}}, "drift": 0.0, "cpu_seconds": 1.0,
    }  # fmt: skip
    for row in (trained, untrained):
        written = Result.of(row).row()
        assert list(written.items()) == list(row.items())
    del trained["options"]
    with pytest.raises(SystemExit, match="rounding to nearest"):
        Result.of(trained)
