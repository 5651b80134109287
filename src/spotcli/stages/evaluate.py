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
from spotcli.evaluation.retention import measure_drift
from spotcli.evaluation.scores import IN_DOMAIN, EvalSummary, ModelRows, TaskFacts
from spotcli.evaluation.summary import summarise, trained_tasks
from spotcli.evaluation.tasks import Task, load_task
from spotcli.evaluation.terminal import show
from spotcli.locks import Lock
from spotcli.recipe import Recipe

__all__ = ["EvalSummary", "evaluate", "show"]


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
    if not recipe.eval.tasks:
        raise RecipeError(
            "at least one task is required", where="eval.tasks", cure="--task arithmetic, or set it in the recipe"
        )
    require("train", "evaluation", "torch", "transformers")
    tasks = {name: load_task(name) for name in recipe.eval.tasks}
    path = folder / recipe.eval.output / f"{slug(model)}.summary.json"
    files.make_parent(path)
    with Lock(path):
        summary = _evaluate(recipe, tasks, model, against, folder=folder, fresh=fresh)
        jsonl.write_json(path, summary.as_dict())
    return summary


def _evaluate(
    recipe: Recipe, tasks: Mapping[str, Task], model: str, against: str | None, *, folder: Path, fresh: bool
) -> EvalSummary:
    """Answer the tasks, compare the models and measure drift."""
    started = time.monotonic()
    facts = {name: _facts(name, task) for name, task in tasks.items()}
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


def _facts(name: str, task: Task) -> TaskFacts:
    return TaskFacts(IN_DOMAIN if name == "arithmetic" else "other")
