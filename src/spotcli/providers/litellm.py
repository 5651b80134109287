"""A client for any model that litellm supports, by litellm's name for it.

litellm translates to each provider's format; rate limits, retries and storage are ours. So no Router, no retries and no
client of litellm's own: each of them could send, and pay for, a request without our knowledge.
"""

from __future__ import annotations

import asyncio
import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from spotcli.console import warn
from spotcli.errors import RecipeError, UserError
from spotcli.providers.permanent_errors import RequestSettings
from spotcli.providers.prices import PricedModel
from spotcli.providers.replies import Reply, RequestFailed
from spotcli.providers.request_errors import describe, read_error
from spotcli.providers.responses import read_response
from spotcli.providers.sent_parameters import changed_parameters, sent_parameters
from spotcli.providers.settings import ProviderSettings
from spotcli.providers.token_limits import accepted_limit, other_limit_name
from spotcli.records import Message
from spotcli.redaction import public_value
from spotcli.work_time import time_limit

RESERVED = {"model", "messages", "api_key", "base_url", "api_base", "timeout", "max_tokens", "temperature", "n"}
RESERVED |= {"stream", "max_completion_tokens", "num_retries", "max_retries", "client", "fallbacks", "logger_fn"}
"""Parameters that ``params`` may not contain: they would be ignored, be given twice, or write a key into a file."""

TEXT_PROVIDERS = ("text-completion-openai", "custom_openai", "openai_like")
"""Providers with ``/v1/completions`` beside those in litellm's list."""

NO_COMPLETIONS = {404, 405, 501}
"""HTTP states of a server without ``/v1/completions``, or of a model without it."""

NEVER = 1e6
"""Seconds by which litellm's own limit of time is longer than ours, so that it never ends a request."""


