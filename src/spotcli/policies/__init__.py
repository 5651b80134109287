"""Who answers: a policy takes rendered prompts and yields answers, batch by batch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
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


@dataclass(frozen=True)
class Answer:
    """What the policy said."""

    request: Request
    response: str
    """Text without special tokens."""
    finish_reason: FinishReason
    token_ids: list[int]
    """What was generated, the end of turn included."""


@dataclass(frozen=True)
class Sampling:
    """Effective sampling parameters; nothing of a model's own generation_config.json is mixed in."""

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

    def plan(self, requests: Sequence[Request]) -> list[list[Request]]:
        """Cut the work into batches; the same requests give the same batches.

        Rounding makes an answer depend on its batch, so a job that resumes must run the batches it would have run.
        """

    def answer(self, batch: list[Request]) -> Iterator[Answer]:
        """Answer one batch; answers come as they are finished."""


def answer_seed(seed: int, problem_id: str, trial: int) -> int:
    """The seed of one answer: 63 bits of a hash, so it depends on nothing but what it is for."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{problem_id}:{trial}".encode()).digest()[:8]) >> 1


def load_policy(engine: str, model: str, sampling: Sampling, **options: Any) -> Policy:
    """The policy that an engine's name stands for; ``options`` are the engine's own.

    Raises:
        UserError: the engine is not there, or the model is not.
    """
    from spotcli.errors import UserError

    if engine in ("auto", "transformers"):
        from spotcli.policies.transformers import TransformersPolicy

        return TransformersPolicy(model, sampling, **options)
    raise UserError(f"the engine '{engine}' is not in this version", cure="--engine transformers")
