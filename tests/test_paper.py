"""The experiment of `nox -s paper`, as far as it goes without training: what it asks, chooses and reports."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest


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
    settings = {name: getattr(run, name) for name in ("objective", "rate", "beta", "seed", "epochs")}
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
    skill = paper.skill_table(rows)
    assert skill[0].startswith("| objective | never right: 1 problems | once or twice in eight right: 1 problems |")
    # The third problem was never right and is right now; so is the second, which was right once.
    assert skill[2] == "| SFT+ | 0.0 → 100.0 % | 0.0 → 100.0 % | 50.0 → 50.0 % |"
    longer = paper.longer_table(rows)
    assert len(longer) == 2 + 2  # header and rule; nobody was trained for longer
