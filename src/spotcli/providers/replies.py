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
    is why; ``incomplete``: the provider ended the reply early (``reason``), so the request is sent again."""
    reason: str | None = None
    """Why an oracle declined, or a reply is incomplete, in one or two words, since rows are counted by it."""
    usage: Mapping[str, Any] = field(default_factory=dict)
    """The provider's token counts, unchanged."""
    cost: float | None = None
    """US dollars; None if the price is unknown."""
    model: str | None = None
    """The model that answered, according to the provider."""
    token_ids: list[int] | None = None
    """The tokens of the reply, if the provider returns them."""
    reasoning: str | None = None
    """The reasoning that the provider separated from the text."""
    sent: Mapping[str, Any] | None = None
    """The parameters of the request as they were sent, by the provider's names; None if they are unknown."""
    max_tokens: int | None = None
    """The limit that the request was sent with, if it had to be lowered for the model."""

    def raise_if_incomplete(self) -> None:
        """Raise the error for a reply that the provider ended early; it may have been paid for.

        Raises:
            RequestFailed: the same request can get a complete reply.
        """
        if self.finish_reason == "incomplete":
            reason = self.reason or "incomplete"
            message = f"the reply is incomplete (finish reason: {reason})"
            raise RequestFailed(reason, message, maybe_billed=True, reply=self)


class RequestFailed(Exception):
    """A request got no reply; the same request can succeed later.

    Args:
        kind: what failures are counted by: ``rate limit``, ``time-out``, ``connection``, ``server``, ``unreadable``
            (the body is not a reply), ``bad request``.
        retry_after: seconds to wait, if the provider named a time.
        maybe_billed: the provider may have worked on the request, so a cost limit must count it as spent.
        retryable: sending the request again soon can help.
        reply: the incomplete reply, which may have been paid for.
    """

    def __init__(
        self,
        kind: str,
        message: str,
        *,
        retry_after: float | None = None,
        maybe_billed: bool = False,
        retryable: bool = True,
        reply: Reply | None = None,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.retry_after = retry_after
        self.maybe_billed = maybe_billed
        self.retryable = retryable
        self.reply = reply
