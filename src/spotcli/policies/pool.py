"""Worker processes that pull from one queue: each takes what it has room for, and a dead one's share goes back.

The requests are a stream, read only as far as the workers have room. A worker holds what its engine runs at once and a
few more, so that lengths may be as uneven as they like; towards the end the rest is divided evenly among them. A
worker that dies is started anew. It is given up when it died ``CHANCES`` times without an answer in between, since what
kills it then is not one request; when all are given up, the last one's own words are the error.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import queue
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spotcli.console import warn
from spotcli.errors import UserError

CHANCES = 3
# Finished rows that wait to be written; when writing is slower than answering, the workers wait.
WAITING = 1024
# Seconds for a worker to end by itself.
GRACE = 8.0


@dataclass(frozen=True)
class Job:
    """How one worker is started."""

    command: Sequence[str]
    env: Mapping[str, str]
    config: Mapping[str, Any]
    log: Path


@dataclass
class _Worker:
    number: int
    job: Job
    process: subprocess.Popen[str] | None = None
    capacity: int = 0
    """Requests that its engine runs at once; 0 until it is ready."""
    held: dict[int, dict[str, Any]] = field(default_factory=dict)
    """Requests that it was given and has not answered, by number."""
    fruitless: int = 0
    """Deaths since its last answer."""
    lock: threading.Lock = field(default_factory=threading.Lock)


class WorkerPool:
    """Processes that speak the protocol of ``vllm_worker.py``.

    Args:
        jobs: one a worker.
        requests: a stream of what the protocol calls a request, each with its number ``n``.
        total: how many the stream will give.
    """

    def __init__(self, jobs: Sequence[Job], requests: Iterator[dict[str, Any]], total: int) -> None:
        self.ready: dict[str, Any] = {}
        """What the last worker to start said of its engine."""
        self.ready_since = 0.0
        """When the first one was ready, by ``time.monotonic``."""
        self._workers = [_Worker(number, job) for number, job in enumerate(jobs)]
        self._requests = requests
        self._left = total
        self._returned: deque[dict[str, Any]] = deque()
        self._open = 0
        self._alive = len(self._workers)
        self._queue = threading.RLock()
        self._results: queue.Queue[dict[str, Any] | BaseException | None] = queue.Queue(WAITING)
        self._ending = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(worker,), name=f"worker-{worker.number}", daemon=True)
            for worker in self._workers
        ]

    def results(self) -> Iterator[list[dict[str, Any]]]:
        """Rows ``{"n", ...}`` in groups, as they come.

        Raises:
            UserError: no worker lives any more, and there is work left.
        """
        if not self._left:
            return
        for thread in self._threads:
            thread.start()
        ended = False
        while not ended:
            rows: list[dict[str, Any]] = []
            with contextlib.suppress(queue.Empty):
                item = self._results.get()
                while True:
                    if isinstance(item, BaseException):
                        raise item
                    if item is None:
                        ended = True
                        break
                    rows.append(item)
                    item = self._results.get_nowait()
            if rows:
                yield rows

    def stop(self) -> None:
        """End the workers; what they finished is still handed out."""
        threading.Thread(target=self._end, daemon=True).start()

    def close(self) -> None:
        """End the workers and wait until none of their processes is left."""
        self._end_workers()
        while any(thread.is_alive() for thread in self._threads):
            with contextlib.suppress(queue.Empty):
                self._results.get(timeout=0.05)  # a thread may wait for room to put what nobody wants any more

    def _end(self) -> None:
        self._end_workers()
        self._results.put(None)

    def _end_workers(self) -> None:
        self._ending.set()
        processes = [worker.process for worker in self._workers if worker.process]
        for process in processes:  # all are told before any is waited for
            _close_stdin(process)
        for process in processes:
            _end_group(process)

    # One thread a worker: it starts the process, reads its answers and gives it work.

    def _run(self, worker: _Worker) -> None:
        try:
            while not self._ending.is_set():
                self._serve(worker)
                if self._ending.is_set():
                    return
                worker.fruitless += 1
                if worker.fruitless >= CHANCES:
                    self._give_up(worker)
                    return
                warn(f"worker {worker.number} died; its work goes back and it is started anew (see {worker.job.log})")
        except BaseException as error:
            self._results.put(error)

    def _serve(self, worker: _Worker) -> None:
        """One life of a worker."""
        job = worker.job
        with job.log.open("ab") as log:
            try:
                process = subprocess.Popen(
                    list(job.command),
                    env=dict(job.env),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    encoding="utf-8",
                    start_new_session=True,  # Ctrl-C is the command's, and the group can be ended as one
                )
            except OSError as error:
                raise UserError(
                    f"the interpreter cannot be started: {error.strerror}", where=job.command[0], cure="sample.python"
                ) from None
            worker.process = process
            try:
                if self._ending.is_set():
                    return
                _send(process, [job.config])
                assert process.stdout
                for line in process.stdout:
                    self._hear(worker, json.loads(line))
            except (BrokenPipeError, ValueError):
                pass  # it died while it was written to, or in the middle of a line
            finally:
                _end_group(process)
                self._take_back(worker)

    def _hear(self, worker: _Worker, row: dict[str, Any]) -> None:
        if "ready" in row:
            self.ready = row["ready"]
            self.ready_since = self.ready_since or time.monotonic()
            worker.capacity = self.ready["capacity"]
        else:
            with self._queue:
                if worker.held.pop(row["n"], None) is None:
                    return
                worker.fruitless = 0
                self._open -= 1
                finished = not self._open and not self._left and not self._returned
            self._results.put(row)
            if finished:
                self._end()
        self._feed(worker)

    def _feed(self, worker: _Worker) -> None:
        """Give a worker what it has room for, and no more than its share of what is left."""
        with worker.lock:
            process = worker.process
            with self._queue:
                if process is None or not worker.capacity or self._ending.is_set():
                    return
                share = math.ceil((self._left + len(self._returned) + self._open) / max(1, self._alive))
                room = min(worker.capacity + max(2, worker.capacity // 8), share) - len(worker.held)
                given = []
                while room > 0 and (request := self._next()) is not None:
                    worker.held[request["n"]] = request
                    given.append(request)
                    self._open += 1
                    room -= 1
            with contextlib.suppress(BrokenPipeError, ValueError):  # it is gone; its own thread will notice
                _send(process, given)

    def _next(self) -> dict[str, Any] | None:
        if self._returned:
            return self._returned.popleft()
        request = next(self._requests, None)
        self._left = self._left - 1 if request is not None else 0
        return request

    def _take_back(self, worker: _Worker) -> None:
        with worker.lock, self._queue:
            worker.process, worker.capacity = None, 0
            self._returned.extend(worker.held.values())
            self._open -= len(worker.held)
            worker.held.clear()
        for other in self._workers:
            self._feed(other)

    def _give_up(self, worker: _Worker) -> None:
        with self._queue:
            self._alive -= 1
            alive = self._alive
        if alive:
            warn(f"worker {worker.number} died {CHANCES} times in a row and is given up; the others go on")
            for other in self._workers:
                self._feed(other)
        else:
            self._results.put(_last_words(worker.job))


def _send(process: subprocess.Popen[str], rows: Sequence[Mapping[str, Any]]) -> None:
    assert process.stdin
    process.stdin.write("".join(f"{json.dumps(row)}\n" for row in rows))
    process.stdin.flush()


def _close_stdin(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(OSError):
        assert process.stdin
        process.stdin.close()


def _end_group(process: subprocess.Popen[str]) -> None:
    """End a worker with all its children; it may do so by itself first."""
    _close_stdin(process)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(GRACE)
    # Also where it ended by itself: its children may not have.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _last_words(job: Job) -> UserError:
    """Why workers do not live, out of their log."""
    lines = [line.strip() for line in job.log.read_text(encoding="utf-8", errors="replace").splitlines()]
    errors = [line for line in lines if "Error" in line] or [line for line in lines if line] or ["it said nothing"]
    cure = f"read {job.log}"
    if "No module named 'vllm'" in errors[-1]:
        cure = f"{job.command[0]} -m pip install vllm, or name the interpreter that has it in sample.python"
    return UserError(f"the engine does not live: {errors[-1][:300]}", where=str(job.log), cure=cure)
