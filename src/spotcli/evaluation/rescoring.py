"""Saved answers graded again, without a model: ``spot eval --rescore``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from spotcli import jsonl, outputs
from spotcli.answering.graded import RowSettings
from spotcli.answering.journal import AnswerJournal, KeptAnswer
from spotcli.answering.loop import AT_ONCE
from spotcli.console import progress, warn
from spotcli.errors import UserError
from spotcli.evaluation.answers import scores_path
from spotcli.evaluation.asked_tasks import AskedTask, ModelRows, recorded_failures, wanted_rows
from spotcli.evaluation.graded_scores import ScoreGrading, grade_again
from spotcli.evaluation.tasks import LoadedTask, TaskContext, load_task, load_tasks
from spotcli.evaluation.tasks.problem_sets import with_settings
from spotcli.recipe import Recipe
from spotcli.records import Problem, Score, plain_prompt


def load_saved_tasks(names: Iterable[str], context: TaskContext) -> dict[str, LoadedTask]:
    """The tasks as ``load_tasks`` returns them, without the problems if these are not found now.

    Raises:
        UserError: a task is unknown.
    """
    try:
        return load_tasks(names, context)
    except UserError as error:
        tasks = [load_task(name, context) for name in names]
        warn(f"the answers are graded by the problems as they were asked: {error.message}")
    given = {load_task(name, context).name: settings for name, settings in context.settings.items()}
    tasks = [with_settings(task, given[task.name]) if task.name in given else task for task in tasks]
    return {task.name: LoadedTask(task, []) for task in tasks}


def rescored_rows(recipe: Recipe, tasks: Mapping[str, LoadedTask], model: str, *, folder: Path) -> ModelRows:
    """Grade a model's saved answers to the tasks again, and replace their rows.

    The problems are those of the tasks now; a problem that a task does not have, or has with another prompt, is graded
    as it was asked. Files of earlier versions have no journal: their rows are graded again.

    Raises:
        UserError: the model has no saved answers, or another process evaluates it.
        DataError: an invalid row.
    """
    path = scores_path(recipe, model, folder)
    journal_path = path.with_suffix(outputs.ANSWERS)
    if not path.exists() and not journal_path.exists():
        raise UserError("no saved answers", where=str(path), cure="run the command without --rescore first")
    settings = outputs.read_meta(path).get("settings", {})
    inputs = outputs.read_meta(path).get("inputs")
    output = outputs.Output(path, command="spot eval", settings=settings, inputs=inputs, scan=lambda row: None)
    journal = AnswerJournal(journal_path, keeps_graded=True, keeps_tokens=True)
    with output, journal:
        asked = {name: AskedTask(recipe, loaded) for name, loaded in tasks.items()}
        rows = [*jsonl.read(output.path, Score)]
        answers = list(journal.read(lambda request: request.group not in asked))
        recorded = {kept.key[:2]: kept.problem for kept in answers}
        keys = {row.key for row in rows}
        rows += _missing_rows(asked, [kept for kept in answers if kept.key not in keys], output.meta)
        graded = list(_graded(rows, asked, recorded))
        output.replace(graded)
        wanted = wanted_rows(graded, asked)
        output.finish(Counter(row.verdict for row in wanted), complete=output.meta.complete)
    notes = output.meta.notes
    failures = {task: count for task, count in recorded_failures(notes).items() if task in asked}
    return ModelRows(model, str(path), wanted, failures, seconds=notes.get("seconds", {}))


def _missing_rows(asked: Mapping[str, AskedTask], answers: list[KeptAnswer], meta: outputs.Meta) -> list[Score]:
    """Rows of saved answers that have none."""
    engine = meta.notes.get("engine", {}).get("name")
    parameters: dict[str, Any] = {"model": meta.settings.get("model"), "engine": engine}
    parameters |= {name: meta.settings.get(name) for name in ("temperature", "top_p", "top_k")}
    settings = RowSettings(parameters, keeps_tokens=bool(meta.settings.get("keep_tokens")))
    return ScoreGrading({name: task.task for name, task in asked.items()}, settings)(answers)


def _graded(
    rows: list[Score], asked: Mapping[str, AskedTask], recorded: Mapping[tuple[str, str], Problem]
) -> Iterator[Score]:
    """All rows in their order; those of the asked tasks are graded again."""

    def problem_of(row: Score) -> Problem:
        now = asked[row.task].problems.get(row.id)
        if now and plain_prompt(now.prompt) == plain_prompt(row.prompt):
            return now
        return recorded.get((row.task, row.id), row)

    with progress("answers") as display:
        bar = display.add_task("rescore", total=len(rows), note="")
        for group in _groups(rows):
            display.update(bar, advance=len(group))
            if (task := asked.get(group[0].task)) is None:
                yield from group
            else:
                yield from grade_again(group, task.task, [problem_of(row) for row in group])


def _groups(rows: Iterable[Score]) -> Iterator[list[Score]]:
    """Consecutive rows of one task, at most ``AT_ONCE``."""
    for _, of_task in groupby(rows, key=lambda row: row.task):
        part = list(of_task)
        yield from (part[start : start + AT_ONCE] for start in range(0, len(part), AT_ONCE))
