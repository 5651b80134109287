"""``spot diff RUN RUN``: what differs between two runs: settings with their sources, versions, data and results."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from spotcli import jsonl
from spotcli.core.stats import Comparison, Estimate, avg_at_k, compare, holm
from spotcli.policies.fingerprint import combined
from spotcli.receipts.run_files import RECIPE, RunFiles, meta_of
from spotcli.recipe_yaml import flat_values
from spotcli.records import Score, prompt_digest
from spotcli.redaction import public_value
from spotcli.score_changes import base_scores

Fields = dict[str, Any]
Outcomes = dict[str, list[float]]
_PLACES = {"name", "sample.output", "rectify.output", "rectify.samples", "train.data", "train.output", "eval.output"}
"""Keys that name a run or its files."""

_NONE: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Difference:
    """A value that differs; None where a run has none."""

    first: Any
    second: Any
    first_source: str | None = None
    """Where the value of a setting came from: a file with its line, an option, or ``default``."""
    second_source: str | None = None


@dataclass(frozen=True)
class DataDifference:
    """The rows of one stage in both runs, by id and trial."""

    first_rows: int
    second_rows: int
    same: int
    """Rows that are equal in both, by their texts."""
    differ: int
    """Rows that both have, with other texts."""
    only_first: int
    only_second: int


@dataclass(frozen=True)
class ModelResult:
    """The scores of both runs on one task."""

    task: str
    model: str
    """``base`` or ``tuned``."""
    first: Estimate | None
    second: Estimate | None
    comparison: Comparison | None = None
    """On the problems and trials that both answered; None if there are none."""
    p_holm: float | None = None
    """The p-value corrected for the number of comparisons."""
    note: str | None = None


@dataclass(frozen=True)
class RunDiff:
    """What differs between two runs."""

    first: str
    second: str
    settings: dict[str, Difference] = field(default_factory=dict)
    versions: dict[str, Difference] = field(default_factory=dict)
    data: dict[str, DataDifference] = field(default_factory=dict)
    training: dict[str, Difference] = field(default_factory=dict)
    results: list[ModelResult] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    """What one of the runs does not have yet."""

    def as_dict(self) -> Fields:
        return asdict(self)


def diff(first: Path, second: Path) -> RunDiff:
    """Compare two runs.

    Raises:
        UserError: a folder does not exist, or has no file of a run.
        DataError: a row is invalid.
    """
    runs = RunFiles.of(first), RunFiles.of(second)
    missing = [
        f"{files.folder}: {what}"
        for files in runs
        for what, there in (
            (f"no {RECIPE}, so only the settings in the files' meta data are compared", files.has_recipe),
            ("not sampled", files.samples.is_file()),
            ("not rectified", files.pairs.is_file()),
            ("not trained", bool(files.training)),
            ("not evaluated", bool(files.score_files)),
        )
        if not there
    ]
    data = {
        name: _data(*paths)
        for name, paths in {
            "samples": [files.samples for files in runs],
            "pairs": [files.pairs for files in runs],
        }.items()
        if all(path.is_file() for path in paths)
    }
    return RunDiff(
        first=str(first),
        second=str(second),
        settings=_differences(*map(_settings, runs), *map(_sources, runs)),
        versions=_differences(*map(_versions, runs)),
        data=data,
        training=_differences(*map(_training, runs)),
        results=_results(*runs),
        missing=missing,
    )


def _differences(
    first: Fields, second: Fields, first_sources: Mapping[str, str] = _NONE, second_sources: Mapping[str, str] = _NONE
) -> dict[str, Difference]:
    return {
        key: Difference(first.get(key), second.get(key), first_sources.get(key), second_sources.get(key))
        for key in dict.fromkeys([*first, *second])
        if first.get(key) != second.get(key)
    }


def _settings(files: RunFiles) -> Fields:
    """Settings by dotted key: the recipe's, or those in the meta files."""
    if files.has_recipe:
        values = flat_values(files.recipe)
        return {key: public_value(value, key) for key, value in values.items() if key not in _PLACES}
    loose: Fields = {}
    for stage, settings in (
        ("sample", meta_of(files.samples).get("settings")),
        ("rectify", {**meta_of(files.pairs).get("settings", {}), **meta_of(files.pairs).get("filters", {})}),
        ("train", files.training.get("settings")),
    ):
        loose |= {f"{stage}.{key}": value for key, value in (settings or {}).items()}
    return loose


def _sources(files: RunFiles) -> dict[str, str]:
    """Where each value came from: the comment that the resolved recipe has behind it."""
    if not files.has_recipe:
        return {}
    lines = (files.folder / RECIPE).read_text(encoding="utf-8").splitlines()
    sources = {}
    for key, place in files.recipe.sources.items():
        number = place.rpartition(":")[2]
        line = lines[int(number) - 1] if number.isdigit() and int(number) <= len(lines) else ""
        _, mark, comment = line.rpartition("  # ")
        sources[key] = comment if mark else place
    return sources


