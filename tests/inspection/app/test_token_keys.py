"""The keys t, T and S, pressed by Textual's pilot on real files, with a tiny model."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from spotcli import jsonl
from spotcli.appender import Appender
from spotcli.inspection.app.application import InspectApp
from spotcli.inspection.surprise import Surprises
from spotcli.recipe import Recipe
from spotcli.records import Pair
from tests.inspection.app.test_application import drive, press
from tests.inspection.example_pairs import write_rows
from tests.inspection.test_trained_tokens import ROWS, SUM, recipe

EDITS = [
    SUM | {"id": f"p{number}", "prompt": "Q" * (1 + number), "chosen": "3 + 4 = 7" * number} for number in (1, 3, 2)
]
"""Pairs whose y+ has 9, 27 and 18 characters."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "data.jsonl", EDITS)


def listed(app: InspectApp) -> list[str]:
    return [app.entries.entry(row).id for row in app.list.rows]


def test_t_shows_what_is_trained(tiny_model: Path, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "data.jsonl", ROWS[:4])

    async def steps(app: InspectApp, pilot: Pilot[None]) -> None:
        before = await press(app, pilot)
        assert "[-8-]" in before
        shown = await press(app, pilot, "t")
        assert "y- 30 tokens: prompt 20, shared 8, edited 1" in shown
        assert "│[-8-]│<|im_end|>│" in shown
        assert "│3│·│+│·│4│·│=│·│" in shown
        # Another pair, its whole prompt, and back to the diff.
        assert "│[-Z│w-]" in await press(app, pilot, "j", "G", "k", "k", "space")
        await press(app, pilot, "g")
        assert await press(app, pilot, "t") == before

    drive_marked(path, steps, recipe(tiny_model))


def drive_marked(path: Path, steps: Any, settings: Recipe, **options: Any) -> InspectApp:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_COLOR", "1")
        return drive(path, steps, size=(160, 40), recipe=settings, **options)


def test_without_a_policy_the_app_stays_open(tmp_path: Path, path: Path) -> None:
    async def steps(app: InspectApp, pilot: Pilot[None]) -> None:
        assert "the policy is not known" in await press(app, pilot, "t")
        assert "pass --recipe FILE" in await press(app, pilot)
        assert "the policy is not known" in await press(app, pilot, "T")
        assert "[-8-]" in await press(app, pilot, "t")

    drive_marked(path, steps, Recipe())
    assert not (tmp_path / "data.surprise.jsonl").exists()

    async def missing(app: InspectApp, pilot: Pilot[None]) -> None:
        assert "model folder not found" in await press(app, pilot, "t")

    drive_marked(path, missing, recipe(tmp_path / "no" / "model"))


def test_surprise_is_computed_shown_sorted_and_filtered(tiny_model: Path, path: Path) -> None:
    async def steps(app: InspectApp, pilot: Pilot[None]) -> None:
        assert "no surprise is known: press T" in await press(app, pilot, "S", "S")
        assert "surprise of 3 pairs known" in await press(app, pilot, "T")
        surprises = Surprises(path, str(tiny_model))
        surprises.read_once()
        means = {pair.id: surprises.means(pair)[0] or 0.0 for pair in jsonl.read(path, Pair)}
        shown = await press(app, pilot, "g")
        assert re.search(r"surprise y\+ \d+\.\d\d  y- \d+\.\d\d nats/token", shown)
        assert "most surprising" in await press(app, pilot, "t")
        await press(app, pilot, "t", "S", "S", "S", "S")
        assert app.order == "surprise"
        by_surprise = sorted(means, key=lambda id: -means[id])
        assert listed(app) == by_surprise
        middle = means[by_surprise[1]] + 1e-9
        await press(app, pilot, "f", *f"surprise<={middle}", "enter")
        assert listed(app) == by_surprise[1:]

    drive_marked(path, steps, recipe(tiny_model, dtype="float32"))
    rows = [json.loads(line) for line in (path.parent / "data.surprise.jsonl").read_text().splitlines()]
    assert len(rows) == 3
    # The next start knows it.

    async def again(app: InspectApp, pilot: Pilot[None]) -> None:
        assert "nats/token" in await press(app, pilot)
        assert "surprise of 3 pairs known" in await press(app, pilot, "T")

    drive_marked(path, again, recipe(tiny_model, dtype="float32"))
    assert len((path.parent / "data.surprise.jsonl").read_text().splitlines()) == 3


def test_the_order_of_the_list(path: Path) -> None:
    async def steps(app: InspectApp, pilot: Pilot[None]) -> None:
        assert listed(app) == ["p3", "p2", "p1"]
        assert "by length" in await press(app, pilot)
        await press(app, pilot, "f", *"length<20", "enter")
        assert listed(app) == ["p2", "p1"]
        await press(app, pilot, "f", *["backspace"] * 9, "enter")
        assert listed(app) == ["p3", "p2", "p1"]
        assert "by" not in (await press(app, pilot, "S")).splitlines()[0]
        assert listed(app) == ["p1", "p3", "p2"]
        await press(app, pilot, "S")
        assert (app.order, listed(app)) == ("ratio", ["p3", "p2", "p1"])

    drive_marked(path, steps, Recipe(), order="length")


def test_another_process_computes(tiny_model: Path, path: Path) -> None:
    async def steps(app: InspectApp, pilot: Pilot[None]) -> None:
        assert "another process" in await press(app, pilot, "T")

    with Appender(path.parent / "data.surprise.jsonl"):
        drive_marked(path, steps, recipe(tiny_model))


def test_files_without_pairs(tmp_path: Path) -> None:
    score = {"id": "a", "prompt": "Q", "task": "t", "response": "r", "verdict": "right", "split": "eval"}
    path = write_rows(tmp_path / "scores.jsonl", [score | {"answer": "1", "finish_reason": "stop", "trial": 0}])

    async def steps(app: InspectApp, pilot: Pilot[None]) -> None:
        assert "this file has none" in await press(app, pilot, "t")
        assert "this file has none" in await press(app, pilot, "T")

    drive_marked(path, steps, Recipe())
