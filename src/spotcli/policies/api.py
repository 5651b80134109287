"""The api policy: any endpoint that litellm supports, with many requests in flight, as fast as the endpoint allows."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from spotcli.console import duration, warn
from spotcli.errors import Unfinished, UserError
from spotcli.policies import Answer, EngineFacts, Failure, Request, Sampling, TokenPrefix, limit_or_none
from spotcli.policies.answer_queue import AnswerQueue
from spotcli.policies.completions import PromptForm, find_prompt_form, prompt_in
from spotcli.policies.prompter import SWITCHES
from spotcli.providers.library import provider_names
from spotcli.providers.limiter import Limiter
from spotcli.providers.litellm import LitellmClient
from spotcli.providers.replies import Reply, RequestFailed
from spotcli.providers.retry import Delivery, Retries, show_pause
from spotcli.providers.sent_parameters import value_sent
from spotcli.providers.settings import ProviderSettings
from spotcli.redaction import public_value, without_credentials

if TYPE_CHECKING:
    from spotcli.recipe import EngineSection
    from spotcli.records import Message

_UNSET = {
    "temperature": "leave it out: -s {key}.temperature=null",
    "top_p": "leave it out: -s {key}.top_p=null",
    "top_k": "leave it out: -s {key}.top_k=0",
    "seed": "leave it out: -s {key}.send_seed=false",
    "chat_template_kwargs": "leave it out: --thinking auto -s {key}.chat_template_kwargs={{}}",
    "return_token_ids": "leave it out: -s {key}.keep_tokens=false",
}
"""Parameter of a request -> what leaves it out; ``key`` is the section of the recipe."""
SENT = frozenset({"role", "content", "name", "tool_calls", "tool_call_id", "reasoning_content"})
"""Fields of a message that are sent; endpoints reject others, such as notes of a dataset."""
TOOLS_NOT_SENT = "the api engine sends no tools"
"""Reason: an answer without them would be the answer to another prompt."""
HOPELESS = 10
"""So many requests given up in a row mean that all will be."""


@dataclass(frozen=True, kw_only=True)
class ApiFacts(EngineFacts):
    base_url: str | None
    parameters: dict[str, Any]
    """Sent with each request beside the messages and the seed, by the provider's names."""


