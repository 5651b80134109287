"""How fast requests are sent."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from spotcli.providers import limiter as limits
from spotcli.providers.limiter import Limiter


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


@pytest.fixture(autouse=True)
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """No jitter, so that times can be calculated."""
    monkeypatch.setattr(limits, "JITTER", 0.0)


def test_no_more_than_the_limit_is_in_flight() -> None:
    async def work() -> None:
        limiter, most = Limiter(3), 0

        async def request() -> None:
            nonlocal most
            ticket = await limiter.acquire()
            most = max(most, limiter.in_flight)
            await asyncio.sleep(0.005)
            limiter.release(ticket)

        await asyncio.gather(*(request() for _ in range(10)))
        assert most == 3
        assert limiter.in_flight == 0

    run(work())


def test_a_round_of_rate_limits_halves_once_and_a_round_of_replies_adds_one() -> None:
    async def work() -> None:
        limiter = Limiter(8)
        tickets = [await limiter.acquire() for _ in range(8)]
        for ticket in tickets:
            limiter.too_many(ticket, retry_after=0.01)
            limiter.release(ticket)
        assert limiter.limit == 4  # 8 / 2, although eight requests got a rate limit
        assert limiter.pauses == 1
        for _ in range(4):
            limiter.succeeded()
        # 4 + 1/4 + 1/4.25 + 1/4.4853 + 1/4.7083 = 4.9207: about one more per round of four
        assert limiter.limit == pytest.approx(4.9207, abs=1e-3)
        for _ in range(100):
            limiter.succeeded()
        assert limiter.limit == 8

    run(work())


def test_the_limit_is_at_least_one() -> None:
    async def work() -> None:
        limiter = Limiter(2)
        for _ in range(5):
            ticket = await limiter.acquire()
            limiter.too_many(ticket, retry_after=0.0)
            limiter.release(ticket)
        assert limiter.limit == 1

    run(work())


def test_a_pause_holds_all_requests_for_the_named_time() -> None:
    async def work() -> None:
        limiter, loop = Limiter(4), asyncio.get_running_loop()
        ticket = await limiter.acquire()
        began = loop.time()
        limiter.too_many(ticket, retry_after=0.1)
        limiter.release(ticket)
        await asyncio.gather(limiter.acquire(), limiter.acquire())
        assert 0.1 <= loop.time() - began < 0.3

    run(work())


def test_pauses_without_a_named_time_double(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FIRST_PAUSE", 10.0)
    monkeypatch.setattr(limits, "LONGEST_PAUSE", 25.0)
    assert [limits.backoff(n) for n in (1, 2, 3, 400)] == [10.0, 20.0, 25.0, 25.0]

    async def work() -> None:
        limiter = Limiter(4)
        first, second = await limiter.acquire(), await limiter.acquire()
        limiter.too_many(first)
        limiter.too_many(second)
        assert limiter.paused_for == pytest.approx(10.0, abs=0.1)

    run(work())


def test_requests_per_minute_are_spread() -> None:
    async def work() -> None:
        # 1,200 per minute are one per 0.05 s: the fifth starts 0.2 s after the first.
        limiter, loop = Limiter(10, rpm=1200), asyncio.get_running_loop()
        began = loop.time()
        for _ in range(5):
            limiter.release(await limiter.acquire())
        assert 0.2 <= loop.time() - began < 0.35

    run(work())


def test_tokens_per_minute_count_the_tokens_used() -> None:
    async def work() -> None:
        # 60,000 per minute are 1,000 per second; 100 expected and 200 used delay the next request by 0.2 s.
        limiter, loop = Limiter(10, tpm=60_000), asyncio.get_running_loop()
        began = loop.time()
        limiter.release(await limiter.acquire(100), tokens=200)
        await limiter.acquire(100)
        assert 0.2 <= loop.time() - began < 0.35

    run(work())


def test_a_cancelled_wait_returns_its_ticket() -> None:
    async def work() -> None:
        limiter = Limiter(1)
        ticket = await limiter.acquire()
        waiting = asyncio.create_task(limiter.acquire())
        await asyncio.sleep(0)
        limiter.release(ticket)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert limiter.in_flight == 0
        await asyncio.wait_for(limiter.acquire(), 1)

    run(work())


def test_stopping_lets_all_requests_pass() -> None:
    async def work() -> None:
        limiter = Limiter(1)
        ticket = await limiter.acquire()
        limiter.too_many(ticket, retry_after=100)
        waiting = [asyncio.create_task(limiter.acquire()) for _ in range(3)]
        await asyncio.sleep(0)
        limiter.wake()
        await asyncio.wait_for(asyncio.gather(*waiting), 1)

    run(work())
