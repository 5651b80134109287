"""The result of a command on stdout: tables for people, one JSON object for programs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from spotcli.console import json_escaped, one_line, out
from spotcli.records import json_text

if TYPE_CHECKING:
    from rich.table import Table

    from spotcli.core.stats import Comparison, Estimate


class TaskResult(Protocol):
    """What the tables show of one model on one task."""

    @property
    def estimate(self) -> Estimate: ...
    @property
    def right(self) -> int: ...
    @property
    def wrong(self) -> int: ...
    @property
    def undecided(self) -> int: ...
    @property
    def truncated(self) -> int: ...


class TaskDifference(Protocol):
    """What the tables show of two models on one task."""

    @property
    def comparison(self) -> Comparison: ...


class MeasuredDrift(Protocol):
    """What the tables show of the drift."""

    @property
    def mean(self) -> float: ...
    @property
    def tokens(self) -> int: ...


class EvalResult(Protocol):
    """What the tables show of an evaluation; the class that has it belongs to the stage."""

    @property
    def model(self) -> str: ...
    @property
    def against(self) -> str | None: ...
    @property
    def scores(self) -> Mapping[str, TaskResult]: ...
    @property
    def base(self) -> Mapping[str, TaskResult]: ...
    @property
    def comparisons(self) -> Mapping[str, TaskDifference]: ...
    @property
    def drift(self) -> MeasuredDrift | None: ...


def as_json(values: dict[str, Any]) -> None:
    """Print a summary as one JSON object on one line; characters that are not safe to show are escaped."""
    print(json_escaped(json_text(values)))


def facts(title: str, values: dict[str, Any]) -> None:
    """Print names and values, one per line; null and empty values are left out."""
    table = _table(title, "", "")
    for name, value in values.items():
        if value is not None and value != {}:
            table.add_row(one_line(name).replace("_", " "), one_line(_formatted(value)))
    out().print(table)


def scores(summary: EvalResult) -> None:
    """Print the scores of a model and its verdicts; with a base model: before, after and the difference."""
    out().print(_comparisons(summary) if summary.against else _estimates(summary))
    out().print(_verdicts(summary))


def _comparisons(summary: EvalResult) -> Table:
    table = _table("Gains and drift", "task", "before", "after", "difference", "95 % interval", "p")
    for name, item in summary.comparisons.items():
        comparison = item.comparison
        table.add_row(
            f"{one_line(name)}, avg@{comparison.trials // comparison.problems} of {comparison.problems}",
            percent(comparison.before),
            percent(comparison.after),
            f"{100 * comparison.difference:+.1f}",
            f"{100 * comparison.low:+.1f} … {100 * comparison.high:+.1f}",
            f"{comparison.p_value:.2g}",
        )
        table.add_row("", "", "", "", f"{comparison.wins} won, {comparison.losses} lost", comparison.test, style="dim")
    if summary.drift is not None:
        table.add_row("drift (nats/token)", "0", f"{summary.drift.mean:.4f}", "", f"{summary.drift.tokens} tokens", "")
    return table


def _estimates(summary: EvalResult) -> Table:
    table = _table("Scores", "task", "avg@k", "95 % interval", "problems")
    for name, score in summary.scores.items():
        estimate = score.estimate
        interval = f"{100 * estimate.low:.1f} … {100 * estimate.high:.1f} %"
        table.add_row(one_line(name), percent(estimate.mean), interval, str(estimate.problems))
    return table


def _verdicts(summary: EvalResult) -> Table:
    table = _table("Verdicts", "task", "model", "right", "wrong", "undecided", "truncated")
    for model, scores_by_task in ((summary.against, summary.base), (summary.model, summary.scores)):
        for name, score in scores_by_task.items():
            counts = (score.right, score.wrong, score.undecided, score.truncated)
            table.add_row(one_line(name), one_line(str(model)), *map(str, counts))
    return table


def seconds_per_stage(seconds: Mapping[str, float]) -> None:
    """Print the time of each stage and their total."""
    table = _table("Seconds per stage", *seconds, "total")
    table.add_row(*(f"{value:.0f}" for value in seconds.values()), f"{sum(seconds.values()):.0f}")
    out().print(table)


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _formatted(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    if isinstance(value, dict):
        return ", ".join(f"{name.replace('_', ' ')} {_formatted(item)}" for name, item in value.items())
    return str(value)


def _table(title: str, *columns: str) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, show_header=any(columns))
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 or not column else "right")
    return table