class ApiPolicy:
    """Sends messages unchanged; the endpoint renders them, with its own chat template and its own defaults.

    Raises:
        RecipeError: ``params`` contains a reserved parameter.
    """

    engine = "api"
    background = True
    trials_together = True

    def __init__(self, model: str, sampling: Sampling, settings: EngineSection) -> None:
        self.sampling = sampling
        self._settings = settings
        # A bare name with an address is a model of an OpenAI-compatible server, such as `vllm serve`.
        name = model if not settings.base_url or _has_provider(model) else f"hosted_vllm/{model}"
        self._client = LitellmClient(
            name,
            ProviderSettings(
                params=settings.params,
                temperature=sampling.temperature,
                timeout=settings.timeout,
                base_url=settings.base_url,
                section=settings.key,
                model_key="model",
                unset={name: cure.format(key=settings.key) for name, cure in _UNSET.items()},
            ),
        )
        self._parameters = self._request_parameters()
        self._answers: AnswerQueue[Answer | Failure] = AnswerQueue()
        self._stopped = threading.Event()
        self._dropped = threading.Event()
        self._woken = asyncio.Event()
        self._retries = Retries(settings.retries, self._stopped.is_set, self._woken, settings.max_wait)
        self._thread: threading.Thread | None = None
        self._form: PromptForm = "token ids"
        self._failed_in_a_row = 0

    def _request_parameters(self) -> dict[str, Any]:
        """Parameters of each request; only those that are set, since not every server knows all of them."""
        body: dict[str, Any] = {}
        template = dict(self._settings.chat_template_kwargs)
        if self._settings.thinking != "auto":
            template = dict.fromkeys(SWITCHES, self._settings.thinking == "on") | template
        if template:
            body["chat_template_kwargs"] = template
        if self._settings.keep_tokens:
            body["return_token_ids"] = True
        named = {"top_p": self.sampling.top_p, "top_k": self.sampling.top_k or None}
        return {
            **{name: value for name, value in named.items() if value is not None},
            **({"extra_body": body} if body else {}),
        }

    @property
    def _text_parameters(self) -> dict[str, Any]:
        """Parameters of a request that continues a text: it has no chat template."""
        body = {"top_k": self.sampling.top_k or None, "return_token_ids": self._settings.keep_tokens or None}
        body = {name: value for name, value in body.items() if value is not None}
        top_p = {} if self.sampling.top_p is None else {"top_p": self.sampling.top_p}
        return {**top_p, **({"extra_body": body} if body else {})}

    def facts(self, first: Request) -> ApiFacts:
        return ApiFacts(
            base_url=without_credentials(self._settings.base_url),
            parameters=self._recorded_parameters(),
            prompts=None,
        )

    def _recorded_parameters(self) -> dict[str, Any]:
        """The parameters as they were sent, once one was; the seed is in the rows."""
        sent = self._client.last_sent
        if sent is None:
            return dict(public_value(self._parameters))
        return {name: value for name, value in sent.items() if not name.lower().endswith("seed")}

    def check_environment(self) -> None:
        """Check, without a request, that the endpoint can be asked.

        Raises:
            UserError: an unknown provider, a missing key or a missing address.
        """
        self._client.check_environment()

    def check_continuing(self, prefix: TokenPrefix) -> None:
        """Find out in which form the endpoint takes a prompt that it continues.

        Raises:
            UserError: it has no ``/v1/completions``, or rejects the request.
            Unfinished: it cannot be reached.
        """
        where = without_credentials(self._settings.base_url) or self._client.model
        self._form = find_prompt_form(self._client, prefix, where)

    def answers(
        self, requests: Iterable[Request], total: int, done: Callable[[Request], bool]
    ) -> Iterator[list[Answer | Failure]]:
        """Send the requests in their order, many at once.

        Raises:
            UserError: the endpoint rejects the key, does not know the model, or its quota is exhausted.
            Unfinished: many requests in a row failed.
        """
        self.check_environment()
        remaining = (request for request in requests if not done(request))
        self._thread = threading.Thread(target=self._run, args=(remaining, total), name="api", daemon=True)
        self._thread.start()
        yield from self._answers.groups()

    def stop(self) -> None:
        """Send no further request; wait for those in flight, since they may be paid for, if the endpoint answers."""
        self._stopped.set()

    def close(self) -> None:
        """Drop the requests in flight."""
        self._stopped.set()
        self._dropped.set()
        if self._thread:
            self._thread.join()

    # The methods below run on a thread of their own, so that slow grading does not delay what arrives.

    def _run(self, requests: Iterator[Request], total: int) -> None:
        try:
            asyncio.run(self._ask_all(requests, min(self._settings.concurrency, total)))
        except BaseException as error:
            self._answers.end(error)
        else:
            self._answers.end()

    async def _ask_all(self, requests: Iterator[Request], workers: int) -> None:
        limiter = Limiter(
            self._settings.concurrency,
            rpm=self._settings.rpm,
            tpm=self._settings.tpm,
            on_pause=partial(show_pause, self._client.model, "rate limit"),
        )
        tasks = [asyncio.create_task(self._work(requests, limiter)) for _ in range(workers)]
        watch = asyncio.create_task(self._watch(limiter, tasks))
        try:
            results = await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            watch.cancel()
            await self._client.close()
        for result in results:
            if isinstance(result, Exception):
                raise result

    async def _watch(self, limiter: Limiter, tasks: list[asyncio.Task[None]]) -> None:
        """Pass ``stop`` and ``close``, which other threads call, on to the event loop."""
        while not self._stopped.is_set():
            await asyncio.sleep(0.1)
        limiter.wake()
        self._woken.set()
        await self._retries.wait_while_silent()
        while self._retries.replying and not self._dropped.is_set():
            await asyncio.sleep(0.1)
        for task in tasks:
            task.cancel()

    async def _work(self, requests: Iterator[Request], limiter: Limiter) -> None:
        while not self._stopped.is_set():
            while self._answers.full and not self._stopped.is_set():
                await asyncio.sleep(0.05)
            try:
                request = next(requests, None)
                if request is None:
                    return
                await self._settle(request, limiter)
            except Exception:
                self._stopped.set()  # no request can succeed, or the stream of requests is broken
                raise

    async def _settle(self, request: Request, limiter: Limiter) -> None:
        """Send a request until it has an answer or is given up, and hand that out."""
        if request.tools:
            self._answers.put(Failure(request, TOOLS_NOT_SENT))
            return
        seed = {"seed": request.seed} if self._settings.send_seed else {}
        prompt = None if request.prefix is None else prompt_in(self._form, request.prefix)
        parameters = self._parameters if prompt is None else self._text_parameters
        limit = limit_or_none(request.limit(self.sampling))
        delivery = _AnswerDelivery(self._client, request, limit, parameters | seed, prompt)
        try:
            reply = await self._retries.deliver(delivery, limiter)
        except RequestFailed as failure:
            self._answers.put(Failure(request, failure.kind, delivery.lost_cost, delivery.lost_tokens))
            self._count_failed(failure)
        else:
            if reply is not None:
                self._failed_in_a_row = 0
                self._answers.put(self._read(delivery, reply))

    def _count_failed(self, failure: RequestFailed) -> None:
        self._failed_in_a_row += 1
        if self._failed_in_a_row == 1:
            warn(f"{self._client.model}: {failure.kind}: {failure}")
        if self._stopped.is_set():
            return
        if self._retries.asks_for_too_long(failure):
            raise Unfinished(
                f"the endpoint asks to wait {duration(failure.retry_after or 0)} before the next request, longer than "
                f"{self._settings.key}.max_wait ({duration(self._settings.max_wait)})",
                where=without_credentials(self._settings.base_url) or self._client.model,
                cure=f"run the same command again after that time, or raise {self._settings.key}.max_wait",
            )
        if self._failed_in_a_row >= HOPELESS:
            raise Unfinished(
                f"{HOPELESS} requests in a row failed; the last one: {failure}",
                where=without_credentials(self._settings.base_url) or self._client.model,
                cure="check that the endpoint is up, then run the same command again",
            )

    def _read(self, delivery: _AnswerDelivery, reply: Reply) -> Answer | Failure:
        request, cost = delivery.request, reply.cost
        if delivery.lost_cost is not None:
            cost = (cost or 0.0) + delivery.lost_cost
        tokens = _count(reply.usage.get("completion_tokens"))
        if reply.finish_reason not in ("stop", "length"):
            return Failure(request, reply.reason or reply.finish_reason, cost, tokens + delivery.lost_tokens)
        if self._settings.keep_tokens and reply.token_ids is None:
            raise UserError(
                "the endpoint does not return the tokens of its answers",
                where=f"{self._settings.key}.keep_tokens",
                cure="use the vllm engine, or remove keep_tokens",
            )
        truncated = reply.finish_reason == "length"
        # An answer that was truncated below its limit has filled the endpoint's context.
        limit = request.limit(self.sampling)
        return Answer(
            request,
            reply.text,
            "length" if truncated else "stop",
            reply.token_ids,
            tokens,
            min(tokens or limit, limit) if truncated else limit,
            cost,
            reply.reasoning,
            self._sent(delivery, reply),
        )

    def _sent(self, delivery: _AnswerDelivery, reply: Reply) -> dict[str, Any] | None:
        """The sampling parameters of a row as the endpoint got them, and the form of a prompt that was continued."""
        if reply.sent is None:
            return None
        form = {} if delivery.prompt is None else {"prompt": self._form}
        return {name: value_sent(reply.sent, name) for name in ("temperature", "top_p", "top_k", "seed")} | form


