"""Worker processes that pull from one queue: each takes what it has room for, and a dead one's share goes back.

The requests are a stream, read only as far as the workers have room. A worker holds what its engine runs at once and a
few more, so that lengths may be as uneven as they like; towards the end the rest is divided evenly among them.

A worker that dies, or gives no sign of life any more, is started anew. It is given up when it died ``CHANCES`` times
without an answer in between; when all are given up, the last one's own words are the error. A request that a worker
died with is suspect: a worker gets fewer suspects at once, then one alone, and a request that was there ``CHANCES``
times is a failure. So one that kills whatever engine takes it costs a few restarts and not the night.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import re
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spotcli.console import warn
from spotcli.errors import UserError
from spotcli.policies.answer_queue import Outbox

CHANCES = 3
# Seconds for a worker to end by itself.
GRACE = 8.0
# Seconds without an answer, a sign of life or a word in its log, after which a worker is taken for hung.
SILENCE = 900.0
# Bytes of one answer's line at most.
LINE = 1 << 26

# How a Python error is named at the end of a traceback; what vLLM says after it only repeats that there was one.
_ERROR = re.compile(r"\b\w*(?:Error|Exception|Interrupt): .*")
_REPEATED = re.compile(r"Engine core initialization failed|EngineDeadError|WorkerProc initialization failed")


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
    process: asyncio.subprocess.Process | None = None
    capacity: int = 0
    """Requests that its engine runs at once; 0 until it is ready."""
    held: dict[int, dict[str, Any]] = field(default_factory=dict)
    """Requests that it was given and has not answered, by number."""
    fruitless: int = 0
    """Deaths since its last answer."""


class WorkerPool:
    """Processes that speak the protocol of ``vllm_worker.py``, on a thread of their own.

    Args:
        jobs: one a worker.
        requests: a stream of what the protocol calls a request, each with its number ``n``; read on the pool's thread.
        total: how many the stream will give.
    """

    def __init__(self, jobs: Sequence[Job], requests: Iterator[dict[str, Any]], total: int) -> None:
        self.ready: dict[str, Any] = {}
        """What the last worker to start said of its engine."""
        self.ready_since = 0.0
        """When the first one was ready, by ``time.monotonic``."""
        self.deaths = 0
        """Of all workers."""
        self._workers = [_Worker(number, job) for number, job in enumerate(jobs)]
        self._alive = len(self._workers)
        self._requests = requests
        self._left = total
        self._suspects: list[deque[dict[str, Any]]] = [deque() for _ in range(CHANCES)]
        """Requests to be given out again, by the deaths they were there for."""
        self._deaths: Counter[int] = Counter()
        self._rows: Outbox[dict[str, Any]] = Outbox()
        self._ending = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="workers", daemon=True)

    def results(self) -> Iterator[list[dict[str, Any]]]:
        """Rows ``{"n", ...}`` in groups, as they come.

        Raises:
            UserError: no worker lives any more, and there is work left.
        """
        if self._left:
            self._thread.start()
            yield from self._rows.groups()

    def stop(self) -> None:
        """End the workers; what they finished is still handed out. May be called from a signal handler."""
        self._ending = True
        if self._loop:
            with contextlib.suppress(RuntimeError):  # it is over already
                self._loop.call_soon_threadsafe(self._end)

    def close(self) -> None:
        """End the workers and wait until none of their processes is left."""
        self.stop()
        if self._thread.is_alive():
            self._thread.join()

    # All of the rest runs on the pool's thread.

    def _run(self) -> None:
        try:
            asyncio.run(self._work())
        except BaseExceptionGroup as group:
            self._rows.end(group.exceptions[0])
        except BaseException as error:
            self._rows.end(error)
        else:
            self._rows.end()

    async def _work(self) -> None:
        self._loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as tasks:
            for worker in self._workers:
                tasks.create_task(self._lives(worker))

    def _end(self) -> None:
        """Tell every worker to end; who does not is killed, and either way its last answers are still read."""
        self._ending = True
        for worker in self._workers:
            if worker.process:
                _close_stdin(worker.process)
                asyncio.get_running_loop().call_later(GRACE, _kill_group, worker.process)

    async def _lives(self, worker: _Worker) -> None:
        while not self._ending:
            await self._life(worker)
            if self._ending:
                return
            if worker.fruitless >= CHANCES:
                self._give_up(worker)
                return
            warn(f"worker {worker.number} died; its work goes back and it is started anew (see {worker.job.log})")

    async def _life(self, worker: _Worker) -> None:
        job = worker.job
        with job.log.open("ab") as log:
            try:
                process = await asyncio.create_subprocess_exec(
                    *job.command,
                    env=dict(job.env),
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=log,
                    limit=LINE,
                    start_new_session=True,  # Ctrl-C is the command's, and the group can be ended as one
                )
            except OSError as error:
                raise UserError(
                    f"the interpreter cannot be started: {error.strerror}", where=job.command[0], cure="sample.python"
                ) from None
        worker.process = process
        watch = asyncio.create_task(_end_with_guard(process))
        try:
            if not self._ending:
                _send(process, [job.config])
                while row := await self._row(worker, process):
                    self._hear(worker, row)
                    while self._rows.full and not self._ending:
                        await asyncio.sleep(0.05)
                worker.process, worker.capacity = None, 0
                self._take_back(worker)
        except BaseException:
            self._ending = True  # the stream broke, or there is no worker any more: nobody is fed from here on
            raise
        finally:
            watch.cancel()
            await _end_group(process)

    async def _row(self, worker: _Worker, process: asyncio.subprocess.Process) -> dict[str, Any] | None:
        """What a worker says next; None when it is dead, or taken for it."""
        assert process.stdout
        while True:
            try:
                async with asyncio.timeout(SILENCE):
                    line = await process.stdout.readline()
                return json.loads(line) if line else None
            except TimeoutError:
                if time.time() - worker.job.log.stat().st_mtime >= SILENCE:
                    warn(f"worker {worker.number} has been silent for {SILENCE:g} s and is ended")
                    _kill_group(process)
            except ValueError:  # cut by its death
                return None

    def _hear(self, worker: _Worker, row: dict[str, Any]) -> None:
        if "ready" in row:
            self.ready = row["ready"]
            self.ready_since = self.ready_since or time.monotonic()
            worker.capacity = self.ready["capacity"]
        elif "n" in row and worker.held.pop(row["n"], None) is not None:
            worker.fruitless = 0
            self._answered(row)
        self._feed(worker)

    def _answered(self, row: dict[str, Any]) -> None:
        self._deaths.pop(row["n"], None)
        self._rows.put(row)
        if not self._wanted():
            self._end()

    def _wanted(self) -> int:
        """Requests that have no answer yet."""
        return self._left + sum(map(len, self._suspects)) + sum(len(worker.held) for worker in self._workers)

    def _feed(self, worker: _Worker) -> None:
        """Give a worker what it has room for, and no more than its share of what is left."""
        if self._ending or not worker.capacity or not worker.process:
            return
        share = math.ceil(self._wanted() / self._alive)
        room = min(worker.capacity + max(2, worker.capacity // 8), share) - len(worker.held)
        given: list[dict[str, Any]] = []
        while len(given) < room and (request := self._next(worker)) is not None:
            worker.held[request["n"]] = request
            given.append(request)
        _send(worker.process, given)

    def _next(self, worker: _Worker) -> dict[str, Any] | None:
        for deaths in range(CHANCES - 1, 0, -1):
            if self._suspects[deaths]:
                beside = sum(self._deaths[number] == deaths for number in worker.held)
                if beside < (math.isqrt(worker.capacity) if deaths == 1 else 1):
                    return self._suspects[deaths].popleft()
        request = next(self._requests, None)
        self._left = self._left - 1 if request is not None else 0
        return request

    def _take_back(self, worker: _Worker) -> None:
        if self._ending:
            return
        self.deaths += 1
        worker.fruitless += 1
        held, worker.held = worker.held, {}
        for number, request in held.items():
            self._deaths[number] += 1
            if self._deaths[number] < CHANCES:
                self._suspects[self._deaths[number]].append(request)
            else:
                worker.fruitless = 0  # it was not the worker's own fault
                self._answered({"n": number, "failed": "the engine dies of it"})
        for other in self._workers:
            self._feed(other)

    def _give_up(self, worker: _Worker) -> None:
        self._alive -= 1
        if not self._alive:
            raise _last_words(worker.job)
        warn(f"worker {worker.number} died {CHANCES} times in a row and is given up; the others go on")
        for other in self._workers:
            self._feed(other)


def _send(process: asyncio.subprocess.Process, rows: Iterable[Mapping[str, Any]]) -> None:
    assert process.stdin
    process.stdin.write("".join(f"{json.dumps(row)}\n" for row in rows).encode())


def _close_stdin(process: asyncio.subprocess.Process) -> None:
    assert process.stdin
    process.stdin.close()


def _kill_group(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


async def _end_with_guard(process: asyncio.subprocess.Process) -> None:
    """End a worker whose guard is gone: its engine would go on, and outlive us if we were killed now."""
    # Not ``wait``, which in some versions of Python waits for the engine's end of the pipes too.
    while process.returncode is None:
        await asyncio.sleep(0.2)
    _kill_group(process)


async def _end_group(process: asyncio.subprocess.Process) -> None:
    """End a worker with all its children; it may do so by itself first."""
    _close_stdin(process)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(GRACE):
            await process.wait()
    # Also where it ended by itself: its children may not have.
    _kill_group(process)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(GRACE):
            await process.communicate()


def _last_words(job: Job) -> UserError:
    """Why workers do not live, out of their log."""
    lines = [line.strip() for line in job.log.read_text(encoding="utf-8", errors="replace").splitlines()]
    errors = [found[0] for line in lines if (found := _ERROR.search(line)) and not _REPEATED.search(line)]
    words = (errors or [line for line in lines if line] or ["it said nothing"])[-1]
    cure = f"read {job.log}"
    if "No module named 'vllm'" in words:
        cure = f"{job.command[0]} -m pip install vllm, or name the interpreter that has it in sample.python"
    return UserError(f"the engine does not live: {words[:300]}", where=str(job.log), cure=cure)
