"""From a provider's response to a reply."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from spotcli.providers.replies import Reply, RequestFailed
from spotcli.providers.responses import read_response


def response(message: dict[str, Any], **more: Any) -> Any:
    """A response as litellm returns it."""
    import litellm

    choice = {"index": 0, "message": {"role": "assistant"} | message, "finish_reason": "stop"} | more
    return litellm.ModelResponse(model="served", choices=[choice])


def no_price(usage: Mapping[str, Any], recorded: float | None) -> float | None:
    return None


@pytest.mark.parametrize(
    ("message", "more", "text", "finish_reason"),
    [
        ({"content": "hi"}, {}, "hi", "stop"),
        ({"content": "hi"}, {"finish_reason": "length"}, "hi", "length"),
        ({"content": ""}, {"finish_reason": "content_filter"}, "", "filtered"),
        ({"content": None}, {}, "", "stop"),
        ({"content": None, "refusal": "I will not."}, {}, "I will not.", "refused"),
        ({"content": None, "provider_specific_fields": {"refusal": "I will not."}}, {}, "I will not.", "refused"),
        # A refusal beside an answer is not a refusal of the request.
        ({"content": "hi", "refusal": "not all of it"}, {}, "hi", "stop"),
    ],
)
def test_text_and_finish_reason(message: dict[str, Any], more: dict[str, Any], text: str, finish_reason: str) -> None:
    reply = read_response(response(message, **more), no_price)
    assert (reply.text, reply.finish_reason, reply.model) == (text, finish_reason, "served")


def test_a_response_without_choices_is_incomplete() -> None:
    empty = response({"content": "hi"})
    empty.choices = []
    reply = read_response(empty, no_price)
    assert (reply.text, reply.finish_reason, reply.reason) == ("", "incomplete", "no choices")
    with pytest.raises(RequestFailed, match="no choices") as error:
        reply.raise_if_incomplete()
    # It was paid for.
    assert error.value.maybe_billed


@pytest.mark.parametrize(
    "reply",
    [
        None,
        "text",
        [],
        {},
        {"choices": None},
        {"choices": [None]},
        {"choices": [{}]},
        {"choices": [{"message": None, "finish_reason": 7}]},
        {"choices": [{"message": {"content": 7, "reasoning_content": {"a": 1}}, "provider_specific_fields": "x"}]},
        {"choices": [{"message": {"content": [{"type": "text"}, "x", None]}}], "usage": "many", "model": 3},
        {"choices": {"0": {}}, "usage": {"completion_tokens": "20"}, "_hidden_params": 5},
    ],
)
def test_no_form_of_a_response_raises(reply: object) -> None:
    assert isinstance(read_response(reply, no_price, 10), Reply)


def test_a_list_of_text_parts_is_one_text() -> None:
    parts = {
        "choices": [{"message": {"content": [{"type": "text", "text": "6 * 7 "}, {"type": "text", "text": "= 42"}]}}]
    }
    assert read_response(parts, no_price).text == "6 * 7 = 42"


@pytest.mark.parametrize("reason", ["abort", "error", "tool_calls", "repetition", "function_call"])
def test_an_unknown_finish_reason_is_not_a_complete_reply(reason: str) -> None:
    choice = {"message": {"content": "So far"}, "finish_reason": "stop"}
    native = {"choices": [{**choice, "provider_specific_fields": {"native_finish_reason": reason}}]}
    reported = {"choices": [{**choice, "finish_reason": reason}]}
    for response_with_reason in (native, reported):
        reply = read_response(response_with_reason, no_price)
        assert (reply.finish_reason, reply.reason) == ("incomplete", reason)


def test_a_reply_as_long_as_the_limit_is_truncated() -> None:
    # Ollama's older interface reports "stop" for it.
    full = {"choices": [{"message": {"content": "So"}, "finish_reason": "stop"}], "usage": {"completion_tokens": 10}}
    assert read_response(full, no_price, 10).finish_reason == "length"
    assert read_response(full, no_price, 11).finish_reason == "stop"


def test_the_cost_is_computed_from_usage_and_litellms_figure() -> None:
    import litellm

    priced = response({"content": "hi"})
    priced.usage = litellm.Usage(prompt_tokens=10, completion_tokens=5, total_tokens=15)
    priced._hidden_params = {"response_cost": 0.25}
    calls: list[tuple[int, float | None]] = []

    def cost_of(usage: Mapping[str, Any], recorded: float | None) -> float | None:
        calls.append((usage["total_tokens"], recorded))
        return 0.5

    reply = read_response(priced, cost_of)
    assert (reply.cost, calls) == (0.5, [(15, 0.25)])
    assert reply.usage["completion_tokens"] == 5
