"""The row under the cursor: facts, prompt, and both answers as one diff or side by side."""

from __future__ import annotations

from dataclasses import dataclass

from rich.segment import Segment
from rich.style import Style
from rich.text import Text
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from spotcli.console import one_line
from spotcli.core.edits import diff
from spotcli.inspection import score_terminal, terminal
from spotcli.inspection.app import diff_lines
from spotcli.inspection.app.diff_lines import MOST_COLUMNS, Line, Part
from spotcli.inspection.entries import Entries
from spotcli.records import Pair

_STYLES = {
    "kept": Style(),
    "deleted": Style(color="black", bgcolor="red"),
    "inserted": Style(color="black", bgcolor="green"),
}
_CURRENT = Style(bold=True, underline=True)
_DIM = Style(dim=True)


@dataclass
class Options:
    """How pairs are shown."""

    marked: bool
    """Write ``[-deleted-]`` and ``{+inserted+}``, because there is no colour."""
    folded: bool = True
    beside: bool = False
    """Both answers side by side."""


class PairView(ScrollView):
    """One row of the file.

    Args:
        entries: the rows of the file.
        options: how pairs are shown.
    """

    def __init__(self, entries: Entries, options: Options) -> None:
        super().__init__(id="pair")
        self.entries = entries
        self.options = options
        self.row: int | None = None
        self.edit = 0
        """The current edit."""
        self._head: list[Strip] = []
        self._lines: list[Line] = []

    @property
    def edits(self) -> int:
        """The number of edits."""
        return 1 + max((edit for line in self._lines for edit in line.edits), default=-1)

    def show(self, row: int | None) -> None:
        """Show a row; another one than before from its beginning."""
        if row != self.row:
            self.row, self.edit = row, 0
            self.scroll_to(y=0, animate=False, immediate=True)
        self.lay_out()

    def on_resize(self) -> None:
        self.lay_out()

    def lay_out(self) -> None:
        """Compute the lines again, for another width or other options."""
        # The size contains the column of the scroll bar until it is shown; a text that fits has none.
        width = max(self.scrollable_content_region.width - 2, 10)
        self._head, self._lines = [], []
        if self.row is not None and self.size.width:
            entry = self.entries.entry(self.row)
            pair = self.entries.shown(self.row)
            if pair is not None:
                self._lay_out_pair(pair, self.row, width)
            elif entry.score is not None:
                number = f"{self.row + 1}/{len(self.entries)}"
                self._add(score_terminal.score_parts(entry.score, number, whole=not self.options.folded), width)
            else:
                self._add([Text(one_line(entry.where), style="bold"), Text(entry.damage or "", style="yellow")], width)
                self._add([Text(), Text(entry.raw)], width)
        self.virtual_size = Size(1, len(self._head) + len(self._lines))
        self.refresh()

    def _lay_out_pair(self, pair: Pair, row: int, width: int) -> None:
        spans = diff(pair.original, pair.chosen)
        parts = terminal.pair_head(pair, f"{row + 1}/{len(self.entries)}", spans, whole=not self.options.folded)
        if event := self.entries.decision(row):
            reason = f": {event.reason}" if event.reason else ""
            note = f"{event.decision}{reason}  {event.who}  {event.time}"
            parts.append(Text.assemble(("decision", "dim"), " ", one_line(note)))
        if row in self.entries.duplicates:
            note = f"duplicate key: first in line {self.entries.duplicates[row]}; training leaves this row out"
            parts.append(Text(note, style="yellow"))
        if self.entries.state(row) == "stale":
            note = "stale: the text has changed since the last decision, which has no effect"
            parts.append(Text(note, style="yellow"))
        self._add([*parts, Text()], width)
        blocks = diff_lines.blocks(spans)
        arrange = diff_lines.side_by_side if self.options.beside else diff_lines.inline
        lines = arrange(blocks, width, marked=self.options.marked)
        self._lines = diff_lines.fold(lines) if self.options.folded else lines

    def _add(self, parts: list[Text], width: int) -> None:
        """Wrap texts to lines."""
        console = self.app.console
        for part in parts:
            part.expand_tabs(diff_lines.TAB)
            for line in part.wrap(console, min(width, MOST_COLUMNS), no_wrap=False) or [Text()]:
                self._head.append(Strip([Segment("  "), *line.render(console, end="")]))

    def next_edit(self, step: int) -> None:
        """Make the next or the previous edit the current one, and scroll to it; after the last comes the first."""
        if not self.edits:
            return
        self.edit = (self.edit + step) % self.edits
        self.scroll_to_edit()

    def scroll_to_edit(self) -> None:
        """Scroll until the current edit is in view."""
        place = next((place for place, line in enumerate(self._lines) if self.edit in line.edits), 0)
        target = len(self._head) + place
        top = round(self.scroll_y)
        if not top <= target < top + self.size.height - 1:
            self.scroll_to(y=max(target - 3, 0), animate=False, immediate=True)
        self.refresh()

    def render_line(self, y: int) -> Strip:
        place = y + round(self.scroll_y)
        if place < len(self._head):
            strip = self._head[place]
        elif place < len(self._head) + len(self._lines):
            strip = self._strip(self._lines[place - len(self._head)])
        else:
            return Strip.blank(self.size.width)
        return strip.adjust_cell_length(self.size.width)

    def _strip(self, line: Line) -> Strip:
        if line.hidden:
            return Strip([Segment(f"  ⋯ {line.hidden} lines without edits (z)", _DIM)])
        begins = self.edits > 1 and self.edit in line.edits
        segments = [Segment("> " if begins else "  ", Style(bold=True)), *map(self._segment, line.parts)]
        if line.right is not None:
            used = sum(segment.cell_length for segment in segments[1:])
            segments.append(Segment(" " * (line.cells - used) + " │ "))
            segments += map(self._segment, line.right.parts)
        return Strip(segments)

    def _segment(self, part: Part) -> Segment:
        style = _STYLES[part.kind]
        return Segment(part.text, style + _CURRENT if part.edit == self.edit and self.edits > 1 else style)
