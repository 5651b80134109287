"""The metrics of a training run (``checkpoint/metrics.jsonl``): a table over the training steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spotcli import jsonl
from spotcli.console import counted, one_line
from spotcli.errors import DataError, UserError
from spotcli.inspection.pair_filter import Selection
from spotcli.records import Row, kind_of
from spotcli.tables import new_table

if TYPE_CHECKING:
    from rich.console import Console

Values = dict[str, float]

SHOWN_ROWS = 24
"""Rows of the table without ``--limit``; the first and the last step are among them."""

COLUMNS = {
    "loss": "loss",
    "rewards_chosen": "r+",
    "rewards_rejected": "r-",
    "rewards_kept": "r keep",
    "tether": "tether",
    "logp_change_kept": "kept",
    "logp_change_chosen_edited": "edited y+",
    "logp_change_rejected_edited": "edited y-",
    "displacement": "displacement",
    "displaced": "displaced",
    "check_right": "right",
}
"""Metrics in the table, with their titles; those that no row has are left out."""

_LEGEND = {
    "logp_change_kept": "kept, edited y+, edited y-: change of the log-probability since the start, in nats per token",
    "rewards_kept": "r keep: reward of rows without y-",
    "displacement": "displacement: change of the log-probability of right answers to problems that are not trained on, "
    "in nats per token; displaced: the share of these answers that are less likely than at the start",
    "check_right": "right: right answers of a generation check",
}


_FORMATS = {"loss": ".4f", "tether": ".2f", "displaced": ".0%", "check_right": ".0f"}


@dataclass(frozen=True)
class MetricsSummary:
    """The result of ``spot inspect`` on the metrics of a run."""

    path: str
    rows: int
    """Logged training steps."""
    steps: int
    """Training steps of the whole run."""
    first: Values
    """The metrics of the first row."""
    last: Values
    """The last value of every metric."""
    lowest_displacement: Values | None
    """The row with the lowest displacement; None without this metric."""
    damaged: int = 0
    """Rows without a training step."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Metrics:
    """The rows of the file."""

    path: Path
    rows: Sequence[Values]
    damaged: int = 0

    def summary(self) -> MetricsSummary:
        last: Values = {}
        for row in self.rows:
            last |= row
        measured = [row for row in self.rows if "displacement" in row]
        return MetricsSummary(
            path=str(self.path),
            rows=len(self.rows),
            steps=int(last.get("steps", last["step"])),
            first=self.rows[0],
            last=last,
            lowest_displacement=min(measured, key=lambda row: row["displacement"], default=None),
            damaged=self.damaged,
        )

    def show(self, console: Console, limit: int | None = None) -> None:
        """Print the table.

        Args:
            limit: rows, evenly spread over the run; rows with a measurement or check come first.
        """
        names = [name for name in COLUMNS if any(name in row for row in self.rows)]
        shown = self._spread(SHOWN_ROWS if limit is None else limit)
        table = new_table(f"{one_line(str(self.path))}: {counted(len(self.rows), 'logged step')}", "step")
        for name in names:
            table.add_column(COLUMNS[name], justify="right")
        for row in shown:
            table.add_row(f"{row['step']:.0f}", *(_text(name, row.get(name)) for name in names))
        console.print(table)
        for name, text in _LEGEND.items():
            if name in names:
                console.print(text)
        if len(shown) < len(self.rows):
            console.print(f"{len(self.rows) - len(shown):,} more; --limit {len(self.rows)} shows all")
        if self.damaged:
            console.print(f"left out: {counted(self.damaged, 'damaged row')}")

    def _spread(self, count: int) -> list[Values]:
        """At most ``count`` rows: those with a measurement or a check, then others at equal distances."""
        indices = range(len(self.rows))
        measured = [index for index in indices if {"displacement", "check_right"} & self.rows[index].keys()]
        chosen = set(_evenly(measured, count))
        others = [index for index in indices if index not in chosen]
        chosen |= set(_evenly(others, count - len(chosen)))
        return [self.rows[index] for index in sorted(chosen)]


def read_metrics(path: Path, selection: Selection) -> Metrics | None:
    """Read a file of metrics; None if its first row is of another kind, or if it is no file of JSON lines.

    Raises:
        UserError: ``--id`` or ``--where`` is given, or the file does not exist.
    """
    if path.suffix.lower() != ".jsonl" or not path.is_file():
        return None
    rows: list[Values] = []
    errors: list[DataError] = []
    damaged = 0
    for _, _, row in jsonl.placed(path, invalid=errors.append):
        values = {name: number for name, value in row.items() if (number := _number(value)) is not None}
        if not rows and (kind_of(row) != Row.kind or not {"step", "loss"} <= values.keys()):
            return None
        if "step" in values:
            rows.append(values)
        else:
            damaged += 1
    if not rows:
        return None
    if selection.id is not None or selection.where is not None:
        raise UserError("metrics have no ids and no filter", where=str(path), cure="leave out --id and --where")
    return Metrics(path, rows, damaged + len(errors))


def _number(value: Any) -> float | None:
    """A finite number; None for every other value."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _evenly(values: Sequence[int], count: int) -> list[int]:
    """At most ``count`` of the values at equal distances, with the first and the last one."""
    if len(values) <= count:
        return list(values)
    if count < 2:
        return list(values[len(values) - max(count, 0) :])
    return [values[round(index * (len(values) - 1) / (count - 1))] for index in range(count)]


def _text(name: str, value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:{_FORMATS.get(name, '+.4f')}}"
