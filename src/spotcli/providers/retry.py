"""The retry loop: send a request until a reply comes, within the limits that all requests of a run share.

wait for money -> wait for a turn -> send -> reply
      ^                               |
      └────── pause <── failed <──────┘
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from spotcli.errors import SpotError
from spotcli.providers.limiter import Limiter, backoff
from spotcli.providers.replies import Reply, RequestFailed

LONGEST_WAIT = 600.0
"""Seconds. A provider that asks for a longer pause is left to a later run."""

RATE_LIMIT_WEIGHT = 1 / 4
"""What a rate limit uses up of ``retries``, where a failure uses up 1: a provider with a rate limit is working."""


class Delivery:
    """One request on its way; a subclass sends it, and may reserve money and keep records around each try."""

    tokens: float
    """Likely tokens of prompt and reply, for the limit of tokens per minute."""

    async def send(self) -> Reply:
        """Send the request, once.

        Raises:
            RequestFailed: no reply came, and another try can succeed.
            SpotError: no try can succeed.
        """
        raise NotImplementedError

    async def reserve(self) -> None:
        """Called before each try, before it waits for its turn."""

    async def failed(self, failure: RequestFailed | SpotError) -> None:
        """Called after a try that raised."""

    def settle(self) -> None:
        """Called at the end of each try for which ``reserve`` returned, whatever its result."""

    def waiting(self) -> AbstractContextManager[None]:
        """Entered while the request waits and nothing is sent."""
        return nullcontext()


@dataclass(frozen=True)
class Retries:
    """How often requests are sent again, and when they are given up."""

    retries: int
    """Tries after the first one."""
    stopped: Callable[[], bool]
    """Whether the run is stopping: nothing more is sent then."""
    woken: asyncio.Event
    """Set when the run is stopping: it ends pauses."""

    async def deliver(self, delivery: Delivery, limiter: Limiter) -> Reply | None:
        """The reply; None if the run was stopped before the request was sent.

        Raises:
            RequestFailed: the retries are used up, or another try soon cannot help.
            SpotError: no request can succeed.
        """
        remaining, failures = float(self.retries), 0
        while True:
            try:
                return await self._try(delivery, limiter)
            except RequestFailed as failure:
                failures += 1
                limited = _is_rate_limit(failure)
                remaining -= RATE_LIMIT_WEIGHT if limited else 1
                too_long = asks_for_too_long(failure)
                if remaining < 0 or not failure.retryable or too_long or self.stopped():
                    raise
            if not limited:  # after a rate limit the limiter pauses all requests
                with delivery.waiting():
                    await self._pause(backoff(failures))

    async def _try(self, delivery: Delivery, limiter: Limiter) -> Reply | None:
        with delivery.waiting():
            await delivery.reserve()
            try:
                ticket = await limiter.acquire(delivery.tokens)
            except asyncio.CancelledError:
                delivery.settle()
                raise
        tokens = None
        try:
            if self.stopped():
                return None
            reply = await delivery.send()
            tokens = reply.usage.get("total_tokens")
            limiter.succeeded()
            return reply
        except RequestFailed as failure:
            await delivery.failed(failure)
            if _is_rate_limit(failure) and not asks_for_too_long(failure):
                limiter.too_many(ticket, failure.retry_after)
            raise
        except SpotError as error:
            await delivery.failed(error)
            raise
        finally:
            limiter.release(ticket, tokens=tokens)
            delivery.settle()

    async def _pause(self, seconds: float) -> None:
        """Sleep until the run stops, at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.woken.wait()


def asks_for_too_long(failure: RequestFailed) -> bool:
    """Whether the provider asks for a pause that this run does not wait for."""
    return (failure.retry_after or 0) > LONGEST_WAIT


def _is_rate_limit(failure: RequestFailed) -> bool:
    return failure.kind == "rate limit" or failure.retry_after is not None
