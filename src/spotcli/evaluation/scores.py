"""Scores: graded answers as numbers with intervals, and the summary of an evaluation."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from spotcli.core.stats import Comparison, Estimate, avg_at_k
from spotcli.records import Score


@dataclass(frozen=True)
class TaskScore:
    """One model on one task."""

    estimate: Estimate
    """avg@k with its interval; undecided answers count as not right."""
    right: int
    wrong: int
    undecided: int
    truncated: int
    """Undecided answers that reached the token limit."""


@dataclass(frozen=True)
class EvalSummary:
    """The result of ``spot eval``."""

    model: str
    against: str | None
    scores: dict[str, TaskScore]
    base: dict[str, TaskScore]
    """Scores of the model ``against``; empty without one, as ``comparisons``."""
    comparisons: dict[str, Comparison]
    drift: float | None
    """Mean KL(base || model) in nats per token on neutral prompts."""
    drift_tokens: int
    seconds: float
    base_seconds: float
    """Part of ``seconds`` that the base model's answers took."""
    files: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def score_task(rows: Iterable[Score], task: str) -> TaskScore:
    """The score of one task out of the answers to all tasks."""
    answers = [row for row in rows if row.task == task]
    verdicts = Counter(row.verdict for row in answers)
    return TaskScore(
        estimate=avg_at_k(outcomes(answers, task)),
        right=verdicts["right"],
        wrong=verdicts["wrong"],
        undecided=verdicts["undecided"],
        truncated=sum(row.finish_reason == "length" for row in answers),
    )


def outcomes(rows: Iterable[Score], task: str) -> dict[str, list[float]]:
    """For each problem of a task, 1 for every right answer and 0 for any other, in the order of the trials."""
    by_problem: dict[str, list[float]] = defaultdict(list)
    for row in sorted((row for row in rows if row.task == task), key=lambda row: row.key):
        by_problem[row.id].append(float(row.verdict == "right"))
    return by_problem
