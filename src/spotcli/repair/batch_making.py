"""A batch made of the next requests: as many as the provider's limits, the settings and the cost limit allow."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from spotcli.console import dollars, progress, say
from spotcli.core import oracle_prompts
from spotcli.errors import BudgetReached
from spotcli.oracles import CorrectionRequest
from spotcli.oracles.model import ModelOracle
from spotcli.providers.batches.client import BatchClient
from spotcli.recipe import RectifySection
from spotcli.repair.batch_log import Batch, BatchRequest
from spotcli.repair.budget import worst_cost
from spotcli.repair.cases import Case, PlannedRequest
from spotcli.repair.journal import Journal
from spotcli.repair.next_request import RepairJob

SMALLEST = 0.1
"""What a batch under a cost limit must contain of the remaining requests: each batch can take a day."""
BETWEEN = 2
"""Bytes between two requests."""

Planned = tuple[Case, PlannedRequest]


@dataclass
class MadeBatch:
    """A batch that is not submitted yet."""

    batch: Batch | None = None
    """None: the run was stopped."""
    lines: list[bytes] = field(default_factory=list)
    """Its requests in the provider's format."""
    affordable: bool = True
    """False: the cost limit allows no further request now."""


class BatchMaker:
    """Makes batches of the requests that are planned.

    Args:
        stopped: whether the run is stopping: nothing is made then.
    """

    def __init__(self, job: RepairJob, journal: Journal, settings: RectifySection, stopped: Callable[[], bool]) -> None:
        assert journal.batches is not None
        self._job = job
        self._journal = journal
        self._log = journal.batches
        self._settings = settings
        self._stopped = stopped

    async def make(self, oracle: ModelOracle, planned: Sequence[Planned], most: int | None) -> MadeBatch:
        """Make one batch of the first requests.

        Args:
            most: requests at most, where the provider refused more.

        Raises:
            BudgetReached: the cost limit does not allow the first one, and no batch is open.
            UserError: a request cannot be made, or a cost limit is set and the price is unknown.
        """
        client = oracle.batch
        assert client is not None
        limits = client.api.limits
        most = min(limits.requests, self._settings.batch_size or limits.requests, most or limits.requests)
        key, made = f"spot-{secrets.token_hex(8)}", MadeBatch()
        requests: list[BatchRequest] = []
        size, reserved = 0, 0.0
        with progress("requests") as display:
            task = display.add_task("batch", total=min(most, len(planned)), note=oracle.name)
            for case, plan in planned[:most]:
                if self._stopped():
                    return MadeBatch(affordable=False)
                request = self._job.request(case, plan, own_fence=client.api.loses_names)
                worst = self._worst_cost(oracle, request)
                if not self._fits(reserved, worst):
                    if not requests and not self._log.open:
                        raise self._limit_reached(0, worst, len(planned))
                    made.affordable = False
                    break
                body, limit = await client.body(request.prompt.messages, oracle.max_tokens(request))
                line = client.api.line(f"{key}-{len(requests)}", body)
                if requests and size + len(line) + BETWEEN > limits.bytes:
                    break
                requests.append(BatchRequest(self._job.unanswered(plan, request), limit, worst))
                made.lines.append(line)
                size, reserved = size + len(line) + BETWEEN, reserved + worst
                display.update(task, advance=1)
        if requests:
            made.batch = _batch(key, oracle, client, made.lines, requests)
        return made

    def _worst_cost(self, oracle: ModelOracle, request: CorrectionRequest) -> float:
        if self._settings.max_cost is None:
            return oracle.worst_cost(request) or 0.0
        return worst_cost(oracle, request)

    def _fits(self, reserved: float, worst: float) -> bool:
        """Whether the cost limit allows a request beside those that are reserved."""
        limit, spent = self._settings.max_cost, self._journal.spent + self._journal.unsettled
        return limit is None or spent + reserved + worst <= limit

    def _limit_reached(self, count: int, worst: float, total: int) -> BudgetReached:
        """The error for a cost limit that covers too few requests.

        Args:
            worst: US dollars that one of them can cost at most.
            total: requests that are planned.
        """
        spent = self._journal.spent + self._journal.unsettled
        few = ", and a batch of less than a tenth is not worth up to a day" if count else ""
        return BudgetReached(
            f"cost limit: {dollars(spent)} of {dollars(self._settings.max_cost or 0.0)} are spent; the rest covers "
            f"{count:,} of {total:,} requests at their highest cost{few}",
            cure=f"set --max-cost to about {dollars(spent + worst * total)}, or lower rectify.max_tokens, or leave out "
            "--batch; all replies are kept",
        )

    def check_size(self, made: MadeBatch, planned: Sequence[Planned]) -> bool:
        """Whether a batch that the cost limit has cut short is worth its wait; how many requests it has is shown.

        Raises:
            BudgetReached: it is not, and no batch is open whose end could allow a larger one.
        """
        assert made.batch is not None
        count, limit = len(made.batch.requests), self._settings.max_cost or 0.0
        if count < SMALLEST * len(planned):
            if self._log.open:
                return False
            raise self._limit_reached(count, made.batch.reserved / count, len(planned))
        say(
            f"--max-cost {limit:g} covers {count:,} of {len(planned):,} requests at their highest cost; the others "
            "follow when the cost of these is known (a lower --max-tokens lets more of them into one batch)"
        )
        return True


def _batch(
    key: str, oracle: ModelOracle, client: BatchClient, lines: Sequence[bytes], requests: list[BatchRequest]
) -> Batch:
    return Batch(
        key=key,
        provider=client.provider,
        oracle=oracle.name,
        version=oracle.version,
        prompt=oracle_prompts.VERSION,
        account=client.api.account,
        body=hashlib.sha256(b"\n".join(lines)).hexdigest(),
        requests=requests,
    )
