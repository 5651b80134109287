"""`spot status`: what the files in the folder of a run say about it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from spotcli import jsonl
from spotcli.cli import app
from spotcli.console import WorkProgress, observed_progress, progress
from spotcli.errors import UserError
from spotcli.locks import Lock
from spotcli.runs.status import ProgressFile, RunStatus, read_status


def shown(folder: Path) -> str:
    result = CliRunner().invoke(app, ["status", str(folder)])
    assert result.exit_code == 0
    return result.stdout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run that was interrupted in the middle of its second stage."""
    path = tmp_path / "demo"
    path.mkdir()
    jsonl.write_json(path / "seconds.json", {"sample": 12.0, "rectify": 90.4})
    jsonl.write_rows(path / "samples.jsonl", [{"id": str(number)} for number in range(5)])
    counts = {"answers": 5, "right": 1, "wrong": 3, "undecided": 1}
    jsonl.write_json(path / "samples.meta.json", {"command": "spot sample", "complete": True, "counts": counts})
    jsonl.write_rows(path / "data.jsonl", [{"id": "1"}])
    jsonl.write_rows(path / "data.replies.jsonl", [{"key": "a"}, {"key": "b"}])
    jsonl.write_json(path / "data.meta.json", {"command": "spot rectify", "complete": False})
    return path


def states(status: RunStatus) -> dict[str, str]:
    return {stage.name: stage.state for stage in status.stages}


def test_an_interrupted_run_shows_what_is_done_and_how_to_continue(folder: Path) -> None:
    status = read_status(folder)
    assert status.state == "interrupted"
    assert states(status) == {"sample": "done", "rectify": "interrupted", "train": "waiting", "eval": "waiting"}
    text = shown(folder)
    assert "5 answers: 1 right, 3 wrong, 1 undecided, 0:00:12" in text
    assert "1 pair from 2 replies, 0:01:30" in text
    assert f"Continue: spot run {folder / 'recipe.yaml'} -o {folder}" in text


def test_a_running_one_shows_its_process_and_its_progress(folder: Path) -> None:
    report = ProgressFile(folder)
    report.stage = "rectify"
    with Lock(folder, "folder"):
        report(WorkProgress("rectify", "rows", 30, 90, 0.5, "2 waiting"))
        status = read_status(folder)
        text = shown(folder)
    assert status.state == "running"
    assert states(status)["rectify"] == "running"
    assert status.process == f"process {os.getpid()}"
    # 60 rows remain: 120 seconds at 0.5 rows a second.
    assert "rectify: 30 of 90 rows, 0.5/s, 0:02:00 remaining, 2 waiting" in text
    assert "Continue" not in text


def test_what_a_killed_run_reported_is_not_shown_as_running(folder: Path) -> None:
    ProgressFile(folder)(WorkProgress("rectify", "rows", 30, 90, 0.5, ""))
    code = "import os; from spotcli.locks import Lock; from pathlib import Path; Lock(Path('.'), 'folder'); os._exit(9)"
    assert subprocess.run([sys.executable, "-c", code], cwd=folder, check=False).returncode == 9
    status = read_status(folder)
    assert (status.state, status.work) == ("interrupted", {})


def test_a_finished_run_shows_the_verdict_and_the_page(folder: Path) -> None:
    jsonl.write_json(folder / "data.meta.json", {"complete": True, "counts": {"cost": 1.5}})
    (folder / "checkpoint").mkdir()
    jsonl.write_json(folder / "checkpoint" / "spot-train.json", {"complete": True})
    rows: list[dict[str, Any]] = [{"step": step, "steps": 34, "loss": 1 / step} for step in (1, 34)]
    jsonl.write_rows(folder / "checkpoint" / "metrics.jsonl", rows)
    jsonl.write_json(folder / "run.json", {"eval": {"verdict": ["Gained \x1b[31m9 points."]}})
    (folder / "report.html").write_text("page")
    status = read_status(folder)
    assert (status.state, set(states(status).values())) == ("done", {"done"})
    lines = shown(folder).splitlines()
    assert "1 pair from 2 replies, $1.50, 0:01:30" in lines[2]
    assert "step 34 of 34, loss 0.0294" in lines[3]
    # A control character of a task's name is shown, not sent to the terminal.
    assert lines[-2] == "Gained ␛[31m9 points."
    assert lines[-1] == str(folder / "report.html")
    printed = json.loads(CliRunner().invoke(app, ["status", str(folder), "--json"]).stdout)
    assert printed["state"] == "done"


@pytest.mark.parametrize("content", ["", "[]", "{", '{"stage": 7, "done": "x"}'])
def test_damaged_files_are_read_as_missing(folder: Path, content: str) -> None:
    for name in ("progress.json", "run.json", "samples.meta.json", "seconds.json"):
        (folder / name).write_text(content)
    with Lock(folder, "folder"):
        assert read_status(folder).state == "running"


def test_another_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not the folder of a run"):
        read_status(tmp_path)
    with pytest.raises(UserError, match="folder not found"):
        read_status(tmp_path / "none")


def test_progress_is_observed_without_what_an_earlier_start_did_in_the_rate() -> None:
    seen: list[WorkProgress] = []
    with observed_progress(seen.append), progress("rows") as display:
        bar = display.add_task("rectify", total=10, completed=4)
        display.update(bar, completed=4)
        display.update(bar, advance=3, note="x")
    assert [(work.name, work.unit, work.done, work.total, work.note) for work in seen] == [
        ("rectify", "rows", 4, 10, ""),
        ("rectify", "rows", 7, 10, "x"),
    ]
    assert seen[0].per_second == 0
    # 3 rows remain, and 3 were done since the start: as long again as the work took so far.
    assert seen[1].remaining == pytest.approx(3 / seen[1].per_second)


def test_progress_is_written_now_and_then_and_at_the_end(tmp_path: Path) -> None:
    report = ProgressFile(tmp_path)
    for done in range(1, 101):
        report(WorkProgress("sample", "answers", done, 100, 1000.0, ""))
        if done == 1:
            first = report.path.stat().st_mtime_ns
        elif done == 50:
            assert report.path.stat().st_mtime_ns == first
    assert jsonl.read_json(report.path)["done"] == 100
    report.remove()
    assert list(tmp_path.iterdir()) == []
