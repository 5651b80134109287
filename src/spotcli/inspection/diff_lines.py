"""A diff as lines for a screen: by words, or old and new line whole; wrapped to columns, kept stretches folded.

    spans -> blocks (lines of the text, with their edits) -> lines of a screen -> folded lines

Text is made harmless by ``console.safe`` before it is measured, so that what is shown has the columns that are counted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from rich.cells import cell_len, split_graphemes

from spotcli.console import safe
from spotcli.core.edits import Kind, Span

MOST_EDITS = 4
"""Edits in a line up to which it is shown word by word; a line with more is shown as the old and the new line whole."""

MOST_COLUMNS = 100
"""Columns of text in one line of the screen; longer lines are hard to read."""

CONTEXT = 2
"""Kept lines that are shown around an edit when the others are folded."""

TAB = 4
"""Columns of a tab."""

STYLES: dict[Kind, str] = {"kept": "", "deleted": "black on red", "inserted": "black on green"}
"""Where there is colour."""

_TOKEN = re.compile(r" +|[^ ]+")
_MARKS: dict[Kind, tuple[str, str]] = {"deleted": ("[-", "-]"), "inserted": ("{+", "+}")}


@dataclass(frozen=True, slots=True)
class Part:
    """Text of one kind; ``edit`` is the number of the edit that it belongs to, -1 for kept text."""

    kind: Kind
    text: str
    edit: int = -1


@dataclass(frozen=True, slots=True)
class Block:
    """The text up to the next kept line end. Kept and deleted parts join to y-, kept and inserted parts to y+."""

    parts: tuple[Part, ...]
    whole: bool = False
    """The old line, then the new line, because they differ in many places."""

    @property
    def changed(self) -> bool:
        return any(part.edit >= 0 for part in self.parts)


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the screen."""

    parts: tuple[Part, ...] = ()
    cells: int = 0
    """Columns of the text."""
    hidden: int = 0
    """Kept lines that this line stands for."""
    right: Line | None = None
    """The line of y+ beside a line of y-, side by side."""

    @property
    def note(self) -> str:
        """What is shown for the lines that this line stands for."""
        return f"⋯ {self.hidden:,} lines without edits"

    @property
    def edits(self) -> tuple[int, ...]:
        """The edits on this line, in order."""
        own = tuple(dict.fromkeys(part.edit for part in self.parts if part.edit >= 0))
        return tuple(dict.fromkeys((*own, *self.right.edits))) if self.right else own


def blocks(spans: Iterable[Span]) -> list[Block]:
    """Divide the spans of a diff at kept line ends, and number the edits from 0."""
    result: list[Block] = []
    parts: list[Part] = []
    edit = -1
    for span in spans:
        text = span.text
        if span.kind != "kept":
            if not parts or parts[-1].edit < 0:
                edit += 1
            parts.append(Part(span.kind, text, edit))
            continue
        first, *others = text.split("\n")
        if others:
            edit = _close(result, [*parts, Part("kept", f"{first}\n")], edit)
            result += [Block((Part("kept", f"{line}\n"),)) for line in others[:-1]]
            parts = [Part("kept", others[-1])] if others[-1] else []
        else:
            parts.append(Part("kept", text))
    if parts:
        _close(result, parts, edit)
    return result


def _close(result: list[Block], parts: list[Part], edit: int) -> int:
    """Add a block; return the number of its last edit, which is smaller if its edits became one."""
    edits = {part.edit for part in parts if part.edit >= 0}
    if len(edits) <= MOST_EDITS:
        result.append(Block(tuple(part for part in parts if part.text)))
        return edit
    first = min(edits)
    end = [Part("kept", "\n")] if parts[-1].kind == "kept" and parts[-1].text.endswith("\n") else []
    if end:
        parts = [*parts[:-1], Part("kept", parts[-1].text[:-1])]
    old, new = ("".join(part.text for part in parts if part.kind in ("kept", side)) for side in ("deleted", "inserted"))
    result.append(Block((Part("deleted", old, first), Part("inserted", new, first), *end), whole=True))
    return first


def inline(items: Sequence[Block], width: int, *, marked: bool) -> list[Line]:
    """Both answers in one column of at most ``width`` and ``MOST_COLUMNS`` columns.

    Args:
        marked: write ``[-deleted-]`` and ``{+inserted+}``, where there is no colour.
    """
    width = min(width, MOST_COLUMNS)
    lines: list[Line] = []
    for block in items:
        if block.whole:
            for part in block.parts[:2]:
                lines += wrap([_shown(part, marked=marked)], width)
        else:
            lines += wrap(_shown_parts(block.parts, marked=marked), width)
    return lines


