"""From a provider's response to a reply."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from spotcli.providers.replies import Reply
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


def test_a_response_without_choices_is_an_empty_reply() -> None:
    empty = response({"content": "hi"})
    empty.choices = []
    assert read_response(empty, no_price) == Reply(usage=read_response(empty, no_price).usage, model="served")


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
