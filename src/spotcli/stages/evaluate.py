"""checkpoint -> scores: what training gained, and what it cost.

    spot eval checkpoint --task arithmetic --against builtin:smollm2-135m

Every answer to every held-out problem is one graded row of ``scores/MODEL.jsonl``, so scores can be recomputed and
trials added later. Against a base model, both models are compared problem by problem with a paired test, and drift is
measured: the mean per-token KL from the base model on neutral prompts. scores/MODEL.report.html shows all of it, with
the problems that were lost and won as diffs of both answers. Checkpoints are not selected by score, because
that would make the test split part of the training.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from spotcli import files, jsonl
from spotcli.console import say, warn
from spotcli.errors import RecipeError, UserError, require
from spotcli.evaluation.answers import ModelEvaluation, refuse_shared_files, scores_path
from spotcli.evaluation.asked_tasks import ModelRows, check_answered, saved_rows
from spotcli.evaluation.dry_run import EvalPlan, PlannedTask
from spotcli.evaluation.held_out import overlaps
from spotcli.evaluation.publication import describe, publish
from spotcli.evaluation.published_scores import PublishedTable, compare_published, published_table
from spotcli.evaluation.rescoring import load_saved_tasks, rescored_rows
from spotcli.evaluation.retention import Drift, measure_drift, saved_drift
from spotcli.evaluation.scores import EvalSummary, TaskFacts
from spotcli.evaluation.summary import summarise, trained_tasks
from spotcli.evaluation.tasks import LoadedTask, TaskContext, load_task, load_tasks
from spotcli.evaluation.terminal import show, show_plan, show_tables
from spotcli.locks import Lock, check_free
from spotcli.policies.models import plain_name
from spotcli.recipe import Recipe

__all__ = ["EvalPlan", "EvalSummary", "check_tasks", "evaluate", "plan", "show", "show_plan", "show_tables"]


def evaluate(  # noqa: PLR0913  # the models, and how the run starts
    recipe: Recipe,
    *,
    model: str,
    against: str | None = None,
    also: Sequence[str] = (),
    folder: Path = Path(),
    fresh: bool = False,
    rescore: bool = False,
) -> EvalSummary:
    """Score a model on the recipe's tasks, and compare it with a base model if one is given.

    Args:
        recipe: the whole recipe.
        model: a folder, a hub id, a built-in model, or a model of the endpoint.
        against: the base model.
        also: more models for the tables, or files of scores.
        folder: for relative paths.
        fresh: set existing scores aside and start over.
        rescore: grade the saved answers again; no model is asked.

    Raises:
        RecipeError: `eval.tasks` is empty, or `eval.published` is unknown.
        UserError: a task is unknown, a model is not found, or another process evaluates the model.
        SettingsChanged: the scores were made with other settings, weights or problems.
        Unfinished: the run was stopped, or a model answered nothing.
    """
    if fresh and rescore:
        raise UserError("--fresh and --rescore are mutually exclusive", where="--rescore", cure="remove one of them")
    model, *also = (plain_name(name, folder) for name in (model, *also))
    against = against and plain_name(against, folder)
    context, table = _context(recipe, folder), published_table(recipe.eval.published)
    tasks = load_saved_tasks(recipe.eval.tasks, context) if rescore else load_tasks(recipe.eval.tasks, context)
    facts = {name: _facts(loaded) for name, loaded in tasks.items()}
    start = _Start(
        recipe, tasks, facts, trained_tasks(facts, recipe.eval.trained), folder, table, fresh=fresh, rescore=rescore
    )
    path = scores_path(recipe, model, folder).with_suffix(".summary.json")
    check_free(path)
    models = _models(start, [*filter(None, (against, model)), *also])
    files.make_parent(path)
    with Lock(path):
        summary, rows = _evaluate(start, models, model, against, also)
        summary = describe(recipe, summary, folder)
        jsonl.write_json(path, summary.as_dict())
        publish(recipe, summary, rows, folder)
    return summary


def check_tasks(recipe: Recipe, folder: Path = Path()) -> None:
    """Check that the tasks of a recipe are known, without their problems.

    Raises:
        UserError: a task is unknown, with the nearest name.
        RecipeError: an invalid task file.
    """
    for name in recipe.eval.tasks:
        load_task(name, _context(recipe, folder))


@dataclass(frozen=True)
class _Start:
    """What is evaluated, and how the run starts."""

    recipe: Recipe
    tasks: Mapping[str, LoadedTask]
    facts: Mapping[str, TaskFacts]
    trained: Sequence[str]
    """The tasks that the training was for."""
    folder: Path
    published: PublishedTable | None
    fresh: bool
    rescore: bool
    """Grade saved answers again; ask no model."""


_Models = Mapping[str, ModelEvaluation]
"""The models by name; files of scores are not among them."""


def _models(start: _Start, names: Sequence[str]) -> _Models:
    """The models that are not files of scores, checked before anything is written.

    Raises:
        UserError: one of them is not found, or cannot be asked; or two of them have one file of scores.
    """
    models = {
        name: ModelEvaluation(start.recipe, start.tasks, name, folder=start.folder)
        for name in dict.fromkeys(names)
        if not (start.folder / name).is_file()
    }
    refuse_shared_files(models)
    if not start.rescore:
        for evaluation in models.values():
            evaluation.check(fresh=start.fresh)
    return models


def _evaluate(
    start: _Start, models: _Models, model: str, against: str | None, also: Sequence[str]
) -> tuple[EvalSummary, list[ModelRows]]:
    """Answer the tasks, compare the models and measure drift; return the answers of each model too."""
    started = time.monotonic()
    settings = start.recipe.eval
    facts, trained = start.facts, start.trained
    pair = [name for name in (against, model) if name]
    rows = _rows(start, models, [*pair, *also])
    drift = _drift(start, models, pair, rows[against], trained) if against and settings.drift else None
    answered = [rows[name] for name in [*pair, *(name for name in rows if name not in pair)]]
    summary = summarise(
        answered,
        facts,
        compared=against is not None,
        trained=trained,
        margin=settings.margin / 100,
        overlaps=_overlaps(start),
    )
    published = compare_published(start.published, [*summary.models[: len(pair)]]) if start.published else []
    failures = sum((Counter(part.failures) for part in rows.values()), Counter[str]())
    seconds = time.monotonic() - started
    return replace(summary, drift=drift, published=published, failures=dict(failures), seconds=seconds), answered


def _rows(start: _Start, models: _Models, names: Sequence[str]) -> dict[str, ModelRows]:
    """The graded answers of each model, or of each file of scores, by name.

    Raises:
        Unfinished: no request to one of them was answered.
        UserError: a file has no answers to these tasks.
    """
    rows: dict[str, ModelRows] = {}
    for name in dict.fromkeys(names):
        if name not in models:
            rows[name] = saved_rows(start.recipe, start.tasks, start.folder / name)
        elif start.rescore:
            rows[name] = rescored_rows(start.recipe, start.tasks, name, folder=start.folder)
        else:
            rows[name] = models[name].answer(fresh=start.fresh)
        check_answered(rows[name], start.tasks)
    return rows


def _overlaps(start: _Start) -> dict[str, int]:
    """Task -> problems that also occur in the recipe's training file; empty without such a file."""
    training_file = start.folder / start.recipe.train.data
    if not training_file.is_file():
        return {}
    measured = overlaps(start.tasks, training_file)
    for name, overlap in measured.items():
        if overlap.problems:
            examples = ", ".join(overlap.examples) + (" ..." if overlap.problems > len(overlap.examples) else "")
            warn(f"{training_file}: {overlap.rows} rows contain {overlap.problems} problems of {name} ({examples})")
    return {name: overlap.problems for name, overlap in measured.items()}


