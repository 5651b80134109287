"""Small charts of a run's page as positions in percent of their width or height: lines over steps, and bars."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

MOST_POINTS = 400
"""Points of a line; of more steps, means of neighbours are drawn."""

BINS = 20


@dataclass(frozen=True)
class Line:
    name: str
    points: str
    """For ``<polyline>``: x and y in percent, from the top."""
    last: str
    """The last value."""


@dataclass(frozen=True)
class Chart:
    """Lines over training steps with a common axis."""

    title: str
    note: str
    lines: list[Line]
    low: str
    high: str
    """The ends of the vertical axis."""
    zero: float | None
    """Position of 0; None if it is outside."""
    steps: str


@dataclass(frozen=True)
class Bar:
    low: float
    high: float
    count: int
    height: float
    """In percent of the highest bar."""


CHARTS: Sequence[tuple[str, str, Mapping[str, str]]] = (
    ("Loss", "mean over the pairs of a step", {"loss": "loss"}),
    (
        "Rewards",
        "beta × change of the log-probability; right answers should rise, wrong ones fall",
        {"rewards_chosen": "corrected", "rewards_rejected": "wrong"},
    ),
    ("Tether", "share of the gradient that is left: the pairs stop by themselves as it falls", {"tether": "tether"}),
    (
        "Change per token",
        "nats per token since the start; kept tokens should stay at 0",
        {
            "logp_change_kept": "kept",
            "logp_change_chosen_edited": "corrected",
            "logp_change_rejected_edited": "wrong",
        },
    ),
)
"""Title, note, and metric -> name of its line."""


def charts(rows: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """The charts of a training run; one without values is left out.

    Args:
        rows: of metrics.jsonl.
    """
    drawn = (_chart(title, note, metrics, rows) for title, note, metrics in CHARTS)
    return [chart for chart in drawn if chart is not None]


def _chart(title: str, note: str, metrics: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> Chart | None:
    series = {name: _series(rows, metric) for metric, name in metrics.items()}
    series = {name: values for name, values in series.items() if len(values) > 1}
    if not series:
        return None
    every = [value for values in series.values() for _, value in values]
    steps = [step for values in series.values() for step, _ in values]
    low, high = min([*every, 0.0]), max(every)
    if high - low < 1e-9:
        high = low + 1.0
    first, last = min(steps), max(steps)
    lines = []
    for name, values in series.items():
        points = " ".join(
            f"{100 * (step - first) / max(last - first, 1):.2f},{100 * (high - value) / (high - low):.2f}"
            for step, value in _thinned(values)
        )
        lines.append(Line(name, points, f"{values[-1][1]:.3g}"))
    zero = round(100 * high / (high - low), 2) if low < 0 < high else None
    return Chart(title, note, lines, f"{low:.3g}", f"{high:.3g}", zero, f"steps {first} to {last}")


def _series(rows: Sequence[Mapping[str, Any]], metric: str) -> list[tuple[int, float]]:
    """Step and value where both are numbers."""
    return [
        (row["step"], float(row[metric]))
        for row in rows
        if isinstance(row.get("step"), int) and isinstance(row.get(metric), int | float) and isfinite(row[metric])
    ]


def _thinned(values: list[tuple[int, float]]) -> list[tuple[float, float]]:
    """At most ``MOST_POINTS`` points: means of neighbours."""
    size = -(-len(values) // MOST_POINTS)
    groups = (values[start : start + size] for start in range(0, len(values), size))
    return [tuple(sum(column) / len(group) for column in zip(*group, strict=True)) for group in groups]


def histogram(values: Iterable[float]) -> list[Bar]:
    """Bars over the values from 0 to the largest one; empty without values."""
    values = [value for value in values if isfinite(value) and value >= 0]
    if not values:
        return []
    width = (max(values) or 1.0) / BINS
    counts = [0] * BINS
    for value in values:
        counts[min(int(value / width), BINS - 1)] += 1
    return [
        Bar(index * width, (index + 1) * width, count, round(100 * count / max(counts), 2))
        for index, count in enumerate(counts)
    ]
