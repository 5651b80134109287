"""Batch APIs: what becomes of each row, however odd; bodies are made, and replies read, as ordinary ones are."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
import warnings
from collections.abc import Callable, Coroutine
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import pytest

from spotcli.errors import UserError
from spotcli.providers.batches import anthropic, files, gemini, http
from spotcli.providers.batches.api import BatchRow, BatchState, Sought
from spotcli.providers.batches.by_provider import batch_client
from spotcli.providers.batches.client import BatchClient
from spotcli.providers.batches.http import MOST_BYTES, objects_in, seconds_of
from spotcli.providers.replies import RequestFailed
from spotcli.providers.settings import ProviderSettings
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
    for moment in ("soon", 1e400, 10**400, 10**20, -1, True, "9999-12-31T23:59:59+00:00"):
        assert seconds_of(moment) is None


def test_the_message_of_a_rejected_batch_contains_no_key() -> None:
    text = f"Incorrect API key provided: {KEY}"
    for state in (
        files._state({"status": "failed", "errors": {"data": [{"message": text}]}}),
        gemini._state({"metadata": {"state": "BATCH_STATE_FAILED"}, "error": {"code": 7, "message": text}}),
    ):
        assert state.message.startswith("Incorrect")
        assert KEY not in state.message
    assert files._state({"errors": {"data": 5}}).message == ""


def test_errors_of_rows_get_their_http_state() -> None:
    too_large = {"type": "error", "error": {"type": "request_too_large", "message": "m"}}
    row = anthropic._row({"custom_id": "a", "result": {"type": "errored", "error": too_large}})
    assert (row.status, row.body) == (413, too_large)
    assert anthropic._row({"custom_id": "a", "result": {"type": "canceled"}}).failure == "cancelled"
    assert gemini._row("a", {"error": {"code": 8, "message": "quota"}}).status == 429
    assert gemini._row("a", {"error": {"code": 1, "message": "The operation was cancelled."}}).failure == "cancelled"
    expired = {"custom_id": "a", "response": None, "error": {"code": "batch_expired", "message": "m"}}
    assert files._row(expired).failure == "expired"


def test_rows_of_gemini_can_lack_their_names() -> None:
    async def work(client: BatchClient) -> list[BatchRow]:
        lines = []
        for index in range(2):
            body, _ = await client.body([{"role": "user", "content": f"row-000{index}"}], 100)
            lines.append(client.api.line(f"spot-1-{index}", body))
        created = await client.api.create("spot-1", None, lines)
        while (state := await client.api.retrieve(created.id, MOST_BYTES)).status == "open":
            await asyncio.sleep(0.02)
        return await client.api.rows(state, ["spot-1-0", "spot-1-1"], MOST_BYTES)

    answers = {f"row-000{index}": [{"text": f"reply {index}"}] for index in range(2)}
    steps = [{"latency": 0.05, "unlabelled": 1, "no results": 2}]
    with batch_server("gemini", answers, key=KEY, batches=steps) as server:
        rows = with_client(client_of("gemini", server.base_url), work)
    assert [(row.custom_id, f"reply {index}" in json.dumps(row.body)) for index, row in enumerate(rows)] == [
        ("", True),
        ("", True),
    ]


def test_a_reply_that_was_cut_off_in_a_surrogate_pair_is_read() -> None:
    good = FORMATS["openai"].replies("good", "hello")
    assert good is not None
    body = json.loads(json.dumps(good[1]).replace("hello", "hello \\ud83d"))

    async def work(client: BatchClient) -> str:
        return (await client.read(200, body, 100)).text

    assert with_client(client_of("openai"), work).startswith("hello ")


@pytest.mark.parametrize("wire", ["openai", "anthropic", "gemini"])
def test_odd_fields_of_replies_write_no_warning(wire: str) -> None:
    good = FORMATS[wire].replies("good", "hello")
    assert good is not None
    read = 0

    async def work(client: BatchClient) -> None:
        nonlocal read
        for name in good[1]:
            for value in ODD:
                with contextlib.suppress(RequestFailed, UserError):
                    await client.read(200, good[1] | {name: value}, 100)
                read += 1

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with_client(client_of(wire), work)
    assert read
    assert not [warning for warning in caught if "ydantic" in str(warning.message)]


def test_a_provider_is_refused_that_leads_to_another_host(monkeypatch: pytest.MonkeyPatch) -> None:
    received: list[dict[str, str]] = []

    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            received.append(dict(self.headers))
            self.send_response(200)
            self.end_headers()

        do_POST = do_GET

        def log_message(self, *_: Any) -> None:
            """Nothing is logged."""

    class First(Other):
        def do_GET(self) -> None:
            self.send_response(307)
            self.send_header("location", f"http://localhost:{other.server_port}{self.path}")
            self.end_headers()

        do_POST = do_GET

    other, first = (ThreadingHTTPServer(("127.0.0.1", 0), handler) for handler in (Other, First))
    for name, value in FORMATS["azure"].environment.items():
        monkeypatch.setenv(name, KEY if name.endswith("_KEY") else value)
    for server in (other, first):
        threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        for wire in ("openai", "azure", "anthropic", "gemini"):
            with pytest.raises(UserError, match="redirects"):
                with_client(
                    client_of(wire, f"http://127.0.0.1:{first.server_port}"),
                    lambda client: client.api.retrieve("b", MOST_BYTES),
                )
    finally:
        for server in (other, first):
            server.shutdown()
            server.server_close()
    assert not received


def test_a_list_that_is_none_is_a_failed_look_and_not_an_absent_batch() -> None:
    class Junk(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = next(pages)
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Nothing is logged."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Junk)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        for wire in ("openai", "anthropic", "gemini"):
            junk = [b'{"data": {}, "operations": {}}', b'{"data": 5, "operations": 5}', b"<html>"]
            for content in [*junk, *([] if wire == "gemini" else [b"{}"])]:
                pages = iter([content])
                with pytest.raises(RequestFailed):
                    with_client(
                        client_of(wire, f"http://127.0.0.1:{server.server_port}"),
                        lambda client: client.api.find(Sought("spot-1", 0.0, 1)),
                    )
    finally:
        server.shutdown()
        server.server_close()


def test_anthropic_finds_a_batch_though_the_clocks_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(client: BatchClient) -> list[str]:
        body, _ = await client.body([{"role": "user", "content": "row-0000"}], 100)
        created = await client.api.create("spot-1", None, [client.api.line("spot-1-0", body)])
        ours = time.time() + 7 * 3600
        monkeypatch.setattr(http, "time", SimpleNamespace(time=lambda: ours), raising=False)
        found = await client.api.find(Sought("spot-1", ours, 1))
        assert found.possible == [created.id]
        return found.possible

    with batch_server("anthropic", {"row-0000": [{"text": "x"}]}, key=KEY, batches=[{"latency": 60}]) as server:
        assert with_client(client_of("anthropic", server.base_url), work)


def test_openai_finds_a_batch_behind_many_newer_ones_though_the_clocks_differ() -> None:
    async def work(client: BatchClient) -> None:
        body, _ = await client.body([{"role": "user", "content": "row-0000"}], 100)
        file = await client.api.upload("spot-0", [client.api.line("spot-0-0", body)])
        first = await client.api.create("spot-0", file, [])
        for number in range(1, files.PAGE + 1):
            await client.api.create(f"spot-{number}", file, [])
        found = await client.api.find(Sought("spot-0", time.time() + 7 * 3600, 1))
        assert found.batch is not None
        assert found.batch.id == first.id

    with batch_server("openai", {}, default={"text": "x"}, key=KEY) as server:
        with_client(client_of("openai", server.base_url), work)


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


def test_results_may_be_as_large_as_their_requests_allow() -> None:
    """Five requests of 16,384 tokens, all as \\uXXXX and with 4 characters per token, and one without a limit."""
    api = client_of("openai").api
    assert api.most_bytes([16_384] * 5 + [None]) > 6 * 4 * (5 * 16_384 + 200_000)
    with_logprobs = client_of("openai", params={"extra_body": {"top_logprobs": 20}}).api
    assert with_logprobs.most_bytes([1000]) > 20 * 150 * 1000
    assert api.most_bytes([1000]) < 20_000_000


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