def _drift(
    start: _Start, models: _Models, pair: Sequence[str], base: ModelRows, trained: Sequence[str]
) -> Drift | None:
    """The drift of a model; None, with a message, if the weights of one of the two models are not here."""
    for name in pair:
        if name not in models:
            say(f"drift is not measured: it requires the weights of both models, and {name} is a file of scores")
            return None
        if (engine := models[name].engine.name) not in ("vllm", "transformers"):
            who = "an endpoint" if engine == "api" else f"the engine {engine}"
            say(f"drift is not measured: it requires the weights of {name}, and {who} answers for this model")
            return None
        if models[name].has_no_weights:
            say(f"drift is not measured: it requires the weights of both models, and those of {name} are missing")
            return None
    model = pair[-1]
    if start.rescore:
        return saved_drift(start.recipe, model, base, trained, folder=start.folder)
    require("train", "measuring drift", "torch", "transformers")
    return measure_drift(start.recipe, model, base, trained, folder=start.folder, fresh=start.fresh)


def plan(
    recipe: Recipe, *, model: str, against: str | None, also: Sequence[str] = (), folder: Path = Path()
) -> EvalPlan:
    """Return what would be asked and which losses the answers could exclude; load and check the tasks, ask no model.

    Raises:
        RecipeError: `eval.tasks` is empty, or `eval.trained` has an unknown name.
        UserError: a task is unknown, or its problems are missing.
        DataError: a task has an invalid row.
    """
    tasks = load_tasks(recipe.eval.tasks, _context(recipe, folder))
    trained = trained_tasks({name: _facts(loaded) for name, loaded in tasks.items()}, recipe.eval.trained)
    limit = recipe.eval.max_new_tokens
    return EvalPlan(
        models=list(dict.fromkeys(name for name in (against, model, *also) if name and not (folder / name).is_file())),
        compared=against is not None,
        tasks=[
            PlannedTask(
                task=name,
                group=loaded.task.group,
                trained=name in trained,
                problems=len(loaded.problems),
                trials=recipe.eval.trials or loaded.task.trials,
                max_new_tokens=min(limit or loaded.task.max_new_tokens, loaded.task.max_new_tokens),
            )
            for name, loaded in tasks.items()
        ],
        margin=recipe.eval.margin / 100,
    )


def _context(recipe: Recipe, folder: Path) -> TaskContext:
    if not recipe.eval.tasks:
        raise RecipeError(
            "at least one task is required", where="eval.tasks", cure="--task arithmetic, or set it in the recipe"
        )
    return TaskContext.of(recipe, folder)


def _facts(loaded: LoadedTask) -> TaskFacts:
    return TaskFacts(loaded.task.group, loaded.task.chance, loaded.task.weights)
