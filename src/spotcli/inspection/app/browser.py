"""The list of rows beside the pair under the cursor: moving, filtering, searching, and the overview."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from rich.padding import Padding
from rich.text import Text
from textual import events, work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.screen import ModalScreen
from textual.visual import VisualType
from textual.widgets import Static
from textual.worker import get_current_worker

from spotcli.console import one_line
from spotcli.decisions import ReviewFile
from spotcli.errors import SpotError, UserError
from spotcli.inspection import row_terminal
from spotcli.inspection.app.dialogs import HELP, LineScreen, TextScreen
from spotcli.inspection.app.pair_view import Options, PairView
from spotcli.inspection.app.row_list import RowList
from spotcli.inspection.audit import SampleSize, draw
from spotcli.inspection.entries import Entries
from spotcli.inspection.file_overview import FileOverview
from spotcli.inspection.filter_completion import complete
from spotcli.inspection.pair_filter import Selection
from spotcli.inspection.row_order import Order
from spotcli.inspection.shared_prompts import SharedPrompts
from spotcli.recipe import Recipe
from spotcli.records import Pair, Problem

NARROW = 70
"""Columns below which the list is above the pair."""

REPORT = 2_000
"""Rows between two reports of a search in the background."""


@dataclass(frozen=True)
class Opened:
    """The file that is shown."""

    path: Path
    recipe: Recipe
    entries: Entries
    review: ReviewFile
    where: str | None = None
    """The first filter."""
    sample: SampleSize | None = None
    """Show a random sample of the pairs, for an audit."""
    order: Order = "file"
    """The first order of the list."""


def in_order(actions: Mapping[str, str]) -> list[BindingType]:
    """Bindings of keys whose actions are done one after another: a key typed ahead goes to the screen that opens."""
    return [Binding(keys, action, priority=True) for keys, action in actions.items()]


class Bar(Static):
    """One line in reverse, up to the border of the terminal."""

    def update(self, content: VisualType = "", *, layout: bool = True) -> None:
        super().update(Padding(content, 0, style="reverse") if isinstance(content, Text) else content, layout=layout)


class Browser(App[None]):
    """The viewer of one file, without decisions."""

    ENABLE_COMMAND_PALETTE = False
    AUTO_FOCUS = None
    CSS = """
    #title, #footer { height: 1; }
    #main { layout: horizontal; height: 1fr; }
    #rows { width: 34; }
    #pair { width: 1fr; }
    #rows, #pair { scrollbar-gutter: stable; scrollbar-size-vertical: 1; overflow-x: hidden; }
    .wide #rows { width: 60; }
    .narrow #main { layout: vertical; }
    .narrow #rows { width: 100%; height: 6; border-bottom: solid ansi_default; }
    ModalScreen { align: center middle; background: transparent; }
    .box { width: auto; height: auto; max-width: 100%; border: solid ansi_default; padding: 0 1; }
    .page { width: 90%; height: 90%; border: solid ansi_default; padding: 0 1; }
    LineScreen { align: left bottom; }
    .line { height: auto; }
    .note { min-height: 1; max-height: 4; }
    """
    BINDINGS: ClassVar[list[BindingType]] = in_order(
        {
            "n": "edit_step(1)",
            "N": "edit_step(-1)",
            "slash": "search",
            "f": "filter",
            "s": "beside",
            "z": "fold",
            "o": "overview",
            "question_mark": "help",
            "down,j": "move(1)",
            "up,k": "move(-1)",
            "g,home": "move(-1000000000)",
            "G,end": "move(1000000000)",
            "space,pagedown": "scroll(1)",
            "b,pageup": "scroll(-1)",
            "q": "quit",
            "ctrl+c,ctrl+q": "stop",
        }
    )

    def __init__(self, opened: Opened) -> None:
        self.marked = not has_colour()
        if self.marked:
            os.environ["NO_COLOR"] = "1"
        super().__init__(ansi_color=True)
        if self.marked:
            os.environ["NO_COLOR"] = "1"  # Textual removes it; the editor should see it
        self.opened = opened
        self.entries = opened.entries
        self.list = RowList(opened.entries)
        self.view = PairView(opened.entries, Options(self.marked))
        self.where: str | None = None
        self.order = opened.order
        self.sample: list[int] | None = None
        """Rows of the audit."""
        self.decided: set[int] = set()
        """Rows with a decision, among those that were scanned."""
        self.scanned = self.pairs = 0
        """Rows, and pairs among them, that were read for the counts."""
        self._shared = SharedPrompts()
        self._searched = ""
        self._shows_keys = False
        self.past_searches: list[str] = []
        self.past_filters: list[str] = []
        """The filters of this session, the last one last."""
        self._rows_by_key: dict[tuple[str, int], list[int]] = {}

    def compose(self) -> ComposeResult:
        yield Bar(id="title")
        with Container(id="main"):
            yield self.list
            yield self.view
        yield Bar(id="footer")

    def on_mount(self) -> None:
        self._scan()
        if self.opened.where is not None and self.opened.sample is None:
            self._set_filter(self.opened.where)
        self._write_bars()

    def on_resize(self, event: events.Resize) -> None:
        self.screen_stack[0].set_class(event.size.width < NARROW, "narrow")
        self.screen_stack[0].set_class(event.size.width >= 140, "wide")
        self.call_after_refresh(self._adapt_keys)

    def on_row_list_moved(self) -> None:
        self.view.show(self.list.current)
        self._write_title()

    # What runs in the background

    @work(thread=True, group="scan")
    def _scan(self) -> None:
        """Read all rows once: duplicates, and how many pairs have a decision."""
        worker = get_current_worker()
        for row in self.entries.scan():
            record = self.entries.entry(row).record
            pair = record if isinstance(record, Pair) else None
            if isinstance(record, Problem):
                self._shared.add(record)
            if pair is not None:
                self.pairs += 1
                self._rows_by_key.setdefault(pair.key, []).append(row)
                if self.entries.is_decided(row):
                    self.decided.add(row)
            self.scanned = row + 1
            if worker.is_cancelled:
                return
            if not self.scanned % REPORT:
                self.call_from_thread(self._write_bars)
        failure = None
        try:
            if self.entries.comparison is not None:
                self.call_from_thread(self._tell, "comparing with the base model ...")
                self.entries.comparison.make()
        except (SpotError, OSError) as error:
            failure = f"not compared with the base model: {message(error)}"
        if not worker.is_cancelled:
            self.call_from_thread(self._scan_done, failure)

    def _scan_done(self, failure: str | None = None) -> None:
        if self.opened.sample is not None:
            self._draw(self.opened.sample)
        self.list.refresh()
        self.view.shared = self._shared
        self.view.lay_out()
        self._write_bars()
        if failure is not None:
            self._tell(failure)

    def _draw(self, wanted: SampleSize) -> None:
        where = self.opened.where
        selects = self.entries.selector(Selection(where=where))
        rows = [
            row
            for row in range(len(self.entries))
            if self.entries.is_decidable(row) and row not in self.entries.duplicates and selects(row)
        ]
        try:
            self.sample = draw(rows, wanted)
        except UserError as error:
            self.exit(message=None)
            self.failed = error
            return
        self.list.show(self.sample)

    failed: SpotError | None = None
    """Why the app ended at once."""

    @work(thread=True, exclusive=True, group="rows")
    def _select(self, where: str) -> None:
        """List the rows that match a filter."""
        worker = get_current_worker()
        try:
            selects = self.entries.selector(Selection(where=where))
        except (SpotError, OSError) as error:
            self.call_from_thread(self._tell, message(error))
            return
        found: list[int] = []
        source = self.sample if self.sample is not None else range(len(self.entries))
        for number, row in enumerate(source):
            if worker.is_cancelled:
                return
            if selects(row):
                found.append(row)
            if number % REPORT == REPORT - 1:
                self.call_from_thread(self._progress, "filtering", number, len(source))
        self.call_from_thread(self._selected, where, found)

    def _selected(self, where: str, rows: Sequence[int]) -> None:
        self.where = where
        self.list.show(rows)
        self._write_bars()

    @work(thread=True, exclusive=True, group="rows")
    def _find(self, text: str) -> None:
        """Move to the next row with a text, from the one after the cursor on."""
        worker = get_current_worker()
        rows, start = self.list.rows, self.list.cursor
        for step in range(1, len(rows) + 1):
            position = (start + step) % len(rows)
            if worker.is_cancelled:
                return
            if self.entries.contains(rows[position], text.casefold()):
                self.call_from_thread(self._move_to, position)
                return
            if not step % REPORT:
                self.call_from_thread(self._progress, "searching", step, len(rows))
        self.call_from_thread(self._tell, f"no row contains {one_line(text)}")

    @work(thread=True, exclusive=True, group="overview")
    def _summarise(self, screen: TextScreen, rows: Sequence[int], width: int) -> None:
        """Compute the overview of the rows in the list."""
        worker = get_current_worker()
        totals = FileOverview(self.opened.recipe.rectify.gamma)
        for row in rows:
            if worker.is_cancelled:
                return
            totals.add(self.entries.record(row), matches=True, duplicate=row in self.entries.duplicates)
        comparison = self.entries.comparison
        made = comparison if comparison is not None and comparison.is_made else None
        content = row_terminal.file_overview(totals.summary(self.opened.path, comparison=made, one_each=False), width)
        self.call_from_thread(screen.replace, content)

    # What keys do

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Keys of the list do nothing while a dialog is open, except to end the app by Ctrl-C."""
        if isinstance(self.screen, ModalScreen):
            return action == "stop"
        return super().check_action(action, parameters)

    def action_move(self, step: int) -> None:
        self._move_to(self.list.cursor + step)

    def _move_to(self, position: int) -> None:
        self.list.move_to(position)
        self._write_bars()

    async def action_stop(self) -> None:
        await self.action_quit()

    def action_scroll(self, step: int) -> None:
        height = max(self.view.size.height - 1, 1)
        self.view.scroll_to(y=max(round(self.view.scroll_y) + step * height, 0), animate=False, immediate=True)

    def action_edit_step(self, step: int) -> None:
        self.view.next_edit(step)

    def action_beside(self) -> None:
        self.view.options.beside = not self.view.options.beside
        self.view.lay_out()

    def action_fold(self) -> None:
        self.view.options.folded = not self.view.options.folded
        self.view.lay_out()

    async def action_help(self) -> None:
        await self.push_screen(TextScreen(Text(HELP)))

    async def action_overview(self) -> None:
        screen = TextScreen(Text("computing ..."))
        await self.push_screen(screen)
        self._summarise(screen, self.list.rows, max(self.size.width * 9 // 10 - 6, 20))

    async def action_filter(self) -> None:
        fields = self.entries.fields
        screen = LineScreen(
            "filter, such as ratio>0.3 and not (verdict=right or decision=none)",
            self.where or "",
            check=self._check_filter,
            complete=lambda where: complete(where, fields),
            history=self.past_filters,
        )
        await self.push_screen(screen, self._set_filter)

    def _check_filter(self, where: str) -> None:
        if where.strip():
            self.entries.check_filter(where)

    def _set_filter(self, where: str | None) -> None:
        if where is None:
            return
        if not where.strip():
            self.where = None
            self.list.show(self.sample if self.sample is not None else range(len(self.entries)))
            self._write_bars()
            return
        self.past_filters = [*(known for known in self.past_filters if known != where), where]
        self._select(where)

    async def action_search(self) -> None:
        await self.push_screen(LineScreen("search", self._searched, history=self.past_searches), self._search)

    def _search(self, text: str | None) -> None:
        if text and self.list.rows:
            self._searched = text
            self.past_searches = [*(known for known in self.past_searches if known != text), text]
            self._find(text)

    # The bars

    def _adapt_keys(self) -> None:
        """Show the keys that fit, unless a message is in their place."""
        if self._shows_keys:
            self._write_bars()

    def _tell(self, text: str) -> None:
        self._shows_keys = False
        self.query_one("#footer", Static).update(Text(f" {text}", no_wrap=True, overflow="ellipsis"))

    def _progress(self, verb: str, number: int, total: int) -> None:
        self._tell(f"{verb}: {number:,} of {total:,} rows")

    def _write_bars(self) -> None:
        self._write_title()
        keys = "a accept  r reject  x edit  u undo  ] next  " if self.has_pairs else ""
        if self.size.width < NARROW and keys:
            keys = "a r x u ]  "
        self._tell(f"{self._counted()}{keys}? help  q quit")
        self._shows_keys = True

    @property
    def has_pairs(self) -> bool:
        """Whether there is something to decide about, as far as the file was read."""
        return self.pairs > 0 or self.entries.has_pairs

    def _counted(self) -> str:
        """How many pairs have a decision, and how many have none."""
        if not self.has_pairs:
            return ""
        if self.scanned < len(self.entries):
            return "counting ...  "
        done = len(self.decided) if self.sample is None else len(self.decided.intersection(self.sample))
        total = self.pairs if self.sample is None else len(self.sample)
        return f"{done:,} decided, {total - done:,} left  "

    def _write_title(self) -> None:
        rows = self.list.rows
        place = f"{self.list.cursor + 1:,}/{len(rows):,}" if rows else "no rows"
        title = f" {one_line(self.opened.path.name)}  {place}"
        if self.opened.sample is not None:
            title += f"  sample of {self.opened.sample.size}" if self.sample else "  drawing the sample ..."
        if self.where:
            title += f"  filter {one_line(self.where)}"
        if self.order != "file":
            title += f"  by {self.order}"
        self.query_one("#title", Static).update(Text(title, no_wrap=True, overflow="ellipsis"))


def message(error: Exception) -> str:
    """An error in one line: the problem and the cure."""
    if isinstance(error, SpotError):
        return one_line(f"{error.message}" + (f": {error.cure}" if error.cure else ""))
    return one_line(str(error))


def has_colour() -> bool:
    """Whether the terminal shows colours."""
    terminal_name = os.environ.get("TERM", "dumb").lower()
    return not os.environ.get("NO_COLOR") and not terminal_name.startswith(("vt", "dumb", "unknown"))
