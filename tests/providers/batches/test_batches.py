"""Batch APIs: what becomes of each row, however odd; bodies are made, and replies read, as ordinary ones are."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from spotcli.errors import UserError
from spotcli.providers.batches import anthropic, files, gemini
from spotcli.providers.batches.api import BatchRow, BatchState
from spotcli.providers.batches.by_provider import batch_client
from spotcli.providers.batches.client import BatchClient
from spotcli.providers.batches.http import objects_in, seconds_of
from spotcli.providers.litellm import ProviderSettings
from spotcli.providers.replies import RequestFailed
from spotcli.records import Message
from tests.batch_servers import batch_server
from tests.wire_formats import FORMATS

KEY = "sk-batch-0123456789abcdef"
MESSAGES: list[Message] = [{"role": "user", "content": "row-0001: hello"}]
ODD: list[Any] = [None, 1, "x", [], {}, [None], {"x": None}, True, 1e400, "\ud800"]


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for wire in ("openai", "anthropic", "gemini"):
        for name in FORMATS[wire].environment:
            monkeypatch.setenv(name, KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def client_of(wire: str, base_url: str | None = None, **settings: Any) -> BatchClient:
    client = batch_client(FORMATS[wire].model, ProviderSettings(base_url=base_url, **settings))
    assert client is not None
    return client


def with_client(client: BatchClient, work: Callable[[BatchClient], Coroutine[Any, Any, Any]]) -> Any:
    async def run() -> Any:
        try:
            return await work(client)
        finally:
            await client.close()

    return asyncio.run(run())


@pytest.mark.parametrize("row", [files._row, anthropic._row, lambda value: gemini._row("id", value)])
def test_odd_rows_and_states_raise_nothing(row: Callable[[dict[str, Any]], BatchRow]) -> None:
    names = ("custom_id", "response", "result", "error", "status", "message")
    for name in names:
        for value in ODD:
            for inner in ODD:
                made = row({name: value, "result": {"type": inner, "error": inner, "message": value}})
                assert made.body is not None or made.failure
    fields = ("id", "name", "request_counts", "metadata", "response", "created_at", "status", "errors", "error")
    for state in (files._state, anthropic._state, gemini._state):
        for name in fields:
            for value in ODD:
                assert isinstance(state({name: value}), BatchState)
                assert isinstance(state({"metadata": {name: value, "batchStats": value, "output": value}}), BatchState)


def test_lines_that_are_no_object_are_left_out() -> None:
    content = b'{"custom_id": "a"}\n[1]\n{"custom_id": "b"\n\xff\xfe\n' + b"[" * 100_000 + b'\n{"custom_id": "c"}'
    assert [row["custom_id"] for row in objects_in(content)] == ["a", "c"]
    assert seconds_of("2026-01-01T00:00:00Z") == 1767225600
    assert seconds_of("soon") is None


def test_errors_of_rows_get_their_http_state() -> None:
    too_large = {"type": "error", "error": {"type": "request_too_large", "message": "m"}}
    row = anthropic._row({"custom_id": "a", "result": {"type": "errored", "error": too_large}})
    assert (row.status, row.body) == (413, too_large)
    assert anthropic._row({"custom_id": "a", "result": {"type": "canceled"}}).failure == "cancelled"
    assert gemini._row("a", {"error": {"code": 8, "message": "quota"}}).status == 429
    assert gemini._row("a", {"error": {"code": 1, "message": "The operation was cancelled."}}).failure == "cancelled"
    expired = {"custom_id": "a", "response": None, "error": {"code": "batch_expired", "message": "m"}}
    assert files._row(expired).failure == "expired"


def test_gemini_keeps_the_order_where_it_loses_the_keys() -> None:
    labels = [f"spot-1-{index}" for index in range(3)]
    answers = {f"row-000{index}": [{"text": f"reply {index}"}] for index in range(3)}

    async def work(client: BatchClient) -> list[BatchRow]:
        lines = []
        for index, label in enumerate(labels):
            body, _ = await client.body([{"role": "user", "content": f"row-000{index}"}], 100)
            lines.append(client.api.line(label, body))
        created = await client.api.create("spot-1", None, lines)
        while (state := await client.api.retrieve(created.id)).status == "open":
            await asyncio.sleep(0.02)
        # With a reply too few, nobody knows which one is missing.
        assert await client.api.rows(state, labels[:2]) == []
        return await client.api.rows(state, labels)

    steps = [{"latency": 0.05, "unlabelled": 1, "no results": 2}]
    with batch_server("gemini", answers, key=KEY, batches=steps) as server:
        rows = with_client(client_of("gemini", server.base_url), work)
    assert [row.custom_id for row in rows] == labels
    assert ["reply 1" in json.dumps(row.body) for row in rows] == [False, True, False]


@pytest.mark.parametrize("wire", ["openai", "anthropic", "gemini"])
def test_replies_and_errors_of_rows_are_read_as_ordinary_ones(wire: str) -> None:
    replies = FORMATS[wire].replies

    async def work(client: BatchClient) -> None:
        for outcome, finish in (("good", "stop"), ("truncated", "length"), ("blocked", "filtered")):
            native = replies(outcome, "hello")
            assert native is not None
            reply = await client.read(*native, 100)
            assert reply.finish_reason == finish
        good = replies("good", "hello")
        assert good is not None
        # Half of 40 prompt and 20 reply tokens at 1 and 10 dollars per million.
        assert (await client.read(*good, 100)).cost == pytest.approx((40 * 1 + 20 * 10) / 2 / 1e6)
        for status, body in ((500, {"error": {"message": "m"}}), (200, {}), (429, {"error": {"message": "slow"}})):
            with pytest.raises(RequestFailed):
                await client.read(status, body, 100)
        with pytest.raises(UserError, match="rejected the key"):
            await client.read(401, {"error": {"message": "invalid key", "type": "authentication_error"}}, 100)

    with_client(client_of(wire, "http://127.0.0.1:9/v1", price_in=1.0, price_out=10.0), work)


def test_a_limit_that_the_provider_refuses_is_lower_in_the_next_round() -> None:
    async def work(client: BatchClient) -> None:
        error = {"error": {"message": "This model supports at most 500 completion tokens, whereas you provided 800."}}
        with pytest.raises(RequestFailed) as caught:
            await client.read(400, error, 800)
        assert (caught.value.kind, caught.value.retryable) == ("token limit", True)
        body, limit = await client.body(MESSAGES, 800)
        assert (json.loads(body)["max_tokens"], limit) == (500, 500)

    with_client(client_of("openai"), work)


def test_nothing_is_sent_when_bodies_are_made() -> None:
    with batch_server("openai", {}) as server:
        body, limit = with_client(client_of("openai", server.base_url), lambda client: client.body(MESSAGES, 100))
        assert (json.loads(body)["messages"], limit) == (MESSAGES, 100)
        client = client_of("openai", server.base_url, params={"reasoning_effort": "low"})
        with pytest.raises(UserError, match="reasoning_effort"):
            with_client(client, lambda client: client.body(MESSAGES, 100))
        assert not server.requests
        assert not server.calls
    assert batch_client("ollama/llama3", ProviderSettings()) is None
    assert batch_client("no-such-model", ProviderSettings()) is None
