"""The tables of scores: models by tasks as in a paper, and every number of every task."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from spotcli.core.stats import Average, Estimate
from spotcli.evaluation.page.numbers import NONE, percent, percent_range, point_range, points, short_time
from spotcli.evaluation.scores import OVERALL, EvalSummary, ModelScores, TaskScore

GROUPS = ("in-domain", "OOD", "IFEval", "other")
"""Groups of tasks in their order; tasks in ``other`` have no average."""


@dataclass(frozen=True)
class Column:
    """A task, or an average over tasks."""

    title: str
    note: str
    average: bool = False


@dataclass(frozen=True)
class Cell:
    text: str
    note: str = ""
    value: float | None = None
    """What the column is sorted by."""
    best: bool = False


@dataclass(frozen=True)
class ModelLine:
    model: str
    name: str
    """Short name of the model."""
    role: str
    """``base``, ``tuned`` or empty."""
    cells: list[Cell]


@dataclass(frozen=True)
class PaperTable:
    """Models by tasks, with the averages of each group."""

    groups: list[tuple[str, int]]
    """Name and number of columns."""
    columns: list[Column]
    lines: list[ModelLine]
    difference: list[Cell]
    """Tuned minus base in each column; empty without a base model."""


@dataclass(frozen=True)
class NumberLine:
    """All numbers of one model on one task."""

    task: str
    name: str
    score: TaskScore
    cells: list[Cell]


@dataclass(frozen=True)
class MetricLine:
    """A further number of a task, such as IFEval's strict score of prompts."""

    task: str
    name: str
    metric: str
    mean: str
    interval: str
    chance: str


NUMBERS = ("avg@k", "pass@k", "maj@k", "right", "wrong", "undecided", "truncated", "failed", "tokens", "time")
"""Columns of the table of all numbers, after task and model."""


def short_names(models: Iterable[str]) -> dict[str, str]:
    """A short name for each model: a hub id as it is, of a path as many of the last parts as make it unique."""
    models = list(dict.fromkeys(models))
    names = {}
    for model in models:
        parts = Path(model).parts
        hub_id = len(parts) == 2 and not Path(model).is_absolute()
        sizes = range(2 if hub_id else 1, len(parts) + 1)
        endings = ("/".join(parts[-size:]) for size in sizes)
        others = [f"/{other}" for other in models if other != model]
        unique = (name for name in endings if not any(other.endswith(f"/{name}") for other in others))
        names[model] = next(unique, model)
    return names


def paper_table(summary: EvalSummary) -> PaperTable:
    """The table of all models, with the best score of each column marked."""
    scores = _by_task(summary.models)
    groups, columns, names = _columns(scores)
    best = {name: _best([_share(model, name) for model in summary.models]) for name in names}
    short = short_names(model.model for model in summary.models)
    roles = ["base", "tuned"] if summary.against else ["tuned"]
    lines = [
        ModelLine(
            model=model.model,
            name=short[model.model],
            role=roles[index] if index < len(roles) else "",
            cells=[_cell(model, name, best[name], column.note) for name, column in zip(names, columns, strict=True)],
        )
        for index, model in enumerate(summary.models)
    ]
    difference = [_difference(summary, name) for name in names] if summary.against else []
    return PaperTable(groups, columns, lines, difference)


def number_lines(models: Sequence[ModelScores]) -> list[NumberLine]:
    """Every number, task by task."""
    lines = []
    short = short_names(model.model for model in models)
    for task in _by_task(models):
        for model in models:
            if score := model.scores.get(task):
                lines.append(NumberLine(task, short[model.model], score, _numbers(score)))
    return lines


def metric_lines(models: Sequence[ModelScores]) -> list[MetricLine]:
    """The further numbers of the tasks, and what a constant answer would score."""
    lines = []
    short = short_names(model.model for model in models)
    for task in _by_task(models):
        for model in models:
            score = model.scores.get(task)
            metrics: dict[str, Estimate] = dict(score.metrics) if score else {}
            if score and "score" in score.chance:
                metrics = {"score": score.estimate, **metrics}
            for metric, estimate in metrics.items():
                chance = percent(score.chance.get(metric)) if score else NONE
                interval = percent_range(estimate.low, estimate.high)
                name = short[model.model]
                lines.append(MetricLine(task, name, metric, percent(estimate.mean), interval, chance))
    return lines


