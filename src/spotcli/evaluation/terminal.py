"""What ``spot eval`` shows: the verdict in sentences, then the tables. Readable at a width of 80 columns."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from spotcli.console import one_line, out
from spotcli.core.stats import Average, Retention
from spotcli.evaluation.drift import CHANGE, Drift, WorstPrompt
from spotcli.evaluation.dry_run import EvalPlan
from spotcli.evaluation.scores import (
    OVERALL,
    EvalSummary,
    ModelScores,
    PublishedComparison,
    TaskScore,
    trials_per_problem,
)
from spotcli.tables import new_table

if TYPE_CHECKING:
    from rich.table import Table

MODELS = 4
"""Models side by side in one table."""
CHANGED = 3
"""Most changed answers that are listed, of each kind."""
WIDTH = 80
"""Characters that the tables need at most."""
FIRST = 19
"""Characters of the first column of a table at most."""
NAME = 17
"""Characters of a model's name in a table; longer names keep their end."""


def show(summary: EvalSummary) -> None:
    """Print the verdict and the tables."""
    console = out()
    console.print()
    for sentence in summary.verdict:
        console.print(one_line(sentence))
    show_tables(summary)
    if any(item.lost for item in summary.comparisons.values()):
        file = shlex.quote(summary.files[1])
        console.print(f"Show the lost problems: spot inspect {one_line(file)} --where lost", soft_wrap=True)
    if summary.page:
        console.print(one_line(summary.page), soft_wrap=True)


def show_tables(summary: EvalSummary) -> None:
    """Print the tables."""
    console = out()
    # A narrow terminal wraps the lines: a number that is cut would be read as another number.
    console.width = max(console.width, WIDTH)
    for table in _tables(summary):
        console.print()
        console.print(table)


def show_plan(plan: EvalPlan) -> None:
    """Print what would be asked, and what it could not show."""
    console = out()
    table = _table("Plan", "task", "group", "problems", "trials", "requests", "token limit", "excludable")
    for task in plan.tasks:
        excludable = "trained" if task.trained else f"{100 * task.excludable:.1f}"
        counts = (task.problems, task.trials, task.requests, task.max_new_tokens)
        table.add_row(one_line(task.task), task.group, *(f"{count:,}" for count in counts), excludable)
    table.caption = "excludable: the smallest loss, in points, that can be excluded with a chance of 80 %"
    console.print(table)
    console.print()
    models = ", ".join(map(one_line, plan.models))
    console.print(f"{plan.requests:,} requests to {models}, at most {_count(plan.tokens)} tokens. Nothing was sent.")
    for note in plan.notes():
        console.print(one_line(note))


def _tables(summary: EvalSummary) -> Iterator[Table]:
    if summary.against:
        yield _gains(summary)
        yield _problems(summary)
    if summary.drift:
        yield _drift(summary.drift)
        yield _most_changed(summary.drift.worst)
    if summary.published:
        yield _published(summary.published)
    for models in _side_by_side(summary.models):
        yield _scores(models)
    if any(score.metrics for model in summary.models for score in model.scores.values()):
        for models in _side_by_side(summary.models):
            yield _metrics(models)
    yield _answers(summary.models)
    yield _verdicts(summary.models)


def _side_by_side(models: Sequence[ModelScores]) -> Iterator[Sequence[ModelScores]]:
    for start in range(0, len(models), MODELS):
        yield models[start : start + MODELS]


def _gains(summary: EvalSummary) -> Table:
    table = _table("Gains and retention", "task", "before", "after", "diff.", "95 % interval", "p", "retention")
    for name, item in summary.comparisons.items():
        comparison = item.comparison
        table.add_row(
            one_line(name),
            _percent(comparison.before),
            _percent(comparison.after),
            _points(comparison.difference),
            f"{_points(comparison.low)}…{_points(comparison.high)}",
            "<1e-4" if item.p_holm < 1e-4 else f"{item.p_holm:.2g}",
            "trained" if item.trained else item.retention.verdict,
        )
    pooled = summary.pooled
    if pooled and len(pooled.tasks) > 1:
        interval = f"{_points(pooled.low)}…{_points(pooled.high)}"
        table.add_row("all untrained", "", "", _points(pooled.difference), interval, "", pooled.verdict or "")
    changes = {group: change for group, change in summary.average_changes.items() if len(change.tasks) > 1}
    if changes:
        table.add_section()
    for group, change in changes.items():
        means = map(_percent, summary.compared_averages(group))
        interval = f"{_points(change.low)}…{_points(change.high)}"
        table.add_row(_average_name(group, change), *means, _points(change.mean), interval, "", "")
    table.caption = "% and points; p: paired test, corrected for the number of tasks (Holm)"
    return table


