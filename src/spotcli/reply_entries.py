"""The entries of an oracle's journal, ``X.replies.jsonl``: one JSON object per line; its ``kind`` is one of

reply   an oracle's reply to one request, which is not sent again
sent    money was reserved for a request; written only under a cost limit. Until a ``reply`` or ``free`` with the
        same key follows, the reserved sum counts as spent, since the provider may have charged for it
free    the request failed, and the provider cannot have charged for it
undo    a person took back the reply with this key
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from spotcli.core.oracle_prompts import ReplyMode
from spotcli.errors import DataError


@dataclass(frozen=True)
class ReplyEntry:
    """One reply, and the request that it answers."""

    key: str
    """Identifies the request: oracle, version, prompt, wrong answer, attempt."""
    id: str
    """The problem."""
    trial: int
    """The answer to the problem."""
    sample: str
    """The digest of the wrong answer and its problem (``Case.digest``)."""
    attempt: int
    """From 0, over all oracles."""
    oracle: str
    version: str
    """The oracle's version."""
    prompt: str
    """The version of the prompt."""
    mode: ReplyMode
    """The form of the reply that was asked for."""
    fence: str
    """The fence of the prompt's tags; empty for an oracle that is not prompted."""
    text: str
    finish_reason: str
    max_tokens: int = 0
    """The limit of reply tokens; 0 if none was sent."""
    reason: str | None = None
    """Why the oracle declined."""
    usage: dict[str, Any] = field(default_factory=dict)
    """The provider's token counts, unchanged."""
    cost: float | None = None
    """US dollars; None if the price is unknown."""
    model: str | None = None
    """The model that answered, according to the provider."""
    reserved: float = 0.0
    """US dollars that were reserved for the request."""
    at: str = ""
    """When the reply came; ISO 8601, UTC."""
    seconds: float = 0.0
    """From sending the request to the reply."""
    reasoning: str | None = None
    """The reasoning that the provider separated from the text."""
    max_tokens_sent: int | None = None
    """The limit that the request was sent with, if ``max_tokens`` had to be lowered for the model."""
    sent: dict[str, Any] | None = None
    """The parameters of the request as they were sent, by the provider's names."""

    def as_row(self) -> dict[str, Any]:
        """The JSON object, with its keys in the order of the file format."""
        row: dict[str, Any] = {"kind": "reply", **{name: getattr(self, name) for name in _REPLY_KEYS}}
        for name, default in _OPTIONAL_KEYS.items():
            if row[name] == default:
                del row[name]
        return row


_REPLY_KEYS = (
    *("key", "id", "trial", "sample", "attempt", "oracle", "version", "prompt", "mode", "fence", "max_tokens"),
    *("text", "finish_reason", "reason", "usage", "cost", "model", "reserved", "at", "seconds"),
    *("reasoning", "max_tokens_sent", "sent"),
)
_OPTIONAL_KEYS = {"reserved": 0.0, "reasoning": None, "max_tokens_sent": None, "sent": None}
"""Keys that are left out at their default."""


@dataclass(frozen=True)
class MoneyEntry:
    """Money was reserved for a request (``sent``), or returned since the request cost nothing (``free``)."""

    kind: Literal["sent", "free"]
    key: str
    reserved: float
    """US dollars."""

    def as_row(self) -> dict[str, Any]:
        return {"kind": self.kind, "key": self.key, "reserved": self.reserved}


@dataclass(frozen=True)
class UndoEntry:
    """A person took back a reply; the fields are that reply's."""

    key: str
    id: str
    trial: int
    sample: str
    attempt: int
    oracle: str

    @classmethod
    def of(cls, reply: ReplyEntry) -> UndoEntry:
        return cls(**{item.name: getattr(reply, item.name) for item in fields(cls)})

    def as_row(self) -> dict[str, Any]:
        return {"kind": "undo", **{item.name: getattr(self, item.name) for item in fields(self)}}


Entry = ReplyEntry | MoneyEntry | UndoEntry
_KINDS: dict[str, type[Entry]] = {"reply": ReplyEntry, "sent": MoneyEntry, "free": MoneyEntry, "undo": UndoEntry}
_ADAPTERS: dict[str, TypeAdapter[Any]] = {kind: TypeAdapter(model) for kind, model in _KINDS.items()}


def read_entry(row: Mapping[str, Any], where: str) -> Entry | None:
    """The entry in a row of a journal; None for a kind that this version does not know. Unknown keys are ignored.

    Raises:
        DataError: a key is missing or has an invalid value.
    """
    kind = row.get("kind")
    if not isinstance(kind, str) or kind not in _KINDS:
        return None
    if kind in ("sent", "free"):
        row = {**row, "key": row.get("key", ""), "reserved": row.get("reserved") or 0.0}
    model = _KINDS[kind]
    known = {item.name: row[item.name] for item in fields(model) if item.name in row}
    try:
        entry: Entry = _ADAPTERS[kind].validate_json(json.dumps(known), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        name = ".".join(map(str, first["loc"]))
        problem = "is missing" if first["type"].startswith("missing") else f"is invalid: {first['msg'].lower()}"
        cure = "correct that line, or remove it: its reply is requested again then"
        raise DataError(f"the field '{name}' {problem}", where=where, cure=cure) from None
    return entry
