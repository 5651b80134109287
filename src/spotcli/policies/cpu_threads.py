"""How many processors a model on CPUs uses: those that are free, and none of them spins while it waits.

Threads that wait for each other actively are the slowest way to share a processor: with one busy program beside it, a
model with as many threads as processors runs many times slower than with one thread.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from spotcli.console import say, warn

# torch's OpenMP library reads these once, when torch is imported. Waiting threads give their processor to others.
if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"} & os.environ.keys():
    os.environ |= {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}

WATCHED = 0.2
"""Seconds for which the processors are watched."""

SLOW = 5.0
"""A step this many times slower than the first ones is reported."""

FIRST = 3
"""Steps that set the expected speed; so many slow ones in a row are reported."""

_chosen = False


def use_free_processors() -> None:
    """Choose torch's number of threads, once per process; ``OMP_NUM_THREADS`` is respected."""
    global _chosen
    import torch

    if _chosen or torch.cuda.is_available():
        return
    _chosen = True
    if given := os.environ.get("OMP_NUM_THREADS"):
        say(f"CPU threads: {given} (OMP_NUM_THREADS)")
        return
    allowed, free = allowed_processors(), free_processors()
    torch.set_num_threads(max(1, min(allowed, free)))
    threads = torch.get_num_threads()
    say(f"CPU threads: {threads} ({free} of {allowed} processors are free; OMP_NUM_THREADS overrides)")


def allowed_processors() -> int:
    """The processors that this process may use, by affinity and by the limit of its container."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = min(map(_quota, _limit_files()), default=float(affinity))
    return max(1, round(min(affinity, quota)))


def _limit_files() -> list[Path]:
    """Files with a limit of processor time, of cgroups of both versions."""
    root = Path("/sys/fs/cgroup")
    files = [root / "cpu.max", root / "cpu" / "cpu.cfs_quota_us"]
    try:
        groups = [line.rpartition(":")[2] for line in Path("/proc/self/cgroup").read_text().splitlines()]
    except OSError:
        groups = []
    for group in groups:
        folder = root / group.lstrip("/")
        files += [parent / "cpu.max" for parent in (folder, *folder.parents) if parent.is_relative_to(root)]
    return [file for file in files if file.is_file()]


def _quota(file: Path) -> float:
    """Processors that a limit allows; infinite for none."""
    try:
        words = file.read_text().split()
        if file.name == "cpu.cfs_quota_us":
            words.append(file.with_name("cpu.cfs_period_us").read_text().strip())
        quota, period = float(words[0]), float(words[1])
    except (OSError, ValueError, IndexError):  # "max"
        return float("inf")
    return quota / period if quota > 0 and period > 0 else float("inf")


def free_processors() -> int:
    """The number of allowed processors that other programs leave free now, at least 1."""
    before = _idle_ticks()
    if not before:
        return max(1, allowed_processors() - round(os.getloadavg()[0]))
    time.sleep(WATCHED)
    after = _idle_ticks()
    idle = 0.0
    for number, (free, total) in before.items():
        now_free, now_total = after.get(number, (free, total))
        idle += (now_free - free) / max(1, now_total - total)
    return max(1, min(allowed_processors(), round(idle)))


def _idle_ticks() -> dict[int, tuple[int, int]]:
    """Idle and all ticks of each allowed processor; empty on a system without /proc/stat."""
    try:
        lines = Path("/proc/stat").read_text().splitlines()
    except OSError:
        return {}
    allowed = os.sched_getaffinity(0)
    ticks: dict[int, tuple[int, int]] = {}
    for line in lines:
        name, *values = line.split()
        if name.startswith("cpu") and name[3:].isdecimal() and int(name[3:]) in allowed:
            numbers = list(map(int, values[:8]))
            ticks[int(name[3:])] = numbers[3] + numbers[4], sum(numbers)
    return ticks


class Pace:
    """Warns once when the work becomes far slower than it was at its start.

    Args:
        work: what is measured, for the message.
    """

    def __init__(self, work: str) -> None:
        self._work = work
        self._first: list[float] = []
        self._slow = 0
        self._warned = False

    def add(self, amount: float, seconds: float) -> None:
        """Count one step, with its amount of work."""
        if self._warned or amount <= 0 or seconds <= 0:
            return
        speed = amount / seconds
        if len(self._first) < FIRST:
            self._first.append(speed)
            return
        usual = sorted(self._first)[FIRST // 2]
        self._slow = self._slow + 1 if speed * SLOW < usual else 0
        if self._slow >= FIRST:
            self._warned = True
            warn(f"{self._work} is {usual / speed:.0f} times slower than at the start: {_probable_cause()}")


def _probable_cause() -> str:
    load, processors = os.getloadavg()[0], os.cpu_count() or 1
    if load > processors:
        return (
            f"{load:.0f} tasks share {processors} processors. Stop other programs, or stop this command and start it "
            "again with OMP_NUM_THREADS=1; it resumes"
        )
    return "check whether the memory is full, another program uses the device, or the machine runs hot"
