"""Commands on terminals of their own, as a person starts them: real Ctrl-C, real hang-ups."""

from __future__ import annotations

import os
import pty
import select
import signal
import struct
import termios
import time
from collections.abc import Iterator
from fcntl import ioctl
from pathlib import Path
from uuid import uuid4

from tests.processes import MARK, Family, alive_after

GONE = 15
"""Seconds within which all processes of a command have to end."""


class Terminal:
    """A command on a terminal of its own, of 80 x 24 characters; what it writes is in a log."""

    def __init__(self, command: list[str], folder: Path, log: Path, env: dict[str, str]) -> None:
        self.log = log
        self.killed = ""
        """The kind of the child process that was killed."""
        self.mark = uuid4().hex
        self.family = Family()
        self.code: int | None = None
        self.closed = False
        """Whether the terminal was closed while the command ran."""
        self._looked = 0.0
        environment = os.environ | env | {"TERM": "xterm-256color", MARK: self.mark}
        self.pid, self._screen = pty.fork()
        if self.pid == 0:
            for number in (signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)  # a background job and nohup ignore them
            os.chdir(folder)
            os.execve(command[0], command, environment)
        ioctl(self._screen, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self._file = log.open("wb")

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def poll(self) -> int | None:
        """Read what the command wrote; its exit code if it has ended, negative for a signal."""
        if self.code is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            self._read()
            if ended:
                self.code = os.waitstatus_to_exitcode(status)
                self._file.close()
                self._close()
            elif time.monotonic() - self._looked > 0.3:
                self.look()
        return self.code

    def look(self) -> None:
        self._looked = time.monotonic()
        self.family.look(self.pid)

    def _read(self) -> None:
        while self._screen >= 0 and select.select([self._screen], [], [], 0.02)[0]:
            try:
                data = os.read(self._screen, 1 << 16)
            except OSError:  # EIO: no process has the terminal any more
                return
            self._file.write(data)
            self._file.flush()
            if not data:
                return

    def wait(self, seconds: float) -> int | None:
        deadline = time.monotonic() + seconds
        while self.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        return self.code

    def ctrl_c(self) -> None:
        self.press("\x03")

    def press(self, keys: str) -> None:
        os.write(self._screen, keys.encode())

    def hang_up(self) -> None:
        """Close the terminal: the kernel sends SIGHUP to the command, and writing fails from now on."""
        self.closed = True
        self._close()

    def _close(self) -> None:
        if self._screen >= 0:
            os.close(self._screen)
            self._screen = -1

    def children(self) -> dict[str, list[int]]:
        """The child processes of the command by kind."""
        kinds: dict[str, list[int]] = {}
        for pid, command in descendants(self.pid):
            kind = next((name for name, word in CHILDREN.items() if word in command), "other")
            kinds.setdefault(kind, []).append(pid)
        return kinds

    def left(self) -> list[str]:
        """The processes of the command that have not ended in time."""
        return self.family.left(GONE) + [str(pid) for pid in alive_after(self.mark, 1)]


CHILDREN = {
    "launcher": b"accelerate.commands.launch",
    "training process": b"spotcli.stages.train",
    "grading worker": b"spotcli.grading.algebra.worker",
}
"""Kinds of child processes -> a word of their command line."""


def descendants(pid: int) -> Iterator[tuple[int, bytes]]:
    """The descendants of a process with their command lines."""
    try:
        pids = [
            int(child)
            for task in Path(f"/proc/{pid}/task").iterdir()
            for child in (task / "children").read_text().split()
        ]
    except OSError:
        return
    for child in pids:
        try:
            yield child, Path(f"/proc/{child}/cmdline").read_bytes()
        except OSError:
            continue
        yield from descendants(child)
