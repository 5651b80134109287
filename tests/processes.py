"""Which processes are left: by a mark in the environment that children inherit, or by having seen them."""

from __future__ import annotations

import os
import time
from pathlib import Path

MARK = "SPOT_TEST_MARK"


def _stat(pid: int | str) -> tuple[str, int, int, int] | None:
    """State, parent, session and start of a process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return fields[0], int(fields[1]), int(fields[3]), int(fields[19])


def alive(mark: str) -> list[int]:
    """Processes that were started under a mark, zombies left out."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            marked = f"{MARK}={mark}".encode() in (folder / "environ").read_bytes().split(b"\0")
        except OSError:  # it ended while we looked, or is somebody else's
            continue
        stat = _stat(folder.name)
        if marked and stat and stat[0] != "Z":
            found.append(int(folder.name))
    return [pid for pid in found if pid != os.getpid()]


def alive_after(mark: str, seconds: float) -> list[int]:
    """Those that are still there when they have had time to end."""
    deadline = time.monotonic() + seconds
    while (found := alive(mark)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


class Family:
    """All that a command started, as far as it was seen while its parents lived, and whoever is in their sessions.

    Unlike a mark it also finds who exchanged its own environment, as processes that rename themselves do.
    """

    def __init__(self) -> None:
        self._seen: set[tuple[int, int]] = set()
        self._sessions: set[int] = set()

    def __len__(self) -> int:
        return len(self._seen)

    def look(self, pid: int) -> None:
        """Remember what descends from a process."""
        stats = {int(one.name): _stat(one.name) for one in Path("/proc").glob("[0-9]*")}
        ours = {pid}
        while more := {one for one, stat in stats.items() if stat and stat[1] in ours} - ours:
            ours |= more
        for one in ours:
            if stat := stats.get(one):
                self._seen.add((one, stat[3]))
                if stat[2] == one:
                    self._sessions.add(one)

    def left(self, seconds: float) -> list[str]:
        """Who of them is still there when they have had time to end."""
        deadline = time.monotonic() + seconds
        while (found := self._there()) and time.monotonic() < deadline:
            time.sleep(0.05)
        return found

    def _there(self) -> list[str]:
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            stat = _stat(folder.name)
            pid = int(folder.name)
            if stat and stat[0] != "Z" and ((pid, stat[3]) in self._seen or stat[2] in self._sessions):
                found.append(f"{pid} {(folder / 'cmdline').read_bytes()[:100]!r}")
        return found
