"""What answers problems: the ``Policy`` protocol, requests and answers. ``by_name.load_policy`` loads an engine.

vllm          one vLLM engine in a worker process per group of GPUs, in any environment that has vLLM
transformers  a model in this process: no start-up, any machine
api           any endpoint that litellm supports, such as a vLLM server on a cluster
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

from spotcli.records import FinishReason, Message


@dataclass(frozen=True)
class TokenPrefix:
    """A rendered prompt and the beginning of its answer, which the policy continues."""

    ids: tuple[int, ...]
    """Token ids, as an engine gets them."""
    text: str
    """The same as text, for an endpoint that takes no ids."""


@dataclass(frozen=True)
class Request:
    """One answer to ask for."""

    key: tuple[Any, ...]
    """Identifies the request for the caller."""
    messages: list[Message]
    seed: int
    """Seed of all randomness of this answer, whatever else is in the batch."""
    trial: int = 0
    tools: list[Any] | None = None
    """The JSON schemas of the tools that the prompt offers; the api engine refuses them."""
    group: str = ""
    """Requests of different groups are not in one batch, so an answer does not depend on which other groups are
    asked."""
    max_new_tokens: int | None = None
    """The limit of this answer, if it is lower than that of all answers."""
    prefix: TokenPrefix | None = None
    """What the policy continues, in the place of the rendered messages; None: it answers the messages."""

    def limit(self, sampling: Sampling) -> int:
        """New tokens that the answer may have."""
        return min(sampling.max_new_tokens, self.max_new_tokens or sampling.max_new_tokens)


@dataclass(frozen=True)
class Answer:
    """What the policy generated."""

    request: Request
    response: str
    """Text without special tokens."""
    finish_reason: FinishReason
    token_ids: list[int] | None
    """Generated token ids, the end of turn included; None where the engine does not return them."""
    tokens: int
    """Number of generated tokens."""
    max_new_tokens: int
    """The limit of this answer: the requested one, or what the prompt left of the model's context."""
    cost: float | None = None
    """US dollars, where the provider has a price."""
    reasoning: str | None = None
    """The reasoning, where the endpoint separates it from the response."""
    sent: Mapping[str, Any] | None = None
    """Sampling parameters as an endpoint got them, None for those that it did not get; None if they are as asked."""


@dataclass(frozen=True)
class Failure:
    """A request without an answer. It is not the policy's mistake, so it has no verdict."""

    request: Request
    reason: str
    """A few words; failures are counted by reason."""
    cost: float | None = None
    """US dollars of what the provider charged for all the same, where it has a price."""
    tokens: int = 0
    """Tokens of such replies."""


NO_LIMIT = 2**24
"""A limit of new tokens that stands for none: a recipe's limits are smaller."""
LIMIT_OF_ENGINES = 32768
"""New tokens, for an engine other than an endpoint if no limit is set."""


@dataclass(frozen=True)
class Sampling:
    """Sampling parameters; defaults of a model's generation_config.json are not used."""

    max_new_tokens: int
    """``NO_LIMIT``: an endpoint is not sent one."""
    temperature: float | None = 0.7
    """None: an endpoint is not sent one."""
    top_p: float | None = 0.8
    """None: an endpoint is not sent one."""
    top_k: int = 0

    def without_gaps(self) -> Sampling:
        """The same for an engine without defaults of its own: what is not set changes no probability."""
        limit = LIMIT_OF_ENGINES if self.max_new_tokens == NO_LIMIT else self.max_new_tokens
        return replace(self, max_new_tokens=limit, temperature=_or_1(self.temperature), top_p=_or_1(self.top_p))

    def as_dict(self) -> dict[str, Any]:
        return {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k,
            "max_new_tokens": limit_or_none(self.max_new_tokens),
        }


def limit_or_none(max_new_tokens: int) -> int | None:
    """A limit of new tokens, as it is sent and recorded."""
    return None if max_new_tokens >= NO_LIMIT else max_new_tokens


def _or_1(value: float | None) -> float:
    return 1.0 if value is None else value


@dataclass(frozen=True)
class PromptFacts:
    """How a model's prompts are rendered, as the meta file records it."""

    prompt_tail: str
    """The end of the first prompt as the model reads it."""
    prompt_bos: int
    """BOS tokens at its start."""
    chat_template_kwargs: dict[str, Any]
    template_date: str | None
    """The fixed date that the chat template gets; None where the template has no date."""
    stop_token_ids: list[int]
    context: int | None
    """Tokens that prompt and answer may have together."""
    model_defaults_not_used: dict[str, Any]
    """Sampling parameters of the model's generation_config.json."""

    def as_dict(self) -> dict[str, Any]:
        values = dict(vars(self))
        if self.template_date is None:
            del values["template_date"]
        return values


@dataclass(frozen=True, kw_only=True)
class EngineFacts:
    """What the meta file records of an engine; each engine adds its own fields."""

    prompts: PromptFacts | None
    """None where an endpoint renders the prompts itself."""

    def as_dict(self) -> dict[str, Any]:
        own = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "prompts"}
        return own | (self.prompts.as_dict() if self.prompts else {"prompt_tail": None})


class Policy(Protocol):
    """An engine that answers requests."""

    engine: str
    background: bool
    """Whether answers arrive while the caller does something else, so that they can wait for it."""
    trials_together: bool
    """Whether the engine is faster when trials of one problem are adjacent (the shared prompt is computed once)."""

    def facts(self, first: Request) -> EngineFacts:
        """Effective parameters, and how ``first`` is rendered."""

    def answers(
        self, requests: Iterable[Request], total: int, done: Callable[[Request], bool]
    ) -> Iterator[list[Answer | Failure]]:
        """Answer the requests that are not ``done``, and yield what has just finished in groups.

        Args:
            requests: read only as far as the engine has capacity, so the stream may have any length.
            total: the number of requests that are not ``done``.
            done: whether a request needs no answer.

        Raises:
            UserError: the engine failed to start, or all of its workers crashed.
        """

    def stop(self) -> None:
        """Make ``answers`` yield what is finished and end soon. May be called from a signal handler."""

    def close(self) -> None:
        """End every process of the engine."""


def answer_seed(seed: int, problem_id: str, trial: int) -> int:
    """The seed of one answer: 63 bits of a hash of the run's seed, the problem and the trial."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{problem_id}:{trial}".encode()).digest()[:8]) >> 1
