"""Any model that litellm knows, by its name.

litellm does the provider's dialect; waiting, retrying, limiting and keeping are ours. So no Router, no retries and no
client of its own: each of them would send a request again, or pay for one, behind our back.
"""

from __future__ import annotations

import asyncio
import math
import os
import re
import time
from collections.abc import Mapping
from email.utils import mktime_tz, parsedate_tz
from functools import cached_property
from typing import TYPE_CHECKING, Any

from spotcli.errors import RecipeError, UserError
from spotcli.oracles import Request
from spotcli.providers.replies import PassingFailure, Reply
from spotcli.records import Message

if TYPE_CHECKING:
    from spotcli.recipe import RectifySection

# What the request itself is made of; from the recipe they would be ignored, double, or end up in a file.
OURS = {"model", "messages", "api_key", "base_url", "api_base", "timeout", "max_tokens", "temperature", "n", "stream"}
OURS |= {"max_completion_tokens", "num_retries", "max_retries", "client", "fallbacks"}

_KEY_NAME = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL)", re.IGNORECASE)
_KEY_LIKE = re.compile(
    r"""
      \b(?:sk|pk|rk|gsk|xai|hf|r8|pplx|nvapi)[-_][A-Za-z0-9_\-*.]{6,}     # the usual prefixes, also starred out
    | \bAIza[A-Za-z0-9_\-]{10,}                                           # Google
    | \bA(?:KIA|SIA)[A-Z0-9]{12,}                                         # AWS
    | \beyJ[A-Za-z0-9_\-]{10,}(?:\.[A-Za-z0-9_\-]+)*                      # a JSON web token
    | (?<=Bearer\s)[^\s"',]+
    | (?<=[?&]key=)[^\s"'&]+
    """,
    re.VERBOSE,
)
_USED_UP = re.compile(
    r"insufficient_quota|insufficient credit|credit balance|billing_hard_limit|out of credits|PerDay|per day",
    re.IGNORECASE,
)
_FILTERED = re.compile(r"content[_ ]policy|content management policy|ResponsibleAI", re.IGNORECASE)
_TOO_LONG = re.compile(r"context[_ ]length|context[_ ]window|prompt is too long|input token count", re.IGNORECASE)


def redact(text: str) -> str:
    """The text without anything that is or looks like a key.

    Removes the values of environment variables that are named like keys, and what has the form of one.
    """
    values = {value for name, value in os.environ.items() if _KEY_NAME.search(name) and len(value) >= 8}
    for value in sorted(values, key=len, reverse=True):
        text = text.replace(value, "[redacted]")
    return _KEY_LIKE.sub("[redacted]", text)


