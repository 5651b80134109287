"""The retry loop, with scripted tries and no network."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from spotcli.errors import SpotError, UserError
from spotcli.providers import limiter as limits
from spotcli.providers.limiter import Limiter
from spotcli.providers.replies import Reply, RequestFailed
from spotcli.providers.retry import Delivery, Retries

SERVER = RequestFailed("server", "down")
LIMITED = RequestFailed("rate limit", "slow down", retry_after=0.0)
MALFORMED = RequestFailed("bad request", "no", retryable=False)
REPLY = Reply(text="hi", usage={"total_tokens": 7})


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FIRST_PAUSE", 0.001)


class Scripted(Delivery):
    """Answers each try as scripted; the last step repeats."""

    def __init__(self, *steps: Reply | RequestFailed | SpotError) -> None:
        self.tokens = 5
        self.steps = steps
        self.events: list[str] = []
        self.sent = 0

    async def reserve(self) -> None:
        self.events.append("reserve")

    async def send(self) -> Reply:
        step = self.steps[min(self.sent, len(self.steps) - 1)]
        self.sent += 1
        if isinstance(step, Reply):
            return step
        raise step

    async def failed(self, failure: RequestFailed | SpotError) -> None:
        self.events.append("failed")

    def settle(self) -> None:
        self.events.append("settle")


def deliver(delivery: Delivery, *, retries: int = 2, stopped: bool = False) -> Reply | None:
    async def work() -> Reply | None:
        limiter = Limiter(4)
        try:
            return await Retries(retries, lambda: stopped, asyncio.Event()).deliver(delivery, limiter)
        finally:
            assert limiter.in_flight == 0

    return asyncio.run(work())


def test_each_try_is_reserved_and_settled() -> None:
    delivery = Scripted(SERVER, REPLY)
    assert deliver(delivery) == REPLY
    assert delivery.events == ["reserve", "failed", "settle", "reserve", "settle"]


@pytest.mark.parametrize(
    ("steps", "sent"),
    [
        ([SERVER], 3),  # the first try and two retries
        ([LIMITED], 9),  # a rate limit uses up a quarter of a retry
        ([LIMITED, LIMITED, LIMITED, LIMITED, SERVER], 6),
        ([MALFORMED], 1),
        ([RequestFailed("rate limit", "later", retry_after=7200)], 1),
    ],
)
def test_a_request_is_given_up_when_its_retries_are_used_up(steps: Sequence[RequestFailed], sent: int) -> None:
    delivery = Scripted(*steps)
    with pytest.raises(RequestFailed):
        deliver(delivery)
    assert delivery.sent == sent


def test_a_permanent_error_is_not_retried() -> None:
    delivery = Scripted(UserError("bad key"))
    with pytest.raises(UserError, match="bad key"):
        deliver(delivery)
    assert delivery.events == ["reserve", "failed", "settle"]


def test_a_stopped_run_sends_nothing() -> None:
    delivery = Scripted(REPLY)
    assert deliver(delivery, stopped=True) is None
    assert (delivery.sent, delivery.events) == (0, ["reserve", "settle"])


def test_stopping_ends_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FIRST_PAUSE", 60.0)
    delivery = Scripted(SERVER)

    async def work() -> None:
        woken = asyncio.Event()
        retries = Retries(5, woken.is_set, woken)
        asyncio.get_running_loop().call_later(0.05, woken.set)
        assert await asyncio.wait_for(retries.deliver(delivery, Limiter(1)), 10) is None

    asyncio.run(work())
    assert delivery.sent == 1
