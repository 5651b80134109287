"""Oracles that are asked by a provider's batch API: in rounds, each of all answers that need another request.

    collect the open batches -> what do the answers need now? -> submit -> wait -> collect ...

Every step is in ``X.batches.jsonl`` before the next one, so that a run can end anywhere: the same command finds its
batches, even one whose id it never learnt, and creates none twice.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from spotcli.console import counted, dollars, progress, say, warn
from spotcli.errors import SpotError, UserError
from spotcli.interrupts import interruptible
from spotcli.oracles.model import ModelOracle
from spotcli.providers.batches.api import BatchGone, BatchState
from spotcli.providers.batches.client import BatchClient
from spotcli.providers.replies import RequestFailed
from spotcli.recipe import RectifySection
from spotcli.repair.batch_endings import BatchEndings
from spotcli.repair.batch_log import Batch
from spotcli.repair.batch_making import BatchMaker, Planned
from spotcli.repair.batch_results import UNREADABLE, Collector
from spotcli.repair.batch_status import Show, batch_display, open_batches
from spotcli.repair.batch_submission import Submission
from spotcli.repair.cases import IN_BATCH, likely_needed
from spotcli.repair.journal import Journal
from spotcli.repair.next_request import RepairJob
from spotcli.repair.summary import BatchesOpen

T = TypeVar("T")

LONGEST_INTERVAL = 300.0
"""Seconds between two looks at a batch, at most."""
GRACE = 10.0
"""Seconds that the creation of a batch has to end when the run is stopped."""
GROWTH = 1.5
"""The interval grows by this factor from look to look."""
SAME_COMMAND = "the same command picks it up, also days later"


class BatchRounds:
    """Works on the cases of a job whose next oracle has a batch API.

    Args:
        oracles: a group of the ladder.
        journal: gets every reply before it is used; its batches are those of this run and of earlier ones.
        settings: limits of money and time, and the target.
    """

    def __init__(
        self, job: RepairJob, oracles: Sequence[ModelOracle], journal: Journal, settings: RectifySection
    ) -> None:
        assert journal.batches is not None
        self._job = job
        self._oracles = oracles
        self._journal = journal
        self._log = journal.batches
        self._settings = settings
        self._stopped: BaseException | None = None
        self._woken = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._started = time.monotonic()
        self._endings = BatchEndings(
            job, settings, self._log, Collector(job, journal, self._is_stopped, self._unless_stopped)
        )
        self._maker = BatchMaker(job, journal, settings, self._is_stopped)
        self._submission = Submission(self._log, settings, self._pause)
        self._others: dict[str, ModelOracle] = {}
        self._states: dict[str, BatchState] = {}
        self._checked: set[str] = set()
        self._lost: set[str] = set()
        """Keys of batches of which this run did not learn whether they were created."""

    def run(self) -> BaseException | None:
        """Work until no request is needed, or until something stops the run.

        Returns:
            What stopped the run: an error, a failed request, batches that go on, or ``KeyboardInterrupt``; None if
            nothing did.
        """
        try:
            with interruptible(self._interrupt, notice=self._notice):
                asyncio.run(self._run())
        except (SpotError, OSError, RequestFailed, KeyboardInterrupt) as error:
            self._stopped = error
        for batch in self._log.open:
            self._endings.mark(batch, IN_BATCH)
        if isinstance(self._stopped, KeyboardInterrupt) and self._log.open:
            return self._pending()
        return self._stopped

    def _interrupt(self) -> None:
        self._stopped = KeyboardInterrupt()
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._woken.set)

    def _notice(self) -> str:
        if not self._log.open:
            return "stopping"
        return f"stopping: {open_batches(self._log.open, self._states)}"

    def _is_stopped(self) -> bool:
        return self._stopped is not None

    def _pending(self) -> BatchesOpen:
        return BatchesOpen(open_batches(self._log.open, self._states), cure=SAME_COMMAND)

    async def _pause(self, seconds: float) -> bool:
        """Sleep until the run stops, at most; whether it stops."""
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            pass
        return self._is_stopped()

    async def _unless_stopped(self, work: Coroutine[Any, Any, T], *, grace: float = 0.0) -> T | None:
        """The result of a call; None if the run stops before it ends.

        Args:
            grace: seconds that a call which changes something has to end after the stop.
        """
        call, stop = asyncio.create_task(work), asyncio.create_task(self._woken.wait())
        await asyncio.wait({call, stop}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if grace and not call.done():
            await asyncio.wait({call}, timeout=grace)
        if call.done():
            return call.result()
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        return None

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        try:
            while not self._is_stopped():
                await self._wait()
                planned = [] if self._is_stopped() else self._plan()
                if not planned:
                    return
                await self._submit(planned)
        finally:
            await self._journal.drain()
            for oracle in (*self._oracles, *self._others.values()):
                await oracle.close()

    # What is to be asked

    def _plan(self) -> list[Planned]:
        """Decide about all cases by their replies; what those that the target is likely to need are to be asked."""
        planned: list[Planned] = []
        cases = [case for case in self._job.cases if case.open]
        with progress("rows") as display:
            task = display.add_task("judge", total=len(cases), note="")
            for case in cases:
                if self._is_stopped():
                    return []
                decision = self._job.decide(case)
                case.decided = decision.last if decision.request is None else None
                asked = decision.request is not None and decision.request.oracle in self._oracles
                if asked and case.digest not in self._endings.given_up:
                    assert decision.request is not None
                    planned.append((case, decision.request))
                display.update(task, advance=1)
        target = self._settings.target
        if target is None:
            return planned
        accepted = sum(case.accepted for case in self._job.cases)
        finished = sum(case.decided is not None for case in cases)
        return planned[: likely_needed(target, accepted, finished)]

    # Submitting

    async def _submit(self, planned: list[Planned]) -> None:
        """Submit what is planned, as far as the cost limit allows; the rest is planned again in the next round."""
        for oracle in self._oracles:
            mine = [(case, request) for case, request in planned if request.oracle is oracle]
            if not mine:
                continue
            if oracle.name not in self._checked:
                oracle.check_environment()
                self._checked.add(oracle.name)
            affordable = True
            while mine and affordable and not self._is_stopped():
                count, affordable = await self._submit_next(oracle, mine)
                mine = mine[count:]
                if oracle.name in self._endings.most:
                    break
            if not affordable:
                return

    async def _submit_next(self, oracle: ModelOracle, planned: Sequence[Planned]) -> tuple[int, bool]:
        """Submit one batch with the first requests.

        Returns:
            The number of requests, and whether the cost limit allows more.

        Raises:
            BudgetReached: it allows none, or too few.
        """
        made = await self._maker.make(oracle, planned, self._endings.most.get(oracle.name))
        if made.batch is None:
            return 0, False
        if not made.affordable and not self._maker.check_size(made, planned):
            return 0, False
        batch = made.batch
        assert oracle.batch is not None
        # A creation that is cut off is looked for by the next run.
        await self._unless_stopped(self._submission.submit(batch, oracle.batch, made.lines), grace=GRACE)
        if batch.id:
            cost = f", at most {dollars(batch.reserved)}" if batch.reserved else ""
            say(f"{oracle.name}: submitted batch {batch.id} of {counted(len(batch.requests), 'request')}{cost}")
        else:
            self._lost.add(batch.key)
        return len(batch.requests), made.affordable

    # Waiting

    async def _wait(self) -> None:
        """Wait until no batch is open, and collect each one that ends; ``batch_wait`` or a signal ends it too."""
        if not self._log.open:
            return
        interval = self._settings.batch_poll
        with batch_display() as show:
            while self._log.open:
                before = len(self._log.open)
                await self._look(show, interval)
                if self._is_stopped() or not self._log.open:
                    return
                waited = time.monotonic() - self._started
                left = (self._settings.batch_wait or 0.0) - waited
                if self._settings.batch_wait is not None and left <= 0:
                    self._stopped = self._pending()
                    return
                if len(self._log.open) < before:
                    interval = self._settings.batch_poll
                show(self._log.open, self._states, interval)
                pause = interval if self._settings.batch_wait is None else min(interval, left)
                if await self._pause(pause):
                    return
                interval = min(interval * GROWTH, max(LONGEST_INTERVAL, self._settings.batch_poll))

    async def _look(self, show: Show, interval: float) -> None:
        """Look at each open batch once; one that has ended is collected."""
        for batch in list(self._log.open):
            if self._is_stopped():
                return
            oracle = self._oracle_of(batch)
            client = self._client_of(oracle, batch)
            try:
                await self._look_at(batch, oracle, client)
            except BatchGone as gone:
                self._endings.vanished(batch, client, gone)
            except RequestFailed as failure:
                # Waiting costs nothing, and the batch goes on.
                problem = "sent an invalid reply" if failure.kind == UNREADABLE else "cannot be reached"
                warn(f"{batch.provider} {problem} ({failure.kind}: {failure}); next look in {interval:g} s")

    async def _look_at(self, batch: Batch, oracle: ModelOracle, client: BatchClient) -> None:
        if batch.id is None:
            await self._unless_stopped(self._submission.identify(batch, client))
            if batch.id is None:
                return
            creator = "its creation had succeeded" if batch.key in self._lost else "an earlier run had created it"
            say(f"found batch {batch.id} at {batch.provider}: {creator}")
        state = await self._unless_stopped(client.api.retrieve(batch.id, client.api.most_bytes(batch.limits)))
        if state is None:
            return
        self._states[batch.key] = state
        if state.status == "rejected":
            self._endings.rejected(batch, state)
        elif state.status == "ended":
            await self._endings.collect(batch, state, oracle, client)

    def _oracle_of(self, batch: Batch) -> ModelOracle:
        """The oracle of a batch, which may be on the ladder no more."""
        for oracle in (*self._oracles, *self._others.values()):
            if oracle.name == batch.oracle:
                return oracle
        self._others[batch.oracle] = ModelOracle(batch.oracle, self._settings)
        return self._others[batch.oracle]

    def _client_of(self, oracle: ModelOracle, batch: Batch) -> BatchClient:
        if oracle.name not in self._checked:
            oracle.check_environment()
            self._checked.add(oracle.name)
        if oracle.batch is None:
            raise UserError(
                f"batch {batch.id or batch.key} is at {batch.provider}, which '{oracle.name}' is not reached by now",
                where=str(self._log.path),
                cure="use the --base-url of that run",
            )
        return oracle.batch
