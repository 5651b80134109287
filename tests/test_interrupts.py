"""Interruptions of the whole command: a closed terminal, ``nohup``, and Ctrl-C before the work begins."""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from spotcli.errors import Unfinished
from spotcli.interrupts import terminated_as_interrupted
from spotcli.program import work
from tests.conftest import write_rows
from tests.fake_provider import FakeProvider, Step
from tests.terminals import Terminal

ROWS = 16
IN_FLIGHT = 4
GOOD: Step = {"correct": {"6": "5"}, "delay": 0.7}
OPTIONS = ["-m", "spotcli", "rectify", "--oracle", "openai/gpt-4o", "--concurrency", str(IN_FLIGHT), "--gamma", "1"]


@pytest.fixture
def provider(tmp_path: Path) -> Iterator[FakeProvider]:
    """A slow provider, and samples.jsonl with wrong answers beside it."""
    rows = [
        {"id": f"row-{number}", "prompt": f"row-{number}: 2 + 3?", "answer": "5", "verdict": "wrong",
         "response": "2 + 3 = 6\nThe answer is \\boxed{6}."}
        for number in range(ROWS)
    ]  # fmt: skip
    write_rows(tmp_path / "samples.jsonl", rows)
    with FakeProvider({f"row-{number}": [GOOD] for number in range(ROWS)}) as server:
        yield server


def environment(provider: FakeProvider) -> dict[str, str]:
    return {"OPENAI_API_KEY": "sk-test-12345678", "NO_PROXY": "127.0.0.1", "OPENAI_BASE_URL": provider.base_url}


