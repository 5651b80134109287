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

from spotcli.console import show_waiting, stop_showing_waiting
from spotcli.errors import SpotError
from spotcli.providers.limiter import Limiter, backoff
from spotcli.providers.replies import Reply, RequestFailed

RATE_LIMIT_WEIGHT = 1 / 4
"""What a rate limit uses up of ``retries``, where a failure uses up 1: a provider with a rate limit is working."""


SILENT_SECONDS = 1.8
"""How long a stopped run waits for requests in flight to a provider that has not answered."""
_PART = 0.1
"""Seconds; ``SILENT_SECONDS`` are counted in such parts."""
SHOWN_PAUSE = 5.0
"""Seconds; shorter pauses are not shown."""
_NO_ANSWER = {"time-out", "connection"}
"""Kinds of failures of a provider that did not answer at all."""


def show_pause(model: str, reason: str, seconds: float) -> None:
    """Show a pause before the next request, unless it is short."""
    if seconds >= SHOWN_PAUSE:
        show_waiting(f"{model}: {reason}", seconds)


class Delivery:
    """One request on its way; a subclass sends it, and may reserve money and keep records around each try."""

    model: str = ""
    """The model that is asked."""

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


@dataclass
class Retries:
    """How often requests are sent again, and when they are given up."""

    retries: int
    """Tries after the first one."""
    stopped: Callable[[], bool]
    """Whether the run is stopping: nothing more is sent then."""
    woken: asyncio.Event
    """Set when the run is stopping: it ends pauses."""
    longest_wait: float = 600.0
    """Seconds; a provider that asks for a longer pause is left to a later run."""
    replying: bool = False
    """Whether the provider has answered since its last failure to do so; a request in flight to a provider that has
    not is not worth waiting for when the run is stopped."""

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
                reason = failure.kind
                failures += 1
                limited = _is_rate_limit(failure)
                remaining -= RATE_LIMIT_WEIGHT if limited else 1
                too_long = self.asks_for_too_long(failure)
                if remaining < 0 or not failure.retryable or too_long or self.stopped():
                    raise
            if not limited:  # after a rate limit the limiter pauses all requests
                with delivery.waiting():
                    seconds = backoff(failures)
                    if not self.replying:
                        show_pause(delivery.model, reason, seconds)
                    await self._pause(seconds)

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
            self.replying = True
            if not limiter.paused_for:
                stop_showing_waiting()
            tokens = reply.usage.get("total_tokens")
            limiter.succeeded()
            return reply
        except RequestFailed as failure:
            self.replying = failure.kind not in _NO_ANSWER
            await delivery.failed(failure)
            if _is_rate_limit(failure) and not self.asks_for_too_long(failure):
                limiter.too_many(ticket, failure.retry_after)
            raise
        except SpotError as error:
            await delivery.failed(error)
            raise
        finally:
            limiter.release(ticket, tokens=tokens)
            delivery.settle()

    def asks_for_too_long(self, failure: RequestFailed) -> bool:
        """Whether the provider asks for a pause that this run does not wait for."""
        return (failure.retry_after or 0) > self.longest_wait

    async def wait_while_silent(self) -> None:
        """Wait until the provider answers, at most ``SILENT_SECONDS`` of time in which this process could work: after
        each part the replies that have arrived are read, so a busy machine does not lose them."""
        for _ in range(round(SILENT_SECONDS / _PART)):
            if self.replying:
                return
            await asyncio.sleep(_PART)

    async def _pause(self, seconds: float) -> None:
        """Sleep until the run stops, at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.woken.wait()


def _is_rate_limit(failure: RequestFailed) -> bool:
    return failure.kind == "rate limit" or failure.retry_after is not None
