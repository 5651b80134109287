"""The litellm oracle against a real HTTP server."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from spotcli.core.oracle_prompts import Ask
from spotcli.errors import RecipeError, UserError
from spotcli.oracles import ProviderOracle, Request
from spotcli.oracles.by_name import create
from spotcli.providers.litellm import LitellmOracle, redact
from spotcli.providers.replies import PassingFailure, Reply
from spotcli.recipe import RectifySection
from spotcli.records import Sample
from tests.fake_provider import FakeProvider

KEY = "sk-test-0123456789abcdef"
SAMPLE = Sample(id="a", prompt="1 + 1", answer="2", response="\\boxed{3}", verdict="wrong")


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def correct(step: dict[str, Any], model: str = "gpt-4o", **settings: Any) -> Reply:
    """What the oracle makes of one answer of the provider."""
    with FakeProvider({"hello": [step]}) as provider:
        oracle = LitellmOracle(model, RectifySection(base_url=provider.base_url, **settings))
        oracle.ready()

        async def work() -> Reply:
            try:
                return await oracle.correct(Request(SAMPLE, Ask(messages=[{"role": "user", "content": "hello"}])))
            finally:
                await oracle.close()

        try:
            return asyncio.run(work())
        finally:
            # Not one retry behind our back.
            assert provider.count("hello") == 1


def failure(step: dict[str, Any], **settings: Any) -> PassingFailure:
    with pytest.raises(PassingFailure) as caught:
        correct(step, **settings)
    return caught.value


def test_a_reply_comes_whole_with_usage_and_price() -> None:
    usage = {"prompt_tokens": 1000, "completion_tokens": 200}
    found = correct({"text": "hi", "usage": usage})
    assert (found.text, found.finish_reason, found.model) == ("hi", "stop", "gpt-4o-as-served")
    assert found.usage["prompt_tokens"] == 1000
    # litellm's table: 2.50 and 10 US dollars a million: 0.0025 + 0.0020
    assert found.cost == pytest.approx(0.0045)


def test_given_prices_replace_litellms() -> None:
    usage = {"prompt_tokens": 1000, "completion_tokens": 200}
    found = correct({"text": "hi", "usage": usage}, price_in=1.0, price_out=5.0)
    assert found.cost == pytest.approx(0.001 + 0.001)


def test_an_unknown_price_is_none_and_not_nothing() -> None:
    assert correct({"text": "hi"}, model="hosted_vllm/mine").cost is None
    # The price is known, but not of how much.
    assert correct({"text": "hi", "usage": False}).cost is None
    assert correct({"text": "hi", "usage": False}, price_in=1.0, price_out=5.0).cost is None


def test_parameters_reach_the_provider() -> None:
    with FakeProvider({"hello": [{"text": "hi"}]}) as provider:
        settings = RectifySection(base_url=provider.base_url, temperature=0.3, max_tokens=77, params={"top_p": 0.9})
        oracle = LitellmOracle("gpt-4o", settings)
        ask = Ask(messages=[{"role": "user", "content": "hello"}], budget=2)

        async def work() -> None:
            await oracle.correct(Request(SAMPLE, ask))
            await oracle.close()

        asyncio.run(work())
    body = provider.requests[0]["body"]
    # A budget of 2 is twice the tokens.
    assert (body["temperature"], body["max_tokens"], body["top_p"]) == (0.3, 154, 0.9)
    assert provider.requests[0]["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    ("step", "text", "finish"),
    [
        ({"text": "ab", "finish": "length"}, "ab", "length"),
        ({"text": "", "finish": "content_filter"}, "", "filtered"),
        ({"text": None}, "", "stop"),
        ({"text": None, "message": {"refusal": "I will not."}}, "I will not.", "refused"),
    ],
)
def test_a_reply_that_is_none_says_so(step: dict[str, Any], text: str, finish: str) -> None:
    found = correct(step)
    assert (found.text, found.finish_reason) == (text, finish)


def body(message: str, **more: str) -> dict[str, Any]:
    return {"error": {"message": message, **more}}


@pytest.mark.parametrize("model", ["gpt-4o", "hosted_vllm/mine"])
@pytest.mark.parametrize(
    ("step", "kind", "billed"),
    [
        ({"status": 429, "body": body("slow down")}, "rate limit", False),
        ({"status": 500}, "server", False),
        ({"status": 502}, "server", False),
        ({"status": 503}, "server", False),
        ({"status": 400, "body": body("no such parameter")}, "bad request", False),
        ({"status": 413, "body": body("too large")}, "bad request", False),
        ({"reset": True}, "connection", True),
        ({"half": True}, "connection", True),
    ],
)
def test_passing_failures_are_told_apart(step: dict[str, Any], kind: str, billed: bool, model: str) -> None:
    found = failure(step, model=model)
    assert (found.kind, found.maybe_billed) == (kind, billed)
    assert found.retry == (kind != "bad request")


@pytest.mark.parametrize("model", ["gpt-4o", "hosted_vllm/mine"])
@pytest.mark.parametrize("body", [True, "[]", "7", "{}", '{"choices": null}', '{"choices": [{}]}', '{"choices": {}}'])
def test_a_body_that_is_no_reply_may_have_been_charged(body: bool | str, model: str) -> None:
    found = failure({"garbage": body}, model=model)
    assert (found.kind, found.maybe_billed, found.retry) == ("unreadable", True, True)


def test_a_slow_reply_times_out() -> None:
    found = failure({"delay": 5}, timeout=0.2)
    assert (found.kind, found.maybe_billed) == ("time-out", True)


def test_a_server_that_is_not_there_costs_nothing() -> None:
    oracle = LitellmOracle("gpt-4o", RectifySection(base_url="http://127.0.0.1:9/v1"))

    async def work() -> None:
        await oracle.correct(Request(SAMPLE, Ask(messages=[{"role": "user", "content": "hello"}])))

    with pytest.raises(PassingFailure) as caught:
        asyncio.run(work())
    assert (caught.value.kind, caught.value.maybe_billed) == ("connection", False)


@pytest.mark.parametrize(
    ("step", "seconds"),
    [
        ({"headers": {"retry-after": "3"}}, 3.0),
        ({"headers": {"retry-after": "0.5"}}, 0.5),
        ({"headers": {"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}}, 0.0),
        ({"headers": {"retry-after": "soon"}}, None),
        ({}, None),
        # Google says it in the body, and calls a limit a minute a quota.
        ({"body": body('You exceeded your current quota. {"retryDelay": "12s"}')}, 12.0),
    ],
)
def test_the_time_to_wait_is_the_providers(step: dict[str, Any], seconds: float | None) -> None:
    assert failure({"status": 429, "body": body("slow down")} | step).retry_after == seconds


@pytest.mark.parametrize(
    ("step", "told", "cure"),
    [
        ({"status": 401, "body": body(f"Incorrect API key: {KEY}")}, "does not accept the key", "check the key"),
        ({"status": 403, "body": body("no access")}, "does not accept the key", "may use this model"),
        ({"status": 404, "body": body("no such model")}, "has no such model", "check --oracle"),
        ({"status": 402, "body": body("pay first")}, "quota is used up", "add credit"),
        ({"status": 429, "body": body("You exceeded your current quota")}, "quota", "credit"),
        ({"status": 429, "body": body("See your plan", code="insufficient_quota")}, "quota", "credit"),
    ],
)
def test_what_cannot_pass_stops_with_the_cure(step: dict[str, Any], told: str, cure: str) -> None:
    with pytest.raises(UserError, match=told) as caught:
        correct(step)
    assert cure in str(caught.value)
    assert caught.value.exit_code == 2
    assert KEY not in str(caught.value)
    # Nothing of the original, which holds the key, is shown in a traceback either.
    assert caught.value.__suppress_context__


def test_a_request_that_one_row_makes_impossible_is_that_rows_reply() -> None:
    too_long = {"status": 400, "body": body("maximum context length is 4097 tokens", code="context_length_exceeded")}
    assert correct(too_long).reason == "too long for the model"
    assert correct({"status": 400, "body": body("violates our content policy")}).finish_reason == "filtered"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("gpt-4o", "OPENAI_API_KEY"),
        ("gemini/gemini-2.5-pro", "GEMINI_API_KEY or GOOGLE_API_KEY"),
        ("anthropic/claude-sonnet-4-5", "ANTHROPIC_API_KEY"),
        ("hosted_vllm/mine", "has no address"),
        ("nonsense", "no oracle is called 'nonsense'"),
    ],
)
def test_what_is_missing_is_named_before_any_request(name: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("OPENAI_API_KEY", "GEMINI_API_KEY", "GOOGLE_API_KEY", "ANTHROPIC_API_KEY", "HOSTED_VLLM_API_BASE"):
        monkeypatch.delenv(variable, raising=False)
    oracle = create(name, RectifySection())
    assert isinstance(oracle, ProviderOracle)
    with pytest.raises(UserError, match=told):
        oracle.ready()


def test_an_empty_key_is_a_missing_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", " ")
    with pytest.raises(UserError, match="OPENAI_API_KEY"):
        LitellmOracle("gpt-4o", RectifySection()).ready()


def test_settings_that_do_not_fit_are_refused() -> None:
    with pytest.raises(RecipeError, match="'api_key' cannot be set here"):
        LitellmOracle("gpt-4o", RectifySection(params={"api_key": KEY}))
    # It would pass by what is reserved under a limit.
    with pytest.raises(RecipeError, match="'max_completion_tokens' cannot be set here"):
        LitellmOracle("gpt-4o", RectifySection(params={"max_completion_tokens": 100_000}))
    with pytest.raises(RecipeError, match="prices come in pairs"):
        LitellmOracle("gpt-4o", RectifySection(price_in=1.0))


def test_a_version_names_what_shapes_the_reply() -> None:
    # The address and the token limit do not: a model moves, and a whole reply is as good under any limit.
    plain = LitellmOracle("gpt-4o", RectifySection()).version
    assert LitellmOracle("gpt-4o", RectifySection(base_url="http://x", max_tokens=5)).version == plain
    assert LitellmOracle("gpt-4o", RectifySection(temperature=0.5)).version == "temperature=0.5"


def test_the_worst_cost_is_never_less_than_the_cost() -> None:
    oracle = LitellmOracle("gpt-4o", RectifySection(price_in=1.0, price_out=10.0, max_tokens=1000))
    request = Request(SAMPLE, Ask(messages=[{"role": "user", "content": "é" * 92}]))
    # 184 bytes and 16 around them are 200 tokens at most: 0.0002; 1,000 reply tokens: 0.01
    assert oracle.worst_cost(request) == pytest.approx(0.0102)


@pytest.mark.parametrize(
    "secret",
    [
        KEY,
        "sk-proj-abc***********xyz",
        "AIzaSyA0123456789",
        "AKIAIOSFODNN7EXAMPLE",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln",
        "hf_abcdefghijklmnop",
    ],
)
def test_what_looks_like_a_key_is_redacted(secret: str) -> None:
    assert secret not in redact(f"Incorrect key provided: {secret}. See the page.")
    assert redact("a plain text about 12 + 30") == "a plain text about 12 + 30"


def test_values_of_the_environment_are_redacted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_OWN_TOKEN", "correct horse battery")
    assert redact("it was correct horse battery, sent in the URL") == "it was [redacted], sent in the URL"


def test_litellm_prints_nothing(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    failure({"status": 500})
    assert capfd.readouterr() == ("", "")
