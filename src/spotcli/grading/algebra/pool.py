"""The pool of worker processes: started when first needed, killed when late, replaced, and gone at exit.

One pool per process, shared by all threads. A worker is a clean ``python -m`` process, never a fork: the
caller may hold torch, threads and locks. Requests and replies are length-prefixed JSON over pipes; nothing is
pickled.
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
from pathlib import Path
from typing import Any

START_SECONDS = 60.0  # a worker imports sympy first; generous, for a busy machine
_GRACE = 1.0  # the worker's own alarm comes first, and spares a restart
_REQUESTS_PER_WORKER = 3000  # sympy's caches grow
_MEMORY = 2 << 30


class WorkerLost(Exception):
    """The worker did not answer; the message says why."""


class WorkerDied(WorkerLost):
    """The worker ended by itself: out of memory, over its processor limit, or killed by someone else."""


class _Worker:
    def __init__(self) -> None:
        root = str(Path(__file__).resolve().parents[2])
        # No API keys, no proxies: the worker gets the search path and nothing else of the caller's
        # environment.
        path = os.pathsep.join([root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))])
        environment = {
            "PYTHONPATH": path,
            "LC_ALL": "C.UTF-8",
            "PATH": "/usr/bin:/bin",
            "PYTHONHASHSEED": "0",
        }
        if "SYSTEMROOT" in os.environ:
            environment["SYSTEMROOT"] = os.environ["SYSTEMROOT"]
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-B", "-m", "spotcli.grading.algebra.worker", str(_MEMORY)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            cwd="/",
            start_new_session=True,  # a group of its own: killed whole, and deaf to the terminal's Ctrl-C
        )
        self.served = 0
        self.ready = False

    def ask(self, request: dict[str, Any], seconds: float) -> dict[str, Any]:
        if not self.ready:
            self._receive(time.monotonic() + START_SECONDS)
            self.ready = True
        self.served += 1
        body = json.dumps(request).encode()
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(struct.pack(">I", len(body)) + body)
            self.process.stdin.flush()
        except (BrokenPipeError, OSError) as error:
            raise WorkerDied("the worker died") from error
        return self._receive(time.monotonic() + seconds + _GRACE)

    def _receive(self, deadline: float) -> dict[str, Any]:
        (length,) = struct.unpack(">I", self._read(4, deadline))
        reply: dict[str, Any] = json.loads(self._read(length, deadline))
        return reply

    def _read(self, count: int, deadline: float) -> bytes:
        assert self.process.stdout is not None
        pipe, data = self.process.stdout.fileno(), b""
        poll = select.poll()
        poll.register(pipe, select.POLLIN | select.POLLHUP)
        while len(data) < count:
            left = deadline - time.monotonic()
            if left <= 0 or not poll.poll(left * 1000):
                raise WorkerLost("time-out")
            part = os.read(pipe, count - len(data))
            if not part:
                raise WorkerDied("the worker died: out of memory, or killed")
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


class Pool:
    """At most ``size`` workers; a caller waits for a free one."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._idle: list[_Worker] = []
        self._all: set[_Worker] = set()
        self._free = threading.Condition()

    def ask(self, request: dict[str, Any], seconds: float) -> dict[str, Any]:
        """The worker's reply. ``seconds``: wall clock for this request. Raises WorkerLost; the pool stays
        usable."""
        request = {**request, "seconds": seconds}
        try:
            return self._ask(request, seconds)
        except WorkerDied:  # perhaps it was dead already when we asked: once more, with a new one
            with self._free:
                idle, self._idle = self._idle, []
            for worker in idle:
                self._drop(worker)
            return self._ask(request, seconds)

    def _ask(self, request: dict[str, Any], seconds: float) -> dict[str, Any]:
        worker = self._take()
        try:
            reply = worker.ask(request, seconds)
        except BaseException:
            self._drop(worker)
            raise
        if worker.served >= _REQUESTS_PER_WORKER:
            self._drop(worker)
        else:
            with self._free:
                self._idle.append(worker)
                self._free.notify()
        return reply

    def _take(self) -> _Worker:
        with self._free:
            while not self._idle and len(self._all) >= self.size:
                self._free.wait()
            if self._idle:
                worker = self._idle.pop()
                if worker.process.poll() is None:
                    return worker
                self._all.discard(worker)  # died while idle
                worker.kill()
            worker = _Worker()
            self._all.add(worker)
            return worker

    def _drop(self, worker: _Worker) -> None:
        worker.kill()
        with self._free:
            self._all.discard(worker)
            self._free.notify()

    def grow(self, size: int) -> None:
        """Allow more workers (never fewer)."""
        with self._free:
            if size > self.size:
                self.size = size
                self._free.notify_all()

    def close(self) -> None:
        """Kill every worker."""
        with self._free:
            workers, self._all, self._idle = self._all, set(), []
            self._free.notify_all()
        for worker in workers:
            worker.kill()


_pool: Pool | None = None
_pool_lock = threading.Lock()


def pool() -> Pool:
    """This process's pool, with one worker at first."""
    global _pool
    with _pool_lock:
        if _pool is None:
            _pool = Pool(1)
            atexit.register(close)
        return _pool


def close() -> None:
    """Kill the workers of this process. The next request starts new ones."""
    global _pool
    with _pool_lock:
        old, _pool = _pool, None
    if old:
        old.close()


def _forget() -> None:
    """A forked child must not talk through its parent's pipes."""
    global _pool, _pool_lock
    _pool, _pool_lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
