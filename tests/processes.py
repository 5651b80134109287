"""Find processes that are left: by a mark in the inherited environment, or by having seen them start."""

from __future__ import annotations

import os
import time
from pathlib import Path

MARK = "SPOT_TEST_MARK"


def _stat(pid: int | str) -> tuple[str, int, int, int] | None:
    """State, parent, session and start time of a process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return fields[0], int(fields[1]), int(fields[3]), int(fields[19])


def alive(mark: str) -> list[int]:
    """Processes that were started with a mark, without zombies."""
    pids = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            marked = f"{MARK}={mark}".encode() in (folder / "environ").read_bytes().split(b"\0")
        except OSError:  # it has just ended, or belongs to another user
            continue
        stat = _stat(folder.name)
        if marked and stat and stat[0] != "Z":
            pids.append(int(folder.name))
    return [pid for pid in pids if pid != os.getpid()]


def alive_after(mark: str, seconds: float) -> list[int]:
    """Processes with a mark that have not ended within some seconds."""
    deadline = time.monotonic() + seconds
    while (pids := alive(mark)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return pids


class Family:
    """The processes that a command started, seen while their parents ran, and all processes of their sessions.

    Unlike a mark, it also finds processes that replaced their environment, as those that rename themselves do.
    """

    def __init__(self) -> None:
        self._seen: set[tuple[int, int]] = set()
        self._sessions: set[int] = set()

    def __len__(self) -> int:
        return len(self._seen)

    def look(self, pid: int) -> None:
        """Remember the descendants of a process."""
        stats = {int(folder.name): _stat(folder.name) for folder in Path("/proc").glob("[0-9]*")}
        family = {pid}
        while children := {child for child, stat in stats.items() if stat and stat[1] in family} - family:
            family |= children
        for member in family:
            if stat := stats.get(member):
                self._seen.add((member, stat[3]))
                if stat[2] == member:
                    self._sessions.add(member)

    def left(self, seconds: float) -> list[str]:
        """Members that have not ended within some seconds."""
        deadline = time.monotonic() + seconds
        while (members := self._running()) and time.monotonic() < deadline:
            time.sleep(0.05)
        return members

    def _running(self) -> list[str]:
        members = []
        for folder in Path("/proc").glob("[0-9]*"):
            stat = _stat(folder.name)
            pid = int(folder.name)
            if stat and stat[0] != "Z" and ((pid, stat[3]) in self._seen or stat[2] in self._sessions):
                members.append(f"{pid} {(folder / 'cmdline').read_bytes()[:100]!r}")
        return members
