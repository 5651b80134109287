"""The output folder of a run: identity of the run, spot-train.json, checkpoints, restart."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from spotcli import jsonl, outputs
from spotcli.console import note_renamed_fields, say
from spotcli.errors import SettingsChanged, SpotError
from spotcli.training.summary import RENAMED, TrainSummary

META = "spot-train.json"
STATE = "spot-state.json"
"""The file of a checkpoint that is written last; it lists the other files with their sizes."""

_ADDED = {"save_dtype", "rounding"}
"""Settings that runs of earlier versions do not have; such a run resumes with today's values."""

_CURE = "--fresh restarts (the old folder is kept), -s train.output=... writes to another folder"


@dataclass(frozen=True)
class RunIdentity:
    """Everything that the trained weights depend on, to compare with an earlier start of the run."""

    settings: dict[str, Any]
    inputs: dict[str, str | None]
    """``data`` (SHA-256), ``model`` and ``model weights``."""

    def differences(self, earlier: RunMeta) -> list[str]:
        """Each setting and input that differs from an earlier start, with both values."""
        pairs = ((earlier.settings, self.settings), (earlier.inputs, self.inputs))
        return [
            f"{name} was {json.dumps(old.get(name))}, now {json.dumps(new.get(name))}"
            for old, new in pairs
            for name in sorted(old.keys() | new.keys())
            if old.get(name) != new.get(name) and not (name in _ADDED and name not in old)
        ]


@dataclass(frozen=True)
class RunMeta:
    """The content of spot-train.json: how the folder was made."""

    settings: Mapping[str, Any]
    inputs: Mapping[str, Any]
    versions: Mapping[str, str]
    started: str
    complete: bool = False
    finished: str | None = None
    summary: TrainSummary | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON; without ``finished`` and ``summary`` while the run is not complete."""
        values = {"command": "train", **asdict(self)}
        return values if self.complete else {name: value for name, value in values.items() if value is not None}

    def completed(self, summary: TrainSummary) -> RunMeta:
        """The content for the complete run."""
        return replace(self, complete=True, finished=_now(), summary=summary)

    @classmethod
    def read(cls, path: Path) -> RunMeta | None:
        """The content of a file; None if the file does not exist.

        Raises:
            DataError: the file is not a JSON object.
        """
        values = jsonl.read_json(path)
        if not values:
            return None
        summary = values.get("summary")
        if summary is not None:
            note_renamed_fields(path, {old: new for old, new in RENAMED.items() if old in summary})
        return cls(
            settings=values.get("settings", {}),
            inputs=values.get("inputs", {}),
            versions=values.get("versions", {}),
            started=values.get("started", ""),
            complete=bool(values.get("complete")),
            finished=values.get("finished"),
            summary=TrainSummary.from_dict(summary) if summary is not None else None,
        )


@dataclass(frozen=True)
class RunFolder:
    """The output folder of a run."""

    path: Path

    @property
    def metrics(self) -> Path:
        """The file with one row per logged step."""
        return self.path / "metrics.jsonl"

    def set_aside(self) -> None:
        """Rename the folder to ``NAME.old-N``, if it exists."""
        if not self.path.exists():
            return
        number = 1
        while (aside := self.path.with_name(f"{self.path.name}.old-{number}")).exists():
            number += 1
        self.path.rename(aside)
        say(f"{self.path}: renamed the old folder to {aside.name}")

    def finished(self, identity: RunIdentity) -> TrainSummary | None:
        """The summary of a complete run with the same identity; None for a new or unfinished run.

        Raises:
            SettingsChanged: the folder holds another run, or other files.
        """
        meta = RunMeta.read(self.path / META)
        if meta is None:
            if self.path.is_dir() and any(self.path.iterdir()):
                raise SettingsChanged(f"the folder is not empty and has no {META}", where=str(self.path), cure=_CURE)
            return None
        has_weights = any(self.path.glob("checkpoint-*")) or (self.path / "model.safetensors").exists()
        if not meta.complete and not has_weights:
            return None
        if changed := identity.differences(meta):
            raise SettingsChanged(
                "trained with other settings: " + "; ".join(changed), where=str(self.path), cure=_CURE
            )
        return meta.summary if meta.complete else None

    def start(self, identity: RunIdentity, recipe: str) -> RunMeta:
        """Write spot-train.json, not complete yet, and recipe.yaml.

        Args:
            identity: of this run.
            recipe: the resolved recipe as YAML.
        """
        started = jsonl.read_json(self.path / META).get("started")
        meta = RunMeta(
            settings=identity.settings,
            inputs=identity.inputs,
            versions=outputs.versions(),
            started=started or _now(),
        )
        jsonl.write_json(self.path / META, meta.as_dict())
        (self.path / "recipe.yaml").write_text(recipe, encoding="utf-8")
        return meta

    def finish(self, meta: RunMeta, card: str) -> None:
        """Write the model card, then spot-train.json of the complete run."""
        (self.path / "README.md").write_text(card, encoding="utf-8")
        jsonl.write_json(self.path / META, meta.as_dict())

    def remove_checkpoints(self, after: int = 0) -> None:
        """Delete the checkpoints that were written after a training step, whole or not."""
        for checkpoint in checkpoints(self.path):
            if step_of(checkpoint) > after:
                shutil.rmtree(checkpoint)

    def last_checkpoint(self) -> Path | None:
        """The newest whole checkpoint."""
        return next((path for path in reversed(checkpoints(self.path)) if _is_whole(path)), None)

    def last_step(self) -> int:
        """The training step after which the run resumes; 0 without a whole checkpoint."""
        checkpoint = self.last_checkpoint()
        return step_of(checkpoint) if checkpoint else 0


def step_of(checkpoint: Path) -> int:
    """The training step after which a checkpoint was written."""
    return int(checkpoint.name.rpartition("-")[2])


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoint folders of a run, oldest first, whole or not."""
    folders = [path for path in folder.glob("checkpoint-*") if path.name.rpartition("-")[2].isdigit()]
    return sorted(folders, key=step_of)


def seal_checkpoint(checkpoint: Path, state: Mapping[str, Any]) -> None:
    """Write the state file of a checkpoint, which makes it a whole one."""
    files = {
        str(path.relative_to(checkpoint)): path.stat().st_size
        for path in sorted(checkpoint.rglob("*"))
        if path.is_file()
    }
    jsonl.write_json(checkpoint / STATE, {**state, "files": files})


def _is_whole(checkpoint: Path) -> bool:
    """Whether all files of a checkpoint exist with the sizes in its state file."""
    try:
        files = jsonl.read_json(checkpoint / STATE)["files"]
        return all((checkpoint / name).stat().st_size == size for name, size in files.items())
    except (SpotError, KeyError, OSError):
        return False


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
