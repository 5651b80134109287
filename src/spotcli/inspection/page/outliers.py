"""The rows of a page to look at first: stale, wrong, undecided, the most changed, the longest, the most expensive."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

LISTED = 8
"""Rows of each kind that the index lists at most."""


@dataclass(frozen=True)
class RowFacts:
    """What the index, the filters and the order of the page need to know about a row."""

    anchor: str
    """The row's ``id`` on the page."""
    title: str
    choices: Mapping[str, str] = field(default_factory=dict)
    """Name of a filter -> the row's value, such as ``verdict`` -> ``wrong``."""
    numbers: Mapping[str, float] = field(default_factory=dict)
    """Name of a number -> its value; numbers that the row does not have are left out."""


@dataclass(frozen=True)
class OutlierKind:
    """What makes a row an outlier."""

    title: str
    size: Callable[[RowFacts], float | None]
    """How far out the row is; None if it is no outlier of this kind."""
    show: Callable[[float], str] | None = None
    """The size for display; None for kinds whose outliers are all alike."""


@dataclass(frozen=True)
class Outlier:
    anchor: str
    title: str
    text: str
    """How far out, for display."""


@dataclass(frozen=True)
class OutlierList:
    """The outliers of one kind, the furthest out first."""

    title: str
    total: int | None
    """All rows of this kind; None if every row has a size and these are the largest."""
    rows: list[Outlier]


class Outliers:
    """The outliers among the rows added so far; the furthest out of each kind are kept in memory."""

    def __init__(self, kinds: Sequence[OutlierKind]) -> None:
        self.kinds = kinds
        self._heaps: list[list[tuple[float, int, RowFacts]]] = [[] for _ in kinds]
        self._totals = [0 for _ in kinds]

    def add(self, number: int, facts: RowFacts) -> None:
        """Count a row, given its number in the order of the page."""
        for index, kind in enumerate(self.kinds):
            size = kind.size(facts)
            if size is None:
                continue
            self._totals[index] += 1
            entry = (size, -number, facts)  # of rows with one size, the first is listed first
            if len(self._heaps[index]) < LISTED:
                heapq.heappush(self._heaps[index], entry)
            elif entry[:2] > self._heaps[index][0][:2]:
                heapq.heapreplace(self._heaps[index], entry)

    @property
    def rows(self) -> dict[int, RowFacts]:
        """The listed rows, by their numbers."""
        return {-number: facts for heap in self._heaps for _, number, facts in heap}

    def lists(self) -> list[OutlierList]:
        """The outliers of each kind that has any."""
        return [
            OutlierList(
                kind.title,
                None if kind.show else total,
                [
                    Outlier(facts.anchor, facts.title, kind.show(size) if kind.show else "")
                    for size, _, facts in sorted(heap, key=lambda entry: (-entry[0], -entry[1]))
                ],
            )
            for kind, heap, total in zip(self.kinds, self._heaps, self._totals, strict=True)
            if heap
        ]


def with_choice(name: str, *values: str) -> Callable[[RowFacts], float | None]:
    """Rows with one of some values of a filter."""
    return lambda facts: 1.0 if facts.choices.get(name) in values else None


def by_number(name: str) -> Callable[[RowFacts], float | None]:
    """The largest of a number."""
    return lambda facts: facts.numbers.get(name)


def shown_rows(total: int, limit: int, outliers: Iterable[int]) -> set[int]:
    """The numbers of the rows on a page that cannot have all: the outliers, and the first others."""
    shown = set(sorted(outliers)[:limit])
    first = (number for number in range(total) if number not in shown)
    return shown | {number for number, _ in zip(first, range(limit - len(shown)), strict=False)}
