"""The paper's experiment (`nox -s paper`) without training: its questions, its plan and its report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import paper
import paper_plan
import paper_questions
import paper_report
from paper_plan import Result, Run

from spotcli import jsonl


def result_of(run: Run, test: list[int], validation: list[int], drift: float) -> Result:
    outcomes = {"test": test, "validation": validation}
    outcomes |= dict.fromkeys(paper_questions.NEAR + paper_questions.FAR, test)
    numbered = {
        name: {f"{name}-{index}": right for index, right in enumerate(rights)} for name, rights in outcomes.items()
    }
    return Result(run, numbered, cpu_seconds=1.0, drift=drift)


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


def test_the_best_run_has_the_most_right_validation_answers_within_the_drift_limit() -> None:
    results = {}
    for rate, validation, drift in (
        (1e-5, [1, 0, 0, 0], 0.001),
        (3e-5, [1, 1, 0, 0], 0.01),
        (1e-4, [1, 1, 1, 0], 0.05),
    ):
        run = Run("sft", rate)
        results[run.key] = result_of(run, [0, 0, 0, 0], validation, drift)
    assert paper_plan.best(results, "sft").run.rate == 3e-5
    drifting = {key: replace(result, drift=result.nats + 1) for key, result in results.items()}
    assert paper_plan.best(drifting, "sft").run.rate == 1e-5  # no run is within the limit: the least drift


def test_the_report_of_results_computed_by_hand() -> None:
    results = {}
    for seed in paper_plan.SEEDS:
        run = Run("none", seed=seed)
        results[run.key] = result_of(run, [1, 0, 0, 0], [0, 0, 0, 0], 0.0)
    for seed in paper_plan.SKILL_SEEDS:
        run = Run("none", seed=seed)
        # Right answers of eight: all, one, none, three.
        skill = [1, int(seed == 100), 0, int(seed < 103)]
        results[run.key] = result_of(run, skill, [0, 0, 0, 0], 0.0)
    for objective, beta in paper_plan.CONFIGURATIONS:
        for rate in paper_plan.rates(objective, beta):
            run = Run(objective, rate, beta)
            results[run.key] = result_of(run, [1, 1, 1, 0], [int(rate == 3e-5), 0, 0, 0], 0.001)
    best = "\n".join(paper_report.best_table(results))
    # One of four right before, three after: +50.0 points, at the rate with the best validation.
    assert "| SFT+ | 3e-05 | 1 | 25.0 → 75.0 | +50.0 (" in best
    assert best.count("| +0.0 (") == 4  # no objective gains against SFT+
    sweep = paper_report.sweep_table(results)
    assert sweep[2] == "| SFT+ | +50.0; +50.0; 0.0010 | +50.0; +50.0; 0.0010 | +50.0; +50.0; 0.0010 |"
    assert sweep[-1].endswith("| not tried |")
    lines = [paper_report.runs_at_best(results, name) for name in paper_report.TITLES]
    groups = paper_report.skill_table(results, lines)
    assert groups[0].startswith(
        "| objective | never right: 1 problems | right once or twice in eight answers: 1 problems |"
    )
    # The third problem, never right before, is right now; so is the second, which was right once.
    assert groups[2] == "| SFT+, 3e-05 | 0.0 → 100.0 % | 0.0 → 100.0 % | 50.0 → 50.0 % |"
    longer = paper_report.longer_table(results)
    assert len(longer) == 2 + 2  # header and rule, and the runs with the usual epochs


def test_a_setting_is_compared_with_its_starting_policy() -> None:
    results = {}
    for setting, before in (("", [0, 0, 0, 0]), (paper_plan.STRONG, [1, 1, 0, 0])):
        run = Run("none", setting=setting)
        results[run.key] = result_of(run, before, before, 0.0)
    run = Run("dpo", 1e-5, 1.0, setting=paper_plan.STRONG)
    results[run.key] = result_of(run, [1, 1, 1, 0], [1, 1, 1, 0], 0.002)
    line = paper_report.setting_table(results, [[results[run.key]]])[2]
    # Two of four right before, three after: +25. Against the policy of the recipe it would be +75.
    assert line.startswith("| DPO, beta 1 | 1e-05 | 50.0 → 75.0 | +25.0 (")
    groups = paper_report.skill_table(results, [[results[run.key]]])
    assert groups[2] == "| DPO, beta 1, 1e-05 |  |  |  |"  # its policy has no eight answers


def test_the_later_settings_of_the_plan_depend_on_the_earlier_results() -> None:
    results = {}
    for objective, beta in paper_plan.CONFIGURATIONS:
        for rate in paper_plan.rates(objective, beta):
            run = Run(objective, rate, beta)
            results[run.key] = result_of(run, [0], [int((rate, beta) in ((3e-5, 0.0), (3e-5, 1.0)))], 0.001)
    phases = list(paper_plan.plan(results, more=True))
    assert list(paper_plan.plan(results, more=False)) == phases[:5]
    assert [phase[0].setting for phase in phases] == [
        "",
        "",
        "",
        "",
        "",
        paper_plan.STRONG,
        paper_plan.STRONG,
        paper_plan.STRONG,
        paper_plan.MIXED,
        paper_plan.OWN,
        paper_plan.WORDY,
    ]
    keys = [run.key for phase in phases for run in phase]
    assert len(keys) == len(set(keys))
    # The starting policy; SFT+ and SPoT-BCE at three rates, the other three objectives at their best.
    assert len(phases[5]) == 1 + 2 * 3 + 3
    assert {(run.rate, run.beta) for run in phases[5] if run.objective == "dpo"} == {(3e-5, 1.0)}


def test_all_seeds_of_a_run_are_one_line() -> None:
    results = {}
    for seed, before, after in ((0, [1, 0, 0, 0], [1, 1, 0, 0]), (1, [1, 1, 0, 0], [1, 1, 1, 1])):
        for run, outcomes in (
            (Run("none", seed=seed, setting=paper_plan.STRONG), before),
            (Run("sft", 3e-5, seed=seed, setting=paper_plan.OWN), after),
        ):
            results[run.key] = result_of(run, outcomes, outcomes, 0.001 * (seed + 1))
    plan = [Run(name, rate, seed=seed, setting=paper_plan.OWN) for name, rate in (("sft", 3e-5), ("sft", 1e-5))
            for seed in paper_plan.SEEDS]  # fmt: skip
    (runs,) = paper_report.by_seed(results, plan)
    assert [result.run.seed for result in runs] == [0, 1]
    line = paper_report.setting_table(results, [runs])[2]
    # Three of eight right before, six after; seed 0 gains one of four, seed 1 two of four.
    assert line.startswith("| SFT, own right answers only | 3e-05 | 37.5 → 75.0 | +37.5 (")
    assert ") | +25.0, +50.0 | " in line
    assert line.endswith("| 0.0015 |")


def test_the_worked_examples_of_the_longer_format_are_right() -> None:
    question = paper_questions.arithmetic_questions(paper_plan.WORDY)[0]
    plain = paper_questions.arithmetic_questions()[0]
    assert question.messages[-1] == plain.messages[-1]
    for problem, solution in zip(question.messages[:-1:2], question.messages[1::2], strict=True):
        result = plain.messages[plain.messages.index(problem) + 1]["content"].split("\\boxed")[1]
        assert solution["content"].endswith(f"\\boxed{result}.")


def test_rows_of_corrections_and_of_own_right_answers(tmp_path: Path) -> None:
    pair = {"id": "a", "prompt": "1 + 1", "rejected": "3", "chosen": "2", "verdict": "right"}
    samples = [
        {"id": "a", "prompt": "1 + 1", "response": "3", "verdict": "wrong"},
        {"id": "b", "prompt": "2 + 2", "response": "4", "verdict": "right"},
        {"id": "c", "prompt": "3 + 3", "response": "?", "verdict": "undecided"},
    ]
    jsonl.write_rows(tmp_path / "data.jsonl", [pair])
    jsonl.write_rows(tmp_path / "samples.jsonl", samples)
    assert list(paper.corrections(tmp_path)) == [{"id": "a", "prompt": "1 + 1", "chosen": "2"}]
    assert list(paper.own_right_answers(tmp_path)) == [{"id": "b", "prompt": "2 + 2", "chosen": "4"}]


def test_results_on_disk_keep_their_format() -> None:
    trained = {
        "key": "strong-sft-b0-lr3e-05-e4-s1",
        "objective": "sft", "rate": 3e-5, "beta": 0.0, "seed": 1, "epochs": 4, "setting": "strong",
        "outcomes": {"test": {"a": 1}}, "drift": 0.001, "steps": 72, "pairs": 284, "final": {"loss": 0.1},
        "train_cpu_seconds": 2.0, "cpu_seconds": 3.0,
    }  # fmt: skip
    skill = {
        "key": "none-s100",
        "objective": "none", "rate": 0.0, "beta": 0.0, "seed": 100, "epochs": 2, "setting": "",
        "outcomes": {"test": {"a": 0}}, "cpu_seconds": 1.0,
    }  # fmt: skip
    for row in (trained, skill):
        written = Result.of(row).row()
        assert list(written.items()) == list(row.items())
