"""What is shown while batches are worked on at a provider."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime

from spotcli.console import err, progress, say
from spotcli.providers.batches.api import BatchState
from spotcli.repair.batch_log import Batch, describe

LINE_EVERY = 1800.0
"""Seconds after which a line is written where there is no terminal, at the latest; else when a count changes."""

Show = Callable[[Sequence[Batch], Mapping[str, BatchState], float], None]
"""(open batches, their states by key, seconds until the next look)"""


@contextmanager
def batch_display() -> Iterator[Show]:
    """A status line on a terminal, or lines now and then without one."""
    with progress("requests", lines=False) as display:
        task = display.add_task("batch", total=None, note="")
        on_terminal = err().is_terminal
        written: tuple[float, object] = (0.0, None)

        def show(batches: Sequence[Batch], states: Mapping[str, BatchState], seconds: float) -> None:
            nonlocal written
            total = sum(len(batch.requests) for batch in batches)
            done, failed = _counts(batches, states)
            details = f"{failed:,} failed; " if failed else ""
            details += f"next look {_clock(time.time() + seconds, '%H:%M:%S')}, {_times(batches, states)}"
            providers = ", ".join(dict.fromkeys(batch.provider for batch in batches))
            name = f"{providers} batch" if len(batches) == 1 else f"{len(batches)} batches"
            display.update(task, description=name, total=total, completed=done + failed, note=details)
            shown = (done, failed, [batch.key for batch in batches])
            now = time.monotonic()
            if on_terminal or (shown == written[1] and now - written[0] < LINE_EVERY):
                return
            written = now, shown
            say(f"{describe(batches)} in progress: {done:,} of {total:,} done, {details}")

        yield show


def _counts(batches: Sequence[Batch], states: Mapping[str, BatchState]) -> tuple[int, int]:
    known = [states[batch.key] for batch in batches if batch.key in states]
    return sum(state.done for state in known), sum(state.failed for state in known)


def _times(batches: Sequence[Batch], states: Mapping[str, BatchState]) -> str:
    submitted = f"submitted {_clock(min(batch.since for batch in batches))}"
    ends = [states[batch.key].expires for batch in batches if batch.key in states]
    expires = min((end for end in ends if end), default=None)
    return f"expires {_clock(expires)}, {submitted}" if expires else submitted


def _clock(seconds: float, form: str = "%H:%M") -> str:
    """A moment in local time, with its day if that is another one."""
    moment = datetime.fromtimestamp(seconds)
    return moment.strftime(form if moment.date() == datetime.now().date() else "%b %d %H:%M")


def open_batches(batches: Sequence[Batch], states: Mapping[str, BatchState]) -> str:
    """Sentence about the batches that a run leaves at the provider."""
    names = ", ".join(batch.id or batch.key for batch in batches)
    done, _ = _counts(batches, states)
    listed = f" ({names})" if 1 < len(batches) <= 5 else ""
    there = "goes on there" if len(batches) == 1 else "go on there"
    return f"{describe(batches)} not finished and {there}{listed}: {done:,} done, {_times(batches, states)}"
