"""The results of a batch that has ended: replies to the journal, and why the other requests have none."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any

from spotcli.console import warn
from spotcli.errors import UserError
from spotcli.providers.batches.api import NO_RESULT, BatchRow, BatchState
from spotcli.providers.batches.client import BatchClient
from spotcli.providers.replies import Reply, RequestFailed
from spotcli.repair.batch_log import Batch, BatchRequest
from spotcli.repair.batch_matching import Matched, match
from spotcli.repair.journal import Journal
from spotcli.repair.next_request import RepairJob, answered
from spotcli.repair.summary import RepliesUnread
from spotcli.reply_entries import ReplyEntry

CHUNK = 200
"""Replies that are written and synced together."""
DOWNLOADS = 5
"""Downloads of results that cannot be read, after which the run stops."""
UNREADABLE = "unreadable"
UNNAMED = "unnamed"
"""Failures of a download and of a request."""


UnlessStopped = Callable[[Coroutine[Any, Any, list[BatchRow]]], Awaitable[list[BatchRow] | None]]


@dataclass
class Results:
    """What became of the requests of one batch."""

    replies: int = 0
    failures: dict[str, RequestFailed] = field(default_factory=dict)
    """Digest of a wrong answer -> why its request has no reply."""
    permanent: UserError | None = None
    """The first error that every request would get."""
    complete: bool = True
    """False: the run was stopped before all replies were read."""
    unnamed: list[BatchRow] = field(default_factory=list)
    """Replies of which nobody knows the request."""

    @property
    def counts(self) -> dict[str, int]:
        """Kind of a failure -> requests."""
        return dict(Counter(failure.kind for failure in self.failures.values()))


class Collector:
    """Reads the results of batches.

    Args:
        stopped: whether the run is stopping: the remaining results are left to a later run.
        unless_stopped: the rows of a download; None if the run stops before it ends.
    """

    def __init__(
        self, job: RepairJob, journal: Journal, stopped: Callable[[], bool], unless_stopped: UnlessStopped
    ) -> None:
        self._unless_stopped = unless_stopped
        self._job = job
        self._journal = journal
        self._stopped = stopped
        self._warned: set[str] = set()
        self._unreadable: Counter[str] = Counter()
        """Key of a batch -> downloads of its results that could not be read."""

    async def collect(self, batch: Batch, state: BatchState, client: BatchClient, *, version: str) -> Results:
        """Journal the replies of a batch, and add them to the history; those of an earlier run are not read again.

        Args:
            version: the oracle's today.

        Raises:
            BatchGone: the results have expired.
            RequestFailed: they cannot be downloaded now.
            RepliesUnread: no download can be read.
            UserError: they cannot be downloaded.
            OSError: the journal cannot be written.
        """
        matched = await self._download(batch, state, client)
        if matched is None:
            return Results(complete=False)
        rows, results = matched.rows, Results(unnamed=matched.unnamed)
        known = {entry.key for entry in self._job.history.replies if entry.batch == batch.key}
        entries: list[ReplyEntry] = []
        for custom_id, request in zip(batch.custom_ids, batch.requests, strict=True):
            if request.entry.key in known:
                results.replies += 1
                continue
            if self._stopped():
                results.complete = False
                break
            try:
                if results.unnamed and custom_id not in rows:
                    raise RequestFailed(UNNAMED, "the reply has no name", retryable=False, maybe_billed=True)
                reply = await self._reply(rows.get(custom_id), request, client, state)
            except RequestFailed as failure:
                self._fail(results, batch, request, failure)
            except UserError as error:
                results.permanent = results.permanent or error
                self._fail(results, batch, request, RequestFailed("rejected", error.message, retryable=False))
            else:
                entry = _entry(batch, request, reply, same_version=version == batch.version)
                entries.append(entry)
                results.replies += 1
                if reply.finish_reason == "incomplete":
                    reason = reply.reason or "incomplete"
                    results.failures[entry.sample] = RequestFailed(reason, "the reply is incomplete")
            if len(entries) >= CHUNK:
                entries = await self._record(entries)
        await self._record(entries)
        return results

    async def _download(self, batch: Batch, state: BatchState, client: BatchClient) -> Matched | None:
        """The results of a batch; None if the run stops first.

        A page of a proxy, or a part of the file, is not taken for the file.

        Raises:
            BatchGone, RequestFailed, RepliesUnread, UserError: as ``collect``.
        """
        try:
            most = client.api.most_bytes(batch.limits)
            rows = await self._unless_stopped(client.api.rows(state, batch.custom_ids, most))
            if rows is None:
                return None
            matched = match(rows, batch)
            # A batch that was not completed need not have results, whatever its counts are.
            expected = 0 if not rows and (state.cancelled or state.expired) else state.done or len(rows)
            is_last = self._unreadable[batch.key] >= DOWNLOADS - 1
            if matched.count < (min(1, expected) if is_last else expected):
                message = f"the results contain {matched.count:,} of {expected:,} replies of batch {batch.id}"
                raise RequestFailed(UNREADABLE, message, maybe_billed=True)
        except RequestFailed as failure:
            if failure.kind != UNREADABLE:
                raise
            self._unreadable[batch.key] += 1
            if self._unreadable[batch.key] < DOWNLOADS:
                raise
            raise RepliesUnread(
                f"the results of batch {batch.id} at {batch.provider} cannot be read ({failure}); they may have been "
                "charged for, so nothing is sent again",
                cure="run the same command later, which downloads them again (or --fresh, which gives them up)",
            ) from None
        return matched

    async def _reply(
        self, row: BatchRow | None, request: BatchRequest, client: BatchClient, state: BatchState
    ) -> Reply:
        if row is None and (state.cancelled or state.expired):
            ending = "cancelled" if state.cancelled else "expired"
            raise RequestFailed(ending, f"the batch ended as {ending} before this request")
        if row is None:
            raise RequestFailed(NO_RESULT, "the results do not contain this request", maybe_billed=True)
        if row.body is None:
            raise RequestFailed(row.failure or NO_RESULT, f"the request was not worked on: {row.failure}")
        return await client.read(row.status, row.body, request.limit)

    def _fail(self, results: Results, batch: Batch, request: BatchRequest, failure: RequestFailed) -> None:
        results.failures[request.entry.sample] = failure
        if not failure.maybe_billed:
            batch.replied.add(request.entry.key)
        if failure.kind not in self._warned:
            self._warned.add(failure.kind)
            warn(f"{batch.oracle}: {failure.kind}: {failure} (further failures of this kind are only counted)")

    async def _record(self, entries: list[ReplyEntry]) -> list[ReplyEntry]:
        """Write replies to the disk, then use them; the empty list."""
        await asyncio.gather(*(self._journal.record(entry) for entry in entries))
        for entry in entries:
            self._job.history.add(entry)
        return []


def _entry(batch: Batch, request: BatchRequest, reply: Reply, *, same_version: bool) -> ReplyEntry:
    """The reply as the journal keeps it; parameters are those of today's settings, so not of another version."""
    lowered = request.limit if request.limit != (request.entry.max_tokens or None) else reply.max_tokens
    reply = replace(reply, max_tokens=lowered, sent=reply.sent if same_version else None)
    return replace(answered(request.entry, reply), batch=batch.key)
