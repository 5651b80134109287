"""Requests of a batch, made and read by the code that makes and reads ordinary ones.

litellm is given a connection that leads nowhere: it keeps the body that would be sent, or returns the reply of a batch.
So a batch has the bodies of ordinary requests, and its replies get their finish reasons, costs and errors.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from spotcli.errors import UserError
from spotcli.providers.batches.api import BatchApi
from spotcli.providers.litellm import LitellmClient
from spotcli.providers.prices import BATCH_PRICE
from spotcli.providers.replies import Reply, RequestFailed
from spotcli.providers.settings import ProviderSettings
from spotcli.records import Message

if TYPE_CHECKING:
    import httpx

NOWHERE = "http://batch.invalid"
"""Not an address of a provider: if litellm ever used another connection, nothing would be sent to it."""
KEPT = "kept for a batch"
"""The error with which the connection answers a request whose body it keeps."""
ANY_MESSAGES: list[Message] = [{"role": "user", "content": "-"}]
"""What a reply is about does not matter when it is read."""


class BatchClient(LitellmClient):
    """One model of one provider, reached by its batch API (``api``)."""

    def __init__(self, model: str, settings: ProviderSettings, api: BatchApi) -> None:
        super().__init__(model, settings)
        self.api = api
        self._given: tuple[int, Any] | None = None
        """The state and body with which the next request is answered."""
        self._sent: list[bytes] = []
        """Bodies of requests."""

    @cached_property
    def _route(self) -> dict[str, Any]:
        import httpx

        provider = self.provider
        connection: Any = httpx.AsyncClient(transport=httpx.MockTransport(self._answer))
        client: Any
        if provider == "azure":
            from openai import AsyncAzureOpenAI

            client = AsyncAzureOpenAI(
                api_key="none", azure_endpoint=NOWHERE, api_version="none", max_retries=0, http_client=connection
            )
        elif provider in ("openai", "litellm_proxy"):
            from openai import AsyncOpenAI

            client = AsyncOpenAI(api_key="none", base_url=NOWHERE, max_retries=0, http_client=connection)
        else:
            from litellm.llms.custom_httpx.http_handler import AsyncHTTPHandler

            client = AsyncHTTPHandler(transport=httpx.MockTransport(self._answer))
        named = {} if "/" in self.model else {"custom_llm_provider": provider}
        return {"base_url": NOWHERE, "api_key": "none", "client": client, **named}

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        import httpx

        self._sent.append(await request.aread())
        for name in ("anthropic-beta",):
            if name in request.headers:
                self.api.headers[name] = request.headers[name]
        status, body = self._given or (400, {"error": {"message": KEPT, "type": "invalid_request_error"}})
        self._given = None
        # In ASCII: httpx's own JSON refuses half a surrogate pair, with which a reply can be cut off.
        content = json.dumps(body).encode()
        return httpx.Response(status, content=content, headers={"content-type": "application/json"}, request=request)

    async def body(self, messages: list[Message], max_tokens: int | None) -> tuple[bytes, int | None]:
        """The body of a request as it would be sent, and its limit of reply tokens.

        The limit is at most the model's own, where it is known: a provider that refuses a higher one would refuse it
        after hours.

        Raises:
            UserError: the request cannot be made.
        """
        limit = max_tokens and min(max_tokens, self._output_limit or self.output_limit or max_tokens)
        self._given = None
        self._sent.clear()
        try:
            await self.chat(messages, limit)
        except RequestFailed as failure:
            if not self._sent:
                raise UserError(f"the request cannot be made for a batch: {failure}", where=self.model) from None
        return self._sent[0], limit

    async def read(self, status: int, body: Mapping[str, Any], max_tokens: int | None) -> Reply:
        """The reply in a row of a batch.

        Args:
            max_tokens: the limit of the request.

        Raises:
            RequestFailed: the request got no reply, and another try can succeed.
            UserError: no request can succeed.
        """
        self._given = status, body
        self._sent.clear()
        try:
            return await self.chat(ANY_MESSAGES, max_tokens)
        except RequestFailed:
            if len(self._sent) > 1:
                raise RequestFailed("token limit", "the provider accepts fewer reply tokens") from None
            raise

    def cost_of(self, usage: Mapping[str, Any], recorded: float | None, *, batched: bool = True) -> float | None:
        return super().cost_of(usage, recorded and recorded * BATCH_PRICE, batched=True)

    async def close(self) -> None:
        await self.api.close()
        await super().close()
