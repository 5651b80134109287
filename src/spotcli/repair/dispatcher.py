"""The dispatcher sends the requests of one run, within the limits of rate and money.

What a case needs next follows from its replies alone (``next_request``); every reply is on the disk before it is used.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from functools import partial

from spotcli.console import dollars, progress, warn
from spotcli.errors import SpotError, UserError
from spotcli.grading.algebra.pool import close_pool
from spotcli.interrupts import interruptible
from spotcli.oracles import CorrectionRequest, Oracle
from spotcli.oracles.human import HumanOracle
from spotcli.oracles.model import ModelOracle
from spotcli.oracles.policy import PolicyOracle
from spotcli.providers.limiter import Limiter
from spotcli.providers.replies import Reply, RequestFailed
from spotcli.providers.retry import Retries, show_pause
from spotcli.recipe import RectifySection
from spotcli.repair.budget import Budget, worst_cost
from spotcli.repair.case_queue import CaseQueue
from spotcli.repair.cases import FAILED, Case, PlannedRequest
from spotcli.repair.delivery import CorrectionDelivery
from spotcli.repair.journal import Journal
from spotcli.repair.next_request import Decision, RepairJob
from spotcli.repair.projection import CostProjection
from spotcli.reply_entries import ReplyEntry

HOPELESS_REQUESTS = 3
"""So many requests rejected as malformed before the first reply mean that all will be."""
JUDGING_AFTER_STOP = 1.0
"""Seconds for judging replies after a stop; most take a few milliseconds."""
HOPELESS_ROWS = 10
"""So many rows given up in a row mean that all will be."""


class Dispatcher:
    """Works on the cases of a job, many at once; those whose next oracle is another one are left as they are.

    Args:
        oracles: a group of the ladder: those that are asked about one answer at a time.
        journal: gets every reply before it is used.
        settings: limits of rate and money, retries and the target.
    """

    def __init__(self, job: RepairJob, oracles: Sequence[Oracle], journal: Journal, settings: RectifySection) -> None:
        self._job = job
        self._oracles = oracles
        self._journal = journal
        self._settings = settings
        self._stopped: BaseException | None = None
        self._woken = asyncio.Event()
        self._queue = CaseQueue(job.cases, settings.target, self._is_stopped)
        self._retries = Retries(settings.retries, self._is_stopped, self._woken, settings.max_wait)
        self._limiters = {oracle.name: _limiter(oracle, settings) for oracle in oracles}
        # What is unsettled may have been charged, so it counts as spent.
        self._budget = Budget(settings.max_cost, journal.spent + journal.unsettled)
        self._projection = CostProjection(job.cases, job.history)
        self._warned_of_limit = False
        self._failures = _FailureCounts()
        self._checked: set[str] = set()
        self._amendable: dict[tuple[str, int], tuple[Case, PlannedRequest]] = {}
        # One thread judges, so that slow grading does not delay what arrives over the network.
        self._judge_thread = ThreadPoolExecutor(1, thread_name_prefix="judge")
        self._judging = 0
        """Cases whose last reply is being judged, or waits for it."""
        self._judging_ended = False
        self._show: Callable[[], None] = lambda: None

    def run(self) -> BaseException | None:
        """Work until no request is needed, or until something stops the run.

        Returns:
            What stopped the run: an error, a failed request, or ``KeyboardInterrupt``; None if nothing did.
        """
        with self._judge_thread, self._display():
            asyncio.run(self._run())
        return self._stopped

    def _is_stopped(self) -> bool:
        return self._stopped is not None

    @contextmanager
    def _display(self) -> Iterator[None]:
        """Show the progress, unless a person's editor needs the terminal."""
        if any(isinstance(oracle, HumanOracle) for oracle in self._oracles):
            yield
            return
        with progress("rows") as display:
            task = display.add_task("rectify", total=len(self._job.cases), note="")

            def show() -> None:
                queue = self._queue
                note = f"{queue.accepted} accepted, {queue.finished - queue.accepted} not, ${self._journal.spent:.4f}"
                if total := self._projection.total:
                    note += f" of about {dollars(total)}"
                display.update(task, completed=queue.finished, note=note)

            self._show = show
            yield

    async def _run(self) -> None:
        for oracle in self._oracles:
            if isinstance(oracle, HumanOracle):
                oracle.amend = self._amend
        count = min(self._settings.concurrency, len(self._job.cases))
        workers = [asyncio.create_task(self._work()) for _ in range(count)]
        with self._interruptible(workers):
            results = await asyncio.gather(*workers, return_exceptions=True)
        await self._journal.drain()
        for oracle in self._oracles:
            await oracle.close()
        for result in results:
            if isinstance(result, Exception):
                raise result

    def _interruptible(self, workers: list[asyncio.Task[None]]) -> AbstractContextManager[None]:
        """The first Ctrl-C waits for the requests in flight, since they are paid for; the second drops them."""
        loop = asyncio.get_running_loop()

        def stop() -> None:
            loop.call_soon_threadsafe(self._stop, KeyboardInterrupt())
            asyncio.run_coroutine_threadsafe(self._limit_judging(), loop)
            asyncio.run_coroutine_threadsafe(drop_if_silent(), loop)

        def drop() -> None:
            for worker in workers:
                loop.call_soon_threadsafe(worker.cancel)

        async def drop_if_silent() -> None:
            await self._retries.wait_while_silent()
            if self._is_silent():
                drop()

        def notice() -> str:
            in_flight = sum(limiter.in_flight for limiter in self._limiters.values())
            requests = f"{in_flight} request{'' if in_flight == 1 else 's'}"
            if in_flight and self._is_silent():
                return f"stopping: the provider does not answer, {requests} in flight are dropped soon"
            return f"stopping: waiting for {requests} in flight (Ctrl-C again drops them)"

        return interruptible(stop, notice=notice, drop=drop)

    async def _limit_judging(self) -> None:
        """After a stop, judge for a short time only: the replies are in the journal, and the next run judges them."""
        seconds = JUDGING_AFTER_STOP
        while seconds > 0:
            await asyncio.sleep(0.1)
            seconds -= 0.1 if self._judging else 0.0
        self._judging_ended = True
        self._judge_thread.shutdown(wait=False, cancel_futures=True)
        close_pool()

    def _is_silent(self) -> bool:
        """Whether no oracle answers: a person takes the time that it takes."""
        people = any(isinstance(oracle, HumanOracle) for oracle in self._oracles)
        return not people and not self._retries.replying

    def _stop(self, cause: BaseException) -> None:
        if self._stopped is None or isinstance(cause, KeyboardInterrupt):
            self._stopped = cause
        self._woken.set()
        for limiter in self._limiters.values():
            limiter.wake()

    async def _work(self) -> None:
        """Work on one case after another."""
        while (case := await self._queue.next()) is not None:
            try:
                await self._settle(case)
            except (SpotError, OSError) as error:
                self._stop(error)
            except asyncio.CancelledError:
                raise  # not needed any more, or dropped by the second Ctrl-C
            except BaseException as error:
                self._stop(error)
                raise
            finally:
                await self._queue.finish(case)
                self._project(case)
                self._show()

    def _project(self, case: Case) -> None:
        """Count a case for the projected cost, and warn once if the limit is lower."""
        if case.decided is not None:
            self._projection.decide(case)
        limit, total = self._settings.max_cost, self._projection.total
        if limit is None or total is None or total <= limit or self._warned_of_limit or self._settings.target:
            return
        self._warned_of_limit = True
        answers = f"{self._projection.affordable(limit):,} of {len(self._projection):,} answers"
        warn(
            f"at the cost so far, all answers will cost about {dollars(total)}; --max-cost {limit:g} pays for {answers}"
        )

    async def _settle(self, case: Case) -> None:
        """Send requests about a case until the replies decide about it, or a request fails."""
        if not case.open:
            return
        while True:
            decision = await self._decide(case)
            if decision is None:
                return
            if decision.request is None:
                case.decided = decision.last
                return
            if self._stopped or decision.request.oracle not in self._oracles:
                return
            try:
                entry = await self._ask(case, decision.request)
            except RequestFailed as failure:
                self._give_up(case, decision.request, failure)
                return
            if entry is None:
                return
            self._job.history.add(entry)

    async def _decide(self, case: Case) -> Decision | None:
        """What a case needs next; None if a stop left its last reply unjudged."""
        if not self._job.history.has_reply_about(case):
            return self._job.decide(case)  # no reply to judge: not worth a turn of the thread
        if self._judging_ended:
            return None
        self._judging += 1
        try:
            decision = await asyncio.get_running_loop().run_in_executor(self._judge_thread, self._job.decide, case)
        finally:
            self._judging -= 1
        return None if self._judging_ended else decision

    async def _ask(self, case: Case, planned: PlannedRequest) -> ReplyEntry | None:
        """One reply, on the disk before it is returned; None if the run was stopped before the request was sent.

        Raises:
            RequestFailed: the retries are used up.
            UserError, BudgetReached: no request can succeed.
        """
        oracle = planned.oracle
        assert not isinstance(oracle, PolicyOracle)
        if isinstance(oracle, ModelOracle) and oracle.name not in self._checked:
            oracle.check_environment()
            self._checked.add(oracle.name)
        request = self._job.request(case, planned)
        if isinstance(oracle, HumanOracle):
            self._amendable[case.sample.key] = case, planned
        delivery = CorrectionDelivery(
            job=self._job,
            oracle=oracle,
            planned=planned,
            request=request,
            journal=self._journal,
            budget=self._budget,
            reserved=0.0 if self._settings.max_cost is None else worst_cost(oracle, request),
            tokens=self._likely_tokens(request),
            cancellable=partial(self._queue.cancellable, case),
        )
        if await self._retries.deliver(delivery, self._limiters[oracle.name]) is None:
            return None
        self._failures.replied()
        return delivery.entry

    def _give_up(self, case: Case, planned: PlannedRequest, failure: RequestFailed) -> None:
        """Leave a case to a later run; stop this one if it is hopeless."""
        if isinstance(planned.oracle, HumanOracle):
            self._stop(KeyboardInterrupt())
            return
        case.default_reason = f"{FAILED}{failure.kind}"
        hopeless = self._failures.count(failure, planned.oracle.name)
        if self._retries.asks_for_too_long(failure):
            hopeless = failure
        if hopeless is not None:
            self._stop(hopeless)

    async def _amend(self, request: CorrectionRequest, reply: Reply) -> None:
        """Replace an earlier reply of this run, and decide about its case again."""
        case, planned = self._amendable[request.sample.key]
        entry = self._job.entry(planned, request, reply)
        await self._journal.record(entry)
        self._job.history.add(entry)
        accepted = case.accepted
        decision = await self._decide(case)
        case.decided = decision.last if decision is not None and decision.request is None else None
        self._queue.accepted += case.accepted - accepted

    def _likely_tokens(self, request: CorrectionRequest) -> float:
        """Four characters per token; a reply is about as long as the answer that it corrects."""
        if self._settings.tpm is None:
            return 0.0
        prompt = sum(len(message["content"]) for message in request.prompt.messages)
        return (prompt + len(request.sample.response)) / 4


