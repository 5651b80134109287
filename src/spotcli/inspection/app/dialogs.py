"""Screens above the app: a line of input, a choice, and texts to read.

Their keys have priority: such an action is finished before the next key is read, so that keys may be typed ahead.
"""

from __future__ import annotations

from typing import ClassVar

from rich.console import RenderableType
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from spotcli.decisions import REASONS

HELP = """\
a          accept the pair
r, 1 to 5  reject it, with a reason
x          edit y+ in $EDITOR; the edit is graded and measured
u          undo the last decision, also one of an earlier start
A, R       accept, reject all pairs of the list
]          next undecided pair
n, N       next, previous edit
/          search: the next row with a text
f          filter, as --where; an empty filter shows all rows
s          both answers side by side
z          fold, or show the whole text
o          overview of the rows in the list
↓ ↑, j k   next, previous row (mouse: click)
Space, b   scroll the answer (mouse: wheel)
g, G       first, last row
?          this help
q          quit

A decision is saved at once. Filter fields: ratio, first, length, trial, id, source,
prompt, answer, rejected, chosen, oracle, verdict, review, decision.
"""


class LineScreen(ModalScreen[str | None]):
    """Ask for one line; None if the user cancels."""

    AUTO_FOCUS = "Input"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss(None)", "Cancel")]

    def __init__(self, question: str, value: str = "") -> None:
        super().__init__()
        self._question, self._value = question, value

    def compose(self) -> ComposeResult:
        with Vertical(classes="line"):
            yield Static(Text(self._question))
            yield Input(self._value, compact=True)

    def on_mount(self) -> None:
        self.set_focus(self.query_one(Input))  # at once, for text that was typed ahead

    def on_input_submitted(self, event: Input.Submitted) -> None:
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
        """Show another text."""
        self._content = content
        self.query_one("#text", Static).update(content)

    async def action_close(self) -> None:
        await self.dismiss(None)
