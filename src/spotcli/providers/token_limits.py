"""The largest limit of reply tokens that a provider accepts, from its own message; and how much a model reasons."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_WANTED_NAME = re.compile(r"\buse\W{1,3}(max_completion_tokens|max_tokens)\b", re.IGNORECASE)
_CONTEXT = re.compile(
    r"maximum context length (?:is|of) (\d{1,12})|context (?:window|length) (?:is|of) (\d{1,12})", re.IGNORECASE
)
_PROMPT_TOKENS = re.compile(
    r"(\d{1,12}) input tokens|\((\d{1,12}) in the messages|\((\d{1,12}) of text input"
    r"|(\d{1,12}) tokens from the input|(\d{1,12}) prompt tokens|prompt contains (?:at least )?(\d{1,12})",
    re.IGNORECASE,
)
_SUM_OVER_CONTEXT = (
    re.compile(r"exceed context limit: (?P<prompt>\d{1,12}) \+ \d+ > (?P<context>\d{1,12})"),
    re.compile(r"`max_new_tokens` must be <= (?P<context>\d{1,12})\. Given: (?P<prompt>\d{1,12}) `inputs` tokens"),
)
_OUTPUT_LIMITS = (
    re.compile(r"supports at most (\d{1,12}) completion tokens"),
    re.compile(r"max_tokens: \d+ > (\d{1,12})"),
    re.compile(r"supported range is from 1 \(inclusive\) to (\d{1,12}) \(inclusive\)"),
    re.compile(r"max[_ ]tokens[^.]{0,60}(?:less than or equal to|at most|maximum of) `?(\d{1,12})", re.IGNORECASE),
    re.compile(r"range of max_tokens (?:is|should be) \[1, ?(\d{1,12})\]", re.IGNORECASE),
    re.compile(r"maximum tokens you requested exceeds the model limit of (\d{1,12})"),
)
_EXCLUSIVE_OUTPUT_LIMIT = re.compile(r"supported range is from 1 \(inclusive\) to (\d{1,12}) \(exclusive\)")


@dataclass(frozen=True)
class TokenLimit:
    """A limit of reply tokens that the provider would accept."""

    tokens: int
    of_model: bool
    """Whether it holds for every request to the model; otherwise only for prompts of this length."""


def accepted_limit(error: Exception, max_tokens: int) -> TokenLimit | None:
    """The largest limit that fits, if the provider rejected a request only because ``max_tokens`` is too large.

    None for every other error, and if the prompt alone does not fit into the model's context.
    """
    if getattr(error, "status_code", None) not in (400, 413, 422):
        return None
    details = f"{str(error)[:2000]} {str(getattr(error, 'body', None) or '')[:2000]}"
    for pattern in _OUTPUT_LIMITS:
        if limit := pattern.search(details):
            return _lower(int(limit[1]), max_tokens, of_model=True)
    if limit := _EXCLUSIVE_OUTPUT_LIMIT.search(details):
        return _lower(int(limit[1]) - 1, max_tokens, of_model=True)
    for pattern in _SUM_OVER_CONTEXT:
        if total := pattern.search(details):
            return _lower(int(total["context"]) - int(total["prompt"]), max_tokens, of_model=False)
    context, prompt = _CONTEXT.search(details), _PROMPT_TOKENS.search(details)
    if context and prompt:
        tokens = int(context[1]) - int(next(filter(None, prompt.groups())))
        return _lower(tokens, max_tokens, of_model=False)
    return None


def other_limit_name(error: Exception, name: str) -> str | None:
    """The provider's name for the token limit, if it rejected a request only because of the name."""
    if getattr(error, "status_code", None) not in (400, 422):
        return None
    details = f"{str(error)[:2000]} {str(getattr(error, 'body', None) or '')[:2000]}"
    other = "max_completion_tokens" if name == "max_tokens" else "max_tokens"
    wanted = _WANTED_NAME.search(details)
    return other if wanted and wanted[1].lower() == other and name in details else None


def _lower(tokens: int, max_tokens: int, *, of_model: bool) -> TokenLimit | None:
    return TokenLimit(tokens, of_model) if 0 < tokens < max_tokens else None


REASONING = 4_000
"""Reasoning tokens about a problem of mathematics without a setting; replies of o3 and R1 have 2,000 to 8,000."""

EFFORTS = {
    "none": 0,
    "disable": 0,
    "minimal": 250,
    "low": 1_000,
    "medium": REASONING,
    "high": 12_000,
    "xhigh": 24_000,
    "max": 24_000,
}
"""Values of ``reasoning_effort`` -> tokens, in the ratio in which providers translate them to budgets."""

_ON_REQUEST = re.compile(r"claude|chat-latest|flash-lite|gpt-5\.[1-9]", re.IGNORECASE)
"""Models that litellm lists as reasoning and that reason only if a parameter asks for it."""

_BY_NAME = re.compile(r"(^|[/-])(o[134]|r1|qwq|reasoner|thinking|magistral)([-:.]|$)", re.IGNORECASE)
"""Models that litellm's table may not have, and that always reason."""


def likely_reasoning(model: str, listed: Mapping[str, Any], parameters: Mapping[str, Any]) -> int:
    """Return the likely reasoning tokens of one reply; 0 for a model that does not reason.

    Args:
        listed: the model in litellm's table.
        parameters: of the requests; ``reasoning_effort``, ``thinking`` (Anthropic) and ``reasoning`` (OpenRouter)
            decide if they are set.
    """
    reasoning = parameters.get("reasoning")
    effort = parameters.get("reasoning_effort")
    if effort is None and isinstance(reasoning, Mapping):
        effort = reasoning.get("effort")
    if isinstance(effort, str) and effort.lower() in EFFORTS:
        return EFFORTS[effort.lower()]
    thinking = parameters.get("thinking")
    if isinstance(thinking, Mapping):
        budget = thinking.get("budget_tokens")
        if thinking.get("type") == "disabled":
            return 0
        return min(budget, REASONING) if isinstance(budget, int) and budget > 0 else REASONING
    if _BY_NAME.search(model):
        return REASONING
    return REASONING if listed.get("supports_reasoning") and not _ON_REQUEST.search(model) else 0
