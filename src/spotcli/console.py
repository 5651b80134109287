"""What people see: results on stdout, talk on stderr, and foreign text made harmless.

Everything that a model, a dataset or a provider wrote goes through ``safe`` before it is shown: terminals obey escape
sequences, and Rich reads ``[...]`` as markup. ``NO_COLOR`` and pipes are respected by Rich itself.
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

# Bidirectional controls reorder what is shown; zero-width, blank, tag and variation characters hide text in it.
_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\u2800\u3164\ufeff\uffa0\ufff9-\ufffb\ud800-\udfff\U0001d173-\U0001d17a\U000e0000-\U000e01ef]"
)


def safe(text: str) -> str:
    """Text from outside with control, escape, bidirectional and invisible characters made visible.

    Line feeds and tabs stay. The result holds nothing that a terminal obeys; it is still not Rich markup: print it with
    ``markup=False`` or in a ``rich.text.Text``.
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
    """Where results go."""
    from rich.console import Console

    return Console(markup=False, highlight=False, emoji=False)


def err() -> Console:
    """Where talk goes: progress, notes, warnings, errors."""
    from rich.console import Console

    return Console(stderr=True, markup=False, highlight=False, emoji=False)


def say(text: str) -> None:
    """One line of talk."""
    err().print(safe(text), style="dim", soft_wrap=True)


def warn(text: str) -> None:
    """One line that should not be missed."""
    err().print(f"! {safe(text)}", style="yellow", soft_wrap=True)


def note_renamed_fields(path: Path, renamed: Mapping[str, str]) -> None:
    """One line that names the fields of a file that were read under another name (alias -> field)."""
    if renamed:
        say(f"{path}: read " + ", ".join(f"'{alias}' as '{name}'" for alias, name in renamed.items()))


def show_error(error: SpotError) -> None:
    """What, where and the cure, without a traceback."""
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
    """A progress display on stderr with count, rate and time left; silent where stderr is not a terminal.

    Add tasks with ``add_task(description, total=..., note="")``; ``note`` is free text at the end of the line.
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
        TextColumn("left", style="dim"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False, style="dim"),
        console=console,
        disable=not console.is_terminal,
    ) as display:
        yield display