@dataclass
class _AnswerDelivery(Delivery):
    """One request on its way to the endpoint."""

    client: LitellmClient
    request: Request
    max_tokens: int | None
    parameters: dict[str, Any]
    prompt: list[int] | str | None = None
    """What is continued; None: the messages are answered."""
    lost_cost: float | None = None
    """US dollars of incomplete replies; None if no price is known."""
    lost_tokens: int = 0
    """Tokens of incomplete replies."""

    def __post_init__(self) -> None:
        self.model = self.client.model
        # Four characters per token.
        self.tokens = sum(len(message["content"]) for message in self.request.messages) / 4

    async def send(self) -> Reply:
        fields: list[dict[str, Any]] = [{**message} for message in self.request.messages]
        messages = [{name: value for name, value in message.items() if name in SENT} for message in fields]
        if self.prompt is None:
            reply = await self.client.chat(cast("list[Message]", messages), self.max_tokens, **self.parameters)
        else:
            reply = await self.client.complete(self.prompt, self.max_tokens, **self.parameters)
        try:
            reply.raise_if_incomplete()
        except RequestFailed:
            # It answers nothing, but it was paid for.
            self.lost_tokens += _count(reply.usage.get("completion_tokens"))
            if reply.cost is not None:
                self.lost_cost = (self.lost_cost or 0.0) + reply.cost
            raise
        return reply


def _count(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _has_provider(model: str) -> bool:
    """Whether a name starts with one of litellm's providers."""
    return model.partition("/")[0] in provider_names()
