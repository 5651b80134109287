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
from tests.fake_provider import FakeProvider

pytest.importorskip("if_verifiable")
pytest.importorskip("punkt")


def problems(folder: Path, number: int, instruction: str, **arguments: Any) -> None:
    answer = {"prompt": "w", "instruction_id_list": [instruction], "kwargs": [arguments]}
    rows = [
        {"id": str(index), "prompt": f"write {index}", "grader": "instructions", "answer": json.dumps(answer)}
        for index in range(number)
    ]
    (folder / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def start(folder: Path, provider: FakeProvider) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "spotcli", "sample", "problems.jsonl", "--engine", "api", "--model", "openai/m"]
    source = str(Path(str(spotcli.__file__)).parents[1])
    return subprocess.Popen(
        [*command, "--base-url", provider.base_url],
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


def test_a_second_sigterm_ends_slow_grading_at_once(tmp_path: Path) -> None:
    problems(tmp_path, 60, "detectable_format:title")
    usage = {"prompt_tokens": 9, "completion_tokens": 9}
    with FakeProvider(default={"text": "<" * 300_000, "usage": usage}) as provider:
        process = start(tmp_path, provider)
        try:
            deadline = time.monotonic() + 60
            while provider.billed_tokens == 0 and time.monotonic() < deadline:
                time.sleep(0.1)
            # The first one would have the answers that arrived graded, two at a time, each within 5 seconds.
            for _ in range(2):
                time.sleep(2)
                process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=40)
        finally:
            process.kill()
    assert process.returncode == 3, errors
    assert "Traceback" not in errors
