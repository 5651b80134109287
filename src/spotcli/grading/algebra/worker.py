"""The worker process: ``python -m spotcli.grading.algebra.worker``, started by ``pool``.

It reads length-prefixed JSON from standard input and writes replies to standard output. Before the first request it
gives up what it does not need: the network, writing files, memory beyond a limit, starting programs, and evaluating
text as code. It exits when its input is closed, so it outlives its parent by at most one request.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import signal
import struct
import sys
import time
from types import FrameType
from typing import Any, BinaryIO

from spotcli.grading.compare import Undecidable
from spotcli.grading.compare.equality import Symbolic, equal

_NUMBER_CODE = re.compile(
    rb"from sympy import \*|[\s()+*/-]*(?:(?:Integer|Float|Rational)\s*\(\s*'?[\d.eE+-]+'?\s*\)[\s()+*/-]*)+"
)
"""The only texts that may be compiled: sympy's parser creates numbers by compiling "Integer (2 )"."""
_COMPILING_MODULES = {"sympy.polys.monomials", "dataclasses", "collections", "typing"}
"""Modules that compile code of their own, which contains no text of an answer."""
_FORBIDDEN_EVENTS = {
    "os.system", "os.fork", "os.forkpty", "os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink",
    "os.truncate", "os.chmod", "os.chown", "os.kill", "os.killpg", "os.putenv", "os.unsetenv", "pty.spawn",
    "webbrowser.open", "code.__new__",
}  # fmt: skip
_FORBIDDEN_PREFIXES = (
    "socket.", "subprocess.", "os.exec", "os.posix_spawn", "os.spawn", "shutil.", "urllib.", "ctypes.dlopen",
)  # fmt: skip


WAITING = 5.0
"""A comparison may take this many times its seconds on a busy machine."""


class TimedOut(BaseException):
    """Raised by the alarm; a BaseException, so that no ``except Exception`` in sympy catches it."""


class Forbidden(BaseException):
    """The comparison attempted an operation that only hostile text can cause."""


def main() -> None:
    """Serve requests until the input is closed."""
    inbox, outbox = sys.stdin.buffer, os.fdopen(os.dup(1), "wb", buffering=0)
    # Text printed by a library must not be mixed with the replies.
    with open(os.devnull, "r+b", buffering=0) as null:
        os.dup2(null.fileno(), 1)
        os.dup2(null.fileno(), 2)
    memory = int(sys.argv[1]) if len(sys.argv) > 1 else 1 << 30
    _leave_network()
    from spotcli.grading.algebra.sympy_compare import Sympy

    _lock_down(memory)
    symbolic = Sympy()
    _send(outbox, {"ready": True})
    while (request := _receive(inbox)) is not None:
        seconds = float(request["seconds"])
        _limit_cpu(seconds)
        clock = _Clock(seconds)
        try:
            clock.start()
            same, reason = _compare(request["gold"], request["answer"], symbolic)
        except TimedOut:
            same, reason = None, f"time-out of the comparison after {seconds:g} s"
        except MemoryError:
            same, reason = None, "out of memory"
        except (Exception, Forbidden) as error:
            same, reason = None, f"{type(error).__name__} in the symbolic comparison"
        finally:
            clock.stop()
        _send(outbox, {"same": same, "reason": reason})


def _compare(gold: str, answer: str, symbolic: Symbolic) -> tuple[bool | None, str]:
    """Whether both are equal, or None and the reason why that is undecided."""
    try:
        return equal(gold, answer, symbolic), ""
    except Undecidable as doubt:
        return None, str(doubt)


def _limit_cpu(seconds: float) -> None:
    """Limit the CPU time of this request, in case the parent dies; otherwise its clock is the first guard."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    limit = int(used.ru_utime + used.ru_stime + seconds) + 2
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))


class _Clock:
    """Raises ``TimedOut`` after some seconds of this process's own work.

    Time in which the process was stopped, or the machine asleep or busy with other work, does not count: the verdict
    must not depend on it. Ticks of the awake process limit a comparison that waits without working.
    """

    def __init__(self, seconds: float) -> None:
        self._tick = min(0.05, seconds / 4)
        self._ticks_left = WAITING * seconds / self._tick
        self._end = time.process_time() + seconds

    def start(self) -> None:
        signal.signal(signal.SIGALRM, self._on_tick)
        signal.setitimer(signal.ITIMER_REAL, self._tick, self._tick)

    def stop(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)

    def _on_tick(self, _signal: int, _frame: FrameType | None) -> None:
        # However long the process was stopped, the signal is delivered once.
        self._ticks_left -= 1
        if time.process_time() >= self._end or self._ticks_left <= 0:
            self.stop()
            raise TimedOut


def _receive(inbox: BinaryIO) -> dict[str, Any] | None:
    head = inbox.read(4)
    if len(head) < 4:
        return None
    (length,) = struct.unpack(">I", head)
    message: dict[str, Any] = json.loads(inbox.read(length))
    return message


def _send(outbox: Any, message: dict[str, Any]) -> None:
    body = json.dumps(message).encode()
    outbox.write(struct.pack(">I", len(body)) + body)


def _leave_network() -> None:
    """Enter an empty network namespace if the kernel permits it; the audit hook forbids sockets in any case."""
    clone_newuser, clone_newnet = 0x10000000, 0x40000000
    with contextlib.suppress(Exception):
        import ctypes

        libc = ctypes.CDLL(None)
        if libc.unshare(clone_newnet) != 0:
            libc.unshare(clone_newuser | clone_newnet)


def _lock_down(memory: int) -> None:
    for limit, value in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_NOFILE, 16),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, 0),
    ):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(limit, (value, value))
    sys.addaudithook(_audit)


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open":
        mode, flags = arguments[1], arguments[2]
        if (isinstance(mode, str) and mode.strip("rbt")) or (
            isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        ):
            raise Forbidden("open for writing")
    elif event == "compile":
        source = arguments[0]
        if isinstance(source, str):
            source = source.encode("utf-8", "replace")
        if isinstance(source, bytes) and not _NUMBER_CODE.fullmatch(source.strip()) and not _compiled_by_library():
            raise Forbidden("compile")
    elif event in _FORBIDDEN_EVENTS or event.startswith(_FORBIDDEN_PREFIXES):
        raise Forbidden(event)


def _compiled_by_library() -> bool:
    """Whether a library or an import compiles its own code, rather than text of a request."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module in _COMPILING_MODULES or (frame.f_code.co_name == "<module>" and module != "__main__"):
            return True
        if module.startswith("spotcli."):
            return False
        frame = frame.f_back
    return False


if __name__ == "__main__":
    main()
