"""The interactive viewer: one key per decision."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import ClassVar

from textual import work
from textual.app import SuspendNotSupported
from textual.binding import BindingType
from textual.worker import get_current_worker

from spotcli.console import counted
from spotcli.decisions import Event, new_action, now, reviewer, text_digest
from spotcli.errors import SpotError
from spotcli.inspection import editing
from spotcli.inspection.app.browser import Opened, in_order, message
from spotcli.inspection.app.dialogs import ConfirmScreen, ReasonScreen
from spotcli.inspection.app.token_keys import TokenBrowser
from spotcli.inspection.editing import Measured
from spotcli.records import Pair
from spotcli.reviews import Review


class InspectApp(TokenBrowser):
    """The viewer of one file, with decisions."""

    BINDINGS: ClassVar[list[BindingType]] = in_order(
        {
            "a": "decide('accept')",
            "r": "reject",
            "x": "edit",
            "u": "undo",
            "A": "all('accept')",
            "R": "all('reject')",
            "right_square_bracket": "next_undecided",
        }
    )

    measuring = 0
    """Edits that are being graded and measured."""
    quitting = False
    """The user wants to quit when they are."""

    def action_next_undecided(self) -> None:
        rows, start = self.list.rows, self.list.cursor
        for step in range(1, len(rows) + 1):
            position = (start + step) % len(rows)
            if self.entries.is_decidable(rows[position]) and not self.entries.is_decided(rows[position]):
                self._move_to(position)
                return
        self._tell("no undecided pair is left in the list")

    def action_decide(self, decision: Review) -> None:
        if (row := self._decidable()) is not None:
            self._record([self._event(row, decision, new_action())], [row])

    async def action_reject(self) -> None:
        row = self._decidable()
        if row is None:
            return

        def with_reason(reason: str | None) -> None:
            if reason is not None:
                self._record([self._event(row, "reject", new_action(), reason or None)], [row])

        await self.push_screen(ReasonScreen(), with_reason)

    async def action_all(self, decision: Review) -> None:
        rows = [row for row in self.list.rows if self.entries.is_decidable(row)]
        if not rows:
            self._tell("the list has no pair to decide about")
            return

        def confirmed(answer: bool | None) -> None:
            if answer:
                action = new_action()
                self._record([self._event(row, decision, action) for row in rows], rows)

        await self.push_screen(ConfirmScreen(f"{decision.capitalize()} {counted(len(rows), 'pair')}?"), confirmed)

    def action_undo(self) -> None:
        try:
            self.opened.review.open()  # another process may have decided since
        except (SpotError, OSError) as error:
            self._tell(message(error))
            return
        last = self.opened.review.decisions.last_action
        if last is None:
            self._tell("there is no decision to undo")
            return
        action, keys = last
        rows = sorted({row for key in keys for row in self._rows_by_key.get(key, [])})
        if self._record([Event(event="undo", time=now(), who=reviewer(), action=action)], rows) and rows:
            if len(keys) == 1 and rows[0] in self.list.rows:
                self.list.move_to(self.list.rows.index(rows[0]))
            self._tell(f"undone: the decision about {counted(len(keys), 'pair')}")

    def action_edit(self) -> None:
        row = self._decidable()
        if row is None:
            return
        pair, shown = self.entries.entry(row).pair, self.entries.shown(row)
        assert pair is not None and shown is not None  # noqa: PT018  # a decidable row has both
        try:
            with self._suspended():
                text = editing.edited(shown.chosen)
                if not text.strip() or text == shown.chosen:
                    self._tell("y+ was not changed" if text.strip() else "an empty y+ was not saved")
                    return
                event = self._event(row, "edited", new_action()).model_copy(update={"chosen": text})
        except (SpotError, OSError) as error:
            self._tell(message(error))
            return
        finally:
            self.refresh()
        # First the text, then what takes seconds and may fail.
        if self._record([event], [row]):
            self.measuring += 1
            self._tell("grading and measuring the edit ...")
            self._measure(row, pair, event)

    @work(thread=True, group="measure")
    def _measure(self, row: int, pair: Pair, event: Event) -> None:
        """Grade and measure an edit, which is saved already."""
        worker = get_current_worker()
        measured: Measured | str
        try:
            measured = editing.measure(pair, event.chosen or "", self.opened.recipe, self.opened.path)
        except (SpotError, OSError) as error:
            measured = message(error)
        if not worker.is_cancelled:
            self.call_from_thread(self._measured, row, pair, event, measured)

    def _measured(self, row: int, pair: Pair, event: Event, facts: Measured | str) -> None:
        """Save the verdict on an edit, unless it was undone or followed by another decision meanwhile."""
        self.measuring -= 1
        current = self.opened.review.decisions.current(pair)
        if isinstance(facts, str):
            self._tell(facts)
        elif current is not None and current.action == event.action:
            changes = {
                "time": now(),
                "verdict": facts.verdict,
                "extracted": facts.extracted,
                "change_ratio": facts.change_ratio,
                "ratio_unit": facts.unit,
            }
            if self._record([event.model_copy(update=changes)], [row]):
                graded = facts.verdict or "not graded (no reference answer)"
                self._tell(f"edited: y+ {graded}, change ratio {facts.change_ratio:.3f} in {facts.unit}")
        if self.quitting and not self.measuring:
            self.exit()

    async def action_quit(self) -> None:
        """Quit when the verdicts on all edits are saved; a second time at once, without them."""
        if self.measuring and not self.quitting:
            self.quitting = True
            self._tell("quitting when the edit is graded ...  q quit at once: the edit is saved, without a verdict")
            return
        self.exit()

    async def action_stop(self) -> None:
        self.exit()

    @contextmanager
    def _suspended(self) -> Iterator[None]:
        """Give the terminal to another program; where there is none, as in a test, the program just runs."""
        with ExitStack() as stack:
            with suppress(SuspendNotSupported):
                stack.enter_context(self.suspend())
            yield

    # Decisions

    def _decidable(self) -> int | None:
        row = self.list.current
        if row is None or not self.entries.is_decidable(row):
            self._tell("decisions are about pairs; this row is not a pair")
            return None
        return row

    def _event(self, row: int, decision: Review, action: str, reason: str | None = None) -> Event:
        pair = self.entries.entry(row).pair
        assert pair is not None
        return Event(
            time=now(),
            who=reviewer(),
            action=action,
            key=pair.key,
            decision=decision,
            reason=reason,
            digest=text_digest(pair),
        )

    def _record(self, events: Sequence[Event], rows: Sequence[int]) -> bool:
        """Append events about rows, and show them; whether that succeeded."""
        try:
            self.opened.review.append(events)
        except (SpotError, OSError) as error:
            self._tell(message(error))
            return False
        for row in rows:
            if self.entries.is_decided(row):
                self.decided.add(row)
            else:
                self.decided.discard(row)
        self.list.refresh()
        self.view.lay_out()
        self._write_bars()
        return True


def run(opened: Opened) -> InspectApp:
    """Show a file until the user quits.

    Raises:
        UserError: the sample is larger than the file, or another program changed the file of decisions.
    """
    app = InspectApp(opened)
    try:
        app.run()
    finally:
        opened.review.close()
    if app.failed is not None:
        raise app.failed
    return app
