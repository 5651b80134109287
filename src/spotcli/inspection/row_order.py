"""The order of rows in the list and in printed text: that of the file, or outliers first."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal, get_args

from spotcli.inspection.pair_facts import pair_change_ratio
from spotcli.inspection.surprise import Surprises
from spotcli.records import Pair

Order = Literal["file", "ratio", "surprise", "length", "similarity"]
ORDERS: tuple[Order, ...] = get_args(Order)
"""In the order in which the key `S` goes through them; all but ``file`` begin with the largest value."""


def sort_key(order: Order, surprises: Surprises) -> Callable[[Pair], float | None]:
    """The number that pairs are sorted by; None where a pair has none."""

    def ratio(pair: Pair) -> float | None:
        return None if pair.rejected is None else pair_change_ratio(pair)

    keys: dict[Order, Callable[[Pair], float | None]] = {
        "file": lambda pair: None,
        "ratio": ratio,
        "surprise": lambda pair: surprises.means(pair)[0],
        "length": lambda pair: len(pair.chosen),
        "similarity": surprises.similarities.of,
    }
    return keys[order]


def sorted_rows(values: Iterable[tuple[int, float | None]]) -> list[int]:
    """Row numbers, those with the largest value first; rows with the same value or without one in file order."""
    return [row for row, _ in sorted(values, key=lambda item: (item[1] is None, -(item[1] or 0.0), item[0]))]
