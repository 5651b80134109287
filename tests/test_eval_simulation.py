"""The simulation of evaluations: its statistics are those of the package, and the documentation shows its plan."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from eval_averages import MEANS, average_rows, average_statistics, averages_from_package
from eval_simulation import VERDICTS, Setting, difference_from_package, draw, rows, simulate, table

from spotcli.core.stats import excludable_loss, problems_needed

near: Any = pytest.approx
DOCS = Path(__file__).parent.parent / "docs" / "evaluation.md"


@pytest.mark.parametrize("trials", [1, 5])
@pytest.mark.parametrize("shape", [(0.5, 0.5), (0.9, 0.1), (0.02, 0.98)])
def test_the_vectorised_statistics_equal_the_package(trials: int, shape: tuple[float, float]) -> None:
    setting = Setting(12, trials, shape, 0.01, "concentrated")
    before, after = draw(setting, 40, np.random.default_rng(1))
    assert difference_from_package(before, after, trials) < 1e-12


def test_a_draw_has_the_loss_and_the_correlation_of_its_setting() -> None:
    # Mean 0.5, loss 0.1; the variance of a problem's mean of five trials is 1/8 + 1/8 / 5 = 0.15.
    for kind in ("even", "concentrated"):
        before, after = draw(Setting(200, 5, (0.5, 0.5), 0.1, kind), 400, np.random.default_rng(2))
        assert before.mean() == near(0.5, abs=0.01)
        assert (after - before).mean() == near(-0.1, abs=0.01)
        assert before.var() == near(0.15, abs=0.005)


def test_verdicts_follow_the_true_loss() -> None:
    generator = np.random.default_rng(3)
    lost = simulate(Setting(200, 5, (0.5, 0.5), 0.2, "even"), 50, generator)
    same = simulate(Setting(200, 5, (0.5, 0.5), 0.0, "even"), 50, generator)
    assert (lost.lost(), lost.kept(0.1)) == (1.0, 0.0)
    assert same.lost() < 0.2
    assert same.kept(0.2) == 1.0
    assert 0.8 < same.covers(0.0) <= 1.0


def test_the_tables_have_a_line_per_number_of_problems_and_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eval_simulation.PROBLEMS", (30,))
    lines = table(VERDICTS, list(rows(4, 0))).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["30, 1", "30, 5", "30, 16"]


@pytest.mark.parametrize("sizes", [[(12, 5), (20, 1), (7, 16)], [(30, 1), (30, 1)]])
def test_the_vectorised_averages_equal_the_package(sizes: list[tuple[int, int]]) -> None:
    generator, trials = np.random.default_rng(1), [k for _, k in sizes]
    for _ in range(20):
        drawn = [draw(Setting(*size, (0.5, 0.5), 0.02, "even"), 1, generator) for size in sizes]
        assert averages_from_package(drawn, average_statistics(drawn, trials), trials) < 1e-9


def test_the_table_of_averages_has_a_line_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eval_averages.AVERAGES", {"two": ((30, 1), (20, 4))})
    (row,) = average_rows(300, 0)
    assert 0.85 < row.score[0] <= row.score[1] <= 1
    assert 0.85 < row.change[0] <= row.change[1] <= 1
    assert table(MEANS, [row]).splitlines()[-1].startswith("| two | ")


def test_the_documented_plan_is_what_the_package_computes() -> None:
    text = DOCS.read_text(encoding="utf-8")
    lines = re.findall(r"^\| (\d+) \(.*\) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", text, re.MULTILINE)
    assert len(lines) == 5
    for problems, *losses in lines:
        planned = [f"{100 * excludable_loss([(int(problems), trials)]):.1f}" for trials in (1, 5, 16)]
        assert planned == losses
    one, five, sixteen = (problems_needed(0.02, trials) for trials in (1, 5, 16))
    assert f"{one:,} problems with one trial, {five:,} with five or {sixteen:,} with sixteen" in " ".join(text.split())
