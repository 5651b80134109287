"""What a correction changed: the change ratio, spans that join to both texts, where the first edit falls.

    y-  rejected, the policy's answer          kept + deleted  spans join to y-
    y+  chosen, its correction                 kept + inserted spans join to y+

The change ratio is counted in the policy's tokens, because those are what training sees. Spans are made of words and
signs, because those are what people read. Both come from an exact longest common subsequence (LCS) by rapidfuzz;
difflib's matching blocks are not one, and a ratio made of them would drop pairs that are close.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import count, groupby
from typing import Any, Literal

from rapidfuzz.distance import LCSseq

Kind = Literal["kept", "deleted", "inserted"]

# The alignment keeps one bit for each pair of positions: 2**31 bits are 256 MB, which 46,000 words a side would take.
MAX_CELLS = 1 << 31

# The part of the longer side that is kept in a pair expected to be close; only speed depends on it.
CLOSE = 0.85

_CJK = r"\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
# Alternatives in falling order, the frequent first: nearly every word is plain letters in front of a plain sign.
_PIECE = rf"""
      [A-Za-z]++(?=[\x00-&(-\x7f])
    | (?:[A-Za-z]+[\u0300-\u036f]*                  # a word with its combining marks; plain letters in one go,
        |(?![{_CJK}])[^\W\d_][\u0300-\u036f]*)+
      (?:['’](?:[^\W\d_][\u0300-\u036f]*)+)*        # and with what stands behind an apostrophe
    | \d{{1,3}}(?:,\d{{3}})+(?!\d)(?:\.\d+)?        # a number with its thousands in groups
    | \d+(?:\.\d+)?                                 # any other number
    | \\(?:[A-Za-z]+|[^\n])?                        # a LaTeX command, an escaped sign, or a lone backslash
    | [{_CJK}]                                      # scripts that put no blanks between words: a character at a time
    | \*\*|<=|>=|!=|==|->|=>                        # signs that belong together
"""
# Blanks are pieces too, and the last alternative takes any character, so that none is ever lost.
_WORD = re.compile(rf"{_PIECE} | \n | [^\S\n]+ | .", re.VERBOSE)
# The same without the blanks between pieces, which cost as much as the pieces themselves.
_SOLID = re.compile(rf"{_PIECE} | \S", re.VERBOSE)


@dataclass(frozen=True, slots=True)
class Span:
    """A run of pieces that were kept, deleted from y-, or inserted in y+."""

    kind: Kind
    pieces: tuple[str, ...]

    @property
    def text(self) -> str:
        return "".join(self.pieces)


def change_ratio(rejected_ids: Sequence[int], chosen_ids: Sequence[int]) -> float:
    """How much of the correction is new: ``R = 1 - |LCS(y-, y+)| / |y+|``, in [0, 1].

    The formula is that of the proximity filter in "Surgical Post-Training" (arXiv 2603.01683), on the token ids of the
    policy's tokenizer. It does not see pure deletions: a correction that only drops tokens has the ratio 0.

    Nothing corrected to nothing has the ratio 0. Anything corrected to nothing has 1, where the formula has no value:
    nothing of the answer was kept, so no filter should let it pass.
    """
    if not chosen_ids:
        return 1.0 if rejected_ids else 0.0
    # An alignment that keeps most lies near the diagonal, and most corrections have one: looking only there is faster.
    close = int(CLOSE * max(len(rejected_ids), len(chosen_ids)))
    kept = LCSseq.similarity(rejected_ids, chosen_ids, score_cutoff=close)
    if not kept:
        kept = LCSseq.similarity(rejected_ids, chosen_ids)
    # The difference is formed before the division: (5 - 3) / 5 is exactly 0.4, and 1 - 3 / 5 is not.
    return float((len(chosen_ids) - kept) / len(chosen_ids))


def text_change_ratio(rejected: str, chosen: str) -> float:
    """The change ratio of two texts in words and signs, blanks not counted: for where no tokenizer can be loaded.

    It comes near the ratio in tokens, most of which carry their blank with them, and is not the same.
    """
    # No piece reaches over the end of a line, so each line that both sides have is cut and numbered once.
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
    return change_ratio(*sides)


def words(text: str) -> list[str]:
    """Cut a text into words, numbers, LaTeX commands, signs and blanks; the pieces join to the text again."""
    return _WORD.findall(text)


def diff(rejected: str, chosen: str) -> list[Span]:
    """The spans of a pair in words and signs, fit for reading.

    As ``align`` on ``words``, but what happens to be alike inside of a rewritten passage counts as replaced:
    ``red fox`` to ``blue cat`` reads as one replacement, not as two with a kept blank between them.
    """
    return _joined(_bridged(align(words(rejected), words(chosen))))


def align(rejected: Sequence[str], chosen: Sequence[str]) -> list[Span]:
    """Kept, deleted and inserted spans of two token sequences, with the fewest tokens deleted and inserted.

    The texts of kept and deleted spans join to y-, those of kept and inserted spans to y+. Neighbours differ in kind,
    and within an edit what was deleted comes first. Empty sequences give no spans. Two sides whose different parts
    would need more than ``MAX_CELLS`` bits are not aligned inside: that part is then one deletion and one insertion.
    """
    head = shared_prefix(rejected, chosen)
    tail = shared_prefix(rejected[head:][::-1], chosen[head:][::-1])
    old, new = rejected[head : len(rejected) - tail], chosen[head : len(chosen) - tail]
    spans = [Span("kept", tuple(rejected[:head]))]
    if len(old) * len(new) > MAX_CELLS:
        spans += [Span("deleted", tuple(old)), Span("inserted", tuple(new))]
    else:
        for step in LCSseq.opcodes(*_numbered(old, new)):
            if step.tag == "equal":
                spans.append(Span("kept", tuple(old[step.src_start : step.src_end])))
            else:
                spans.append(Span("deleted", tuple(old[step.src_start : step.src_end])))
                spans.append(Span("inserted", tuple(new[step.dest_start : step.dest_end])))
    return _joined([*spans, Span("kept", tuple(rejected[len(rejected) - tail :]))])


def first_edit(spans: Sequence[Span]) -> int | None:
    """Where the first edit begins, in characters of either text; None where nothing was changed."""
    if all(span.kind == "kept" for span in spans):
        return None
    return len(spans[0].text) if spans[0].kind == "kept" else 0


def shared_prefix(rejected: Sequence[Any], chosen: Sequence[Any]) -> int:
    """How many items both begin with: tokens of two lists, characters of two strings."""
    low, high = 0, min(len(rejected), len(chosen))
    if rejected[:high] == chosen[:high]:
        return high
    # Slices are compared in C: halving a long text costs less than a loop over its characters.
    while low < high:
        middle = (low + high + 1) // 2
        if rejected[low:middle] == chosen[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _numbered(*sides: Sequence[str]) -> list[list[int]]:
    """Each different word as a number of its own: rapidfuzz compares hashes, and those of strings may collide."""
    known: dict[str, int] = {}
    fresh = count()
    return [list(map(known.setdefault, side, fresh)) for side in sides]


def _bridged(spans: list[Span]) -> list[Span]:
    """The spans with each kept one that hardly parts two edits counted as replaced.

    That is a blank between two replacements, and words between two edits that each are at least three times as long:
    in a rewritten paragraph the words that happen to be alike say nothing.
    """
    while True:
        sizes = [sum(not piece.isspace() for piece in span.pieces) for span in spans]
        kinds = [span.kind for span in spans]
        found: list[Span] = []
        for place, span in enumerate(spans):
            before = {kinds[at]: sizes[at] for at in range(max(place - 2, 0), place) if kinds[at] != "kept"}
            after = {kinds[at]: sizes[at] for at in range(place + 1, len(spans))[:2] if kinds[at] != "kept"}
            if span.kind != "kept" or not before or not after:
                parted = True
            elif sizes[place]:
                parted = 3 * sizes[place] > min(max(before.values()), max(after.values()))
            else:
                parted = "\n" in span.text or len(before) + len(after) < 4
            found += [span] if parted else [Span("deleted", span.pieces), Span("inserted", span.pieces)]
        # Edits grow as they are joined, and may then be long enough for the next.
        found = _joined(found)
        if len(found) == len(spans):
            return found
        spans = found


def _joined(spans: Iterable[Span]) -> list[Span]:
    """Neighbours of one kind as one span, empty ones left out, and in each edit the deletion before the insertion."""
    found: list[Span] = []
    for kept, run in groupby((span for span in spans if span.pieces), key=lambda span: span.kind == "kept"):
        edit = list(run)
        kinds: tuple[Kind, ...] = ("kept",) if kept else ("deleted", "inserted")
        for kind in kinds:
            if pieces := tuple(piece for span in edit if span.kind == kind for piece in span.pieces):
                found.append(Span(kind, pieces))
    return found
