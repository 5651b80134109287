"""What the batch APIs of all providers have in common.

line -> upload -> create ... retrieve ... -> rows
          find: the batch that a lost process created
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

NO_RESULT = "missing"
"""The failure of a request that the results of a complete batch do not contain."""


class BatchGone(Exception):
    """The provider has no such batch, or its results have expired."""


@dataclass(frozen=True)
class Limits:
    """What one batch may contain."""

    requests: int
    bytes: int


@dataclass(frozen=True)
class BatchState:
    """A batch as the provider describes it."""

    id: str
    status: Literal["open", "ended", "rejected"]
    """``rejected``: as a whole, so that no request was answered."""
    done: int = 0
    """Requests with a reply."""
    failed: int = 0
    """Requests that failed, expired or were cancelled."""
    total: int = 0
    created: float | None = None
    """Seconds since 1970, as ``expires``."""
    expires: float | None = None
    cancelled: bool = False
    expired: bool = False
    message: str = ""
    """Why it is rejected."""
    full: bool = False
    """It is rejected because too many tokens wait at the provider: a smaller one can succeed."""
    transient: bool = False
    """It is rejected because of an error of the provider."""
    name: str = ""
    """The key that it was created with, where the provider keeps it."""
    results: tuple[str, ...] = ()
    """Files with the rows."""
    inline: Sequence[Mapping[str, Any]] | None = None
    """The rows themselves."""


@dataclass(frozen=True)
class BatchRow:
    """What became of one request."""

    custom_id: str
    """Empty if the provider has lost it."""
    status: int = 200
    """HTTP state of the reply, or of the error."""
    body: Mapping[str, Any] | None = None
    """The reply, or the error, as an ordinary request would get it; None without either."""
    failure: str = ""
    """Why there is no body: ``expired`` or ``cancelled``."""


@dataclass(frozen=True)
class Sought:
    """A batch that was to be created, and of which no id is known."""

    key: str
    at: float
    """When, in seconds since 1970."""
    requests: int
    known: frozenset[str] = frozenset()
    """Ids of other batches."""
    file: str | None = None


@dataclass(frozen=True)
class Found:
    """What the provider has of it."""

    batch: BatchState | None = None
    possible: list[str] = field(default_factory=list)
    """Ids of batches that may be it; whether one is, their results will show."""


class BatchApi(Protocol):
    """The batch API of one provider.

    Raises:
        RequestFailed: from each call: another try can succeed.
        UserError: from each call: no try can.
        BatchGone: from ``retrieve`` and ``rows``.
    """

    limits: Limits
    headers: dict[str, str]
    """Sent with each call."""
    loses_names: bool
    """Rows can lack their ``custom_id``."""

    @property
    def account(self) -> str:
        """Identifies address and key, without showing the key."""
        ...

    def line(self, custom_id: str, body: bytes) -> bytes:
        """One request as a part of a batch."""
        ...

    async def upload(self, key: str, lines: Sequence[bytes]) -> str | None:
        """Upload the requests; the id of the file, or None where ``create`` gets the requests themselves."""
        ...

    async def create(self, key: str, file: str | None, lines: Sequence[bytes]) -> BatchState:
        """Create the batch."""
        ...

    async def find(self, sought: Sought) -> Found:
        """Look for a batch that may have been created."""
        ...

    def most_bytes(self, limits: Iterable[int | None]) -> int:
        """How large the results of requests with these limits of reply tokens can be at most."""
        ...

    async def retrieve(self, batch: str, most_bytes: int) -> BatchState:
        """The state of a batch; for some providers with its results."""
        ...

    async def rows(self, state: BatchState, custom_ids: Sequence[str], most_bytes: int) -> list[BatchRow]:
        """The rows of a batch that has ended.

        Args:
            custom_ids: in the order of the requests.
            most_bytes: a larger file is not read.
        """
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...


def as_count(value: Any) -> int:
    """A number of requests, which some providers write as text."""
    try:
        return max(0, int(value))
    except (TypeError, ValueError, OverflowError):
        return 0
