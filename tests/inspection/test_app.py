"""Expected numbers are worked out in the comments."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.inspection.example_pairs import LAUNCH, write_rows


class Terminal:
    """``spot inspect`` on a pseudo-terminal."""

    def __init__(self, path: Path, *, columns: int = 80, lines: int = 12) -> None:
        import fcntl
        import struct
        import termios

        self.master, self.slave = os.openpty()
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.before = termios.tcgetattr(self.slave)
        hidden = ("NO_COLOR", "COLUMNS", "LINES", "FORCE_COLOR")
        environment = {name: value for name, value in os.environ.items() if name not in hidden}
        self.process = subprocess.Popen(
            [sys.executable, "-c", LAUNCH, str(path)],
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            env={**environment, "TERM": "xterm-256color"},
            start_new_session=True,
        )

    def until(self, text: str) -> str:
        """Return the output up to and including a text."""
        written, deadline = "", time.monotonic() + 30
        while text not in re.sub(r"\x1b\[[0-9;]*m", "", written):
            assert time.monotonic() < deadline, f"{text!r} is missing: {written!r}"
            if select.select([self.master], [], [], 0.1)[0]:
                written += os.read(self.master, 65536).decode(errors="replace")
        return written

    def press(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def terminal(data: Path) -> Iterator[Terminal]:
    opened = Terminal(data)
    yield opened
    opened.close()


def test_next_previous_and_quit(terminal: Terminal) -> None:
    import termios

    terminal.until("any other key to quit")
    terminal.press("\r")
    first = terminal.until("q quit")
    assert "\x1b[?1049h" in first  # the alternate screen keeps the user's output
    assert "sum-1" in first
    assert "\x1b[9;31m13" in first
    assert "\x1b[1;32m12" in first
    terminal.press("n")
    assert "word-1" in terminal.until("2/3   n next")
    terminal.press("nnn")  # the last pair stays
    assert "word-2" in terminal.until("3/3   n next")
    terminal.press("\x1b[D")
    assert "word-1" in terminal.until("2/3   n next")
    terminal.press("q")
    assert "\x1b[?1049l" in terminal.until("\x1b[?1049l")
    assert terminal.process.wait(timeout=30) == 0
    assert termios.tcgetattr(terminal.slave) == terminal.before


def test_scroll_to_the_next_edit(tmp_path: Path) -> None:
    # 40 lines with edits in lines 20 and 40, on a terminal of 12 lines.
    lines = [f"line {number}" for number in range(1, 41)]
    changed = [f"{line} changed" if number in (20, 40) else line for number, line in enumerate(lines, 1)]
    row = {"id": "long", "prompt": "?", "rejected": "\n".join(lines), "chosen": "\n".join(changed)}
    terminal = Terminal(write_rows(tmp_path / "data.jsonl", [row]))
    try:
        terminal.until("any other key to quit")
        terminal.press("n")
        assert "line 20" not in terminal.until("1/1  ↓")
        terminal.press("e")
        assert "line 20 changed" in re.sub(r"\x1b\[[0-9;]*m", "", terminal.until("1/1  ↓"))
        terminal.press("e")
        assert "line 40 changed" in re.sub(r"\x1b\[[0-9;]*m", "", terminal.until("1/1   n next"))
        terminal.press("g")
        assert "long" in terminal.until("1/1  ↓")
        terminal.press(" ")
        assert "line 12" in terminal.until("1/1  ↓")
        terminal.process.send_signal(signal.SIGINT)  # Ctrl-C quits like q
        terminal.until("\x1b[?1049l")
        assert terminal.process.wait(timeout=30) == 0
    finally:
        terminal.close()


def test_any_other_key_quits_at_once(terminal: Terminal) -> None:
    terminal.until("any other key to quit")
    terminal.press("x")
    assert terminal.process.wait(timeout=30) == 0
