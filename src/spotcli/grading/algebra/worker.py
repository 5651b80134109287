"""The worker process: ``python -m spotcli.grading.algebra.worker``, started by ``pool``.

It compares formulas, grades answers that are too long to be graded without a clock, or checks instructions. It reads
length-prefixed JSON from standard input and writes replies to standard output. Before the first request
it gives up what it does not need: the network, writing files, memory beyond a limit, starting programs, and evaluating
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
from collections.abc import Callable
from types import FrameType
from typing import Any, BinaryIO

from spotcli.grading import Grade, grade_with
from spotcli.grading.algebra.pool import WAITING
from spotcli.grading.compare import Undecidable
from spotcli.grading.compare.equality import Symbolic, equal
from spotcli.grading.coordinates import grade_coordinates
from spotcli.grading.kinds import grade_choice

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
    kind = sys.argv[2] if len(sys.argv) > 2 else "algebra"
    _leave_network()
    try:
        answer_to = _load(kind)
    except ImportError as error:
        _send(outbox, {"ready": False, "reason": f"missing package {error.name}"})
        return
    _lock_down(memory)
    _send(outbox, {"ready": True})
    while (request := _receive(inbox)) is not None:
        seconds = float(request["seconds"])
        _limit_cpu(seconds)
        clock = _Clock(seconds)
        work = "symbolic comparison" if request["task"] == "compare" else "grader"
        try:
            clock.start()
            reply = answer_to(request)
        except TimedOut:
            reply = _undecided(f"time-out of the {work.removeprefix('symbolic ')} after {seconds:g} s")
        except MemoryError:
            reply = _undecided("out of memory")
        except (Exception, Forbidden) as error:
            reply = _undecided(f"{type(error).__name__} in the {work}")
        finally:
            clock.stop()
        _send(outbox, reply)


def _load(kind: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Import what the tasks of this kind of worker need; return the function that answers a request."""
    if kind == "instructions":
        from spotcli.grading import instructions

        instructions.load()
        return lambda request: {**_undecided(""), "result": instructions.check(request["answer"], request["gold"])}
    from spotcli.grading.algebra.sympy_compare import Sympy

    symbolic = Sympy()

    def answer_to(request: dict[str, Any]) -> dict[str, Any]:
        if request["task"] == "compare":
            same, reason = _compare(request["gold"], request["answer"], symbolic)
            return {"same": same, "reason": reason}
        grade = _grade(request["task"], request["answer"], request["gold"], symbolic)
        result = {"verdict": grade.verdict, "reason": grade.reason, "extracted": grade.extracted}
        return {**_undecided(""), "result": result}

    return answer_to


def _undecided(reason: str) -> dict[str, Any]:
    return {"same": None, "reason": reason}


def _grade(kind: str, response: str, reference: str, symbolic: Symbolic) -> Grade:
    """Grade a long response: the same as in the caller's process, but with the worker's clock and memory limit."""
    if kind == "choice":
        return grade_choice(response, reference)
    if kind == "coordinates":
        return grade_coordinates(response, reference)
    return grade_with(lambda gold, answer: _compare(gold, answer, symbolic), response, reference)


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
