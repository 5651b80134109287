"""The pools of worker processes that grade what can take long: formulas, long answers, instructions.

Workers are started on the first request, killed after a time-out, replaced after a crash, and killed at exit. All
threads of a process share one pool per kind of worker. A worker is started with ``python -m`` and never forked, because
the caller may have loaded torch, started threads or acquired locks. Requests and replies are length-prefixed JSON on
pipes.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Kind = Literal["algebra", "instructions"]
"""What a worker loads when it starts: sympy, or the instruction checkers of IFEval."""
Task = Literal["compare", "math", "choice", "coordinates", "instructions"]
"""What a worker does with the two texts: compare two formulas, or grade a response against a reference."""

START_SECONDS = 60.0
"""A worker imports sympy before its first request, which takes long on a busy machine."""
WAITING = 5.0
"""A task may take this many times its seconds on a busy machine."""
_GRACE = 1.0
"""Seconds after the limit. The worker's own clock ends first, which saves a restart."""
_SLICE = 0.25
"""Seconds of one wait for a worker."""
_REQUESTS_PER_WORKER = 3000
"""Workers are replaced after so many requests, because sympy's caches grow."""
_MEMORY = 2 << 30
"""Bytes of address space per worker."""
_WORKER = [sys.executable, "-P", "-B", "-m", "spotcli.grading.algebra.worker"]


class WorkerLost(Exception):
    """The worker did not reply; the message is the reason."""


class WorkerDied(WorkerLost):
    """The worker exited: out of memory, over its CPU limit, or killed by another process."""


@dataclass(frozen=True, slots=True)
class WorkerReply:
    """The result of one task in a worker."""

    same: bool | None
    reason: str
    """Why ``same`` is None; empty where equality and difference could not be proved."""
    result: dict[str, Any] | None = None
    """Of a task other than ``compare``: what it found; None for a time-out and the like, with the reason."""


class _Patience:
    """How long to wait for a worker, in slices. A slice in which this process was stopped counts as one slice.

    Args:
        seconds: of waiting.
        work: seconds of processor time that the worker may use; None for any.
        pid: the worker.
    """

    def __init__(self, seconds: float, work: float | None, pid: int) -> None:
        self._seconds, self._pid = seconds, pid
        self._since = time.monotonic()
        used = _processor_seconds(pid)
        self._end = None if work is None or used is None else used + work
        if work is not None and used is None:
            self._seconds = work  # a system without /proc

    def spend(self) -> None:
        """Count the time since the last slice.

        Raises:
            WorkerLost: no time is left.
        """
        now = time.monotonic()
        self._seconds -= min(now - self._since, 2 * _SLICE)
        self._since = now
        used = _processor_seconds(self._pid) if self._end is not None else None
        if self._seconds <= 0 or (used is not None and self._end is not None and used > self._end):
            raise WorkerLost("time-out of the comparison")


def _processor_seconds(pid: int) -> float | None:
    """The processor time that a process has used; None if it is unknown."""
    try:
        state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return (int(state[11]) + int(state[12])) / os.sysconf("SC_CLK_TCK")


