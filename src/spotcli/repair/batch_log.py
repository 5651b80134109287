"""The batches of a run, ``X.batches.jsonl``: one JSON object per line, on the disk before the next step is taken.

intent      a batch is to be created, with all that is needed to read its replies; ``key`` names it in all lines
uploaded    the file of its requests is at the provider
submitted   the provider has created it: its ``id``
not found   a look at the provider did not find it
done        its replies are in the journal
rejected    the provider refused it as a whole: nothing was charged
abandoned   it was not created: the provider has no such batch
vanished    the provider no longer has it: what was reserved for it may have been charged

A batch without one of the last four lines is open, and the same command goes on with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from spotcli import jsonl
from spotcli.appender import Appender
from spotcli.errors import DataError, UserError
from spotcli.reply_entries import ReplyEntry, read_entry

_OF_REQUEST = ("key", "id", "trial", "sample", "attempt", "mode", "fence", "max_tokens")
"""Fields of an entry that differ from request to request."""
_ENDS = ("done", "rejected", "abandoned", "vanished")


@dataclass(frozen=True)
class BatchRequest:
    """One request of a batch."""

    entry: ReplyEntry
    """The reply as the journal will keep it, without the reply."""
    limit: int | None
    """Reply tokens that the request was sent with."""
    reserved: float = 0.0
    """US dollars that it can cost at most; 0 if its price is unknown."""

    def as_row(self) -> dict[str, Any]:
        row = {name: getattr(self.entry, name) for name in _OF_REQUEST}
        return row | {"limit": self.limit, "reserved": self.reserved}


@dataclass
class Batch:
    """A batch that is to be created, or was."""

    key: str
    provider: str
    oracle: str
    version: str
    """The oracle's version."""
    prompt: str
    """The version of the prompt."""
    account: str
    """Identifies address and key that it was created with; no key can be found from it."""
    body: str
    """SHA-256 of the requests."""
    requests: list[BatchRequest]
    at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    """ISO 8601, UTC."""
    file: str | None = None
    id: str | None = None
    missed: int = 0
    """Looks at the provider, of all runs, that did not find it."""
    replied: set[str] = field(default_factory=set)
    """Keys of requests whose cost is known: their reply is in the journal, or they failed at no cost."""

    @property
    def custom_ids(self) -> list[str]:
        """The requests' names at the provider."""
        return [f"{self.key}-{index}" for index in range(len(self.requests))]

    @property
    def limits(self) -> list[int | None]:
        """Reply tokens that each request was sent with at most."""
        return [request.limit for request in self.requests]

    @property
    def reserved(self) -> float:
        """US dollars that the requests whose cost is not known can cost at most."""
        return sum(request.reserved for request in self.requests if request.entry.key not in self.replied)

    @property
    def since(self) -> float:
        """When it was to be created, in seconds since 1970."""
        return datetime.fromisoformat(self.at).timestamp()

    def as_row(self) -> dict[str, Any]:
        names = ("key", "provider", "oracle", "version", "prompt", "account", "at", "body")
        return {
            "kind": "intent",
            **{name: getattr(self, name) for name in names},
            "requests": [request.as_row() for request in self.requests],
        }