class LitellmOracle:
    """One model of one provider. litellm is imported when it is first needed, since that takes seconds.

    Raises:
        RecipeError: one of two prices, or a parameter that is not the user's to set.
    """

    prompted = True
    parallel: int | None = None

    def __init__(self, name: str, settings: RectifySection) -> None:
        unknown = OURS & settings.params.keys()
        if unknown:
            raise RecipeError(
                f"'{sorted(unknown)[0]}' cannot be set here",
                where="rectify.params",
                cure="it has an option of its own, or belongs in the environment",
            )
        if (settings.price_in is None) != (settings.price_out is None):
            raise RecipeError(
                "prices come in pairs", where="rectify.price_in", cure="set rectify.price_in and rectify.price_out"
            )
        self.name = name
        self._settings = settings
        # Left out: the address, since a model moves; the token limit, since a whole reply is as good under any.
        shaping = {"temperature": settings.temperature} | settings.params
        self.version = ", ".join(f"{key}={value}" for key, value in sorted(shaping.items()) if value is not None)

    @cached_property
    def _litellm(self) -> Any:
        return _import()

    @cached_property
    def _route(self) -> dict[str, str]:
        """Where requests go, where an address is given.

        With a name that has no provider in front litellm compares the address with all that it knows, for each request
        anew: a tenth of all that a request costs. It is asked once instead.
        """
        address = self._settings.base_url
        if not address:
            return {}
        if "/" in self.name:
            return {"base_url": address}
        provider = self._litellm.get_llm_provider(model=self.name, api_base=address)[1]
        return {"base_url": address, "custom_llm_provider": provider}

    def ready(self) -> None:
        settings = self._settings
        try:
            _, provider, _, _ = self._litellm.get_llm_provider(model=self.name)
        except self._litellm.BadRequestError:
            raise UserError(
                f"no oracle is called '{self.name}'",
                where="rectify.oracle",
                cure="symbolic, human, or a model with its provider in front: openai/..., gemini/..., hosted_vllm/...",
            ) from None
        missing = list(self._litellm.validate_environment(model=self.name).get("missing_keys") or [])
        own = f"{provider.upper()}_API_KEY"
        if own in os.environ and not os.environ[own].strip() and own not in missing:
            missing.append(own)
        if settings.base_url:
            missing = [variable for variable in missing if not variable.endswith(("_API_BASE", "_BASE_URL"))]
        elif provider == "hosted_vllm" and not os.environ.get("HOSTED_VLLM_API_BASE"):
            raise UserError(
                f"'{self.name}' has no address",
                where="HOSTED_VLLM_API_BASE",
                cure="name the server with --base-url http://HOST:PORT/v1",
            )
        if missing:
            either = " or " if provider == "gemini" else " and "
            raise UserError(
                f"'{self.name}' needs {either.join(sorted(missing))} in the environment",
                where="environment",
                cure=f"export {sorted(missing)[0]}=...",
            )

    @cached_property
    def _price(self) -> tuple[float, float] | None:
        """US dollars a prompt token and a reply token."""
        given = self._settings
        if given.price_in is not None and given.price_out is not None:
            return given.price_in / 1e6, given.price_out / 1e6
        try:
            info = self._litellm.get_model_info(self.name)
        except Exception:
            # litellm raises a bare Exception for a model that it has no prices of.
            return None
        prices = info.get("input_cost_per_token"), info.get("output_cost_per_token")
        return None if None in prices else prices

    def price_of(self, prompt_tokens: float, reply_tokens: float) -> float | None:
        return self._price and prompt_tokens * self._price[0] + reply_tokens * self._price[1]

    def cost_of(self, usage: Mapping[str, Any], noted: float | None) -> float | None:
        if not usage.get("total_tokens"):
            return None  # litellm makes up zeros, and a price of nothing, where the provider tells no usage
        if noted is not None and self._settings.price_in is None:
            return noted
        return self.price_of(usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0))

    def count_tokens(self, request: Request) -> tuple[int, int]:
        messages, answer = request.ask.messages, request.sample.response
        try:
            counter = self._litellm.token_counter
            return int(counter(model=self.name, messages=messages)), int(counter(model=self.name, text=answer))
        except Exception:
            # A tokenizer that would have to be downloaded; four characters a token are near enough for a plan.
            return math.ceil(sum(len(message["content"]) for message in messages) / 4), math.ceil(len(answer) / 4)

    def worst_cost(self, request: Request) -> float | None:
        # No token is shorter than a byte; each message has a few tokens around it.
        prompt = sum(len(message["content"].encode()) + 16 for message in request.ask.messages)
        return self.price_of(prompt, self._settings.max_tokens * request.ask.budget)

    async def correct(self, request: Request) -> Reply:
        return await self.chat(request.ask.messages, self._settings.max_tokens * request.ask.budget)

    async def chat(self, messages: list[Message], max_tokens: int, **more: Any) -> Reply:
        """One reply to a chat; ``more`` are litellm's own parameters. Raises as ``correct`` does."""
        settings = self._settings
        try:
            # litellm's own limit holds for single reads with some providers, ours for the whole.
            async with asyncio.timeout(settings.timeout):
                response = await self._litellm.acompletion(
                    model=self.name,
                    messages=messages,
                    max_tokens=max_tokens,
                    timeout=settings.timeout,
                    num_retries=0,
                    max_retries=0,
                    **({} if settings.temperature is None else {"temperature": settings.temperature}),
                    **self._route,
                    **settings.params,
                    **more,
                )
        except TimeoutError:
            raise PassingFailure("time-out", f"no reply in {settings.timeout:g} s", maybe_billed=True) from None
        except asyncio.CancelledError:
            raise
        except Exception as error:
            return self._failed(error)
        return self._reply(response)

    async def close(self) -> None:
        if "_litellm" in self.__dict__:  # else nothing was ever opened, and importing it would take seconds
            await self._litellm.close_litellm_async_clients()

    def _reply(self, response: Any) -> Reply:
        choice = response.choices[0] if response.choices else None
        text = (choice.message.content or "") if choice else ""
        finish = {"length": "length", "content_filter": "filtered"}.get(choice.finish_reason if choice else "", "stop")
        # A field of its own in newer litellm; before, among the provider's own.
        message = choice.message if choice else {}
        refusal = message.get("refusal") or (message.get("provider_specific_fields") or {}).get("refusal")
        if refusal and not text:
            text, finish = str(refusal), "refused"
        usage = response.usage.model_dump(mode="json", exclude_none=True) if response.get("usage") else {}
        return Reply(
            text=text,
            finish_reason=finish,
            reason=None,
            usage=usage,
            # litellm knows the prices of cached and thinking tokens too.
            cost=self.cost_of(usage, response._hidden_params.get("response_cost")),
            model=response.model,
            # vLLM's own field, for those who ask for it.
            token_ids=((choice and choice.provider_specific_fields) or {}).get("token_ids"),
        )

    def _failed(self, error: Exception) -> Reply:
        """What an exception of litellm's means: a reply of its own kind, a passing failure, or the end.

        Raises:
            PassingFailure, UserError: as the Protocol says.
        """
        litellm = self._litellm
        status = getattr(error, "status_code", None)
        headers = getattr(error, "litellm_response_headers", None)
        message = redact(_first_line(error))
        # The body has codes that the message may leave out.
        told = f"{error} {getattr(error, 'body', None) or ''}"
        refused = status == 400
        if isinstance(error, litellm.ContextWindowExceededError) or (refused and _TOO_LONG.search(told)):
            return Reply(finish_reason="declined", reason="too long for the model")
        if isinstance(error, litellm.ContentPolicyViolationError) or (refused and _FILTERED.search(told)):
            return Reply(finish_reason="filtered", text=message)
        if isinstance(error, litellm.UnsupportedParamsError):
            raise UserError(
                message, where=self.name, cure="leave that parameter out, or choose another model"
            ) from None
        if isinstance(error, ImportError):
            raise UserError(message, where=self.name, cure=f"pip install {error.name or 'it'}") from None
        if status == 401 or status == 403:
            raise UserError(
                f"the provider does not accept the key: {message}",
                where=self.name,
                cure="check the key in the environment, and that it may use this model",
            ) from None
        if status == 404:
            raise UserError(
                f"the provider has no such model: {message}", where=self.name, cure="check --oracle and --base-url"
            ) from None
        after = _retry_after(headers, told)
        if status == 402 or (status == 429 and _quota_used_up(told, after)):
            raise UserError(
                f"the provider's quota is used up: {message}",
                where=self.name,
                cure="add credit or raise the quota there, then run the same command again; all replies are kept",
            ) from None
        if status == 429:
            raise PassingFailure("rate limit", message, retry_after=after) from None
        if isinstance(error, litellm.Timeout):
            raise PassingFailure("time-out", message, maybe_billed=headers is None) from None
        if status is not None and 400 <= status < 500:
            raise PassingFailure("bad request", message, retry=False) from None
        if _caused_by(error, _BROKEN):
            raise PassingFailure("connection", message, maybe_billed=not _caused_by(error, _NOT_MADE)) from None
        if status == 200 or headers is None:
            # There was an answer, which litellm could not make out: it may have been charged for.
            raise PassingFailure("unreadable", message, maybe_billed=True) from None
        raise PassingFailure("server", message, retry_after=after) from None


