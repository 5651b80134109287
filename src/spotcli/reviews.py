"""What a person decided about a row of data.jsonl: the values of its ``review`` field, and the rows that have one.

This module imports nothing of spotcli, so that ``records`` can declare the field with ``Review``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal, get_args

Review = Literal["accept", "reject", "edited"]
"""``accept``: correct as it is; ``reject``: not trained on; ``edited``: a person changed ``chosen``."""

REVIEWS: tuple[Review, ...] = get_args(Review)

RowKey = tuple[str, int]
"""``id`` and ``trial``."""


def row_key(row: dict[str, Any]) -> RowKey:
    """Return the key of a row of data.jsonl.

    Raises:
        KeyError: the row has no ``id``.
    """
    return row["id"], row.get("trial", 0)


def reviewed_rows(
    rows: Iterable[dict[str, Any]], is_reviewed: Callable[[dict[str, Any]], bool] = lambda row: bool(row.get("review"))
) -> dict[RowKey, dict[str, Any]]:
    """Return the rows that a person reviewed, by key. Only these are kept in memory.

    Args:
        is_reviewed: by default, whether the row has the field ``review``.

    Raises:
        KeyError: a reviewed row has no ``id``.
    """
    return {row_key(row): row for row in rows if is_reviewed(row)}
