"""Where the files of a run are: in the folder of ``spot run``, or loose in a working folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from spotcli import jsonl, outputs, recipe_yaml
from spotcli.errors import RecipeError, SpotError, UserError
from spotcli.recipe import Recipe
from spotcli.reply_entries import Entry, read_entry

RECIPE = "recipe.yaml"
TRAINED = "spot-train.json"
"""The file of a trained model's folder that says how it was made."""
_NO_SCORES = (outputs.ANSWERS, outputs.UNGRADED, ".rates.jsonl", ".review.jsonl")
"""Endings of files in the folder of scores that are not scores."""

_READ_FOR_COMPLETION = 5000
"""Rows of a file that are read for completion."""
_COMPLETED = 50
"""Ids that completion offers at most."""


@dataclass(frozen=True)
class RunFiles:
    """The files of a run."""

    folder: Path
    recipe: Recipe
    """The resolved recipe of the folder; the defaults where there is none."""
    has_recipe: bool

    @classmethod
    def of(cls, folder: Path) -> RunFiles:
        """The files in a folder.

        Raises:
            UserError: the folder does not exist, or has no file of a run.
            RecipeError: its recipe is invalid.
        """
        if not folder.is_dir():
            raise UserError("folder not found", where=str(folder), cure=_other_runs(folder))
        path = folder / RECIPE
        files = cls(folder, recipe_yaml.load(path), True) if path.is_file() else cls(folder, Recipe(), False)
        if not files.existing:
            raise UserError("the folder has no file of a run", where=str(folder), cure=_other_runs(folder))
        return files

    @property
    def samples(self) -> Path:
        return self.folder / self.recipe.sample.output

    @property
    def pairs(self) -> Path:
        return self.folder / self.recipe.rectify.output

    @property
    def replies(self) -> Path:
        """The journal of the oracle's replies."""
        return self.pairs.with_name(f"{self.pairs.stem}.replies.jsonl")

    @property
    def checkpoint(self) -> Path:
        return self.folder / self.recipe.train.output

    @property
    def scores(self) -> Path:
        return self.folder / self.recipe.eval.output

    @property
    def score_files(self) -> list[Path]:
        """The files of scores, one per model."""
        names = sorted(self.scores.glob("*.jsonl")) if self.scores.is_dir() else []
        return [path for path in names if not path.name.endswith(_NO_SCORES)]

    @property
    def existing(self) -> list[Path]:
        """The files of stages that exist."""
        paths = [self.samples, self.pairs, self.replies, self.checkpoint / TRAINED]
        return [path for path in paths if path.is_file()] + self.score_files

    @cached_property
    def training(self) -> dict[str, Any]:
        """How the model was trained; empty without a model."""
        return jsonl.read_json(self.checkpoint / TRAINED)

    def entries(self) -> Iterator[Entry]:
        """The entries of the journal of replies.

        Raises:
            DataError: a line is invalid.
        """
        if self.replies.is_file():
            for where, _, row in jsonl.placed(self.replies):
                entry = read_entry(row, where)
                if entry is not None:
                    yield entry


def _other_runs(folder: Path) -> str:
    """The cure that names the folders of runs nearby."""
    for parent in (folder, folder.parent):
        names = sorted(str(path.parent) for path in (parent / "runs").glob("*/recipe.yaml"))
        if names:
            return f"name the folder of a run: {', '.join(names[:5])}{' ...' if len(names) > 5 else ''}"
    return "name the folder of a run, such as runs/NAME"


def run_folders(parent: Path = Path()) -> list[Path]:
    """The folders of runs in ``runs/``, for completion."""
    return sorted(path.parent for path in (parent / "runs").glob("*/recipe.yaml"))


def trained_folders(parent: Path = Path()) -> list[Path]:
    """The folders of trained models here and in runs, for completion."""
    return sorted(path.parent for path in [*parent.glob("*/spot-train.json"), *parent.glob("runs/*/*/spot-train.json")])


def ids_of(folder: Path, start: str) -> list[str]:
    """Ids of the samples and pairs of a run that begin with some letters, for completion."""
    ids: dict[str, None] = {}
    try:
        files = RunFiles.of(folder)
        for path in (files.samples, files.pairs):
            for row in islice(jsonl.rows(path), _READ_FOR_COMPLETION) if path.is_file() else ():
                if str(row.get("id", "")).startswith(start):
                    ids[str(row.get("id"))] = None
                if len(ids) == _COMPLETED:
                    return list(ids)
    except SpotError:
        pass
    return list(ids)


def run_recipe(checkpoint: Path) -> tuple[Recipe, Path] | None:
    """The recipe that a model was trained with, and the folder that its paths are relative to; None without one."""
    path = checkpoint / RECIPE
    if not path.is_file():
        return None
    try:
        recipe = recipe_yaml.load(path)
    except RecipeError:
        return None
    output = Path(recipe.train.output)
    own = checkpoint.resolve()
    steps = len(output.parts)
    if not output.is_absolute() and own.parts[-steps:] == output.parts:
        return recipe, own.parents[steps - 1]
    return recipe, own.parent


def meta_of(path: Path) -> dict[str, Any]:
    """The meta file of a dataset; empty if it is missing or damaged."""
    try:
        return outputs.read_meta(path)
    except SpotError:
        return {}
