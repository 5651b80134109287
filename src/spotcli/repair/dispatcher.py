"""Who is asked what next, and when: the requests of one run over many wrong answers.

Case         one wrong answer on its way
History      the replies of the journal, found by the request that they answer
Dispatcher   works through the cases: what a case needs next follows from its replies alone; asking keeps to the
             limits of rate and money, and every reply is on the disk before it is looked at
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from spotcli.console import progress, warn
from spotcli.core import oracle_prompts
from spotcli.errors import SpotError, UserError
from spotcli.oracles import AmendingOracle, Oracle, ProviderOracle, Request
from spotcli.providers.limiter import Limiter, backoff
from spotcli.providers.replies import PassingFailure, Reply
from spotcli.recipe import RectifySection
from spotcli.records import Sample
from spotcli.repair import judge
from spotcli.repair.budget import Budget
from spotcli.repair.journal import Entry, Journal
from spotcli.repair.judge import Correction

# Why a case has no outcome; the same command goes on with it.
NOT_ASKED = "not asked"
FAILED = "failed: "
SAME_PROBLEM = "same problem"

# A provider that says "too many" is healthy: such an answer uses up less of a request's patience than a failure does.
RATE_LIMIT_PATIENCE = 4
# Seconds. A provider that asks for a longer pause is better tried again another time.
LONGEST_WAIT = 600.0
# So many requests refused as malformed before any reply, or rows given up in a row, mean that all will be.
HOPELESS_REQUESTS = 3
HOPELESS_ROWS = 10

Ratio = Callable[[str, str], float]


@dataclass
class Case:
    """One wrong answer on its way."""

    sample: Sample
    reviewed: dict[str, Any] | None = None
    """Its pair as a human left it: kept, whatever the filters say."""
    outcome: Correction | None = None
    """Of the reply that decided."""
    entry: Entry | None = None
    """That reply."""
    left: str = NOT_ASKED
    """Why there is no outcome."""
    repeats: bool = False
    """Its problem is another case's already, and a solution of that is one of this."""

    @cached_property
    def digest(self) -> str:
        """What requests about it are about."""
        sample = self.sample
        return _hash(sample.id, sample.trial, sample.prompt, sample.response, sample.answer)

    def __post_init__(self) -> None:
        if not (self.sample.answer or "").strip():
            self.left = "no reference answer"
        elif not self.sample.response.strip():
            self.left = "empty answer"
        elif self.repeats:
            self.left = SAME_PROBLEM

    @property
    def correctable(self) -> bool:
        """False where no correction could be verified, or there is nothing to correct or to ask."""
        return bool((self.sample.answer or "").strip() and self.sample.response.strip()) and not self.repeats

    @property
    def accepted(self) -> bool:
        return self.reviewed is not None or (self.outcome is not None and self.outcome.accepted)

    @property
    def reason(self) -> str:
        """Why it is no pair."""
        return self.outcome.reason if self.outcome else self.left


class History:
    """The replies of a journal, found by the request that they answer."""

    def __init__(self, any_version: bool) -> None:
        self._any_version = any_version
        self._replies: dict[tuple[str, ...], Entry] = {}
        self._samples: set[str] = set()
        self.entries: list[Entry] = []
        """All replies, in the order in which they came."""

    @classmethod
    def of(cls, entries: list[Entry], *, any_version: bool) -> History:
        history = cls(any_version)
        for entry in entries:
            history.add(entry)
        return history

    def add(self, entry: Entry) -> None:
        if entry.get("kind") == "reply":
            self._replies[self._place(entry)] = entry
            self._samples.add(entry["sample"])
            self.entries.append(entry)
        elif entry.get("kind") == "undo":
            self._replies.pop(self._place(entry), None)

    def knows(self, case: Case) -> bool:
        """Whether anything was ever replied about it."""
        return case.digest in self._samples

    def find(self, step: Step) -> Entry | None:
        return self._replies.get(
            (step.oracle.name, step.digest, str(step.attempt)) if self._any_version else (step.key,)
        )

    def _place(self, entry: Entry) -> tuple[str, ...]:
        return (entry["oracle"], entry["sample"], str(entry["attempt"])) if self._any_version else (entry["key"],)


