"""Every stage of a recipe, in order, in one folder: runs/NAME.

    spot run recipes/smollm2-135m.yaml

Each stage resumes, so the same command continues an interrupted run. The folder contains the files of every stage, the
resolved recipe (recipe.yaml) and the summary (run.json).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from spotcli import files, jsonl, recipe_yaml
from spotcli.console import say
from spotcli.errors import RecipeError, SpotError, UserError
from spotcli.locks import Lock
from spotcli.recipe import Recipe
from spotcli.stages.evaluate import EvalSummary, evaluate
from spotcli.stages.rectify import RectifySummary, rectify
from spotcli.stages.sample import SampleSummary, sample
from spotcli.stages.train import TrainSummary, train

T = TypeVar("T")

CLOCK = "seconds.json"
"""The file of a run's folder with the time per stage; it exists from the first start on."""


@dataclass(frozen=True)
class RunSummary:
    """The summaries of all stages."""

    folder: str
    sample: SampleSummary
    rectify: RectifySummary
    train: TrainSummary
    eval: EvalSummary
    seconds: dict[str, float]
    """Time per stage, summed over all restarts of the run."""

    def as_dict(self) -> dict[str, Any]:
        """Return everything as a dictionary; the top level repeats the main results."""
        return {
            "pairs": self.rectify.pairs,
            **self.eval.main_results(),
            "seconds": sum(self.seconds.values()),
            "stage_seconds": self.seconds,
            "folder": self.folder,
            "sample": self.sample.as_dict(),
            "rectify": self.rectify.as_dict(),
            "train": self.train.as_dict(),
            "eval": self.eval.as_dict(),
        }


def run(recipe: Recipe, *, folder: Path, fresh: bool = False) -> RunSummary:
    """Sample, rectify, train and evaluate.

    Raises:
        RecipeError: ``model`` or ``eval.tasks`` is missing.
        UserError: another process runs it, or the folder is not one of a run.
        SpotError: a stage failed.
    """
    if recipe.model is None:
        raise RecipeError("the model is missing", where="model", cure="set `model` in the recipe")
    if not recipe.eval.tasks:
        raise RecipeError(
            "no evaluation task", where="eval.tasks", cure="set `eval: {tasks: [arithmetic]}` in the recipe"
        )
    files.make_parent(folder / CLOCK)
    with Lock(folder, "folder"):
        return _run(recipe, recipe.model, folder, fresh=fresh)


def _run(recipe: Recipe, model: str, folder: Path, *, fresh: bool) -> RunSummary:
    clock, resolved = folder / CLOCK, folder / "recipe.yaml"
    if resolved.exists() and not clock.exists():
        raise UserError(
            "the folder has a recipe that no run wrote", where=str(resolved), cure="write to another folder with -o"
        )
    _use_one_engine(recipe)
    _find_inputs(recipe, folder)
    seconds = {} if fresh else _earlier_seconds(clock)
    jsonl.write_json(clock, seconds)
    files.write_text(resolved, recipe_yaml.dump(recipe))

    def timed(stage: str, work: Callable[[], T]) -> T:
        say(f"── {stage}")
        started = time.monotonic()
        try:
            return work()
        finally:
            seconds[stage] = seconds.get(stage, 0.0) + time.monotonic() - started
            jsonl.write_json(clock, seconds)

    summary = RunSummary(
        folder=str(folder),
        sample=timed("sample", lambda: sample(recipe, folder=folder, fresh=fresh)),
        rectify=timed("rectify", lambda: rectify(recipe, folder=folder, fresh=fresh)),
        train=timed("train", lambda: train(recipe, folder=folder, fresh=fresh)),
        eval=timed(
            "eval", lambda: evaluate(recipe, model=recipe.train.output, against=model, folder=folder, fresh=fresh)
        ),
        seconds=seconds,
    )
    jsonl.write_json(folder / "run.json", summary.as_dict())
    return summary


LOCAL_ENGINE = ("engine", "python", "workers", "tensor_parallel", "vllm")
"""Keys of the engine that answers on this machine."""


def _use_one_engine(recipe: Recipe) -> None:
    """Have the evaluation use the sampling's engine, if the recipe sets none of its keys for the evaluation.

    An endpoint is not used: it does not have the checkpoint.
    """
    given = {key: source for key, source in recipe.sources.items() if key.startswith(("sample.", "eval."))}
    if any(f"eval.{name}" in given for name in LOCAL_ENGINE) or recipe.sample.engine == "api":
        return
    for name in LOCAL_ENGINE:
        source = given.get(f"sample.{name}")
        if source is not None:
            setattr(recipe.eval, name, getattr(recipe.sample, name))
            recipe.sources[f"eval.{name}"] = f"sample.{name} ({source})"


def _find_inputs(recipe: Recipe, folder: Path) -> None:
    """Have the stages, which work in the folder of the run, find the files that the recipe names from here.

    A file in the folder of the run comes first.
    """

    def found(name: str) -> str:
        return os.path.relpath(name, folder) if not (folder / name).exists() and Path(name).is_file() else name

    recipe.sample.problems = found(recipe.sample.problems)
    recipe.sample.decontaminate = [*map(found, recipe.sample.decontaminate)]
    recipe.eval.tasks = [*map(found, recipe.eval.tasks)]
    recipe.eval.trained = [*map(found, recipe.eval.trained)]
    for settings in recipe.eval.task_settings.values():
        settings.problems = settings.problems and found(settings.problems)
    data_dir = recipe.eval.data_dir
    if data_dir and not (folder / data_dir).exists() and Path(data_dir).is_dir():
        recipe.eval.data_dir = os.path.relpath(data_dir, folder)


def _earlier_seconds(clock: Path) -> dict[str, float]:
    """The time per stage of earlier starts; empty if the file is damaged."""
    try:
        values = jsonl.read_json(clock)
    except SpotError:
        return {}
    return {stage: float(value) for stage, value in values.items() if isinstance(value, int | float)}
