"""`spot rectify --batch` when a provider's replies are not what its documentation promises."""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from spotcli.errors import BudgetReached, Unfinished
from spotcli.providers.batches import http
from tests.batch_servers import Act, BatchServer, BatchStep
from tests.stages.test_rectify import good, replies, script, tag
from tests.stages.test_rectify_batches import (  # noqa: F401  # the fixture is used in each test
    WIRES,
    ask,
    check_once,
    kinds,
    log,
    samples,
    server,
    surroundings,
)

STRANGE = 'null\n[1]\n{"custom_id": 3, "result": 5, "response": "x"}\n{"custom_id": "spot-1-0"}\n'


def junk(provider: BatchServer, kind: str, pages: list[str | Callable[[str], str]]) -> None:
    """Answer the first calls of a kind with other texts, or with what becomes of the right ones."""
    call = provider.call

    def replaced(name: str, act: Act) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handler(request: web.Request) -> web.Response:
            response = await act(request)
            if name != kind or not pages:
                return response
            page = pages.pop(0)
            text = page if isinstance(page, str) else page(str(response.text))
            return web.Response(text=text, content_type="application/json")

        return call(name, handler)

    monkeypatched: Any = provider
    monkeypatched.call = replaced


def endless(provider: BatchServer, kind: str, statuses: list[int]) -> list[int]:
    """Answer the first calls of a kind with bodies that do not end; the bytes that were sent of each."""
    call: Any = provider.call
    sent: list[int] = []

    def replaced(name: str, act: Act) -> Any:
        async def handler(request: web.Request) -> web.StreamResponse:
            response = await act(request)
            if name != kind or not statuses:
                return response
            body = web.StreamResponse(status=statuses.pop(0))
            await body.prepare(request)
            sent.append(0)
            with contextlib.suppress(ConnectionError):
                while sent[-1] < 200_000_000:
                    await body.write(b'{"custom_id": "x"}\n' * 3000)
                    sent[-1] += 57_000
            return body

        return call(name, handler)

    monkeypatched: Any = provider
    monkeypatched.call = replaced
    return sent


