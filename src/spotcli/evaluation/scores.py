"""Scores: graded answers as numbers with intervals, and the summary of an evaluation.

rows of each model -> ModelScores -> TaskComparison per task -> sentences (verdict.py)
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING, Any

from spotcli.core.stats import (
    Comparison,
    Estimate,
    Outcomes,
    Retention,
    avg_at_k,
    compare,
    holm,
    maj_at_k,
    pass_at_k,
    retained,
)
from spotcli.core.stats.repeated import RIGHT
from spotcli.records import Score

if TYPE_CHECKING:
    from spotcli.evaluation.retention import Drift

IN_DOMAIN = "in-domain"
"""The group of the tasks that are trained unless ``eval.trained`` names others."""


@dataclass(frozen=True)
class TaskFacts:
    """What the scores need to know about a task."""

    group: str = "other"
    chance: Mapping[str, float] = field(default_factory=dict)
    """What a constant answer would score, by metric; ``score`` is the main outcome."""


@dataclass(frozen=True)
class ModelRows:
    """The graded answers of one model to all tasks, and what was not answered."""

    model: str
    path: str
    rows: Sequence[Score]
    failed: Mapping[str, int] = field(default_factory=dict)
    """Task -> answers that could not be had."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Task -> time of all its answers."""


@dataclass(frozen=True)
class TaskScore:
    """One model on one task."""

    task: str
    group: str
    """``in-domain``, ``OOD``, ``IFEval`` or ``other``: the averages of the paper's table."""
    trained: bool
    estimate: Estimate
    """avg@k with its interval; undecided answers count as not right."""
    pass_at_k: float
    """Chance of a right answer among k, with k the number of trials."""
    maj_at_k: float | None
    """How often the most frequent answer is right; None if the grader does not extract answers that can be compared."""
    right: int
    wrong: int
    undecided: int
    truncated: int
    """Undecided answers that reached the token limit."""
    failed: int
    """Answers that could not be had; they are in no other number."""
    tokens: int
    """Generated tokens of all answers."""
    seconds: float | None
    metrics: dict[str, Estimate]
    """Further numbers of the task, such as IFEval's four."""
    chance: dict[str, float]
    """What a constant answer would score, by metric."""

    @property
    def trials(self) -> int:
        """Answers per problem: k."""
        return self.estimate.trials // self.estimate.problems

    @property
    def answers(self) -> int:
        return self.right + self.wrong + self.undecided


@dataclass(frozen=True)
class ModelScores:
    """One model on all tasks."""

    model: str
    path: str
    """The file of its graded answers."""
    scores: dict[str, TaskScore]
    averages: dict[str, float]
    """Mean over the tasks of each group, and ``overall``: the mean over all tasks."""


@dataclass(frozen=True)
class TaskComparison:
    """The tuned model against the base model on one task."""

    task: str
    trained: bool
    comparison: Comparison
    p_holm: float
    """The p-value corrected for the number of tasks."""
    retention: Retention
    won: list[str]
    """Ids of the problems that the tuned model answers better."""
    lost: list[str]
    both: int
    """Problems that both models answer equally well, with at least one right answer each."""
    neither: int
    """Problems without a right answer of either model."""


@dataclass(frozen=True)
class EvalSummary:
    """The result of ``spot eval``."""

    model: str
    against: str | None
    models: list[ModelScores]
    """The base model if there is one, the evaluated model, then earlier results."""
    comparisons: dict[str, TaskComparison]
    """Empty without a base model."""
    verdict: list[str]
    """The result in sentences."""
    drift: Drift | None
    """KL(base || model) in nats per token."""
    overlaps: dict[str, int] = field(default_factory=dict)
    """Task -> problems that also occur in the training file."""
    settings: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    files: list[str] = field(default_factory=list)
    page: str | None = None
    retention: Retention | None = None
    """All problems of the tasks that were not trained, as one set; None without a base model or such a task."""

    @property
    def scores(self) -> dict[str, TaskScore]:
        """The evaluated model's scores by task."""
        return self.models[1 if self.against else 0].scores

    @property
    def base(self) -> dict[str, TaskScore]:
        """The base model's scores by task; empty without a base model."""
        return self.models[0].scores if self.against else {}

    @property
    def main(self) -> TaskComparison | None:
        """The comparison on the first trained task, else on the first task; None without a base model."""
        comparisons = list(self.comparisons.values())
        return next((item for item in comparisons if item.trained), comparisons[0] if comparisons else None)

    def as_dict(self) -> dict[str, Any]:
        """Return everything as a dictionary; the top level repeats the main comparison and the drift."""
        main = self.main.comparison if self.main else None
        return {
            "before": main.before if main else None,
            "after": main.after if main else None,
            "difference": main.difference if main else None,
            "interval": [main.low, main.high] if main else None,
            "p_value": main.p_value if main else None,
            **asdict(self),
            "drift": self.drift.mean if self.drift else None,
            "drift_parts": asdict(self.drift) if self.drift else None,
        }


