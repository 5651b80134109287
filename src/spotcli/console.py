"""Terminal output: results on stdout, messages and progress on stderr, external text escaped.

Text from a model, a dataset or a provider is passed through ``safe`` before it is shown: terminals execute escape
sequences, and Rich reads ``[...]`` as markup. Rich handles ``NO_COLOR`` and pipes.
"""

from __future__ import annotations

import json
import logging
import os
import re
import time
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal

from spotcli.errors import SpotError
from spotcli.work_time import work_time

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, Task, TaskID

_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\u2800\u3164\ufeff\uffa0\ufff0-\ufffb\ud800-\udfff\ufe00-\ufe0f\U00013430-\U0001343f\U00016fe4\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U0001f3fb-\U0001f3ff\U000e0000-\U000e0fff]"
)
"""Bidirectional controls reorder text; zero-width, blank, tag and variation characters hide text. Terminals disagree on
the columns of an emoji with a skin tone."""


def safe(text: str) -> str:
    """Return text with its control, escape, bidirectional and invisible characters made visible.

    Line feeds and tabs are kept. A terminal executes nothing in the result. Square brackets are kept too, so print it
    with ``markup=False`` or in a ``rich.text.Text``.
    """
    return _CONTROL.sub(_visible, text)


def one_line(text: str) -> str:
    """Return text from outside, made harmless, on one line: a line break in it cannot imitate a line of ours."""
    return safe(text).replace("\n", "␊").replace("\t", "␉")


def json_escaped(line: str) -> str:
    r"""Return a line of JSON with the characters that ``safe`` shows written as ``\uXXXX``: the same values."""
    return _CONTROL.sub(lambda match: json.dumps(match.group())[1:-1], line)


def _visible(match: re.Match[str]) -> str:
    code = ord(match.group())
    if code < 0x20:
        return chr(0x2400 + code)  # the control pictures: ␛ for escape
    if code == 0x7F:
        return "␡"
    return f"⟨{unicodedata.name(match.group(), f'U+{code:04X}')}⟩"


def escape_library_messages() -> None:
    """Have ``safe`` applied to what libraries log and warn, without keys: it quotes files, requests and replies."""

    class SafeRecord(logging.LogRecord):
        def getMessage(self) -> str:
            from spotcli.redaction import redact

            return safe(redact(super().getMessage()))

    logging.setLogRecordFactory(SafeRecord)
    format_warning = warnings.formatwarning
    warnings.formatwarning = lambda *parts: safe(format_warning(*parts))


Verbosity = Literal["quiet", "normal", "verbose"]
_verbosity: Verbosity = "normal"


def set_verbosity(verbosity: Verbosity) -> None:
    """Set how much is printed to stderr: errors only, messages and progress too, or also details."""
    global _verbosity
    _verbosity = verbosity


def is_verbose() -> bool:
    """Whether details are printed, and the warnings of libraries."""
    return _verbosity == "verbose"


_silent: ContextVar[bool | None] = ContextVar("silent", default=None)
"""Whether this call of the Python API prints nothing; None outside of such calls, and in threads that they start."""
_silent_calls = 0
"""Silent calls that are running, in all threads."""
_count = Lock()


@contextmanager
def printing(on: bool) -> Iterator[None]:
    """Print nothing inside the context unless ``on``; also in threads that start in it."""
    global _silent_calls
    token = _silent.set(not on)
    with _count:
        _silent_calls += not on
    try:
        yield
    finally:
        with _count:
            _silent_calls -= not on
        _silent.reset(token)


def is_silent() -> bool:
    """Whether nothing is printed here."""
    silent = _silent.get()
    return _silent_calls > 0 if silent is None else silent


def out() -> Console:
    """Return the console for results: stdout."""
    from rich.console import Console

    return Console(markup=False, highlight=False, emoji=False, quiet=is_silent())


def err() -> Console:
    """Return the console for progress, messages, warnings and errors: stderr.

    While progress is displayed, it is that console, which prints above the progress line instead of into it.
    """
    from rich.console import Console

    if is_silent():
        return Console(stderr=True, quiet=True)
    return _displaying or Console(stderr=True, markup=False, highlight=False, emoji=False)


_displaying: Console | None = None
"""The console that displays progress now."""


def say(text: str) -> None:
    """Print one line of information."""
    if _verbosity != "quiet":
        err().print(one_line(text), style="dim", soft_wrap=True)