class _Worker:
    def __init__(self, kind: Kind = "algebra") -> None:
        root = str(Path(__file__).resolve().parents[3])
        # The worker must not see API keys or proxies: it gets only the module search path.
        path = os.pathsep.join(
            [root, *map(os.path.abspath, filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)))]
        )
        environment = {
            "PYTHONPATH": path,
            "LC_ALL": "C.UTF-8",
            "PATH": "/usr/bin:/bin",
            "PYTHONHASHSEED": "0",
        }
        if "SYSTEMROOT" in os.environ:
            environment["SYSTEMROOT"] = os.environ["SYSTEMROOT"]
        self.process = subprocess.Popen(
            [*_WORKER, str(_MEMORY), kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            cwd="/",
            start_new_session=True,  # a process group of its own: killed as a whole, and not interrupted by Ctrl-C
        )
        self.served = 0
        self.ready = False

    def start(self) -> None:
        """Wait until the worker has loaded what it needs."""
        if not self.ready:
            message = self._receive(_Patience(START_SECONDS, None, self.process.pid))
            if not message["ready"]:
                raise WorkerDied(message["reason"])
            self.ready = True

    def ask(self, gold: str, answer: str, seconds: float, task: Task = "compare") -> WorkerReply:
        self.start()
        self.served += 1
        body = json.dumps({"task": task, "gold": gold, "answer": answer, "seconds": seconds}).encode()
        patience = _Patience(WAITING * seconds + _GRACE, seconds + _GRACE, self.process.pid)
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(struct.pack(">I", len(body)) + body)
            self.process.stdin.flush()
        except (BrokenPipeError, OSError) as error:
            raise WorkerDied("the worker process exited") from error
        reply = self._receive(patience)
        return WorkerReply(reply["same"], reply["reason"], reply.get("result"))

    def _receive(self, patience: _Patience) -> dict[str, Any]:
        (length,) = struct.unpack(">I", self._read(4, patience))
        reply: dict[str, Any] = json.loads(self._read(length, patience))
        return reply

    def _read(self, count: int, patience: _Patience) -> bytes:
        assert self.process.stdout is not None
        pipe, data = self.process.stdout.fileno(), b""
        poll = select.poll()
        poll.register(pipe, select.POLLIN | select.POLLHUP)
        while len(data) < count:
            # A reply that is there is read, however late this process comes to read it.
            while not poll.poll(_SLICE * 1000):
                patience.spend()
            part = os.read(pipe, count - len(data))
            if not part:
                raise WorkerDied("the worker process exited: it ran out of memory or was killed")
            data += part
        return data

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe:
                with contextlib.suppress(OSError):
                    pipe.close()
        self.process.wait()


class AlgebraPool:
    """At most ``size`` workers of one kind; callers wait for a free one."""

    def __init__(self, size: int, kind: Kind = "algebra") -> None:
        self.size = size
        self.kind: Kind = kind
        self._closed = False
        self._idle: list[_Worker] = []
        self._all: set[_Worker] = set()
        self._free = threading.Condition()

    def start(self) -> None:
        """Start a worker, unless there is one.

        Raises:
            WorkerLost: it failed to load what it needs; the message names the missing package.
        """
        worker = self._take()
        try:
            worker.start()
        except BaseException:
            self._drop(worker)
            raise
        self._return(worker)

    def ask(self, gold: str, answer: str, seconds: float, task: Task = "compare") -> WorkerReply:
        """Give a reference and an answer to a worker, within ``seconds`` of its processor time.

        Raises:
            WorkerLost: no reply in time, or the worker exited twice; the pool remains usable.
        """
        try:
            return self._ask(gold, answer, seconds, task)
        except WorkerDied:  # it may have died before the request: try again with a new worker
            with self._free:
                idle, self._idle = self._idle, []
            for worker in idle:
                self._drop(worker)
            return self._ask(gold, answer, seconds, task)

    def _ask(self, gold: str, answer: str, seconds: float, task: Task) -> WorkerReply:
        worker = self._take()
        try:
            reply = worker.ask(gold, answer, seconds, task)
        except BaseException:
            self._drop(worker)
            raise
        if worker.served >= _REQUESTS_PER_WORKER:
            self._drop(worker)
        else:
            self._return(worker)
        return reply

    def _return(self, worker: _Worker) -> None:
        with self._free:
            self._idle.append(worker)
            self._free.notify()

    def _take(self) -> _Worker:
        with self._free:
            while not self._closed and not self._idle and len(self._all) >= self.size:
                self._free.wait()
            if self._closed:  # an interrupted run must not start another worker
                raise WorkerLost("the grading was stopped")
            if self._idle:
                worker = self._idle.pop()
                if worker.process.poll() is None:
                    return worker
                self._all.discard(worker)  # died while idle
                worker.kill()
            worker = _Worker(self.kind)
            self._all.add(worker)
            return worker

    def _drop(self, worker: _Worker) -> None:
        worker.kill()
        with self._free:
            self._all.discard(worker)
            self._free.notify()

    def grow(self, size: int) -> None:
        """Allow at least ``size`` workers."""
        with self._free:
            if size > self.size:
                self.size = size
                self._free.notify_all()

    def close(self) -> None:
        """Kill every worker; what is asked of the pool later fails."""
        with self._free:
            self._closed = True
            workers, self._all, self._idle = self._all, set(), []
            self._free.notify_all()
        for worker in workers:
            worker.kill()


_pools: dict[Kind, AlgebraPool] = {}
_pool_lock = threading.Lock()


def shared_pool(kind: Kind = "algebra") -> AlgebraPool:
    """The pool of this process for one kind of worker, created with one worker on the first call."""
    with _pool_lock:
        if not _pools:
            atexit.register(close_pool)
        return _pools.setdefault(kind, AlgebraPool(1, kind))


def close_pool() -> None:
    """Kill the workers of this process. The next request starts new ones."""
    with _pool_lock:
        pools = list(_pools.values())
        _pools.clear()
    for pool in pools:
        pool.close()


def _forget_pool() -> None:
    """A forked child must not use the pipes of its parent."""
    global _pool_lock
    _pools.clear()
    _pool_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)
