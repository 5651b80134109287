"""Answers that were generated elsewhere, graded into the samples file so that they can be rectified."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from spotcli import files, jsonl, outputs
from spotcli.console import progress
from spotcli.errors import UserError
from spotcli.grading.answers import TRUNCATED, Completion, grade_answers, graded_fields
from spotcli.locks import check_free
from spotcli.problems.sources import iter_answers
from spotcli.recipe import Recipe
from spotcli.records import Sample, UngradedSample

AT_ONCE = 256
"""Answers that are graded together, and written at once."""


@dataclass(frozen=True)
class GradeSummary:
    """The result of ``spot sample --grade``."""

    path: str
    answers: int
    """Answers in the file."""
    new_answers: int
    """Answers graded by this run."""
    right: int
    wrong: int
    undecided: int
    truncated: int
    """Undecided answers that reached the token limit."""
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def grade_file(
    recipe: Recipe, source: str, *, name: str | None = None, folder: Path = Path(), fresh: bool = False
) -> GradeSummary:
    """Grade answers that were generated elsewhere into ``sample.output``; no model is asked.

    Args:
        recipe: its ``model``, if set, is recorded as the policy, whose tokens measure change ratios.
        source: the answers, a path relative to ``folder``.
        name: what is recorded as the source; by default ``source``.
        folder: for relative paths.
        fresh: set an existing file aside and start over.

    Raises:
        UserError: the file is not found, or another process writes the output.
        DataError: an invalid row.
        SettingsChanged: the output was made with other settings.
    """
    started = time.monotonic()
    path = folder / source
    files.check_distinct(path, folder / recipe.sample.output)
    check_free(folder / recipe.sample.output)
    total = sum(1 for _ in iter_answers(path))  # finds every invalid row before anything is written
    if not total:
        raise UserError("the file has no answers", where=source, cure="check the path")
    settings = {"model": recipe.model, "graded": name or source, "grader": recipe.grader}
    verdicts: Counter[str] = Counter()
    with outputs.Output(
        folder / recipe.sample.output,
        command="spot sample",
        settings=settings,
        inputs={name or source: jsonl.digest(path)},
        fresh=fresh,
    ) as output:
        before = len(output.done)
        for row in output.rows():
            verdicts[TRUNCATED if row.get("finish_reason") == "length" else row["verdict"]] += 1
        with progress("answers") as display:
            task = display.add_task("grade", total=total - before, note="")
            answers = (answer for answer in iter_answers(path, quiet=True) if answer.key not in output.done)
            while group := list(islice(answers, AT_ONCE)):
                rows = graded(group, recipe.grader)
                output.append(rows)
                verdicts.update(TRUNCATED if row.finish_reason == "length" else row.verdict for row in rows)
                display.advance(task, len(rows))
        summary = GradeSummary(
            path=str(output.path),
            answers=verdicts.total(),
            new_answers=verdicts.total() - before,
            right=verdicts["right"],
            wrong=verdicts["wrong"],
            undecided=verdicts["undecided"] + verdicts[TRUNCATED],
            truncated=verdicts[TRUNCATED],
            seconds=time.monotonic() - started,
        )
        counts = {name: getattr(summary, name) for name in ("answers", "right", "wrong", "undecided", "truncated")}
        output.finish(counts)
    return summary


def graded(answers: Iterable[UngradedSample], grader: str) -> list[Sample]:
    """The answers with their verdicts; fields of other tools are kept.

    Raises:
        UserError: a row names an unknown grader.
    """
    completions = [Completion(answer, answer.response, answer.finish_reason) for answer in answers]
    return [
        Sample.model_validate({**completion.problem.model_dump(exclude_unset=True), **graded_fields(completion, grade)})
        for completion, grade in zip(completions, grade_answers(completions, grader), strict=True)
    ]
