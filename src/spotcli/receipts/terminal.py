"""Receipts on the terminal: external text is escaped, and long texts are shortened unless ``full``."""

from __future__ import annotations

from typing import Any

from spotcli.console import one_line, out, safe
from spotcli.receipts.diff import Difference, ModelResult, RunDiff
from spotcli.receipts.trace import Trace
from spotcli.receipts.why import Why

LINES = 12
"""Lines of a text that are shown."""
_DIGEST = 16
"""Digits of a digest that are shown."""


def show_trace(trace: Trace, *, full: bool) -> None:
    """Print the story of a row."""
    _line(f"{trace.id}  ({trace.folder})", "bold")
    for event in trace.events:
        time = event.time.replace("+00:00", "Z") if event.time else ""
        _line("")
        _line(f"{event.kind:<9} {event.summary}" + (f"  [{time}]" if time else ""), "bold")
        lines = safe(event.text).split("\n") if event.text else []
        shown = lines if full else lines[:LINES]
        for line in shown:
            out().print(f"    {line}", soft_wrap=True)
        if len(lines) > len(shown):
            _line(f"    ... {len(lines) - len(shown)} more lines (--full)", "dim")
    if trace.missing:
        _line("")
    for text in trace.missing:
        _line(f"- {text}", "dim")


def show_why(why: Why) -> None:
    """Print what is behind a model."""
    state = "complete" if why.complete else "not complete"
    _line(f"{why.checkpoint}: {why.objective}, {state}", "bold")
    _facts("trained", {"started": why.started, "finished": why.finished, "seeds": why.seeds})
    for source in why.sources:
        _line(f"{source.name:<10} {source.path}: {_STATES[source.state]}", _STYLES.get(source.state))
        if source.recorded:
            _line(f"             digest {source.recorded[:_DIGEST]}" + _now(source.state, source.current))
        for name, digest in source.facts.get("files", {}).items():
            _line(f"             {digest}  {name}")
        _facts("", {name: value for name, value in source.facts.items() if name != "files"})
    _line("template   " + (f"chat template {why.chat_template[:_DIGEST]}" if why.chat_template else "no chat template"))
    for parent in why.parents:
        how = f", trained with {parent['objective']}" if parent.get("objective") else ""
        _line(f"parent     {parent['model']}{how}")
    _facts("data", why.counts)
    _facts("result", why.results)
    _facts("settings", {name: value for name, value in why.settings.items() if value not in (None, {}, [])})
    _facts("versions", why.versions)
    if changed := why.changed:
        names = ", ".join(source.name for source in changed)
        _line(f"! no longer as recorded: {names}", "yellow")


_STATES = {
    "unchanged": "unchanged",
    "changed": "CHANGED since",
    "missing": "MISSING",
    "not recorded": "its digest was not recorded",
    "not checked": "not checked",
}
_STYLES = {"changed": "yellow", "missing": "yellow"}


def _now(state: str, current: str | None) -> str:
    return f", now {current[:_DIGEST]}" if state == "changed" and current else ""


def show_diff(diff: RunDiff) -> None:
    """Print what differs between two runs."""
    _line(f"{diff.first} (-) against {diff.second} (+)", "bold")
    for title, differences in (("settings", diff.settings), ("versions", diff.versions), ("training", diff.training)):
        _line("")
        _line(title if differences else f"{title}: no difference", "bold")
        for key, value in differences.items():
            _difference(key, value)
    for name, data in diff.data.items():
        _line("")
        _line(
            f"{name}: {data.first_rows:,} and {data.second_rows:,} rows; {data.same:,} are the same, {data.differ:,} "
            f"differ, {data.only_first:,} only in the first, {data.only_second:,} only in the second"
        )
    _line("")
    _line("results" if diff.results else "results: no scores", "bold")
    for result in diff.results:
        _result(result)
    if diff.missing:
        _line("")
    for text in diff.missing:
        _line(f"- {text}", "dim")


def _difference(key: str, value: Difference) -> None:
    _line(f"  {key}")
    for sign, item, source in (("-", value.first, value.first_source), ("+", value.second, value.second_source)):
        _line(f"    {sign} {_formatted(item)}" + (f"  ({source})" if source else ""))


def _result(result: ModelResult) -> None:
    def shown(estimate: Any) -> str:
        if estimate is None:
            return "no scores"
        return f"{100 * estimate.mean:.1f} ({100 * estimate.low:.1f} to {100 * estimate.high:.1f}) %"

    _line(f"  {result.task}, {result.model} model: {shown(result.first)} and {shown(result.second)}")
    if (test := result.comparison) is not None:
        corrected = f", {result.p_holm:.3g} corrected" if result.p_holm is not None else ""
        _line(
            f"    second - first: {100 * test.difference:+.1f} ({100 * test.low:+.1f} to {100 * test.high:+.1f}) "
            f"points on {test.problems} problems; {test.wins} better, {test.losses} worse; "
            f"p = {test.p_value:.3g}{corrected} ({test.test})"
        )
    if result.note:
        _line(f"    {result.note}", "dim")


def _facts(title: str, values: dict[str, Any]) -> None:
    shown = ", ".join(f"{name} {_formatted(value)}" for name, value in values.items() if value not in (None, {}, []))
    if shown:
        _line(f"{title:<10} {shown}")


def _formatted(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return "(" + ", ".join(f"{name} {_formatted(item)}" for name, item in value.items() if item is not None) + ")"
    if isinstance(value, list):
        return "[" + ", ".join(map(_formatted, value)) + "]"
    return "none" if value is None else str(value)


def _line(text: str, style: str | None = None) -> None:
    out().print(one_line(text), style=style, soft_wrap=True)
