"""Ctrl-C in every stage: the first one lets requests in flight finish, the second one drops them."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from spotcli.console import warn

SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""Job schedulers send SIGTERM before SIGKILL."""


@contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """Raise ``KeyboardInterrupt`` for SIGTERM too, so that a job scheduler stops a stage as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    outside = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, outside)


@contextmanager
def interruptible(
    stop: Callable[[], None], *, notice: Callable[[], str], drop: Callable[[], None] | None = None
) -> Iterator[None]:
    """Handle Ctrl-C and SIGTERM inside the context.

    Only the main thread can handle signals; in any other thread the context does nothing.

    Args:
        stop: called on the first signal; keeps what is finished and lets work in flight end. It runs inside a signal
            handler, so an event loop is reached with ``loop.call_soon_threadsafe``.
        notice: the warning shown on the first signal.
        drop: called on every further signal; by default the second signal acts as it did outside the context.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    outside = {number: signal.getsignal(number) for number in SIGNALS}
    stopping = False

    def restore() -> None:
        for number, handler in outside.items():
            signal.signal(number, handler)

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal stopping
        if stopping and drop is not None:
            drop()
            return
        stopping = True
        if drop is None:
            restore()
        warn(notice())
        stop()

    for number in SIGNALS:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        restore()
