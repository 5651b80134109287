"""One request about a wrong answer on its way to an oracle: money is reserved for it, and its reply is journalled."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from spotcli.errors import SpotError
from spotcli.oracles import CorrectionRequest, Oracle
from spotcli.providers.replies import Reply, RequestFailed
from spotcli.providers.retry import Delivery
from spotcli.repair.budget import Budget
from spotcli.repair.cases import PlannedRequest
from spotcli.repair.journal import Journal
from spotcli.repair.next_request import RepairJob
from spotcli.reply_entries import MoneyEntry, ReplyEntry


@dataclass
class CorrectionDelivery(Delivery):
    """Its ``entry`` is the reply, on the disk."""

    job: RepairJob
    oracle: Oracle
    planned: PlannedRequest
    request: CorrectionRequest
    journal: Journal
    budget: Budget
    reserved: float
    """US dollars that the request can cost at most; 0 without a cost limit."""
    tokens: float
    """Likely tokens of prompt and reply."""
    cancellable: Callable[[], AbstractContextManager[None]]
    """Entered while the request waits: it may be cancelled then."""
    entry: ReplyEntry | None = None
    cost: float = 0.0
    """US dollars of this try, as far as they are known; all that is reserved while they are not."""

    @property
    def model(self) -> str:  # type: ignore[override]  # it is known by the oracle
        return self.oracle.name

    def waiting(self) -> AbstractContextManager[None]:
        return self.cancellable()

    async def reserve(self) -> None:
        if self.reserved:
            await self.budget.reserve(self.reserved)
        self.cost = 0.0

    async def send(self) -> Reply:
        self.cost = self.reserved
        if self.reserved:
            await self.journal.record(MoneyEntry("sent", self.planned.key, self.reserved))
        started = time.monotonic()
        reply = await self.oracle.correct(self.request)
        seconds = time.monotonic() - started
        entry = self.job.entry(self.planned, self.request, reply, reserved=self.reserved, seconds=seconds)
        await self.journal.record(entry)
        self.entry = entry
        if reply.cost is not None:
            self.cost = reply.cost
        if reply.finish_reason == "incomplete":
            self.job.history.add(entry)  # it answers nothing, but its cost counts
        reply.raise_if_incomplete()
        return reply

    async def failed(self, failure: RequestFailed | SpotError) -> None:
        if isinstance(failure, RequestFailed) and failure.maybe_billed:
            return
        self.cost = 0.0
        if self.reserved:
            await self.journal.record(MoneyEntry("free", self.planned.key, self.reserved))

    def settle(self) -> None:
        if self.reserved:
            self.budget.settle(self.reserved, self.cost)
