"""The verdict of an evaluation in sentences: what was gained, what was kept or lost, and what cannot be told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

from spotcli.core.stats import problems_needed
from spotcli.evaluation.scores import (
    EvalSummary,
    ModelScores,
    PooledRetention,
    TaskComparison,
    TaskScore,
    margin_points,
)
from spotcli.evaluation.tasks.task import MAIN

NOTED = 0.02
"""Shares of truncated or undecided answers above this are noted."""


def sentences(summary: EvalSummary) -> list[str]:
    """The verdict on the evaluated model: gains, retention, then what limits both."""
    scores = list(summary.scores.values())
    if summary.against is None:
        verdict = [_score(score) for score in scores]
        verdict.append("Gains and retention were not measured: they require a base model (--against).")
    elif not summary.comparisons:
        verdict = ["Gains and retention were not measured: no trial has an answer of both models."]
    else:
        comparisons = list(summary.comparisons.values())
        verdict = [*_gains(comparisons), *_retention(comparisons, summary.pooled, summary.not_compared)]
        if summary.not_compared:
            tasks = _listed(list(summary.not_compared))
            verdict.append(f"Nothing is compared in {tasks}: no trial has an answer of both models.")
    evaluated = summary.models[: 2 if summary.against else 1]
    return [*verdict, *_limits(evaluated, summary.comparisons.values()), *_overlaps(summary.overlaps, scores)]


def _score(score: TaskScore) -> str:
    estimate = score.estimate
    interval = f"{100 * estimate.low:.1f} to {100 * estimate.high:.1f}"
    return f"{100 * estimate.mean:.1f} % right in {score.task} ({interval})."


def _gains(comparisons: Sequence[TaskComparison]) -> list[str]:
    """What changed in the trained tasks, and significant gains in the others."""
    trained = [item for item in comparisons if item.trained]
    gained = [item for item in trained if item.significant and item.comparison.difference > 0]
    lost = [item for item in trained if item.significant and item.comparison.difference < 0]
    unclear = [item for item in trained if not item.significant]
    further = [item for item in comparisons if not item.trained and item.significant and item.comparison.difference > 0]
    result = []
    if gained:
        result.append(f"Gained {_changes(gained)}.")
    if lost:
        result.append(f"Lost {_changes(lost)}, although {_is_or_are(lost)} trained.")
    if unclear:
        result.append(f"No gain shown in {'; '.join(_unclear(item, len(comparisons)) for item in unclear)}.")
    if further:
        result.append(f"Gained {_changes(further)}, without training on {'it' if len(further) == 1 else 'them'}.")
    return result


def _retention(
    comparisons: Sequence[TaskComparison], pooled: PooledRetention | None, not_compared: Mapping[str, bool]
) -> list[str]:
    """What happened to the tasks that were not trained."""
    if pooled is None and not all(not_compared.values()):
        return ["Retention was not measured."]
    if pooled is None:
        return ["Retention was not measured: it requires a task that was not trained (--task, eval.trained)."]
    untrained = [item for item in comparisons if not item.trained]
    lost = [item for item in untrained if item.retention.verdict == "lost"]
    kept = [item.task for item in untrained if item.retention.verdict == "kept"]
    unknown = [item for item in untrained if item.retention.verdict == "cannot tell"]
    margin = f"{margin_points(pooled.retention.margin)} points"
    result = [f"{_loss(item)}." for item in lost] or [_no_loss(untrained, pooled)]
    if kept:
        result.append(f"Kept within {margin}: {_listed(kept)}.")
    if unknown:
        parts = [f"{item.task} (up to {100 * item.retention.largest_loss:.1f} points)" for item in unknown]
        result.append(f"Cannot tell within {margin}; a loss is possible in {_listed(parts)}.")
        trials = max(1, round(fmean(item.comparison.trials / item.comparison.problems for item in unknown)))
        needed = problems_needed(pooled.retention.margin, trials)
        each = f"{trials} trial{'' if trials == 1 else 's'}"
        result.append(f"To exclude a loss of {margin}, about {needed:,} problems with {each} each are needed.")
    return result


def _no_loss(untrained: Sequence[TaskComparison], pooled: PooledRetention) -> str:
    """What the answers exclude: a gain in one task must not hide the loss that another one can have."""
    tasks = _listed(pooled.tasks) if len(pooled.tasks) < 4 else f"the {len(pooled.tasks)} untrained tasks"
    if pooled.retention.verdict == "lost":
        size = f"{-100 * pooled.difference:.1f} points ({-100 * pooled.high:.1f} to {-100 * pooled.low:.1f})"
        return f"No single loss shown in {tasks}, but a loss of {size} in all of them together."
    largest = max(item.retention.largest_loss for item in untrained)
    if not largest:
        return f"No loss in {tasks}: every loss is excluded."
    above = f"a loss above {100 * largest:.1f} points"
    if len(untrained) > 1:
        above += " in one of them"
        if pooled.retention.largest_loss:
            above += f", or above {100 * pooled.retention.largest_loss:.1f} points in all of them together,"
    return f"No loss shown in {tasks}: {above} would have been detected."


def _loss(item: TaskComparison) -> str:
    text = f"Lost {_changes([item])}"
    if item.retention.bound > -item.retention.margin:
        text += f", less than the margin of {margin_points(item.retention.margin)} points"
    if not item.significant:
        text += f"; not significant after correction for the number of tasks (p = {item.p_holm:.2g})"
    return text


def _limits(models: Sequence[ModelScores], comparisons: Iterable[TaskComparison]) -> list[str]:
    """Counts that a reader must know before the numbers are believed."""
    result = []
    for model in models:
        scores = list(model.scores.values())
        truncated = [(score.truncated / max(score.answers, 1), score.task) for score in scores]
        undecided = [((score.undecided - score.truncated) / max(score.answers, 1), score.task) for score in scores]
        for reason, shares in (("truncated", truncated), ("undecided", undecided)):
            parts = [f"{100 * share:.0f} % in {task}" for share, task in shares if share > NOTED]
            if parts:
                result.append(f"Answers of {model.model} that are {reason} count as not right: {_listed(parts)}.")
        failed = [f"{count:,} in {task}" for task, count in model.failed.items() if count]
        if failed:
            result.append(f"Failed answers of {model.model} are left out: {_listed(failed)}.")
        result += [_by_chance(model.model, score, metric) for score in scores for metric in _below_chance(score)]
    unpaired = [f"{item.unpaired:,} in {item.task}" for item in comparisons if item.unpaired]
    if unpaired:
        result.append(f"Answers without a counterpart of the other model are not compared: {_listed(unpaired)}.")
    return result


def _below_chance(score: TaskScore) -> list[str]:
    """The metrics in which a model is not better than a constant answer; the score itself if no metric is its name."""
    below = {metric: (_value(score, metric), level) for metric, level in score.chance.items()}
    below = {metric: (value, level) for metric, (value, level) in below.items() if value <= level}
    main = below.pop(MAIN, None)
    return [*below] if main is None or main in below.values() else [MAIN, *below]


def _by_chance(model: str, score: TaskScore, metric: str) -> str:
    value, level = _value(score, metric), score.chance[metric]
    return (
        f"{model} scores {100 * value:.1f} % in {score.task} ({metric}); the same answer to every problem would score "
        f"{100 * level:.1f} %."
    )


def _value(score: TaskScore, metric: str) -> float:
    return score.metrics.get(metric, score.estimate).mean


def _overlaps(overlaps: dict[str, int], scores: Sequence[TaskScore]) -> list[str]:
    problems = {score.task: score.estimate.problems for score in scores}
    return [
        f"{count} of {problems[task]} problems of {task} also occur in the training file."
        for task, count in overlaps.items()
        if count and task in problems
    ]


def _changes(items: Iterable[TaskComparison]) -> str:
    """``15.6 points (10.5 to 20.6) in arithmetic``: the size of changes in one direction."""
    parts = []
    for item in items:
        comparison = item.comparison
        low, high = (
            (comparison.low, comparison.high) if comparison.difference > 0 else (-comparison.high, -comparison.low)
        )
        size = abs(comparison.difference)
        parts.append(f"{100 * size:.1f} points ({100 * low:.1f} to {100 * high:.1f}) in {item.task}")
    return _listed(parts)


def _unclear(item: TaskComparison, tasks: int) -> str:
    """``math: +1.2 points, -2.0 to +4.4``, with the p-value if the interval alone would be significant."""
    comparison = item.comparison
    text = (
        f"{item.task}: {_signed(comparison.difference)} points, {_signed(comparison.low)} to {_signed(comparison.high)}"
    )
    if comparison.low <= 0 <= comparison.high:
        return text
    return f"{text} (p = {item.p_holm:.2g}" + (f", corrected for {tasks} tasks)" if tasks > 1 else ")")


def _signed(share: float) -> str:
    """Percentage points with their sign; a value that rounds to 0 has none."""
    text = f"{100 * share:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text


def _listed(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _is_or_are(items: Sequence[object]) -> str:
    return "it was" if len(items) == 1 else "they were"
