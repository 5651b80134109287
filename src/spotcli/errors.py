"""Errors that a user can act on.

    SpotError               exit 1   something of ours is broken
    ├── UserError           exit 2   the input, the settings or the machine: the user can cure it
    │   ├── DataError                a row of a dataset file, with file and line
    │   ├── RecipeError              a recipe or an override of it
    │   ├── SettingsChanged          an output exists that was made with other settings
    │   └── MissingExtra             an optional dependency is not installed
    ├── Unfinished          exit 3   part of the work is done and kept; the same command goes on
    └── BudgetReached       exit 4   the money limit stopped the run; what was paid for is kept

Each says what is wrong, where, and what cures it. ``cli.main`` prints them without a traceback; any other
exception is a bug of ours and keeps its traceback.
"""

from __future__ import annotations

from spotcli import __version__


class SpotError(Exception):
    """What went wrong, where (a path, ``file:line``, a recipe key), and how to cure it."""

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
    """Something that the user can put right."""

    exit_code = 2


class DataError(UserError):
    """A row that cannot be used; ``where`` is ``file:line``."""


class RecipeError(UserError):
    """A recipe, or an override of it, that does not fit."""


class SettingsChanged(UserError):
    """The output was made with other settings, so going on would mix two experiments in one file."""


def install_command(extra: str) -> str:
    """What installs an extra beside this very version: on package indexes the bare name may be somebody else's."""
    return f"pip install 'spotcli[{extra}]=={__version__}'"


class MissingExtra(UserError):
    """An optional dependency is not installed."""

    def __init__(self, extra: str, needed_for: str) -> None:
        super().__init__(f"{needed_for} needs packages that are not installed", cure=install_command(extra))
        self.args = (extra, needed_for)  # an exception that crosses processes is made again from these


class Unfinished(SpotError):
    """Work is left over; everything done so far is on disk and the same command continues it."""

    exit_code = 3


class BudgetReached(SpotError):
    """The money limit was reached before the work was done."""

    exit_code = 4