class LitellmClient(PricedModel):
    """One model of one provider. litellm is imported on first use, since the import takes seconds.

    Raises:
        RecipeError: only one of the two prices is set, or ``params`` contains a reserved parameter.
    """

    def __init__(self, model: str, settings: ProviderSettings) -> None:
        reserved = RESERVED & settings.params.keys()
        if reserved:
            raise RecipeError(
                f"'{min(reserved)}' cannot be set here",
                where=f"{settings.section}.params",
                cure="use the option of that name, or the environment",
            )
        if (settings.price_in is None) != (settings.price_out is None):
            raise RecipeError(
                "set both price_in and price_out",
                where=f"{settings.section}.price_in",
                cure=f"set {settings.section}.price_in and {settings.section}.price_out",
            )
        super().__init__(model, settings)
        self._output_limit: int | None = None
        """Reply tokens that the model has at most, once the provider named them."""
        self._limit_name = "max_tokens"
        """The provider's name for the limit of reply tokens; reasoning models have another one."""
        self._texts: Any = None
        """The client for ``/v1/completions``; None while it is not open."""
        self._replied = False
        self._noted_changes = False
        self.last_sent: Mapping[str, Any] | None = None
        """The parameters of the last request as they were sent; None before the first reply."""

    @property
    def version(self) -> str:
        """What shapes the model's replies, as ``name=value``.

        Not the address, since a model can move, and not the token limit, since a complete reply is the same under any.
        """
        shaping = {"temperature": self._settings.temperature} | dict(self._settings.params)
        return ", ".join(
            f"{key}={public_value(value, key)}" for key, value in sorted(shaping.items()) if value is not None
        )

    @cached_property
    def _route(self) -> dict[str, str]:
        """Where requests go, if an address is set.

        For a name without a provider litellm compares the address with every address that it knows, for each request:
        a tenth of a request's processor time. Here it does so once.
        """
        address = self._settings.base_url
        if not address:
            return {}
        if "/" in self.model:
            return {"base_url": address}
        provider = self._litellm.get_llm_provider(model=self.model, api_base=address)[1]
        return {"base_url": address, "custom_llm_provider": provider}

    def _text_route(self) -> dict[str, Any]:
        """Where texts are continued: litellm's own route for other servers than OpenAI's takes no token ids."""
        provider = self.provider
        if self._texts is None:
            from openai import AsyncOpenAI

            # litellm would open a client per request, which retries and is never closed. Servers without a key accept
            # any.
            self._texts = AsyncOpenAI(
                api_key=os.environ.get(f"{provider.upper()}_API_KEY", "").strip() or "none",
                base_url=self._settings.base_url or os.environ.get(f"{provider.upper()}_API_BASE"),
                max_retries=0,
            )
        model = f"text-completion-openai/{self.model.removeprefix(f'{provider}/')}"
        return {"model": model, "client": self._texts, "api_key": self._texts.api_key}

    @property
    def provider(self) -> str:
        """litellm's name of the provider."""
        return str(self._litellm.get_llm_provider(model=self.model)[1])

    @property
    def takes_texts(self) -> bool:
        """Whether the provider may have ``/v1/completions``; only a request can tell whether the model has it."""
        return self.provider in {"openai", *TEXT_PROVIDERS, *self._litellm.openai_text_completion_compatible_providers}

    def check_environment(self, *, known_names: Sequence[str] = ()) -> None:
        """Check, without a request, that the provider is known and the environment contains its key and address.

        Args:
            known_names: other valid values of the key that names the model, for the error.

        Raises:
            UserError: an unknown provider, a missing key or a missing address.
        """
        settings = self._settings
        try:
            _, provider, _, _ = self._litellm.get_llm_provider(model=self.model)
        except self._litellm.BadRequestError:
            near = difflib.get_close_matches(self.model, {*self._litellm.model_list, *known_names}, n=1, cutoff=0.75)
            others = "".join(f", `{name}`" for name in known_names)
            cure = f"use PROVIDER/MODEL (openai/..., gemini/..., hosted_vllm/...){others}"
            raise UserError(
                f"unknown model '{self.model}'",
                where=settings.model_key,
                cure=f"did you mean '{near[0]}'? Otherwise {cure}" if near else cure,
            ) from None
        missing = list(self._litellm.validate_environment(model=self.model).get("missing_keys") or [])
        key = f"{provider.upper()}_API_KEY"
        if key in os.environ and not os.environ[key].strip() and key not in missing:
            missing.append(key)
        # For Azure litellm lists every variable if one is missing.
        missing = [variable for variable in missing if not os.environ.get(variable, "").strip()]
        if settings.base_url:
            missing = [variable for variable in missing if not variable.endswith(("_API_BASE", "_BASE_URL"))]
        elif provider == "hosted_vllm" and not os.environ.get("HOSTED_VLLM_API_BASE"):
            raise UserError(
                f"'{self.model}' requires an address",
                where="HOSTED_VLLM_API_BASE",
                cure="set the server's address with --base-url http://HOST:PORT/v1",
            )
        if missing:
            conjunction = " or " if provider == "gemini" else " and "
            raise UserError(
                f"'{self.model}' requires {conjunction.join(sorted(missing))} in the environment",
                where="environment",
                cure=f"export {min(missing)}=...",
            )

    async def chat(self, messages: list[Message], max_tokens: int | None, **parameters: Any) -> Reply:
        """Send one chat, once; again with a lower limit if the provider rejects it for ``max_tokens`` alone.

        Args:
            max_tokens: the limit of reply tokens; None sends none.
            parameters: more parameters of this request, by litellm's names.

        Raises:
            RequestFailed: the request got no reply, and another try can succeed.
            UserError: no request can succeed.
        """
        return await self._request({"messages": messages}, max_tokens, parameters)

    async def complete(self, prompt: list[int] | str, max_tokens: int | None, **parameters: Any) -> Reply:
        """Have a text continued at ``/v1/completions``, as ``chat`` does with a chat.

        Args:
            prompt: token ids, if the server takes them; else the text.
        """
        return await self._request({"prompt": prompt}, max_tokens, parameters)

    async def _request(
        self, content: Mapping[str, Any], max_tokens: int | None, parameters: Mapping[str, Any]
    ) -> Reply:
        limit, renamed = max_tokens and min(max_tokens, self._output_limit or max_tokens), False
        while True:
            name, log = self._limit_name, _RequestLog()
            given = {**self._settings.params, **parameters}
            try:
                response = await self._send(content, {name: limit} if limit else {}, parameters, log)
            except TimeoutError:
                seconds = self._settings.timeout
                raise RequestFailed("time-out", f"no reply in {seconds:g} s", maybe_billed=True) from None
            except asyncio.CancelledError:
                raise
            except Exception as error:
                other_name = None if renamed or limit is None else other_limit_name(error, name)
                if other_name:
                    renamed, self._limit_name = True, other_name
                    continue
                if "prompt" in content and getattr(error, "status_code", None) in NO_COMPLETIONS:
                    message = describe(error, self._litellm).message
                    raise RequestFailed("bad request", message, retryable=False) from None
                accepted = accepted_limit(error, limit) if limit is not None else None
                if accepted is None:
                    return read_error(error, self._litellm, self._named_in_errors(given), replied=self._replied)
                limit = accepted.tokens
                if accepted.of_model:
                    self._output_limit = limit
                continue
            self._replied = True
            reply = read_response(response, self.cost_of, limit)
            sent = self._note_sent(log, {"temperature": self._settings.temperature} | given)
            return replace(reply, sent=sent, max_tokens=None if limit == max_tokens else limit)

    def _named_in_errors(self, parameters: Mapping[str, Any]) -> RequestSettings:
        settings = self._settings
        section = settings.section
        unset = {
            name: f"remove that parameter from {section}.params: {name}"
            for name in parameters
            if name in settings.params
        }
        if settings.temperature is not None or "temperature" in settings.unset:
            unset["temperature"] = f"leave it out: -s {section}.temperature=null"
        unset |= {name: cure for name, cure in settings.unset.items() if name not in settings.params}
        return RequestSettings(self.model, section, settings.base_url, unset)

    def _note_sent(self, log: _RequestLog, asked: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """What was sent; a warning tells, once, what litellm changed."""
        if log.sent is None:
            return None
        self.last_sent = log.sent
        if not self._noted_changes:
            self._noted_changes = True
            for change in changed_parameters(asked, log.sent):
                warn(f"{self.model}: {change}, and recorded so")
        return log.sent

    async def _send(
        self, content: Mapping[str, Any], limit: Mapping[str, int], parameters: Mapping[str, Any], log: _RequestLog
    ) -> Any:
        """Have litellm send one request."""
        settings = self._settings
        if "prompt" in content:
            send, route = self._litellm.atext_completion, self._text_route()
        else:
            send, route = self._litellm.acompletion, {"model": self.model, **self._route}
        # litellm's limit is per read with some providers, and it drops replies that arrived while the process was
        # stopped. This one is for the whole request.
        async with time_limit(settings.timeout):
            return await send(
                timeout=settings.timeout + NEVER,
                logger_fn=log,
                num_retries=0,
                max_retries=0,
                **({} if settings.temperature is None else {"temperature": settings.temperature}),
                **content,
                **route,
                **limit,
                **{**settings.params, **parameters},
            )

    async def close(self) -> None:
        """Close the connections."""
        texts, self._texts = self._texts, None
        if texts is not None:
            await texts.close()
        if "_litellm" in self.__dict__:  # else no connection was opened, and the import would take seconds
            await self._litellm.close_litellm_async_clients()


class _RequestLog:
    """Called by litellm around a request; keeps what the body contains."""

    def __init__(self) -> None:
        self.sent: dict[str, Any] | None = None

    def __call__(self, details: Mapping[str, Any]) -> None:
        if details.get("log_event_type") == "pre_api_call":
            self.sent = sent_parameters((details.get("additional_args") or {}).get("complete_input_dict")) or None
