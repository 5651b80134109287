"""The plots of an evaluation: differences with their intervals and the margin, and drift against gain."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spotcli import jsonl
from spotcli.core.stats import Retention
from spotcli.errors import SpotError
from spotcli.evaluation.page.numbers import MINUS, nats, p_value, percent, point_range, points
from spotcli.evaluation.page.plots import Axis, LogAxis, drift_axis, point_axis
from spotcli.evaluation.page.score_table import short_names
from spotcli.evaluation.scores import EvalSummary, TaskComparison, margin_points, trials_per_problem

KINDS = {"gained": "good", "kept": "good", "lost": "bad"}
"""Style of a result; ``open`` for all others."""
OTHERS = 30
"""Earlier evaluations in the plot of drift against gain, at most."""


@dataclass(frozen=True)
class Difference:
    """One line of the plot: tuned minus base on a task, or on all tasks that were not trained."""

    task: str
    note: str
    low: float
    at: float
    high: float
    """Positions of the interval in percent of the plot."""
    text: str
    interval: str
    p: str
    result: str
    """That of ``TaskComparison``; empty where a loss in one of several tasks must not be hidden."""
    detail: str
    kind: str
    """Style of the mark: ``good``, ``bad`` or ``open``."""
    value: float
    pooled: bool = False


@dataclass(frozen=True)
class DifferencePlot:
    axis: Axis
    zero: float
    margin: float
    """Positions of no difference and of the margin, in percent."""
    margin_points: str
    lines: list[Difference]


@dataclass(frozen=True)
class DriftPoint:
    """One evaluation in the plot of drift against gain."""

    name: str
    x: float
    y: float
    """Positions in percent; y from the top."""
    low: float | None
    high: float | None
    drift: str
    gain: str
    current: bool


@dataclass(frozen=True)
class DriftPlot:
    task: str
    x: LogAxis
    y: Axis
    zero: float
    points: list[DriftPoint]


def difference_plot(summary: EvalSummary) -> DifferencePlot | None:
    """The plot of all tasks; None without a base model."""
    comparisons = list(summary.comparisons.values())
    if not comparisons:
        return None
    margin = comparisons[0].retention.margin
    # A trained task comes first, and the plot shows all intervals in whole.
    comparisons.sort(key=lambda item: not item.trained)
    ends = [100 * end for item in comparisons for end in (item.comparison.low, item.comparison.high)]
    pooled = summary.pooled
    ends += [100 * pooled.low, 100 * pooled.high] if pooled else []
    axis = point_axis([*ends, -100 * margin])
    lines = [_line(item, axis) for item in comparisons]
    if pooled and len(pooled.tasks) > 1:
        lines.append(
            Difference(
                task="all that were not trained",
                note=f"{len(pooled.tasks)} tasks, {pooled.problems:,} problems",
                low=axis.place(100 * pooled.low),
                at=axis.place(100 * pooled.difference),
                high=axis.place(100 * pooled.high),
                text=points(pooled.difference),
                interval=point_range(pooled.low, pooled.high),
                p="",
                result=pooled.verdict or "",
                detail=_excluded(pooled.retention),
                kind=KINDS.get(pooled.verdict or "", "open"),
                value=pooled.difference,
                pooled=True,
            )
        )
    return DifferencePlot(axis, axis.place(0), axis.place(-100 * margin), f"{MINUS}{margin_points(margin)}", lines)


def _line(item: TaskComparison, axis: Axis) -> Difference:
    comparison = item.comparison
    trained = "trained, " if item.trained else ""
    return Difference(
        task=item.task,
        note=f"{trained}avg@{trials_per_problem(comparison)} of {comparison.problems:,}",
        low=axis.place(100 * comparison.low),
        at=axis.place(100 * comparison.difference),
        high=axis.place(100 * comparison.high),
        text=points(comparison.difference),
        interval=point_range(comparison.low, comparison.high),
        p=p_value(item.p_holm),
        result=item.result,
        detail="" if item.trained else _excluded(item.retention),
        kind=KINDS.get(item.result, "open"),
        value=comparison.difference,
    )


def _excluded(retention: Retention) -> str:
    return f"losses above {percent(retention.largest_loss)} excluded"


def drift_plot(summary: EvalSummary, folder: Path) -> DriftPlot | None:
    """Drift against the gain on the main task, with earlier evaluations against the same base model.

    Args:
        summary: of the evaluation.
        folder: of the scores; the summaries of the other models are read.
    """
    main = summary.main
    if main is None or summary.drift is None:
        return None
    comparison = main.comparison
    measured = [(summary.model, summary.drift.mean, comparison.difference, (comparison.low, comparison.high))]
    others = [(*other, None) for other in _others(summary, main.task, folder)]
    drifts = [drift for _, drift, _, _ in [*measured, *others]]
    gains = [100 * gain for _, _, gain, _ in [*measured, *others]]
    x, y = drift_axis(drifts), point_axis([*gains, 100 * comparison.low, 100 * comparison.high])
    short = short_names(model for model, _, _, _ in [*measured, *others])
    marks = [
        DriftPoint(
            name=short[model],
            x=x.place(drift),
            y=round(100 - y.place(100 * gain), 2),
            low=None if interval is None else round(100 - y.place(100 * interval[0]), 2),
            high=None if interval is None else round(100 - y.place(100 * interval[1]), 2),
            drift=nats(drift),
            gain=points(gain),
            current=interval is not None,
        )
        for model, drift, gain, interval in [*others, *measured]
    ]
    return DriftPlot(main.task, x, y, round(100 - y.place(0), 2), marks)


def _others(summary: EvalSummary, task: str, folder: Path) -> Iterator[tuple[str, float, float]]:
    """Model, drift and gain on a task of other models that were compared with the same base model."""
    for path in sorted(folder.glob("*.summary.json"))[:OTHERS]:
        try:
            values = jsonl.read_json(path)
        except (SpotError, OSError):
            continue
        model, drift = values.get("model"), values.get("drift")
        gain = _nested(values, "comparisons", task, "comparison", "difference")
        same_base = values.get("against") == summary.against and model != summary.model
        if same_base and isinstance(model, str) and isinstance(drift, int | float) and isinstance(gain, int | float):
            yield model, float(drift), float(gain)


def _nested(values: Any, *keys: str) -> Any:
    for key in keys:
        values = values.get(key) if isinstance(values, dict) else None
    return values
