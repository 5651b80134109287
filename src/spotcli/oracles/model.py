"""The oracle that prompts a model at a provider."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from spotcli import plugins
from spotcli.oracles import CorrectionRequest
from spotcli.providers.litellm import LitellmClient
from spotcli.providers.prices import BATCH_PRICE
from spotcli.providers.replies import Reply
from spotcli.providers.settings import ProviderSettings

if TYPE_CHECKING:
    from spotcli.providers.batches.client import BatchClient
    from spotcli.recipe import RectifySection


class ModelOracle:
    """Any model that litellm supports; it is reached over a network, at a price.

    Raises:
        RecipeError: only one of the two prices is set, or ``rectify.params`` contains a reserved parameter.
    """

    prompted = True
    parallel: int | None = None

    def __init__(self, name: str, settings: RectifySection) -> None:
        self.name = name
        self._max_tokens = settings.max_tokens
        self._reach = ProviderSettings(
            params=settings.params,
            temperature=settings.temperature,
            timeout=settings.timeout,
            base_url=settings.base_url,
            price_in=settings.price_in,
            price_out=settings.price_out,
        )
        self._in_batches = settings.batch
        self._client = LitellmClient(name, self._reach)
        self.version = self._client.version

    @cached_property
    def batch(self) -> BatchClient | None:
        """The client for batches; None if none are wanted, or the provider has no batch API."""
        if not self._in_batches:
            return None
        from spotcli.providers.batches.by_provider import batch_client

        return batch_client(self.name, self._reach)

    @property
    def _price(self) -> float:
        """The price of a request, as a share of an ordinary one's."""
        return 1.0 if self.batch is None else BATCH_PRICE

    def check_environment(self) -> None:
        """Called before the first request, and only if one will be sent.

        Raises:
            UserError: an unknown provider, or the environment lacks its key or address.
        """
        builtin = ("symbolic", "human", "policy", "policy-prompted")
        names = tuple(dict.fromkeys((*builtin, *plugins.registered(plugins.ORACLES))))
        self._client.check_environment(known_names=names)

    async def correct(self, request: CorrectionRequest) -> Reply:
        return await self._client.chat(request.prompt.messages, self.max_tokens(request))

    def max_tokens(self, request: CorrectionRequest) -> int | None:
        """Reply tokens that the request allows; None if no limit is sent."""
        return self._max_tokens and self._max_tokens * request.max_tokens_factor

    @property
    def longest_reply(self) -> int | None:
        """Reply tokens of a request at most: the setting, else the model's own limit; None if it is unknown."""
        return self._max_tokens or self._client.output_limit

    @property
    def reasoning_tokens(self) -> int:
        """Likely reasoning tokens of a reply, before any reply is known."""
        return self._client.reasoning_tokens

    def count_tokens(self, request: CorrectionRequest) -> tuple[int, int]:
        """Approximate numbers of tokens of the prompt, and of the answer that is to be corrected."""
        return self._client.count_tokens(request.prompt.messages, request.sample.response)

    def price_of(self, prompt_tokens: float, reply_tokens: float) -> float | None:
        """US dollars; None if the price is unknown."""
        price = self._client.price_of(prompt_tokens, reply_tokens)
        return price and price * self._price

    def cost_of(self, usage: Mapping[str, Any], recorded: float | None, *, batched: bool = False) -> float | None:
        """US dollars of a reply at today's prices.

        Args:
            recorded: its cost as it was known when it came.
            batched: it came in a batch.
        """
        return self._client.cost_of(usage, recorded, batched=batched)

    def worst_cost(self, request: CorrectionRequest) -> float | None:
        """US dollars that the request can cost at most; None if the price is unknown."""
        worst = self._client.worst_cost(request.prompt.messages, self.max_tokens(request))
        return worst and worst * self._price

    async def close(self) -> None:
        if batch := self.__dict__.get("batch"):
            await batch.close()
        await self._client.close()
