"""The page of an evaluation: ``MODEL.report.html``, one file without network.

verdict -> figures -> models by tasks -> differences -> lost and won problems -> drift -> every number -> settings
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from spotcli import html_pages
from spotcli.evaluation.drift import DriftPart
from spotcli.evaluation.page import numbers
from spotcli.evaluation.page.differences import difference_plot, drift_plot
from spotcli.evaluation.page.flips import flip_section
from spotcli.evaluation.page.score_table import NUMBERS, metric_lines, number_lines, paper_table
from spotcli.evaluation.scores import EvalSummary, margin_points
from spotcli.html_pages import Figure

REPORT = ".report.html"
"""Ending of the page, after the name of the model's scores: an evaluation of another model does not replace it."""
LATEST = "report.html"
"""A copy of the page that was written last in the folder of the scores."""

_HERE = Path(__file__).parent


def write_report(path: Path, summary: EvalSummary) -> None:
    """Write the page of an evaluation; ``path`` is replaced when the page is complete.

    Raises:
        UserError: the folder does not exist or is not writable, or a file of scores does not exist any more.
        DataError: a row of a file of scores is invalid.
    """
    script, style = html_pages.page_script(_HERE / "sort.js"), html_pages.page_style(_HERE / "report.css")
    template = html_pages.environment(_HERE).get_template("report.html.jinja")
    paper = paper_table(summary)
    parts = template.generate(
        summary=summary,
        policy=html_pages.content_policy(style, script),
        script=html_pages.trusted(script),
        style=html_pages.trusted(style),
        models=[line.name for line in paper.lines],
        figures=_figures(summary),
        paper=paper,
        differences=difference_plot(summary),
        flips=flip_section(summary),
        drift=drift_plot(summary, path.parent),
        parts=_drift_parts(summary),
        worst=summary.drift.worst if summary.drift else [],
        columns=NUMBERS,
        lines=number_lines(summary.models),
        metrics=metric_lines(summary.models),
        settings=numbers.flat(summary.settings),
        overlaps={task: count for task, count in summary.overlaps.items() if count},
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        number=numbers,
    )
    html_pages.write(path, parts)


def _drift_parts(summary: EvalSummary) -> list[tuple[str, DriftPart]]:
    """The drift on each kind of answers, by its name."""
    drift = summary.drift
    if drift is None:
        return []
    parts = [("answers to neutral prompts", drift.neutral)]
    return [*parts, ("right answers to the trained tasks", drift.own_right)] if drift.own_right else parts


def _figures(summary: EvalSummary) -> list[Figure]:
    """The results in a few numbers."""
    figures = [_gain(summary), _kept(summary), _drift(summary), _changed(summary), _ungraded(summary)]
    return [figure for figure in figures if figure]


def _gain(summary: EvalSummary) -> Figure | None:
    main = summary.main
    if main is None:
        scores = list(summary.scores.values())
        if not scores:
            return None
        estimate = scores[0].estimate
        note = f"right in {scores[0].task}, {numbers.percent_range(estimate.low, estimate.high)}"
        return Figure("Score", f"{numbers.percent(estimate.mean)} %", note)
    trained = {name for name, item in summary.comparisons.items() if item.trained}
    for change in summary.average_changes.values():
        if len(trained) > 1 and {*change.tasks} == trained:
            kind = "open" if change.low <= 0 <= change.high else "good" if change.mean > 0 else "bad"
            note = f"points, mean of {len(trained)} trained tasks, {numbers.point_range(change.low, change.high)}"
            return Figure("Gain", numbers.points(change.mean), note, kind)
    comparison = main.comparison
    kind = "open" if not main.significant else "good" if comparison.difference > 0 else "bad"
    interval = numbers.point_range(comparison.low, comparison.high)
    title = "Gain" if main.trained else "Difference"
    return Figure(title, numbers.points(comparison.difference), f"points in {main.task}, {interval}", kind)


def _kept(summary: EvalSummary) -> Figure | None:
    pooled = summary.pooled
    if pooled is None:
        return None
    retention = pooled.retention
    if pooled.verdict is None:
        lost = [item.task for item in summary.comparisons.values() if item.result == "lost" and not item.trained]
        note = f"in {', '.join(lost)}; {numbers.counted(len(pooled.tasks), 'task')} not trained on"
        return Figure("Retention", "lost", note, "bad")
    kind = {"kept": "good", "lost": "bad"}.get(pooled.verdict, "open")
    note = (
        f"{numbers.counted(pooled.problems, 'problem')} not trained on: losses above "
        f"{numbers.percent(retention.largest_loss)} points excluded, margin {margin_points(retention.margin)}"
    )
    return Figure("Retention", pooled.verdict, note, kind)


def _drift(summary: EvalSummary) -> Figure | None:
    drift = summary.drift
    if drift is None:
        return None
    return Figure("Drift", numbers.nats(drift.mean), f"nats/token on neutral prompts, {drift.tokens:,} tokens")


def _changed(summary: EvalSummary) -> Figure | None:
    if not summary.comparisons:
        return None
    won, lost = (sum(len(getattr(item, kind)) for item in summary.comparisons.values()) for kind in ("won", "lost"))
    return Figure("Problems", f"{won:,} won, {lost:,} lost", "by the number of right answers")


def _ungraded(summary: EvalSummary) -> Figure:
    scores = list(summary.scores.values())
    truncated, undecided = (sum(getattr(score, kind) for score in scores) for kind in ("truncated", "undecided"))
    failed = sum(summary.models[1 if summary.against else 0].failed.values())
    answers = numbers.counted(sum(score.answers for score in scores), "answer")
    note = f"of {answers}; {truncated:,} truncated, {failed:,} failed"
    return Figure("Undecided", f"{undecided:,}", note)