def score_task(rows: Iterable[Score], task: str) -> TaskScore:
    """The score of one task out of the answers to all tasks."""
    return _task_score(ModelRows("", "", list(rows)), task, TaskFacts(), trained=True)


def summarise_model(rows: ModelRows, tasks: Mapping[str, TaskFacts], trained: Iterable[str]) -> ModelScores:
    """The scores of a model on the tasks that it has answers to, and their averages."""
    answered, trained = {row.task for row in rows.rows}, set(trained)
    scores = {
        name: _task_score(rows, name, facts, trained=name in trained)
        for name, facts in tasks.items()
        if name in answered
    }
    return ModelScores(rows.model, rows.path, scores, averages(scores))


def averages(scores: Mapping[str, TaskScore]) -> dict[str, float]:
    """The mean score over the tasks of each group except ``other``, and over all tasks (``overall``)."""
    groups: dict[str, list[float]] = defaultdict(list)
    for score in scores.values():
        if score.group != "other":
            groups[score.group].append(score.estimate.mean)
    means = {group: fmean(values) for group, values in groups.items()}
    return means | ({"overall": fmean(score.estimate.mean for score in scores.values())} if scores else {})


def _task_score(model: ModelRows, task: str, facts: TaskFacts, *, trained: bool) -> TaskScore:
    answers = sorted((row for row in model.rows if row.task == task), key=lambda row: row.key)
    verdicts = Counter(row.verdict for row in answers)
    results = outcomes(answers, task)
    further: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in answers:
        for name, value in (_extra(row, "metrics") or {}).items():
            further[name][row.id].append(float(value))
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
        metrics={name: avg_at_k(values) for name, values in further.items()},
        chance=dict(facts.chance),
    )


def _extra(row: Score, name: str) -> Any:
    """A field that not every row has."""
    return getattr(row, name, None)


def _majority(answers: Iterable[Score]) -> float | None:
    """maj@k; None if a right or wrong answer has no extracted answer. Truncated answers do not vote."""
    votes: dict[str, list[str | tuple[str] | None]] = defaultdict(list)
    for row in answers:
        if row.verdict != "undecided" and not row.extracted:
            return None
        votes[row.id].append(
            RIGHT if row.verdict == "right" else ("".join(row.extracted.split()),) if row.extracted else None
        )
    return maj_at_k(votes)


def outcomes(rows: Iterable[Score], task: str) -> dict[str, list[float]]:
    """For each problem of a task, 1 for every right answer and 0 for any other, in the order of the trials."""
    by_problem: dict[str, list[float]] = defaultdict(list)
    for row in sorted((row for row in rows if row.task == task), key=lambda row: row.key):
        by_problem[row.id].append(float(row.verdict == "right"))
    return by_problem


def compare_models(
    before: Sequence[Score], after: Sequence[Score], tasks: Iterable[str], *, trained: Iterable[str], margin: float
) -> dict[str, TaskComparison]:
    """Compare two models on every task.

    Args:
        before: answers of the base model to all tasks.
        after: answers of the tuned model.
        tasks: names of the tasks.
        trained: names of the tasks that were trained.
        margin: the largest loss that does not matter, as a share.
    """
    pairs = {task: (outcomes(before, task), outcomes(after, task)) for task in tasks}
    comparisons = {task: compare(*pair) for task, pair in pairs.items()}
    corrected = holm({task: comparison.p_value for task, comparison in comparisons.items()})
    trained = set(trained)
    return {
        task: _task_comparison(task, pairs[task], comparison, corrected[task], task in trained, margin)
        for task, comparison in comparisons.items()
    }


def _task_comparison(
    task: str, pair: tuple[Outcomes, Outcomes], comparison: Comparison, p_holm: float, trained: bool, margin: float
) -> TaskComparison:
    before, after = pair
    changes = {id: sum(after[id]) - sum(before[id]) for id in before}
    equal = [id for id, change in changes.items() if not change]
    both = sum(any(before[id]) for id in equal)
    return TaskComparison(
        task=task,
        trained=trained,
        comparison=comparison,
        p_holm=p_holm,
        retention=retained(before, after, margin=margin),
        won=[id for id, change in changes.items() if change > 0],
        lost=[id for id, change in changes.items() if change < 0],
        both=both,
        neither=len(equal) - both,
    )


def trained_tasks(tasks: Mapping[str, TaskFacts], named: Iterable[str] | None = None) -> list[str]:
    """The tasks that were trained: those named, else those in the domain, else the first one."""
    if named:
        return [task for task in tasks if task in set(named)]
    return [task for task, facts in tasks.items() if facts.group == IN_DOMAIN] or list(tasks)[:1]
