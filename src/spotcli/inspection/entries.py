"""The rows of a file as entries of a list: each as what it is, or damaged, or duplicate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from spotcli.console import safe
from spotcli.decisions import STALE, Decisions, Event
from spotcli.errors import DataError, UserError
from spotcli.inspection import row_kinds
from spotcli.inspection.comparison import Comparison
from spotcli.inspection.pair_filter import Fields, Selection
from spotcli.inspection.row_fields import merged, pair_fields
from spotcli.inspection.row_index import RowIndex
from spotcli.inspection.row_kinds import KINDS, PAIRS, SCORES, Facts, Record
from spotcli.inspection.surprise import Surprises
from spotcli.records import Pair, Score, UngradedSample, key_hash
from spotcli.reply_entries import MoneyEntry
from spotcli.reply_entries import RequestEntry as Reply
from spotcli.score_changes import ComparedAnswers

__all__ = ["Entries", "Entry", "pair_fields"]

CACHED = 256
"""Entries that are kept in memory."""

PROBED = 32
"""Rows at the beginning and at the end of a file by which its kinds are known before it is read."""

RAW = 20_000
"""Bytes of a damaged row that are shown."""


@dataclass(frozen=True)
class Entry:
    """One row of the file: ``record`` or ``damage``."""

    where: str
    """File and line."""
    record: Record | None = None
    damage: str | None = None
    """Why the row cannot be read, and the cure."""
    raw: str = ""
    """The damaged row, made harmless."""
    has_id: bool = True
    """Whether the row names its id; else it is a digest of the prompt, which several rows may have."""

    @property
    def kind(self) -> str:
        """``pairs``, ``scores``, ``samples``, ``replies``, or ``damaged``."""
        return "damaged" if self.record is None else row_kinds.kind_of_record(self.record)

    @property
    def pair(self) -> Pair | None:
        return self.record if isinstance(self.record, Pair) else None

    @property
    def score(self) -> Score | None:
        return self.record if isinstance(self.record, Score) else None

    @property
    def sample(self) -> UngradedSample | None:
        """A graded or an ungraded answer of the policy."""
        return self.record if isinstance(self.record, UngradedSample) else None

    @property
    def reply(self) -> Reply | None:
        """An entry of an oracle's journal."""
        return None if isinstance(self.record, Pair | Score | UngradedSample) else self.record

    @property
    def id(self) -> str:
        if self.record is None:
            return self.where.rpartition(":")[2].strip()
        return self.record.key if isinstance(self.record, MoneyEntry) else self.record.id


