"""One process writes an output at a time: locks on files and folders, with the name of the process that holds them.

The lock of ``X`` is the file ``.X.lock`` beside it: locked with flock, which ends with the process, and removed when
the work is done. Where the file system has no flock (some NFS mounts), the existence of the file is the lock; one that
an ended process left is taken over.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol, Self
from weakref import WeakSet

from spotcli import files
from spotcli.console import say
from spotcli.errors import UserError

PARENT = "SPOT_PARENT"
"""Environment variable of a process that ends with another one: the id of that process."""

PATIENCE = 10.0
"""Seconds to wait for the child processes of a command that was killed; they end by themselves."""

_UNWRITTEN = 10.0
"""Seconds after which a lock file without content counts as left behind."""


class Abandoned(Protocol):
    """Something with an open file that a forked child process must not keep."""

    def abandon(self) -> None:
        """Close the file without any other effect."""


_open: WeakSet[Abandoned] = WeakSet()


def close_in_children(item: Abandoned) -> None:
    """Have a forked child close an open file: a lock would outlive the process that took it."""
    _open.add(item)


def _abandon_all() -> None:
    for item in list(_open):
        item.abandon()


os.register_at_fork(after_in_child=_abandon_all)


@dataclass(frozen=True)
class Owner:
    """The process that holds a lock; the content of the lock file."""

    pid: int = 0
    """0 if it is unknown."""
    host: str = ""
    born: str = ""
    """Its start time, in ticks since the machine's start: another process may get the same id later."""
    parent: int = 0
    """The process whose end releases it; 0 if it depends on no process."""
    flock: bool = True
    """Whether the lock file is locked as well."""

    @classmethod
    def this_process(cls, *, flock: bool) -> Owner:
        pid = os.getpid()
        parent = os.environ.get(PARENT, "")
        return cls(pid, socket.gethostname(), _born(pid), int(parent) if parent.isdecimal() else 0, flock)

    @classmethod
    def read(cls, descriptor: int) -> Owner:
        """From a lock file; without a process id if the content is incomplete."""
        try:
            values = json.loads(os.pread(descriptor, 1 << 16, 0))
            owner = cls(**{item.name: values[item.name] for item in fields(cls)})
        except (OSError, ValueError, TypeError, KeyError):
            return cls()
        typed = isinstance(owner.pid, int) and isinstance(owner.parent, int) and isinstance(owner.host, str)
        return owner if typed else cls()

    @property
    def is_local(self) -> bool:
        return self.host == socket.gethostname()

    @property
    def has_ended(self) -> bool:
        """Whether the process, or the one that it ends with, is known to have ended."""
        if not self.pid or not self.is_local:
            return False
        return _born(self.pid) != self.born or bool(self.parent and not _born(self.parent))

    def __str__(self) -> str:
        if not self.pid:
            return ""
        return f" (process {self.pid})" if self.is_local else f" (process {self.pid} on {self.host})"


def _born(pid: int) -> str:
    """The start time of a process of this machine; empty if it has ended."""
    try:
        state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return "" if Path("/proc/self").exists() else _alive(pid)
    return "" if state[0] in (b"Z", b"X") else state[19].decode()


def _alive(pid: int) -> str:
    """``alive`` if the process exists; for systems without /proc."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        pass
    return "alive"


class Lock(AbstractContextManager["Lock"]):
    """The lock of an output, from its creation until ``release`` or the end of the process.

    Args:
        path: the output; a link is followed. Its folder must exist.
        kind: what it is.

    Raises:
        UserError: another process holds the lock.
    """

    def __init__(self, path: Path, kind: Literal["file", "folder"] = "file") -> None:
        real = Path(os.path.realpath(path))
        self.file = real.with_name(f".{real.name}.lock")
        self._path, self._kind = path, kind
        self._descriptor = -1
        deadline = time.monotonic() + PATIENCE
        while (owner := self._try()) is not None:
            if not owner.has_ended or time.monotonic() > deadline:
                raise self.refusal(owner)
            time.sleep(0.1)
        close_in_children(self)

    def _try(self) -> Owner | None:
        """Take the lock, or return the process that holds it."""
        while True:
            descriptor, new = self._open()
            flock = True
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                owner = Owner.read(descriptor)
                os.close(descriptor)
                return owner
            except OSError as error:
                flock = False
                if new:
                    reason = (error.strerror or "unknown error").lower()
                    say(f"{self._path}: this file system has no file locks ({reason}); using {self.file.name} instead")
            owner = Owner.read(descriptor)
            if not new and not (flock and owner.flock) and not self._is_left(owner, descriptor):
                os.close(descriptor)
                return owner
            if not new and not flock:
                self.file.unlink(missing_ok=True)
            if self._names(descriptor):
                with files.naming(self.file):
                    os.ftruncate(descriptor, 0)
                    os.pwrite(descriptor, json.dumps(asdict(Owner.this_process(flock=flock))).encode(), 0)
                self._descriptor = descriptor
                return None
            os.close(descriptor)  # its last owner has just removed it

    def _open(self) -> tuple[int, bool]:
        """A descriptor of the lock file, and whether it is new."""
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        while True:
            with contextlib.suppress(FileExistsError):
                return os.open(self.file, flags | os.O_CREAT | os.O_EXCL, 0o600), True
            with contextlib.suppress(FileNotFoundError):
                return os.open(self.file, flags), False

    @staticmethod
    def _is_left(owner: Owner, descriptor: int) -> bool:
        """Whether the owner of a lock file without flock has ended."""
        if owner.pid:
            return owner.has_ended
        return time.time() - os.fstat(descriptor).st_mtime > _UNWRITTEN

    def _names(self, descriptor: int) -> bool:
        """Whether the lock file is still the one that is open."""
        try:
            return os.path.samestat(os.fstat(descriptor), os.stat(self.file, follow_symlinks=False))
        except FileNotFoundError:
            return False

    def refusal(self, owner: Owner | None = None) -> UserError:
        """The error for another process that holds the lock."""
        owner = owner or Owner()
        other = f"wait for it, stop it, or write to another {self._kind}" + (" with -o" if self._kind == "file" else "")
        if owner.has_ended:
            other = "end the processes that it left, then run this command again"
        elif owner.pid and not owner.is_local:
            other += f"; if it has ended, remove {self.file}"
        return UserError(f"another process is writing this {self._kind}{owner}", where=str(self._path), cure=other)

    def release(self) -> None:
        """Remove the lock file and end the lock."""
        if self._descriptor < 0:
            return
        with contextlib.suppress(OSError):
            if self._names(self._descriptor):
                self.file.unlink()
        self.abandon()

    def abandon(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def check_free(path: Path) -> None:
    """Refuse to start where another process writes an output, or where none can be, before any other work.

    Raises:
        UserError: another process holds the lock, or the path names something else than a file.
    """
    files.check_writable(path)
    if Path(os.path.realpath(path)).parent.is_dir():
        Lock(path).release()


def writer(path: Path) -> Owner | None:
    """The process that holds the lock of an output; None if no process does. The lock is not touched.

    A lock file that an ended process left counts as held by none.
    """
    real = Path(os.path.realpath(path))
    try:
        descriptor = os.open(real.with_name(f".{real.name}.lock"), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        owner = Owner.read(descriptor)
    finally:
        os.close(descriptor)
    return None if owner.has_ended else owner
