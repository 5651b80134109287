"""The entries of an oracle's journal, ``X.replies.jsonl``: one JSON object per line; its ``kind`` is one of

reply   an oracle's reply to one request, which is not sent again
sent    money was reserved for a request; written only under a cost limit. Until a ``reply`` or ``free`` with the
        same key follows, the reserved sum counts as spent, since the provider may have charged for it
free    the request failed, and the provider cannot have charged for it
undo    a person took back the reply with this key
continuation    the policy continued its own answer after a cut
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
    batch: str | None = None
    """The key of the batch that the request was in; None for an ordinary one."""

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
    *("reasoning", "max_tokens_sent", "sent", "batch"),
)
_OPTIONAL_KEYS = {"reserved": 0.0, "reasoning": None, "max_tokens_sent": None, "sent": None, "batch": None}
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


@dataclass(frozen=True)
class ContinuationEntry:
    """One continuation of the policy's own answer after a cut."""

    key: str
    """Identifies the continuation: oracle, version, wrong answer, cut and number."""
    id: str
    """The problem."""
    trial: int
    """The answer to the problem."""
    sample: str
    """The digest of the wrong answer and its problem (``Case.digest``)."""
    oracle: str
    version: str
    """The oracle's version."""
    step: int
    """The cut is before this step, from 1."""
    of: int
    """Steps of the answer."""
    start: int
    """Where the step starts in the answer, in characters."""
    kept: int
    """Characters of the answer that were continued: up to the end of a token, so that it can be less than ``start``."""
    tokens: int
    """Tokens of the answer that were continued."""
    number: int
    """Among the continuations of this cut, from 0."""
    seed: int
    text: str
    """What follows the kept characters."""
    finish_reason: str
    generated: int
    """Generated tokens."""
    max_tokens: int
    """The limit of generated tokens that was asked for."""
    model: str | None = None
    cost: float = 0.0
    """US dollars, where an endpoint has a price."""
    sent: dict[str, Any] | None = None
    """The parameters of the request as an endpoint got them, and whether the prompt was ``token ids`` or ``text``."""
    at: str = ""
    """When it came; ISO 8601, UTC."""

    def as_row(self) -> dict[str, Any]:
        row = {"kind": "continuation", **{item.name: getattr(self, item.name) for item in fields(self)}}
        return {name: value for name, value in row.items() if value is not None}

    def as_reply(self, response: str) -> ReplyEntry:
        """The whole corrected answer, as the reply of an oracle that is not prompted.

        Args:
            response: the answer that was cut; without it, the text is the continuation alone.
        """
        return ReplyEntry(
            key=self.key,
            id=self.id,
            trial=self.trial,
            sample=self.sample,
            attempt=self.number,
            oracle=self.oracle,
            version=self.version,
            prompt="",
            mode="plain",
            fence="",
            text=response[: self.kept] + self.text,
            finish_reason=self.finish_reason,
            max_tokens=self.max_tokens,
            usage={"completion_tokens": self.generated},
            cost=self.cost,
            model=self.model,
            at=self.at,
        )


RequestEntry = ReplyEntry | MoneyEntry | UndoEntry
"""An entry about one request to an oracle."""
Entry = RequestEntry | ContinuationEntry
_KINDS: dict[str, type[Entry]] = {
    "reply": ReplyEntry,
    "sent": MoneyEntry,
    "free": MoneyEntry,
    "undo": UndoEntry,
    "continuation": ContinuationEntry,
}
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
