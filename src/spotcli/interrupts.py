"""Ctrl-C in every stage: the first one lets requests in flight finish, the second one drops them.

SIGTERM and SIGHUP act like Ctrl-C: job schedulers send SIGTERM before SIGKILL, and a terminal that is closed, or an SSH
connection that is lost, sends SIGHUP. Under ``nohup``, SIGHUP stays ignored.
"""

from __future__ import annotations

import asyncio
import atexit
import ctypes
import os
import signal
import stat
import sys
import threading
from collections import namedtuple
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from types import FrameType
from typing import Any, TypeVar, cast

from spotcli.console import warn

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
STREAMS = (1, 2)
"""File descriptors of stdout and stderr."""
AGAIN = 0.05
"""Seconds after which an interrupt that was dropped is repeated, or that another thread got is noticed."""

T = TypeVar("T")
_Handler = Callable[[int, FrameType | None], object]


@contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """Raise ``KeyboardInterrupt`` for SIGTERM and SIGHUP too, so that they stop a stage as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # A job in the background may ignore Ctrl-C.
    ignores = signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    restore = _handle(_noted, SIGNALS[1:] if ignores else SIGNALS)
    former, sys.unraisablehook = sys.unraisablehook, _repeated
    try:
        yield
    finally:
        sys.unraisablehook = former
        restore()


_interrupted = False
"""Whether a signal has raised ``KeyboardInterrupt`` in this process."""


def _noted(number: int, frame: FrameType | None) -> None:
    global _interrupted
    _interrupted = True
    signal.default_int_handler(number, frame)


def broke_import(error: BaseException) -> bool:
    """Whether an error comes from an import, after an interrupt: packages catch the interrupt and fail later."""
    part: BaseException | None = error
    while _interrupted and part is not None:
        trace = part.__traceback__
        while trace is not None:
            if trace.tb_frame.f_code.co_filename.startswith("<frozen importlib"):
                return True
            trace = trace.tb_next
        part = part.__cause__ or part.__context__
    return False


def _repeated(unraisable: sys.UnraisableHookArgs) -> None:
    """Repeat an interrupt that Python would drop, because it came while an object was deleted."""
    if issubclass(unraisable.exc_type, KeyboardInterrupt):
        # Sent to the main thread: any other one would not wake it.
        timer = threading.Timer(AGAIN, signal.pthread_kill, [threading.main_thread().ident, signal.SIGINT])
        timer.daemon = True
        timer.start()
    else:
        sys.__unraisablehook__(unraisable)


@contextmanager
def interruptible(
    stop: Callable[[], None], *, notice: Callable[[], str], drop: Callable[[], None] | None = None
) -> Iterator[None]:
    """Handle Ctrl-C, SIGTERM and SIGHUP inside the context.

    Only the main thread can handle signals; in a thread of ``outside_event_loop``, its caller passes Ctrl-C on, and in
    any other thread the context does nothing.

    Args:
        stop: called on the first signal; keeps what is finished and lets work in flight end. It runs inside a signal
            handler, so an event loop is reached with ``loop.call_soon_threadsafe``.
        notice: the warning shown on the first signal.
        drop: called on every further Ctrl-C and SIGTERM; by default the second one acts as it did outside the context.
            A SIGHUP drops nothing, and is not counted.
    """
    thread = threading.current_thread()
    if isinstance(thread, _WorkThread):
        with thread.interrupted_by(stop, notice, drop):
            yield
        return
    if thread is not threading.main_thread():
        yield
        return
    stopping, asked = False, 0

    def hang_up(number: int, frame: FrameType | None) -> None:
        leave_closed_terminal()

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal stopping, asked
        # A hang-up is no request to drop anything. At a logout SIGTERM and SIGHUP come together, in any order: Python
        # handles waiting signals by their numbers, and may run the handler of a later one first.
        asked += number != signal.SIGHUP
        if asked == 1 and drop is None:
            restore()
        if stopping:
            if asked > 1 and drop is not None:
                drop()
            return
        stopping = True
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            signal.signal(signal.SIGHUP, hang_up)
        warn(notice())
        stop()

    restore = _handle(interrupt, SIGNALS)
    try:
        yield
    finally:
        restore()


def outside_event_loop(work: Callable[[], T]) -> T:
    """Run work, in a thread of its own if this one runs an event loop, as in a notebook; wait for its result.

    The work may then run event loops. Ctrl-C acts on it as it does in the main thread.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return work()
    thread = _WorkThread(work)
    is_main = threading.current_thread() is threading.main_thread()
    restore = _handle(lambda *_: thread.interrupt(), [signal.SIGINT]) if is_main else None
    try:
        thread.start()
        while thread.is_alive():
            # A signal that another thread of the process got does not wake this one.
            thread.join(AGAIN)
    finally:
        if restore:
            restore()
    if thread.error is not None:
        raise thread.error
    return cast(T, thread.result)


