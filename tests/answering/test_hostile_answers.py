"""A data set and a model that try to make grading hang, with the real command and a real server."""

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
from tests.fake_provider import FakeProvider, Step

pytest.importorskip("if_verifiable")
pytest.importorskip("punkt")


def problems(folder: Path, number: int, instruction: str, **arguments: Any) -> None:
    answer = {"prompt": "w", "instruction_id_list": [instruction], "kwargs": [arguments]}
    rows = [
        {"id": str(index), "prompt": f"write {index}.", "grader": "instructions", "answer": json.dumps(answer)}
        for index in range(number)
    ]
    (folder / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def start(folder: Path, provider: FakeProvider, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "spotcli", "sample", "problems.jsonl", "--engine", "api", "--model", "openai/m"]
    source = str(Path(str(spotcli.__file__)).parents[1])
    return subprocess.Popen(
        [*command, "--base-url", provider.base_url, *options],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": source, "OPENAI_API_KEY": "k", "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def verdicts(folder: Path) -> list[tuple[str, str]]:
    lines = (folder / "samples.jsonl").read_text().splitlines()
    return [(row["verdict"], row["reason"]) for row in map(json.loads, lines)]


def test_a_keyword_that_would_hang_as_a_pattern_is_text(tmp_path: Path) -> None:
    problems(tmp_path, 2, "keywords:existence", keywords=["(a+)+$"])
    with FakeProvider(default={"text": "a" * 60 + "!"}) as provider:
        process = start(tmp_path, provider)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert verdicts(tmp_path) == [("wrong", "instructions 0 not followed")] * 2


USAGE = {"prompt_tokens": 9, "completion_tokens": 9}
HOSTILE: Step = {"text": "<" * 300_000, "usage": USAGE}
HARMLESS: Step = {"text": "<<a title>> and words"}


def stop_while_grading(folder: Path, provider: FakeProvider, number: signal.Signals) -> str:
    """Stop the command once all answers have arrived and the hostile ones are being graded; its messages."""
    process = start(folder, provider)
    try:
        deadline = time.monotonic() + 60
        while len(provider.bills) < len(provider.answers) and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(2)
        signalled = time.monotonic()
        process.send_signal(number)
        _, errors = process.communicate(timeout=40)
    finally:
        process.kill()
    assert process.returncode == 3, errors
    assert "Traceback" not in errors
    # Twelve answers of five seconds each, two at a time, would take half a minute.
    assert time.monotonic() - signalled < 15
    return errors


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_slow_grading_and_the_next_run_grades_the_answers(number: signal.Signals, tmp_path: Path) -> None:
    problems(tmp_path, 12, "detectable_format:title")
    with FakeProvider({f"write {index}.": [HOSTILE] for index in range(12)}) as provider:
        errors = stop_while_grading(tmp_path, provider, number)
        assert "0 answers are saved, 12 remain (12 of them only have to be graded)" in errors
        assert verdicts(tmp_path) == []
        kept = [json.loads(line) for line in (tmp_path / "samples.ungraded.jsonl").read_text().splitlines()]
        assert sorted(int(row["problem"]["id"]) for row in kept) == list(range(12))


def test_a_verdict_does_not_depend_on_a_stop(tmp_path: Path) -> None:
    problems(tmp_path, 4, "detectable_format:title")
    steps = [HARMLESS, HOSTILE, HOSTILE, HARMLESS]
    with FakeProvider({f"write {index}.": [step] for index, step in enumerate(steps)}) as provider:
        stop_while_grading(tmp_path, provider, signal.SIGTERM)
        assert (tmp_path / "samples.ungraded.jsonl").exists()
        # The settings of the kept answers bind, although the samples may still be empty.
        other = start(tmp_path, provider, "-s", "sample.temperature=0.1")
        _, errors = other.communicate(timeout=60)
        assert (other.returncode, "temperature was 0.7, now 0.1" in errors) == (2, True), errors
        resumed = start(tmp_path, provider)
        _, errors = resumed.communicate(timeout=100)
        assert resumed.returncode == 0, errors
        assert len(provider.requests) == 4
    rows = sorted(map(json.loads, (tmp_path / "samples.jsonl").read_text().splitlines()), key=lambda row: row["id"])
    assert [row["verdict"] for row in rows] == ["right", "undecided", "undecided", "right"]
    assert all("time-out" in row["reason"] for row in rows[1:3])
    assert not (tmp_path / "samples.ungraded.jsonl").exists()
    assert {row["sampling"]["seed"] for row in rows} == {request["body"]["seed"] for request in provider.requests}
