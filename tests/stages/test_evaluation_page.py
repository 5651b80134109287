"""The command leaves a page, a section of the model card and logs, on a tiny real model."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from spotcli.evaluation.answers import slug
from spotcli.evaluation.card_section import BEGIN


def spot(folder: Path, *arguments: str) -> str:
    """Run the command and return what it prints to stdout."""
    env = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "60"}
    command = [sys.executable, "-m", "spotcli", *arguments]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_page_is_the_last_line_and_everything_else_is_beside_it(tiny_model: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(tiny_model, checkpoint)
    (checkpoint / "README.md").write_text("---\nlicense: mit\n---\n\nTrained by `spot train`.\n", encoding="utf-8")
    (checkpoint / "spot-train.json").write_text("{}")
    arguments = ["eval", "checkpoint", "--against", str(tiny_model), "--task", "arithmetic", "--limit", "3"]
    arguments += ["-s", "eval.max_new_tokens=6", "-s", "eval.dtype=float32", "-s", "eval.drift=no", "--inspect-log"]
    text = spot(tmp_path, *arguments)
    assert text.splitlines()[-1] == "scores/checkpoint.report.html"
    summary = json.loads((tmp_path / "scores" / "checkpoint.summary.json").read_text())
    assert summary["page"] == "scores/checkpoint.report.html"
    assert summary["settings"]["seed"] == 0
    page = (tmp_path / "scores" / "checkpoint.report.html").read_text(encoding="utf-8")
    assert (tmp_path / "scores" / "report.html").read_text(encoding="utf-8") == page
    assert summary["verdict"][0] in page
    card = (checkpoint / "README.md").read_text(encoding="utf-8")
    assert card.count(BEGIN) == 1
    assert "| arithmetic, avg@1 of 3 (trained) |" in card
    logs = [json.loads(path.read_bytes()) for path in (tmp_path / "scores" / "inspect-logs").iterdir()]
    assert {log["eval"]["model"] for log in logs} == {"checkpoint", str(tiny_model)}
    assert [len(log["samples"]) for log in logs] == [3, 3]
    # The same command again asks nothing, and the card keeps one section.
    before = (tmp_path / "scores" / "checkpoint.jsonl").read_bytes()
    spot(tmp_path, *arguments)
    assert (checkpoint / "README.md").read_text(encoding="utf-8") == card
    assert (tmp_path / "scores" / "checkpoint.jsonl").read_bytes() == before
    # The base model's scores are found through the summary.
    shown = spot(tmp_path, "inspect", "scores/checkpoint.jsonl", "--where", "neither", "--limit", "1")
    assert f"compared with scores/{slug(str(tiny_model))}.jsonl" in shown


def test_the_page_of_another_model_does_not_replace_an_earlier_one(tiny_model: Path, tmp_path: Path) -> None:
    for name in ("first", "second"):
        shutil.copytree(tiny_model, tmp_path / name)
    settings = ["--task", "arithmetic", "--limit", "2", "-s", "eval.max_new_tokens=4", "-s", "eval.dtype=float32"]
    assert spot(tmp_path, "eval", "first", *settings).splitlines()[-1] == "scores/first.report.html"
    scores = tmp_path / "scores"
    shown = (scores / "first.report.html").read_bytes()
    assert spot(tmp_path, "eval", "second", *settings).splitlines()[-1] == "scores/second.report.html"
    assert (scores / "first.report.html").read_bytes() == shown
    assert b"<h1>first</h1>" in shown
    # The page without a model's name is always the latest one.
    assert (scores / "report.html").read_bytes() == (scores / "second.report.html").read_bytes()
    assert b"<h1>second</h1>" in (scores / "report.html").read_bytes()
