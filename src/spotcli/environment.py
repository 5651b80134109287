"""Environment variables for the commands' options: ``SPOT_RECTIFY_ORACLE`` is ``--oracle`` of ``spot rectify``.

The name is that of the command and of the flag, or of the argument as the help shows it. The command line precedes a
variable, and a variable precedes the recipe. An empty variable counts as not set.
"""

from __future__ import annotations

import difflib
import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import typer

PREFIX = "SPOT_"
SHARED = {"verbose": "SPOT_VERBOSE", "quiet": "SPOT_QUIET"}
"""Variables of options that every command has, beside the command's own."""
WITHOUT = {"help", "version", "install_completion", "show_completion"}
"""Options that no variable sets: they replace the command's work."""


def variable(command: str, param: Any) -> str | None:
    """Return the environment variable of an option or an argument; None for an option that has none."""
    if param.param_type_name == "argument":
        word = param.metavar or param.name
    else:
        word = next((flag for flag in param.opts if flag.startswith("--")), param.opts[0]).lstrip("-")
    word = word.replace("-", "_").upper()
    return None if word.lower() in WITHOUT else f"{PREFIX}{command.replace('-', '_').upper()}_{word}"


def add_variable(command: str, param: Any) -> Any:
    """Have an option read its environment variable; the help does not show it, since it follows from the flag."""
    name = variable(command, param)
    if name is not None:
        shared = SHARED.get(param.name)
        param.envvar = [name, shared] if shared else name
        param.show_envvar = False
        param.split_envvar_value = partial(_split, name)
    return param


def _split(name: str, text: str) -> list[str]:
    """Split the variable of a repeatable option as a shell splits words.

    Raises:
        BadParameter: a quote is not closed.
    """
    try:
        return shlex.split(text)
    except ValueError as error:
        message = f"{error}: separate values by spaces, and quote those that contain one."
        raise typer.BadParameter(message, param_hint=_hint(name)) from None


def _hint(name: str) -> str:
    return f"the environment variable {name}"


def source_of(ctx: Any, param: Any) -> str | None:
    """Return the environment variable that gave a parameter its value; None for another source."""
    source = ctx.get_parameter_source(param.name)
    if source is None or source.name != "ENVIRONMENT":
        return None
    names = [param.envvar] if isinstance(param.envvar, str) else param.envvar
    return next((name for name in names if os.environ.get(name)), None)


def values_of(param: Any) -> list[str]:
    """Return the values in the variable of a repeatable option, whatever the command line has.

    Raises:
        BadParameter: a quote is not closed.
    """
    return _split(param.envvar, os.environ.get(param.envvar, ""))


@contextmanager
def named_in_errors(ctx: Any) -> Iterator[None]:
    """Have an error about the value of an environment variable name the variable instead of the flag."""
    try:
        yield
    except typer.BadParameter as error:
        if error.param is not None and (name := source_of(ctx, error.param)):
            error.param_hint = _hint(name)
        raise


def unknown_variables(command: str, params: Sequence[Any]) -> dict[str, str | None]:
    """Return the variables that are set for a command but belong to none of its options, with the nearest one."""
    start = f"{PREFIX}{command.replace('-', '_').upper()}_"
    known = [name.removeprefix(start) for param in params if (name := variable(command, param))]
    words = [name.removeprefix(start) for name, value in os.environ.items() if name.startswith(start) and value]
    near = {word: difflib.get_close_matches(word, known, n=1, cutoff=0.6) for word in words if word not in known}
    return {f"{start}{word}": f"{start}{names[0]}" if names else None for word, names in near.items()}
