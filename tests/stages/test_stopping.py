"""Signals while an endpoint does not answer: the real commands, and servers that refuse, hang, stall or ask to wait."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.conftest import write_rows

ROWS = 4
MOST_SECONDS = 3.0
HEADERS = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 999\r\n\r\n{"
WAIT = b"HTTP/1.1 429 Too Many Requests\r\nretry-after: 3600\r\ncontent-length: 2\r\n\r\n{}"
REPLY = {
    "id": "1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "\\boxed{3}"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 10},
}


class Server:
    """Reads whole requests; answers the first ``quick`` at once and others after ``delay`` seconds, or none."""

    def __init__(self, answer: bytes | None, delay: float = 0.0, quick: int = 0) -> None:
        self.requests = 0
        self._answer, self._delay, self._quick = answer, delay, quick
        self._connections: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        # A client may send its next request on the same connection, and an unanswered one would be waited for.
        with suppress(OSError):  # the client was killed
            while self._has_request(connection):
                self.requests += 1
                time.sleep(self._delay if self.requests > self._quick else 0.0)
                if self._answer is not None:
                    connection.sendall(self._answer)

    @staticmethod
    def _has_request(connection: socket.socket) -> bool:
        """Read one request; False at the end of the connection."""
        data = b""
        while b"\r\n\r\n" not in data or not data.endswith(b"}"):
            part = connection.recv(1 << 16)
            if not part:
                return False
            data += part
        return True

    def close(self) -> None:
        for item in [self._listener, *self._connections]:
            item.close()


@contextmanager
def serving(answer: bytes | None, delay: float = 0.0, quick: int = 0) -> Iterator[Server]:
    server = Server(answer, delay, quick)
    try:
        yield server
    finally:
        server.close()


def start(folder: Path, stage: str, port: int, *options: str) -> subprocess.Popen[str]:
    problems = [{"id": f"p{index}", "prompt": f"{index} + 1?", "answer": str(index + 1)} for index in range(ROWS)]
    write_rows(folder / "problems.jsonl", problems)
    write_rows(folder / "samples.jsonl", [row | {"response": "\\boxed{99}", "verdict": "wrong"} for row in problems])
    arguments = {
        "sample": ["sample", "problems.jsonl", "--model", "m", "-o", "answers.jsonl"],
        "rectify": ["rectify", "--oracle", "hosted_vllm/m"],
    }[stage]
    return subprocess.Popen(
        [sys.executable, "-m", "spotcli", *arguments, "--base-url", f"http://127.0.0.1:{port}/v1", *options],
        cwd=folder,
        env=os.environ | {"NO_PROXY": "127.0.0.1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(server: Server, requests: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while server.requests < requests:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)


def seconds_to_stop(folder: Path, stage: str, case: str, number: signal.Signals) -> tuple[float, str]:
    """Start a command, wait until the endpoint's fault is in effect, and send a signal; time and messages."""
    with serving({"stalls": HEADERS, "asks to wait": WAIT}.get(case)) as server:
        gone = socket.create_server(("127.0.0.1", 0))
        port = gone.getsockname()[1] if case == "refuses" else server.port
        process = start(folder, stage, port, "-s", f"{stage}.max_wait=1e5", "-s", f"{stage}.retries=100")
        try:
            if case == "refuses":  # after the first connections
                gone.settimeout(60)
                for _ in range(ROWS):
                    gone.accept()[0].close()
            else:
                # The first answer that asks to wait holds back the requests that are not sent yet.
                wait_for(server, 1 if case == "asks to wait" else ROWS, process)
            gone.close()
            time.sleep(0.5)
            started = time.monotonic()
            process.send_signal(number)
            _, errors = process.communicate(timeout=60)
            seconds = time.monotonic() - started
        finally:
            process.kill()
    assert process.returncode == 3, errors
    return seconds, errors


@pytest.mark.parametrize("stage", ["sample", "rectify"])
@pytest.mark.parametrize(
    ("case", "number"),
    [
        ("refuses", signal.SIGTERM),
        ("hangs", signal.SIGINT),
        ("stalls", signal.SIGTERM),
        ("asks to wait", signal.SIGINT),
    ],
)
def test_a_signal_ends_a_command_whose_endpoint_does_not_answer(
    stage: str, case: str, number: signal.Signals, tmp_path: Path
) -> None:
    seconds, errors = seconds_to_stop(tmp_path, stage, case, number)
    if seconds > MOST_SECONDS:  # another process may have kept the machine busy
        again = tmp_path / "again"
        again.mkdir()
        seconds, errors = seconds_to_stop(again, stage, case, number)
    assert seconds <= MOST_SECONDS
    lines = errors.splitlines()
    assert sum(line.lstrip().startswith("cure:") for line in lines) == 1, errors
    assert sum("! stopping:" in line for line in lines) == 1, errors
    assert f"{ROWS} remain" in errors or f"{ROWS} of {ROWS} wrong answers remain" in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize("stage", ["sample", "rectify"])
def test_a_command_that_waits_for_replies_says_so_and_a_second_signal_ends_it(stage: str, tmp_path: Path) -> None:
    body = json.dumps(REPLY).encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    # The endpoint has answered once, so its next reply is waited for.
    with serving(head.encode() + body, delay=60.0, quick=1) as server:
        process = start(tmp_path, stage, server.port, "-s", f"{stage}.concurrency=1")
        try:
            wait_for(server, 2, process)
            time.sleep(0.5)
            process.send_signal(signal.SIGINT)
            time.sleep(3)
            assert process.poll() is None
            process.send_signal(signal.SIGINT)
            started = time.monotonic()
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert time.monotonic() - started <= 2 * MOST_SECONDS
    assert process.returncode == 3, errors
    assert re.search(r"! stopping: waiting for .* in flight \(Ctrl-C again drops ", errors), errors


@pytest.mark.parametrize("stage", ["sample", "rectify"])
def test_a_reply_that_came_while_the_process_was_stopped_is_read(stage: str, tmp_path: Path) -> None:
    body = json.dumps(REPLY).encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    with serving(head.encode() + body, delay=1.5) as server:
        process = start(tmp_path, stage, server.port, "-s", f"{stage}.timeout=4")
        try:
            wait_for(server, ROWS, process)
            process.send_signal(signal.SIGSTOP)
            time.sleep(6)
            process.send_signal(signal.SIGCONT)
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
        assert process.returncode == 0, errors
        assert server.requests == ROWS
