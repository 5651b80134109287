"""The reply as changes to the student's answer: hunks, each a text to find and a text in its place.

    @@
    30 = 43             has exactly one place in the answer
    ==
    30 = 42

What no hunk touches stays as it is, character by character.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count, pairwise
from typing import Literal

from spotcli.core.typography import Place, SearchedText, with_typography_of

FormError = Literal[
    "empty",
    "unfenced",
    "unclosed",
    "several blocks",
    "forged fence",
    "malformed hunk",
    "no hunk",
    "hunk not found",
    "hunk found twice",
    "hunks overlap",
]
"""Why a reply could not be parsed; rows are counted by it."""

Unwrap = Callable[[str, str], str]
"""Removes what was certainly added around a new text (a code fence, JSON), given the text that it replaces."""


@dataclass(frozen=True)
class ParsedReply:
    """The corrected answer in a reply, or the error in the reply's form."""

    text: str | None
    error: FormError | None = None
    detail: str = ""
    """The error in full, for the oracle's next attempt."""


def with_margins_of(student: str, text: str) -> str:
    """A text with the white space around it that the student's text has around it."""
    core = student.strip()
    if not core:
        return text.strip()
    start = student.index(core)
    return student[:start] + text.strip() + student[start + len(core) :]


def markers(student: str) -> tuple[str, str, str]:
    """The lines before a change, between its old and new text, and in the place of omitted text.

    No line of the student's answer equals one of them, so that no copied line can be taken for a marker.
    """
    lines = {line.strip() for line in student.splitlines()}
    candidates = (("@" * size, "=" * size, "." * size) for size in count(2))
    return next(lines_ for lines_ in candidates if lines.isdisjoint(lines_))


def read_edits(inside: str, student: str, unwrap: Unwrap | None = None) -> ParsedReply:
    """The student's answer with the changes of a reply, or the error in their form."""
    change, by, _ = markers(student)
    lines = inside.strip().split("\n")
    if lines[0].startswith("```") and lines[-1].strip() == "```":
        inside = "\n".join(lines[1:-1])
    before, *changes = re.split(rf"^[^\S\n]*{change}[^\S\n]*$", inside, flags=re.MULTILINE)
    hunks: list[tuple[str, str]] = []
    for number, text in enumerate(changes, 1):
        find, *replace = re.split(rf"^[^\S\n]*{by}[^\S\n]*$", text, flags=re.MULTILINE)
        if len(replace) != 1:
            return ParsedReply(None, "malformed hunk", f"change {number} needs one line {by}, between old and new text")
        hunks.append((find.strip("\r\n"), replace[0].strip("\r\n")))
    if before.strip() or not hunks:
        return ParsedReply(None, "malformed hunk", f"each change begins with a line {change}")
    return apply_hunks(student, hunks, unwrap=unwrap)


def apply_hunks(student: str, hunks: Sequence[tuple[str, str]], *, unwrap: Unwrap | None = None) -> ParsedReply:
    """Replace each hunk's text, which must have exactly one place in the student's answer.

    All hunks refer to the original answer. A text to find that contains the marker for omitted text matches everything
    from its first part to its second. A text that was copied with other blanks, quotes or minus signs has a place too
    (``typography``). White space around replaced text stays the student's. Text that no hunk touches is kept character
    by character, by construction.
    """
    gap = re.compile(rf"\n[^\S\n]*{re.escape(markers(student)[2])}[^\S\n]*\n")
    searched = SearchedText(student)
    places: list[tuple[int, int, bool, str]] = []
    for number, (find, replace) in enumerate(hunks, 1):
        if not find.strip():
            return ParsedReply(None, "no hunk", f"change {number} has nothing to find")
        ends: list[int] = []
        exact = True
        for part in gap.split(find, maxsplit=1):
            error, (start, end) = _only_place(searched, part)
            if error:
                problem = "does not occur in the solution" if error == "hunk not found" else "occurs more than once"
                return ParsedReply(None, error, f"change {number}: the text to find {problem}: {_shortened(part)}")
            if ends and start < ends[-1]:
                return ParsedReply(None, "hunk not found", f"change {number}: its end stands before its beginning")
            ends += [start, end]
            exact = exact and student[start:end] == part
        places.append((ends[0], ends[-1], exact, replace))
    places.sort()
    if any(following[0] < place[1] for place, following in pairwise(places)):
        return ParsedReply(None, "hunks overlap", "two changes touch the same text; make one of them")
    pieces, position = [], 0
    for start, end, exact, replace in places:
        new = _new_text(student[start:end], replace, unwrap)
        pieces += [student[position:start], new if exact else with_typography_of(student[start:end], new)]
        position = end
    corrected = "".join([*pieces, student[position:]])
    return ParsedReply(corrected) if corrected.strip() else ParsedReply(None, "empty", "the changes leave nothing")


def _only_place(searched: SearchedText, part: str) -> tuple[FormError | None, Place]:
    places = searched.places(part)
    if len(places) != 1:
        return "hunk found twice" if places else "hunk not found", (0, 0)
    return None, places[0]


def _new_text(old: str, new: str, unwrap: Unwrap | None) -> str:
    if not new.strip():
        return ""
    if unwrap is not None:
        new = unwrap(new.strip(), old)
    return with_margins_of(old, new)


def _shortened(text: str, limit: int = 200) -> str:
    return repr(text if len(text) <= limit else f"{text[:limit]}...")
