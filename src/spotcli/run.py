"""Every stage of a recipe, in order, in one folder: runs/NAME.

    spot run recipes/smollm2-135m.yaml

Each stage resumes, so the same command continues an interrupted run. The folder contains the files of every stage, the
resolved recipe (recipe.yaml), the summary (run.json) and the page (report.html).
"""

from __future__ import annotations

import os
import shlex
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from spotcli import files, jsonl, recipe_yaml
from spotcli.console import observed_progress, one_line, out, say
from spotcli.errors import BudgetReached, RecipeError, SpotError, Unfinished, UserError
from spotcli.locks import Lock
from spotcli.recipe import Recipe
from spotcli.runs.report import write_report
from spotcli.runs.status import CLOCK, STAGES, SUMMARY, ProgressFile, is_complete
from spotcli.stages.evaluate import EvalSummary, evaluate
from spotcli.stages.rectify import RectifySummary, rectify
from spotcli.stages.sample import SampleSummary, sample
from spotcli.stages.train import TrainSummary, train

T = TypeVar("T")


@dataclass(frozen=True)
class RunSummary:
    """The summaries of the stages that ran, and of those that an earlier start ran."""

    folder: str
    sample: SampleSummary | None = None
    rectify: RectifySummary | None = None
    train: TrainSummary | None = None
    eval: EvalSummary | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    """Time per stage, summed over all restarts of the run."""
    earlier: dict[str, Any] = field(default_factory=dict)
    """Summaries of stages that this start left out, from run.json."""
    page: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return everything as a dictionary; the top level repeats the main results."""
        stages = {name: getattr(self, name) for name in STAGES}
        parts = {name: stage.as_dict() if stage else self.earlier.get(name) for name, stage in stages.items()}
        pairs = (parts["rectify"] or {}).get("pairs")
        return {
            "pairs": pairs,
            **(self.eval.main_results() if self.eval else {}),
            "seconds": sum(self.seconds.values()),
            "stage_seconds": self.seconds,
            "folder": self.folder,
            "page": self.page,
            **{name: part for name, part in parts.items() if part is not None},
        }


@dataclass(frozen=True)
class Range:
    """The stages that a start runs."""

    first: str = STAGES[0]
    last: str = STAGES[-1]

    @property
    def stages(self) -> tuple[str, ...]:
        return STAGES[STAGES.index(self.first) : STAGES.index(self.last) + 1]


WHOLE = Range()


def run(
    recipe: Recipe, *, folder: Path, fresh: bool = False, part: Range = WHOLE, max_hours: float | None = None
) -> RunSummary:
    """Sample, rectify, train and evaluate, or only some of these stages.

    Args:
        recipe: the whole recipe.
        folder: of the run.
        fresh: start over; the old output of each stage is renamed.
        part: the stages to run. The outputs of the stages before them must be complete.
        max_hours: stop after this time, over all starts of the run.

    Raises:
        BudgetReached: ``max_hours`` is over; finished work is saved.
        RecipeError: ``model`` or ``eval.tasks`` is missing.
        UserError: another process runs it, the folder is not one of a run, or a stage before ``part`` is incomplete.
        SpotError: a stage failed.
    """
    if recipe.model is None:
        raise RecipeError("the model is missing", where="model", cure="set `model` in the recipe")
    if "eval" in part.stages and not recipe.eval.tasks:
        raise RecipeError(
            "no evaluation task", where="eval.tasks", cure="set `eval: {tasks: [arithmetic]}` in the recipe"
        )
    if not part.stages:
        raise UserError(f"--from {part.first} is after --until {part.last}", where="--from", cure="exchange them")
    for stage in STAGES[: STAGES.index(part.first)]:
        if not is_complete(folder, stage):
            raise UserError(
                f"the stage {stage} is not complete",
                where=str(folder),
                cure=f"start with it: --from {stage}, or without --from",
            )
    files.make_parent(folder / CLOCK)
    with Lock(folder, "folder"), _stopped_after(max_hours, folder):
        return _run(recipe, recipe.model, folder, part, fresh=fresh)


@contextmanager
def _stopped_after(max_hours: float | None, folder: Path) -> Iterator[None]:
    """Interrupt the work when the time is over: the stages then save what is finished, as after SIGTERM.

    Raises:
        BudgetReached: the time is over.
    """
    if max_hours is None:
        yield
        return
    over = BudgetReached(
        f"the run reached --max-hours {max_hours:g}; finished work is saved",
        cure="continue with a larger --max-hours",
    )
    remaining = 3600 * max_hours - sum(_earlier_seconds(folder / CLOCK).values())
    if remaining <= 0:
        raise over
    is_over = threading.Event()

    def stop() -> None:
        is_over.set()
        os.kill(os.getpid(), signal.SIGTERM)

    timer = threading.Timer(min(remaining, threading.TIMEOUT_MAX), stop)
    timer.daemon = True
    timer.start()
    try:
        yield
    except (KeyboardInterrupt, Unfinished):
        if is_over.is_set():
            raise over from None
        raise
    finally:
        timer.cancel()


def _run(recipe: Recipe, model: str, folder: Path, part: Range, *, fresh: bool) -> RunSummary:
    clock, resolved = folder / CLOCK, folder / "recipe.yaml"
    if resolved.exists() and not clock.exists():
        raise UserError(
            "the folder has a recipe that no run wrote", where=str(resolved), cure="write to another folder with -o"
        )
    _use_one_engine(recipe)
    find_inputs(recipe, folder)
    started_over = part.stages if fresh else ()
    seconds = {stage: time for stage, time in _earlier_seconds(clock).items() if stage not in started_over}
    earlier = _earlier_summaries(folder / SUMMARY, STAGES[: STAGES.index(part.first)])
    jsonl.write_json(clock, seconds)
    files.write_text(resolved, recipe_yaml.dump(recipe))
    progress = ProgressFile(folder)

    def timed(stage: str, work: Callable[[], T]) -> T | None:
        if stage not in part.stages:
            return None
        say(f"── {stage}")
        started, progress.stage = time.monotonic(), stage
        try:
            with observed_progress(progress):
                return work()
        finally:
            progress.remove()
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
        earlier=earlier,
    )
    page = write_report(folder, recipe.name, summary.as_dict())
    summary = replace(summary, page=str(page))
    jsonl.write_json(folder / SUMMARY, summary.as_dict())
    return summary


def show_end(summary: RunSummary, recipe: Path) -> None:
    """Print the verdict, the next command and the page.

    Args:
        recipe: the file that was run, for the next command.
    """
    console, folder = out(), Path(summary.folder)
    console.print()
    if summary.eval:
        for sentence in summary.eval.verdict:
            console.print(one_line(sentence), soft_wrap=True)
        lost = any(item.lost for item in summary.eval.comparisons.values())
        file = summary.eval.files[1] if lost else str(folder / "data.jsonl")
        following = f"spot inspect {shlex.quote(file)}" + (" --where lost" if lost else "")
    elif summary.train:
        following = f"spot run {shlex.quote(str(recipe))} -o {shlex.quote(summary.folder)} --from eval"
    else:
        following = f"spot inspect {shlex.quote(str(folder / ('data.jsonl' if summary.rectify else 'samples.jsonl')))}"
    console.print(f"Next: {one_line(following)}", soft_wrap=True)
    console.print(one_line(summary.page), soft_wrap=True)


def _earlier_summaries(path: Path, stages: tuple[str, ...]) -> dict[str, Any]:
    """What run.json says of some stages; nothing where it is missing or damaged."""
    try:
        values: Mapping[str, Any] = jsonl.read_json(path)
    except SpotError:
        return {}
    return {stage: values[stage] for stage in stages if isinstance(values.get(stage), dict)}


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


def find_inputs(recipe: Recipe, folder: Path) -> None:
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
