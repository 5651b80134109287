"""Error replies in the providers' own formats, over HTTP: each has its own message and cure, and none escapes."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from spotcli.errors import UserError
from spotcli.providers.litellm import LitellmClient
from spotcli.providers.replies import Reply, RequestFailed
from spotcli.providers.settings import ProviderSettings
from tests.fake_provider import FakeProvider
from tests.wire_formats import FORMATS, Body, WireServer


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for wire in FORMATS.values():
        for name, value in wire.environment.items():
            monkeypatch.setenv(name, value)


def ask(model: str, base_url: str, parameters: dict[str, Any] | None = None, **settings: Any) -> Reply:
    async def work() -> Reply:
        client = LitellmClient(model, ProviderSettings(base_url=base_url, timeout=20, **settings))
        try:
            return await client.chat([{"role": "user", "content": "What is 6 * 7?"}], 100, **(parameters or {}))
        finally:
            await client.close()

    return asyncio.run(work())


def error_of(name: str, status: int, body: Body, **settings: Any) -> UserError:
    """The error that stops the run for an error reply."""
    with WireServer(name, "good") as server:
        server.reply_with(lambda outcome, text: (status, body))
        with pytest.raises(UserError) as caught:
            ask(server.format.model, server.base_url, **settings)
        assert len(server.requests) == 1
    return caught.value


def google(status: int, message: str, name: str) -> Body:
    return {"error": {"code": status, "message": message, "status": name}}


def anthropic(kind: str, message: str) -> Body:
    return {"type": "error", "error": {"type": kind, "message": message}}


QUOTA = ("the provider's quota is exhausted", "add credit or raise the quota")
MODEL = ("unknown model at this provider", "check the model's name")
KEY = ("the provider rejected the key", "check the key in the environment")
PLACE = ("the provider does not serve this location", "use a provider that does")
ADDRESS = ("no model is served at this address", "check --base-url")
PERMANENT: list[tuple[str, int, Body, tuple[str, str]]] = [
    ("openai", 429, {"error": {"message": "See your plan.", "type": "insufficient_quota"}}, QUOTA),
    ("anthropic", 400, anthropic("invalid_request_error", "Your credit balance is too low to access the API."), QUOTA),
    ("openrouter", 402, {"error": {"message": "Insufficient credits. Add more.", "code": 402}}, QUOTA),
    ("gemini", 429, google(429, "Your prepayment credits are depleted.", "RESOURCE_EXHAUSTED"), QUOTA),
    ("vertex_ai", 429, google(429, "The project exceeded its monthly spending cap.", "RESOURCE_EXHAUSTED"), QUOTA),
    ("bedrock", 429, {"message": "Too many tokens per day, please wait before trying again."}, QUOTA),
    ("openai", 404, {"error": {"message": "The model `gpt-9` does not exist.", "code": "model_not_found"}}, MODEL),
    ("azure", 404, {"error": {"code": "DeploymentNotFound", "message": "The API deployment does not exist."}}, MODEL),
    ("vllm", 404, {"object": "error", "message": "The model `x` does not exist.", "code": 404}, MODEL),
    ("anthropic", 404, anthropic("not_found_error", "model: claude-nine"), MODEL),
    ("openrouter", 400, {"error": {"message": "foo/bar is not a valid model ID", "code": 400}}, MODEL),
    ("gemini", 404, google(404, "models/g is not found for API version v1beta", "NOT_FOUND"), MODEL),
    ("vertex_ai", 404, google(404, "Publisher Model `g` was not found.", "NOT_FOUND"), MODEL),
    ("bedrock", 400, {"message": "The provided model identifier is invalid."}, MODEL),
    ("openai", 410, {"error": {"message": "The model has been removed."}}, MODEL),
    ("ollama", 404, {"error": "model 'llama9' not found, try pulling it first"}, (MODEL[0], "ollama pull llama9")),
    ("ollama_chat", 404, {"error": 'model "llama9" not found'}, (MODEL[0], "ollama pull llama9")),
    ("openai", 401, {"error": {"message": "Incorrect API key provided.", "code": "invalid_api_key"}}, KEY),
    ("azure", 401, {"error": {"code": "401", "message": "Access denied due to invalid subscription key."}}, KEY),
    ("anthropic", 401, anthropic("authentication_error", "invalid x-api-key"), KEY),
    ("anthropic", 403, anthropic("permission_error", "Your API key does not have permission"), KEY),
    ("openrouter", 401, {"error": {"message": "No auth credentials found", "code": 401}}, KEY),
    ("gemini", 400, google(400, "API key not valid. Please pass a valid API key.", "INVALID_ARGUMENT"), KEY),
    ("vertex_ai", 403, google(403, "Permission denied on resource project.", "PERMISSION_DENIED"), KEY),
    ("bedrock", 403, {"message": "The security token included in the request is invalid."}, KEY),
    ("gemini", 400, google(400, "User location is not supported for the API use.", "FAILED_PRECONDITION"), PLACE),
    ("openai", 403, {"error": {"message": "Country, region, or territory not supported"}}, PLACE),
    ("vllm", 404, {"detail": "Not Found"}, ADDRESS),
    ("vllm", 405, {"detail": "Method Not Allowed"}, ADDRESS),
    ("vllm", 400, {"error": {"message": "The plain HTTP request was sent to HTTPS port"}}, ("expects TLS", "https://")),
    ("vllm", 407, {}, ("the proxy requires a user and a password", "HTTPS_PROXY")),
    ("vllm", 302, {}, ("the address redirects", "check --base-url")),
]


@pytest.mark.parametrize(("name", "status", "body", "expected"), PERMANENT)
def test_what_no_request_can_get_past_stops_at_once(
    name: str, status: int, body: Body, expected: tuple[str, str]
) -> None:
    error = error_of(name, status, body)
    assert expected[0] in error.message
    assert error.cure is not None
    assert expected[1] in error.cure
    # One line in plain words: neither litellm's names nor JSON.
    assert not set(error.message) & set("\n{}")
    assert "litellm" not in error.message
    assert "Exception" not in error.message
    assert error.where == FORMATS[name].model


def test_the_cure_names_the_option_of_the_command() -> None:
    body = {"message": "The model `x` does not exist.", "code": 404}
    assert "(--oracle)" in str(error_of("vllm", 404, body))
    assert "(--model)" in str(error_of("vllm", 404, body, section="sample"))


SAMPLE_KEYS = {"seed": "-s sample.send_seed=false", "top_p": "-s sample.top_p=null"}
SENT = {"seed": 7, "top_p": 0.8}
ONLY_ONE = "`temperature` and `top_p` cannot both be specified for this model. Please use only one."
EXTRA_SEED = {"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]}
REFUSED: list[tuple[str, int, Body, str]] = [
    (
        "openai",
        400,
        {"error": {"message": "Unsupported value: 'temperature' does not support 0 with this model.",
                   "param": "temperature", "code": "unsupported_value"}},
        "sample.temperature=null",
    ),
    ("openai", 400, {"error": {"message": "Unrecognized request argument supplied: seed"}}, "sample.send_seed=false"),
    ("vllm", 400, {"object": "error", "message": "seed must be None", "code": 400}, "sample.send_seed=false"),
    ("vllm", 422, EXTRA_SEED, "sample.send_seed=false"),
    ("vllm", 400, {"error": {"message": ONLY_ONE}}, "sample.temperature=null"),
    ("vllm", 400, {"error": {"message": "`top_p` is deprecated for this model."}}, "sample.top_p=null"),
    ("vllm", 400, {"error": {"message": "Unknown parameter: 'mystery'."}}, "from sample.params: mystery"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "status", "body", "cure"), REFUSED)
def test_a_refused_parameter_is_named_with_what_leaves_it_out(name: str, status: int, body: Body, cure: str) -> None:
    settings = {"section": "sample", "temperature": 0.0, "unset": SAMPLE_KEYS, "params": {"mystery": 1}}
    if name == "openai":
        settings["params"] = {}
    error = error_of(name, status, body, parameters=SENT, **settings)
    assert cure in str(error.cure)
    assert "does not accept" in error.message


@pytest.mark.parametrize("name", ["anthropic", "bedrock"])
def test_a_parameter_that_litellm_refuses_is_named_too(name: str) -> None:
    with WireServer(name, "good") as server:
        with pytest.raises(UserError, match="does not accept 'seed'") as caught:
            ask(server.format.model, server.base_url, {"seed": 7}, unset=SAMPLE_KEYS, section="sample")
        assert server.requests == []
    assert "sample.send_seed=false" in str(caught.value.cure)
    assert "drop_params" not in str(caught.value)


def test_a_rejected_request_about_something_else_stops_nothing() -> None:
    message = "Invalid content: 'the temperature of the seed is unsupported by facts'"
    with WireServer("vllm", "good") as server:
        server.reply_with(lambda outcome, text: (400, {"error": {"message": message}}))
        with pytest.raises(RequestFailed, match="Invalid content"):
            ask(server.format.model, server.base_url)


def test_the_token_limit_is_renamed_for_a_model_that_wants_it_so() -> None:
    message = (
        "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    )

    async def work(server: WireServer) -> list[Reply]:
        client = LitellmClient("azure/deployment", ProviderSettings(base_url=server.base_url))
        try:
            return [await client.chat([{"role": "user", "content": "hi"}], 100) for _ in range(2)]
        finally:
            await client.close()

    with WireServer("azure", "good") as server:
        good = server.format.replies

        def replies(outcome: str, text: str) -> tuple[int, Body] | None:
            if "max_tokens" in server.requests[-1][1]:
                return 400, {"error": {"message": message, "param": "max_tokens", "code": "unsupported_parameter"}}
            return good(outcome, text)

        server.reply_with(replies)
        both = asyncio.run(work(server))
        # The second request has the right name at once.
        names = [sorted({"max_tokens", "max_completion_tokens"} & body.keys()) for _, body in server.requests]
    assert names == [["max_tokens"], ["max_completion_tokens"], ["max_completion_tokens"]]
    # The record has the name and the value that were sent.
    assert [reply.sent for reply in both] == [{"max_completion_tokens": 100}] * 2


@pytest.mark.parametrize("name", FORMATS)
def test_what_was_sent_is_what_the_provider_got(name: str) -> None:
    with WireServer(name, "good") as server:
        reply = ask(server.format.model, server.base_url, {"top_p": 0.9, "top_k": 20}, temperature=0.3)
        ((_, body),) = server.requests
    assert reply.sent

    def leaves(value: Any) -> Iterator[tuple[str, Any]]:
        for key, item in value.items():
            yield from leaves(item) if isinstance(item, dict) else [(key, item)]

    got = {key: value for key, value in leaves(body) if isinstance(value, int | float) and value is not False}
    recorded = {path.rpartition(".")[2]: value for path, value in reply.sent.items() if value is not False}
    assert recorded == got
    assert sorted(recorded.values()) == [0.3, 0.9] + ([True] if name == "openrouter" else []) + [20, 100] or (
        name == "openrouter"
    )
    assert "6 * 7" not in str(reply.sent)


def test_a_parameter_that_litellm_drops_is_reported_and_not_recorded(capsys: pytest.CaptureFixture[str]) -> None:
    with WireServer("anthropic", "good") as server:
        reply = ask(server.format.model, server.base_url, {"seed": 7}, params={"drop_params": True})
        ((_, body),) = server.requests
    assert "seed" not in body
    assert reply.sent == {"max_tokens": 100}
    assert "'seed' is not sent to this provider" in capsys.readouterr().err


ODD_BODIES: list[Any] = [
    "",
    "null",
    "[]",
    '[{"error": "a list"}]',
    '"text"',
    "12",
    "{" * 2000,
    '{"error": null}',
    '{"error": []}',
    '{"error": {"message": ["a", 1]}}',
    '{"error": {"message": {"deep": 1}}}',
    "<html><body>" + "<p>sorry</p>" * 100_000,
    "maximum context length is " + "9" * 5000 + " tokens and your request has 1 input tokens",
    "\x1b]0;title\x07 \ud83d broken".encode("utf-8", "replace").decode(),
]


TOO_LONG: list[tuple[int, Body]] = [  # as TGI, SGLang, vLLM, llama.cpp and LM Studio reject a long prompt
    (422, {"error": "Input validation error: `inputs` must have less than 4096 tokens. Given: 5000"}),
    (400, {"message": "Input length (5000 tokens) exceeds the maximum allowed length (4090 tokens).", "code": 400}),
    (400, {"error": {"message": "However, the model's context length is only 4096 tokens.", "code": 400}}),
    (400, {"error": {"message": "request (5000 tokens) exceeds the available context size (4096 tokens)"}}),
    (400, {"error": "The model is loaded with context length of only 4096 tokens, which is not enough."}),
]


@pytest.mark.parametrize("name", ["openai", "vllm"])
@pytest.mark.parametrize(("status", "body"), TOO_LONG)
def test_a_prompt_that_does_not_fit_is_declined_by_every_server(name: str, status: int, body: Body) -> None:
    with WireServer(name, "good") as server:
        server.reply_with(lambda outcome, text: (status, body))
        reply = ask(server.format.model, server.base_url)
    assert (reply.finish_reason, reply.reason) == ("declined", "too long for the model")


def test_the_message_of_an_error_is_the_providers_and_no_trace() -> None:
    text = {"status": 400, "body": {"error": "`top_p` must be > 0.0"}}
    parts = {"text": "", "message": {"content": [{"type": "text", "text": "4"}]}}
    for step, message in ((text, "`top_p` must be > 0.0"), (parts, "Invalid response object")):
        with FakeProvider(default=step) as provider, pytest.raises(RequestFailed) as caught:
            ask("openai/mine", provider.base_url)
        assert str(caught.value) == message


@pytest.mark.parametrize("status", [400, 404, 500])
@pytest.mark.parametrize("name", ["openai", "vllm", "gemini"])
def test_no_body_of_an_error_escapes(name: str, status: int) -> None:
    async def work(server: WireServer) -> list[str]:
        client = LitellmClient(server.format.model, ProviderSettings(base_url=server.base_url, timeout=20))
        results = []
        for body in ODD_BODIES:
            server.reply_with(lambda outcome, text, body=body: (status, body))  # type: ignore[misc]  # a default binds the loop's value
            try:
                results.append((await client.chat([{"role": "user", "content": "hi"}], 100)).finish_reason)
            except (RequestFailed, UserError) as error:
                results.append(str(error))
        await client.close()
        return results

    with WireServer(name, "good") as server:
        results = asyncio.run(work(server))
    assert len(results) == len(ODD_BODIES)
    assert all(0 < len(result) < 1000 for result in results)


@pytest.mark.parametrize(
    "value", ["inf", "-inf", "nan", "-5", "1e400", "9" * 400, "", "Wed, 99 Foo 2999 99:99:99", "Thu, 01 Jan 99999999 0"]
)
def test_no_pause_is_negative_or_endless(value: str) -> None:
    step = {"status": 429, "headers": {"retry-after": value}}
    with FakeProvider(default=step) as provider, pytest.raises(RequestFailed) as caught:
        ask("hosted_vllm/mine", provider.base_url)
    pause = caught.value.retry_after
    assert pause is None or 0 <= pause < float("inf")


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return authority


@pytest.mark.parametrize("name", ["openai", "vllm", "anthropic", "gemini", "ollama_chat"])
def test_a_private_certificate_authority_is_trusted_by_its_file(
    name: str, authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with WireServer(name, "good", tls=context) as server:
        assert server.base_url.startswith("https://")
        monkeypatch.delenv("SSL_CERT_FILE", raising=False)
        with pytest.raises(UserError, match="certificate is not trusted") as caught:
            ask(server.format.model, server.base_url)
        assert "export SSL_CERT_FILE=" in str(caught.value)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "missing.pem"))
        with pytest.raises(UserError, match="names a file that does not exist"):
            ask(server.format.model, server.base_url)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        assert ask(server.format.model, server.base_url).text == "hello"


def test_tls_and_plain_text_are_told_apart(authority: trustme.CA) -> None:
    with WireServer("vllm", "good") as server, pytest.raises(UserError, match="does not speak TLS") as caught:
        ask("hosted_vllm/m", server.base_url.replace("http://", "https://"))
    assert "use http:// in --base-url" in str(caught.value)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with WireServer("vllm", "good", tls=context) as server, pytest.raises(RequestFailed, match="use https:// in"):
        ask("hosted_vllm/m", server.base_url.replace("https://", "http://"))


@pytest.mark.parametrize(
    ("url", "message", "cure"),
    [
        ("http://no.such.host.invalid/v1", "host not found", "check --base-url"),
        ("127.0.0.1:80/v1", "invalid address", "http://HOST:PORT/v1"),
        ("ftp://127.0.0.1/v1", "invalid address", "http://HOST:PORT/v1"),
        ("http://127.0.0.1:99999/v1", "invalid port", "http://HOST:PORT/v1"),
    ],
)
def test_an_address_that_leads_nowhere_is_named(url: str, message: str, cure: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        ask("hosted_vllm/m", url)
    assert cure in str(caught.value)


def test_a_proxy_that_is_down_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with pytest.raises(UserError, match="the proxy cannot be reached") as caught:
        ask("hosted_vllm/m", "http://example.invalid/v1")
    assert "HTTP_PROXY" in str(caught.value)
