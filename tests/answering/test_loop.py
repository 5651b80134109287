"""kill -9 while answers wait to be graded: the real commands with a real endpoint and a slow checker."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import spotcli
from tests.conftest import write_rows
from tests.fake_provider import FakeProvider, Step

NUMBER = 24
CHECKER = """
import pathlib, time
def check(response, reference):
    if pathlib.Path("slow").exists():
        time.sleep(0.4)
    return reference in response
"""


def answers() -> dict[str, list[Step]]:
    return {f"row-{number:02d}": [{"text": f"It is {number}."}] for number in range(NUMBER)}


def prepare(folder: Path) -> None:
    rows = [{"id": f"p{n}", "prompt": f"row-{n:02d}: which number?", "answer": f"{n}."} for n in range(NUMBER)]
    write_rows(folder / "problems.jsonl", rows)
    (folder / "checks.py").write_text(CHECKER)
    (folder / "slow").touch()


def start(folder: Path, provider: FakeProvider, stage: str, *options: str) -> subprocess.Popen[str]:
    arguments = {
        "sample": ["sample", "problems.jsonl", "--model", "openai/m", "--engine", "api"],
        "eval": ["eval", "openai/m", "--task", "problems.jsonl"],
    }[stage]
    source = str(Path(str(spotcli.__file__)).parents[1])
    return subprocess.Popen(
        [sys.executable, "-m", "spotcli", *arguments, "--base-url", provider.base_url, "-s", "grader=checks:check",
         *options],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": source, "OPENAI_API_KEY": "k", "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip


FILES = {
    "sample": ("samples.jsonl", "samples.ungraded.jsonl"),
    "eval": ("scores/openai-m.jsonl", "scores/openai-m.answers.jsonl"),
}


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.mark.parametrize("stage", ["sample", "eval"])
def test_answers_that_wait_for_a_slow_checker_survive_kill_9(stage: str, tmp_path: Path) -> None:
    prepare(tmp_path)
    graded, journal = (tmp_path / name for name in FILES[stage])
    with FakeProvider(answers()) as provider:
        process = start(tmp_path, provider, stage)
        deadline = time.monotonic() + 90
        while len(rows(journal)) < NUMBER and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        # All answers are on disk, and their grading takes ten seconds.
        assert len(rows(journal)) == NUMBER
        assert len(rows(graded)) < NUMBER
        assert len(provider.requests) == NUMBER
        (tmp_path / "slow").unlink()
        again = start(tmp_path, provider, stage)
        _, errors = again.communicate(timeout=90)
        assert again.returncode == 0, errors
        assert len(provider.requests) == NUMBER  # nothing was asked, or paid for, twice
    final = rows(graded)
    assert sorted(row["id"] for row in final) == sorted(f"p{number}" for number in range(NUMBER))
    assert {row["verdict"] for row in final} == {"right"}
    assert journal.exists() == (stage == "eval")


def test_more_trials_ask_only_the_new_ones_and_a_stop_while_grading_keeps_all_answers(tmp_path: Path) -> None:
    prepare(tmp_path)
    graded, journal = (tmp_path / name for name in FILES["eval"])
    with FakeProvider(answers()) as provider:
        process = start(tmp_path, provider, "eval")
        deadline = time.monotonic() + 90
        while len(rows(journal)) < NUMBER and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 3, errors
        assert "of them only have to be graded)" in errors
        (tmp_path / "slow").unlink()
        again = start(tmp_path, provider, "eval", "--trials", "2")
        _, errors = again.communicate(timeout=90)
        assert again.returncode == 0, errors
        assert len(provider.requests) == 2 * NUMBER
    assert len(rows(graded)) == len({(row["id"], row["trial"]) for row in rows(graded)}) == 2 * NUMBER
