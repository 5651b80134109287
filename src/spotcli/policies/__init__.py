"""Who answers: a Protocol, and a factory by engine.

vllm          workers in processes of their own, one a group of GPUs, in whatever environment has vLLM
transformers  a model in this process: no start-up, any machine
api           any endpoint that litellm knows; a served cluster is how one goes past one machine
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from spotcli.records import FinishReason, Message


@dataclass(frozen=True)
class Request:
    """One answer that is wanted."""

    key: tuple[Any, ...]
    """The caller's name for it."""
    messages: list[Message]
    seed: int
    """All randomness of this answer; the same whatever else is in the batch."""
    trial: int = 0


@dataclass(frozen=True)
class Answer:
    """What the policy said."""

    request: Request
    response: str
    """Text without special tokens."""
    finish_reason: FinishReason
    token_ids: list[int] | None
    """What was generated, the end of turn included; None where the engine does not tell."""
    tokens: int
    """How many were generated."""
    max_new_tokens: int
    """The limit of this answer: the one asked for, or what the model's context left of it."""
    cost: float | None = None
    """US dollars, where the provider has a price."""


@dataclass(frozen=True)
class Failure:
    """No answer. It is not the policy's mistake, so it is neither right nor wrong nor undecided."""

    request: Request
    reason: str
    """One or two words, since failures are counted by it."""


@dataclass(frozen=True)
class Sampling:
    """Sampling parameters; nothing of a model's own generation_config.json is mixed in."""

    max_new_tokens: int
    temperature: float = 0.7
    top_p: float = 0.8
    top_k: int = 0

    def as_dict(self) -> dict[str, Any]:
        return {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k,
            "max_new_tokens": self.max_new_tokens,
        }


class Policy(Protocol):
    """Something that answers."""

    engine: str
    trials_together: bool
    """Whether it gains from a problem's trials standing beside each other (a shared prompt is computed once)."""

    def facts(self, first: Request) -> dict[str, Any]:
        """What the meta file keeps: effective parameters, the end of the first prompt as the model reads it."""

    def answers(
        self, requests: Iterable[Request], total: int, done: Callable[[Request], bool]
    ) -> Iterator[list[Answer | Failure]]:
        """Answer the requests that are not ``done``, ``total`` of them; what has just been finished comes together.

        Requests are pulled when there is room for them, so they may be a stream of any length.

        Raises:
            UserError: the engine cannot be had, or none of its workers lives any more.
        """

    def stop(self) -> None:
        """Finish soon: ``answers`` hands out what is there and ends. May be called from a signal handler."""

    def close(self) -> None:
        """Leave no process behind."""


def answer_seed(seed: int, problem_id: str, trial: int) -> int:
    """The seed of one answer: 63 bits of a hash, so it depends on nothing but what it is for."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{problem_id}:{trial}".encode()).digest()[:8]) >> 1
