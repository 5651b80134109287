"""The evaluation in a model card: a section of README.md between two marks, which a later evaluation replaces."""

from __future__ import annotations

import re
from html import escape
from pathlib import Path

from spotcli import files
from spotcli.console import one_line
from spotcli.core.stats import Average
from spotcli.evaluation.page.numbers import nats, p_value, percent, point_range, points
from spotcli.evaluation.scores import EvalSummary, TaskComparison, trials_per_problem

BEGIN, END = "<!-- spot eval: begin -->", "<!-- spot eval: end -->"
CARD, TRAINING = "README.md", "spot-train.json"
"""The model card, and the file beside it that only ``spot train`` writes."""

_WRITTEN_BY_SPOT = "Trained by `spot train`"
_SPECIAL = re.compile(r"([\\`*_{}\[\]()#|!~$])")
"""Characters with a meaning in Markdown."""


def section(summary: EvalSummary) -> str:
    """The section as Markdown, with its marks: the verdict, the scores and how they were measured."""
    parts = [BEGIN, "## Evaluation", ""]
    parts += [f"- {_text(sentence)}" for sentence in summary.verdict]
    parts += [""] if summary.verdict else []
    parts += _comparisons(summary) if summary.comparisons else _scores(summary)
    notes = [_drift(summary), _overlap(summary), _sampling(summary)]
    parts += [note for note in notes if note]
    return "\n".join([*parts, END, ""])


def update_card(folder: Path, summary: EvalSummary) -> bool:
    """Put the section into the card of a checkpoint, or replace the one that is there.

    Args:
        folder: of the model.
        summary: of its evaluation.

    Returns:
        Whether the card was written: a card that ``spot train`` did not write is left as it is.
    """
    path = folder / CARD
    if not path.is_file() or not (folder / TRAINING).is_file():
        return False
    try:
        card = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return False
    if not card.startswith("---\n") or _WRITTEN_BY_SPOT not in card:
        return False
    before, begin, rest = card.partition(BEGIN)
    _, end, after = rest.partition(END)
    if begin and not end:
        return False  # somebody edited the marks; what is between them cannot be known
    rest = f"\n{after.lstrip()}" if after.strip() else ""
    text = f"{before.rstrip()}\n\n{section(summary)}{rest}"
    files.replace(path, [text.encode()])
    return True


def _text(text: str) -> str:
    """Text as Markdown without markup, on one line."""
    return _SPECIAL.sub(r"\\\1", escape(one_line(text), quote=False))


def _comparisons(summary: EvalSummary) -> list[str]:
    lines = ["| task | base | tuned | difference | 95 % interval | p | result |", "|---|--:|--:|--:|---|--:|---|"]
    lines += [_comparison(item) for item in summary.comparisons.values()]
    lines += [
        _average_change(summary, group) for group, change in summary.average_changes.items() if len(change.tasks) > 1
    ]
    base = f"Base model: {_text(summary.against or '')}. Differences are in points"
    return [*lines, "", f"{base}; p is corrected for the number of tasks (Holm).", ""]


def _comparison(item: TaskComparison) -> str:
    comparison = item.comparison
    name = f"{_text(item.task)}, avg@{trials_per_problem(comparison)} of {comparison.problems}"
    cells = [
        f"{name} (trained)" if item.trained else name,
        percent(comparison.before),
        percent(comparison.after),
        points(comparison.difference),
        point_range(comparison.low, comparison.high),
        p_value(item.p_holm).replace("<", "&lt;"),
        item.result,
    ]
    return f"| {' | '.join(cells)} |"


def _average_change(summary: EvalSummary, group: str) -> str:
    change = summary.average_changes[group]
    before, after = map(percent, summary.compared_averages(group))
    cells = [_average(group, change), before, after, points(change.mean), point_range(change.low, change.high)]
    return f"| {' | '.join(cells)} | | |"


def _scores(summary: EvalSummary) -> list[str]:
    lines = ["| task | % right | 95 % interval |", "|---|--:|---|"]
    for score in summary.scores.values():
        estimate = score.estimate
        name = f"{_text(score.task)}, avg@{score.k} of {estimate.problems}"
        lines.append(f"| {name} | {percent(estimate.mean)} | {percent(estimate.low)}–{percent(estimate.high)} |")
    for group, average in summary.averages.items():
        if len(average.tasks) > 1:
            interval = f"{percent(average.low)}–{percent(average.high)}"
            lines.append(f"| {_average(group, average)} | {percent(average.mean)} | {interval} |")
    return [*lines, ""]


def _average(group: str, average: Average) -> str:
    return f"{_text(group)}, average of {len(average.tasks)} tasks"


def _drift(summary: EvalSummary) -> str:
    drift = summary.drift
    if drift is None:
        return ""
    return f"Drift: KL(base || tuned) is {nats(drift.mean)} nats/token on neutral prompts.\n"


def _overlap(summary: EvalSummary) -> str:
    known = {task: count for task, count in summary.overlaps.items() if count}
    listed = ", ".join(f"{count} in {_text(task)}" for task, count in known.items())
    return f"Problems that also occur in the training file: {listed}.\n" if known else ""


def _sampling(summary: EvalSummary) -> str:
    undecided = sum(score.undecided for score in summary.scores.values())
    truncated = sum(score.truncated for score in summary.scores.values())
    failed = sum(summary.models[1 if summary.against else 0].failed.values())
    return (
        f"Undecided answers count as not right: {undecided}, of which {truncated} are truncated. Failed answers are in "
        f"no score: {failed}. Measured by `spot eval` {_text(summary.versions.get('spotcli', ''))}".rstrip()
        + ".\n"
    )
