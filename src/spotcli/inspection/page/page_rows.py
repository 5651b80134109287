"""The rows of a page: what the index and the filters know about each.

Rows are pairs, answers, and the answers of two models to one problem; damaged and duplicate rows say so. Filters and
numbers are fields of the filter language.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from spotcli.console import one_line
from spotcli.decisions import STALE
from spotcli.inspection.page.outliers import OutlierKind, RowFacts, by_number, with_choice
from spotcli.inspection.pair_filter import Fields
from spotcli.records import Pair
from spotcli.score_changes import ComparedAnswers

LONG_FACT = 200
"""Characters of a title or a fact that are shown."""
LONG_CHOICE = 60
"""Characters of the value of a filter."""


@dataclass(frozen=True)
class Shown:
    """A row of the file as a page gets it."""

    record: Any = None
    """The pair or the answer; None if the row is damaged."""
    compared: ComparedAnswers | None = None
    """The answer with that of the base model."""
    where: str = ""
    """File and line of a row that is damaged or duplicate."""
    damage: str | None = None
    """Why the row cannot be read, and the cure."""
    raw: str = ""
    """The damaged row."""
    duplicate_of: str | None = None
    """The line of the first row with the same key."""


@dataclass(frozen=True)
class Number:
    """A number of the rows: they are sorted by it, and selected by its range."""

    title: str
    show: Callable[[float], str]
    step: str = "any"
    """Of the inputs of its range."""


def _nats(value: float) -> str:
    return f"{value:.3g} nats/token"


NUMBERS = {
    "ratio": Number("Change ratio", lambda value: f"{value:.3f}", "0.01"),
    "surprise": Number("Mean surprise of y+", _nats, "0.01"),
    "surprise_rejected": Number("Mean surprise of y-", _nats, "0.01"),
    "first": Number("First edit", lambda value: f"{value:.0%} of y-", "0.01"),
    "length": Number("Length", lambda value: f"{value:,.0f} characters", "1"),
    "growth": Number("Length to base", lambda value: f"{value:,.1f} times", "0.1"),
    "cost": Number("Cost", lambda value: f"${value:,.4f}"),
}
"""Names of numbers, fields of the filter language all but ``growth`` -> how they are shown."""

FILTERS = {
    "row": "Row",
    "change": "Change",
    "verdict": "Verdict",
    "base": "Base model",
    "decision": "Decision",
    "entry": "Entry",
    "oracle": "Oracle",
    "model": "Model",
    "finish": "Finish",
    "reason": "Reason",
    "task": "Task",
}
"""Names of filters, fields of the filter language all but ``row`` and ``base`` -> their titles."""


@dataclass(frozen=True)
class PageRows:
    """The rows that a page shows.

    Args:
        noun: what a row is, such as ``pair``.
        title: what the rows are.
        count: how many rows are selected.
        row: reads one of them, by its number from 0; a page reads the rows that it shows twice.
        fields: those of the filter language for the records.
    """

    noun: str
    title: str
    count: int
    row: Callable[[int], Shown]
    fields: Fields[Any]

    @property
    def outliers(self) -> list[OutlierKind]:
        """What makes a row an outlier, in the order of the index."""
        wrong = [OutlierKind("y+ wrong", with_choice("verdict", "wrong"))] if self.noun == "pair" else []
        largest = {
            "ratio": "Largest change ratio",
            "surprise": "Largest mean surprise",
            "growth": "Length grew most",
            "length": "Longest",
            "cost": "Most expensive",
        }
        return [
            OutlierKind("Damaged", with_choice("row", "damaged")),
            OutlierKind("Duplicate", with_choice("row", "duplicate")),
            OutlierKind("Stale decision", with_choice("decision", STALE)),
            *(OutlierKind(change.capitalize(), with_choice("change", change)) for change in self._changes),
            *wrong,
            OutlierKind("y+ undecided" if wrong else "Undecided", with_choice("verdict", "undecided")),
            OutlierKind("Truncated", with_choice("finish", "length")),
            *(OutlierKind(title, by_number(name), NUMBERS[name].show) for name, title in largest.items()),
        ]

    @property
    def _changes(self) -> tuple[str, ...]:
        return ("lost", "won") if self.noun == "problem" else ()

    def described(self) -> Iterator[tuple[int, Shown, RowFacts]]:
        """The rows with their numbers, and facts with unique anchors."""
        seen: dict[str, int] = {}
        for number in range(self.count):
            row = self.row(number)
            facts = self.facts(row)
            times = seen[facts.anchor] = seen.get(facts.anchor, 0) + 1
            yield number, row, facts if times == 1 else replace(facts, anchor=f"{facts.anchor}-{times}")

    def facts(self, row: Shown) -> RowFacts:
        """What the index, the filters and the order need to know about a row."""
        record = row.record
        if record is None:
            return RowFacts(_anchor(row.where), one_line(row.where), {"row": "damaged"})
        texts, numbers = self.fields.texts, self.fields.numbers
        choices = {name: _choice(texts[name](record)) for name in FILTERS if name in texts}
        choices["row"] = "ok" if row.duplicate_of is None else "duplicate"
        known = {name: _finite(numbers[name](record)) for name in NUMBERS if name in numbers}
        if isinstance(record, Pair) and record.rejected is None:
            known |= {"ratio": None, "first": None}
        if row.compared is not None:
            choices["base"] = row.compared.base.verdict
            length = len(row.compared.base.response)
            known["growth"] = len(row.compared.tuned.response) / length if length else None
        id, trial = getattr(record, "id", row.where), getattr(record, "trial", 0)
        anchor = _anchor(getattr(record, "key", (id, trial)))
        return RowFacts(
            anchor, _title(id, trial), choices, {name: value for name, value in known.items() if value is not None}
        )


def _anchor(key: object) -> str:
    """The ``id`` of a row on the page; the same row has the same one on every page."""
    return f"row-{hashlib.sha256(repr(key).encode('utf-8', 'replace')).hexdigest()[:12]}"


def _title(id: str, trial: int) -> str:
    name = clipped(one_line(id), LONG_FACT)
    return f"{name} · trial {trial}" if trial else name


def clipped(value: str, most: int) -> str:
    """The beginning of a text."""
    return value if len(value) <= most else f"{value[: most - 1]}…"


def _choice(value: str | None) -> str:
    """The value of a filter, short enough for its list."""
    return "none" if not value else clipped(one_line(value[: 2 * LONG_CHOICE]), LONG_CHOICE)


def _finite(value: float | None) -> float | None:
    """A number from outside that a page can show."""
    try:
        known = None if value is None else float(value)
    except OverflowError:
        return None
    return known if known is not None and math.isfinite(known) else None