def _versions(files: RunFiles) -> Fields:
    """Versions by stage and package."""
    stages = {
        "sample": meta_of(files.samples),
        "rectify": meta_of(files.pairs),
        "train": files.training,
        "eval": meta_of(files.score_files[-1]) if files.score_files else {},
    }
    return {
        f"{stage}.{name}": version
        for stage, meta in stages.items()
        for name, version in (meta.get("versions") or {}).items()
    }


def _training(files: RunFiles) -> Fields:
    """Inputs and results of the training."""
    meta = files.training
    summary = meta.get("summary") or {}
    values = {f"input {name}": value for name, value in (meta.get("inputs") or {}).items()}
    values |= {name: summary.get(name) for name in ("pairs", "rows", "steps", "first_loss") if name in summary}
    if weights := meta.get("weights"):
        values["weights"] = combined(weights)
    values |= {f"last {name}": value for name, value in (summary.get("final") or {}).items() if name in _LAST}
    return values


_LAST = ("loss", "margin", "accuracy", "tether", "rewards_chosen", "rewards_rejected")


def _data(first: Path, second: Path) -> DataDifference:
    old, new = _texts(first), _texts(second)
    common = old.keys() & new.keys()
    same = sum(old[key] == new[key] for key in common)
    return DataDifference(
        len(old), len(new), same, len(common) - same, len(old.keys() - new.keys()), len(new.keys() - old.keys())
    )


def _texts(path: Path) -> dict[tuple[Any, Any], int]:
    """Key of a row -> hash of what it says."""
    return {
        (row.get("id"), row.get("trial", 0)): hash(
            (prompt_digest(row.get("prompt", "")), *(str(row.get(name)) for name in ("response", "rejected", "chosen")))
        )
        for row in jsonl.rows(path)
    }


def _results(first: RunFiles, second: RunFiles) -> list[ModelResult]:
    """The scores of both runs, task by task, of the base models and of the trained ones."""
    sides = [_scores_by_role(files) for files in (first, second)]
    results: list[ModelResult] = []
    for role in ("base", "tuned"):
        outcomes = [_outcomes(side.get(role)) for side in sides]
        for task in dict.fromkeys(task for side in outcomes for task in side):
            results.append(_result(task, role, *(side.get(task, {}) for side in outcomes)))
    p_values = {f"{one.model} {one.task}": one.comparison.p_value for one in results if one.comparison}
    corrected = holm(p_values) if p_values else {}
    return [replace(one, p_holm=corrected.get(f"{one.model} {one.task}")) for one in results]


def _scores_by_role(files: RunFiles) -> dict[str, Path]:
    """The scores of the trained model and of its base model."""
    tuned = files.checkpoint.name
    own = [path for path in files.score_files if path.stem == tuned]
    others = [path for path in files.score_files if path.stem != tuned]
    if not own:
        return {"tuned": others[-1]} if others else {}
    base = base_scores(own[0]) or (others[0] if others else None)
    return {"tuned": own[0], **({"base": base} if base else {})}


def _outcomes(path: Path | None) -> dict[str, dict[tuple[str, int], tuple[float, str]]]:
    """Task -> (id, trial) -> whether the answer is right, and the digest of the prompt."""
    tasks: dict[str, dict[tuple[str, int], tuple[float, str]]] = defaultdict(dict)
    for row in jsonl.read(path, Score) if path else ():
        tasks[row.task][row.id, row.trial] = float(row.verdict == "right"), prompt_digest(row.prompt)
    return tasks


def _result(
    task: str, role: str, first: Mapping[tuple[str, int], tuple[float, str]], second: Mapping[Any, tuple[float, str]]
) -> ModelResult:
    estimates = [avg_at_k(_by_problem(side.keys(), side)) if side else None for side in (first, second)]
    common = [key for key in first if key in second and first[key][1] == second[key][1]]
    note = None
    if not common and first and second:
        note = "no problem in common, so there is no paired test"
    elif len(common) < max(len(first), len(second)) and first and second:
        note = f"compared on {len(common)} common answers"
    comparison = compare(_by_problem(common, first), _by_problem(common, second)) if common else None
    return ModelResult(task, role, estimates[0], estimates[1], comparison, note=note)


def _by_problem(keys: Iterable[tuple[str, int]], outcomes: Mapping[Any, tuple[float, str]]) -> Outcomes:
    by_problem: Outcomes = defaultdict(list)
    for id, trial in sorted(keys):
        by_problem[id].append(outcomes[id, trial][0])
    return by_problem
