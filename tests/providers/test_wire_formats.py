"""Replies in the native formats of the providers, through litellm, over HTTP: none raises, and each is understood.

The table in docs/providers.md is the result of this test: ``SPOT_WRITE_DOCS=1`` writes it again.
"""

from __future__ import annotations

import asyncio
import os
from functools import cache
from pathlib import Path

import pytest

from spotcli.providers.litellm import LitellmClient
from spotcli.providers.replies import Reply, RequestFailed
from spotcli.providers.settings import ProviderSettings
from tests.wire_formats import FORMATS, OUTCOMES, WireServer, outcomes

DOCS = Path(__file__).parents[2] / "docs" / "providers.md"
BEGIN, END = "<!-- begin of the table -->\n", "<!-- end of the table -->\n"

EXPECTED = {
    "good": {"stop"},
    "refused": {"refused"},
    "filtered": {"filtered"},
    "blocked": {"filtered"},
    "truncated": {"length"},
    "empty": {"stop, empty"},
    "reasoning": {"stop, reasoning only"},
    # litellm keeps no trace of Anthropic's, Bedrock's and Ollama's unknown reasons.
    "unknown": {"incomplete: repetition", "stop"},
    "error": {"incomplete: error", "failed: server"},
    # litellm cannot read Anthropic's, Bedrock's and Gemini's responses without usage.
    "no usage": {"stop", "failed: unreadable"},
    "no choices": {"incomplete: no choices", "stop, empty"},
    "two choices": {"stop"},
}
"""Outcome -> what may become of it."""

CASES = [(name, outcome) for name in FORMATS for outcome in outcomes(name)]


async def ask(server: WireServer, max_tokens: int) -> Reply:
    client = LitellmClient(server.format.model, ProviderSettings(base_url=server.base_url, timeout=30))
    try:
        return await client.chat([{"role": "user", "content": "What is 6 * 7?"}], max_tokens)
    finally:
        await client.close()


def result_of(reply: Reply) -> str:
    if reply.finish_reason == "incomplete":
        return f"incomplete: {reply.reason}"
    if reply.finish_reason == "stop" and not reply.text:
        return "stop, reasoning only" if reply.reasoning else "stop, empty"
    return reply.finish_reason


@cache
def observed(name: str, outcome: str) -> str:
    """What becomes of an outcome; the reply is checked on the way."""
    text = "It is 42."
    # The truncated replies of the server have 20 tokens.
    with WireServer(name, outcome, text=text) as server:
        try:
            reply = asyncio.run(ask(server, 20 if outcome == "truncated" else 1000))
        except RequestFailed as failure:
            return f"failed: {failure.kind}"
        assert len(server.requests) == 1
    if outcome in ("good", "no usage", "two choices"):
        assert reply.text == text
    if outcome == "reasoning":
        assert reply.reasoning == "Let me think."
    if outcome not in ("blocked", "no usage"):
        assert (reply.usage["prompt_tokens"], reply.usage["completion_tokens"]) == (40, 20)
    return result_of(reply)


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for wire in FORMATS.values():
        for name, value in wire.environment.items():
            monkeypatch.setenv(name, value)


@pytest.mark.parametrize(("name", "outcome"), CASES)
def test_every_reply_is_understood(name: str, outcome: str) -> None:
    assert observed(name, outcome) in EXPECTED[outcome]