class BatchLog:
    """The batches of one file of pairs. The file is created with the first batch.

    Raises:
        UserError: another process is writing it.
        DataError: a line is invalid.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.open: list[Batch] = []
        """Batches that have no end yet, in their order."""
        self.ids: set[str] = set()
        """The provider's ids of all batches."""
        self._lost = 0.0
        self._file: Appender | None = None
        if not path.exists():
            return
        self._file = Appender(path, private=True)
        try:
            for where, _, row in jsonl.placed(path):
                self._read(row, where)
        except BaseException:
            self.close()
            raise

    @property
    def unsettled(self) -> float:
        """US dollars that may have been charged, or may still be, without a reply in the journal."""
        return self._lost + sum(batch.reserved for batch in self.open)

    @property
    def requested(self) -> frozenset[str]:
        """Keys of the requests in open batches."""
        return frozenset(request.entry.key for batch in self.open for request in batch.requests)

    def replied(self, entry: ReplyEntry) -> None:
        """Note that a reply is in the journal: its cost is known there."""
        for batch in self.open:
            if batch.key == entry.batch and entry.cost is not None:
                batch.replied.add(entry.key)

    def begin(self, batch: Batch) -> None:
        """Record that a batch is to be created."""
        self._append(batch.as_row())
        self.open.append(batch)

    def uploaded(self, batch: Batch, file: str) -> None:
        self._append({"kind": "uploaded", "key": batch.key, "file": file})
        batch.file = file

    def submitted(self, batch: Batch, identity: str) -> None:
        """Record the id that the provider has given to a batch."""
        self._append({"kind": "submitted", "key": batch.key, "id": identity, "at": _now()})
        batch.id = identity
        self.ids.add(identity)

    def not_found(self, batch: Batch) -> None:
        """Record that a look did not find a batch."""
        self._append({"kind": "not found", "key": batch.key, "at": _now()})
        batch.missed += 1

    def end(self, batch: Batch, kind: str, *, unsettled: float = 0.0, **details: Any) -> None:
        """Record the end of a batch.

        Args:
            kind: ``done``, ``rejected``, ``abandoned`` or ``vanished``.
            unsettled: US dollars that may have been charged for requests without a reply.
            details: kept in the line.
        """
        more = {"unsettled": unsettled} if unsettled else {}
        self._append({"kind": kind, "key": batch.key, "at": _now(), **more, **details})
        self._lost += unsettled
        self.open.remove(batch)

    def _append(self, row: Mapping[str, Any]) -> None:
        if self._file is None:
            self._file = Appender(self.path, private=True)
        self._file.append([row])

    def _read(self, row: dict[str, Any], where: str) -> None:
        kind, key = row.get("kind"), row.get("key")
        if kind == "intent":
            self.open.append(_batch(row, where))
            return
        batch = next((batch for batch in self.open if batch.key == key), None)
        if batch is None:
            return
        if kind == "uploaded":
            batch.file = str(row.get("file"))
        elif kind == "submitted":
            batch.id = str(row.get("id"))
            self.ids.add(batch.id)
        elif kind == "not found":
            batch.missed += 1
        elif kind in _ENDS:
            self.open.remove(batch)
            self._lost += float(row.get("unsettled") or 0.0)

    def check_collected(self) -> None:
        """Check that no batch is open, since ordinary requests would ask about the same answers again.

        Raises:
            UserError: one is.
        """
        if self.open:
            first = self.open[0]
            raise UserError(
                f"{describe(self.open)} not collected yet: requests would be paid for twice",
                where=str(self.path),
                cure=f"add --batch, which collects the replies (or --fresh, which gives {first.id or first.key} up)",
            )

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def describe(batches: Iterable[Batch]) -> str:
    """Batches in words: ``batch b_1 of 20 requests at openai is``."""
    listed = list(batches)
    count = sum(len(batch.requests) for batch in listed)
    requests = f"{count:,} request{'' if count == 1 else 's'}"
    providers = ", ".join(dict.fromkeys(batch.provider for batch in listed))
    if len(listed) == 1:
        return f"batch {listed[0].id or listed[0].key} of {requests} at {providers} is"
    return f"{len(listed)} batches of {requests} at {providers} are"


def _batch(row: dict[str, Any], where: str) -> Batch:
    try:
        names = ("key", "provider", "oracle", "version", "prompt", "account", "body", "at")
        common: dict[str, Any] = {name: str(row[name]) for name in names}
        shared = {name: common[name] for name in ("oracle", "version", "prompt")}
        requests = []
        for item in row["requests"]:
            fields = {name: item[name] for name in _OF_REQUEST}
            entry = read_entry({"kind": "reply", **fields, **shared, "text": "", "finish_reason": ""}, where)
            assert isinstance(entry, ReplyEntry)
            requests.append(BatchRequest(entry, item["limit"], float(item["reserved"])))
    except (KeyError, TypeError, ValueError) as error:
        cure = "restore that line; without it, the replies of this batch cannot be read"
        raise DataError(f"this line describes no batch: {error}", where=where, cure=cure) from None
    return Batch(**common, requests=requests)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
