"""From the graded answers of several models to their scores, their comparison and the verdict."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any, NamedTuple

from spotcli.core.stats import (
    Average,
    Comparison,
    Estimate,
    Outcomes,
    average_change,
    average_score,
    avg_at_k,
    compare,
    holm,
    maj_at_k,
    pass_at_k,
    retained,
)
from spotcli.core.stats.paired import paired_changes, paired_interval
from spotcli.core.stats.repeated import RIGHT
from spotcli.errors import RecipeError
from spotcli.evaluation.asked_tasks import ModelRows
from spotcli.evaluation.scores import (
    IN_DOMAIN,
    OVERALL,
    EvalSummary,
    ModelScores,
    PooledRetention,
    Result,
    TaskComparison,
    TaskFacts,
    TaskScore,
    is_significant,
)
from spotcli.evaluation.tasks.builtin import plain_name
from spotcli.evaluation.verdict import sentences
from spotcli.recipe import suggest
from spotcli.records import Score


def summarise_model(rows: ModelRows, tasks: Mapping[str, TaskFacts], trained: Iterable[str]) -> ModelScores:
    """The scores of a model on the tasks that it has answers to, and their averages."""
    answered, trained = {row.task for row in rows.rows}, set(trained)
    scores = {
        name: _task_score(rows, name, facts, trained=name in trained)
        for name, facts in tasks.items()
        if name in answered
    }
    averages = {
        group: average_score({name: scores[name].estimate for name in names})
        for group, names in _groups(tasks).items()
        if all(name in scores for name in names)
    }
    return ModelScores(rows.model, rows.path, scores, averages, dict(rows.failed))


def _groups(tasks: Mapping[str, TaskFacts]) -> dict[str, list[str]]:
    """The tasks of each average: of every group except ``other``, and all of them (``overall``)."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name, facts in tasks.items():
        if facts.group != "other":
            groups[facts.group].append(name)
    return {**groups, OVERALL: list(tasks)} if tasks else {}


def _average_changes(
    models: Sequence[ModelScores], tasks: Mapping[str, TaskFacts], comparisons: Mapping[str, TaskComparison]
) -> dict[str, Average]:
    """After minus before of the averages that both models have and whose tasks are all compared."""
    return {
        group: average_change({name: comparisons[name].comparison for name in names})
        for group, names in _groups(tasks).items()
        if all(group in model.averages for model in models) and all(name in comparisons for name in names)
    }


def _task_score(model: ModelRows, task: str, facts: TaskFacts, *, trained: bool) -> TaskScore:
    answers = sorted((row for row in model.rows if row.task == task), key=lambda row: row.key)
    verdicts = Counter(row.verdict for row in answers)
    results = outcomes(answers, task)
    return TaskScore(
        task=task,
        group=facts.group,
        trained=trained,
        estimate=avg_at_k(results),
        pass_at_k=pass_at_k(results),
        maj_at_k=_majority(answers),
        right=verdicts["right"],
        wrong=verdicts["wrong"],
        undecided=verdicts["undecided"],
        truncated=sum(row.finish_reason == "length" for row in answers),
        failed=model.failed.get(task, 0),
        tokens=sum(_extra(row, "tokens") or 0 for row in answers),
        seconds=model.seconds.get(task),
        metrics=_metrics(answers, facts),
        chance=dict(facts.chance),
        pass_k=min(map(len, results.values())),
    )


def _extra(row: Score, name: str) -> Any:
    """A field that not every row has."""
    return getattr(row, name, None)


def _metrics(answers: Sequence[Score], facts: TaskFacts) -> dict[str, Estimate]:
    """Further numbers of a task, each as a mean over its problems."""
    values: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    weights: dict[str, dict[str, float]] = defaultdict(dict)
    for row in answers:
        weight = facts.weights(row) if facts.weights else {}
        for name, value in (_extra(row, "metrics") or {}).items():
            values[name][row.id].append(float(value))
            weights[name][row.id] = weight.get(name, 1.0)
    return {name: avg_at_k(of_problems, weights=weights[name]) for name, of_problems in values.items()}


def _majority(answers: Iterable[Score]) -> float | None:
    """maj@k; None if the grader extracts no answers, as for instructions.

    Right answers are one answer, others are equal if their extracted texts are, apart from white space. Truncated
    answers and those without an extracted text do not vote; another undecided answer votes, and is not right.
    """
    votes: dict[str, list[str | tuple[str] | None]] = defaultdict(list)
    decided = extracted = False
    for row in answers:
        if row.verdict != "undecided":
            decided, extracted = True, extracted or bool(row.extracted)
        other = ("".join(row.extracted.split()),) if row.extracted and row.finish_reason != "length" else None
        votes[row.id].append(RIGHT if row.verdict == "right" else other)
    return None if decided and not extracted else maj_at_k(votes)


def outcomes(rows: Iterable[Score], task: str) -> dict[str, list[float]]:
    """For each problem of a task, 1 for every right answer and 0 for any other, in the order of the trials."""
    by_problem: dict[str, list[float]] = defaultdict(list)
    for row in sorted((row for row in rows if row.task == task), key=lambda row: row.key):
        by_problem[row.id].append(float(row.verdict == "right"))
    return by_problem