def _problems(summary: EvalSummary) -> Table:
    """The problems behind the differences, and the losses that they exclude."""
    table = _table("Problems", "task", "avg@k", "won", "lost", "both", "neither", "loss <", "excludable")
    for name, item in summary.comparisons.items():
        comparison, retention = item.comparison, item.retention
        table.add_row(
            one_line(name),
            f"{trials_per_problem(comparison)} of {comparison.problems}",
            *map(str, (len(item.won), len(item.lost), item.both, item.neither)),
            *_losses(retention),
        )
    if summary.pooled and len(summary.pooled.tasks) > 1:
        table.add_row("all untrained", *[""] * 5, *_losses(summary.pooled.retention))
    table.caption = (
        "loss <: larger losses are excluded, in points; excludable: what this number of answers can exclude with a "
        "chance of 80 % if nothing was lost"
    )
    return table


def _drift(drift: Drift) -> Table:
    table = _table(
        "Drift from the base model, in nats per token", "answers", "mean", "95 % interval", "prompts", "tokens"
    )
    for name, part in (("neutral prompts", drift.neutral), ("its right answers", drift.own_right)):
        if part is not None:
            interval = "-" if part.low is None else f"{part.low:.4f}…{part.high:.4f}"
            table.add_row(name, f"{part.mean:.4f}", interval, str(part.prompts), _count(part.tokens))
    rounding = f"; {drift.dtype}: the smallest drifts are lost in the rounding" if drift.dtype != "float32" else ""
    table.caption = f"mean KL(base || model) on answers of the base model{rounding}"
    return table


def _most_changed(prompts: Sequence[WorstPrompt]) -> Table:
    """The prompts with the largest drift, each with the place in the answer that changed most."""
    table = _table("Most changed answers", "nats/token", "task", "problem", "largest change in")
    table.columns[3].no_wrap = False
    for column in table.columns[1:]:
        column.justify = "left"
    kinds = Counter[str]()
    for prompt in prompts:
        kinds[prompt.part] += 1
        if kinds[prompt.part] > CHANGED:
            continue
        table.add_row(
            f"{prompt.kl:.4f}", one_line(prompt.task or "neutral"), one_line(prompt.id)[:16], one_line(prompt.passage)
        )
    table.caption = f"{CHANGE} is before the token whose distribution changed most"
    return table


def _published(rows: Sequence[PublishedComparison]) -> Table:
    table = _table("Published scores, in %", "model", "task", "published", "here", "95 % interval", "")
    for row in rows:
        here = interval = inside = "-"
        if row.mean is not None and row.low is not None and row.high is not None:
            here, interval = _percent(row.mean), f"{_percent(row.low)}…{_percent(row.high)}"
            inside = "inside" if row.inside else "outside"
        table.add_row(row.role, row.name, row.printed or _percent(row.published), here, interval, inside)
    notes = [f"{row.name}, {row.role}: {row.note}" for row in rows if row.note]
    table.caption = "\n".join(["inside: the published score is inside the interval of this evaluation", *notes])
    return table


def _losses(retention: Retention) -> tuple[str, str]:
    return f"{100 * retention.largest_loss:.1f}", f"{100 * retention.excludable:.1f}"


def _scores(models: Sequence[ModelScores]) -> Table:
    """avg@k of every task and the averages of the groups, one column per model."""
    table = _table("Scores, avg@k in %", "task", *map(_name, models))
    tasks = dict.fromkeys(task for model in models for task in model.scores)
    for task in tasks:
        scores = [model.scores.get(task) for model in models]
        table.add_row(one_line(task), *(_percent(score.estimate.mean) if score else "-" for score in scores))
    table.add_section()
    groups = dict.fromkeys(group for model in models for group in model.averages)
    for group in sorted(groups, key=OVERALL.__eq__):
        averages = [model.averages.get(group) for model in models]
        table.add_row(one_line(group), *(_percent(average.mean) if average else "-" for average in averages))
    return table


def _metrics(models: Sequence[ModelScores]) -> Table:
    """Further numbers of the tasks, and what a constant answer scores."""
    table = _table("Further numbers, in %", "task", "metric", *map(_name, models), "constant")
    metrics = dict.fromkeys(
        (task, metric) for model in models for task, score in model.scores.items() for metric in score.metrics
    )
    for task, metric in metrics:
        scores = [model.scores.get(task) for model in models]
        estimates = [score.metrics.get(metric) if score else None for score in scores]
        chance = next((score.chance[metric] for score in scores if score and metric in score.chance), None)
        table.add_row(
            one_line(task),
            one_line(metric),
            *(_percent(estimate.mean) if estimate else "-" for estimate in estimates),
            "" if chance is None else _percent(chance),
        )
    table.caption = "constant: what the same answer to every problem would score"
    return table


