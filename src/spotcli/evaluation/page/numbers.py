"""Numbers of an evaluation as they are shown: shares in percent, differences in points."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from spotcli import html_pages
from spotcli.console import one_line

if TYPE_CHECKING:
    from markupsafe import Markup

NONE = "–"
"""Shown for a number that is not known."""
MINUS = "−"


def percent(share: float | None) -> str:
    """``43.3`` for 0.4333."""
    return NONE if share is None else f"{100 * share:.1f}"


def points(share: float | None) -> str:
    """``+15.6`` or ``−3.1``: a difference in percentage points, with its sign."""
    if share is None:
        return NONE
    rounded = round(100 * share, 1)
    return "0.0" if rounded == 0 else f"{rounded:+.1f}".replace("-", MINUS)


def point_range(low: float, high: float) -> str:
    """The interval of a difference: ``+10.5 to +20.6``."""
    return f"{points(low)} to {points(high)}"


def percent_range(low: float, high: float) -> str:
    """The interval of a score: ``29.9–59.0``."""
    return f"{percent(low)}–{percent(high)}"


def p_value(value: float) -> str:
    """A p-value with two digits; ``< 0.0001`` below that."""
    return "< 0.0001" if value < 1e-4 else f"{value:.2g}"


def nats(value: float) -> str:
    """A drift with three digits."""
    return f"{value:.3g}" if value >= 1e-4 else f"{value:.1e}"


def short_time(seconds: float | None) -> str:
    """``45 s``, ``12 min`` or ``3.4 h``."""
    if seconds is None:
        return NONE
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def counted(number: int, noun: str) -> str:
    """A count with its noun: ``1 problem``, ``1,200 problems``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def argument(text: str) -> str:
    """Text from outside as an argument of a command that can be pasted into a shell."""
    return one_line(shlex.quote(text))


def line(text: str) -> str:
    """Text from outside on one line."""
    return one_line(text)


def name(text: str) -> Markup:
    """The name of a model or a task as HTML on one line, which may break after a slash."""
    return html_pages.trusted(html_pages.text(one_line(text)).replace("/", "/<wbr>"))


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Settings on one level, ``sample.top_k`` for a key in a section; those without a value are left out."""
    settings: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            settings |= flat(value, f"{prefix}{name}.")
        elif isinstance(value, list | tuple):
            settings |= {f"{prefix}{name}": ", ".join(map(str, value))} if value else {}
        elif value is not None:
            settings[f"{prefix}{name}"] = str(value)
    return settings