def side_by_side(items: Sequence[Block], width: int, *, marked: bool) -> list[Line]:
    """y- on the left, y+ on the right, each at most ``MOST_COLUMNS`` columns wide."""
    column = max(min((width - 3) // 2, MOST_COLUMNS), 1)
    lines: list[Line] = []
    for block in items:
        left, right = (
            wrap(_shown_parts((part for part in block.parts if part.kind in ("kept", kind)), marked=marked), column)
            for kind in ("deleted", "inserted")
        )
        for old, new in zip_longest(left, right, fillvalue=Line()):
            lines.append(Line(old.parts, column, right=new))
    return lines


def _shown_parts(parts: Iterable[Part], *, marked: bool) -> list[Part]:
    shown = [_shown(part, marked=marked) for part in parts]
    if shown and shown[-1].kind == "kept" and shown[-1].text.endswith("\n"):
        shown[-1] = Part("kept", shown[-1].text[:-1])
    return shown


def _shown(part: Part, *, marked: bool) -> Part:
    """The part as it is displayed: harmless, without tabs; blanks and line ends of an edit are visible."""
    text = safe(part.text)
    if part.kind == "kept":
        return Part("kept", text.replace("\t", " " * TAB))
    if text.isspace():
        text = text.replace(" ", "␣").replace("\t", f"⇥{' ' * (TAB - 1)}")
    text = text.replace("\t", " " * TAB).replace("\n", "⏎\n")
    if marked:
        before, after = _MARKS[part.kind]
        text = f"{before}{text}{after}"
    return Part(part.kind, text, part.edit)


def wrap(parts: Iterable[Part], width: int) -> list[Line]:
    """Break parts into lines of at most ``width`` columns: at line ends and blanks, else inside a word."""
    width = max(width, 2)  # a wide character has two columns
    wrapping = _Wrapping(width)
    for part in parts:
        for number, stretch in enumerate(part.text.split("\n")):
            if number:
                wrapping.end_line()
            if stretch.isascii():
                wrapping.add_ascii(stretch, part)
                continue
            for token in _TOKEN.findall(stretch):
                wrapping.add(token, part)
    wrapping.end_line()
    return wrapping.lines


class _Wrapping:
    """The lines so far, and the one that is being filled."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.lines: list[Line] = []
        self._parts: list[Part] = []
        self._cells = 0

    def add_ascii(self, text: str, part: Part) -> None:
        """Add a text in which each character has one column."""
        while text:
            room = self.width - self._cells
            if len(text) <= room:
                self._append(text, len(text), part)
                return
            cut = text.rfind(" ", 0, room + 1)
            if cut >= 0:
                if cut:
                    self._append(text[:cut], cut, part)
                text = text[cut + 1 :]
                if not text:
                    return
            elif not self._cells or len(text.partition(" ")[0]) > self.width:
                if room:
                    self._append(text[:room], room, part)
                text = text[room:]
            self.end_line()

    def add(self, token: str, part: Part) -> None:
        """Add a word or the blanks between two words."""
        cells = cell_len(token)
        if self._cells + cells <= self.width:
            self._append(token, cells, part)
        elif token == " ":
            self.end_line()
        else:
            for piece, size in self._pieces(token):
                if self._cells + size > self.width:
                    self.end_line()
                self._append(piece, size, part)

    def _pieces(self, token: str) -> Iterator[tuple[str, int]]:
        """A token in pieces that fit into a line: what the line still holds, then whole lines."""
        room = self.width - self._cells
        start = end = used = 0
        for _, last, cells in split_graphemes(token)[0]:
            if used + cells > room and end > start:
                yield token[start:end], used
                start, used, room = end, 0, self.width
            end, used = last, used + min(cells, self.width)
        yield token[start:], used

    def _append(self, text: str, cells: int, part: Part) -> None:
        last = self._parts[-1] if self._parts else None
        if last is not None and (last.kind, last.edit) == (part.kind, part.edit):
            self._parts[-1] = Part(last.kind, last.text + text, last.edit)
        else:
            self._parts.append(Part(part.kind, text, part.edit))
        self._cells += cells

    def end_line(self) -> None:
        self.lines.append(Line(tuple(self._parts), self._cells))
        self._parts, self._cells = [], 0


def fold(lines: Sequence[Line]) -> list[Line]:
    """Put one line in the place of each stretch of kept lines that is far from all edits."""
    shown: list[Line] = []
    kept: list[Line] = []
    edited = False
    for line in (*lines, None):
        if line is not None and not line.edits:
            kept.append(line)
            continue
        if not edited and line is None:
            return list(lines)  # nothing to fold around
        before, after = (CONTEXT if edited else 0), (CONTEXT if line is not None else 0)
        hidden = len(kept) - before - after
        if hidden > 1:
            shown += [*kept[:before], Line(hidden=hidden), *kept[len(kept) - after :]]
        else:
            shown += kept
        kept = []
        if line is not None:
            shown.append(line)
            edited = True
    return shown
