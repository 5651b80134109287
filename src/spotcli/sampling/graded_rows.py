"""Answers as graded rows of the samples file, and the pass rates of its problems."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spotcli import jsonl
from spotcli.grading import Grade
from spotcli.grading.answers import Completion, grade_answers, graded_fields
from spotcli.policies import Answer, Sampling
from spotcli.recipe import Recipe
from spotcli.records import Problem, Sample


@dataclass(frozen=True)
class RowSettings:
    """What all rows of a run have in common."""

    parameters: dict[str, Any]
    """Model, engine and sampling parameters, written to each row."""
    grader: str
    """Grades the problems that name none."""
    keep_tokens: bool
    """Write the generated token ids."""

    @classmethod
    def of(cls, recipe: Recipe, sampling: Sampling, engine: str) -> RowSettings:
        parameters = {
            "model": recipe.model,
            "engine": engine,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
        }
        return cls(parameters, recipe.grader, recipe.sample.keep_tokens)


def graded_rows(problems: Sequence[Problem], answers: Sequence[Answer], settings: RowSettings) -> list[Sample]:
    """Grade each answer to the problem at the same index; truncated and unreferenced answers are undecided."""
    completions = [
        Completion(problem, answer.response, answer.finish_reason)
        for problem, answer in zip(problems, answers, strict=True)
    ]
    grades = grade_answers(completions, settings.grader)
    return [
        _row(completion, answer, grade, settings)
        for completion, answer, grade in zip(completions, answers, grades, strict=True)
    ]


def _row(completion: Completion, answer: Answer, grade: Grade, settings: RowSettings) -> Sample:
    problem = completion.problem
    grader = problem.grader or settings.grader
    effective: dict[str, Any] = {"max_new_tokens": answer.max_new_tokens, "seed": answer.request.seed}
    effective |= answer.sent or {}
    if answer.cost is not None:
        effective["cost"] = answer.cost
    return Sample.model_validate(
        {
            **problem.model_dump(exclude_unset=True),
            **({} if grader == "math" else {"grader": grader}),
            "trial": answer.request.trial,
            **graded_fields(completion, grade),
            **({"reasoning": answer.reasoning} if answer.reasoning else {}),
            "tokens": answer.tokens,
            "sampling": settings.parameters | effective,
            **({"response_ids": answer.token_ids} if settings.keep_tokens else {}),
        }
    )


@dataclass(frozen=True)
class PassRate:
    """Shares of right answers per problem, in four numbers."""

    mean: float
    never: int
    """Problems without a right answer."""
    sometimes: int
    always: int


def write_pass_rates(path: Path) -> PassRate:
    """Write each problem's share of right answers to ``X.rates.jsonl``.

    Undecided answers count as not right.
    """
    counts: dict[str, Counter[str]] = {}
    for row in jsonl.rows(path):
        counts.setdefault(row["id"], Counter())[row["verdict"]] += 1
    rates = {id: verdicts["right"] / verdicts.total() for id, verdicts in counts.items()}
    jsonl.write_rows(
        path.with_suffix(".rates.jsonl"),
        ({"id": id, "trials": counts[id].total(), **counts[id], "pass_rate": rate} for id, rate in rates.items()),
    )
    return PassRate(
        mean=sum(rates.values()) / max(1, len(rates)),
        never=sum(rate == 0 for rate in rates.values()),
        sometimes=sum(0 < rate < 1 for rate in rates.values()),
        always=sum(rate == 1 for rate in rates.values()),
    )
