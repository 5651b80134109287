"""The commands as functions, for notebooks and scripts: ``import spotcli; spotcli.rectify(oracle="symbolic")``.

A function takes the settings of its command, by the names of the recipe's keys, and returns the command's summary. It
has the same defaults, resumes in the same way and raises the errors that the command shows. It prints nothing unless
it is asked to, leaves no signal handler behind, and can be called from any thread, also while an event loop runs.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, overload

from spotcli import decisions, interrupts, jsonl, recipe_yaml
from spotcli.console import printing
from spotcli.errors import DataError, UserError, storage_errors_with_cures
from spotcli.problems.set_rows import file_rows
from spotcli.problems.sources import iter_problems
from spotcli.recipe import Recipe
from spotcli.recipe import section as recipe_keys_of
from spotcli.records import Pair, Problem, Row, Sample, Score, UngradedSample, kind_of

if TYPE_CHECKING:
    from spotcli.stages.evaluate import EvalSummary
    from spotcli.stages.rectify import RectifySummary
    from spotcli.stages.review import FileSummary
    from spotcli.stages.sample import SampleSummary
    from spotcli.stages.train import TrainSummary

__all__ = ["AnyRecipe", "AnyRow", "File", "evaluate", "read", "rectify", "review", "sample", "train"]

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])
R = TypeVar("R", bound=Row)

File = str | PathLike[str]
"""A path."""
AnyRecipe = Recipe | Mapping[str, Any] | str | PathLike[str]
"""A recipe, its values, or its YAML file."""
AnyRow = Problem | UngradedSample | Sample | Pair | Score


def _with_keys_of(section: str) -> Callable[[F], F]:
    """Show the keys of a section in the signature of a function that takes them as ``**settings``."""

    def decorate(function: F) -> F:
        *own, _ = inspect.signature(function).parameters.values()
        fields = _fields(section)
        keys = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=fields[name].annotation)
            for name in fields
            if name not in {parameter.name for parameter in own}
        ]
        signature = inspect.signature(function).replace(parameters=[*own, *keys])
        function.__signature__ = signature  # type: ignore[attr-defined]
        return function

    return decorate


def _fields(section: str) -> dict[str, Any]:
    model = recipe_keys_of(Recipe, section)
    assert model is not None
    shared = {name: Recipe.model_fields[name] for name in ("model", "seed", "grader")}
    return {**model.model_fields, **shared}


@_with_keys_of("sample")
def sample(
    problems: File | None = None,
    *,
    model: str | None = None,
    output: File | None = None,
    recipe: AnyRecipe | None = None,
    folder: File = ".",
    fresh: bool = False,
    shard: str | None = None,
    decontaminate: bool = False,
    progress: bool = False,
    **settings: Any,
) -> SampleSummary:
    """Answer problems with the policy and grade each answer, as ``spot sample`` does: problems -> samples.jsonl.

    Args:
        problems: a file, ``hf:org/name[:config][:split]`` or ``builtin:arithmetic``.
        model: the policy: a folder, a model of the hub or ``builtin:smollm2-135m``.
        output: the file of the samples.
        recipe: where settings that are not given come from.
        folder: what paths are relative to.
        fresh: start over; the old output is renamed.
        shard: answer only this part of the problems, such as ``1/4``.
        decontaminate: leave out problems that occur in the recipe's evaluation tasks.
        progress: print messages and progress to stderr.
        settings: keys of the recipe's section ``sample``, and ``seed`` and ``grader``.

    Raises:
        UserError: invalid settings or input, or the output was made with other settings.
        Unfinished: the run was stopped, or requests failed; the same call resumes.
    """
    from spotcli.stages.sample import Shard
    from spotcli.stages.sample import sample as stage

    given = {"problems": problems, "output": output, "model": model}
    resolved = _recipe("sample", recipe, given, settings)
    part = Shard.parse(shard) if shard else None
    return _call(
        lambda: stage(resolved, folder=Path(folder), fresh=fresh, shard=part, decontaminated=decontaminate), progress
    )


@_with_keys_of("rectify")
def rectify(
    samples: File | None = None,
    *,
    oracle: str | None = None,
    output: File | None = None,
    recipe: AnyRecipe | None = None,
    folder: File = ".",
    fresh: bool = False,
    dry_run: bool = False,
    replay: bool = False,
    progress: bool = False,
    **settings: Any,
) -> RectifySummary:
    """Correct the wrong answers with the smallest edit, as ``spot rectify`` does: samples.jsonl -> data.jsonl.

    Args:
        samples: the graded answers.
        oracle: who corrects: a litellm model, ``symbolic``, ``policy`` or ``policy-prompted``.
        output: the file of the pairs.
        recipe: where settings that are not given come from.
        folder: what paths are relative to.
        fresh: start over; the old files, replies included, are renamed.
        dry_run: estimate the requests and their cost; send and write nothing.
        replay: judge the recorded replies again; send nothing.
        progress: print messages and progress to stderr.
        settings: keys of the recipe's section ``rectify``, and ``model``, ``seed`` and ``grader``.

    Raises:
        UserError: invalid settings or input, or the output was made with other settings.
        Unfinished: wrong answers remain after failed requests or Ctrl-C; the same call resumes.
        BudgetReached: the next request could exceed ``max_cost``.
    """
    from spotcli.stages.rectify import Action
    from spotcli.stages.rectify import rectify as stage

    resolved = _recipe("rectify", recipe, {"samples": samples, "oracle": oracle, "output": output}, settings)
    action = Action.of(dry_run=dry_run, replay=replay)
    return _call(lambda: stage(resolved, folder=Path(folder), fresh=fresh, action=action), progress)


def review(
    data: File = "data.jsonl",
    *,
    where: str | None = None,
    id: str | None = None,
    against: File | None = None,
    html: File | None = None,
    show: bool = False,
    limit: int | None = None,
    recipe: AnyRecipe | None = None,
    folder: File = ".",
) -> FileSummary:
    """Summarise a file of pairs, samples, replies or scores, as ``spot inspect`` does; optionally as a page.

    Args:
        data: the file.
        where: only rows that match, such as ``ratio>0.3 and not verdict=right``.
        id: only the row with this id.
        against: scores of the base model to compare scores with.
        html: write an HTML page to this file.
        show: print the overview and the rows to stdout.
        limit: show at most this many rows.
        recipe: where settings, such as ``rectify.gamma``, come from.
        folder: what paths are relative to.

    Raises:
        UserError: the file does not exist, the id is unknown, or ``where`` is invalid.
        DataError: no row of the file can be read.
    """
    from spotcli.stages.review import Selection, View
    from spotcli.stages.review import review as stage

    resolved = _recipe("rectify", recipe, {}, {})
    view = View(limit=limit, html=Path(html) if html else None, quiet=not show)
    return _call(
        lambda: stage(
            resolved,
            data=Path(data),
            against=Path(against) if against else None,
            folder=Path(folder),
            selection=Selection(id, where),
            view=view,
        ),
        show,
    )


@_with_keys_of("train")
def train(
    data: File | None = None,
    *,
    model: str | None = None,
    output: File | None = None,
    recipe: AnyRecipe | None = None,
    folder: File = ".",
    fresh: bool = False,
    dry_run: bool = False,
    device: str = "h800",
    mfu: float = 0.4,
    progress: bool = False,
    **settings: Any,
) -> TrainSummary:
    """Train on the pairs and stay close to the starting policy, as ``spot train`` does: data.jsonl -> checkpoint.

    Args:
        data: the pairs.
        model: the starting policy.
        output: the folder of the trained model.
        recipe: where settings that are not given come from.
        folder: what paths are relative to.
        fresh: start over; the old folder is renamed.
        dry_run: estimate time and memory; load no weights, write nothing.
        device: the GPU of the estimate.
        mfu: the fraction of its peak FLOP/s that is used.
        progress: print messages and progress to stderr.
        settings: keys of the recipe's section ``train`` and of transformers' ``TrainingArguments``, and ``seed``.

    Raises:
        UserError: invalid settings or data, or the folder holds a run with other settings.
        Unfinished: stopped; the same call resumes from the last checkpoint.
    """
    from spotcli.stages.train import train as stage

    resolved = _recipe("train", recipe, {"data": data, "output": output, "model": model}, settings)
    return _call(
        lambda: stage(resolved, folder=Path(folder), fresh=fresh, dry_run=dry_run, device=device, utilisation=mfu),
        progress,
    )


@_with_keys_of("eval")
def evaluate(
    model: File,
    *,
    tasks: Sequence[str] | None = None,
    against: File | None = None,
    also: Sequence[File] = (),
    output: File | None = None,
    recipe: AnyRecipe | None = None,
    folder: File = ".",
    fresh: bool = False,
    rescore: bool = False,
    progress: bool = False,
    **settings: Any,
) -> EvalSummary:
    """Measure gains and drift, as ``spot eval`` does: checkpoint -> scores.

    Args:
        model: a folder, a model of the hub or a built-in model.
        tasks: names of tasks, problem sets or task files.
        against: the base model, for a paired test and the drift.
        also: more models for the tables, or files of their scores.
        output: the folder of the scores.
        recipe: where settings that are not given come from.
        folder: what paths are relative to.
        fresh: start over; the old scores are renamed.
        rescore: grade the saved answers again; ask no model.
        progress: print messages and progress to stderr.
        settings: keys of the recipe's section ``eval``, and ``seed`` and ``grader``.

    Raises:
        UserError: invalid settings, an unknown task or model, or the scores were made with other settings.
        Unfinished: the run was stopped, or answers are missing; the same call resumes.
    """
    from spotcli.stages.evaluate import evaluate as stage

    tasks = [tasks] if isinstance(tasks, str) else tasks
    resolved = _recipe("eval", recipe, {"tasks": tasks and list(tasks), "output": output}, settings)
    base, others = None if against is None else str(against), [str(other) for other in also]
    summary = _call(
        lambda: stage(
            resolved, model=str(model), against=base, also=others, folder=Path(folder), fresh=fresh, rescore=rescore
        ),
        progress,
    )
    summary.raise_if_unfinished()
    return summary


_RECORDS: Mapping[str, type[AnyRow]] = {
    record.kind: record for record in (Problem, UngradedSample, Sample, Pair, Score)
}
_TABLES = (".parquet", ".csv", ".tsv")


@overload
def read(path: File) -> list[AnyRow]: ...


@overload
def read(path: File, kind: type[R]) -> list[R]: ...


def read(path: File, kind: type[Row] | None = None) -> list[Any]:
    """Read a dataset of spot as typed rows; decisions of reviewers are applied to pairs.

    Args:
        path: a file of problems, answers, samples, pairs or scores (JSONL, or Parquet, CSV and TSV).
        kind: the record of the rows, such as ``Pair``; by default that of the first row.

    Raises:
        DataError: a row is invalid, with file and line.
        UserError: the file does not exist, or has rows of another kind.
    """
    source = Path(path)
    with storage_errors_with_cures(), printing(False):
        record = kind or _record_of(source)
        if record is Problem:
            return list(iter_problems(str(source), folder=Path(), seed=0, limit=None))
        rows: Iterator[Row]
        if source.suffix.lower() in _TABLES:
            rows = (jsonl.as_record(row, record, where=where) for where, _, row in file_rows(source))
        else:
            rows = jsonl.read(source, record)
        if issubclass(record, Pair):
            decided = decisions.read(source)
            return [decided.applied(row) for row in rows if isinstance(row, Pair)]
        return list(rows)


def _record_of(path: Path) -> type[AnyRow]:
    rows = file_rows(path) if path.suffix.lower() in _TABLES else jsonl.placed(path)
    where, _, first = next(iter(rows), ("", 0, None))
    if first is None:
        raise UserError("the file is empty", where=str(path), cure="read a file with rows")
    if "kind" in first and "key" in first:
        raise UserError("expected a dataset, got a journal of replies", where=str(path), cure="read the pairs")
    record = _RECORDS.get(kind_of(first))
    if record is None:
        raise DataError("the row is of no known kind", where=where, cure="problems require prompt; docs/python.md")
    return record


def _recipe(section: str, base: AnyRecipe | None, given: Mapping[str, Any], settings: Mapping[str, Any]) -> Recipe:
    """The recipe of a call: the base, and on top of it the arguments that are not None and all ``settings``."""
    arguments = {name: value for name, value in given.items() if value is not None} | dict(settings)
    keys = _fields(section)
    shared = {name for name in ("model", "seed", "grader") if keys[name] is Recipe.model_fields[name]}
    values = {
        name if name in shared else f"{section}.{name}": str(value) if isinstance(value, PathLike) else value
        for name, value in arguments.items()
    }
    source = base if base is None or isinstance(base, Recipe | Mapping) else Path(base)
    return recipe_yaml.with_values(source, values, lambda key: f"argument {key.rpartition('.')[2]}")


def _call(work: Callable[[], T], progress: bool) -> T:
    """Run a stage.

    Raises:
        SpotError: what the command shows without a traceback.
    """
    with printing(progress), storage_errors_with_cures():
        return interrupts.outside_event_loop(work)
