"""From a provider's response, as litellm returns it, to a ``Reply``.

    response.choices[0].message.content    -> text
    response.choices[0].finish_reason      -> finish_reason
    response.usage                         -> usage, cost

A response that lacks a part is still a reply: it was paid for, so it is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from spotcli.providers.replies import Reply

FINISH_REASONS = {"length": "length", "content_filter": "filtered"}
"""Finish reasons of the OpenAI format, by our name; any other one counts as ``stop``."""

CostOf = Callable[[Mapping[str, Any], float | None], float | None]
"""(usage, litellm's own figure) -> US dollars, or None if the price is unknown."""


def read_response(response: Any, cost_of: CostOf) -> Reply:
    """The reply in a ``litellm.ModelResponse``."""
    choice = response.choices[0] if response.choices else None
    text, finish_reason = _text(choice)
    usage = _usage(response)
    return Reply(
        text=text,
        finish_reason=finish_reason,
        usage=usage,
        # litellm knows the prices of cached and reasoning tokens too.
        cost=cost_of(usage, response._hidden_params.get("response_cost")),
        model=response.model,
        token_ids=_token_ids(choice),
    )


def _text(choice: Any) -> tuple[str, str]:
    """The message and our finish reason; a refusal counts as the message of a reply without content."""
    if choice is None:
        return "", "stop"
    message = choice.message
    content = message.content or ""
    # Newer versions of litellm have a field for it; older ones put it among the provider's own fields.
    refusal = message.get("refusal") or (message.get("provider_specific_fields") or {}).get("refusal")
    if refusal and not content:
        return str(refusal), "refused"
    return content, FINISH_REASONS.get(choice.finish_reason, "stop")


def _usage(response: Any) -> dict[str, Any]:
    """The token counts; empty if the provider returned none."""
    if not response.get("usage"):
        return {}
    usage: dict[str, Any] = response.usage.model_dump(mode="json", exclude_none=True)
    return usage


def _token_ids(choice: Any) -> list[int] | None:
    """vLLM returns the tokens if the request asks for them."""
    fields = getattr(choice, "provider_specific_fields", None) or {}
    token_ids: list[int] | None = fields.get("token_ids")
    return token_ids
