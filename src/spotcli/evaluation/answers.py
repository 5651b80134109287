"""A model's answers to the tasks: missing ones are answered, graded and appended to ``scores/MODEL.jsonl``."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from spotcli import jsonl, outputs
from spotcli.console import progress
from spotcli.errors import UserError
from spotcli.evaluation.tasks import LoadedTask, Task
from spotcli.grading.answers import Completion, grade_answers, graded_fields
from spotcli.policies import Answer, Failure, Request, Sampling, answer_seed
from spotcli.policies.fingerprint import SCORES, fingerprint
from spotcli.policies.models import resolve
from spotcli.policies.transformers import TransformersPolicy
from spotcli.recipe import EvalSection, Recipe
from spotcli.records import EVALUATION, Problem, Score


@dataclass(frozen=True)
class TaskAnswers:
    """A model's graded answers to all tasks of an evaluation."""

    path: Path
    """The file, which may have answers to other tasks too."""
    rows: list[Score]


@dataclass(frozen=True)
class _TaskRequests:
    """What one task asks a model."""

    name: str
    task: Task
    problems: dict[str, Problem]
    """By id."""
    requests: list[Request]
    """With keys (task, id, trial), as ``Score.key``."""


def answer_tasks(
    recipe: Recipe, tasks: Mapping[str, LoadedTask], model: str, *, folder: Path, fresh: bool
) -> TaskAnswers:
    """Answer and grade what the model's file does not have yet.

    Raises:
        UserError: the model is not found, or cannot answer a problem.
        SettingsChanged: the file was made with other settings or weights.
    """
    asked = [_requests(recipe, name, task) for name, task in tasks.items()]
    with _open(recipe.eval, recipe.seed, model, folder=folder, fresh=fresh) as output:
        for part in asked:
            _answer_missing(recipe.eval, part, model, folder, output)
        wanted = {request.key for part in asked for request in part.requests}
        rows = [row for row in jsonl.read(output.path, Score) if row.key in wanted]
        output.finish(Counter(row.verdict for row in rows))
    return TaskAnswers(output.path, rows)


def _open(settings: EvalSection, seed: int, model: str, *, folder: Path, fresh: bool) -> outputs.Output:
    location = model_path(model, folder)
    return outputs.Output(
        folder / settings.output / f"{slug(model)}.jsonl",
        command="spot eval",
        settings={
            "model": model,
            # A hub model is identified by its name.
            "fingerprint": fingerprint(location, SCORES) if Path(location).is_dir() else None,
            "seed": seed,
            "temperature": settings.temperature,
            "top_p": settings.top_p,
            "top_k": settings.top_k,
            "max_new_tokens": settings.max_new_tokens,
            "chat_template_kwargs": settings.chat_template_kwargs,
        },
        key=lambda row: (row["task"], row["id"], row["trial"]),
        fresh=fresh,
    )


def _requests(recipe: Recipe, name: str, loaded: LoadedTask) -> _TaskRequests:
    task = loaded.task
    problems = {problem.id: problem for problem in loaded.problems}
    requests = [
        Request((name, id, trial), problem.messages, answer_seed(recipe.seed, f"{name}:{id}", trial), trial)
        for trial in range(recipe.eval.trials or task.trials)
        for id, problem in problems.items()
    ]
    return _TaskRequests(name, task, problems, requests)


def _answer_missing(
    settings: EvalSection, asked: _TaskRequests, model: str, folder: Path, output: outputs.Output
) -> None:
    missing = sum(request.key not in output.done for request in asked.requests)
    if not missing:
        return
    policy = TransformersPolicy.load(
        model_path(model, folder),
        Sampling(
            min(settings.max_new_tokens, asked.task.max_new_tokens),
            settings.temperature,
            settings.top_p,
            settings.top_k,
        ),
        batch_size=settings.batch_size,
        dtype=settings.dtype,
        chat_template_kwargs=settings.chat_template_kwargs,
    )
    verdicts: Counter[str] = Counter()
    with progress("answers") as display:
        bar = display.add_task(f"{asked.name}, {Path(model).name}", total=missing, note="")
        for group in policy.answers(asked.requests, missing, lambda request: request.key in output.done):
            rows = [_graded(asked, expect_answer(item)) for item in group]
            output.append(rows)
            output.done.update(row.key for row in rows)
            verdicts.update(row.verdict for row in rows)
            note = " ".join(f"{verdict} {count}" for verdict, count in verdicts.items())
            display.update(bar, advance=len(rows), note=note)


def _graded(asked: _TaskRequests, answer: Answer) -> Score:
    _, id, trial = answer.request.key
    problem = asked.problems[id]
    completion = Completion(problem, answer.response, answer.finish_reason)
    return Score.model_validate(
        {
            **problem.model_dump(exclude_unset=True),
            "split": EVALUATION,
            "task": asked.name,
            "trial": trial,
            **graded_fields(completion, grade_answers([completion], asked.task.grader)[0]),
            "tokens": answer.tokens,
        }
    )


def expect_answer(item: Answer | Failure) -> Answer:
    """The answer to a problem of a task. Every model gets the same problems, so a failure is an error, not a score.

    Raises:
        UserError: the item is a failure.
    """
    if isinstance(item, Failure):
        raise UserError(
            f"the model cannot answer this problem: {item.reason}",
            where=str(item.request.key),
            cure="use a model with a longer context, or remove the task from eval.tasks",
        )
    return item


def model_path(model: str, folder: Path) -> str:
    """A model's folder relative to ``folder`` if it exists, else what ``models.resolve`` returns."""
    return str(folder / model) if (folder / model).is_dir() else resolve(model)


def slug(model: str) -> str:
    """A model's name as a file name."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", model).strip("-.") or "model"
