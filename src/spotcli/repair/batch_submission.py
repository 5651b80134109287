"""A batch on its way to the provider: recorded before it is created, found again if nobody knows whether it was.

intent on the disk -> upload -> its file on the disk -> create -> its id on the disk
                                                          |
                        nothing known <- connection lost <┘       then: look for it, and create it only if it is absent
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal, TypeVar

from spotcli.console import say, warn
from spotcli.errors import UserError
from spotcli.providers.batches.api import Sought
from spotcli.providers.batches.client import BatchClient
from spotcli.providers.limiter import backoff
from spotcli.providers.replies import RequestFailed
from spotcli.recipe import RectifySection
from spotcli.repair.batch_log import Batch, BatchLog

T = TypeVar("T")

LISTED_WITHIN = 12.0
"""First intervals between looks within which a provider's list gets a batch that was created: two minutes."""
OLD = 1800.0
"""Seconds after which the first look decides: the request to create the batch has long ended."""


class Submission:
    """Creates batches, each once.

    Args:
        settings: retries, the longest pause that a provider may ask for, and the interval between looks.
        pause: waits for some seconds, or until the run is stopped, which it returns.
    """

    def __init__(self, log: BatchLog, settings: RectifySection, pause: Callable[[float], Awaitable[bool]]) -> None:
        self._log = log
        self._retries = settings.retries
        self._max_wait = settings.max_wait
        self._listed_within = LISTED_WITHIN * settings.batch_poll
        """Seconds within which a provider's list gets a batch that was created."""
        self._pause = pause
        self._unknown = 0
        """Batches in a row that may have been created."""
        self._shown: set[str] = set()
        """Keys of batches of which possible ones were shown."""
        self._first_looks: dict[str, float] = {}
        """Key of a batch without an id -> when it was first looked for."""

    async def submit(self, batch: Batch, client: BatchClient, lines: Sequence[bytes]) -> None:
        """Create a batch. It has an id then, unless only its results will show which one it is.

        Raises:
            RequestFailed: the provider cannot be reached.
            UserError: the provider refuses the batch, or any.
        """
        self._log.begin(batch)
        try:
            file = await self._retried(lambda: client.api.upload(batch.key, lines))
        except (RequestFailed, UserError) as error:
            self._log.end(batch, "abandoned", reason=str(error))
            raise _final(error, batch) from None
        if file is not None:
            self._log.uploaded(batch, file)
        await self._create(batch, client, lines)

    async def _create(self, batch: Batch, client: BatchClient, lines: Sequence[bytes]) -> None:
        failures = 0
        while True:
            try:
                state = await client.api.create(batch.key, batch.file, lines)
            except UserError as error:
                self._log.end(batch, "rejected", reason=str(error))
                raise
            except RequestFailed as failure:
                failures += 1
                if not failure.retryable:
                    self._log.end(batch, "rejected", reason=str(failure))
                    raise _final(failure, batch) from None
                if _may_have_created(failure):
                    self._lost(batch, failure)
                    return
                if self._is_last(failure, failures) or await self._pause(failure.retry_after or backoff(failures)):
                    self._log.end(batch, "abandoned", reason=str(failure))
                    raise
            else:
                self._unknown = 0
                self._log.submitted(batch, state.id)
                return

    def _lost(self, batch: Batch, failure: RequestFailed) -> None:
        """Leave a batch open that may have been created: ``identify`` looks for it.

        Raises:
            RequestFailed: this happened too often.
        """
        self._unknown += 1
        if self._unknown > self._retries:
            raise failure
        warn(
            f"{batch.provider} may have created batch {batch.key} ({failure.kind}: {failure}): it is looked for, and "
            "created again only if the provider does not have it"
        )

    def _is_last(self, failure: RequestFailed, failures: int) -> bool:
        return failures > self._retries or (failure.retry_after or 0.0) > self._max_wait

    async def identify(self, batch: Batch, client: BatchClient) -> None:
        """Look for a batch of which no id is known. It gets its id, or stays as it is while this is not known yet, or
        ends as abandoned, since the provider has none.

        Raises:
            RequestFailed: the provider cannot be reached.
            UserError: it refuses to answer.
        """
        now = time.time()
        first = self._first_looks.setdefault(batch.key, now)
        outcome = await self._look(batch, client)
        if outcome == "absent" and (now - first >= self._listed_within or now - batch.since >= OLD):
            self._log.end(batch, "abandoned")

    async def _look(self, batch: Batch, client: BatchClient) -> Literal["found", "possible", "absent"]:
        known = frozenset(self._log.ids)
        sought = Sought(batch.key, batch.since, len(batch.requests), known, batch.file)
        found = await self._retried(lambda: client.api.find(sought))
        if found.batch is not None:
            self._log.submitted(batch, found.batch.id)
            return "found"
        if found.possible and batch.key not in self._shown:
            self._shown.add(batch.key)
            names = ", ".join(found.possible[:3])
            say(f"{batch.provider}: {names} may be batch {batch.key}; its results will show whether it is")
        return "possible" if found.possible else "absent"

    async def _retried(self, call: Callable[[], Awaitable[T]]) -> T:
        failures = 0
        while True:
            try:
                return await call()
            except RequestFailed as failure:
                failures += 1
                if not failure.retryable or self._is_last(failure, failures):
                    raise
                if await self._pause(failure.retry_after or backoff(failures)):
                    raise


def _may_have_created(failure: RequestFailed) -> bool:
    """Whether the provider may have worked on the request: not if it was never sent, or refused for its rate."""
    return failure.kind != "rate limit" and (failure.kind != "connection" or failure.maybe_billed)


def _final(error: RequestFailed | UserError, batch: Batch) -> RequestFailed | UserError:
    """The error for a batch that was not created."""
    if isinstance(error, RequestFailed) and not error.retryable:
        cure = "check rectify.params; for a batch that is too large, set --batch-size"
        return UserError(f"the provider refused the batch: {error}", where=batch.oracle, cure=cure)
    return error
