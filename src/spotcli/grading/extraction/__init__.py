"""Finding the answer in a text: ``boxes``, ``announcements`` and ``conclusions``; ``sentences`` splits the text.

Every pass is linear in the length of the text, because a model may write a megabyte of open braces.
"""

from __future__ import annotations

from dataclasses import dataclass


class NoAnswer(Exception):
    """The text contains no answer to grade; the message is the reason."""


@dataclass(frozen=True, slots=True)
class FoundAnswer:
    """The part of a text that is graded."""

    text: str
    doubt: str = ""
    """Why a difference from the reference does not prove a mistake; empty where it does."""
    result: str = ""
    """The right side of the text, if it is an equation; it may be the answer by itself."""
    others: tuple[str, ...] = ()
    """Other answers in the text. If one of them equals the reference, the grade is undecided."""
