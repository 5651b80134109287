"""TODO."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Reply:
    """What the oracle said, whole and unread."""

    text: str = ""
    """A prompted oracle's message as it came; any other oracle's corrected answer, the whole of it."""
    finish_reason: str = "stop"
    """``stop``; ``length``: cut; ``filtered`` by the provider; ``refused`` by the model; ``declined``: ``reason``."""
    reason: str | None = None
    """Why an oracle declined: one or two words, since rows are counted by it (``no step found``)."""
    usage: Mapping[str, Any] = field(default_factory=dict)
    """The provider's token counts, as they came."""
    cost: float | None = None
    """US dollars; None where the price is unknown."""
    model: str | None = None
    """The model that the provider says has answered."""
    token_ids: list[int] | None = None
    """The reply's tokens, where the provider tells them."""


class PassingFailure(Exception):
    """No reply this time; the same request can succeed later.

    ``kind`` is what failures are counted by: ``rate limit``, ``time-out``, ``connection``, ``server``, ``unreadable``
    (a body that is no reply), ``bad request``.
    ``retry_after`` is in seconds, where the provider named a time. ``maybe_billed``: the request may have been worked
    on before it failed, so a money limit has to count it as spent. ``retry``: sending it again soon makes sense.
    """

    def __init__(
        self,
        kind: str,
        message: str,
        *,
        retry_after: float | None = None,
        maybe_billed: bool = False,
        retry: bool = True,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.retry_after = retry_after
        self.maybe_billed = maybe_billed
        self.retry = retry
