"""Worker processes that pull from one queue: each takes what it has capacity for, and a crash queues it again.

The requests are a stream, read only as far as the workers have capacity. A worker holds as many as its engine runs at
once and a few more, so that answers may have uneven lengths; towards the end the rest is divided among the workers.

A worker that crashes, or shows no sign of life any more, is restarted. After ``MAX_CRASHES`` crashes without an answer
in between it is not restarted; when no worker is left, the last error in its log is raised. The requests that a worker
held when it crashed are suspect: a worker gets few suspects at once, then a single one, and a request that was held
during ``MAX_CRASHES`` crashes is a failure. So a request that crashes every engine costs some restarts, not the run.
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
from spotcli.policies.answer_queue import AnswerQueue
from spotcli.policies.vllm_worker import EngineReady, WorkerAnswer, WorkerConfig, WorkerFailure, WorkerRequest

MAX_CRASHES = 3
"""Of a worker without an answer in between; of workers that hold the same request."""
GRACE = 8.0
"""Seconds that a worker has to end by itself."""
SILENCE = 900.0
"""Seconds without an answer, a sign of life or a line in the log, after which a worker counts as hung."""
SLICES = 15
"""Parts of that time, each counted once: a suspended machine does not make a worker hung."""
LINE = 1 << 26
"""Maximum bytes of one answer's line."""

_ERROR = re.compile(r"\b\w*(?:Error|Exception|Interrupt): .*")
"""The last line of a Python traceback."""
_REPEATED = re.compile(r"Engine core initialization failed|EngineDeadError|WorkerProc initialization failed")
"""Errors of vLLM that only repeat that an earlier error happened."""

WorkerResult = WorkerAnswer | WorkerFailure


@dataclass(frozen=True)
class WorkerJob:
    """How one worker is started."""

    command: Sequence[str]
    env: Mapping[str, str]
    config: WorkerConfig
    log: Path
    python_key: str = "sample.python"
    """The recipe's key that names the interpreter, for errors."""


@dataclass
class _Worker:
    number: int
    job: WorkerJob
    process: asyncio.subprocess.Process | None = None
    capacity: int = 0
    """Requests that its engine runs at once; 0 until it is ready."""
    held: dict[int, WorkerRequest] = field(default_factory=dict)
    """Requests that it was given and has not answered, by number."""
    crashes: int = 0
    """Since its last answer."""


