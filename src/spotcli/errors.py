"""Errors with a cure.

    SpotError               exit 1   an internal error
    ├── UserError           exit 2   the input, the settings or the machine: the user can cure it
    │   ├── DataError                an invalid row of a dataset, with file and line
    │   ├── RecipeError              an invalid recipe or override
    │   ├── SettingsChanged          the output was made with other settings
    │   └── MissingExtra             an optional dependency is not installed
    ├── Unfinished          exit 3   part of the work is done and saved; the same command resumes
    └── BudgetReached       exit 4   the cost limit stopped the run; everything paid for is saved

A message states the problem, where it is, and the cure. ``cli.main`` prints these errors without a traceback; any other
exception is a bug and keeps its traceback.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from spotcli import __version__


class SpotError(Exception):
    """A problem, where it is (a path, ``file:line``, a recipe key), and its cure."""

    exit_code = 1

    def __init__(self, message: str, *, where: str | None = None, cure: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.cure = cure

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}" if self.where else self.message
        return f"{text}\n  cure: {self.cure}" if self.cure else text


class UserError(SpotError):
    """An error that the user can cure."""

    exit_code = 2


class DataError(UserError):
    """A row is invalid; ``where`` is ``file:line``."""


class RecipeError(UserError):
    """A recipe or an override is invalid."""


class SettingsChanged(UserError):
    """The output was made with other settings; resuming would mix two experiments in one file."""


def install_command(extra: str) -> str:
    """Return the command that installs an extra for this version."""
    return f"pip install 'surgical-post-training[{extra}]=={__version__}'"


class MissingExtra(UserError):
    """An optional dependency is not installed."""

    def __init__(self, extra: str, needed_for: str) -> None:
        super().__init__(f"{needed_for} requires packages that are not installed", cure=install_command(extra))
        self.args = (extra, needed_for)  # pickle creates the exception from these


def require(extra: str, needed_for: str, *packages: str) -> None:
    """Check that packages are installed, without importing them.

    Raises:
        MissingExtra: one of them is not installed.
    """
    for package in packages:
        try:
            missing = find_spec(package) is None
        except (ImportError, ValueError):
            missing = True
        if missing:
            raise MissingExtra(extra, f"{needed_for} ({package})")


_STORAGE_ERRORS = {
    errno.ENOSPC: "free space on that disk",
    errno.EDQUOT: "free space within your quota",
    errno.EROFS: "write to another folder (-o): this file system is read-only",
    errno.EACCES: "check the permissions, or write to another folder (-o)",
    errno.EPERM: "check the permissions, or write to another folder (-o)",
    errno.EISDIR: "name a file, not a folder",
    errno.ENOTDIR: "check the path: a part of it is a file",
    errno.EEXIST: "check the path: a part of it is a file",
    errno.ENAMETOOLONG: "use a shorter name",
    errno.EFBIG: "write to another file system",
    errno.ELOOP: "check the path: its links form a circle",
    errno.EIO: "check the disk, or write to another one (-o)",
    errno.ESTALE: "check the network file system",
    errno.ENOTSUP: "write to another file system (-o)",
}
"""What helps if the system refuses to read or write a file, by errno."""


def storage_error(error: OSError) -> UserError | None:
    """The error to show for a full disk, a read-only folder and the like; None if it is not of this kind."""
    cure = _STORAGE_ERRORS.get(error.errno or 0)
    if cure is None:
        return None
    where = str(error.filename) if error.filename else None
    return UserError(
        (error.strerror or "failed to access a file").lower(),
        where=where,
        cure=f"{cure}; then run the same command again, finished work is saved",
    )


def library_storage_error(error: Exception) -> UserError | None:
    """The error to show if a library failed to write a file for the system's reasons, but raised its own exception."""
    text = str(error)
    if match := re.search(r"\(os error (\d+)\)", text):  # libraries in Rust, such as safetensors
        number = int(match[1])
        return storage_error(OSError(number, os.strerror(number)))
    if "PytorchStreamWriter failed" in text:
        return storage_error(OSError(errno.ENOSPC, "failed to write a checkpoint"))
    return None


@contextmanager
def storage_errors_with_cures() -> Iterator[None]:
    """Replace the errors of a full disk, a read-only folder and the like by errors with a cure.

    Raises:
        UserError: files cannot be read or written for a reason of the system.
    """
    try:
        yield
    except SpotError:
        raise
    except OSError as error:
        raise storage_error(error) or error from None
    except Exception as error:
        known = library_storage_error(error)
        if known is None:
            raise
        raise known from None


class Unfinished(SpotError):
    """Part of the work is done and saved; the same command resumes."""

    exit_code = 3


class BudgetReached(SpotError):
    """The cost limit was reached before the work was done."""

    exit_code = 4
