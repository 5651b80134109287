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


class Unfinished(SpotError):
    """Part of the work is done and saved; the same command resumes."""

    exit_code = 3


class BudgetReached(SpotError):
    """The cost limit was reached before the work was done."""

    exit_code = 4