def compare_models(
    base: ModelRows, tuned: ModelRows, tasks: Iterable[str], *, trained: Collection[str], margin: float
) -> tuple[dict[str, TaskComparison], PooledRetention | None]:
    """Compare two models on every task, and on all tasks that were not trained together.

    Only trials that both models have are compared. A task without any is left out.

    Args:
        base: the base model.
        tuned: the tuned model.
        tasks: names of the tasks.
        trained: names of the tasks that were trained.
        margin: the largest loss that does not matter, as a share.
    """
    pairs = {task: paired_outcomes(base.rows, tuned.rows, task) for task in tasks}
    pairs = {task: pair for task, pair in pairs.items() if pair.before}
    comparisons = {task: compare(pair.before, pair.after) for task, pair in pairs.items()}
    corrected = holm({task: comparison.p_value for task, comparison in comparisons.items()})
    results = {}
    for task, pair in pairs.items():
        before, after = pair.before, pair.after
        changes = {id: sum(after[id]) - sum(before[id]) for id in before}
        equal = [id for id, change in changes.items() if not change]
        both = sum(any(before[id]) for id in equal)
        retention = retained(before, after, margin=margin)
        results[task] = TaskComparison(
            task=task,
            trained=task in trained,
            comparison=comparisons[task],
            p_holm=corrected[task],
            retention=retention,
            result=_gain(comparisons[task], corrected[task]) if task in trained else retention.verdict,
            trials=pair.trials,
            unpaired=pair.unpaired,
            won=[id for id, change in changes.items() if change > 0],
            lost=[id for id, change in changes.items() if change < 0],
            both=both,
            neither=len(equal) - both,
        )
    lost = any(item.result == "lost" for item in results.values() if not item.trained)
    pooled = _pooled({task: pair for task, pair in pairs.items() if task not in trained}, margin)
    if pooled and lost and len(pooled.tasks) > 1:
        pooled = replace(pooled, verdict=None)
    return results, pooled


def _gain(comparison: Comparison, p_holm: float) -> Result:
    """The result on a trained task."""
    if not is_significant(comparison, p_holm):
        return "no gain shown"
    return "gained" if comparison.difference > 0 else "lost"


class PairedOutcomes(NamedTuple):
    """The outcomes of two models on one task, trial by trial."""

    before: Outcomes
    after: Outcomes
    unpaired: int
    """Answers without a counterpart."""
    trials: int
    """The last common trial, counted from 1; 0 without one."""


def paired_outcomes(before: Sequence[Score], after: Sequence[Score], task: str) -> PairedOutcomes:
    """The outcomes of the trials that both models have."""
    keys = [{row.key for row in rows if row.task == task} for rows in (before, after)]
    common = keys[0] & keys[1]
    first, second = (outcomes((row for row in rows if row.key in common), task) for rows in (before, after))
    return PairedOutcomes(first, second, len(keys[0] ^ keys[1]), max((trial + 1 for *_, trial in common), default=0))


def _pooled(pairs: Mapping[str, PairedOutcomes], margin: float) -> PooledRetention | None:
    if not pairs:
        return None
    before, after = (
        {f"{task}\n{id}": trials for task, outcomes in sides for id, trials in outcomes.items()}
        for sides in (
            [(task, pair.before) for task, pair in pairs.items()],
            [(task, pair.after) for task, pair in pairs.items()],
        )
    )
    changes = paired_changes(before, after)
    single = sum(map(len, before.values())) == len(changes)
    low, high, _ = paired_interval(changes, single=single)
    retention = retained(before, after, margin=margin)
    return PooledRetention(list(pairs), len(changes), fmean(changes), low, high, retention, retention.verdict)


def trained_tasks(tasks: Mapping[str, TaskFacts], named: Sequence[str] = ()) -> list[str]:
    """The tasks that were trained: those named, else those of the group ``in-domain``, else the first one.

    Raises:
        RecipeError: a name is not among the tasks.
    """
    written = {plain_name(task): task for task in tasks}
    for name in named:
        if plain_name(name) not in written:
            raise RecipeError(
                f"'{name}' is not among the evaluated tasks", where="eval.trained", cure=suggest(name, list(tasks))
            )
    if named:
        return list(dict.fromkeys(written[plain_name(name)] for name in named))
    return [task for task, facts in tasks.items() if facts.group == IN_DOMAIN] or list(tasks)[:1]


def summarise(
    models: Sequence[ModelRows],
    tasks: Mapping[str, TaskFacts],
    *,
    compared: bool,
    trained: Collection[str],
    margin: float,
    overlaps: Mapping[str, int] | None = None,
) -> EvalSummary:
    """Return the scores of every model, the comparison of the first two, and the verdict in sentences.

    Args:
        models: the base model if ``compared``, the evaluated model, then earlier results.
        tasks: name -> facts, in the order of the tables.
        compared: whether the first model is the base model.
        trained: names of the trained tasks; all others are tests of retention.
        margin: the largest loss that does not matter, as a share.
        overlaps: task -> problems that also occur in the training file.
    """
    comparisons: dict[str, TaskComparison] = {}
    pooled = None
    if compared:
        comparisons, pooled = compare_models(models[0], models[1], tasks, trained=trained, margin=margin)
    scores = [summarise_model(model, tasks, trained) for model in models]
    summary = EvalSummary(
        model=models[1 if compared else 0].model,
        against=models[0].model if compared else None,
        models=scores,
        comparisons=comparisons,
        verdict=[],
        drift=None,
        overlaps=dict(overlaps or {}),
        files=[model.path for model in models],
        average_changes=_average_changes(scores[:2], tasks, comparisons) if compared else {},
        pooled=pooled,
        not_compared={task: task in trained for task in tasks if task not in comparisons} if compared else {},
    )
    return replace(summary, verdict=sentences(summary))