@pytest.mark.parametrize(
    ("wire", "kind", "status"),
    [("openai", "download", 200), ("anthropic", "download", 200), ("anthropic", "poll", 500), ("gemini", "poll", 200)],
)
def test_a_reply_without_an_end_is_not_read_to_its_end_and_asked_for_again(
    wire: str, kind: str, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("BASE_BYTES", "TOKEN_BYTES"):
        monkeypatch.setattr(http, name, 0)
    samples(tmp_path, 3)
    provider = server(wire, script(3))
    sent = endless(provider, kind, [status])
    with provider:
        assert ask(tmp_path, provider, wire).pairs == 3
    check_once(provider)
    assert len(provider.batches) == 1
    # The limit is 3 x 64 KiB, of an error 1 MB; what the two sockets hold comes to it.
    assert 57_000 <= sent[0] < 20_000_000


def test_results_that_never_end_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BASE_BYTES", "TOKEN_BYTES"):
        monkeypatch.setattr(http, name, 0)
    samples(tmp_path, 3)
    provider = server("openai", script(3))
    endless(provider, "download", [200] * 5)
    with provider:
        with pytest.raises(Unfinished, match=r"cannot be read \(the reply is larger than 196,608 bytes"):
            ask(tmp_path, provider, "openai")
        assert "done" not in kinds(tmp_path)
        assert ask(tmp_path, provider, "openai").pairs == 3
    check_once(provider)
    assert len(provider.batches) == 1


@pytest.mark.parametrize("wire", ["openai", "anthropic"])
def test_a_download_without_a_row_of_the_batch_is_tried_again(wire: str, tmp_path: Path) -> None:
    samples(tmp_path, 3)
    provider = server(wire, script(3))
    junk(provider, "download", ["<html>busy</html>", STRANGE])
    with provider:
        assert ask(tmp_path, provider, wire).pairs == 3
    check_once(provider)
    assert len(provider.batches) == 1


@pytest.mark.parametrize("wire", ["openai", "anthropic"])
def test_a_download_that_is_never_readable_stops_the_run(
    wire: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    samples(tmp_path, 3)
    provider = server(wire, script(3))
    junk(provider, "download", [*["<html>busy</html>", STRANGE] * 3])
    with provider:
        with pytest.raises(Unfinished, match=r"results of batch .*0001 at .* cannot be read"):
            ask(tmp_path, provider, wire)
        assert "done" not in kinds(tmp_path)
        assert ask(tmp_path, provider, wire).pairs == 3
    assert "sent an invalid reply (unreadable" in capsys.readouterr().err
    check_once(provider)
    assert len(provider.batches) == 1


def test_a_download_with_a_part_of_the_replies_is_tried_again(tmp_path: Path) -> None:
    samples(tmp_path, 3)
    provider = server("anthropic", script(3))
    junk(provider, "download", [lambda text: text.splitlines()[0] + '\n{"custom_id": '])
    with provider:
        assert ask(tmp_path, provider, "anthropic").pairs == 3
    assert len(provider.batches) == 1


@pytest.mark.parametrize("call", ["poll", "download"])
@pytest.mark.parametrize("wire", WIRES)
def test_a_batch_that_is_not_found_once_is_not_lost(wire: str, call: str, tmp_path: Path) -> None:
    samples(tmp_path, 2)
    with server(wire, script(2)) as provider:
        provider.faults = {call: [404]}
        summary = ask(tmp_path, provider, wire)
    assert (summary.pairs, summary.unsettled, len(provider.batches)) == (2, 0, 1)


def test_looks_of_several_runs_decide_that_a_batch_is_lost(tmp_path: Path) -> None:
    samples(tmp_path, 2)
    with server("openai", script(2), {"latency": 60, "vanish": 0}) as provider:
        for _ in range(2):
            assert len(provider.batches) <= 1
            with pytest.raises(Unfinished, match="is not finished"):
                ask(tmp_path, provider, "openai", batch_wait=0)
        assert ask(tmp_path, provider, "openai").pairs == 2
    assert kinds(tmp_path).count("not found") == 3
    assert len(provider.batches) == 2


def test_odd_fields_of_a_batch_write_nothing_to_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    samples(tmp_path, 2)
    provider = server("openai", script(2))
    odd = {"id": 5, "metadata": 3, "request_counts": [], "status": [], "errors": {"data": 7}, "expires_at": 1e30}
    junk(provider, "poll", [json.dumps(odd), json.dumps(odd)])
    with provider, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert ask(tmp_path, provider, "openai").pairs == 2
    assert not [warning for warning in caught if "ydantic" in str(warning.message)]
    assert "ydantic" not in capsys.readouterr().err


@pytest.mark.parametrize("killed", [False, True])
def test_a_batch_that_is_found_again_names_the_run_that_created_it(
    killed: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    samples(tmp_path, 2)
    with server("openai", script(2), {"latency": 0.1}) as provider:
        provider.faults = {"create": ["dropped"]}
        if killed:
            provider.faults["list"] = [500]
            with pytest.raises(Unfinished):
                ask(tmp_path, provider, "openai", batch_wait=0, retries=0)
        assert ask(tmp_path, provider, "openai").pairs == 2
    expected = "an earlier run had created it" if killed else "its creation had succeeded"
    assert f"found batch batch_0001 at openai: {expected}" in capsys.readouterr().err
    assert len(provider.batches) == 1


@pytest.mark.parametrize("step", [{"order": "reversed"}, {"order": "shuffled"}, {"error": 0.4}])
def test_replies_of_gemini_without_names_are_recognised_by_their_fences(step: BatchStep, tmp_path: Path) -> None:
    samples(tmp_path, 6)
    with server("gemini", script(6), {"latency": 0, "unlabelled": 1} | step) as provider:
        assert ask(tmp_path, provider, "gemini").pairs == 6
    check_once(provider)


def test_replies_of_gemini_in_order_are_read_though_one_has_no_fence(tmp_path: Path) -> None:
    samples(tmp_path, 6)
    answers = script(6) | {tag(1): [{"text": "I cannot find a mistake."}]}
    with server("gemini", answers, {"latency": 0, "unlabelled": 1}) as provider:
        assert ask(tmp_path, provider, "gemini", attempts=1).pairs == 5
    assert len(replies(tmp_path)) == 6
    assert len(provider.batches) == 1


def test_replies_of_gemini_that_cannot_be_told_apart_are_kept_and_not_paid_for_again(tmp_path: Path) -> None:
    samples(tmp_path, 6)
    answers = script(6) | {tag(1): [{"text": "I cannot find a mistake."}, good(1)]}
    with server("gemini", answers, {"latency": 0, "unlabelled": 1, "order": "reversed"}) as provider:
        with pytest.raises(Unfinished, match="returned 1 reply of batch batches/0001 without the names") as caught:
            ask(tmp_path, provider, "gemini", price_in=0, price_out=10)
        assert "without --batch" in str(caught.value.cure)
        assert len(replies(tmp_path)) == 5
        end = log(tmp_path)[-1]
        assert "cannot find a mistake" in json.dumps(end["unnamed"])
        assert (end["kind"], len(provider.batches)) == ("done", 1)
        assert end["unsettled"] > 0
        assert ask(tmp_path, provider, "gemini", batch=False, price_in=0, price_out=10).pairs == 6
        assert len(provider.requests) == 1


def test_a_cost_limit_that_allows_less_than_a_tenth_stops_before_a_tiny_batch(tmp_path: Path) -> None:
    samples(tmp_path, 21)
    usage = {"prompt_tokens": 40, "completion_tokens": 80}
    money = {"price_in": 0, "price_out": 10.0, "max_tokens": 100}
    highest = 100 * 10 / 1e6 / 2
    with server("openai", script(21, usage=usage)) as provider:
        with pytest.raises(BudgetReached, match="covers 2 of 21 requests") as caught:
            ask(tmp_path, provider, "openai", max_cost=2.5 * highest, **money)
        assert not provider.batches
        assert "set --max-cost to about $0.01" in str(caught.value.cure)
        # Of 21 requests ten cost as much as eight at their highest cost; at last the rest is less than a tenth.
        with pytest.raises(BudgetReached, match="--max-cost to about"):
            ask(tmp_path, provider, "openai", max_cost=10.5 * highest, **money)
        sizes = [len(batch.rows) for batch in provider.batches.values()]
        assert sizes == [10, 2]
        # The same command again does not submit the small rest either.
        with pytest.raises(BudgetReached):
            ask(tmp_path, provider, "openai", max_cost=10.5 * highest, **money)
        assert len(provider.batches) == len(sizes)
        assert ask(tmp_path, provider, "openai", max_cost=21 * highest, **money).pairs == 21
    check_once(provider)
