"""The api policy: any endpoint that litellm knows, many requests in flight, at the speed that the endpoint bears."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spotcli.console import warn
from spotcli.errors import Unfinished, UserError
from spotcli.policies import Answer, EngineFacts, Failure, Request, Sampling
from spotcli.policies.answer_queue import AnswerQueue
from spotcli.policies.prompter import SWITCHES
from spotcli.providers.limiter import Limiter, backoff
from spotcli.providers.litellm import LitellmOracle
from spotcli.providers.replies import PassingFailure, Reply
from spotcli.recipe import RectifySection

if TYPE_CHECKING:
    from spotcli.recipe import SampleSection

# A rate limit uses up less of a request's patience than a failure does: the endpoint is healthy.
RATE_LIMIT_PATIENCE = 4
# Requests given up in a row: all will be.
HOPELESS = 10


@dataclass(frozen=True, kw_only=True)
class ApiFacts(EngineFacts):
    base_url: str | None
    parameters: dict[str, Any]
    """Sent with each request beside the messages."""


class ApiPolicy:
    """Messages go to the endpoint as they are, and it renders them; so its own template and defaults are what counts.

    Raises:
        RecipeError: a parameter that is not the user's to set.
    """

    engine = "api"
    trials_together = True

    def __init__(self, model: str, sampling: Sampling, settings: SampleSection) -> None:
        self.sampling = sampling
        self._settings = settings
        # A bare name with an address is a model of an OpenAI-compatible server, such as `vllm serve`.
        name = model if not settings.base_url or _has_provider(model) else f"hosted_vllm/{model}"
        self._provider = LitellmOracle(
            name,
            RectifySection(
                params=settings.params,
                temperature=sampling.temperature,
                timeout=settings.timeout,
                base_url=settings.base_url,
            ),
        )
        self._more = self._parameters()
        self._answers: AnswerQueue[Answer | Failure] = AnswerQueue()
        self._stopped = threading.Event()
        self._dropped = threading.Event()
        self._woken = asyncio.Event()
        self._thread: threading.Thread | None = None
        self._lost = 0

    def _parameters(self) -> dict[str, Any]:
        """What goes along with each request beside the messages; only what is set, since not every server knows all."""
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
        return ApiFacts(base_url=self._settings.base_url, parameters=self._more, prompts=None)

    def answers(
        self, requests: Iterable[Request], total: int, done: Callable[[Request], bool]
    ) -> Iterator[list[Answer | Failure]]:
        """Ask in the order of the requests, many at once.

        Raises:
            UserError: the endpoint does not accept the key, has no such model, or its quota is used up.
            Unfinished: one request after the other failed.
        """
        self._provider.ready()
        todo = (request for request in requests if not done(request))
        self._thread = threading.Thread(target=self._run, args=(todo, total), name="api", daemon=True)
        self._thread.start()
        yield from self._answers.groups()

    def stop(self) -> None:
        """Ask nothing more; what is in flight is waited for, since it may be paid for."""
        self._stopped.set()

    def close(self) -> None:
        """Drop what is still in flight."""
        self._stopped.set()
        self._dropped.set()
        if self._thread:
            self._thread.join()

    # All of the rest runs on a thread of its own, so that slow grading does not hold up what comes in.

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
            await self._provider.close()
        for result in results:
            if isinstance(result, Exception):
                raise result

    async def _watch(self, limiter: Limiter, tasks: list[asyncio.Task[None]]) -> None:
        """Pass on what other threads say."""
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
                self._stopped.set()  # no request can succeed any more, or there are none; what is in flight may be paid
                raise

    async def _settle(self, request: Request, limiter: Limiter) -> None:
        """Ask until there is an answer or a failure, and hand it out."""
        try:
            reply = await self._ask(request, limiter)
        except PassingFailure as failure:
            self._answers.put(Failure(request, failure.kind))
            self._count_lost(failure)
        else:
            if reply is not None:
                self._lost = 0
                self._answers.put(self._read(request, reply))

    async def _ask(self, request: Request, limiter: Limiter) -> Reply | None:
        """One reply; None where the run was stopped before it was asked for.

        Raises:
            PassingFailure: the retries are used up.
            UserError: no request can succeed any more.
        """
        patience, failures = float(self._settings.retries), 0
        tokens = sum(len(message["content"]) for message in request.messages) / 4
        while True:
            ticket = await limiter.acquire(tokens)
            used = None
            try:
                if self._stopped.is_set():
                    return None
                reply = await self._provider.chat(
                    request.messages, self.sampling.max_new_tokens, seed=request.seed, **self._more
                )
                used = reply.usage.get("total_tokens")
                limiter.succeeded()
                return reply
            except PassingFailure as failure:
                failures += 1
                limited = failure.kind == "rate limit" or failure.retry_after is not None
                if limited:
                    limiter.too_many(ticket, failure.retry_after)
                patience -= 1 / RATE_LIMIT_PATIENCE if limited else 1
                if patience < 0 or not failure.retry or self._stopped.is_set():
                    raise
            finally:
                limiter.release(ticket, tokens=used)
            if not limited:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(backoff(failures)):
                        await self._woken.wait()

    def _count_lost(self, failure: PassingFailure) -> None:
        self._lost += 1
        if self._lost == 1:
            warn(f"{self._provider.name}: {failure.kind}: {failure}")
        if self._lost >= HOPELESS and not self._stopped.is_set():
            raise Unfinished(
                f"{HOPELESS} requests in a row failed, the last with: {failure}",
                where=self._settings.base_url or self._provider.name,
                cure="see that the endpoint is up, then run the same command again",
            )

    def _read(self, request: Request, reply: Reply) -> Answer | Failure:
        if reply.finish_reason not in ("stop", "length"):
            return Failure(request, reply.reason or reply.finish_reason)
        if self._settings.keep_tokens and reply.token_ids is None:
            raise UserError(
                "the endpoint does not tell the tokens of its answers",
                where="sample.keep_tokens",
                cure="take the vllm engine, or leave keep_tokens out",
            )
        cut, tokens = reply.finish_reason == "length", reply.usage.get("completion_tokens", 0)
        # An answer that was cut before its limit has filled the endpoint's context.
        limit = min(tokens or self.sampling.max_new_tokens, self.sampling.max_new_tokens)
        return Answer(
            request,
            reply.text,
            "length" if cut else "stop",
            reply.token_ids,
            tokens,
            limit if cut else self.sampling.max_new_tokens,
            reply.cost,
        )


def _has_provider(model: str) -> bool:
    """Whether a name starts with one of litellm's providers."""
    from spotcli.providers.litellm import providers

    return model.partition("/")[0] in providers()