class _WorkThread(threading.Thread):
    """A thread whose work another thread waits for and interrupts."""

    def __init__(self, work: Callable[[], Any]) -> None:
        super().__init__(name="spot", daemon=True)
        self.result: Any = None
        self.error: BaseException | None = None
        self._work = work
        self._context = copy_context()
        self._handlers: list[Callable[[], None]] = []

    def run(self) -> None:
        try:
            self.result = self._context.run(self._work)
        except BaseException as error:
            self.error = error

    def interrupt(self) -> None:
        """Interrupt the work as Ctrl-C does in the main thread."""
        if self._handlers:
            self._handlers[-1]()
        else:
            self._raise_interrupt()

    def _raise_interrupt(self) -> None:
        assert self.ident is not None
        exception = ctypes.py_object(KeyboardInterrupt)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self.ident), exception)

    @contextmanager
    def interrupted_by(
        self, stop: Callable[[], None], notice: Callable[[], str], drop: Callable[[], None] | None
    ) -> Iterator[None]:
        """Inside the context, the first interrupt calls ``stop``, and each further one ``drop``."""
        stopping = False

        def interrupt() -> None:
            nonlocal stopping
            if not stopping:
                stopping = True
                warn(notice())
                stop()
            else:
                (drop or self._raise_interrupt)()

        self._handlers.append(interrupt)
        try:
            yield
        finally:
            self._handlers.remove(interrupt)


def _handle(handler: _Handler, numbers: Iterable[signal.Signals]) -> Callable[[], None]:
    """Install a handler; the function that restores the former ones. An ignored SIGHUP stays ignored."""

    def hang_up(number: int, frame: FrameType | None) -> None:
        # The kernel and the shell may both send it; only a second Ctrl-C drops requests in flight.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        leave_closed_terminal()
        handler(number, frame)

    outside = {number: signal.getsignal(number) for number in numbers}
    for number, former in outside.items():
        if number != signal.SIGHUP:
            signal.signal(number, handler)
        elif former is not signal.SIG_IGN:
            signal.signal(number, hang_up)

    def restore() -> None:
        for number, former in outside.items():
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, former)

    return restore


def end_with(code: int) -> None:
    """Keep the exit code of a command that has ended, whatever signal still comes while Python ends."""

    def end(number: int, frame: FrameType | None) -> None:
        os._exit(code)

    def ignore() -> None:
        # Python's own end resets each handler but this one, and the signal would be the exit code.
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)

    # Named tuples and dataclasses are made by running a text. Python remembers an interrupt in the middle of that, as
    # can happen during an import, and would end as if it had not been caught. Making another one makes it forget.
    namedtuple("Forgotten", ())
    signal.signal(signal.SIGINT, end)
    for number in SIGNALS[1:]:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, end)
    atexit.register(ignore)


def leave_closed_terminal() -> bool:
    """Discard further output if the terminal was closed: each write to it would raise an error in the work.

    Returns:
        Whether output is discarded, now or since an earlier call.
    """
    global _discarded
    for stream in STREAMS:
        if not stat.S_ISCHR(os.fstat(stream).st_mode):
            continue
        try:
            os.write(stream, b"\r")
        except OSError:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream)
            os.close(null)
            _discarded = True
    return _discarded


_discarded = False
