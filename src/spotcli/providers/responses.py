"""From a provider's response, as litellm returns it, to a ``Reply``.

    response.choices[0].message.content, .text       -> text
    response.choices[0].message.reasoning_content    -> reasoning
    response.choices[0].finish_reason                -> finish_reason, reason
    response.usage                                   -> usage, cost

A response that lacks a part is still a reply: it was paid for, so it is kept. litellm reports unknown finish reasons as
``stop`` and keeps the provider's own among the provider's fields, so that one decides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from spotcli.providers.replies import Reply

COMPLETE = frozenset(
    {"stop", "stop_sequence", "end_turn", "eos", "eos_token", "end_of_text", "complete", "completed", "finished"}
)
"""Finish reasons of a complete reply, in lower case: OpenAI's, Anthropic's, Gemini's and those of other servers."""

TRUNCATED = frozenset({"length", "max_tokens", "max_output_tokens", "model_length", "model_context_window_exceeded"})
"""Finish reasons of a reply that reached a token limit."""

FILTERED = frozenset({"content_filter", "content_filtered", "safety", "recitation", "blocklist", "prohibited_content"})
"""Finish reasons of a reply that the provider withholds."""

CostOf = Callable[[Mapping[str, Any], float | None], float | None]
"""(usage, litellm's own figure) -> US dollars, or None if the price is unknown."""


def read_response(response: Any, cost_of: CostOf, max_tokens: int | None = None) -> Reply:
    """The reply in a ``litellm.ModelResponse``; no form of it raises an error.

    Args:
        max_tokens: the limit of the request. A reply that is as long counts as truncated, because not every provider
            reports it.
    """
    choices = _field(response, "choices")
    choice = choices[0] if isinstance(choices, Sequence) and choices else None
    message = _field(choice, "message")
    usage = _usage(response)
    text, reasoning = _text(_field(message, "content")) or _text(_field(choice, "text")), _reasoning(message)
    refusal = _field(message, "refusal") or _field(_field(message, "provider_specific_fields"), "refusal")
    finish_reason, reason = _finish(choice, message)
    if refusal and not text:
        text, finish_reason, reason = str(refusal), "refused", None
    elif finish_reason == "stop" and max_tokens is not None and _count(usage.get("completion_tokens")) >= max_tokens:
        finish_reason = "length"
    model = _field(response, "model")
    return Reply(
        text=text,
        finish_reason=finish_reason,
        reason=reason,
        usage=usage,
        # litellm knows the prices of cached and reasoning tokens too.
        cost=cost_of(usage, _field(_field(response, "_hidden_params"), "response_cost")),
        model=model if isinstance(model, str) else None,
        token_ids=_token_ids(choice),
        reasoning=reasoning,
    )


def _field(value: Any, name: str) -> Any:
    """A field of an object or a mapping; None if it is absent. litellm's objects lack the fields that are not set."""
    if isinstance(value, Mapping):
        return value.get(name)
    return getattr(value, name, None)


def _text(content: Any) -> str:
    """The text of a message: a string, or the text parts of a list."""
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence):
        parts = (_field(part, "text") for part in content)
        return "".join(part for part in parts if isinstance(part, str))
    return ""


def _reasoning(message: Any) -> str | None:
    """The reasoning that the provider separated from the text; litellm moves ``<think>`` blocks here too."""
    fields = _field(message, "provider_specific_fields")
    candidates = (
        _field(message, "reasoning_content"),
        _field(message, "reasoning"),
        _field(fields, "reasoning_content"),
        _field(fields, "reasoning"),
    )
    return next((text for candidate in candidates if (text := _text(candidate))), None)


def _finish(choice: Any, message: Any) -> tuple[str, str | None]:
    """Our finish reason, and the provider's own one if the reply is incomplete."""
    if choice is None:
        return "incomplete", "no choices"
    fields = _field(choice, "provider_specific_fields")
    if _field(fields, "error"):
        return "incomplete", "error"
    reported = _field(choice, "finish_reason")
    native = _field(fields, "native_finish_reason") or reported or "stop"
    name = str(native).lower()
    if name in FILTERED or reported == "content_filter":
        stop_reason = _field(_field(message, "provider_specific_fields"), "stop_reason")
        return ("refused" if stop_reason == "refusal" or name == "refusal" else "filtered"), None
    if name == "refusal":
        return "refused", None
    if name in TRUNCATED or reported == "length":
        return "length", None
    if name in COMPLETE:
        return "stop", None
    return "incomplete", name[:40]


def _usage(response: Any) -> dict[str, Any]:
    """The token counts; empty if the provider returned none."""
    usage = _field(response, "usage")
    if isinstance(usage, Mapping):
        return dict(usage)
    if usage is None or not hasattr(usage, "model_dump"):
        return {}
    counts: dict[str, Any] = usage.model_dump(mode="json", exclude_none=True)
    return counts


def _count(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _token_ids(choice: Any) -> list[int] | None:
    """vLLM returns the tokens if the request asks for them."""
    token_ids = _field(_field(choice, "provider_specific_fields"), "token_ids") or _field(choice, "token_ids")
    return token_ids if isinstance(token_ids, list) else None