def table() -> str:
    lines = [f"| | {' | '.join(FORMATS)} |", "|---" * (len(FORMATS) + 1) + "|"]
    for outcome, meaning in OUTCOMES.items():
        cells = (observed(name, outcome) if (name, outcome) in CASES else "" for name in FORMATS)
        lines.append(f"| {meaning} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def test_the_documentation_has_the_observed_table() -> None:
    text = DOCS.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    expected = f"{before}{BEGIN}\n{table()}\n{END}{after}"
    if os.environ.get("SPOT_WRITE_DOCS"):
        DOCS.write_text(expected, encoding="utf-8")
    assert text == expected


@pytest.mark.parametrize(
    ("message", "accepted"),
    [
        # 8192 - 612
        (
            "'max_tokens' or 'max_completion_tokens' is too large: 16384. This model's maximum context length is 8192 "
            "tokens and your request has 612 input tokens (16384 > 8192 - 612).",
            7580,
        ),
        (
            "This model's maximum context length is 8192 tokens. However, you requested 16996 tokens (612 in the "
            "messages, 16384 in the completion). Please reduce the length of the messages or completion.",
            7580,
        ),
        ("max_tokens is too large: 16384. This model supports at most 4096 completion tokens.", 4096),
        ("max_tokens: 16384 > 8192, which is the maximum allowed number of output tokens", 8192),
        # 200000 - 190000
        ("input length and `max_tokens` exceed context limit: 190000 + 16384 > 200000, decrease input length", 10000),
        # The upper end of the range is exclusive.
        ("maxOutputTokens value of 16384 but the supported range is from 1 (inclusive) to 8193 (exclusive).", 8192),
        ("`max_tokens` must be less than or equal to `8192`, the maximum value for `max_tokens` is less", 8192),
        ("Invalid max_tokens value, the valid range of max_tokens is [1, 8192]", 8192),
        ("<400> InternalError.Algo.InvalidParameter: Range of max_tokens should be [1, 8192]", 8192),
        ("The maximum tokens you requested exceeds the model limit of 8192. Try again with a lower value.", 8192),
        ("too many tokens: max tokens must be less than or equal to 4096", 4096),
        # 8193 - 612
        (
            "`inputs` tokens + `max_new_tokens` must be <= 8193. Given: 612 `inputs` tokens and 16384 `max_new_tokens`",
            7581,
        ),
        (
            "This endpoint's maximum context length is 8192 tokens. However, you requested about 16996 tokens (612 of "
            "text input, 16384 in the output).",
            7580,
        ),
        (
            "Requested token count exceeds the model's maximum context length of 8192 tokens. You requested a total of "
            "16996 tokens: 612 tokens from the input messages and 16384 tokens for the completion.",
            7580,
        ),
        (
            "This model's maximum context length is 8192 tokens. However, you requested 16384 output tokens and your "
            "prompt contains at least 612 input tokens, for a total of at least 16996 tokens.",
            7580,
        ),
    ],
)
def test_a_limit_that_the_model_rejects_is_lowered(message: str, accepted: int) -> None:
    with WireServer("vllm", "good") as server:
        good = server.format.replies

        def replies(outcome: str, text: str) -> tuple[int, dict[str, object]] | None:
            if server.requests[-1][1]["max_tokens"] > accepted:
                return 400, {"error": {"message": message, "type": "BadRequestError", "code": 400}}
            return good(outcome, text)

        server.reply_with(replies)
        reply = asyncio.run(ask(server, 16384))
        assert [body["max_tokens"] for _, body in server.requests] == [16384, accepted]
    assert (reply.finish_reason, reply.max_tokens) == ("stop", accepted)


@pytest.mark.parametrize(
    "message",
    [
        "This model's maximum context length is 8192 tokens and your request has 9000 input tokens.",
        "prompt is too long: 210000 tokens > 200000 maximum",
        "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
        "Prompt contains 40000 tokens and 0 draft tokens, too large for model with 32768 maximum context length",
        "This model's maximum prompt length is 131072 but the request contains 140000 tokens.",
        "<400> InternalError.Algo.InvalidParameter: Range of input length should be [1, 30720]",
        "Input is too long for requested model.",
        "the request exceeds the available context size. try increasing the context size",
        "`inputs` must have less than 4095 tokens. Given: 9000",
    ],
)
def test_a_prompt_that_does_not_fit_is_declined_at_once(message: str) -> None:
    with WireServer("vllm", "good") as server:
        server.reply_with(lambda outcome, text: (400, {"error": {"message": message, "code": 400}}))
        reply = asyncio.run(ask(server, 100))
        assert len(server.requests) == 1
    assert (reply.finish_reason, reply.reason) == ("declined", "too long for the model")
