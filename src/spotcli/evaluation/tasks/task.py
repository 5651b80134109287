"""What an evaluation task is: its problems, how they are asked and how their answers are graded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from spotcli.recipe import Recipe, TaskSettings
from spotcli.records import Problem, Score

Group = Literal["in-domain", "OOD", "IFEval", "other"]
"""Groups of tasks whose scores are averaged, as in the paper's table."""

MAIN = "score"
"""The metric of a right answer, beside those of ``Task.metrics``."""


@dataclass(frozen=True)
class TaskContext:
    """Where a task finds its problems."""

    folder: Path = Path()
    """For relative paths."""
    seed: int = 0
    """Seed of generated problems and of the order of choices."""
    data_dir: Path | None = None
    """Folder with files of published problem sets."""
    grader: str = "math"
    """Grader of problem sets that name none."""
    limit: int | None = None
    """Number of problems that are asked. A task of a published set loads and checks all of its problems."""
    problems: str | None = None
    """The problem set to use instead of the task's own: a file or ``hf:NAME``."""
    settings: Mapping[str, TaskSettings] = field(default_factory=dict)
    """``eval.task_settings``: by the name of a task."""

    @classmethod
    def of(cls, recipe: Recipe, folder: Path) -> TaskContext:
        """The context of a recipe's tasks; relative paths are relative to ``folder``."""
        section = recipe.eval
        data_dir = folder / section.data_dir if section.data_dir is not None else None
        return cls(folder, recipe.seed, data_dir, recipe.grader, section.limit, settings=section.task_settings)


@dataclass(frozen=True)
class Task:
    """One benchmark, or any problem set."""

    name: str
    """The name in ``eval.tasks`` and in the rows."""
    load: Callable[[TaskContext], list[Problem]]
    """All problems in a fixed order. Raises UserError or DataError if they are missing or invalid."""
    trials: int = 1
    """Default number of answers per problem: k of avg@k."""
    max_new_tokens: int = 32768
    """Maximum tokens that an answer needs."""
    grader: str = "math"
    """Grader of problems that name none: one of ``grading.kinds``, or ``package.module:function``."""
    group: Group = "other"
    """The average that the score belongs to."""
    published_rows: int | None = None
    """Number of problems in the published set; a set with another number is refused."""
    instruction: str | None = None
    """Text appended to every prompt."""
    metrics: Callable[[Score], dict[str, float]] | None = None
    """Further numbers of a graded answer, each in [0, 1]."""
    weights: Callable[[Problem], dict[str, float]] | None = None
    """Weight of a problem in the mean of a metric; 1 for metrics without one."""
    constant_response: str | None = None
    """A response that needs no thought, such as ``None`` to every question about a board."""
    chance: Mapping[str, float] = field(default_factory=dict)
    """What the constant response scores on the loaded problems, by metric; ``score`` is the share of right answers."""


@dataclass(frozen=True)
class LoadedTask:
    """A task whose problems were loaded and checked."""

    task: Task
    """With the settings of the recipe, and ``chance`` of these problems."""
    problems: list[Problem]
    """As they are asked, with the instruction; at most ``eval.limit``."""
