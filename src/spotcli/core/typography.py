"""Texts compared regardless of typography: blanks, line ends, quotes, minus signs and Unicode forms.

    The student's text       36 − 5 = 31,⏎⏎so it’s 31       (U+2212, a blank line, a curly apostrophe)
    A model copies it as     36 - 5 = 31,⏎so it's 31        found, and what stays is the student's text

Models copy a text with the characters that they are used to. A *folded* text has one form of each of these characters
and remembers where each of them was, so a place that is found in it is a place in the original. What changes the
meaning is not folded: case, superscripts, fractions.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import cached_property, lru_cache

from spotcli.core.edits import align, words

_INVISIBLE = "\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufe00-\ufe0f\ufeff"
_COMPOSING = (
    "\u0300-\u036f\u0653-\u0655\u09be\u09d7\u0b3e\u0b56\u0b57\u0bbe\u0bd7\u1161-\u1175\u11a8-\u11c2\u3099\u309a"
)
_CLUSTER = re.compile(rf"\s+|[!-_a-~]+(?![{_COMPOSING}{_INVISIBLE}])|.[{_COMPOSING}{_INVISIBLE}]*", re.DOTALL)
"""White space, ASCII characters, or one character with the marks that Unicode composes with it and the invisible ones
after it."""

_PLAIN = str.maketrans(dict.fromkeys("‘’‚‛′`´", "'") | dict.fromkeys("“”„‟«»", '"') | dict.fromkeys("‐‑‒–—―−", "-"))
_DELETED = re.compile(f"[{_INVISIBLE}]+")
_MEANINGFUL = ("<super>", "<sub>", "<fraction>", "<circle>")
"""Compatibility forms that are another thing than the characters they contain."""
_LINE_END = re.compile(r"[\n\r\x0b\x0c\x85\u2028\u2029]")

MISALIGNED = 16
"""Matches inside a character, such as an ``f`` in a ligature, that are passed over before a search gives up."""

Place = tuple[int, int]
"""Start and end of a part in a text."""


@dataclass(frozen=True)
class Folded:
    """A text in one form, and where each of its characters is in the original."""

    text: str
    starts: list[int]
    ends: list[int]

    def is_boundary(self, index: int) -> bool:
        """Whether a character of the original starts at an index, or the text ends there."""
        return index in (0, len(self.starts)) or self.starts[index] != self.starts[index - 1]


def fold(text: str, *, loose: bool = False) -> Folded:
    """Fold a text.

    Args:
        text: the original.
        loose: drop blanks and line ends, except between two words or numbers; otherwise each run of them becomes one
            blank, or one line end if it contains any.
    """
    pieces: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    last, pending = "", (0, 0)
    for match in _CLUSTER.finditer(text):
        raw, start, end = match.group(), match.start(), match.end()
        if raw.isspace():
            pending = start, end
            if loose:
                continue
            plain, piece = False, "\n" if _LINE_END.search(raw) else " "
        else:
            plain = raw.isascii() and raw != "`"
            piece = raw if plain else _folded(raw)
            if loose and piece and pending[1] == start > 0 and _is_word(last) and _is_word(piece[0]):
                pieces.append(" ")
                starts.append(pending[0])
                ends.append(pending[1])
        if not piece:
            continue
        pieces.append(piece)
        starts += range(start, end) if plain else [start] * len(piece)
        ends += range(start + 1, end + 1) if plain else [end] * len(piece)
        last = piece[-1]
    return Folded("".join(pieces), starts, ends)


@lru_cache(maxsize=4096)
def _folded(cluster: str) -> str:
    plain = _DELETED.sub("", cluster.translate(_PLAIN))
    kept = any(unicodedata.decomposition(character).startswith(_MEANINGFUL) for character in plain)
    return unicodedata.normalize("NFC" if kept else "NFKC", plain)


def _is_word(character: str) -> bool:
    return character.isalnum() or character == "_"


class SearchedText:
    """A text in which parts are found that were copied with other typography."""

    def __init__(self, text: str) -> None:
        self.text = text

    @cached_property
    def _tight(self) -> Folded:
        return fold(self.text)

    @cached_property
    def _loose(self) -> Folded:
        return fold(self.text, loose=True)

    def places(self, part: str) -> list[Place]:
        """Where a part occurs: nowhere, at its only place, or at the first two places.

        The part as it is comes first, then with other typography, then with other blanks and line ends.
        """
        if places := _exact(self.text, part):
            return places
        for loose in (False, True):
            wanted = fold(part.strip(), loose=loose).text
            if wanted and (places := _aligned(self._loose if loose else self._tight, wanted)):
                return places
        return []


def _exact(text: str, part: str) -> list[Place]:
    first = text.find(part) if part else -1
    if first < 0:
        return []
    second = text.find(part, first + 1)
    return [(start, start + len(part)) for start in (first, second) if start >= 0]


def _aligned(folded: Folded, wanted: str) -> list[Place]:
    places: list[Place] = []
    index = -1
    for _ in range(MISALIGNED):
        index = folded.text.find(wanted, index + 1)
        if index < 0 or len(places) == 2:
            break
        end = index + len(wanted)
        if folded.is_boundary(index) and folded.is_boundary(end):
            places.append((folded.starts[index], folded.ends[end - 1]))
    return places


def with_typography_of(old: str, new: str) -> str:
    """``new``, in which every word, symbol and blank that it shares with ``old`` is as ``old`` has it."""
    before, after = _solid(old), _solid(new)
    written: list[str] = []
    i = j = 0
    spans = align([piece.key for piece in before], [piece.key for piece in after])
    for index, span in enumerate(spans):
        size = len(span.pieces)
        replaces = index > 0 and spans[index - 1].kind == "deleted"
        if span.kind == "deleted":
            i += size
        elif span.kind == "inserted":
            written += [piece.text + piece.blank for piece in after[j : j + size]]
            j += size
            if replaces and i < len(before):
                written[-1] = after[j - 1].text + before[i - 1].blank
        else:
            written += [piece.text + piece.blank for piece in before[i : i + size]]
            i, j = i + size, j + size
            inserts = index + 1 < len(spans) and spans[index + 1].kind == "inserted"
            # Before something that is added, ``new`` decides whether there is a blank.
            if (inserts or i == len(before)) and bool(before[i - 1].blank) != bool(after[j - 1].blank):
                written[-1] = before[i - 1].text + after[j - 1].blank
    return "".join(written)


@dataclass
class _Piece:
    """A word or symbol with the blanks and invisible characters after it."""

    key: str
    text: str
    blank: str = ""


def _solid(text: str) -> list[_Piece]:
    pieces = [_Piece("", "")]
    for word in words(text):
        key = "" if word.isspace() else fold(word).text
        if key:
            pieces.append(_Piece(key, word))
        elif word.isspace() or pieces[-1].blank:
            pieces[-1].blank += word
        else:
            pieces[-1].text += word
    return pieces
