"""Any problem set as a task: a file, a data set of the hub, or a task file (YAML) that describes one.

# mytask.yaml
problems: mine.jsonl        # or hf:org/name[:config][:split]; a path is relative to this file
grader: math
trials: 4
max_new_tokens: 4096
instruction: Write the answer in \\boxed{}.
group: other
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from spotcli.console import warn
from spotcli.errors import UserError
from spotcli.evaluation.tasks.task import Task, TaskContext
from spotcli.grading.references import CONFLICTING
from spotcli.problems.conflicts import Repeats, prompt_key
from spotcli.problems.sources import iter_problems
from spotcli.recipe import Positive, TaskSettings
from spotcli.recipe_yaml import load_section
from spotcli.records import Problem

TASK_FILES = (".yaml", ".yml")
"""Endings of task files."""
PROBLEM_FILES = (".jsonl", ".json", ".parquet", ".csv", ".tsv", ".arrow", ".feather", ".gz", ".bz2", ".xz")
"""Endings of problem sets."""


class TaskFile(TaskSettings):
    """A task file."""

    problems: str
    """The problem set: a file, or ``hf:org/name[:config][:split]``."""
    rows: Positive | None = None
    """Expected number of problems; a set with another number is refused."""


def is_problem_set(name: str, folder: Path) -> bool:
    """Whether a name is a problem set and not the name of a task."""
    return (
        name.startswith("hf:")
        or name.lower().endswith((*PROBLEM_FILES, *TASK_FILES))
        or "/" in name
        or (bool(name) and (folder / name).exists())
    )


def task_of_set(name: str, context: TaskContext) -> Task:
    """The task of a problem set or of a task file.

    Raises:
        RecipeError: an invalid task file.
    """
    if not name.lower().endswith(TASK_FILES):
        return Task(name, partial(load_set, name, context.folder, None), grader=context.grader)
    path = context.folder / name
    file = load_section(path, TaskFile, "a task file")
    task = Task(
        name,
        partial(load_set, file.problems, path.parent, file.rows),
        grader=context.grader,
        published_rows=file.rows,
    )
    return with_settings(task, file)


def with_settings(task: Task, settings: TaskSettings) -> Task:
    """The task with the settings that are set."""
    given = settings.model_dump(
        include={"grader", "trials", "max_new_tokens", "instruction", "group"}, exclude_none=True
    )
    return replace(task, **given)


def load_set(source: str, folder: Path, rows: int | None, context: TaskContext) -> list[Problem]:
    """The problems of a set; those with conflicting reference answers are left out.

    Args:
        source: as ``sources.iter_problems`` takes it.
        folder: for a relative path.
        rows: the expected number of problems.
        context: the limit, and the set to use instead.

    Raises:
        UserError: the set is not found or empty, has another number of problems, or no reference answer.
        DataError: an invalid row.
    """
    if context.problems:
        source, folder = context.problems, context.folder
    repeats = Repeats()
    limit = None if rows else context.limit
    problems = list(iter_problems(source, folder=folder, seed=context.seed, limit=limit, repeats=repeats))
    if rows and len(problems) != rows:
        raise UserError(
            f"expected {rows} problems, got {len(problems)}", where=source, cure="correct `rows` in the task file"
        )
    if conflicts := repeats.conflicts(problems, context.grader) if repeats else {}:
        conflict = next(iter(conflicts.values()))
        warn(
            f"{conflict.where}: the reference answer {conflict.second!r} differs from {conflict.first!r} of an earlier "
            f"row with the same prompt; {len(conflicts)} problems are left out ({CONFLICTING})"
        )
        problems = [problem for problem in problems if prompt_key(problem) not in conflicts]
    if not any(problem.reference for problem in problems):
        raise UserError(
            "no problem has a reference answer", where=source, cure='add a field "answer" with the right answer'
        )
    return problems
