"""A pager for the terminal with one key per action: next, previous, scroll, next edit, quit.

Pages are rendered on demand, so a long file opens at once. The terminal's mode and screen are restored on exit.
"""

from __future__ import annotations

import os
import re
import select
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.segment import Segment

    Lines = list[list[Segment]]

KeyReader = Callable[[Callable[[], object]], str]
"""Returns the next action; calls its argument when the window is resized."""

_KEY = re.compile(r"\x1b[\[O][0-9;]*[A-Za-z~]|.", re.DOTALL)
"""One key press: a character, or the escape sequence of an arrow key and the like."""

_ACTIONS = {
    "\x1b[A": "up",
    "\x1bOA": "up",
    "\x1b[B": "down",
    "\x1bOB": "down",
    "\x1b[C": "next",
    "\x1bOC": "next",
    "\x1b[D": "previous",
    "\x1bOD": "previous",
    "\x1b[5~": "page up",
    "\x1b[6~": "page down",
    "\x1b[H": "top",
    "\x1b[F": "bottom",
    **dict.fromkeys("n\r\n", "next"),
    "p": "previous",
    "j": "down",
    "k": "up",
    " ": "page down",
    "b": "page up",
    "e": "edit",
    "g": "top",
    "G": "bottom",
    **dict.fromkeys(("q", "Q", "\x1b", "\x03", "\x04", ""), "quit"),
}
_HELP = "n next  p previous  e next edit  space ↓ ↑ scroll  q quit"


def is_available() -> bool:
    """Return whether input and output are a terminal that can show pages."""
    return sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def show_pages(
    console: Console,
    pages: Iterator[RenderableType],
    total: int,
    *,
    question: str,
    is_edit: Callable[[Segment], bool],
) -> None:
    """Ask whether to open the pager, then show pages until the user quits.

    Args:
        total: the number of pages, for the status line.
        question: printed below the text on the screen; Enter, Space and n open the pager.
        is_edit: whether a segment belongs to an edit, which the key ``e`` scrolls to.
    """
    with _keyboard() as read_key:
        from rich.text import Text

        console.print(Text(question, style="dim"), end="")
        opened = read_key(lambda: None) in ("next", "page down")
        console.print()
        if opened:
            _run(console, pages, total, read_key, is_edit)


def _run(
    console: Console,
    pages: Iterator[RenderableType],
    total: int,
    read_key: KeyReader,
    is_edit: Callable[[Segment], bool],
) -> None:
    from rich.control import Control

    rendered: list[RenderableType] = []
    lines: Lines = []
    current, top = 0, 0

    def draw() -> None:
        nonlocal current, top, lines
        rendered.extend(islice(pages, max(current + 1 - len(rendered), 0)))
        # The file may have become shorter since the pages were counted.
        current = min(current, len(rendered) - 1)
        if current < 0:
            return
        lines = console.render_lines(rendered[current], pad=False)
        top = max(0, min(top, len(lines) - _page_height(console)))
        console.control(Control.home())
        screen.update(_Window(lines, top, f" {current + 1}/{total}"))

    with console.screen() as screen:
        draw()
        while (action := read_key(draw)) != "quit":
            height = _page_height(console)
            if action == "page down" and top + height >= len(lines):
                action = "next"
            if action in ("next", "previous"):
                target = current + (1 if action == "next" else -1)
                if 0 <= target < total:
                    current, top = target, 0
            elif action == "edit":
                top = _next_edit(lines, top, is_edit)
            else:
                steps = {"up": -1, "down": 1, "page up": 1 - height, "page down": height - 1}
                steps |= {"top": -len(lines), "bottom": len(lines)}
                top += steps.get(action, 0)
            draw()


def _page_height(console: Console) -> int:
    return max(console.size.height - 1, 1)


def _next_edit(lines: Lines, top: int, is_edit: Callable[[Segment], bool]) -> int:
    """Return the top line that shows the next edit in the third line of the screen; after the last, the first edit."""
    edited = [index for index, line in enumerate(lines) if any(map(is_edit, line))]
    starts = [index for index in edited if index - 1 not in edited]
    return next((index - 2 for index in starts if index - 2 > top), starts[0] - 2 if starts else top)


class _Window:
    """The visible lines of a page, with a status line below."""

    def __init__(self, lines: Lines, top: int, title: str) -> None:
        self.lines, self.top, self.title = lines, top, title

    def __rich_console__(self, console: Console, _options: object) -> Iterator[RenderableType]:
        from rich.segment import SegmentLines
        from rich.text import Text

        height = _page_height(console)
        visible = self.lines[self.top : self.top + height]
        below = len(self.lines) - self.top - len(visible)
        yield SegmentLines([*visible, *([] for _ in range(height - len(visible)))], new_lines=True)
        hidden = f"  ↓{below}" if below else ""
        yield Text(f"{self.title}{hidden}   {_HELP}".ljust(console.size.width)[: console.size.width], style="reverse")


@contextmanager
def _keyboard() -> Iterator[KeyReader]:
    """Read single keys inside the context; Ctrl-C ends it without an error."""
    import termios
    import tty

    terminal = sys.stdin.fileno()
    mode = termios.tcgetattr(terminal)
    pending: list[str] = []

    def read_key(on_resize: Callable[[], object]) -> str:
        size = os.get_terminal_size(sys.stdout.fileno())
        while not pending:
            if not select.select([terminal], [], [], 0.25)[0]:
                if size != (size := os.get_terminal_size(sys.stdout.fileno())):
                    on_resize()
                continue
            pending.extend(_KEY.findall(os.read(terminal, 256).decode("utf-8", errors="replace")) or [""])
        key = pending.pop(0)
        return _ACTIONS.get(key, key)

    try:
        # TCSADRAIN keeps what was typed before.
        tty.setcbreak(terminal, termios.TCSADRAIN)
        yield read_key
    except KeyboardInterrupt:
        pass  # Ctrl-C quits like q
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, mode)
