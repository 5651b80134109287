"""Screens above the app: a line of input, a choice, and texts to read.

Their keys have priority: such an action is finished before the next key is read, so that keys may be typed ahead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from rich.console import RenderableType
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.suggester import Suggester
from textual.widgets import Input, Static

from spotcli.console import one_line
from spotcli.decisions import REASONS
from spotcli.errors import UserError
from spotcli.inspection.filter_completion import Completion
from spotcli.inspection.filter_syntax import FilterError

Complete = Callable[[str], Completion]

HELP = """\
a          accept the pair
r, 1 to 5  reject it, with a reason
x          edit y+ in $EDITOR; the edit is graded and measured
u          undo the last decision, also one of an earlier start
A, R       accept, reject all pairs of the list
]          next undecided pair
n, N       next, previous edit
/          search: the next row with a text
f          filter, as --where (Tab completes, ↑ earlier filters);
           an empty filter shows all rows
s          both answers side by side
z          fold, or show the whole text
t          what is trained: tokens, loss, surprise where it is known
T          compute the surprise of the list's rows; again: stop
S          order of the list: file, ratio, surprise, length
o          overview of the rows in the list
↓ ↑, j k   next, previous row (mouse: click)
Space, b   scroll the answer (mouse: wheel)
g, G       first, last row
?          this help
q          quit

A decision is saved at once. A filter joins terms by and, or, not and
parentheses: ratio>0.3 and (verdict=wrong or not decision=accept).
Its fields appear below its line.
"""


class Line(Input):
    """A line with completion and earlier lines."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("tab", "complete"),
        Binding("up", "recall(-1)"),
        Binding("down", "recall(1)"),
    ]

    def __init__(self, value: str, *, complete: Complete | None, history: Sequence[str]) -> None:
        suggester = None if complete is None else _Proposal(complete)
        super().__init__(value, compact=True, suggester=suggester)
        self._complete = complete
        self._lines = [*history, value]
        self._place = len(self._lines) - 1

    @property
    def completion(self) -> Completion:
        """What can follow at the cursor, which is at the end."""
        at_end = self.cursor_position == len(self.value)
        return self._complete(self.value) if self._complete and at_end else Completion()

    def action_complete(self) -> None:
        completion = self.completion
        if completion.options:
            self.value = completion.apply(self.value, completion.options[0])
            self.cursor_position = len(self.value)

    def action_recall(self, step: int) -> None:
        self._lines[self._place] = shown = self.value
        places = range(self._place + step, len(self._lines) if step > 0 else -1, step)
        place = next((place for place in places if self._lines[place] != shown), None)
        if place is not None:
            self._place = place
            self.value = self._lines[place]
            self.cursor_position = len(self.value)


class _Proposal(Suggester):
    """Shows the first option in the line; Tab or the right arrow takes it."""

    def __init__(self, complete: Complete) -> None:
        super().__init__(use_cache=False, case_sensitive=True)
        self._complete = complete

    async def get_suggestion(self, value: str) -> str | None:
        completion = self._complete(value)
        return completion.apply(value, completion.options[0]) if completion.options and completion.proposed else None


class LineScreen(ModalScreen[str | None]):
    """Ask for one line; None if the user cancels.

    Args:
        question: what to ask for.
        value: the text at first.
        check: raises ``UserError`` for an invalid line; the screen stays open and shows it.
        complete: what can follow a line.
        history: earlier lines, the last one last.
    """

    AUTO_FOCUS = "Input"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss(None)", "Cancel")]

    def __init__(
        self,
        question: str,
        value: str = "",
        *,
        check: Callable[[str], object] | None = None,
        complete: Complete | None = None,
        history: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self._question, self._check = question, check
        self._line = Line(value, complete=complete, history=history)
        self._note = Static(classes="note")

    def compose(self) -> ComposeResult:
        with Vertical(classes="line"):
            yield Static(Text(self._question))
            yield self._line
            yield self._note

    def on_mount(self) -> None:
        self.set_focus(self._line)  # at once, for text that was typed ahead
        self._show_options()

    def on_input_changed(self) -> None:
        self._show_options()

    def _show_options(self) -> None:
        """Show what can follow, in one line."""
        options = Text("  ".join(map(str.strip, self._line.completion.options)), "dim", no_wrap=True)
        options.truncate(max(self.app.size.width, 10), overflow="ellipsis")
        self._note.update(options)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        try:
            if self._check is not None:
                self._check(event.value)
        except UserError as error:
            if isinstance(error, FilterError) and error.position is not None:
                self._line.cursor_position = error.position
            message = one_line(error.message) + (f": {one_line(error.cure)}" if error.cure else "")
            self._note.update(Text(message, "bold"))
            return
        self.dismiss(event.value)


class ReasonScreen(ModalScreen[str | None]):
    """Ask why a pair is rejected: an empty text is no reason, None cancels."""

    BINDINGS: ClassVar[list[BindingType]] = [
        *(Binding(str(number), f"choose({number})", priority=True) for number in range(1, len(REASONS) + 1)),
        Binding("enter,r", "choose(0)", priority=True),
        Binding("escape,q", "cancel", priority=True),
    ]

    def compose(self) -> ComposeResult:
        lines = [f"{number}  {reason}" for number, reason in enumerate(REASONS, 1)]
        yield Static(
            Text("\n".join(["Reject: why?", "", *lines, "", "Enter  no reason     Esc  cancel"])), classes="box"
        )

    async def action_choose(self, number: int) -> None:
        await self.dismiss(REASONS[number - 1] if number else "")

    async def action_cancel(self) -> None:
        await self.dismiss(None)


class ConfirmScreen(ModalScreen[bool]):
    """Ask yes or no."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", priority=True),
        Binding("n,escape,q", "answer(False)", priority=True),
    ]

    def __init__(self, question: str) -> None:
        super().__init__()
        self._question = question

    def compose(self) -> ComposeResult:
        yield Static(Text(f"{self._question}\n\ny  yes     n  no"), classes="box")

    async def action_answer(self, answer: bool) -> None:
        await self.dismiss(answer)


class TextScreen(ModalScreen[None]):
    """Show a text until a key is pressed; it scrolls."""

    AUTO_FOCUS = ".page"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,o,question_mark,enter", "close", priority=True)]

    def __init__(self, content: RenderableType) -> None:
        super().__init__()
        self._content = content

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="page"):
            yield Static(self._content, id="text")

    def replace(self, content: RenderableType) -> None:
        """Show another text; a screen that is not laid out yet begins with it."""
        self._content = content
        for text in self.query("#text").results(Static):
            text.update(content)

    async def action_close(self) -> None:
        await self.dismiss(None)
