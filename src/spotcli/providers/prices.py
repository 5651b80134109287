"""What requests to a model can cost, by the prices that are set or by litellm's table; tokens, before they are sent."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from spotcli.providers.library import import_litellm
from spotcli.providers.settings import ProviderSettings
from spotcli.providers.token_limits import likely_reasoning
from spotcli.records import Message

BATCH_PRICE = 0.5
"""The price of a request in a batch, as a share of an ordinary one's, at all providers."""


class PricedModel:
    """One model of one provider, as litellm's table has it. litellm is imported on first use."""

    def __init__(self, model: str, settings: ProviderSettings) -> None:
        self.model = model
        self._settings = settings

    @cached_property
    def _litellm(self) -> Any:
        return import_litellm()

    @cached_property
    def _price(self) -> tuple[float, float] | None:
        """US dollars per prompt token and per reply token; None if unknown."""
        settings = self._settings
        if settings.price_in is not None and settings.price_out is not None:
            return settings.price_in / 1e6, settings.price_out / 1e6
        price_in = _price_in(self._listed, "input_cost_per_token")
        price_out = _price_in(self._listed, "output_cost_per_token")
        return None if price_in is None or price_out is None else (price_in, price_out)

    @cached_property
    def _listed(self) -> Mapping[str, Any]:
        """What litellm's table has about the model; empty for a model that it does not have."""
        try:
            return dict(self._litellm.get_model_info(self.model))
        except Exception:
            # litellm raises a bare Exception for a model without prices.
            return {}

    def price_of(self, prompt_tokens: float, reply_tokens: float) -> float | None:
        """US dollars; None if the price is unknown."""
        return self._price and prompt_tokens * self._price[0] + reply_tokens * self._price[1]

    def cost_of(self, usage: Mapping[str, Any], recorded: float | None, *, batched: bool = False) -> float | None:
        """US dollars of a reply at the prices that are set, else ``recorded``, else at litellm's prices.

        Args:
            batched: the reply came in a batch.
        """
        if not usage.get("total_tokens"):
            return None  # for a reply without usage litellm reports zero tokens and a cost of zero
        if recorded and self._settings.price_in is None:
            return recorded
        price = self.price_of(usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0))
        return price * BATCH_PRICE if price and batched else price

    def count_tokens(self, messages: list[Message], text: str) -> tuple[int, int]:
        """Approximate numbers of tokens of a chat and of a text."""
        try:
            counter = self._litellm.token_counter
            return int(counter(model=self.model, messages=messages)), int(counter(model=self.model, text=text))
        except Exception:
            # The tokenizer would have to be downloaded; four characters per token are close enough for an estimate.
            return math.ceil(sum(len(message["content"]) for message in messages) / 4), math.ceil(len(text) / 4)

    @property
    def output_limit(self) -> int | None:
        """Reply tokens that the model has at most, by litellm's table; None if it has no such model."""
        limit = self._listed.get("max_output_tokens")
        return limit if isinstance(limit, int) and limit > 0 else None

    @property
    def reasoning_tokens(self) -> int:
        """Likely reasoning tokens of a reply, before any reply is known; 0 if the model does not reason.

        By the kind of the model in litellm's table, and by the parameters that control its reasoning.
        """
        return likely_reasoning(self.model, self._listed, self._settings.params)

    def worst_cost(self, messages: list[Message], max_tokens: int | None) -> float | None:
        """US dollars that a request can cost at most; None if the price, or without ``max_tokens`` the limit of the
        model, is unknown."""
        max_tokens = max_tokens or self.output_limit
        if max_tokens is None:
            return None
        # No token is shorter than a byte; each message has a few tokens around it.
        prompt_tokens = sum(len(message["content"].encode()) + 16 for message in messages)
        cost = self.price_of(prompt_tokens, max_tokens)
        if cost is None or self._price is None or self._settings.price_in is not None:
            return cost
        # Some models charge more for reasoning tokens.
        reasoning = _price_in(self._listed, "output_cost_per_reasoning_token") or 0.0
        return cost + max_tokens * max(0.0, reasoning - self._price[1])


def _price_in(info: Mapping[str, Any], name: str) -> float | None:
    """A price of litellm's table; None if it is missing.

    For a price that it does not know litellm reports 0, which must not be taken for free of charge.
    """
    value = info.get(name)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) and value > 0 else None
