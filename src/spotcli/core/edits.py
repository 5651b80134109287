"""The difference between an answer and its correction: the change ratio, and the spans of a diff.

    y-  rejected, the policy's answer          its text is that of the kept and deleted spans
    y+  chosen, the corrected answer           its text is that of the kept and inserted spans

The change ratio is measured in the policy's tokens, because the policy is trained on tokens. Spans consist of words
and symbols, because people read them. Both use an exact longest common subsequence (LCS) from rapidfuzz. The matching
blocks of difflib are not an LCS: a ratio computed from them is too high and would drop pairs that differ little.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, count
from typing import Any, Literal

from rapidfuzz.distance import LCSseq

Kind = Literal["kept", "deleted", "inserted"]

Match = tuple[int, int, int]
"""A run of kept pieces: where it starts in y- and in y+, and its length."""

MAX_CELLS = 1 << 31
"""Pairs of positions that an alignment may have; it needs one bit for each. 2**31 bits are 256 MB, the size for 46,000
words on each side."""

MAX_COUNTED = 1 << 34
"""Pairs of positions of which a longest common subsequence is counted, without being stored. 2**34 of them take some
seconds, the size for 131,000 tokens on each side that have nothing in common at their ends."""

CLOSE = 0.85
"""Share of the longer side that most corrections keep. It affects only the speed of the change ratio."""

_CJK = r"\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
# The most frequent alternative comes first, for speed: most words are ASCII letters followed by an ASCII symbol.
_PIECE = rf"""
      [A-Za-z]++(?=[\x00-&(-\x7f])
    | (?:[A-Za-z]+[\u0300-\u036f]*                  # a word with its combining marks (ASCII letters at once),
        |(?![{_CJK}])[^\W\d_][\u0300-\u036f]*)+
      (?:['’](?:[^\W\d_][\u0300-\u036f]*)+)*        # and its part after an apostrophe
    | \d{{1,3}}(?:,\d{{3}})+(?!\d)(?:\.\d+)?        # a number with grouped thousands
    | \d+(?:\.\d+)?                                 # any other number
    | \\(?:[A-Za-z]+|[^\n])?                        # a LaTeX command, an escaped symbol, or one backslash
    | [{_CJK}]                                      # scripts without spaces between words: one character each
    | \*\*|<=|>=|!=|==|->|=>                        # symbols of two characters
"""
# White space is a piece too, and the last alternative matches any character, so the pieces always join to the text.
_WORD = re.compile(rf"{_PIECE} | \n | [^\S\n]+ | .", re.VERBOSE)
# The same without white space, which would take as long to match as all other pieces.
_SOLID = re.compile(rf"{_PIECE} | \S", re.VERBOSE)


@dataclass(frozen=True, slots=True)
class Span:
    """Consecutive pieces that were kept, deleted from y-, or inserted in y+."""

    kind: Kind
    pieces: tuple[str, ...]

    @property
    def text(self) -> str:
        return "".join(self.pieces)


@dataclass(frozen=True)
class Changes:
    """How much two texts differ, each in [0, 1]."""

    ratio: float
    """The share of y+ that is new: ``change_ratio``."""
    deleted: float
    """The share of y- that is gone: ``1 - |LCS(y-, y+)| / |y-|``; 0 for an empty y-."""


def change_ratio(rejected_ids: Sequence[int], chosen_ids: Sequence[int]) -> float:
    """Return the share of the correction that is new: ``R = 1 - |LCS(y-, y+)| / |y+|``, in [0, 1].

    This is the formula of the proximity filter in "Surgical Post-Training" (arXiv 2603.01683), on the token ids of the
    policy's tokenizer. It does not count deletions: a correction that only removes tokens has the ratio 0.

    For an empty y+ the formula is undefined. The ratio is then 0 if y- is empty too, and 1 otherwise: nothing was kept,
    so every filter should drop the pair.
    """
    return measure(rejected_ids, chosen_ids).ratio


def measure(rejected_ids: Sequence[int], chosen_ids: Sequence[int]) -> Changes:
    """Return the change ratio and the share of y- that is deleted, from one longest common subsequence."""
    if not chosen_ids or not rejected_ids:
        return Changes(ratio=float(bool(chosen_ids or rejected_ids)), deleted=float(bool(rejected_ids)))
    if len(rejected_ids) * len(chosen_ids) > MAX_COUNTED:
        return _measure_long(rejected_ids, chosen_ids)
    # Most corrections keep most tokens, so their alignment is near the diagonal. Searching only there is faster.
    close = int(CLOSE * max(len(rejected_ids), len(chosen_ids)))
    kept = LCSseq.similarity(rejected_ids, chosen_ids, score_cutoff=close)
    if not kept:
        kept = LCSseq.similarity(rejected_ids, chosen_ids)
    # Subtract before dividing: (5 - 3) / 5 is exactly 0.4, and 1 - 3 / 5 is not.
    new, deleted = len(chosen_ids) - kept, len(rejected_ids) - kept
    return Changes(float(new / len(chosen_ids)), float(deleted / len(rejected_ids)))


def _measure_long(rejected_ids: Sequence[int], chosen_ids: Sequence[int]) -> Changes:
    """``measure`` without the common beginning and end; if what is between is still too long, all of it counts as new.

    The search cannot be interrupted, and the texts come from outside: it must not take minutes.
    """
    head = shared_prefix(rejected_ids, chosen_ids)
    tail = shared_prefix(rejected_ids[head:][::-1], chosen_ids[head:][::-1])
    old, new = rejected_ids[head : len(rejected_ids) - tail], chosen_ids[head : len(chosen_ids) - tail]
    kept = head + tail
    if len(old) * len(new) <= MAX_COUNTED:
        kept += LCSseq.similarity(old, new)
    return Changes((len(chosen_ids) - kept) / len(chosen_ids), (len(rejected_ids) - kept) / len(rejected_ids))


def text_change_ratio(rejected: str, chosen: str) -> float:
    """Return the change ratio of two texts in words and symbols, without white space.

    It replaces ``change_ratio`` when no tokenizer can be loaded. The two are close but not equal, because most tokens
    include the space before them.
    """
    return measure_text(rejected, chosen).ratio


def measure_text(rejected: str, chosen: str) -> Changes:
    """``measure`` of two texts in words and symbols, without white space."""
    # No piece continues over the end of a line, so a line that occurs several times is split and numbered once.
    known: dict[str, int] = {}
    lines: dict[str, list[int]] = {}
    fresh = count()
    sides: list[list[int]] = []
    for text in (rejected, chosen):
        side: list[int] = []
        for line in text.split("\n"):
            ids = lines.get(line)
            if ids is None:
                ids = lines[line] = list(map(known.setdefault, _SOLID.findall(line), fresh))
            side += ids
        sides.append(side)
    return measure(*sides)


def words(text: str) -> list[str]:
    """Split a text into words, numbers, LaTeX commands, symbols and white space. The pieces join to the text."""
    return _WORD.findall(text)


def diff(rejected: str, chosen: str) -> list[Span]:
    """Return the spans of a pair in words and symbols, for people to read.

    Like ``align`` on ``words``, but accidental matches inside a rewritten passage count as replaced: ``red fox`` to
    ``blue cat`` is one replacement, not two with a kept space between them.
    """
    old, new = words(rejected), words(chosen)
    return _spans(old, new, _bridged(old, new, _matches(old, new)))


def align(rejected: Sequence[str], chosen: Sequence[str]) -> list[Span]:
    """Return kept, deleted and inserted spans of two token sequences, with the fewest deletions and insertions.

    The texts of kept and deleted spans join to y-, those of kept and inserted spans to y+. Adjacent spans differ in
    kind, and within an edit the deletion comes first. Two empty sequences give no spans. If the part between the
    common beginning and the common end has more than ``MAX_CELLS`` pairs of positions, it is not aligned: it becomes
    one deletion and one insertion.
    """
    return _spans(rejected, chosen, _matches(rejected, chosen))


def shared_prefix(rejected: Sequence[Any], chosen: Sequence[Any]) -> int:
    """Return the length of the common prefix, in tokens of two lists or in characters of two strings."""
    low, high = 0, min(len(rejected), len(chosen))
    if rejected[:high] == chosen[:high]:
        return high
    # Slices are compared in C, so a binary search is faster than a loop over characters.
    while low < high:
        middle = (low + high + 1) // 2
        if rejected[low:middle] == chosen[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _matches(rejected: Sequence[str], chosen: Sequence[str]) -> list[Match]:
    """The kept pieces as runs, in order; between two runs something was deleted or inserted."""
    head = shared_prefix(rejected, chosen)
    tail = shared_prefix(rejected[head:][::-1], chosen[head:][::-1])
    old, new = rejected[head : len(rejected) - tail], chosen[head : len(chosen) - tail]
    matches: list[Match] = [(0, 0, head)]
    if old and new and len(old) * len(new) <= MAX_CELLS:
        blocks = LCSseq.editops(*_numbered(old, new)).as_matching_blocks()
        matches += [(head + block.a, head + block.b, block.size) for block in blocks]
    matches.append((len(rejected) - tail, len(chosen) - tail, tail))
    joined: list[Match] = []
    for match in matches:
        if not match[2]:
            continue
        before = joined[-1] if joined else None
        if before and before[0] + before[2] == match[0] and before[1] + before[2] == match[1]:
            joined[-1] = (before[0], before[1], before[2] + match[2])
        else:
            joined.append(match)
    return joined


def _spans(rejected: Sequence[str], chosen: Sequence[str], matches: Iterable[Match]) -> list[Span]:
    """The spans of two sequences in which these runs are kept."""
    spans: list[Span] = []
    old = new = 0
    for old_start, new_start, size in (*matches, (len(rejected), len(chosen), 0)):
        parts: tuple[tuple[Kind, Sequence[str]], ...] = (
            ("deleted", rejected[old:old_start]),
            ("inserted", chosen[new:new_start]),
            ("kept", rejected[old_start : old_start + size]),
        )
        spans += [Span(kind, tuple(pieces)) for kind, pieces in parts if pieces]
        old, new = old_start + size, new_start + size
    return spans


def _numbered(*sides: Sequence[str]) -> list[list[int]]:
    """Replace each distinct word by a number: rapidfuzz compares hashes, and hashes of strings can collide."""
    known: dict[str, int] = {}
    fresh = count()
    return [list(map(known.setdefault, side, fresh)) for side in sides]


def _bridged(rejected: Sequence[str], chosen: Sequence[str], matches: list[Match]) -> list[Match]:
    """Leave out runs that hardly separate two edits: they count as replaced.

    Such a run is white space between two replacements, or words between two edits that are each at least three times
    as long. In a rewritten paragraph such words match by accident.
    """
    # Pieces that are not white space, up to each place.
    old_solid, new_solid = ([0, *accumulate(not piece.isspace() for piece in side)] for side in (rejected, chosen))
    while True:
        # The longer side of each edit before, between and after the runs, and how many sides it has.
        longer, sides = [], []
        old = new = 0
        for old_start, new_start, size in (*matches, (len(rejected), len(chosen), 0)):
            longer.append(max(old_solid[old_start] - old_solid[old], new_solid[new_start] - new_solid[new]))
            sides.append((old_start > old) + (new_start > new))
            old, new = old_start + size, new_start + size
        separating = []
        for index, match in enumerate(matches):
            start, end = match[0], match[0] + match[2]
            if not sides[index] or not sides[index + 1]:
                separates = True
            elif solid := old_solid[end] - old_solid[start]:
                separates = 3 * solid > min(longer[index], longer[index + 1])
            else:
                separates = sides[index] + sides[index + 1] < 4 or "\n" in rejected[start:end]
            if separates:
                separating.append(match)
        # A longer edit can absorb the next run.
        if len(separating) == len(matches):
            return matches
        matches = separating
