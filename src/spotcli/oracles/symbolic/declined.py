"""Why the symbolic oracle declines to repair an answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Reason = Literal[
    "too long",
    "too complex",
    "unreadable text",
    "unreadable equation",
    "unreadable box",
    "division by zero",
    "no expression",
    "several expressions",
    "unreadable reference",
    "reference differs",
    "no equation",
    "step not recognised",
    "missing step",
    "extra step",
    "no boxed answer",
    "unexplained number",
    "ambiguous",
    "not exact",
    "nothing wrong",
]
"""Declined rows are counted by this."""

REASONS: tuple[Reason, ...] = get_args(Reason)


@dataclass(frozen=True)
class Declined:
    """The result for an answer that cannot be repaired with certainty."""

    reason: Reason
    detail: str = ""


class CannotRepair(Exception):
    """Raised where the repair ends; ``reason`` is counted, ``detail`` explains it to people."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(reason)
        self.reason: Reason = reason
        self.detail = detail