def _by_task(models: Sequence[ModelScores]) -> dict[str, TaskScore]:
    """The tasks of all models in the order of their groups, each with one of its scores."""
    scores: dict[str, TaskScore] = {}
    for model in models:
        scores = {**model.scores, **scores}
    order = {group: index for index, group in enumerate(GROUPS)}
    return dict(sorted(scores.items(), key=lambda item: order.get(item[1].group, len(GROUPS))))


def _columns(scores: dict[str, TaskScore]) -> tuple[list[tuple[str, int]], list[Column], list[str]]:
    """Groups, columns, and the task or group that each column shows."""
    groups: list[tuple[str, int]] = []
    columns: list[Column] = []
    names: list[str] = []
    for group in dict.fromkeys(score.group for score in scores.values()):
        tasks = [score for score in scores.values() if score.group == group]
        for score in tasks:
            columns.append(Column(score.task, score_size(score)))
            names.append(score.task)
        averaged = group != "other" and len(tasks) > 1
        if averaged:
            columns.append(Column("average", f"{len(tasks)} tasks", average=True))
            names.append(_average_of(group))
        groups.append((group, len(tasks) + averaged))
    if len(scores) > 1:
        columns.append(Column("overall", f"{len(scores)} tasks", average=True))
        names.append(_average_of(OVERALL))
        groups.append(("", 1))
    return groups, columns, names


def _average_of(group: str) -> str:
    """The name of a column with an average; no task has it, because it contains a line feed."""
    return f"\n{group}"


def _share(model: ModelScores, name: str) -> float | None:
    value = _value(model, name)
    return value.mean if value else None


def _value(model: ModelScores, name: str) -> Estimate | Average | None:
    """The score or the average of a column; None if the model has none."""
    if name.startswith("\n"):
        return model.averages.get(name[1:])
    return model.scores[name].estimate if name in model.scores else None


def _best(shares: Sequence[float | None]) -> float | None:
    """The highest of several scores; None if there are none to compare, or all are equal."""
    known = [share for share in shares if share is not None]
    return max(known) if len(set(known)) > 1 else None


def score_size(score: TaskScore) -> str:
    """How many answers a score is the mean of: ``avg@5 of 1,200``."""
    return f"avg@{score.k} of {score.estimate.problems:,}"


def _cell(model: ModelScores, name: str, best: float | None, size: str) -> Cell:
    value = _value(model, name)
    if value is None:
        return Cell(NONE)
    note = percent_range(value.low, value.high)
    score = model.scores.get(name)
    if score and score_size(score) != size:
        note = f"{note}, {score_size(score)}"
    return Cell(percent(value.mean), note, value.mean, value.mean == best)


def _difference(summary: EvalSummary, name: str) -> Cell:
    """Tuned minus base, on the trials that both models have."""
    if name.startswith("\n"):
        average = summary.average_changes.get(name[1:])
        change = (average.mean, average.low, average.high) if average else None
    else:
        item = summary.comparisons.get(name)
        change = (item.comparison.difference, item.comparison.low, item.comparison.high) if item else None
    if change is None:
        return Cell(NONE)
    return Cell(points(change[0]), point_range(*change[1:]), change[0])


def _numbers(score: TaskScore) -> list[Cell]:
    estimate, answers = score.estimate, score.answers
    counts = (score.right, score.wrong, score.undecided, score.truncated, score.failed)
    share = [f"{100 * count / answers:.1f} %" if answers and count else "" for count in counts[:4]]
    per_answer = score.tokens / answers if answers and score.tokens else None
    return [
        Cell(percent(estimate.mean), percent_range(estimate.low, estimate.high), estimate.mean),
        Cell(percent(score.pass_at_k), "" if score.k == f"{score.pass_k}" else f"k {score.pass_k}", score.pass_at_k),
        Cell(percent(score.maj_at_k), value=score.maj_at_k),
        *(Cell(f"{count:,}", note, count) for count, note in zip(counts, [*share, ""], strict=True)),
        Cell(f"{per_answer:,.0f}" if per_answer else NONE, "per answer" if per_answer else "", per_answer),
        Cell(short_time(score.seconds), value=score.seconds),
    ]
