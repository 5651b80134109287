"""Which processes are left, by a mark in the environment that every child inherits."""

from __future__ import annotations

import os
import time
from pathlib import Path

MARK = "SPOT_TEST_MARK"


def alive(mark: str) -> list[int]:
    """Processes that were started under a mark, zombies left out."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            marked = f"{MARK}={mark}".encode() in (folder / "environ").read_bytes().split(b"\0")
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:  # it ended while we looked, or is somebody else's
            continue
        if marked and state != "Z":
            found.append(int(folder.name))
    return [pid for pid in found if pid != os.getpid()]


def alive_after(mark: str, seconds: float) -> list[int]:
    """Those that are still there when they have had time to end."""
    deadline = time.monotonic() + seconds
    while (found := alive(mark)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found
