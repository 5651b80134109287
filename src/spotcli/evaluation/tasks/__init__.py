"""Evaluation tasks by name: ``load_task`` returns the declaration, ``load_tasks`` the checked problems too.

Everything that can be wrong with a task's data is found here, before a model is loaded.
"""

from __future__ import annotations

from collections.abc import Iterable

from spotcli.errors import UserError
from spotcli.evaluation.tasks.builtin import BUILTIN
from spotcli.evaluation.tasks.task import MAIN, Group, LoadedTask, Task, TaskContext
from spotcli.recipe import suggest
from spotcli.records import Message, Problem

__all__ = ["BUILTIN", "MAIN", "Group", "LoadedTask", "Task", "TaskContext", "load_task", "load_tasks"]


def load_task(name: str) -> Task:
    """Return the declaration of a task.

    Raises:
        UserError: the task is unknown; the cure suggests the nearest name.
    """
    if name not in BUILTIN:
        raise UserError(f"unknown task '{name}'", where="eval.tasks", cure=suggest(name, list(BUILTIN)))
    return BUILTIN[name]


def load_tasks(names: Iterable[str], context: TaskContext) -> dict[str, LoadedTask]:
    """Load and check the problems of tasks.

    Returns:
        The tasks by ``Task.name``, in the order of the names.

    Raises:
        UserError: a task is unknown, or its problems are missing or empty.
        DataError: an invalid row.
    """
    loaded = {}
    for task in map(load_task, names):
        problems = task.load(context)[: context.limit]
        loaded[task.name] = LoadedTask(task, [_instructed(problem, task.instruction) for problem in problems])
    return loaded


def _instructed(problem: Problem, instruction: str | None) -> Problem:
    """The problem with the instruction appended to its last message; its id stays the same."""
    if not instruction:
        return problem
    if isinstance(problem.prompt, str):
        return problem.model_copy(update={"prompt": f"{problem.prompt}\n\n{instruction}"})
    messages: list[Message] = [{**message} for message in problem.prompt]
    messages[-1]["content"] = f"{messages[-1]['content']}\n\n{instruction}"
    return problem.model_copy(update={"prompt": messages})
