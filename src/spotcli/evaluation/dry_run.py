"""The plan of an evaluation: what would be asked, and which losses the answers could exclude. No model is asked."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from spotcli.core.stats import excludable_loss, least_loss, problems_needed


@dataclass(frozen=True)
class PlannedTask:
    """What one task would ask each model."""

    task: str
    group: str
    trained: bool
    problems: int
    trials: int
    max_new_tokens: int

    @property
    def requests(self) -> int:
        """Answers of one model."""
        return self.problems * self.trials

    @property
    def excludable(self) -> float:
        """The smallest loss, as a share, that the task could exclude with a chance of 80 % if nothing was lost."""
        return excludable_loss([(self.problems, self.trials)])


@dataclass(frozen=True)
class EvalPlan:
    """The result of ``spot eval --dry-run``."""

    models: list[str]
    """The base model if there is one, the evaluated model, and further models."""
    compared: bool
    """Whether there is a base model."""
    tasks: list[PlannedTask]
    margin: float
    """The largest loss that does not matter, as a share."""

    @property
    def requests(self) -> int:
        """Answers of all models together."""
        return len(self.models) * sum(task.requests for task in self.tasks)

    @property
    def tokens(self) -> int:
        """Generated tokens, at most."""
        return len(self.models) * sum(task.requests * task.max_new_tokens for task in self.tasks)

    @property
    def untrained(self) -> list[PlannedTask]:
        return [task for task in self.tasks if not task.trained]

    @property
    def excludable(self) -> float | None:
        """The smallest loss that all untrained tasks could exclude together; None without such a task."""
        sizes = [(task.problems, task.trials) for task in self.untrained]
        return excludable_loss(sizes) if sizes else None

    def as_dict(self) -> dict[str, Any]:
        tasks = [asdict(task) | {"requests": task.requests, "excludable": task.excludable} for task in self.tasks]
        return asdict(self) | {
            "tasks": tasks,
            "requests": self.requests,
            "tokens": self.tokens,
            "excludable": self.excludable,
            "notes": self.notes(),
        }

    def notes(self) -> list[str]:
        """What the planned answers cannot show, in sentences."""
        if not self.compared:
            return ["Gains and retention are not measured: they require a base model (--against)."]
        if not self.untrained:
            return ["Retention is not measured: it requires a task that was not trained (--task, eval.trained)."]
        weak = [task for task in self.untrained if task.excludable > self.margin]
        notes = [self._weakness(task) for task in weak]
        if len(self.untrained) > 1 and self.excludable is not None:
            together = f"can exclude a loss above {100 * self.excludable:.1f} points"
            notes.append(
                f"All {sum(task.problems for task in self.untrained):,} untrained problems together {together}."
            )
        return notes or [f"Every untrained task can prove retention within {100 * self.margin:g} points."]

    def _weakness(self, task: PlannedTask) -> str:
        hopeless = least_loss(task.problems) > self.margin
        trials = f"{task.trials} trial{'' if task.trials == 1 else 's'}"
        return (
            f"{task.task} {'cannot' if hopeless else 'is not likely to'} prove retention within {100 * self.margin:g} "
            f"points: {task.problems:,} problems with {trials} can exclude a loss above {100 * task.excludable:.1f} "
            f"points if nothing was lost; about {problems_needed(self.margin, task.trials):,} problems are needed."
        )
