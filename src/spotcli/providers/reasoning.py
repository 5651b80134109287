"""How much a model is likely to reason before its reply: tokens that are charged and not part of the text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

DEFAULT = 4_000
"""Reasoning tokens about a problem of mathematics without a setting; replies of o3 and R1 have 2,000 to 8,000."""

EFFORTS = {
    "none": 0,
    "disable": 0,
    "minimal": 250,
    "low": 1_000,
    "medium": DEFAULT,
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
        return min(budget, DEFAULT) if isinstance(budget, int) and budget > 0 else DEFAULT
    if _BY_NAME.search(model):
        return DEFAULT
    return DEFAULT if listed.get("supports_reasoning") and not _ON_REQUEST.search(model) else 0
