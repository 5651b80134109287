"""Files that are read and written: regular ones only, links followed, replaced atomically, some private."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from spotcli.errors import UserError

PRIVATE = 0o600
"""The mode of files with settings, replies and other content that is nobody else's business."""

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def _kind(path: Path) -> str | None:
    """What a path names, if it exists and is not a regular file; a link is followed."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    return next((name for test, name in _KINDS if test(mode)), None)


def check_readable(path: Path) -> None:
    """Refuse what is not a regular file: opening a named pipe waits, and a device may never end.

    Input from ``|`` or ``<(...)`` is accepted; its writer exists.

    Raises:
        UserError: a named pipe, a socket or a device.
    """
    kind = _kind(path)
    if kind == "a named pipe" and not os.path.exists(os.path.realpath(path)):
        return
    if kind not in (None, "a folder"):
        raise UserError(f"expected a file, got {kind}", where=str(path), cure="write its content to a file first")


def check_writable(path: Path) -> None:
    """Refuse an output that cannot be locked, resumed and replaced.

    Raises:
        UserError: the path names something else than a regular file, or a link into a missing folder.
    """
    kind = _kind(path)
    if kind is not None:
        raise UserError(f"expected a file, got {kind}", where=str(path), cure="name a regular file")
    real = Path(os.path.realpath(path))
    if path.is_symlink() and not real.parent.is_dir():
        raise UserError(
            f"the link points into a missing folder: {real}", where=str(path), cure="create that folder, or the link"
        )


def check_distinct(source: Path, output: Path) -> None:
    """Refuse an output that is the input under the same or another name.

    Raises:
        UserError: both are the same file.
    """
    if source.is_file() and output.is_file() and source.samefile(output):
        raise UserError("the output is also the input", where=str(output), cure="write to another file with -o")


def make_parent(path: Path) -> None:
    """Create the folder of an output.

    Raises:
        UserError: a part of its path is not a folder.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise UserError(
            "expected a folder, got a file", where=str(error.filename), cure="write to another folder (-o)"
        ) from None


def append_to(path: Path, mode: int) -> int:
    """A descriptor that appends to a regular file, which is created if it does not exist.

    Args:
        mode: of a new file; ``PRIVATE`` changes that of an existing one too.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
    descriptor = os.open(path, flags, mode)
    if mode == PRIVATE:
        with contextlib.suppress(PermissionError):  # another user's file
            os.fchmod(descriptor, mode)
    return descriptor


def new_beside(path: Path, name: str, mode: int | None) -> tuple[Path, int]:
    """An empty file in the folder of an output, to replace it with, and its descriptor.

    Args:
        path: the output; a link is followed.
        name: the end of the new file's name.
        mode: of the new file; None for that of the output.
    """
    real = Path(os.path.realpath(path))
    scratch = real.with_name(f".{real.name}.{name}")
    scratch.unlink(missing_ok=True)
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    descriptor = os.open(scratch, flags, 0o666 if mode is None else mode)
    if mode is None and real.exists():
        with contextlib.suppress(PermissionError):
            os.fchmod(descriptor, stat.S_IMODE(real.stat().st_mode))
    return scratch, descriptor


def replace(path: Path, parts: Iterable[bytes], *, mode: int | None = None) -> None:
    """Write a file atomically: a reader sees the old file or the new one, even after a crash. A link is followed.

    Args:
        path: the file.
        parts: its content.
        mode: of the file; None keeps that of an existing one.

    Raises:
        UserError: the path names something else than a regular file.
    """
    check_writable(path)
    scratch, descriptor = new_beside(path, str(os.getpid()), mode)
    try:
        with open(descriptor, "wb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(os.path.realpath(path))
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a private text file atomically."""
    replace(path, [text.encode()], mode=PRIVATE)


def unused_number(path: Path, word: str, tails: Iterable[str]) -> int:
    """The lowest N from 1 for which no ``X.WORD-N`` exists with any of some endings."""
    number, tails = 1, tuple(tails)
    while any(os.path.lexists(path.with_name(f"{path.stem}.{word}-{number}{tail}")) for tail in tails):
        number += 1
    return number


def rename(old: Path, new: Path) -> None:
    """Rename a file. Of a link, its file is renamed, the link stays, and ``new`` becomes a link to the file."""
    if not old.is_symlink():
        old.rename(new)
        return
    real = Path(os.path.realpath(old))
    moved = real.with_name(f"{real.stem}.old-{unused_number(real, 'old', [real.suffix])}{real.suffix}")
    if real.exists():
        real.rename(moved)
    if not os.path.lexists(new):
        new.symlink_to(moved)
