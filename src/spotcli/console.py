"""Terminal output: results on stdout, messages and progress on stderr, external text escaped.

Text from a model, a dataset or a provider is passed through ``safe`` before it is shown: terminals execute escape
sequences, and Rich reads ``[...]`` as markup. Rich handles ``NO_COLOR`` and pipes.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from spotcli.errors import SpotError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\u2800\u3164\ufeff\uffa0\ufff9-\ufffb\ud800-\udfff\U0001d173-\U0001d17a\U000e0000-\U000e01ef]"
)
"""Bidirectional controls reorder text; zero-width, blank, tag and variation characters hide text."""


def safe(text: str) -> str:
    """Return text with its control, escape, bidirectional and invisible characters made visible.

    Line feeds and tabs are kept. A terminal executes nothing in the result. Square brackets are kept too, so print it
    with ``markup=False`` or in a ``rich.text.Text``.
    """
    return _CONTROL.sub(_visible, text)


def _visible(match: re.Match[str]) -> str:
    code = ord(match.group())
    if code < 0x20:
        return chr(0x2400 + code)  # the control pictures: ␛ for escape
    if code == 0x7F:
        return "␡"
    return f"⟨{unicodedata.name(match.group(), f'U+{code:04X}')}⟩"


def out() -> Console:
    """Return the console for results: stdout."""
    from rich.console import Console

    return Console(markup=False, highlight=False, emoji=False)


def err() -> Console:
    """Return the console for progress, messages, warnings and errors: stderr."""
    from rich.console import Console

    return Console(stderr=True, markup=False, highlight=False, emoji=False)


def say(text: str) -> None:
    """Print one line of information."""
    err().print(safe(text), style="dim", soft_wrap=True)


def warn(text: str) -> None:
    """Print one line of warning."""
    err().print(f"! {safe(text)}", style="yellow", soft_wrap=True)


def note_renamed_fields(path: Path, renamed: Mapping[str, str]) -> None:
    """Print the fields of a file that were read under another name (alias -> field)."""
    if renamed:
        say(f"{path}: read " + ", ".join(f"'{alias}' as '{name}'" for alias, name in renamed.items()))


def show_error(error: SpotError) -> None:
    """Print the problem, where it is, and the cure, without a traceback."""
    from rich.text import Text

    line = Text()
    if error.where:
        line.append(f"{safe(error.where)}: ", style="bold")
    line.append(safe(error.message), style="red")
    err().print(line, soft_wrap=True)
    if error.cure:
        err().print(Text(f"  cure: {safe(error.cure)}", style="green"), soft_wrap=True)


@contextmanager
def progress(unit: str) -> Iterator[Progress]:
    """Show progress on stderr with count, rate and remaining time; nothing is shown if stderr is not a terminal.

    Add tasks with ``add_task(description, total=..., note="")``; ``note`` is shown at the end of the line.
    """
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text(f"{speed:.1f} {unit}/s" if speed else f"- {unit}/s", style="cyan")

    console = err()
    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        Rate(),
        TimeElapsedColumn(),
        TextColumn("remaining", style="dim"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False, style="dim"),
        console=console,
        disable=not console.is_terminal,
    ) as display:
        yield display
