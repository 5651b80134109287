"""What a request to a provider returns: a reply, or the error for a request that got none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Reply:
    """One reply, complete and not parsed."""

    text: str = ""
    """The message of a model as it came; the corrected answer of an oracle that is not prompted."""
    finish_reason: str = "stop"
    """``stop``; ``length``: truncated; ``filtered`` by the provider; ``refused`` by the model; ``declined``: ``reason``
    is why."""
    reason: str | None = None
    """Why an oracle declined, in one or two words, since rows are counted by it (``no step found``)."""
    usage: Mapping[str, Any] = field(default_factory=dict)
    """The provider's token counts, unchanged."""
    cost: float | None = None
    """US dollars; None if the price is unknown."""
    model: str | None = None
    """The model that answered, according to the provider."""
    token_ids: list[int] | None = None
    """The tokens of the reply, if the provider returns them."""


class RequestFailed(Exception):
    """A request got no reply; the same request can succeed later.

    Args:
        kind: what failures are counted by: ``rate limit``, ``time-out``, ``connection``, ``server``, ``unreadable``
            (the body is not a reply), ``bad request``.
        retry_after: seconds to wait, if the provider named a time.
        maybe_billed: the provider may have worked on the request, so a cost limit must count it as spent.
        retryable: sending the request again soon can help.
    """

    def __init__(
        self,
        kind: str,
        message: str,
        *,
        retry_after: float | None = None,
        maybe_billed: bool = False,
        retryable: bool = True,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.retry_after = retry_after
        self.maybe_billed = maybe_billed
        self.retryable = retryable
