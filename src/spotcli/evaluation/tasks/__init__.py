"""Evaluation tasks by name: ``load_task`` returns the declaration, ``load_tasks`` the checked problems too.

A name is a built-in task, a task that an installed package registers, a problem set, or a task file. Everything that
can be wrong with a task's data is found here, before a model is loaded.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from os.path import abspath
from statistics import fmean

from spotcli import plugins
from spotcli.console import counted, warn
from spotcli.dataset_lines import close_name
from spotcli.errors import UserError
from spotcli.evaluation.tasks.builtin import ALIASES, BUILTIN, plain_name
from spotcli.evaluation.tasks.problem_sets import is_problem_set, task_of_set, with_settings
from spotcli.evaluation.tasks.published import SetNotFound, refuse_missing
from spotcli.evaluation.tasks.task import MAIN, Group, LoadedTask, Task, TaskContext
from spotcli.grading.answers import Completion, grade_answers, graded_fields
from spotcli.grading.kinds import grader_of, reference_letter
from spotcli.recipe import TaskSettings, suggest
from spotcli.records import Message, Problem, Score

__all__ = ["BUILTIN", "MAIN", "Group", "LoadedTask", "Task", "TaskContext", "is_task", "load_task", "load_tasks"]

_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w.-]*[\w-]")


def load_task(name: str, context: TaskContext | None = None) -> Task:
    """Return the declaration of a task, without its problems.

    Args:
        name: a built-in task (``math500``, ``MATH-500``), a task of an installed package, a problem set (a file or
            ``hf:NAME``), or a task file.
        context: folder of relative paths, and the default grader of problem sets.

    Raises:
        UserError: the task is unknown, with the nearest name; or an installed package registers no valid task.
        RecipeError: an invalid task file.
    """
    context = context or TaskContext()
    if builtin := ALIASES.get(plain_name(name)):
        plugins.warn_if_shadowed(plugins.TASKS, name)
        return BUILTIN[builtin]
    registered = plugins.registered(plugins.TASKS)
    if name in registered:
        return _installed(name)
    if _HUB_NAME.fullmatch(name) and not (context.folder / name).exists():
        raise UserError(f"unknown task '{name}'", where="eval.tasks", cure=f"a data set of the hub is hf:{name}")
    if is_problem_set(name, context.folder):
        return task_of_set(name, context)
    known = [*BUILTIN, *registered]
    cure = suggest(name, known)
    if not cure.startswith("did you mean"):
        cure = f"use {', '.join(known)}, a file (.jsonl, .parquet, .csv), hf:org/name, or a task file (.yaml)"
    raise UserError(f"unknown task '{name}'", where="eval.tasks", cure=cure)


def is_task(name: str) -> bool:
    """Whether a name is a built-in task, a task of an installed package or a task file, and no problem set."""
    return (
        plain_name(name) in ALIASES
        or name in plugins.registered(plugins.TASKS)
        or name.lower().endswith((".yaml", ".yml"))
    )


def load_tasks(names: Iterable[str], context: TaskContext) -> dict[str, LoadedTask]:
    """Load and check the problems and the graders of tasks.

    Returns:
        The tasks by ``Task.name``, in the order of the names.

    Raises:
        UserError: a task is unknown, its problems are missing or not the published ones, or a grader is unknown.
        DataError: an invalid row.
    """
    settings = {_place(load_task(name, context).name, context): given for name, given in context.settings.items()}
    loaded: dict[str, LoadedTask] = {}
    missing: list[SetNotFound] = []
    for task in (load_task(name, context) for name in names):
        try:
            loaded[task.name] = _load(task, settings.get(_place(task.name, context)), context)
        except SetNotFound as error:
            missing.append(error)
    refuse_missing(missing)
    _warn_of_unused(context.settings, context)
    return loaded


def _place(name: str, context: TaskContext) -> str:
    """A name that is the same for every spelling of a path, such as ``mine.jsonl`` and ``./mine.jsonl``."""
    return name if name in BUILTIN or name.startswith("hf:") else abspath(context.folder / name)


def _warn_of_unused(names: Iterable[str], context: TaskContext) -> None:
    """Warn of settings for files that do not exist: probably a misspelled task."""
    for name in names:
        path = context.folder / name
        if is_problem_set(name, context.folder) and not name.startswith("hf:") and not path.exists():
            near = close_name(path)
            warn(f"eval.task_settings: the file {name} does not exist" + (f"; did you mean '{near}'?" if near else ""))


def _load(task: Task, settings: TaskSettings | None, context: TaskContext) -> LoadedTask:
    if settings:
        task, context = with_settings(task, settings), replace(context, problems=settings.problems)
    problems = task.load(context)[: context.limit]
    if not problems:
        raise UserError("the task has no problems", where=task.name, cure="use another problem set")
    repeated = [id for id, number in Counter(problem.id for problem in problems).items() if number > 1]
    if repeated:
        raise UserError(
            f"{len(repeated)} problem ids occur more than once, such as {repeated[0]!r}",
            where=task.name,
            cure="give each problem a unique id, or remove the ids",
        )
    for grader in {problem.grader for problem in problems}:
        grader_of(grader, task.grader)
    _check_letters(task, problems)
    if task.constant_response is not None:
        task = replace(task, chance=_chance(task, problems, task.constant_response))
    return LoadedTask(task, [_instructed(problem, task.instruction) for problem in problems])


def _check_letters(task: Task, problems: list[Problem]) -> None:
    """Check that the references of multiple-choice questions are letters: answers to others stay undecided.

    Raises:
        UserError: no reference is a letter.
    """
    asked = [problem for problem in problems if (problem.grader or task.grader) == "choice" and problem.reference]
    unread = [problem for problem in asked if not any(map(reference_letter, problem.references))]
    if not unread:
        return
    text = f"the reference answer {unread[0].references[0][:40]!r} is not a choice letter"
    if len(unread) == len(asked):
        raise UserError(
            text,
            where=unread[0].source or task.name,
            cure="write the letter of the right choice, or use another grader",
        )
    warn(f"{task.name}: {text}; answers to {counted(len(unread), 'problem')} of this kind will be undecided")


def _chance(task: Task, problems: list[Problem], response: str) -> Mapping[str, float]:
    """What a response scores that is the same for every problem, by metric."""
    completions = [Completion(problem, response, "stop") for problem in problems]
    scores = [
        Score.model_validate(
            completion.problem.model_dump(exclude_unset=True)
            | {"task": task.name, "split": "eval"}
            | graded_fields(completion, grade)
        )
        for completion, grade in zip(completions, grade_answers(completions, task.grader), strict=True)
    ]
    rows = [{MAIN: float(score.verdict == "right")} | (task.metrics(score) if task.metrics else {}) for score in scores]
    return {metric: fmean(row[metric] for row in rows) for metric in rows[0]}


def _instructed(problem: Problem, instruction: str | None) -> Problem:
    """The problem with the instruction appended to its last message; its id stays the same."""
    if not instruction:
        return problem
    if isinstance(problem.prompt, str):
        return problem.model_copy(update={"prompt": f"{problem.prompt}\n\n{instruction}"})
    messages: list[Message] = [{**message} for message in problem.prompt]
    messages[-1]["content"] = f"{messages[-1]['content']}\n\n{instruction}"
    return problem.model_copy(update={"prompt": messages})


def _installed(name: str) -> Task:
    """The task of an entry point: a ``Task``, or a function without arguments that returns one.

    Raises:
        UserError: it cannot be loaded, is no task, or several packages register the name.
    """
    task = plugins.load(plugins.TASKS, name, key="eval.tasks")
    try:
        task = task() if callable(task) else task
    except Exception as error:
        raise plugins.failed(plugins.TASKS, name, error) from error
    if not isinstance(task, Task):
        message = f"expected a spotcli.evaluation.tasks.Task, got {type(task).__name__}"
        raise plugins.invalid(plugins.TASKS, name, message)
    return task if task.name == name else replace(task, name=name)
