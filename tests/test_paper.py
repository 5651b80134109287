"""The experiment of `nox -s paper`, as far as it goes without training: what it asks, chooses and reports."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

from spotcli import jsonl


@pytest.fixture(scope="module")
def paper() -> Any:
    path = Path(__file__).parent.parent / "benchmarks" / "paper.py"
    spec = importlib.util.spec_from_file_location("paper", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["paper"] = module  # its dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


def row(paper: Any, run: Any, test: list[int], validation: list[int], drift: float) -> dict[str, Any]:
    outcomes = {"test": test, "validation": validation} | dict.fromkeys(paper.NEAR + paper.FAR, test)
    numbered = {name: {f"{name}-{at}": right for at, right in enumerate(each)} for name, each in outcomes.items()}
    settings = {name: getattr(run, name) for name in ("objective", "rate", "beta", "seed", "epochs", "setting")}
    return {"key": run.key, **settings, "drift": drift, "outcomes": numbered}


def test_every_family_asks_forty_different_questions(paper: Any) -> None:
    families = paper.families()
    assert list(families) == [*paper.NEAR, *paper.FAR]
    for questions in families.values():
        assert len({question.id for question in questions}) == 40
    said = {
        "capitals": ("The capital is paris", "Lyon"),  # of France
        "past": ("It WENT.", "goes"),  # of go
        "plural": ("cats", "cat"),
    }
    for name, (right, wrong) in said.items():
        assert families[name][0].right(right)
        assert not families[name][0].right(wrong)
    added = families["one-step"][0]
    a, b = map(int, added.id.removeprefix("one-step:").split("+"))
    assert added.right(f"{a} + {b} = {a + b}\n\\boxed{{{a + b}}}")
    assert not added.right(f"{a} + {b} = {a + b}\n\\boxed{{{a + b + 1}}}")


def test_the_best_is_the_most_right_on_validation_within_the_bound(paper: Any) -> None:
    rows = {}
    for rate, validation, drift in (
        (1e-5, [1, 0, 0, 0], 0.001),
        (3e-5, [1, 1, 0, 0], 0.01),
        (1e-4, [1, 1, 1, 0], 0.05),
    ):
        run = paper.Run("sft", rate)
        rows[run.key] = row(paper, run, [0, 0, 0, 0], validation, drift)
    assert paper.best(rows, "sft")["rate"] == 3e-5
    for each in rows.values():
        each["drift"] += 1
    assert paper.best(rows, "sft")["rate"] == 1e-5  # none is within it: the least drift


def test_the_report_of_rows_worked_by_hand(paper: Any) -> None:
    rows = {}
    for seed in paper.SEEDS:
        run = paper.Run("none", seed=seed)
        rows[run.key] = row(paper, run, [1, 0, 0, 0], [0, 0, 0, 0], 0.0)
    for seed in paper.SKILL_SEEDS:
        run = paper.Run("none", seed=seed)
        # Of eight answers: always right, once, never, three times.
        skill = [1, int(seed == 100), 0, int(seed < 103)]
        rows[run.key] = row(paper, run, skill, [0, 0, 0, 0], 0.0)
    for objective, beta in paper.CONFIGURATIONS:
        for rate in paper.rates(objective, beta):
            run = paper.Run(objective, rate, beta)
            rows[run.key] = row(paper, run, [1, 1, 1, 0], [int(rate == 3e-5), 0, 0, 0], 0.001)
    best = "\n".join(paper.best_table(rows))
    # One of four right before, three after: +50.0 points, at the rate that validation prefers.
    assert "| SFT+ | 3e-05 | 1 | 25.0 → 75.0 | +50.0 (" in best
    assert best.count("| +0.0 (") == 4  # beside SFT+ nobody gained
    sweep = paper.sweep_table(rows)
    assert sweep[2] == "| SFT+ | +50.0; +50.0; 0.0010 | +50.0; +50.0; 0.0010 | +50.0; +50.0; 0.0010 |"
    assert sweep[-1].endswith("| not tried |")
    skill = paper.skill_table(rows, [paper.runs_at_best(rows, name) for name in paper.TITLES])
    assert skill[0].startswith("| objective | never right: 1 problems | once or twice in eight right: 1 problems |")
    # The third problem was never right and is right now; so is the second, which was right once.
    assert skill[2] == "| SFT+, 3e-05 | 0.0 → 100.0 % | 0.0 → 100.0 % | 50.0 → 50.0 % |"
    longer = paper.longer_table(rows)
    assert len(longer) == 2 + 2  # header and rule; nobody was trained for longer


def test_a_setting_is_compared_with_what_it_begins_with(paper: Any) -> None:
    rows = {}
    for setting, before in (("", [0, 0, 0, 0]), (paper.STRONG, [1, 1, 0, 0])):
        run = paper.Run("none", setting=setting)
        rows[run.key] = row(paper, run, before, before, 0.0)
    run = paper.Run("dpo", 1e-5, 1.0, setting=paper.STRONG)
    rows[run.key] = row(paper, run, [1, 1, 1, 0], [1, 1, 1, 0], 0.002)
    line = paper.setting_table(rows, [[rows[run.key]]])[2]
    # Two of four right before, three after: +25, where the recipe's policy would give +75.
    assert line.startswith("| DPO, beta 1 | 1e-05 | 50.0 → 75.0 | +25.0 (")
    skill = paper.skill_table(rows, [[rows[run.key]]])
    assert skill[2] == "| DPO, beta 1, 1e-05 |  |  |  |"  # its policy was not asked eight times


def test_the_plan_begins_the_later_settings_where_the_earlier_runs_lead(paper: Any) -> None:
    rows = {}
    for objective, beta in paper.CONFIGURATIONS:
        for rate in paper.rates(objective, beta):
            run = paper.Run(objective, rate, beta)
            rows[run.key] = row(paper, run, [0], [int((rate, beta) in ((3e-5, 0.0), (3e-5, 1.0)))], 0.001)
    phases = list(paper.plan(rows, more=True))
    assert list(paper.plan(rows, more=False)) == phases[:5]
    assert [phase[0].setting for phase in phases] == [
        "",
        "",
        "",
        "",
        "",
        paper.STRONG,
        paper.STRONG,
        paper.STRONG,
        paper.MIXED,
        paper.OWN,
        paper.WORDY,
    ]
    keys = [run.key for phase in phases for run in phase]
    assert len(keys) == len(set(keys))
    # What it begins with; SFT+ and SPoT-BCE at three rates, the other three at their best.
    assert len(phases[5]) == 1 + 2 * 3 + 3
    assert {(run.rate, run.beta) for run in phases[5] if run.objective == "dpo"} == {(3e-5, 1.0)}


def test_seeds_of_a_setting_share_a_line(paper: Any) -> None:
    rows = {}
    for seed, before, after in ((0, [1, 0, 0, 0], [1, 1, 0, 0]), (1, [1, 1, 0, 0], [1, 1, 1, 1])):
        for run, outcomes in (
            (paper.Run("none", seed=seed, setting=paper.STRONG), before),
            (paper.Run("sft", 3e-5, seed=seed, setting=paper.OWN), after),
        ):
            rows[run.key] = row(paper, run, outcomes, outcomes, 0.001 * (seed + 1))
    plan = [paper.Run(name, rate, seed=seed, setting=paper.OWN) for name, rate in (("sft", 3e-5), ("sft", 1e-5))
            for seed in paper.SEEDS]  # fmt: skip
    (runs,) = paper.by_seed(rows, plan)
    assert [run["seed"] for run in runs] == [0, 1]
    line = paper.setting_table(rows, [runs])[2]
    # Three of eight right before, six after; of the seeds, one of four more and two of four more.
    assert line.startswith("| SFT, own right answers alone | 3e-05 | 37.5 → 75.0 | +37.5 (")
    assert ") | +25.0, +50.0 | " in line
    assert line.endswith("| 0.0015 |")


def test_worked_examples_of_the_longer_format_are_right(paper: Any) -> None:
    question = paper.arithmetic_questions(paper.WORDY)[0]
    plain = paper.arithmetic_questions()[0]
    assert question.messages[-1] == plain.messages[-1]
    for asked, said in zip(question.messages[:-1:2], question.messages[1::2], strict=True):
        result = plain.messages[plain.messages.index(asked) + 1]["content"].split("\\boxed")[1]
        assert said["content"].endswith(f"\\boxed{result}.")


def test_own_right_answers_stand_beside_the_corrections(paper: Any, tmp_path: Path) -> None:
    pair = {"id": "a", "prompt": "1 + 1", "rejected": "3", "chosen": "2", "verdict": "right"}
    said = [
        {"id": "a", "prompt": "1 + 1", "response": "3", "verdict": "wrong"},
        {"id": "b", "prompt": "2 + 2", "response": "4", "verdict": "right"},
        {"id": "c", "prompt": "3 + 3", "response": "?", "verdict": "undecided"},
    ]
    jsonl.write_rows(tmp_path / "data.jsonl", [pair])
    jsonl.write_rows(tmp_path / "samples.jsonl", said)
    assert list(paper.corrections(tmp_path)) == [{"id": "a", "prompt": "1 + 1", "chosen": "2"}]
    assert list(paper.own(tmp_path)) == [{"id": "b", "prompt": "2 + 2", "chosen": "4"}]
