"""How fast requests are sent: a limit of requests in flight that adapts to the provider, and limits per minute."""

from __future__ import annotations

import asyncio
import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

FIRST_PAUSE = 1.0
"""Seconds after the first failure."""
LONGEST_PAUSE = 60.0
"""Seconds."""
JITTER = 0.25
"""Pauses are longer by a random share of up to this, so that several processes do not retry at the same time."""


def backoff(failures: int) -> float:
    """Seconds to wait after the n-th failure in a row (from 1): doubling, bounded, with jitter."""
    return min(FIRST_PAUSE * 2.0 ** (failures - 1), LONGEST_PAUSE) * (1 + JITTER * random.random())


@dataclass(frozen=True)
class Ticket:
    """The permission to send one request."""

    epoch: int
    tokens: float


class Limiter:
    """Additive increase, multiplicative decrease (AIMD) of the requests in flight, and rates of requests and tokens.

    A rate limit halves the limit once, however many of the requests in flight get one: all of them were sent at the
    same speed. Waiting requests are served in the order of their arrival.

    Args:
        concurrency: requests in flight at most.
        rpm: requests per minute at most, spread evenly.
        tpm: tokens of prompts and replies per minute at most.
        on_pause: called with its seconds when a pause of all requests begins, or becomes longer.
    """

    def __init__(
        self,
        concurrency: int,
        *,
        rpm: float | None = None,
        tpm: float | None = None,
        on_pause: Callable[[float], None] | None = None,
    ) -> None:
        self.most = concurrency
        self.limit = float(concurrency)
        self.in_flight = 0
        self.pauses = 0
        self._rpm = rpm
        self._on_pause = on_pause
        self._tpm = tpm
        self._epoch = 0
        self._in_a_row = 0
        self._paused_until = 0.0
        self._next_request = 0.0
        self._next_token = 0.0
        self._woken = False
        self._waiting: deque[tuple[asyncio.Future[Ticket], float]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    async def acquire(self, tokens: float = 0) -> Ticket:
        """Wait until a request of about this many tokens may be sent; ``release`` returns the ticket."""
        future: asyncio.Future[Ticket] = asyncio.get_running_loop().create_future()
        self._waiting.append((future, tokens))
        self._serve()
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self.release(future.result())
            raise

    def release(self, ticket: Ticket, *, tokens: float | None = None) -> None:
        """End a request; ``tokens`` are those that it used, if known."""
        self.in_flight -= 1
        if self._tpm and tokens is not None:
            self._next_token += (tokens - ticket.tokens) * 60 / self._tpm
        self._serve()

    def succeeded(self) -> None:
        """Raise the limit after a reply: by about 1 per round of replies."""
        self._in_a_row = 0
        self.limit = min(self.most, self.limit + 1 / self.limit)

    def too_many(self, ticket: Ticket, retry_after: float | None = None) -> None:
        """Halve the limit after a rate limit, and pause all requests for ``retry_after`` seconds."""
        if ticket.epoch == self._epoch:
            self._epoch += 1
            self._in_a_row += 1
            self.limit = max(1.0, self.limit / 2)
            self.pauses += 1
            self._hold(backoff(self._in_a_row) if retry_after is None else retry_after * (1 + JITTER * random.random()))
        elif retry_after is not None:
            self._hold(retry_after)

    @property
    def paused_for(self) -> float:
        """Seconds until the next request may be sent."""
        return max(0.0, self._paused_until - asyncio.get_running_loop().time())

    def wake(self) -> None:
        """Let all waiting requests pass, so that each sees that the run is stopping."""
        self._woken = True
        self._serve()

    def _hold(self, seconds: float) -> None:
        until = asyncio.get_running_loop().time() + seconds
        # Many requests in flight get the same answer within a second: it is one pause.
        if self._on_pause and until > self._paused_until + 1:
            self._on_pause(seconds)
        self._paused_until = max(self._paused_until, until)

    def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting and (self._woken or self.in_flight < math.floor(self.limit)):
            now = loop.time()
            ready = max(self._paused_until, self._next_request, self._next_token)
            if ready > now and not self._woken:
                if self._timer:
                    self._timer.cancel()
                self._timer = loop.call_at(ready, self._serve)
                return
            future, tokens = self._waiting.popleft()
            if future.done():
                continue
            self.in_flight += 1
            if self._rpm:
                self._next_request = max(self._next_request, now) + 60 / self._rpm
            if self._tpm:
                self._next_token = max(self._next_token, now) + tokens * 60 / self._tpm
            future.set_result(Ticket(self._epoch, tokens))
