"""The litellm client against a real HTTP server."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from spotcli.errors import RecipeError, UserError
from spotcli.providers.litellm import LitellmClient
from spotcli.providers.replies import Reply, RequestFailed
from spotcli.providers.settings import ProviderSettings
from spotcli.records import Message
from spotcli.redaction import redact
from tests.fake_provider import FakeProvider

KEY = "sk-test-0123456789abcdef"
HELLO: list[Message] = [{"role": "user", "content": "hello"}]


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def client(model: str = "gpt-4o", **settings: Any) -> LitellmClient:
    return LitellmClient(model, ProviderSettings(**settings))


def chat(asked: LitellmClient, max_tokens: int = 1000) -> Reply:
    async def work() -> Reply:
        try:
            return await asked.chat(HELLO, max_tokens)
        finally:
            await asked.close()

    return asyncio.run(work())


def ask(step: dict[str, Any], model: str = "gpt-4o", **settings: Any) -> Reply:
    """The reply that the client makes of one answer of the provider."""
    with FakeProvider({"hello": [step]}) as provider:
        asked = client(model, base_url=provider.base_url, **settings)
        asked.check_environment()
        try:
            return chat(asked)
        finally:
            # The client never sends a request again on its own.
            assert provider.count("hello") == 1


def failure(step: dict[str, Any], **settings: Any) -> RequestFailed:
    with pytest.raises(RequestFailed) as caught:
        ask(step, **settings)
    return caught.value


def test_a_reply_has_text_usage_and_cost() -> None:
    usage = {"prompt_tokens": 1000, "completion_tokens": 200}
    reply = ask({"text": "hi", "usage": usage})
    assert (reply.text, reply.finish_reason, reply.model) == ("hi", "stop", "gpt-4o-as-served")
    assert reply.usage["prompt_tokens"] == 1000
    # litellm's table: 2.50 and 10 US dollars a million: 0.0025 + 0.0020
    assert reply.cost == pytest.approx(0.0045)


def test_prices_that_are_set_replace_litellms() -> None:
    usage = {"prompt_tokens": 1000, "completion_tokens": 200}
    reply = ask({"text": "hi", "usage": usage}, price_in=1.0, price_out=5.0)
    assert reply.cost == pytest.approx(0.001 + 0.001)


def test_an_unknown_cost_is_none_and_not_zero() -> None:
    assert ask({"text": "hi"}, model="hosted_vllm/mine").cost is None
    # The price is known, but not the number of tokens.
    assert ask({"text": "hi", "usage": False}).cost is None
    assert ask({"text": "hi", "usage": False}, price_in=1.0, price_out=5.0).cost is None


def test_parameters_reach_the_provider() -> None:
    with FakeProvider({"hello": [{"text": "hi"}]}) as provider:
        chat(client(base_url=provider.base_url, temperature=0.3, params={"top_p": 0.9}), max_tokens=77)
    body = provider.requests[0]["body"]
    assert (body["temperature"], body["max_tokens"], body["top_p"]) == (0.3, 77, 0.9)
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
def test_a_reply_without_an_answer_has_its_finish_reason(step: dict[str, Any], text: str, finish: str) -> None:
    reply = ask(step)
    assert (reply.text, reply.finish_reason) == (text, finish)


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
def test_each_failure_has_its_kind(step: dict[str, Any], kind: str, billed: bool, model: str) -> None:
    error = failure(step, model=model)
    assert (error.kind, error.maybe_billed) == (kind, billed)
    assert error.retryable == (kind != "bad request")


@pytest.mark.parametrize("model", ["gpt-4o", "hosted_vllm/mine"])
@pytest.mark.parametrize("body", [True, "[]", "7", "{}", '{"choices": null}', '{"choices": [{}]}', '{"choices": {}}'])
def test_an_unreadable_body_may_have_been_charged(body: bool | str, model: str) -> None:
    error = failure({"garbage": body}, model=model)
    assert (error.kind, error.maybe_billed, error.retryable) == ("unreadable", True, True)


def test_a_slow_reply_times_out() -> None:
    error = failure({"delay": 5}, timeout=0.2)
    assert (error.kind, error.maybe_billed) == ("time-out", True)


def test_a_server_that_does_not_exist_costs_nothing() -> None:
    with pytest.raises(RequestFailed) as caught:
        chat(client(base_url="http://127.0.0.1:9/v1"))
    assert (caught.value.kind, caught.value.maybe_billed) == ("connection", False)


@pytest.mark.parametrize(
    ("step", "seconds"),
    [
        ({"headers": {"retry-after": "3"}}, 3.0),
        ({"headers": {"retry-after": "0.5"}}, 0.5),
        ({"headers": {"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}}, 0.0),
        ({"headers": {"retry-after": "soon"}}, None),
        ({}, None),
        # Google puts it in the body, and calls a limit per minute a quota.
        ({"body": body('You exceeded your current quota. {"retryDelay": "12s"}')}, 12.0),
    ],
)
def test_the_pause_is_the_providers(step: dict[str, Any], seconds: float | None) -> None:
    assert failure({"status": 429, "body": body("slow down")} | step).retry_after == seconds


@pytest.mark.parametrize(
    ("step", "message", "cure"),
    [
        ({"status": 401, "body": body(f"Incorrect API key: {KEY}")}, "rejected the key", "check the key"),
        ({"status": 403, "body": body("no access")}, "rejected the key", "may use this model"),
        ({"status": 404, "body": body("no such model")}, "unknown model", "--oracle"),
        ({"status": 402, "body": body("pay first")}, "quota is exhausted", "add credit"),
        ({"status": 429, "body": body("You exceeded your current quota")}, "quota", "credit"),
        ({"status": 429, "body": body("See your plan", code="insufficient_quota")}, "quota", "credit"),
    ],
)
def test_a_permanent_error_stops_with_its_cure(step: dict[str, Any], message: str, cure: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        ask(step)
    assert cure in str(caught.value)
    assert caught.value.exit_code == 2
    assert KEY not in str(caught.value)
    # A traceback does not show the original error either, which holds the key.
    assert caught.value.__suppress_context__


def test_a_request_that_is_impossible_for_one_row_gets_a_reply() -> None:
    too_long = {"status": 400, "body": body("maximum context length is 4097 tokens", code="context_length_exceeded")}
    assert ask(too_long).reason == "too long for the model"
    assert ask({"status": 400, "body": body("violates our content policy")}).finish_reason == "filtered"


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("gpt-4o", "OPENAI_API_KEY"),
        ("gemini/gemini-2.5-pro", "GEMINI_API_KEY or GOOGLE_API_KEY"),
        ("anthropic/claude-sonnet-4-5", "ANTHROPIC_API_KEY"),
        ("hosted_vllm/mine", "requires an address"),
        ("nonsense", "rectify.oracle: unknown model 'nonsense'"),
    ],
)
def test_a_missing_setting_is_named_before_any_request(
    model: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("OPENAI_API_KEY", "GEMINI_API_KEY", "GOOGLE_API_KEY", "ANTHROPIC_API_KEY", "HOSTED_VLLM_API_BASE"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(UserError, match=message):
        client(model).check_environment()


def test_an_empty_key_is_a_missing_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", " ")
    with pytest.raises(UserError, match="OPENAI_API_KEY"):
        client().check_environment()


def test_contradictory_settings_are_rejected() -> None:
    with pytest.raises(RecipeError, match=r"rectify\.params: 'api_key' cannot be set here"):
        client(params={"api_key": KEY})
    # It would bypass what is reserved under a cost limit.
    with pytest.raises(RecipeError, match="'max_completion_tokens' cannot be set here"):
        client(params={"max_completion_tokens": 100_000})
    with pytest.raises(RecipeError, match=r"sample\.price_in: set both price_in and price_out"):
        client(price_in=1.0, section="sample")


def test_the_version_names_what_shapes_the_reply() -> None:
    # Not the address, since a model can move.
    plain = client().version
    assert client(base_url="http://x").version == plain
    assert client(temperature=0.5).version == "temperature=0.5"


def test_the_worst_cost_is_never_less_than_the_cost() -> None:
    messages: list[Message] = [{"role": "user", "content": "é" * 92}]
    # 184 bytes and 16 around them are 200 tokens at most: 0.0002; 1,000 reply tokens: 0.01
    assert client(price_in=1.0, price_out=10.0).worst_cost(messages, 1000) == pytest.approx(0.0102)


@pytest.mark.parametrize(
    "listed",
    [
        {"input_cost_per_token": 0, "output_cost_per_token": 0},
        {"input_cost_per_token": 0, "output_cost_per_token": 1e-5},
        {"input_cost_per_token": 1e-6, "output_cost_per_token": 0.0},
        {"input_cost_per_token": 1e-6, "output_cost_per_token": None},
        {"output_cost_per_token": 1e-5},
        {"input_cost_per_token": 1e-6},
        {"input_cost_per_token": float("nan"), "output_cost_per_token": 1e-5},
        {"input_cost_per_token": "1e-6", "output_cost_per_token": 1e-5},
        {},
    ],
)
def test_a_price_that_is_missing_in_litellms_table_is_unknown(
    listed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = client()
    monkeypatch.setattr(model._litellm, "get_model_info", lambda name: listed)
    assert model.price_of(1000, 1000) is None
    assert model.worst_cost([{"role": "user", "content": "?"}], 1000) is None
    # The prices that are set count, also 0.
    assert client(price_in=0.0, price_out=10.0).price_of(1000, 1000) == pytest.approx(0.01)


def test_the_worst_cost_is_that_of_reasoning_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    model = client()
    listed = {"input_cost_per_token": 1e-6, "output_cost_per_token": 1e-5, "output_cost_per_reasoning_token": 4e-5}
    monkeypatch.setattr(model._litellm, "get_model_info", lambda name: listed)
    # 4 bytes and 16 around them: 20 prompt tokens; 1,000 tokens of reasoning.
    assert model.worst_cost([{"role": "user", "content": "1+1?"}], 1000) == pytest.approx(20e-6 + 0.04)


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
def test_text_that_looks_like_a_key_is_redacted(secret: str) -> None:
    assert secret not in redact(f"Incorrect key provided: {secret}. See the page.")
    assert redact("a plain text about 12 + 30") == "a plain text about 12 + 30"


def test_keys_of_the_environment_are_redacted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_OWN_TOKEN", "correct horse battery")
    assert redact("it was correct horse battery, sent in the URL") == "it was [redacted], sent in the URL"


def test_litellm_prints_nothing(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    failure({"status": 500})
    assert capfd.readouterr() == ("", "")