def wait_for(provider: FakeProvider, requests: int, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while len(provider.requests) < requests:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_closed_terminal_stops_the_command_like_ctrl_c(provider: FakeProvider, tmp_path: Path) -> None:
    command = [sys.executable, *OPTIONS, "--base-url", provider.base_url]
    terminal = Terminal(command, tmp_path, tmp_path / "shown.txt", environment(provider))
    deadline = time.monotonic() + 60
    while len(provider.requests) < IN_FLIGHT:
        assert terminal.poll() is None, terminal.text()
        assert time.monotonic() < deadline
    terminal.hang_up()
    # The shell sends it too; the requests in flight are kept nevertheless.
    os.kill(terminal.pid, signal.SIGHUP)
    assert terminal.wait(60) == 3
    assert terminal.left() == []
    journal = [json.loads(line) for line in (tmp_path / "data.replies.jsonl").read_text().splitlines()]
    assert len(journal) == len(provider.requests) == IN_FLIGHT
    again = subprocess.run(
        command, cwd=tmp_path, env=os.environ | environment(provider), capture_output=True, text=True, check=False
    )
    assert again.returncode == 0, again.stderr
    assert len(provider.requests) == ROWS
    assert len((tmp_path / "data.jsonl").read_text().splitlines()) == ROWS


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("stage", ["rectify", "sample"])
def test_a_hang_up_after_another_signal_drops_no_request(
    provider: FakeProvider, stage: str, first: signal.Signals, tmp_path: Path
) -> None:
    # At a logout SIGTERM and SIGHUP come together; none of them is a second Ctrl-C.
    problems = [{"id": f"row-{number}", "prompt": f"row-{number}: 2 + 3?", "answer": "5"} for number in range(ROWS)]
    write_rows(tmp_path / "problems.jsonl", problems)
    sample = ["-m", "spotcli", "sample", "--model", "m", "-o", "answers.jsonl", "--concurrency", str(IN_FLIGHT)]
    command = [sys.executable, *(OPTIONS if stage == "rectify" else sample), "--base-url", provider.base_url]
    terminal = Terminal(command, tmp_path, tmp_path / "shown.txt", environment(provider))
    deadline = time.monotonic() + 60
    while len(provider.requests) < IN_FLIGHT:
        assert terminal.poll() is None, terminal.text()
        assert time.monotonic() < deadline
    for number in (first, signal.SIGHUP, signal.SIGHUP):
        os.kill(terminal.pid, number)
    assert terminal.wait(60) == 3
    kept = tmp_path / ("data.replies.jsonl" if stage == "rectify" else "answers.jsonl")
    assert len(kept.read_text().splitlines()) == len(provider.requests) < ROWS


def test_nohup_keeps_the_command_running(provider: FakeProvider, tmp_path: Path) -> None:
    command = ["nohup", sys.executable, *OPTIONS, "--base-url", provider.base_url]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=os.environ | environment(provider), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    wait_for(provider, IN_FLIGHT)
    process.send_signal(signal.SIGHUP)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert len((tmp_path / "data.jsonl").read_text().splitlines()) == ROWS


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_before_the_work_begins_is_one_message(tmp_path: Path, number: signal.Signals) -> None:
    # The recipe is a pipe that stays open: the command reads its first line and waits for more.
    reader, writer = os.pipe()
    os.set_inheritable(reader, True)
    os.write(writer, b"name: x\n")
    command = [sys.executable, "-m", "spotcli", "run", f"/dev/fd/{reader}"]
    terminal = Terminal(command, tmp_path, tmp_path / "shown.txt", {})
    while select.select([reader], [], [], 0)[0]:
        assert terminal.poll() is None, terminal.text()
        time.sleep(0.01)
    os.kill(terminal.pid, number)
    assert terminal.wait(60) == 3
    os.close(writer)
    os.close(reader)
    assert "interrupted before the work began" in terminal.text()
    assert "Traceback" not in terminal.text()


@pytest.mark.parametrize(
    "ending",
    [
        "threading.Thread(target=time.sleep, args=(8,)).start()",  # Python waits for its threads
        "atexit.register(time.sleep, 2)",
    ],
)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_after_the_message_does_not_change_the_exit_code(
    ending: str, number: signal.Signals, tmp_path: Path
) -> None:
    code = f"import atexit, sys, threading, time\n{ending}\nfrom spotcli.cli import main\nmain()"
    command = [sys.executable, "-c", code, "inspect", "absent.jsonl"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        lines = [process.stderr.readline(), process.stderr.readline()]
        time.sleep(0.2)
        process.send_signal(number)
        assert process.wait(5) == 2
        assert "file not found" in lines[0]
        assert lines[1].startswith("  cure:")
        assert process.stderr.read() == ""


def test_an_interrupt_during_an_import_does_not_change_the_exit_code(tmp_path: Path) -> None:
    # Imports make dataclasses by `exec` of a text, and Python remembers an interrupt inside it until it ends.
    lines = [
        "import sys",
        "from spotcli.interrupts import end_with",
        "try:",
        "    exec('raise KeyboardInterrupt')",
        "except KeyboardInterrupt:",
        "    end_with(3)",
        "    sys.exit(3)",
    ]
    (tmp_path / "interrupted.py").write_text("\n".join(lines))
    result = subprocess.run([sys.executable, "-m", "interrupted"], cwd=tmp_path, capture_output=True, check=False)
    assert (result.returncode, result.stderr) == (3, b"")


def test_an_interrupt_while_an_object_is_deleted_is_not_lost(tmp_path: Path) -> None:
    code = """
import os, signal, time
from spotcli.interrupts import terminated_as_interrupted

class Freed:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.2)  # the interrupt comes here, where Python drops exceptions

try:
    with terminated_as_interrupted():
        Freed()
        time.sleep(30)
except KeyboardInterrupt:
    print("interrupted")
"""
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=20)
    assert (result.stdout, result.stderr) == ("interrupted\n", "")


PACKAGE = """
import os, signal
try:
    INTERRUPT
except BaseException:
    pass  # as packages with optional parts do
raise AttributeError("partially initialized module")
"""


@pytest.mark.parametrize("sent", [True, False])
def test_an_import_that_fails_after_an_interrupt_is_an_interrupt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: bool
) -> None:
    interrupt = "signal.raise_signal(signal.SIGINT)" if sent else "pass"
    (tmp_path / f"fragile_{sent}.py").write_text(PACKAGE.replace("INTERRUPT", interrupt))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("spotcli.interrupts._interrupted", False)
    expected: type[Exception] = Unfinished if sent else AttributeError
    with terminated_as_interrupted(), pytest.raises(expected):
        work(lambda: importlib.import_module(f"fragile_{sent}"))
