"""A command in tmux, as a person sees and types it."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

TMUX = shutil.which("tmux")
"""The program; None where there is none."""

PATIENCE = 60.0
"""Seconds until something that should be shown counts as missing."""


class Pane:
    """The only pane of a tmux server."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    def _tmux(self, *arguments: str) -> str:
        assert TMUX is not None
        command = [TMUX, "-S", str(self._socket), "-f", "/dev/null", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=PATIENCE).stdout

    def start(self, command: list[str], folder: Path, size: tuple[int, int], env: Mapping[str, str]) -> None:
        """Run a command in a new shell, on a new screen."""
        if self._socket.exists():
            self.close()
        settings = [f"{name}={value}" for name, value in env.items()]
        shell = ["env", *settings, "TERM=screen-256color", "PS1=$ ", "sh"]
        place = ["-x", str(size[0]), "-y", str(size[1]), "-c", str(folder)]
        self._tmux("new-session", "-d", *place, shlex.join(shell))
        self.type(f"{shlex.join(command)}\n")

    def type(self, text: str) -> None:
        """Type a text."""
        self._tmux("send-keys", "-l", text.replace("\n", "\r"))

    def press(self, *keys: str) -> None:
        """Press keys by the names that tmux gives them, such as ``C-c`` and ``Down``."""
        self._tmux("send-keys", *keys)

    def mouse(self, button: int, column: int, row: int) -> None:
        """Press a button of the mouse (64: wheel up, 65: wheel down) and release it, in the cells from 1."""
        self.type(f"\x1b[<{button};{column};{row}M\x1b[<{button};{column};{row}m")

    @property
    def screen(self) -> str:
        return self._tmux("capture-pane", "-p")

    def until(self, condition: Callable[[str], object]) -> str:
        """Wait for a screen; return it."""
        deadline = time.monotonic() + PATIENCE
        while not condition(screen := self.screen):
            assert time.monotonic() < deadline, screen
            time.sleep(0.02)
        return screen

    def shows(self, *texts: str) -> str:
        """Wait until the screen contains all texts; return it."""
        return self.until(lambda screen: all(text in screen for text in texts))

    def kill(self) -> None:
        """Send SIGKILL to the command that runs in the shell."""
        shell = self._tmux("display-message", "-p", "#{pane_pid}").strip()
        for child in Path(f"/proc/{shell}/task/{shell}/children").read_text().split():
            os.kill(int(child), signal.SIGKILL)

    def close(self) -> None:
        """End the shell and what runs in it."""
        self._tmux("kill-server")
        self._socket.unlink(missing_ok=True)


@contextmanager
def pane() -> Iterator[Pane]:
    """A pane of a server of its own."""
    with tempfile.TemporaryDirectory(prefix="spot-tmux-") as folder:  # a socket's path must be short
        opened = Pane(Path(folder) / "socket")
        try:
            yield opened
        finally:
            if opened._socket.exists():
                opened.close()
