"""Summaries as people read them: one table a command, on stdout."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from spotcli.console import out, safe

if TYPE_CHECKING:
    from rich.table import Table

    from spotcli.stages.evaluate import EvalSummary


def facts(title: str, values: dict[str, Any]) -> None:
    """Names and values, a line each."""
    table = _table(title, "", "")
    for name, value in values.items():
        if value is not None and value != {}:
            table.add_row(name.replace("_", " "), safe(_shown(value)))
    out().print(table)


def scores(summary: EvalSummary) -> None:
    """A model's scores; before, after and the difference where there is a base."""
    if summary.against:
        table = _table("Gains, and what they cost", "task", "before", "after", "difference", "95 % interval", "p")
        for name, comparison in summary.comparisons.items():
            table.add_row(
                f"{name}, avg@{comparison.trials // comparison.problems} of {comparison.problems}",
                percent(comparison.before),
                percent(comparison.after),
                f"{100 * comparison.difference:+.1f}",
                f"{100 * comparison.low:+.1f} … {100 * comparison.high:+.1f}",
                f"{comparison.p_value:.2g}",
            )
            table.add_row(
                "", "", "", "", f"{comparison.wins} won, {comparison.losses} lost", comparison.test, style="dim"
            )
        if summary.drift is not None:
            table.add_row("drift, nats a token", "0", f"{summary.drift:.4f}", "", f"{summary.drift_tokens} tokens", "")
    else:
        table = _table("Scores", "task", "avg@k", "95 % interval", "problems")
        for name, score in summary.scores.items():
            e = score.estimate
            table.add_row(name, percent(e.mean), f"{100 * e.low:.1f} … {100 * e.high:.1f} %", str(e.problems))
    out().print(table)
    counted = _table("Verdicts", "task", "model", "right", "wrong", "undecided", "of it cut")
    for model, parts in ((summary.against, summary.base), (summary.model, summary.scores)):
        for name, s in parts.items():
            counted.add_row(name, safe(str(model)), str(s.right), str(s.wrong), str(s.undecided), str(s.truncated))
    out().print(counted)


def stages(seconds: dict[str, float]) -> None:
    """Where the time went."""
    table = _table("Seconds a stage", *seconds, "together")
    table.add_row(*(f"{value:.0f}" for value in seconds.values()), f"{sum(seconds.values()):.0f}")
    out().print(table)


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_shown(item)}" for name, item in value.items())
    return str(value)


def _table(title: str, *columns: str) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, show_header=any(columns))
    for place, column in enumerate(columns):
        table.add_column(column, justify="left" if place == 0 or not column else "right")
    return table
