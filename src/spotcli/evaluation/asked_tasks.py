"""What a model is asked for each task, and the graded answers that it has to them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spotcli import jsonl, outputs
from spotcli.answering.answered import failed
from spotcli.answering.graded import with_instructions
from spotcli.errors import UserError
from spotcli.evaluation.tasks import LoadedTask, Task
from spotcli.policies import Request, answer_seed
from spotcli.recipe import Recipe
from spotcli.records import Problem, Score


@dataclass(frozen=True)
class ModelRows:
    """The graded answers of one model to all tasks, and what was not answered."""

    model: str
    path: str
    rows: Sequence[Score]
    failed: Mapping[str, int] = field(default_factory=dict)
    """Task -> requests without an answer; they are asked again by the next run."""
    failures: Mapping[str, int] = field(default_factory=dict)
    """The same by reason."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Task -> time of all its answers."""


class AskedTask:
    """One task as a model is asked."""

    def __init__(self, recipe: Recipe, loaded: LoadedTask) -> None:
        self.task: Task = loaded.task
        settings = recipe.eval
        self.problems: dict[str, Problem] = {
            problem.id: with_instructions(problem, settings.system, None) for problem in loaded.problems
        }
        """By id."""
        self.trials = settings.trials or self.task.trials
        self.limit = min(settings.max_new_tokens or self.task.max_new_tokens, self.task.max_new_tokens)
        """Tokens of an answer at most."""
        self._seed = recipe.seed

    def requests(self) -> Iterator[tuple[Problem, Request]]:
        """Requests with keys (task, id, trial), as ``Score.key``; first trials before second ones."""
        name = self.task.name
        for trial in range(self.trials):
            for id, problem in self.problems.items():
                yield (
                    problem,
                    Request(
                        (name, id, trial),
                        problem.messages,
                        answer_seed(self._seed, f"{name}:{id}", trial),
                        trial,
                        problem.tools,
                        group=name,
                        max_new_tokens=self.task.max_new_tokens,
                    ),
                )

    def has(self, row: Score) -> bool:
        """Whether this answer is asked for; of a task whose problems are not known, any answer."""
        return row.trial < self.trials and (row.id in self.problems or not self.problems)


def wanted_rows(rows: Iterable[Score], asked: Mapping[str, AskedTask]) -> list[Score]:
    """The rows that the tasks ask for."""
    return [row for row in rows if row.task in asked and asked[row.task].has(row)]


def recorded_failures(meta: Mapping[str, Any]) -> dict[str, int]:
    """Task -> requests without an answer in the latest run that asked the task, as the meta file has them."""
    return dict(meta.get("failed") or {})


def saved_rows(recipe: Recipe, tasks: Mapping[str, LoadedTask], path: Path) -> ModelRows:
    """The answers to the tasks in a file of scores of an earlier evaluation.

    Raises:
        DataError: an invalid row.
    """
    asked = {name: AskedTask(recipe, loaded) for name, loaded in tasks.items()}
    meta = outputs.read_meta(path)
    model = meta.get("settings", {}).get("model", path.stem)
    failures = {task: count for task, count in recorded_failures(meta).items() if task in asked}
    return ModelRows(model, str(path), wanted_rows(jsonl.read(path, Score), asked), failures)


def check_answered(answered: ModelRows, tasks: Mapping[str, LoadedTask]) -> None:
    """Check that a model has an answer to one of the tasks.

    Raises:
        Unfinished: no request was answered.
        UserError: its file has answers to other tasks.
    """
    if answered.rows:
        return
    if answered.failures:
        raise failed(answered.path, answers=0, failures=answered.failures)
    others = sorted({row.task for row in jsonl.read(Path(answered.path), Score)})
    options = " ".join(f"--task {name}" for name in others)
    raise UserError(
        f"no answers to {', '.join(tasks)}",
        where=answered.path,
        cure=f"the file has answers to other tasks: {options}" if others else "evaluate the model first",
    )