def _answers(models: Sequence[ModelScores]) -> Table:
    columns = ("avg@k", "95 % interval", "pass@k", "maj@k", "undec.", "trunc.", "failed")
    table = _table("Answers, in %", "problems×trials", *columns)
    for name, score in _by_task(models, table):
        estimate, answers = score.estimate, max(score.answers, 1)
        table.add_row(
            name,
            _percent(estimate.mean),
            f"{_percent(estimate.low)}…{_percent(estimate.high)}",
            _percent(score.pass_at_k),
            "-" if score.maj_at_k is None else _percent(score.maj_at_k),
            *(_percent(count / answers) for count in (score.undecided, score.truncated)),
            _percent(score.failed / max(score.answers + score.failed, 1)),
        )
    _add_averages(models, table)
    fewer = [
        f"{_name(model)} in {one_line(task)}: pass@{score.pass_k}"
        for model in models
        for task, score in model.scores.items()
        if score.k != str(score.pass_k)
    ]
    if fewer:
        table.caption = "\n".join(["pass@k is of the fewest answers to a problem:", *fewer])
    return table


def _add_averages(models: Sequence[ModelScores], table: Table) -> None:
    """The averages of several tasks with their intervals, of each model."""
    averages = [(group, average, model) for model in models for group, average in model.averages.items()]
    averages = [(group, average, model) for group, average, model in averages if len(average.tasks) > 1]
    groups = {group: _average_name(group, average) for group, average, _ in averages}
    if groups:
        table.add_section()
    for group, title in sorted(groups.items(), key=lambda item: item[0] == OVERALL):
        table.add_row(title)
        for of_group, average, model in averages:
            if of_group == group:
                interval = f"{_percent(average.low)}…{_percent(average.high)}"
                table.add_row(f"  {_name(model)}", _percent(average.mean), interval)


def _average_name(group: str, average: Average) -> str:
    return f"{one_line(group)}, {len(average.tasks)} tasks"


def _verdicts(models: Sequence[ModelScores]) -> Table:
    columns = ("right", "wrong", "undecided", "truncated", "failed", "tokens", "seconds")
    table = _table("Verdicts", "problems×trials", *columns)
    for name, score in _by_task(models, table):
        counts = (score.right, score.wrong, score.undecided, score.truncated, score.failed)
        seconds = "-" if score.seconds is None else f"{score.seconds:,.0f}"
        table.add_row(name, *map(str, counts), _count(score.tokens), seconds)
    table.caption = "truncated answers are undecided too"
    return table


def _by_task(models: Sequence[ModelScores], table: Table) -> Iterator[tuple[str, TaskScore]]:
    """The scores of each task by the name of the model, after a row with the task's name and the number of answers."""
    for task in dict.fromkeys(task for model in models for task in model.scores):
        by_size: dict[str, list[tuple[str, TaskScore]]] = {}
        for model in models:
            if score := model.scores.get(task):
                by_size.setdefault(f"{score.estimate.problems}×{score.k}", []).append((f"  {_name(model)}", score))
        for size, scores in by_size.items():
            table.add_row(_task_of_size(task, size))
            yield from scores


def _task_of_size(task: str, size: str) -> str:
    """``math500, 500×5``, where a long name loses its end and the numbers stay whole."""
    name, room = one_line(task), FIRST - len(f", {size}")
    return f"{name if len(name) <= room else name[: max(room - 1, 0)] + '…'}, {size}"


def _table(title: str, *columns: str) -> Table:
    """A table without edges, so that all columns fit into 80 characters."""
    table = new_table(title, *columns)
    table.show_edge = table.pad_edge = False
    table.min_width = len(title)
    table.padding = (0, 1, 0, 0)
    table.caption_justify = "left"
    for column in table.columns:
        column.no_wrap = True
    table.columns[0].max_width = FIRST
    return table


def _count(number: int) -> str:
    """A count in at most five characters up to a billion: ``9,345``, ``225k``, ``1.2M``."""
    if number < 10_000:
        return f"{number:,}"
    return f"{number / 1e3:.0f}k" if number < 999_500 else f"{number / 1e6:.1f}M"


def _name(model: ModelScores) -> str:
    """The last part of a model's name: ``Qwen3-8B`` for ``Qwen/Qwen3-8B``."""
    name = one_line(Path(model.model).name or model.model)
    return name if len(name) <= NAME else f"…{name[1 - NAME :]}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _points(share: float) -> str:
    return f"{100 * share:+.1f}"
