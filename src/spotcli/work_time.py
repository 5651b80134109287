"""Time in which this process ran: it does not count while the process is stopped (Ctrl-Z, SIGSTOP, a suspended laptop).

The operating system has no clock for this, so gaps between ticks are measured.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

TICK = 1.0
"""Seconds between two looks at the clock."""
GAP = 3.0
"""Seconds between two ticks that mean that the process was stopped."""


class _WorkClock:
    """Its thread ticks; without it, the clock is ``time.monotonic``."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = time.monotonic()
        self._lost = 0.0
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._last = time.monotonic()
                self._thread = threading.Thread(target=self._tick, name="work time", daemon=True)
                self._thread.start()

    def _tick(self) -> None:
        while True:
            time.sleep(TICK)
            self.seconds()

    def seconds(self) -> float:
        with self._lock:
            now = time.monotonic()
            # A forked child has no thread that ticks.
            if self._thread is not None and self._thread.is_alive():
                if now - self._last > GAP:
                    self._lost += now - self._last
                self._last = now
            return now - self._lost


_clock = _WorkClock()


def work_time() -> float:
    """Seconds since an arbitrary moment, without those in which the process was stopped."""
    _clock.start()
    return _clock.seconds()


@asynccontextmanager
async def time_limit(seconds: float) -> AsyncIterator[None]:
    """Like ``asyncio.timeout``, without the time in which the process was stopped: what arrived meanwhile is read.

    Raises:
        TimeoutError: the context took longer.
    """
    loop = asyncio.get_running_loop()
    remaining, since = seconds, loop.time()
    timer: asyncio.TimerHandle | None = None

    async with asyncio.timeout(None) as limit:

        def tick() -> None:
            nonlocal remaining, since, timer
            now = loop.time()
            if now - since <= 2 * TICK:
                remaining -= now - since
            since = now
            if remaining <= 0:
                limit.reschedule(now)
            else:
                timer = loop.call_later(min(TICK, remaining), tick)

        timer = loop.call_later(min(TICK, seconds), tick)
        try:
            yield
        finally:
            if timer:
                timer.cancel()
