"""How a model at a provider is reached, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class ProviderSettings:
    """How a model is reached, what it is sent with each request, and what it costs."""

    params: Mapping[str, Any] = field(default_factory=dict)
    """More parameters of a request, by litellm's names."""
    temperature: float | None = None
    """None: the provider's default."""
    timeout: float = 600.0
    """Seconds for one request."""
    base_url: str | None = None
    """None: litellm's environment variables, or the provider's public address."""
    price_in: float | None = None
    """US dollars per million prompt tokens; None: litellm's price."""
    price_out: float | None = None
    """US dollars per million reply tokens; None: litellm's price."""
    section: str = "rectify"
    """The section of the recipe that these settings come from, for errors."""
    model_key: str = "rectify.oracle"
    """The recipe's key that names the model, for errors."""
    unset: Mapping[str, str] = field(default_factory=dict)
    """Parameter of a request, beside ``params`` -> what leaves it out, for the error if the model refuses it."""
