"""Plug-ins: what installed packages register by entry points; a package is imported when one of its names is used.

[project.entry-points."spotcli.oracles"]
shouter = "spot_shouter:Shouter"
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from spotcli.console import warn
from spotcli.errors import UserError

TASKS = "spotcli.tasks"
ORACLES = "spotcli.oracles"
ENGINES = "spotcli.engines"


@cache
def registered(group: str) -> dict[str, list[EntryPoint]]:
    """The plug-ins of a group: name -> entry points, of which there should be one. Nothing is imported."""
    plugins: dict[str, list[EntryPoint]] = {}
    for entry in entry_points(group=group):
        plugins.setdefault(entry.name, []).append(entry)
    return plugins


def package_of(entry: EntryPoint) -> str:
    """The name of the package that registers an entry point."""
    return entry.dist.name if entry.dist else entry.value


def place(group: str, name: str) -> str:
    """The plug-in and its package, for messages: ``oracle 'shouter' of the package spot-shouter``."""
    entry = registered(group)[name][0]
    return f"{_noun(group)} '{name}' of the package {package_of(entry)}"


def load(group: str, name: str, *, key: str) -> Any:
    """Import what a plug-in's entry point names.

    Args:
        group: the group of entry points.
        name: a name of ``registered(group)``.
        key: the key of the recipe that contains the name, for messages.

    Raises:
        UserError: it cannot be imported, or several packages register the name.
    """
    entries = registered(group)[name]
    if len({entry.value for entry in entries}) > 1:
        packages = ", ".join(package_of(entry) for entry in entries)
        raise UserError(
            f"several packages register the {_noun(group)} '{name}': {packages}",
            where=key,
            cure="uninstall all but one of them",
        )
    try:
        return entries[0].load()
    except (Exception, SystemExit) as error:
        raise failed(group, name, error) from error


def failed(group: str, name: str, error: BaseException) -> UserError:
    """The error for a plug-in that raised while it was imported or created."""
    return UserError(
        f"failed to load {registered(group)[name][0].value}: {type(error).__name__}: {error}",
        where=place(group, name),
        cure="update the package, or uninstall it",
    )


def invalid(group: str, name: str, message: str) -> UserError:
    """The error for a plug-in that is not what its group requires."""
    value = registered(group)[name][0].value
    return UserError(message, where=place(group, name), cure=f"correct the entry point {value}")


def warn_if_shadowed(group: str, name: str) -> None:
    """Report a plug-in that is not used because its name is built in."""
    if name in registered(group):
        warn(f"{place(group, name)} is not used: the name is built in")


def _noun(group: str) -> str:
    return group.rpartition(".")[2].removesuffix("s")
