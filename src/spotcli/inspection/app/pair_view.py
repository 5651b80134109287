"""The row under the cursor: facts, prompt, and both answers as one diff or side by side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from rich.segment import Segment
from rich.style import Style
from rich.text import Text
from textual import work
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.worker import get_current_worker

from spotcli.console import one_line
from spotcli.core.edits import Span, diff
from spotcli.html_pages import similar_diff
from spotcli.inspection import diff_lines, row_terminal, score_terminal, terminal
from spotcli.inspection.diff_lines import MOST_COLUMNS, Line, Part
from spotcli.inspection.entries import Entries
from spotcli.inspection.shared_prompts import SharedLines, SharedPrompts
from spotcli.records import Pair, Problem

LONG = 20_000
"""Characters of two answers from which their diff is computed in the background."""

_STYLES = {kind: Style.parse(style) for kind, style in diff_lines.STYLES.items()}
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


@dataclass(frozen=True)
class _Diff:
    """The diff of two answers as lines; without spans, they have nearly nothing in common."""

    spans: list[Span] | None
    lines: list[Line]


@dataclass(frozen=True)
class _Wanted:
    """The diff that is to be shown."""

    old: str
    new: str
    width: int
    options: Options
    similar: bool
    """Show answers with nearly nothing in common one after the other."""

    def diff(self) -> _Diff:
        """Compute it; takes long for long answers."""
        spans = similar_diff(self.old, self.new) if self.similar else diff(self.old, self.new)
        if spans is None:
            return _Diff(None, [])
        arrange = diff_lines.side_by_side if self.options.beside else diff_lines.inline
        lines = arrange(diff_lines.blocks(spans), self.width, marked=self.options.marked)
        return _Diff(spans, diff_lines.fold(lines) if self.options.folded else lines)


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
        self.shared = SharedPrompts()
        """What the prompts of the file begin with, as far as it was read."""
        self.tokens: Callable[[Pair, int], list[Text]] | None = None
        """What is trained of a pair, as lines of some columns; shown instead of the diff."""
        self.row: int | None = None
        self.edit = 0
        """The current edit."""
        self._head: list[Strip] = []
        self._lines: list[Line] = []
        self._wanted: _Wanted | None = None
        self._diff: _Diff | None = None
        """The last diff that was computed, and what it is of."""

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
        """Compute the lines again, for another width or other options; a long diff is computed in the background."""
        # The size contains the column of the scroll bar until it is shown; a text that fits has none.
        width = max(self.scrollable_content_region.width - 2, 10)
        if self.row is None or not self.size.width:
            self._set([], [], width)
            return
        record, compared = self.entries.record(self.row), self.entries.compared(self.row)
        texts = None
        if isinstance(record, Pair):
            texts = (record.original, record.chosen)
        elif compared is not None:
            texts = (compared.base.response, compared.tuned.response)
        if texts is None:
            shared = self._shared(record) if isinstance(record, Problem) else None
            number, whole = f"{self.row + 1}/{len(self.entries)}", not self.options.folded
            self._set(row_terminal.entry_parts(self.entries, self.row, number, whole=whole, shared=shared), [], width)
            return
        wanted = _Wanted(*texts, width, replace(self.options), similar=compared is not None)
        if wanted == self._wanted or len(texts[0]) + len(texts[1]) < LONG:
            self._show_diff(wanted, self._diff if wanted == self._wanted and self._diff else wanted.diff())
            return
        if (wanted.old, wanted.new) != (self._wanted and (self._wanted.old, self._wanted.new)):
            self._set([Text(self._title), Text(), Text("computing the diff ...", style="dim")], [], width)
        self._compute(wanted)

    @work(thread=True, exclusive=True, group="diff")
    def _compute(self, wanted: _Wanted) -> None:
        worker = get_current_worker()
        result = wanted.diff()
        if not worker.is_cancelled:
            self.app.call_from_thread(self._computed, wanted, result)

    def _computed(self, wanted: _Wanted, result: _Diff) -> None:
        """Show a diff that was computed in the background, if it is still the one that is wanted."""
        self._wanted, self._diff = wanted, result
        self.lay_out()

    @property
    def _title(self) -> str:
        assert self.row is not None
        return f"{self.row + 1}/{len(self.entries)}  {one_line(self.entries.entry(self.row).id)}"

    def _show_diff(self, wanted: _Wanted, result: _Diff) -> None:
        self._wanted, self._diff = wanted, result
        assert self.row is not None
        row, number, whole = self.row, f"{self.row + 1}/{len(self.entries)}", not self.options.folded
        pair, compared = self.entries.shown(row), self.entries.compared(row)
        if pair is not None:
            shared, surprise = self._shared(pair), self.entries.surprises.shown(pair)
            parts = terminal.pair_head(pair, number, result.spans or [], whole=whole, shared=shared, surprise=surprise)
            if self.tokens is not None:
                self._set([*parts[:-1], *self.tokens(pair, min(wanted.width, MOST_COLUMNS))], [], wanted.width)
                return
            parts += [*self._decision_notes(row), *row_terminal.duplicate_note(self.entries, row)]
        else:
            assert compared is not None
            parts = score_terminal.change_head(compared, number, whole=whole, shared=self._shared(compared.tuned))
            parts += row_terminal.duplicate_note(self.entries, row)
            if result.spans is None:
                self._set([*parts, *score_terminal.both_answers(compared)], [], wanted.width)
                return
        self._set([*parts, Text()], result.lines, wanted.width)

    def _decision_notes(self, row: int) -> list[Text]:
        """The decision about a pair, and whether it is stale."""
        notes = []
        if event := self.entries.decision(row):
            reason = f": {event.reason}" if event.reason else ""
            note = f"{event.decision}{reason}  {event.who}  {event.time}"
            notes.append(Text.assemble(("decision", "dim"), " ", one_line(note)))
        if self.entries.state(row) == "stale":
            note = "stale: the text has changed since the last decision, which has no effect"
            notes.append(Text(note, style="yellow"))
        return notes

    def _set(self, parts: list[Text], lines: list[Line], width: int) -> None:
        """Show texts, which are wrapped, and the lines of a diff."""
        self._head, self._lines = [], lines
        self._add(parts, width)
        self.virtual_size = Size(1, len(self._head) + len(self._lines))
        self.refresh()

    def _shared(self, row: Problem) -> SharedLines | None:
        """The lines of the prompt that are shown as one."""
        return self.shared.of(row) if self.options.folded else None

    def _add(self, parts: list[Text], width: int) -> None:
        """Wrap texts to lines."""
        console = self.app.console
        for part in parts:
            part.expand_tabs(diff_lines.TAB)
            for line in part.wrap(console, min(width, MOST_COLUMNS), no_wrap=False) or [Text()]:
                line.stylize_before(line.style)  # Rich renders a text without spans without its style
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
            return Strip([Segment(f"  {line.note} (z)", _DIM)])
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