class _FailureCounts:
    """Counts the requests that were given up, to find out when a run is hopeless."""

    def __init__(self) -> None:
        self._any_reply = False
        self._in_a_row = 0
        self._malformed = 0
        self._warned: set[str] = set()

    def replied(self) -> None:
        self._any_reply = True
        self._in_a_row = 0

    def count(self, failure: RequestFailed, oracle: str) -> BaseException | None:
        """Count a request that was given up, and warn about the first one of each kind.

        Returns:
            Why the run is hopeless; None if it is not.
        """
        if failure.kind not in self._warned:
            self._warned.add(failure.kind)
            warn(f"{oracle}: {failure.kind}: {failure} (further failures of this kind are only counted)")
        self._in_a_row += 1
        self._malformed += failure.kind == "bad request"
        if not self._any_reply and self._malformed >= HOPELESS_REQUESTS:
            return UserError(
                f"the provider rejects the requests: {failure}", where=oracle, cure="check the oracle's parameters"
            )
        return failure if self._in_a_row >= HOPELESS_ROWS else None


def _limiter(oracle: Oracle, settings: RectifySection) -> Limiter:
    concurrency = min(settings.concurrency, oracle.parallel or settings.concurrency)
    on_pause = partial(show_pause, oracle.name, "rate limit")
    return Limiter(concurrency, rpm=settings.rpm, tpm=settings.tpm, on_pause=on_pause)
