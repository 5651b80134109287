"""Scores: graded answers as numbers with intervals, and the summary of an evaluation.

ModelRows of each model -> ModelScores -> TaskComparison per task -> verdict in sentences -> EvalSummary
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

from spotcli.answering.answered import failed
from spotcli.core.stats import Average, Comparison, Estimate, Retention
from spotcli.core.stats.retention import RetentionVerdict
from spotcli.records import Problem

if TYPE_CHECKING:
    from spotcli.evaluation.drift import Drift

LEVEL = 0.05
"""A difference is significant if its p-value, corrected for the number of tasks, is below this, and if its interval
does not contain 0."""
IN_DOMAIN = "in-domain"
"""The group of the tasks that are trained unless ``eval.trained`` names others."""
OVERALL = "overall"
"""The average over all tasks."""


def trials_per_problem(counts: Estimate | Comparison) -> str:
    """``4``, or with a decimal if not all problems have as many answers."""
    trials = counts.trials / counts.problems
    return f"{trials:.0f}" if trials == round(trials) else f"{trials:.1f}"


def margin_points(margin: float) -> str:
    """A margin in points as it was set: ``2.0``, but ``0.25`` and not ``0.2``."""
    rounded = f"{100 * margin:.1f}"
    return rounded if abs(float(rounded) - 100 * margin) < 1e-9 else f"{100 * margin:g}"


@dataclass(frozen=True)
class TaskFacts:
    """What the scores need to know about a task."""

    group: str = "other"
    chance: Mapping[str, float] = field(default_factory=dict)
    """What a constant answer would score, by metric; ``score`` is the main outcome."""
    weights: Callable[[Problem], dict[str, float]] | None = None
    """Weight of a problem in the mean of a metric; 1 for metrics without one."""


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
    pass_k: int = 1
    """k of pass@k: the answers to the problem that has the fewest."""

    @property
    def k(self) -> str:
        """Answers per problem."""
        return trials_per_problem(self.estimate)

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
    averages: dict[str, Average]
    """Mean over the tasks of each group, and ``overall``: the mean over all tasks. A model without a score in one of
    the tasks has no average of them."""
    failed: dict[str, int] = field(default_factory=dict)
    """Requests without an answer by task, also of tasks without a score."""


Result = Literal["gained", "no gain shown", "lost", "kept", "cannot tell"]


@dataclass(frozen=True)
class TaskComparison:
    """The tuned model against the base model on one task."""

    task: str
    trained: bool
    comparison: Comparison
    p_holm: float
    """The p-value corrected for the number of tasks."""
    retention: Retention
    result: Result
    """Of a trained task ``gained``, ``lost`` or ``no gain shown``, else the verdict of ``retention``."""
    trials: int
    """Only the first trials of a problem are compared, this many at most."""
    unpaired: int
    """Answers of either model that are left out because the other model has no answer for the same trial."""
    won: list[str]
    """Ids of the problems that the tuned model answers better."""
    lost: list[str]
    both: int
    """Problems that both models answer equally well, with at least one right answer each."""
    neither: int
    """Problems without a right answer of either model."""

    @property
    def significant(self) -> bool:
        """Whether there is a difference."""
        return is_significant(self.comparison, self.p_holm)


def is_significant(comparison: Comparison, p_holm: float) -> bool:
    """Whether there is a difference, by its corrected p-value and by its interval."""
    return p_holm < LEVEL and not comparison.low <= 0 <= comparison.high


@dataclass(frozen=True)
class PooledRetention:
    """The tuned model against the base model on all problems of the tasks that were not trained, as one set."""

    tasks: list[str]
    problems: int
    difference: float
    """After minus before; every problem has the same weight."""
    low: float
    high: float
    retention: Retention
    verdict: RetentionVerdict | None
    """That of ``retention``; None if one of several tasks is lost, because a gain in another one hides the loss."""


Role = Literal["base", "tuned"]


@dataclass(frozen=True)
class PublishedComparison:
    """A published score beside the score of this evaluation; all numbers are shares."""

    name: str
    """Task or group."""
    role: Role
    model: str
    """The published model."""
    published: float
    mean: float | None
    """The score of this evaluation; None if a task of the group was not evaluated."""
    low: float | None
    high: float | None
    inside: bool | None
    """Whether the published score, within its rounding, is inside the 95 % interval of this evaluation."""
    note: str | None = None
    printed: str = ""
    """The published score in percent as it was printed: ``41`` may have been rounded from 40.5."""


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
    average_changes: dict[str, Average] = field(default_factory=dict)
    """After minus before of the averages that both models have; empty without a base model."""
    pooled: PooledRetention | None = None
    """None without a base model, or if every task was trained."""
    published: list[PublishedComparison] = field(default_factory=list)
    """Published scores beside these ones (``eval.published``)."""
    failures: dict[str, int] = field(default_factory=dict)
    """Requests of all models without an answer, by reason."""
    not_compared: dict[str, bool] = field(default_factory=dict)
    """Tasks of which no trial has an answer of both models, and whether they were trained."""

    def raise_if_unfinished(self) -> None:
        """Raise where answers are missing.

        Raises:
            Unfinished: requests failed.
        """
        if self.failures:
            answers = sum(score.answers for model in self.models for score in model.scores.values())
            where = ", ".join(model.path for model in self.models if any(model.failed.values()))
            raise failed(where or self.models[0].path, answers=answers, failures=self.failures)

    @property
    def scores(self) -> dict[str, TaskScore]:
        """The evaluated model's scores by task."""
        return self.models[1 if self.against else 0].scores

    @property
    def averages(self) -> dict[str, Average]:
        """The evaluated model's averages by group."""
        return self.models[1 if self.against else 0].averages

    def compared_averages(self, group: str) -> tuple[float, float]:
        """The averages before and after of a group in ``average_changes``, on the trials that both models have."""
        parts = [self.comparisons[task].comparison for task in self.average_changes[group].tasks]
        return fmean(part.before for part in parts), fmean(part.after for part in parts)

    @property
    def base(self) -> dict[str, TaskScore]:
        """The base model's scores by task; empty without a base model."""
        return self.models[0].scores if self.against else {}

    @property
    def main(self) -> TaskComparison | None:
        """The comparison on the first trained task, else on the first task; None without a base model."""
        comparisons = list(self.comparisons.values())
        return next((item for item in comparisons if item.trained), comparisons[0] if comparisons else None)

    def main_results(self) -> dict[str, Any]:
        """The main comparison and the drift; null where they were not measured."""
        main = self.main.comparison if self.main else None
        return {
            "before": main.before if main else None,
            "after": main.after if main else None,
            "difference": main.difference if main else None,
            "interval": [main.low, main.high] if main else None,
            "p_value": main.p_value if main else None,
            "drift": self.drift.mean if self.drift else None,
        }

    def as_dict(self) -> dict[str, Any]:
        """Return everything as a dictionary; the top level repeats the main results."""
        drift = asdict(self.drift) if self.drift else None
        return asdict(self) | self.main_results() | {"drift_parts": drift}
