"""Pages on a terminal, one key each: next, previous, scroll, next edit, leave.

Pages are drawn as they are asked for, so a long file costs nothing before it is read. The terminal is given back as it
was, whatever happens.
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

# Arrow keys and their like arrive as an escape sequence in one piece.
_KEY = re.compile(r"\x1b[\[O][0-9;]*[A-Za-z~]|.", re.DOTALL)
_NAMES = {
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
_HELP = "n next  p previous  e next edit  space ↓ ↑ scroll  q leave"


def usable() -> bool:
    """Whether somebody sits at a terminal that can draw pages."""
    return sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def page(
    console: Console,
    pages: Iterator[RenderableType],
    total: int,
    *,
    question: str,
    is_edit: Callable[[Segment], bool],
) -> None:
    """Ask, and if the answer is to go on, show pages one at a time until the user leaves.

    Args:
        total: how many pages there will be, for the status line.
        question: stays below what is on the screen; enter, space and n go on.
        is_edit: marks the segments that the key for the next edit goes to.
    """
    with _keys() as key:
        from rich.text import Text

        console.print(Text(question, style="dim"), end="")
        go_on = key(lambda: None) in ("next", "page down")
        console.print()
        if go_on:
            _turn(console, pages, total, key, is_edit)


def _turn(
    console: Console,
    pages: Iterator[RenderableType],
    total: int,
    key: Callable[[Callable[[], object]], str],
    is_edit: Callable[[Segment], bool],
) -> None:
    from rich.control import Control

    seen: list[RenderableType] = []
    lines: Lines = []
    current, top = 0, 0

    def draw() -> None:
        nonlocal current, top, lines
        seen.extend(islice(pages, max(current + 1 - len(seen), 0)))
        # The file can have become shorter since its pages were counted.
        current = min(current, len(seen) - 1)
        if current < 0:
            return
        lines = console.render_lines(seen[current], pad=False)
        top = max(0, min(top, len(lines) - _room(console)))
        console.control(Control.home())
        screen.update(_Window(lines, top, f" {current + 1}/{total}"))

    with console.screen() as screen:
        draw()
        while (pressed := key(draw)) != "quit":
            room = _room(console)
            if pressed == "page down" and top + room >= len(lines):
                pressed = "next"
            if pressed in ("next", "previous"):
                target = current + (1 if pressed == "next" else -1)
                if 0 <= target < total:
                    current, top = target, 0
            elif pressed == "edit":
                top = _next_edit(lines, top, is_edit)
            else:
                steps = {"up": -1, "down": 1, "page up": 1 - room, "page down": room - 1}
                steps |= {"top": -len(lines), "bottom": len(lines)}
                top += steps.get(pressed, 0)
            draw()


def _room(console: Console) -> int:
    return max(console.size.height - 1, 1)


def _next_edit(lines: Lines, top: int, is_edit: Callable[[Segment], bool]) -> int:
    """The top line that shows the next edit two lines below it, the first edit again after the last."""
    edited = [place for place, line in enumerate(lines) if any(map(is_edit, line))]
    starts = [place for place in edited if place - 1 not in edited]
    return next((place - 2 for place in starts if place - 2 > top), starts[0] - 2 if starts else top)


class _Window:
    """What fits on the screen, and a status line below it."""

    def __init__(self, lines: Lines, top: int, title: str) -> None:
        self.lines, self.top, self.title = lines, top, title

    def __rich_console__(self, console: Console, _options: object) -> Iterator[RenderableType]:
        from rich.segment import SegmentLines
        from rich.text import Text

        room = _room(console)
        visible = self.lines[self.top : self.top + room]
        below = len(self.lines) - self.top - len(visible)
        yield SegmentLines([*visible, *([] for _ in range(room - len(visible)))], new_lines=True)
        more = f"  ↓{below}" if below else ""
        yield Text(f"{self.title}{more}   {_HELP}".ljust(console.size.width)[: console.size.width], style="reverse")


@contextmanager
def _keys() -> Iterator[Callable[[Callable[[], object]], str]]:
    """Keys without waiting for enter; the function given to it is called when the window changes its size."""
    import termios
    import tty

    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    waiting: list[str] = []

    def key(resized: Callable[[], object]) -> str:
        size = os.get_terminal_size(sys.stdout.fileno())
        while not waiting:
            if not select.select([terminal], [], [], 0.25)[0]:
                if size != (size := os.get_terminal_size(sys.stdout.fileno())):
                    resized()
                continue
            waiting.extend(_KEY.findall(os.read(terminal, 256).decode("utf-8", errors="replace")) or [""])
        pressed = waiting.pop(0)
        return _NAMES.get(pressed, pressed)

    try:
        # Without throwing away what was typed before.
        tty.setcbreak(terminal, termios.TCSADRAIN)
        yield key
    except KeyboardInterrupt:
        # Leaving with Ctrl-C is leaving.
        pass
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)
