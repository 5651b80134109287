"""The drift of a model from its base model, as numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from spotcli.core.stats.per_token import PerToken

PassageKind = Literal["neutral", "own right"]
"""``neutral``: answers to everyday requests; ``own right``: the base model's right answers to the trained tasks."""


CHANGE = "⟦"
"""Marks the token whose distribution changed most."""


@dataclass(frozen=True)
class WorstPrompt:
    """A prompt on which the model differs most from its base model."""

    part: PassageKind
    task: str | None
    id: str
    trial: int
    kl: float
    """Mean over the tokens of the answer, in nats."""
    tokens: int
    peak: float
    """The largest KL divergence at one position, in nats."""
    passage: str
    """The answer around that token, with ``CHANGE`` before it."""
    excerpt: str
    """The end of the prompt."""


DriftPart = PerToken
"""KL(base || model) in nats per token on one kind of answers."""


@dataclass(frozen=True)
class Drift:
    """KL(base || model) in nats per token."""

    mean: float
    """On neutral prompts."""
    tokens: int
    neutral: DriftPart
    own_right: DriftPart | None
    """On the base model's right answers to the trained tasks; None if there are none."""
    worst: list[WorstPrompt]
    """Some prompts of each kind, with the largest mean divergence first."""
    dtype: str = "float32"
    """Number format of both models."""