class Entries:
    """The entries of an open file, by number from 0.

    Args:
        index: the open file.
        decisions: returns the decisions about its pairs as they are now.
        comparison: of its scores with those of a base model.
    """

    def __init__(
        self, index: RowIndex, decisions: Callable[[], Decisions], *, comparison: Comparison | None = None
    ) -> None:
        self.index = index
        self.comparison = comparison
        self.duplicates: dict[int, str] = {}
        """Rows whose key an earlier row has -> the place of that row."""
        self.renamed: dict[str, str] = {}
        """Fields that were read under another name: alias -> field."""
        self.surprises = Surprises(index.path, None)
        """What is known of the policy's surprise."""
        self._decisions = decisions
        self._shared_prompts: set[int] = set()
        """Hashes of the prompts that several rows without ids have."""
        self.entry = lru_cache(CACHED)(self._entry)
        self._facts = lru_cache(CACHED)(self._facts_of)
        self.kinds: Counter[str] = Counter()
        """Rows of each kind, among those that were read for it."""
        probe = sorted({*range(min(PROBED, len(self))), *range(max(len(self) - PROBED, 0), len(self))})
        self.probed = Counter(self.entry(row).kind for row in probe)
        """Kinds of the first and the last rows."""

    def __len__(self) -> int:
        return len(self.index)

    @property
    def kind(self) -> str:
        """The kind of most rows, as far as they were read; of an unreadable or empty file, pairs."""
        counts = {kind: count for kind, count in (self.kinds or self.probed).items() if kind != "damaged"}
        return max(counts, key=lambda kind: counts[kind]) if counts else PAIRS

    @property
    def has_pairs(self) -> bool:
        """Whether there is something to decide about, as far as the rows were read."""
        return bool(self.probed[PAIRS] or self.kinds[PAIRS] or not len(self))

    def _entry(self, row: int) -> Entry:
        where = self.index.where(row)
        try:
            content = self.index.row(row)
            has_id = content.get("id") not in (None, "")
            return Entry(where, row_kinds.read_row(content, where, self.renamed), has_id=has_id)
        except DataError as error:
            raw = safe(self.index.raw(row)[:RAW].decode("utf-8", "replace"))
            return Entry(where, damage=f"{error.message}; {error.cure}" if error.cure else error.message, raw=raw)

    def check_readable(self) -> None:
        """Check that at least one row can be read; an empty file passes.

        Raises:
            UserError: all rows are of another kind, such as problems.
            DataError: no row can be read.
        """
        if not len(self) or self.probed.total() > self.probed["damaged"]:
            return
        if any(self.entry(row).record is not None for row in range(len(self))):
            return
        content = None
        try:
            content = self.index.row(0)
            row_kinds.read_row({**content}, self.index.where(0), {})
        except DataError as error:
            raise row_kinds.unreadable(self.index.path, content, error) from None

    def facts(self, row: int) -> Facts:
        """Change ratio, first edit, verdict and oracle of a row, for display."""
        event = self.decision(row)
        return self._facts(row, "" if event is None else f"{event.chosen or ''} {event.verdict}", self._is_compared)

    @property
    def _is_compared(self) -> bool:
        return self.comparison is not None and self.comparison.is_made

    def _facts_of(self, row: int, edited: str, compared: bool) -> Facts:
        record = self.record(row)
        if record is None:
            return ("", "", "damaged", "")
        change = None
        if compared and self.comparison is not None and isinstance(record, Score):
            problem = self.comparison.change(record)
            change = None if problem is None else problem.change
        return row_kinds.row_facts(record, change=change)

    def state(self, row: int) -> str | None:
        """The decision about a row: ``accept``, ``reject``, ``edited``, ``stale``, or None."""
        entry = self.entry(row)
        if entry.pair is None:
            return None
        state = self._decisions().state(entry.pair)
        if state == STALE and not entry.has_id and key_hash(*entry.pair.key) in self._shared_prompts:
            return None  # the decision is about another pair with the same prompt
        return state

    def decision(self, row: int) -> Event | None:
        """The last decision about the pair as it is in the file."""
        pair = self.entry(row).pair
        return None if pair is None else self._decisions().current(pair)

    def shown(self, row: int) -> Pair | None:
        """The pair as it is shown: with the edited y+."""
        pair = self.entry(row).pair
        return None if pair is None else self._decisions().applied(pair)

    def record(self, row: int) -> Record | None:
        """The row as it is shown; None if it is damaged."""
        return self.shown(row) or self.entry(row).record

    def compared(self, row: int) -> ComparedAnswers | None:
        """The answer of the base model and that of a row; None if they are not compared."""
        score = self.entry(row).score
        return None if score is None or self.comparison is None else self.comparison.answers(score)

    def is_decidable(self, row: int) -> bool:
        return self.entry(row).pair is not None

    def is_decided(self, row: int) -> bool:
        return self.state(row) not in (None, STALE)

    def scan(self) -> Iterator[int]:
        """Read all rows once, count their kinds and note the duplicate ones. Yields each row number after its row."""
        first: dict[int, int] = {}
        kinds: Counter[str] = Counter()
        for row in range(len(self)):
            entry = self.entry(row)
            kinds[entry.kind] += 1
            key = None if entry.record is None else row_kinds.entry_key(entry.record)
            if key is not None:
                hashed = key_hash(*key)
                earlier = first.setdefault(hashed, row)
                if earlier != row and entry.has_id:
                    self.duplicates[row] = self.index.where(earlier).rpartition(":")[2].strip()
                elif earlier != row:
                    self._shared_prompts.add(hashed)
            yield row
        self.kinds = kinds

    @property
    def fields(self) -> Fields[Any]:
        """The fields of the filter language: those of all kinds of rows that were seen."""
        kinds = self.seen_kinds or [PAIRS]
        fields = merged(kinds, self._decisions, self.comparison)
        return self.surprises.with_fields(fields) if PAIRS in kinds else fields

    @property
    def seen_kinds(self) -> list[str]:
        """The kinds of rows in the file, as far as they were read."""
        return [kind for kind in KINDS if self.probed[kind] or self.kinds[kind]]

    def check_filter(self, where: str) -> None:
        """Check an expression, without the comparison that it may need.

        Raises:
            UserError: the expression is invalid, or it needs a base model's scores, which are not known.
        """
        selection = Selection(where=where)
        if selection.needs_base and self.comparison is None:
            if SCORES not in self.seen_kinds:
                cure = "leave out won, lost, both and neither, or inspect scores/MODEL.jsonl"
                raise UserError("only scores are compared with a base model", where=str(self.index.path), cure=cure)
            cure = "name them with --against scores/BASE.jsonl, or run `spot eval MODEL --against BASE` first"
            raise UserError("the scores of the base model were not found", where=str(self.index.path), cure=cure)
        selection.compile(self.fields)

    def selector(self, selection: Selection, *, compare: bool = False) -> Callable[[int], bool]:
        """Return the predicate of row numbers that selects rows; of scores that are compared, one per problem.

        Args:
            selection: what is selected; all rows, also damaged ones, without an id and an expression.
            compare: compare scores with a base model's, whatever the expression is.

        Raises:
            UserError: as ``check_filter``, or the scores of the base model cannot be compared.
            DataError: a problem has another prompt in the scores of the base model.
        """
        comparison = None
        if selection.where is not None:
            self.check_filter(selection.where)
        if compare or selection.needs_base:
            comparison = self.comparison
        if comparison is not None:
            comparison.make()
        elif selection == Selection():
            return lambda row: True
        matches = Selection(where=selection.where).compile(self.fields) if selection.where is not None else None

        def selects(row: int) -> bool:
            record = self.record(row)
            if record is None or (selection.id is not None and self.entry(row).id != selection.id):
                return False
            if comparison is not None and not (isinstance(record, Score) and comparison.is_shown(record)):
                return False
            return matches is None or matches(record)

        return selects

    def contains(self, row: int, text: str) -> bool:
        """Whether any text of a row contains a text, without regard to case."""
        record = self.record(row)
        if record is None:
            return text in self.entry(row).raw.casefold()
        return any(text in part.casefold() for part in row_kinds.texts(record))
