"""Append rows to a JSONL file: whole lines, synced to disk, by one process at a time.

If a crash leaves an incomplete last line, the next writer moves it to ``X.torn``. If another program replaces or
deletes the file while it is open, no row is lost: they are kept in a file beside it, and the command fails in the end.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from spotcli import files, jsonl
from spotcli.console import warn
from spotcli.dataset_lines import is_object
from spotcli.errors import UserError
from spotcli.jsonl import encode
from spotcli.locks import Lock, close_in_children
from spotcli.records import Row

BLOCK = 1 << 20
"""Bytes that are copied at once."""


class Appender(AbstractContextManager["Appender"]):
    """An append-only JSONL file with one writer.

    Opening it locks the file and repairs an incomplete last line; ``torn`` is whether one was moved to ``X.torn``. The
    operating system releases the lock when the process ends.

    Args:
        path: the file; a link is followed.
        private: only the user may read it.

    Raises:
        UserError: another process is writing the file, or the path names something else than a file.
    """

    def __init__(self, path: Path, *, private: bool = False) -> None:
        self.path = path
        self.location = path
        """The file with all rows: not ``path`` after another program replaced that one."""
        self.disturbed: UserError | None = None
        """Another program replaced or changed the file while it was open; raised in the end."""
        self._mode = files.PRIVATE if private else 0o666
        files.check_writable(path)
        files.make_parent(path)
        self._lock = Lock(path)
        try:
            # Without a buffer: a forked child that closes the file writes nothing.
            self._file = io.FileIO(files.append_to(path, self._mode), "ab")
        except BaseException:
            self._lock.release()
            raise
        try:
            self._lock_content()
            self.torn = self._repair_tail()
            self._remember()
        except BaseException:
            self.close()
            raise
        close_in_children(self)

    def _lock_content(self) -> None:
        """Lock the file itself too: it may have another name, which has another lock file.

        Raises:
            UserError: another process holds it, or has replaced the file since it was opened.
        """
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise self._lock.refusal() from None
        except OSError:
            pass  # a file system without flock
        if not self._is_named():
            raise self._lock.refusal()

    def _is_named(self) -> bool:
        """Whether the file's name still names the open file."""
        try:
            return os.path.samestat(os.fstat(self._file.fileno()), self.location.stat())
        except FileNotFoundError:
            return False

    def _remember(self) -> None:
        """Remember the state of the file after this process changed it."""
        stat = os.fstat(self._file.fileno())
        self._size, self._changed = stat.st_size, stat.st_mtime_ns

    def _repair_tail(self) -> bool:
        """Move an incomplete last line to ``X.torn``; a complete row without its line end gets one."""
        tail, start = self._last_line()
        if not tail or tail.endswith(b"\n"):
            return False
        if is_object(tail):
            self._append_bytes(b"\n")
            return False
        aside = self.path.with_suffix(".torn")
        files.check_writable(aside)
        with open(files.append_to(aside, self._mode), "ab") as torn:
            torn.write(tail + b"\n")
            torn.flush()
            os.fsync(torn.fileno())
        os.ftruncate(self._file.fileno(), start)
        os.fsync(self._file.fileno())
        return True

    def _last_line(self) -> tuple[bytes, int]:
        """Return the last line and its offset; read from the end, because the file can be large."""
        descriptor = self._file.fileno()
        start = os.fstat(descriptor).st_size
        tail = b""
        while start:
            step = min(start, 1 << 16)
            start -= step
            tail = os.pread(descriptor, step, start) + tail
            line_end = tail.rfind(b"\n", 0, len(tail) - 1)
            if line_end >= 0:
                return tail[line_end + 1 :], start + line_end + 1
        return tail, 0

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the rows of the file.

        Raises:
            DataError: a line is not a JSON object.
        """
        return jsonl.rows(self.location)

    def append(self, rows: Iterable[Row | Mapping[str, Any]]) -> None:
        """Append rows in one write and sync them to disk."""
        data = encode(rows)
        if data:
            self.check()
            self._append_bytes(data)
            self._remember()

    def _append_bytes(self, data: bytes) -> None:
        descriptor = self._file.fileno()
        size = os.fstat(descriptor).st_size
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(descriptor, view) :]
        except OSError:
            # If the disk is full, half a row must not remain: the next row would be appended to it.
            os.ftruncate(descriptor, size)
            raise
        os.fsync(descriptor)

    def check(self) -> None:
        """Notice that another program changed, replaced or deleted the file, and keep all rows of this process."""
        if not self._is_named():
            self._keep_rows()
        elif os.fstat(self._file.fileno()).st_size != self._size:
            self._disturb("changed this file", "check its content")
            self._remember()

    def _keep_rows(self) -> None:
        """Write the rows of a file that lost its name to a file again, and continue with that one."""
        if os.path.lexists(os.path.realpath(self.path)):
            number = files.unused_number(self.path, "replaced", [self.path.suffix])
            kept = self.path.with_name(f"{self.path.stem}.replaced-{number}{self.path.suffix}")
            self._disturb("replaced this file", f"the rows of this command are in {kept}; keep one of both files")
        else:
            kept = Path(os.path.realpath(self.path))
            warn(f"{self.path}: another program deleted this file while it was being written; it is written again")
            files.make_parent(kept)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        new = io.FileIO(os.open(kept, flags, self._mode), "ab")
        offset = 0
        while block := os.pread(self._file.fileno(), BLOCK, offset):
            offset += len(block)
            while block:
                block = block[os.write(new.fileno(), block) :]
        os.fsync(new.fileno())
        with contextlib.suppress(OSError):
            fcntl.flock(new, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._file.close()
        self._file, self.location = new, kept
        self._remember()

    def _disturb(self, event: str, cure: str) -> None:
        self.disturbed = UserError(
            f"another program {event} while it was being written",
            where=str(self.path),
            cure=f"{cure}, then run the same command again",
        )
        warn(f"{self.path}: {self.disturbed.message}; {cure}")

    def raise_if_disturbed(self) -> None:
        """Fail if another program changed the file.

        Raises:
            UserError: it did; all rows are kept.
        """
        self.check()
        if self.disturbed:
            raise self.disturbed

    def replace(self, rows: Iterable[Row | Mapping[str, Any]]) -> None:
        """Replace all rows atomically: a reader sees the old file or the new one, even after a crash.

        The new file is locked before it is visible.

        Raises:
            UserError: another program changed the file since it was opened, so its content is kept.
        """
        stat = os.fstat(self._file.fileno())
        if not self._is_named() or (stat.st_size, stat.st_mtime_ns) != (self._size, self._changed):
            raise UserError(
                "another program changed this file while this command was running",
                where=str(self.path),
                cure="run the same command again; finished work is saved",
            )
        scratch, descriptor = files.new_beside(self.location, "new", files.PRIVATE if self._is_private else None)
        new = io.FileIO(descriptor, "ab")
        try:
            with contextlib.suppress(OSError):  # a file system without flock
                fcntl.flock(new, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with open(descriptor, "ab", closefd=False) as buffer:
                buffer.writelines(encode([row]) for row in rows)
            os.fsync(descriptor)
            scratch.replace(os.path.realpath(self.location))
        except BaseException:
            scratch.unlink(missing_ok=True)
            new.close()
            raise
        self._file.close()
        self._file = new
        self._remember()

    @property
    def _is_private(self) -> bool:
        return self._mode == files.PRIVATE

    def abandon(self) -> None:
        self._file.close()

    def close(self) -> None:
        self._file.close()
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.raise_if_disturbed()
        finally:
            self.close()
