"""What people decided about pairs: events in ``X.review.jsonl`` beside ``X.jsonl``, appended at once, never changed.

    {"event": "decision", "time", "who", "action", "key": [id, trial], "decision", "reason", "digest"}
    {"event": "undo", "time", "who", "action"}     takes back every decision of one action
    {"event": "audit", "time", "who", "audit"}     the error rate of a random sample

A decision is about the text of a pair: if that has changed since, the decision is stale and has no effect. The file of
pairs itself is not changed: ``spot inspect``, ``spot rectify`` and ``spot train`` apply the decisions when they read.
"""

from __future__ import annotations

import getpass
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from spotcli import jsonl
from spotcli.appender import Appender
from spotcli.errors import DataError
from spotcli.records import NonEmpty, Pair, Verdict, plain_prompt
from spotcli.reviews import Review, RowKey, row_key

P = TypeVar("P", bound=Pair)

STALE = "stale"
"""The state of a pair whose text has changed since the last decision about it."""

REASONS = ("wrong result", "false step", "changes too much", "form or language", "invalid problem or reference")
"""Reasons of a rejection; their numbers from 1 are keys of ``spot inspect``."""


class Audit(BaseModel):
    """The error rate of a random sample of the pairs, as shares."""

    sample: Annotated[int, Field(ge=1)]
    """Pairs of the sample; a decision was made about each."""
    seed: int
    where: str | None = None
    """The filter of the pairs that the sample was drawn from; None: all pairs."""
    rejected: Annotated[int, Field(ge=0)]
    edited: Annotated[int, Field(ge=0)] = 0
    low: float
    """Lower bound of the exact 95 % interval (Clopper and Pearson) of rejected and edited pairs."""
    high: float
    data: str
    """SHA-256 of the file of pairs."""

    def __str__(self) -> str:
        errors = self.rejected + self.edited
        verb = "rejected" if not self.edited else "rejected or edited"
        return f"{errors} of {self.sample} {verb}: {100 * self.low:.1f} to {100 * self.high:.1f} %"


class Event(BaseModel):
    """One line of the file."""

    model_config = ConfigDict(extra="allow")

    event: Literal["decision", "undo", "audit"] = "decision"
    time: str
    who: str = ""
    action: str = ""
    """Identifies what the person did at once: one key, or one for all pairs that match."""
    key: tuple[NonEmpty, Annotated[int, Field(ge=0)]] | None = None
    decision: Review | None = None
    reason: str | None = None
    """Why the pair was rejected."""
    digest: str | None = None
    """``text_digest`` of the pair that the person saw in the file."""
    chosen: NonEmpty | None = None
    """The edited y+."""
    verdict: Verdict | None = None
    """Verdict on the edited y+."""
    extracted: str | None = None
    change_ratio: Annotated[float, Field(ge=0, le=1)] | None = None
    """Of the edited y+."""
    ratio_unit: str | None = None
    audit: Audit | None = None

    def row(self) -> dict[str, Any]:
        """For JSON; without fields that do not apply."""
        return self.model_dump(mode="json", exclude_none=True)


def now() -> str:
    """The time of an event, as ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def reviewer() -> str:
    """The name of the user, or an empty text where the system knows none."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return ""


def new_action() -> str:
    """Identifies the events of one action."""
    return uuid4().hex[:12]


def review_path(path: Path) -> Path:
    """``X.review.jsonl`` beside ``X.jsonl``."""
    return path.with_name(f"{path.stem}.review.jsonl")


def text_digest(pair: Pair) -> str:
    """Identify the text of a pair by 16 hex digits: its prompt, y- and y+."""
    return _digest(pair.prompt, pair.rejected, pair.chosen)


