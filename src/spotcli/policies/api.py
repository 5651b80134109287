"""The api policy: any endpoint that litellm supports, with many requests in flight, as fast as the endpoint allows."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from spotcli.console import warn
from spotcli.errors import Unfinished, UserError
from spotcli.policies import Answer, EngineFacts, Failure, Request, Sampling
from spotcli.policies.answer_queue import AnswerQueue
from spotcli.policies.prompter import SWITCHES
from spotcli.providers.limiter import Limiter
from spotcli.providers.litellm import LitellmClient, ProviderSettings, provider_names
from spotcli.providers.replies import Reply, RequestFailed
from spotcli.providers.retry import Delivery, Retries, asks_for_too_long
from spotcli.redaction import public_value, without_credentials

if TYPE_CHECKING:
    from spotcli.recipe import SampleSection
    from spotcli.records import Message

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
    """Sent with each request beside the messages."""


class ApiPolicy:
    """Sends messages unchanged; the endpoint renders them, with its own chat template and its own defaults.

    Raises:
        RecipeError: ``sample.params`` contains a reserved parameter.
    """

    engine = "api"
    trials_together = True

    def __init__(self, model: str, sampling: Sampling, settings: SampleSection) -> None:
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
                section="sample",
                model_key="model",
            ),
        )
        self._parameters = self._request_parameters()
        self._answers: AnswerQueue[Answer | Failure] = AnswerQueue()
        self._stopped = threading.Event()
        self._dropped = threading.Event()
        self._woken = asyncio.Event()
        self._retries = Retries(settings.retries, self._stopped.is_set, self._woken)
        self._thread: threading.Thread | None = None
        self._failed_in_a_row = 0

    def _request_parameters(self) -> dict[str, Any]:
        """Parameters of each request; only those that are set, since not every server knows all of them."""
        body: dict[str, Any] = {}
        if self.sampling.top_k:
            body["top_k"] = self.sampling.top_k
        template = dict(self._settings.chat_template_kwargs)
        if self._settings.thinking != "auto":
            template = dict.fromkeys(SWITCHES, self._settings.thinking == "on") | template
        if template:
            body["chat_template_kwargs"] = template
        if self._settings.keep_tokens:
            body["return_token_ids"] = True
        return {"top_p": self.sampling.top_p, **({"extra_body": body} if body else {})}

    def facts(self, first: Request) -> ApiFacts:
        return ApiFacts(
            base_url=without_credentials(self._settings.base_url),
            parameters=public_value(self._parameters),
            prompts=None,
        )

    def answers(
        self, requests: Iterable[Request], total: int, done: Callable[[Request], bool]
    ) -> Iterator[list[Answer | Failure]]:
        """Send the requests in their order, many at once.

        Raises:
            UserError: the endpoint rejects the key, does not know the model, or its quota is exhausted.
            Unfinished: many requests in a row failed.
        """
        self._client.check_environment()
        remaining = (request for request in requests if not done(request))
        self._thread = threading.Thread(target=self._run, args=(remaining, total), name="api", daemon=True)
        self._thread.start()
        yield from self._answers.groups()

    def stop(self) -> None:
        """Send no further request; wait for those in flight, since they may be paid for."""
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
        limiter = Limiter(self._settings.concurrency, rpm=self._settings.rpm, tpm=self._settings.tpm)
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
        while not self._dropped.is_set():
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
        delivery = _ChatDelivery(self._client, request, self.sampling.max_new_tokens, self._parameters)
        try:
            reply = await self._retries.deliver(delivery, limiter)
        except RequestFailed as failure:
            self._answers.put(Failure(request, failure.kind))
            self._count_failed(failure)
        else:
            if reply is not None:
                self._failed_in_a_row = 0
                self._answers.put(self._read(request, reply))

    def _count_failed(self, failure: RequestFailed) -> None:
        self._failed_in_a_row += 1
        if self._failed_in_a_row == 1:
            warn(f"{self._client.model}: {failure.kind}: {failure}")
        if self._stopped.is_set():
            return
        if asks_for_too_long(failure):
            raise Unfinished(
                f"the endpoint asks to wait {failure.retry_after:g} s before the next request",
                where=without_credentials(self._settings.base_url) or self._client.model,
                cure="run the same command again after that time",
            )
        if self._failed_in_a_row >= HOPELESS:
            raise Unfinished(
                f"{HOPELESS} requests in a row failed; the last one: {failure}",
                where=without_credentials(self._settings.base_url) or self._client.model,
                cure="check that the endpoint is up, then run the same command again",
            )

    def _read(self, request: Request, reply: Reply) -> Answer | Failure:
        if reply.finish_reason not in ("stop", "length"):
            return Failure(request, reply.reason or reply.finish_reason)
        if self._settings.keep_tokens and reply.token_ids is None:
            raise UserError(
                "the endpoint does not return the tokens of its answers",
                where="sample.keep_tokens",
                cure="use the vllm engine, or remove keep_tokens",
            )
        truncated, tokens = reply.finish_reason == "length", reply.usage.get("completion_tokens", 0)
        # An answer that was truncated below its limit has filled the endpoint's context.
        limit = min(tokens or self.sampling.max_new_tokens, self.sampling.max_new_tokens)
        return Answer(
            request,
            reply.text,
            "length" if truncated else "stop",
            reply.token_ids,
            tokens,
            limit if truncated else self.sampling.max_new_tokens,
            reply.cost,
            reply.reasoning,
        )


@dataclass
class _ChatDelivery(Delivery):
    """One request on its way to the endpoint."""

    client: LitellmClient
    request: Request
    max_tokens: int
    parameters: dict[str, Any]

    def __post_init__(self) -> None:
        # Four characters per token.
        self.tokens = sum(len(message["content"]) for message in self.request.messages) / 4

    async def send(self) -> Reply:
        fields: list[dict[str, Any]] = [{**message} for message in self.request.messages]
        messages = [{name: value for name, value in message.items() if name in SENT} for message in fields]
        reply = await self.client.chat(
            cast("list[Message]", messages), self.max_tokens, seed=self.request.seed, **self.parameters
        )
        reply.raise_if_incomplete()
        return reply


def _has_provider(model: str) -> bool:
    """Whether a name starts with one of litellm's providers."""
    return model.partition("/")[0] in provider_names()
