"""The oracle that prompts a model at a provider."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from spotcli import plugins
from spotcli.oracles import CorrectionRequest
from spotcli.providers.litellm import LitellmClient, ProviderSettings
from spotcli.providers.replies import Reply

if TYPE_CHECKING:
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
        self._client = LitellmClient(
            name,
            ProviderSettings(
                params=settings.params,
                temperature=settings.temperature,
                timeout=settings.timeout,
                base_url=settings.base_url,
                price_in=settings.price_in,
                price_out=settings.price_out,
            ),
        )
        self.version = self._client.version

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
        return self._client.price_of(prompt_tokens, reply_tokens)

    def cost_of(self, usage: Mapping[str, Any], recorded: float | None) -> float | None:
        """US dollars of a reply at today's prices; ``recorded``: its cost as it was known when it came."""
        return self._client.cost_of(usage, recorded)

    def worst_cost(self, request: CorrectionRequest) -> float | None:
        """US dollars that the request can cost at most; None if the price is unknown."""
        return self._client.worst_cost(request.prompt.messages, self.max_tokens(request))

    async def close(self) -> None:
        await self._client.close()
