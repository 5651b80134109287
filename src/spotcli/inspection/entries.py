"""The rows of a file as entries of a list: pairs, answers of an evaluation, and rows that are damaged or duplicate."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from spotcli import jsonl
from spotcli.console import one_line, safe
from spotcli.decisions import STALE, Decisions, Event
from spotcli.errors import DataError
from spotcli.inspection.pair_facts import first_edit_share, oracle_name, pair_change_ratio
from spotcli.inspection.pair_filter import PAIR_FIELDS, SCORE_FIELDS, Fields
from spotcli.inspection.row_index import RowIndex
from spotcli.records import Pair, Score, key_hash
from spotcli.reviews import REVIEWS

CACHED = 256
"""Entries that are kept in memory."""

RAW = 20_000
"""Bytes of a damaged row that are shown."""


@dataclass(frozen=True)
class Entry:
    """One row of the file."""

    where: str
    """File and line."""
    pair: Pair | None = None
    score: Score | None = None
    damage: str | None = None
    """Why the row cannot be read, and the cure."""
    raw: str = ""
    """The damaged row, made harmless."""

    @property
    def id(self) -> str:
        row = self.pair or self.score
        return self.where.rpartition(":")[2] if row is None else row.id


class Entries:
    """The entries of an open file, by number from 0.

    Args:
        index: the open file.
        decisions: returns the decisions about its pairs as they are now.
        scores: whether the file has answers of an evaluation.
    """

    def __init__(self, index: RowIndex, decisions: Callable[[], Decisions], *, scores: bool = False) -> None:
        self.index = index
        self.scores = scores
        self.duplicates: dict[int, str] = {}
        """Rows whose key an earlier row has -> the place of that row."""
        self._decisions = decisions
        self.entry = lru_cache(CACHED)(self._entry)
        self._facts = lru_cache(CACHED)(self._facts_of)

    def __len__(self) -> int:
        return len(self.index)

    def _entry(self, row: int) -> Entry:
        where = self.index.where(row)
        try:
            content = self.index.row(row)
            if self.scores:
                return Entry(where, score=jsonl.as_record(content, Score, where=where))
            return Entry(where, pair=jsonl.as_record(content, Pair, where=where))
        except DataError as error:
            raw = safe(self.index.raw(row)[:RAW].decode("utf-8", "replace"))
            return Entry(where, damage=f"{error.message}; {error.cure}" if error.cure else error.message, raw=raw)

    def facts(self, row: int) -> tuple[str, str, str, str]:
        """Change ratio, first edit, verdict and oracle of a row, for display."""
        event = self.decision(row)
        return self._facts(row, "" if event is None else event.chosen or "")

    def _facts_of(self, row: int, edited: str) -> tuple[str, str, str, str]:
        entry = self.entry(row)
        if edited and (pair := self.shown(row)) is not None:
            return _facts(pair)
        if entry.score is not None:
            return ("", "", entry.score.verdict, one_line(entry.score.task))
        return ("", "", "damaged", "") if entry.pair is None else _facts(entry.pair)

    def state(self, row: int) -> str | None:
        """The decision about a row: ``accept``, ``reject``, ``edited``, ``stale``, or None."""
        pair = self.entry(row).pair
        return None if pair is None else self._decisions().state(pair)

    def decision(self, row: int) -> Event | None:
        """The last decision about the pair as it is in the file."""
        pair = self.entry(row).pair
        return None if pair is None else self._decisions().current(pair)

    def shown(self, row: int) -> Pair | None:
        """The pair as it is shown: with the edited y+."""
        pair = self.entry(row).pair
        return None if pair is None else self._decisions().applied(pair)

    def is_decidable(self, row: int) -> bool:
        return self.entry(row).pair is not None

    def is_decided(self, row: int) -> bool:
        return self.state(row) not in (None, STALE)

    def scan(self) -> Iterator[int]:
        """Read all rows once, and note the duplicate ones. Yields each row number after the row was read."""
        first: dict[int, int] = {}
        for row in range(len(self)):
            record = self.entry(row).pair or self.entry(row).score
            if record is not None:
                earlier = first.setdefault(key_hash(*record.key), row)
                if earlier != row:
                    self.duplicates[row] = self.index.where(earlier).rpartition(":")[2]
            yield row

    @property
    def fields(self) -> Fields[Any]:
        """The fields of the filter language."""
        return SCORE_FIELDS if self.scores else pair_fields(self._decisions)

    def matches(self, row: int, predicate: Callable[[Any], bool]) -> bool:
        """Whether a row matches a filter; a damaged one does not."""
        record = self.entry(row).score or self.shown(row)
        return record is not None and predicate(record)

    def contains(self, row: int, text: str) -> bool:
        """Whether any text of a row contains a text, without regard to case."""
        entry = self.entry(row)
        record = entry.score or self.shown(row)
        if record is None:
            return text in entry.raw.casefold()
        answers = [record.response] if isinstance(record, Score) else [record.rejected or "", record.chosen]
        prompt = [message["content"] or "" for message in record.messages]
        texts = (record.id, record.answer or "", record.source or "", *prompt, *answers)
        return any(text in part.casefold() for part in texts)


def pair_fields(decisions: Callable[[], Decisions]) -> Fields[Pair]:
    """The fields of pairs; ``decision``: ``review``, and ``stale``; ``reason``: why a pair was rejected."""

    def decision(pair: Pair) -> str | None:
        # The pair has the edited y+, which is not the text that was decided about.
        return pair.review or decisions().state(pair)

    def reason(pair: Pair) -> str | None:
        event = decisions().current(pair)
        return None if event is None else event.reason

    return replace(
        PAIR_FIELDS,
        texts={**PAIR_FIELDS.texts, "decision": decision, "reason": reason},
        choices={**PAIR_FIELDS.choices, "decision": (*REVIEWS, STALE, "none")},
    )


def _facts(pair: Pair) -> tuple[str, str, str, str]:
    oracle = one_line(oracle_name(pair) or "")
    verdict = pair.verdict or ""
    if pair.rejected is None:
        return ("", "", verdict, oracle)
    return (f"{pair_change_ratio(pair):.3f}", f"{first_edit_share(pair):.0%}", verdict, oracle)