def detail(text: str) -> None:
    """Print one line of information that only ``--verbose`` asks for."""
    if is_verbose():
        say(text)


def warn(text: str) -> None:
    """Print one line of warning."""
    if _verbosity != "quiet":
        err().print(f"! {one_line(text)}", style="yellow", soft_wrap=True)


def note_renamed_fields(path: Path, renamed: Mapping[str, str]) -> None:
    """Print the fields of a file that were read under another name (alias -> field)."""
    if renamed:
        say(f"{path}: read " + ", ".join(f"'{alias}' as '{name}'" for alias, name in renamed.items()))


def show_error(error: SpotError) -> None:
    """Print the problem, where it is, and the cure, without a traceback."""
    from rich.text import Text

    line = Text()
    if error.where:
        line.append(f"{one_line(error.where)}: ", style="bold")
    line.append(one_line(error.message), style="red")
    err().print(line, soft_wrap=True)
    if error.cure:
        err().print(Text(f"  cure: {one_line(error.cure)}", style="green"), soft_wrap=True)


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """A count with its noun: ``1 pair``, ``1,200 pairs``, ``2 replies``."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def dollars(amount: float) -> str:
    """An amount of money: ``$0.0042``, ``$0.50`` or ``$1,234.00``."""
    return f"${amount:.4f}" if 0 < amount < 0.1 else f"${amount:,.2f}"


def duration(seconds: float) -> str:
    """A time to wait, such as ``45 s`` or ``3600 s (1:00:00)``."""
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds:.6g} s ({timedelta(seconds=round(min(seconds, 1e9)))})"


def _is_live(console: Console) -> bool:
    """Whether a console can redraw a line: ``FORCE_COLOR`` asks for colors in a file, not for cursor movements."""
    return console.is_interactive and (not os.environ.get("FORCE_COLOR") or console.file.isatty())


_waiting = (0.0, "")
"""Until when (by ``time.monotonic``) work waits, and the words for it."""


def show_waiting(text: str, seconds: float) -> None:
    """Show that work waits for some seconds: as the note of the progress bar, or as one line without a terminal."""
    global _waiting
    now = time.monotonic()
    until, shown = _waiting
    _waiting = max(until, now + seconds), text
    if (now >= until or text != shown) and not _is_live(err()):
        say(f"{text}: waiting {duration(seconds)}")


def stop_showing_waiting() -> None:
    """Forget what ``show_waiting`` shows: work goes on."""
    global _waiting
    _waiting = (0.0, "")


def _note_of(task: Task) -> str:
    until, text = _waiting
    remaining = until - time.monotonic()
    return f"waiting {duration(round(remaining))}: {text}" if remaining > 0 else str(task.fields.get("note", ""))


LINE_EVERY = 60.0
"""Seconds after which a line of progress is written where there is no terminal, at the latest."""
LINE_PAUSE = 2.0
"""Seconds between two lines, at least: short work writes none."""


ECHO = 4
"""Characters at the end of a progress line that are left to what the terminal echoes: ^C, twice."""
RATE_PERIOD = 3600.0
"""Seconds over which the rate is a mean: many answers take minutes, and arrive together."""
WIDE = 100
"""Columns of a terminal on which a progress line shows everything."""


@contextmanager
def progress(unit: str, *, lines: bool = True) -> Iterator[Progress]:
    """Show progress on stderr with count, rate and remaining time.

    Where stderr is not a terminal, a line is written for every tenth of the work, or every minute.

    Add tasks with ``add_task(description, total=..., note="")``; ``note`` is shown at the end of the line.

    Args:
        unit: what is counted, in the plural.
        lines: write lines where there is no terminal; off for work that writes lines of its own.
    """
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.table import Column, Table
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text(f"{speed:.1f} {unit}/s" if speed else f"- {unit}/s", style="cyan")

    class Name(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(one_line(task.description))

    class Note(ProgressColumn):
        max_refresh = 0.2

        def render(self, task: Task) -> Text:
            return Text(one_line(_note_of(task)), style="dim", no_wrap=True, overflow="ellipsis")

    global _displaying
    console, outside = err(), _displaying
    stop_showing_waiting()

    class Bars(Progress):
        def make_tasks_table(self, tasks: Iterable[Task]) -> Table:
            table = super().make_tasks_table(tasks)
            # A terminal echoes ^C at the end of the line. If that began a new line, the old one would remain.
            table.width = console.width - ECHO
            return table

        def add_task(self, description: str, *args: Any, **fields: Any) -> TaskID:
            number = super().add_task(description, *args, **fields)
            # Else rich measures the rate from the first advance on, and replies that arrive together would have any.
            super().advance(number, 0)
            return number

    def whole() -> Column:
        return Column(no_wrap=True)

    # On a narrow terminal the elapsed time gives way, then the note and a name of more than a quarter of the line.
    is_wide = console.width >= WIDE
    elapsed = [TimeElapsedColumn(table_column=whole())] if is_wide else []
    note = Column(ratio=1, no_wrap=True, overflow="ellipsis")
    name = Column(max_width=max(12, console.width // 4), no_wrap=True, overflow="ellipsis")
    with Bars(
        Name(table_column=name),
        BarColumn(bar_width=min(24, max(8, console.width // 8)), table_column=whole()),
        MofNCompleteColumn(table_column=whole()),
        Rate(table_column=whole()),
        *elapsed,
        TextColumn("remaining" if is_wide else "ETA", style="dim", table_column=whole()),
        TimeRemainingColumn(table_column=whole()),
        Note(table_column=note),
        console=console,
        disable=not _is_live(console) or _verbosity == "quiet" or console.quiet,
        get_time=work_time,
        speed_estimate_period=RATE_PERIOD,
    ) as display:
        _displaying = console
        try:
            _watch(display, unit, lines=lines and not _is_live(console))
            yield display
        finally:
            _displaying = outside


@dataclass(frozen=True)
class WorkProgress:
    """How far a piece of work is."""

    name: str
    unit: str
    """What is counted, in the plural."""
    done: float
    total: float
    per_second: float
    """Mean rate since the work began or was resumed."""
    note: str

    @property
    def remaining(self) -> float:
        """Seconds at this rate; 0 without a rate."""
        return (self.total - self.done) / self.per_second if self.per_second else 0.0


_observer: Callable[[WorkProgress], None] | None = None
"""What is told the progress of all work, beside the display."""


@contextmanager
def observed_progress(observer: Callable[[WorkProgress], None]) -> Iterator[None]:
    """Have a function told the progress of all work that is displayed."""
    global _observer
    outside, _observer = _observer, observer
    try:
        yield
    finally:
        _observer = outside


def _watch(display: Progress, unit: str, *, lines: bool) -> None:
    """Have each advance of a task observed and, where there is no terminal, written as a line now and then."""
    written: dict[TaskID, tuple[float, int]] = {}
    counted_from: dict[TaskID, float] = {}
    update, advance = display.update, display.advance
    observer = _observer
    if not lines and observer is None:
        return

    def advanced(number: TaskID) -> None:
        task = next(task for task in display.tasks if task.id == number)
        if not task.total:
            return
        # What an earlier start did counts as done, but not for the rate.
        resumed = counted_from.setdefault(number, task.completed)
        elapsed = max(task.elapsed or 0.0, 1e-9)
        note = str(task.fields.get("note", ""))
        work = WorkProgress(task.description, unit, task.completed, task.total, task.completed / elapsed, note)
        if observer is not None:
            observer(replace(work, per_second=(task.completed - resumed) / elapsed, note=_note_of(task)))
        if lines:
            line(number, work)

    def line(number: TaskID, work: WorkProgress) -> None:
        now, tenth = work_time(), int(10 * work.done / work.total)
        since, last = written.setdefault(number, (now, 0))
        if now - since < (LINE_PAUSE if tenth > last else LINE_EVERY):
            return
        written[number] = now, tenth
        remaining = timedelta(seconds=round(work.remaining))
        note = f"; {work.note}" if work.note else ""
        count = f"{work.done:.0f} of {work.total:.0f} {unit}"
        say(f"{work.name}: {count}, {work.per_second:.1f}/s, {remaining} remaining{note}")

    def update_and_tell(task_id: TaskID, **changes: Any) -> None:
        update(task_id, **changes)
        advanced(task_id)

    def advance_and_tell(task_id: TaskID, advance_by: float = 1) -> None:
        advance(task_id, advance_by)
        advanced(task_id)

    display.update = update_and_tell  # type: ignore[method-assign]
    display.advance = advance_and_tell  # type: ignore[method-assign,assignment]  # rich's name would hide the method
