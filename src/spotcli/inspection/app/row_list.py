"""The list of rows: ratio, first edit, verdict, oracle and decision; only the visible lines are read."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from spotcli.console import one_line
from spotcli.inspection.entries import Entries
from spotcli.inspection.row_kinds import COLUMNS

WIDE = 46
"""Columns from which the list shows ids too."""

_STYLES = {
    "won": Style(color="green"),
    "lost": Style(color="red"),
    "accept": Style(color="green"),
    "reject": Style(color="red"),
    "edited": Style(color="magenta"),
    "stale": Style(color="yellow"),
    "damaged": Style(color="yellow"),
    "right": Style(color="green"),
    "wrong": Style(color="red"),
}
_NONE = Style()


class RowList(ScrollView):
    """The rows that are selected, and a cursor on one of them.

    Args:
        entries: the rows of the file.
    """

    class Moved(Message):
        """The cursor moved to another row."""

    def __init__(self, entries: Entries) -> None:
        super().__init__(id="rows")
        self.entries = entries
        self.rows: Sequence[int] = range(len(entries))
        """Numbers of the rows in the list."""
        self.cursor = 0

    @property
    def current(self) -> int | None:
        """The row under the cursor."""
        return self.rows[self.cursor] if self.rows else None

    def on_mount(self) -> None:
        self.show(self.rows)

    def show(self, rows: Sequence[int]) -> None:
        """List other rows; the cursor stays on its row if that is one of them."""
        before = self.current
        self.rows = rows
        self.cursor = 0
        if before is not None and before in rows:
            self.cursor = rows.index(before)
        self.virtual_size = Size(1, len(rows) + 1)
        self.move_to(self.cursor)

    def move_to(self, position: int) -> None:
        """Move the cursor, and scroll it into view."""
        self.cursor = max(0, min(position, len(self.rows) - 1))
        height = max(self.size.height - 1, 1)
        top = round(self.scroll_y)
        if not top <= self.cursor < top + height:
            top = self.cursor if self.cursor < top else self.cursor - height + 1
            self.scroll_to(y=top, animate=False, immediate=True)
        self.refresh()
        self.post_message(self.Moved())

    def on_click(self, event: events.Click) -> None:
        position = event.y - 1 + round(self.scroll_y)
        if event.y > 0 and position < len(self.rows):
            self.move_to(position)

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        columns = COLUMNS[self.entries.kind]
        if y == 0:
            names = " ".join(f"{name[:size]:<{size}}" for name, size in columns)
            names = names if width < WIDE else f"{names} id"
            return Strip([Segment(set_cell_size(names, width), Style(underline=True))], width)
        position = y - 1 + round(self.scroll_y)
        if position >= len(self.rows):
            return Strip.blank(width)
        row = self.rows[position]
        ratio, first, verdict, oracle = self.entries.facts(row)
        state = self.entries.state(row) or ("duplic." if row in self.entries.duplicates else "")
        if verdict == "damaged":
            verdict, state = "", "damaged"
        texts = [
            (ratio, _STYLES.get(ratio, _NONE)),
            (first, _NONE),
            (verdict, _STYLES.get(verdict, _NONE)),
            (oracle, _NONE),
        ]
        texts.append((state, _STYLES.get(state, _NONE)))
        segments = []
        for (text, style), (_, size) in zip(texts, columns, strict=True):
            segments += [Segment(set_cell_size(text, size), style), Segment(" ")]
        if width >= WIDE:
            segments.append(Segment(one_line(self.entries.entry(row).id)))
        strip = Strip(segments).adjust_cell_length(width)
        return strip.apply_style(Style(reverse=True)) if position == self.cursor else strip