def _digest(prompt: Any, rejected: Any, chosen: Any) -> str:
    prompt = plain_prompt(prompt)
    if isinstance(prompt, list):
        prompt = [[message["role"], message["content"]] for message in prompt]
    text = json.dumps([prompt, rejected, chosen])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Decisions:
    """The decisions of a file of events that no later event takes back."""

    def __init__(self, events: Iterable[Event] = ()) -> None:
        self._by_key: dict[RowKey, list[Event]] = {}
        self._actions: dict[str, set[RowKey]] = {}
        """Actions in their order, with the pairs that they are about."""
        self.audit: Audit | None = None
        """The last audit."""
        for event in events:
            self.add(event)

    def add(self, event: Event) -> None:
        """Apply one more event."""
        if event.event == "audit":
            self.audit = event.audit
        elif event.event == "undo":
            for key in self._actions.pop(event.action, ()):
                self._by_key[key] = [before for before in self._by_key[key] if before.action != event.action]
        elif event.key is not None and event.decision is not None:
            self._by_key.setdefault(event.key, []).append(event)
            self._actions.setdefault(event.action, set()).add(event.key)

    @property
    def last_action(self) -> tuple[str, set[RowKey]] | None:
        """The last action that was not taken back, and the pairs that it is about."""
        return next(reversed(self._actions.items()), None)

    def current(self, pair: Pair) -> Event | None:
        """The last decision about the pair as it is in the file."""
        events = self._by_key.get(pair.key)
        if not events:
            return None
        digest = text_digest(pair)
        return next((event for event in reversed(events) if event.digest == digest), None)

    def state(self, pair: Pair) -> str | None:
        """``accept``, ``reject``, ``edited`` or ``stale``; None if nobody decided about the pair.

        Without an event, the field ``review`` of the row counts.
        """
        event = self.current(pair)
        if event is not None:
            return event.decision
        return STALE if self._by_key.get(pair.key) else pair.review

    def applied(self, pair: P) -> P:
        """The pair with its decision as ``review``, and with the edited y+."""
        event = self.current(pair)
        if event is None:
            return pair
        changes: dict[str, Any] = {"review": event.decision}
        if event.decision == "edited" and event.chosen is not None:
            changes |= {"chosen": event.chosen, "verdict": event.verdict, "change_ratio": event.change_ratio}
        return pair.model_copy(update=changes)

    def covers(self, row: Mapping[str, Any]) -> bool:
        """Whether a person reviewed a row of data.jsonl: its ``review`` field, or a decision that is not stale.

        Raises:
            KeyError: the row has no ``id``.
        """
        if row.get("review"):
            return True
        events = self._by_key.get(row_key(dict(row)))
        if not events:
            return False
        digest = _digest(row.get("prompt"), row.get("rejected"), row.get("chosen"))
        return any(event.digest == digest for event in events)


def read(path: Path, *, until: str | None = None) -> Decisions:
    """Read the decisions about the pairs in ``path``. An incomplete last line is a decision that was not made.

    Args:
        path: the file of pairs.
        until: only events up to this time (ISO 8601, UTC).

    Raises:
        DataError: a line is not an event.
    """
    source = review_path(path)
    if not source.exists():
        return Decisions()
    return Decisions(event for event in _events(source) if until is None or event.time <= until)


def _events(source: Path) -> Iterable[Event]:
    whole = source.read_bytes()
    torn = whole and not whole.endswith(b"\n")
    errors: list[DataError] = []
    rows = jsonl.placed(source, invalid=errors.append)
    while True:
        try:
            where, _, row = next(rows)
        except StopIteration:
            break
        except DataError:
            if torn:
                break
            raise
        if errors:
            raise errors[0]
        try:
            yield Event.model_validate(row)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False)[0]
            name = ".".join(map(str, first["loc"])) or "row"
            message = f"invalid decision: the field '{name}': {first['msg'][:1].lower()}{first['msg'][1:]}"
            raise DataError(message, where=where, cure="correct or remove that line") from None
    if errors:
        raise errors[0]


class ReviewFile:
    """The decisions about one file of pairs, read and written. Its lock is taken at the first decision.

    Args:
        path: the file of pairs.

    Raises:
        DataError: a line is not an event.
    """

    def __init__(self, path: Path) -> None:
        self.data = path
        self.path = review_path(path)
        self.decisions = read(path)
        self._appender: Appender | None = None

    def append(self, events: Iterable[Event]) -> None:
        """Append events and sync them to disk, then apply them.

        Raises:
            UserError: another process is writing the file.
            OSError: the file cannot be written.
        """
        events = list(events)
        self.open()
        assert self._appender is not None
        self._appender.append(event.row() for event in events)
        for event in events:
            self.decisions.add(event)

    def open(self) -> None:
        """Take the lock, and read what others decided since.

        Raises:
            UserError: another process is writing the file.
        """
        if self._appender is None:
            self._appender = Appender(self.path)
            self.decisions = read(self.data)

    def close(self) -> None:
        """Release the lock.

        Raises:
            UserError: another program changed the file meanwhile; all decisions are kept.
        """
        appender, self._appender = self._appender, None
        if appender is not None:
            with appender:
                pass


@dataclass
class AppliedDecisions:
    """Applies decisions to the pairs of a training file, and counts them."""

    decisions: Decisions = field(default_factory=Decisions)
    counts: Counter[str] = field(default_factory=Counter)
    """Pairs by their decision: ``accept``, ``reject``, ``edited``; ``stale``: it has no effect."""

    def __post_init__(self) -> None:
        self._changes = hashlib.sha256()
        self._changed = False

    def __call__(self, pair: P) -> P:
        state = self.decisions.state(pair)
        if state is None:
            return pair
        self.counts[state] += 1
        reviewed = self.decisions.applied(pair)
        if reviewed is not pair and state in ("reject", "edited"):
            self._changed = True
            self._changes.update(json.dumps([pair.key, state, reviewed.chosen]).encode())
        return reviewed

    @property
    def digest(self) -> str | None:
        """Identifies how the decisions changed the pairs; None if they did not."""
        return self._changes.hexdigest()[:32] if self._changed else None