@dataclass(frozen=True)
class Step:
    """The next request for a case."""

    oracle: Oracle
    attempt: int
    key: str
    digest: str
    mode: oracle_prompts.ReplyMode
    feedback: oracle_prompts.Feedback | None = None
    budget: int = 1


class Dispatcher:
    """Everything that the requests of one run share; without a journal nothing is asked."""

    def __init__(
        self,
        cases: list[Case],
        oracles: list[Oracle],
        settings: RectifySection,
        history: History,
        ratio: Ratio,
        journal: Journal | None = None,
        grader: str = "math",
    ) -> None:
        self.cases = cases
        self.oracles = oracles
        self.settings = settings
        self.history = history
        self.journal = journal
        self.cost = 0.0
        self._grader = grader
        self.reply: oracle_prompts.ReplyMode = "solution" if settings.mode == "direct" else settings.reply
        self._ratio = ratio
        self._judged: dict[int, Correction] = {}
        self._stopped: BaseException | None = None
        self._ready: set[str] = set()
        self._told: set[str] = set()
        self._waiting: dict[tuple[str, int], asyncio.Task[Any] | None] = {}
        self._amendable: dict[tuple[str, int], tuple[Case, Step]] = {}
        self._accepted = 0
        self._done = 0
        self._in_work = 0
        self._replied = False
        self._malformed = 0
        self._given_up = 0

    # What a case needs next is a pure function of its replies.

    def next_step(self, case: Case, *, again: str = "") -> Step | None:
        """The request that the case needs; None, and its outcome set, where the replies decide it.

        The oracle called ``again`` is taken to have said nothing yet: for a reply that is to replace its former one.

        Each oracle is asked ``attempts`` times. A set of hunks that cannot be applied goes back once with the reason,
        then the oracle may rewrite the whole; neither counts as an attempt.
        """
        sample, settings, attempt = case.sample, self.settings, 0
        digest = case.digest
        for oracle in self.oracles:
            mode: oracle_prompts.ReplyMode = self.reply if oracle.prompted else "plain"
            feedback, budget, tries, bad_hunks = None, 1, 0, 0
            while tries < (settings.attempts if oracle.prompted else 1):
                asked = (oracle_prompts.VERSION, self.reply, settings.reference) if oracle.prompted else ()
                # Who is not prompted is asked once, wherever on the ladder: another rung must not undo a person's work.
                number = attempt if oracle.prompted else 0
                key = _hash(oracle.name, oracle.version, asked, digest, number)
                step = Step(oracle, number, key, digest, mode, feedback, budget)
                entry = self.history.find(step)
                if entry is None or oracle.name == again or self._was_cut_short(entry, step):
                    return step
                found = self.judge(case, entry)
                attempt += 1
                case.outcome, case.entry = found, entry
                if found.accepted:
                    return None
                if found.final:
                    break
                feedback = judge.feedback(found, sample, reference=settings.reference, gamma=settings.gamma)
                budget = 2 if found.reason == "length" else 1
                if entry["mode"] == "edits" and found.reason in judge.UNREADABLE:
                    bad_hunks += 1
                    mode = "edits" if bad_hunks == 1 else "rewrite"
                else:
                    tries += 1
        return None

    def _was_cut_short(self, entry: Entry, step: Step) -> bool:
        """A reply was cut, and more tokens are allowed now."""
        allowed = self.settings.max_tokens * step.budget
        return self.journal is not None and entry["finish_reason"] == "length" and entry.get("max_tokens", 0) < allowed

    def judge(self, case: Case, entry: Entry) -> Correction:
        known = self._judged.get(id(entry))
        if known is None:
            known = self._judged[id(entry)] = judge.judge(
                case.sample,
                entry["text"],
                finish_reason=entry["finish_reason"],
                why=entry.get("reason"),
                mode=entry["mode"],
                fence=entry["fence"],
                gamma=self.settings.gamma,
                ratio=self._ratio,
                answer_only=self.settings.answer_only,
                grader=self._grader,
            )
        return known

    def request(self, case: Case, step: Step) -> Request:
        if step.mode == "plain":
            return Request(case.sample, oracle_prompts.Ask(feedback=step.feedback))
        sample = case.sample
        texts = [sample.response, sample.answer or "", *(message["content"] for message in sample.messages)]
        ask = oracle_prompts.build(
            sample.prompt,
            sample.response,
            sample.answer if self.settings.reference else None,
            mode=step.mode,
            fence=oracle_prompts.new_fence(texts),
            feedback=step.feedback,
            budget=step.budget,
        )
        return Request(sample, ask)

    # Asking.

    def run(self) -> BaseException | None:
        """Work until nothing is left to ask, or until something stops it; says what did."""
        # One thread judges, so that a slow grading does not hold up what comes in over the network.
        with ThreadPoolExecutor(1, thread_name_prefix="judge") as self._judge, self._display():
            asyncio.run(self._run())
        return self._stopped

    @contextmanager
    def _display(self) -> Iterator[None]:
        if any(oracle.name == "human" for oracle in self.oracles):
            self._show: Callable[[int], None] = lambda advance: None
            yield
            return
        with progress("rows") as display:
            task = display.add_task("rectify", total=len(self.cases), note="")

            def show(advance: int) -> None:
                declined = self._done - self._accepted
                note = f"{self._accepted} accepted, {declined} not, ${self.cost:.4f}"
                display.update(task, advance=advance, note=note)

            self._show = show
            yield

    async def _run(self) -> None:
        settings = self.settings
        self._changed = asyncio.Condition()
        self._pending = deque(self.cases)
        self._limiters = {
            oracle.name: Limiter(
                min(settings.concurrency, oracle.parallel or settings.concurrency), rpm=settings.rpm, tpm=settings.tpm
            )
            for oracle in self.oracles
        }
        self._halt = asyncio.Event()
        self.cost = self.journal.spent if self.journal else 0.0
        for oracle in self.oracles:
            if isinstance(oracle, AmendingOracle):
                oracle.amend = self._amend
        # What is unsettled counts as spent.
        self._budget = Budget(settings.max_cost, self.cost + self.journal.unsettled if self.journal else 0.0)
        workers = [asyncio.create_task(self._work()) for _ in range(min(settings.concurrency, len(self.cases)))]
        with self._interruptible(workers):
            results = await asyncio.gather(*workers, return_exceptions=True)
        if self.journal:
            await self.journal.drain()
        for oracle in self.oracles:
            await oracle.close()
        for result in results:
            if isinstance(result, Exception):
                raise result

    @contextmanager
    def _interruptible(self, workers: list[asyncio.Task[None]]) -> Iterator[None]:
        """The first Ctrl-C lets the requests in flight end, since they are paid for; the second drops them."""

        def interrupt() -> None:
            if isinstance(self._stopped, KeyboardInterrupt):
                for worker in workers:
                    worker.cancel()
            else:
                in_flight = sum(limiter.in_flight for limiter in self._limiters.values())
                warn(f"stopping; waiting for {in_flight} replies that are on their way (Ctrl-C again drops them)")
                self._stop(KeyboardInterrupt())

        loop = asyncio.get_running_loop()
        try:
            loop.add_signal_handler(signal.SIGINT, interrupt)
        except (ValueError, RuntimeError, NotImplementedError):
            yield  # not the main thread: whoever owns it handles signals
            return
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGINT)

    def _stop(self, why: BaseException) -> None:
        if self._stopped is None or isinstance(why, KeyboardInterrupt):
            self._stopped = why
        self._halt.set()
        for limiter in self._limiters.values():
            limiter.wake()

    async def _work(self) -> None:
        while (case := await self._next()) is not None:
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
                async with self._changed:
                    self._in_work -= 1
                    self._done += 1
                    self._accepted += case.accepted
                    self._changed.notify_all()
                self._cancel_unneeded()
                self._show(1)

    def _cancel_unneeded(self) -> None:
        """Cancel what waits to be sent and comes, in the samples' order, behind the last pair of the target.

        What waits before it goes on: which requests were slow must not decide which pairs there are.
        """
        target = self.settings.target
        if target is None or self._accepted < target:
            return
        accepted = 0
        for case in self.cases:
            if accepted >= target and (task := self._waiting.get(case.sample.key)):
                task.cancel()
            accepted += case.accepted

    @contextmanager
    def _cancellable(self, case: Case) -> Iterator[None]:
        """Waiting costs nothing, so it may be cancelled; what was sent is paid for, and is not."""
        self._waiting[case.sample.key] = asyncio.current_task()
        try:
            yield
        finally:
            del self._waiting[case.sample.key]

    async def _next(self) -> Case | None:
        """The next case in the samples' order, no more at once than the target is likely to need."""
        target = self.settings.target
        async with self._changed:
            while self._pending and not self._stopped:
                if target is not None:
                    if self._accepted >= target:
                        return None
                    # The rate of acceptance so far, estimated by Laplace's rule.
                    likely = math.ceil((target - self._accepted) * (self._done + 2) / (self._accepted + 1))
                    if self._in_work >= likely:
                        await self._changed.wait()
                        continue
                self._in_work += 1
                return self._pending.popleft()
            return None

    async def _settle(self, case: Case) -> None:
        if case.reviewed is not None or not case.correctable:
            return
        while (step := await self._next_step(case)) is not None:
            if self.journal is None:
                return  # what was replied so far is all that there is
            case.outcome = case.entry = None
            if self._stopped:
                return
            try:
                entry = await self._ask(case, step)
            except PassingFailure as failure:
                self._fail(case, step, failure)
                return
            if entry is None:
                return
            self.history.add(entry)

    async def _next_step(self, case: Case) -> Step | None:
        if not self.history.knows(case):
            return self.next_step(case)  # nothing to judge: not worth a turn of the thread
        return await asyncio.get_running_loop().run_in_executor(self._judge, self.next_step, case)

    def _fail(self, case: Case, step: Step, failure: PassingFailure) -> None:
        if step.oracle.name == "human":
            self._stop(KeyboardInterrupt())
            return
        case.left = f"{FAILED}{failure.kind}"
        if failure.kind not in self._told:
            self._told.add(failure.kind)
            warn(f"{step.oracle.name}: {failure.kind}: {failure} (said once for all of this kind)")
        self._given_up += 1
        if failure.kind == "bad request":
            self._malformed += 1
            if not self._replied and self._malformed >= HOPELESS_REQUESTS:
                self._stop(
                    UserError(
                        f"the provider refuses the requests: {failure}",
                        where=step.oracle.name,
                        cure="check the oracle's parameters",
                    )
                )
        if self._given_up >= HOPELESS_ROWS or (failure.retry_after or 0) > LONGEST_WAIT:
            self._stop(failure)

    async def _ask(self, case: Case, step: Step) -> Entry | None:
        """One reply, on the disk before it is returned; None where the run was stopped before it was asked for.

        Raises:
            PassingFailure: the retries are used up.
            UserError, BudgetReached: no request can succeed any more.
        """
        journal, oracle, limiter = self.journal, step.oracle, self._limiters[step.oracle.name]
        assert journal is not None
        self._make_ready(oracle)
        request = self.request(case, step)
        if isinstance(oracle, AmendingOracle):
            self._amendable[case.sample.key] = case, step
        reserved = self._worst_cost(oracle, request)
        patience = float(self.settings.retries)
        failures = 0
        while True:
            with self._cancellable(case):
                if reserved:
                    await self._budget.reserve(reserved)
                try:
                    ticket = await limiter.acquire(self._likely_tokens(request))
                except asyncio.CancelledError:
                    if reserved:
                        self._budget.settle(reserved, 0.0)
                    raise
            if self._stopped:
                limiter.release(ticket)
                if reserved:
                    self._budget.settle(reserved, 0.0)
                return None
            cost, tokens = reserved, None
            try:
                if reserved:
                    await journal.record({"kind": "sent", "key": step.key, "reserved": reserved})
                began = time.monotonic()
                reply = await oracle.correct(request)
                entry = self.entry(case, step, request, reply, reserved, time.monotonic() - began)
                await journal.record(entry)
                tokens = reply.usage.get("total_tokens")
                if reply.cost is not None:
                    cost = reply.cost
                    self.cost += cost
                self._replied, self._given_up = True, 0
                limiter.succeeded()
                return entry
            except PassingFailure as failure:
                if not failure.maybe_billed:
                    cost = 0.0
                    if reserved:
                        await journal.record({"kind": "free", "key": step.key, "reserved": reserved})
                failures += 1
                limited = failure.kind == "rate limit" or failure.retry_after is not None
                if limited:
                    limiter.too_many(ticket, failure.retry_after)
                patience -= 1 / RATE_LIMIT_PATIENCE if limited else 1
                if patience < 0 or not failure.retry or (failure.retry_after or 0) > LONGEST_WAIT or self._stopped:
                    raise
                pause = 0.0 if limited else backoff(failures)
            except SpotError:
                # The provider turned the request down; nothing was worked on.
                cost = 0.0
                if reserved:
                    await journal.record({"kind": "free", "key": step.key, "reserved": reserved})
                raise
            finally:
                limiter.release(ticket, tokens=tokens)
                if reserved:
                    self._budget.settle(reserved, cost)
            with self._cancellable(case):
                await self._pause(pause)

    async def _pause(self, seconds: float) -> None:
        """Sleep, unless the run is being stopped."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._halt.wait(), seconds)

    async def _amend(self, request: Request, reply: Reply) -> None:
        """Keep a reply that replaces an earlier one of this run, and judge its case anew."""
        assert self.journal is not None
        case, step = self._amendable[request.sample.key]
        entry = self.entry(case, step, request, reply)
        await self.journal.record(entry)
        self.history.add(entry)
        before = case.accepted
        step_left = await self._next_step(case)
        if step_left is not None:
            case.outcome = case.entry = None
        self._accepted += case.accepted - before

    def _make_ready(self, oracle: Oracle) -> None:
        if oracle.name not in self._ready and isinstance(oracle, ProviderOracle):
            oracle.ready()
        self._ready.add(oracle.name)

    def _worst_cost(self, oracle: Oracle, request: Request) -> float:
        if self.settings.max_cost is None or not isinstance(oracle, ProviderOracle):
            return 0.0
        worst = oracle.worst_cost(request)
        if worst is None:
            raise UserError(
                f"the price of '{oracle.name}' is unknown, so --max-cost cannot be kept",
                where="rectify.max_cost",
                cure="set rectify.price_in and rectify.price_out, in US dollars a million tokens",
            )
        return worst

    def _likely_tokens(self, request: Request) -> float:
        """Four characters a token; a reply is about as long as the answer that it corrects."""
        if self.settings.tpm is None:
            return 0.0
        prompt = sum(len(message["content"]) for message in request.ask.messages)
        return (prompt + len(request.sample.response)) / 4

    def entry(
        self, case: Case, step: Step, request: Request, reply: Reply, reserved: float = 0.0, seconds: float = 0.0
    ) -> Entry:
        """The reply as the journal keeps it; ``reserved`` in US dollars."""
        # What is read back from the disk is what is judged: lone surrogates do not survive the way there.
        text = reply.text.encode("utf-8", errors="replace").decode()
        return {
            "kind": "reply",
            "key": step.key,
            "id": case.sample.id,
            "trial": case.sample.trial,
            "sample": step.digest,
            "attempt": step.attempt,
            "oracle": step.oracle.name,
            "version": step.oracle.version,
            "prompt": oracle_prompts.VERSION,
            "mode": step.mode,
            "fence": request.ask.fence,
            "max_tokens": self.settings.max_tokens * step.budget,
            "text": text,
            "finish_reason": reply.finish_reason,
            "reason": reply.reason,
            "usage": dict(reply.usage),
            "cost": reply.cost,
            "model": reply.model,
            **({"reserved": reserved} if reserved else {}),
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(seconds, 3),
        }


def _hash(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]
