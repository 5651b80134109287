"""checkpoint -> scores: what training gained, and what it cost.

    spot eval checkpoint --task arithmetic --against builtin:smollm2-135m

Every answer to every held-out problem is one graded row of ``scores/MODEL.jsonl``, so scores can be recomputed and
trials added later. Against a base model, both models are compared problem by problem with a paired test, and drift is
measured: the mean per-token KL from the base model on neutral prompts. Checkpoints are not selected by score, because
that would make the test split part of the training.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from spotcli import files, jsonl
from spotcli.errors import RecipeError, require
from spotcli.evaluation.answers import answer_tasks, slug
from spotcli.evaluation.dry_run import EvalPlan, PlannedTask
from spotcli.evaluation.retention import measure_drift
from spotcli.evaluation.scores import EvalSummary, ModelRows, TaskFacts
from spotcli.evaluation.summary import summarise, trained_tasks
from spotcli.evaluation.tasks import LoadedTask, TaskContext, load_tasks
from spotcli.evaluation.terminal import show, show_plan
from spotcli.locks import Lock
from spotcli.recipe import Recipe

__all__ = ["EvalPlan", "EvalSummary", "evaluate", "plan", "show", "show_plan"]


def evaluate(
    recipe: Recipe, *, model: str, against: str | None, folder: Path = Path(), fresh: bool = False
) -> EvalSummary:
    """Score a model on the recipe's tasks, and compare it with a base model if one is given.

    Args:
        recipe: the whole recipe.
        model: a folder, a hub id or a built-in model.
        against: the base model.
        folder: for relative paths.
        fresh: set existing scores aside and start over.

    Raises:
        RecipeError: `eval.tasks` is empty.
        UserError: a task is unknown, a model is not found, or another process evaluates the model.
        SettingsChanged: the scores were made with other settings or weights.
    """
    tasks = _load_tasks(recipe, folder)
    require("train", "evaluation", "torch", "transformers")
    path = folder / recipe.eval.output / f"{slug(model)}.summary.json"
    files.make_parent(path)
    with Lock(path):
        summary = _evaluate(recipe, tasks, model, against, folder=folder, fresh=fresh)
        jsonl.write_json(path, summary.as_dict())
    return summary


def _evaluate(
    recipe: Recipe, tasks: Mapping[str, LoadedTask], model: str, against: str | None, *, folder: Path, fresh: bool
) -> EvalSummary:
    """Answer the tasks, compare the models and measure drift."""
    started = time.monotonic()
    facts = {name: _facts(loaded) for name, loaded in tasks.items()}
    trained = trained_tasks(facts, recipe.eval.trained)
    base = answer_tasks(recipe, tasks, against, folder=folder, fresh=fresh) if against else None
    tuned = answer_tasks(recipe, tasks, model, folder=folder, fresh=fresh)
    drift = None
    if against and recipe.eval.drift:
        drift = measure_drift(recipe, model=model, base=against, folder=folder)
    summary = summarise(
        [
            ModelRows(name, str(part.path), part.rows)
            for name, part in ((against, base), (model, tuned))
            if name and part
        ],
        facts,
        compared=against is not None,
        trained=trained,
        margin=recipe.eval.margin / 100,
    )
    return replace(summary, drift=drift, seconds=time.monotonic() - started)


def plan(recipe: Recipe, *, model: str, against: str | None, folder: Path = Path()) -> EvalPlan:
    """Return what would be asked and which losses the answers could exclude; load and check the tasks, ask no model.

    Raises:
        RecipeError: `eval.tasks` is empty, or `eval.trained` has an unknown name.
        UserError: a task is unknown, or its problems are missing.
        DataError: a task has an invalid row.
    """
    tasks = _load_tasks(recipe, folder)
    trained = trained_tasks({name: _facts(loaded) for name, loaded in tasks.items()}, recipe.eval.trained)
    limit = recipe.eval.max_new_tokens
    return EvalPlan(
        models=[name for name in (against, model) if name],
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


def _load_tasks(recipe: Recipe, folder: Path) -> dict[str, LoadedTask]:
    """The tasks with their problems, checked."""
    if not recipe.eval.tasks:
        raise RecipeError(
            "at least one task is required", where="eval.tasks", cure="--task arithmetic, or set it in the recipe"
        )
    return load_tasks(recipe.eval.tasks, TaskContext.of(recipe, folder))


def _facts(loaded: LoadedTask) -> TaskFacts:
    return TaskFacts(loaded.task.group, loaded.task.chance, loaded.task.weights)