def providers() -> set[str]:
    """Names that litellm knows as a provider in front of a model's."""
    return {str(getattr(provider, "value", provider)) for provider in _import().provider_list}


def _import() -> Any:
    # Without it, importing litellm asks the network for a table of prices, and waits for it.
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    try:
        import litellm
    except ImportError:
        raise UserError("an oracle at a provider needs litellm", cure="pip install surgical-post-training") from None
    import logging

    # It prints to stdout otherwise, which belongs to results.
    litellm.suppress_debug_info = True
    # Its warnings quote requests and replies, and are about what we handle ourselves.
    logging.getLogger("LiteLLM").setLevel(logging.CRITICAL)
    return litellm


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:500]


def _retry_after(headers: Any, message: str) -> float | None:
    """Seconds that the provider asks to wait: a header with seconds or a date, or Google's ``retryDelay``."""
    value = headers.get("retry-after") if headers is not None else None
    if value:
        try:
            return max(0.0, float(value))
        except ValueError:
            date = parsedate_tz(value)
            if date:
                return max(0.0, mktime_tz(date) - time.time())
    named = re.search(r'retryDelay"?:\s*"?(\d+(?:\.\d+)?)s', message)
    return float(named[1]) if named else None


def _quota_used_up(message: str, retry_after: float | None) -> bool:
    # Google writes "exceeded your current quota" for a limit a minute too, but then says how long to wait.
    return bool(_USED_UP.search(message)) or ("exceeded your current quota" in message and retry_after is None)


# By name, since litellm takes httpx or aiohttp: a connection that broke, and one that was never made.
_BROKEN = {"OSError", "ClientError", "TransportError"}
_NOT_MADE = {"ConnectionRefusedError", "ClientConnectorError", "ConnectError", "gaierror"}


def _caused_by(error: BaseException | None, names: set[str]) -> bool:
    while error is not None:
        if not names.isdisjoint(kind.__name__ for kind in type(error).__mro__):
            return True
        error = error.__cause__ or error.__context__
    return False