class WorkerPool:
    """Processes that follow the protocol of ``vllm_worker.py``, on a thread of their own.

    Args:
        jobs: one per worker.
        requests: a stream, read on the pool's thread; their numbers differ.
        total: the length of the stream.
    """

    def __init__(self, jobs: Sequence[WorkerJob], requests: Iterator[WorkerRequest], total: int) -> None:
        self.ready: EngineReady | None = None
        """What the last worker to start reported of its engine."""
        self.ready_since = 0.0
        """When the first worker was ready, by ``time.monotonic``."""
        self.crashes = 0
        """Of all workers."""
        self._workers = [_Worker(number, job) for number, job in enumerate(jobs)]
        self._running = len(self._workers)
        """Workers that have not been given up."""
        self._requests = requests
        self._unread = total
        self._suspects: list[deque[WorkerRequest]] = [deque() for _ in range(MAX_CRASHES)]
        """Requests to be given out again, by the number of crashes during which they were held."""
        self._crashes: Counter[int] = Counter()
        """Crashes during which a request was held, by its number."""
        self._results: AnswerQueue[WorkerResult] = AnswerQueue()
        self._ending = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="workers", daemon=True)

    def results(self) -> Iterator[list[WorkerResult]]:
        """Yield results in groups, as they arrive.

        Raises:
            UserError: the interpreter cannot be started, or every worker was given up while requests were unanswered.
        """
        if self._unread:
            self._thread.start()
            yield from self._results.groups()

    def stop(self) -> None:
        """End the workers; their finished answers are still yielded. May be called from a signal handler."""
        self._ending = True
        if self._loop:
            with contextlib.suppress(RuntimeError):  # the loop is closed already
                self._loop.call_soon_threadsafe(self._end)

    def close(self) -> None:
        """End the workers and wait until all of their processes are gone."""
        self.stop()
        if self._thread.is_alive():
            self._thread.join()

    # Everything below runs on the pool's thread.

    def _run(self) -> None:
        try:
            asyncio.run(self._run_workers())
        except BaseExceptionGroup as group:
            self._results.end(group.exceptions[0])
        except BaseException as error:
            self._results.end(error)
        else:
            self._results.end()

    async def _run_workers(self) -> None:
        self._loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as tasks:
            for worker in self._workers:
                tasks.create_task(self._keep_running(worker))

    def _end(self) -> None:
        """Ask every worker to end, and kill it after ``GRACE`` seconds; its last answers are read in either case."""
        self._ending = True
        for worker in self._workers:
            if worker.process:
                _close_stdin(worker.process)
                asyncio.get_running_loop().call_later(GRACE, _kill_group, worker.process)

    async def _keep_running(self, worker: _Worker) -> None:
        while not self._ending:
            requeued = await self._run_once(worker)
            if self._ending:
                return
            if worker.crashes >= MAX_CRASHES:
                self._give_up(worker)
                return
            warn(
                f"worker {worker.number} crashed; restarting it, its {requeued} requests are queued again "
                f"(see {worker.job.log})"
            )

    async def _run_once(self, worker: _Worker) -> int:
        """Run a worker's process until it ends; the number of its requests that are queued again."""
        process = await _start(worker.job)
        worker.process = process
        guard_watch = asyncio.create_task(_end_with_guard(process))
        requeued = 0
        try:
            if not self._ending:
                _send(process, [worker.job.config])
                while row := await self._row(worker, process):
                    self._handle(worker, row)
                    while self._results.full and not self._ending:
                        await asyncio.sleep(0.05)
                worker.process, worker.capacity = None, 0
                requeued = self._requeue(worker)
        except BaseException:
            self._ending = True  # the stream of requests failed, or every worker was given up
            raise
        finally:
            guard_watch.cancel()
            await _end_group(process)
        return requeued

    async def _row(self, worker: _Worker, process: asyncio.subprocess.Process) -> dict[str, Any] | None:
        """The next row from a worker; None once its process has ended, or was killed because it hung."""
        assert process.stdout
        silent, size = 0, -1
        while True:
            try:
                async with asyncio.timeout(SILENCE / SLICES):
                    line = await process.stdout.readline()
                return json.loads(line) if line else None
            except TimeoutError:
                # A slice in which this process was stopped, or the machine asleep, counts as one slice.
                former, size = size, worker.job.log.stat().st_size
                silent = silent + 1 if size == former else 1
                if silent >= SLICES:
                    warn(f"worker {worker.number} sent nothing for {SILENCE:g} s; ending it")
                    _kill_group(process)
            except ValueError:  # a line that the crash left incomplete
                return None

    def _handle(self, worker: _Worker, row: dict[str, Any]) -> None:
        if "ready" in row:
            self.ready = EngineReady(**row["ready"])
            self.ready_since = self.ready_since or time.monotonic()
            worker.capacity = self.ready.capacity
        elif "number" in row and worker.held.pop(row["number"], None) is not None:
            worker.crashes = 0
            self._deliver(WorkerFailure(**row) if "reason" in row else WorkerAnswer(**row))
        self._feed(worker)

    def _deliver(self, result: WorkerResult) -> None:
        self._crashes.pop(result.number, None)
        self._results.put(result)
        if not self._unanswered():
            self._end()

    def _unanswered(self) -> int:
        """The number of requests without a result."""
        return self._unread + sum(map(len, self._suspects)) + sum(len(worker.held) for worker in self._workers)

    def _feed(self, worker: _Worker) -> None:
        """Give a worker requests up to its capacity, but not more than its share of the rest."""
        if self._ending or not worker.capacity or not worker.process:
            return
        share = math.ceil(self._unanswered() / self._running)
        room = min(worker.capacity + max(2, worker.capacity // 8), share) - len(worker.held)
        given: list[WorkerRequest] = []
        while len(given) < room and (request := self._next(worker)) is not None:
            worker.held[request.number] = request
            given.append(request)
        _send(worker.process, given)

    def _next(self, worker: _Worker) -> WorkerRequest | None:
        """The next request for a worker: a suspect if it may hold one more, else a new one."""
        for crashes in range(MAX_CRASHES - 1, 0, -1):
            if self._suspects[crashes]:
                held = sum(self._crashes[number] == crashes for number in worker.held)
                if held < (math.isqrt(worker.capacity) if crashes == 1 else 1):
                    return self._suspects[crashes].popleft()
        request = next(self._requests, None)
        self._unread = self._unread - 1 if request is not None else 0
        return request

    def _requeue(self, worker: _Worker) -> int:
        """Queue the requests of a crashed worker again, or fail them; the number of those queued."""
        if self._ending:
            return 0
        self.crashes += 1
        worker.crashes += 1
        held, worker.held = worker.held, {}
        queued = 0
        for number, request in held.items():
            self._crashes[number] += 1
            if self._crashes[number] < MAX_CRASHES:
                self._suspects[self._crashes[number]].append(request)
                queued += 1
            else:
                worker.crashes = 0  # the request was the cause, not the worker
                self._deliver(WorkerFailure(number, "the engine crashed on this request"))
        for other in self._workers:
            self._feed(other)
        return queued

    def _give_up(self, worker: _Worker) -> None:
        self._running -= 1
        if not self._running:
            raise _engine_error(worker.job, started=self.ready is not None)
        warn(f"worker {worker.number} crashed {MAX_CRASHES} times in a row; continuing without it")
        for other in self._workers:
            self._feed(other)


async def _start(job: WorkerJob) -> asyncio.subprocess.Process:
    with job.log.open("ab") as log:
        try:
            return await asyncio.create_subprocess_exec(
                *job.command,
                env=dict(job.env),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                limit=LINE,
                start_new_session=True,  # Ctrl-C reaches only the command, and the group can be killed as a whole
            )
        except OSError as error:
            raise UserError(
                f"failed to start the interpreter: {error.strerror}",
                where=job.command[0],
                cure=f"set {job.python_key} to a python3 that can be executed",
            ) from None


def _send(process: asyncio.subprocess.Process, rows: Iterable[WorkerConfig | WorkerRequest]) -> None:
    assert process.stdin
    process.stdin.write("".join(f"{json.dumps(vars(row))}\n" for row in rows).encode())


def _close_stdin(process: asyncio.subprocess.Process) -> None:
    assert process.stdin
    process.stdin.close()


def _kill_group(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


async def _end_with_guard(process: asyncio.subprocess.Process) -> None:
    """Kill a worker whose guard is gone: its engine would keep running, even after this command was killed."""
    # Some Python versions make ``wait`` wait for the engine's end of the pipes too, so poll.
    while process.returncode is None:
        await asyncio.sleep(0.2)
    _kill_group(process)


async def _end_group(process: asyncio.subprocess.Process) -> None:
    """End a worker with all its child processes, after ``GRACE`` seconds to end by itself."""
    _close_stdin(process)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(GRACE):
            await process.wait()
    # Even if it ended by itself, its child processes may not have.
    _kill_group(process)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(GRACE):
            await process.communicate()


def _engine_error(job: WorkerJob, *, started: bool) -> UserError:
    """Why a worker keeps crashing: the last error in its log."""
    lines = [line.strip() for line in job.log.read_text(encoding="utf-8", errors="replace").splitlines()]
    errors = [match[0] for line in lines if (match := _ERROR.search(line)) and not _REPEATED.search(line)]
    reason = (errors or [line for line in lines if line] or ["its log is empty"])[-1]
    cure = f"read {job.log}"
    if "No module named 'vllm'" in reason:
        cure = f"{job.command[0]} -m pip install vllm, or set {job.python_key} to an interpreter that has it"
    problem = "keeps crashing" if started else "failed to start"
    return UserError(f"the engine {problem}: {reason[:300]}", where=str(job.log), cure=cure)
