"""A batch made of the next requests: as many as the provider's limits, the settings and the cost limit allow."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from spotcli.console import progress, say
from spotcli.core import oracle_prompts
from spotcli.oracles import CorrectionRequest
from spotcli.oracles.model import ModelOracle
from spotcli.providers.batches.client import BatchClient
from spotcli.recipe import RectifySection
from spotcli.repair.batch_log import Batch, BatchRequest
from spotcli.repair.budget import budget_reached, worst_cost
from spotcli.repair.cases import Case, PlannedRequest
from spotcli.repair.journal import Journal
from spotcli.repair.next_request import RepairJob

SMALLEST = 0.1
"""What a further batch under a cost limit must contain of the remaining requests: each batch can take a day."""
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
                request = self._job.request(case, plan)
                worst = self._worst_cost(oracle, request)
                if not self._fits(reserved, worst):
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
        """Whether the cost limit allows a request beside those that are reserved.

        Raises:
            BudgetReached: it does not, and neither a request nor an open batch will change that.
        """
        limit, spent = self._settings.max_cost, self._journal.spent + self._journal.unsettled
        if limit is None or spent + reserved + worst <= limit:
            return True
        if not reserved and not self._log.open:
            raise budget_reached(limit, spent, worst)
        return False

    def explain_limit(self, made: MadeBatch, planned: Sequence[Planned], *, is_first: bool) -> None:
        """Show how many requests the cost limit allows at a time.

        Args:
            is_first: this run has submitted none before.

        Raises:
            BudgetReached: too few for a further batch.
        """
        assert made.batch is not None
        count, limit = len(made.batch.requests), self._settings.max_cost or 0.0
        if not is_first and not self._log.open and count < SMALLEST * len(planned):
            spent = self._journal.spent + self._journal.unsettled
            raise budget_reached(limit, spent, made.batch.reserved)
        say(
            f"--max-cost {limit:g} covers {count:,} of {len(planned):,} requests at their highest cost; the others "
            "follow when the cost of these is known (a lower --max-tokens lets more of them into one batch)"
        )


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
