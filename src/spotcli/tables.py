"""The result of a command on stdout: tables for people, one JSON object for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from spotcli.console import json_escaped, one_line, out
from spotcli.records import json_text

if TYPE_CHECKING:
    from rich.table import Table


def as_json(values: dict[str, Any]) -> None:
    """Print a summary as one JSON object on one line; characters that are not safe to show are escaped."""
    print(json_escaped(json_text(values)))


def facts(title: str, values: dict[str, Any]) -> None:
    """Print names and values, one per line; null and empty values are left out."""
    table = new_table(title, "", "")
    for name, value in values.items():
        if value is not None and value != {}:
            table.add_row(one_line(name).replace("_", " "), one_line(_formatted(value)))
    out().print(table)


def seconds_per_stage(seconds: Mapping[str, float]) -> None:
    """Print the time of each stage and their total."""
    table = new_table("Seconds per stage", *seconds, "total")
    table.add_row(*(f"{value:.0f}" for value in seconds.values()), f"{sum(seconds.values()):.0f}")
    out().print(table)


def next_commands(title: str, commands: Sequence[str]) -> None:
    """Print what was done and the commands to run next, each whole on its line."""
    out().print(one_line(title), soft_wrap=True)
    for command in commands:
        out().print(f"  {one_line(command)}", style="cyan", soft_wrap=True)


def _formatted(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    if isinstance(value, dict):
        return ", ".join(f"{name.replace('_', ' ')} {_formatted(item)}" for name, item in value.items())
    return str(value)


def new_table(title: str, *columns: str) -> Table:
    """Return an empty table; the first column is text, the others are numbers."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, show_header=any(columns))
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 or not column else "right")
    return table
