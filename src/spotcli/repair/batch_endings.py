"""What follows from the end of a batch: replies, requests that are sent again, smaller batches, or a stop."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

from spotcli.console import counted, dollars, say, warn
from spotcli.errors import UserError
from spotcli.oracles.model import ModelOracle
from spotcli.providers.batches.api import BatchGone, BatchState
from spotcli.providers.batches.client import BatchClient
from spotcli.providers.replies import RequestFailed
from spotcli.recipe import RectifySection
from spotcli.redaction import redact
from spotcli.repair.batch_log import Batch, BatchLog
from spotcli.repair.batch_results import Collector
from spotcli.repair.cases import FAILED, IN_BATCH, NOT_ASKED, Case
from spotcli.repair.next_request import RepairJob
from spotcli.repair.summary import RepliesUnread

LOOKS = 3
"""Looks that must not find a batch before it counts as lost."""


class BatchEndings:
    """Works on batches that have ended."""

    def __init__(self, job: RepairJob, settings: RectifySection, log: BatchLog, collector: Collector) -> None:
        self._job = job
        self._settings = settings
        self._log = log
        self._collector = collector
        self._tries: Counter[str] = Counter()
        """Digest of a case -> requests about it in a row that got no reply."""
        self.given_up: set[str] = set()
        """Digests of cases that are left to a later run."""
        self.most: dict[str, int] = {}
        """Oracle -> requests per batch, of which one is submitted at a time: its provider refused a larger one."""
        self._any_reply = bool(job.history.replies)

    async def collect(self, batch: Batch, state: BatchState, oracle: ModelOracle, client: BatchClient) -> None:
        """Read the results of a batch that has ended.

        Raises:
            BatchGone: they have expired.
            RequestFailed: they cannot be downloaded now.
            RepliesUnread: they cannot be read.
            UserError: the provider rejects every request.
        """
        results = await self._collector.collect(batch, state, client, version=oracle.version)
        if not results.complete:
            return
        details: dict[str, Any] = {"replies": results.replies}
        if results.failures:
            details["failed"] = results.counts
        if results.unnamed:
            details["unnamed"] = [redact(json.dumps(row.body)) for row in results.unnamed]
        self._log.end(batch, "done", unsettled=batch.reserved, **details)
        failed = f", {len(results.failures):,} without" if results.failures else ""
        say(f"batch {batch.id}: {counted(results.replies, 'reply', 'replies')}{failed}")
        self._any_reply = self._any_reply or results.replies > 0
        for request in batch.requests:
            if request.entry.sample not in results.failures:
                self._tries.pop(request.entry.sample, None)
        for digest, failure in results.failures.items():
            self._failed(digest, failure, again=not state.cancelled)
        if results.unnamed:
            count = counted(len(results.unnamed), "reply", "replies")
            raise RepliesUnread(
                f"{batch.provider} returned {count} of batch {batch.id} without the names of their requests and not in "
                f"their order, so nobody knows which answers they correct; {self._log.path} keeps them",
                cure="run the command without --batch to ask about these answers again, at the ordinary price",
            )
        if results.permanent is not None:
            raise results.permanent
        bad = [failure for failure in results.failures.values() if failure.kind == "bad request"]
        if bad and not self._any_reply:
            cure = "check the oracle's parameters"
            raise UserError(f"the provider rejects the requests: {bad[0]}", where=oracle.name, cure=cure)
        if state.cancelled and results.failures:
            warn(f"batch {batch.id} was cancelled at {batch.provider}; the same command asks about its answers again")

    def _failed(self, digest: str, failure: RequestFailed, *, again: bool = True) -> None:
        """Count a request without a reply; after too many of them its case is left to a later run."""
        self._tries[digest] += 1
        if not failure.retryable or not again or self._tries[digest] > self._settings.retries:
            self.given_up.add(digest)
        for case in self._cases(digest):
            case.default_reason = f"{FAILED}{failure.kind}"

    def _cases(self, digest: str) -> Iterator[Case]:
        return (case for case in self._job.cases if case.digest == digest and case.open)

    def mark(self, batch: Batch, reason: str) -> None:
        """Note why the cases of a batch have no reply."""
        digests = {request.entry.sample for request in batch.requests}
        for case in self._job.cases:
            if case.open and case.digest in digests and case.default_reason in (NOT_ASKED, IN_BATCH):
                case.default_reason = reason

    def rejected(self, batch: Batch, state: BatchState) -> None:
        """The provider refused a batch after it was created: make smaller ones, or try again.

        Raises:
            UserError: neither can succeed.
        """
        self._log.end(batch, "rejected", reason=state.message)
        count = len(batch.requests)
        if state.full and count > 1:
            self.most[batch.oracle] = (count + 1) // 2
            warn(
                f"{batch.provider} refused a batch of {count:,} requests ({state.message}); batches of "
                f"{self.most[batch.oracle]:,} follow, one at a time"
            )
            return
        if not state.transient:
            cure = "check the oracle's parameters; if too many tokens wait at the provider, try later, or --batch-size"
            raise UserError(f"the provider refused the batch: {state.message}", where=batch.oracle, cure=cure)
        warn(f"batch {batch.id} failed at {batch.provider} ({state.message}); its answers are asked about again")
        for request in batch.requests:
            self._failed(request.entry.sample, RequestFailed("server", state.message))

    def vanished(self, batch: Batch, client: BatchClient, gone: BatchGone) -> None:
        """The provider does not have a batch any more; only several looks decide, since sending it again costs money.

        Raises:
            UserError: another key or address is set than the one that the batch was created with.
        """
        if client.api.account != batch.account:
            raise UserError(
                f"{batch.provider} does not have batch {batch.id}, and it was created with another key or address",
                where=str(self._log.path),
                cure="set the key and the --base-url of that run; if the batch is lost, use --fresh",
            )
        self._log.not_found(batch)
        if batch.missed < LOOKS:
            warn(f"{batch.provider} does not have batch {batch.id} ({gone}): look {batch.missed} of {LOOKS}")
            return
        charged = batch.reserved
        self._log.end(batch, "vanished", unsettled=charged, reason=str(gone))
        cost = f"; {dollars(charged)} may have been charged for it" if charged else ""
        count = counted(len(batch.requests), "request")
        warn(f"{batch.provider} no longer has batch {batch.id} ({gone}): its {count} are sent again{cost}")
        for request in batch.requests:
            if request.entry.key not in batch.replied:
                self._failed(request.entry.sample, RequestFailed("vanished", str(gone), maybe_billed=True))
