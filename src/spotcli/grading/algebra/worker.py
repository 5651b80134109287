"""The process in which symbolic work is done: ``python -m spotcli.grading.algebra.worker``, started by
sandbox.py.

It reads length-prefixed JSON from standard input and writes the same to standard output. Before the first
request it gives up what it does not need: network, files, memory beyond a limit, other programs, and
evaluating text as code. It ends when its input closes, so it never outlives its parent by more than one
request.
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
from types import FrameType
from typing import Any, BinaryIO

# sympy's parser makes numbers by compiling "Integer (2 )"; nothing but numbers may be compiled from text.
_NUMBER_CODE = re.compile(
    rb"from sympy import \*|[\s()+*/-]*(?:(?:Integer|Float|Rational)\s*\(\s*'?[\d.eE+-]+'?\s*\)[\s()+*/-]*)+"
)
# Modules that compile code of their own making, with no text of an answer in it.
_OWN_CODE = {"sympy.polys.monomials", "dataclasses", "collections", "typing"}
_FORBIDDEN = (
    "socket.",
    "subprocess.",
    "os.exec",
    "os.posix_spawn",
    "os.spawn",
    "shutil.",
    "urllib.",
    "ctypes.dlopen",
)
_FORBIDDEN_EXACTLY = {
    *("os.system", "os.fork", "os.forkpty", "os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link"),
    *(
        "os.symlink",
        "os.truncate",
        "os.chmod",
        "os.chown",
        "os.kill",
        "os.killpg",
        "os.putenv",
        "os.unsetenv",
    ),
    *("pty.spawn", "webbrowser.open", "code.__new__"),
}


class TimedOut(BaseException):
    """Raised by the alarm; no ``except Exception`` inside sympy may swallow it."""


class Forbidden(BaseException):
    """Symbolic code tried what only hostile text would make it try."""


def main() -> None:
    """Serve requests until the input closes."""
    inbox, outbox = sys.stdin.buffer, os.fdopen(os.dup(1), "wb", buffering=0)
    # What a library prints must not mix with the answers.
    with open(os.devnull, "r+b", buffering=0) as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    memory = int(sys.argv[1]) if len(sys.argv) > 1 else 1 << 30
    _leave_network()
    from spotcli.grading.algebra.sympy_compare import Sympy
    from spotcli.grading.compare.equality import equal
    from spotcli.grading.compare.leaves import Rules
    from spotcli.grading.find_answer import Undecidable

    _lock_down(memory)
    signal.signal(signal.SIGALRM, _on_alarm)
    symbolic = Sympy()
    _send(outbox, {"ready": True})
    while (request := _receive(inbox)) is not None:
        seconds = float(request["seconds"])
        used = resource.getrusage(resource.RUSAGE_SELF)
        # A processor limit in case the parent dies while we compute; the parent's own clock is the first
        # guard.
        limit = int(used.ru_utime + used.ru_stime + seconds) + 2
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))
        reply: dict[str, Any]
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            rules = Rules(**request["rules"])
            reply = {"same": equal(request["gold"], request["answer"], rules, symbolic), "reason": ""}
        except Undecidable as doubt:
            reply = {"same": None, "reason": str(doubt)}
        except TimedOut:
            reply = {"same": None, "reason": f"time-out after {seconds:g} s"}
        except MemoryError:
            reply = {"same": None, "reason": "out of memory"}
        except (Exception, Forbidden) as error:
            reply = {"same": None, "reason": f"{type(error).__name__} in the symbolic comparison"}
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        _send(outbox, reply)


def _on_alarm(_signal: int, _frame: FrameType | None) -> None:
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
    """An empty network namespace where the kernel permits it; the audit hook forbids sockets in any case."""
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
    elif event in _FORBIDDEN_EXACTLY or event.startswith(_FORBIDDEN):
        raise Forbidden(event)


def _compiled_by_library() -> bool:
    """Whether the code comes from a library's own making or from a module being imported, not from a
    request."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module in _OWN_CODE or (frame.f_code.co_name == "<module>" and module != "__main__"):
            return True
        if module.startswith("spotcli."):
            return False
        frame = frame.f_back
    return False


if __name__ == "__main__":
    main()
