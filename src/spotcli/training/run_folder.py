"""The output folder of a run: identity of the run, spot-train.json, checkpoints, restart."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from spotcli import files, jsonl, outputs
from spotcli.console import note_renamed_fields, say, warn
from spotcli.errors import DataError, SettingsChanged, SpotError, UserError
from spotcli.locks import Lock, check_free
from spotcli.policies.fingerprint import weight_digests
from spotcli.recipe import TrainSection
from spotcli.training.summary import RENAMED, TrainSummary

META = "spot-train.json"
STATE = "spot-state.json"
"""The file of a checkpoint that is written last; it lists the other files with their sizes and digests."""

_TYPES: dict[str, type] = dict.fromkeys(("settings", "inputs", "versions", "summary", "weights"), dict)
_TYPES |= {"started": str, "complete": bool}
"""Types of the values in spot-train.json."""

_OWN = {META, "recipe.yaml", "metrics.jsonl", ".metrics.jsonl.lock"}
"""What a start that was killed at once leaves in its folder."""

_ADDED = {"save_dtype", "rounding"}
"""Settings that runs of earlier versions do not have; such a run resumes with today's values."""

_ADDED_OFF = ("keep_share", "focal_weight", "focal_tokens", "dpop_penalty", "kept_weight", "suffix_weight", "kept_kl")
"""Settings that runs of earlier versions do not have; such a run was trained with the default values of today."""

_CURE = "--fresh restarts (the old folder is kept), -s train.output=... writes to another folder"


@dataclass(frozen=True)
class RunIdentity:
    """Everything that the trained weights depend on, to compare with an earlier start of the run."""

    settings: dict[str, Any]
    inputs: dict[str, str | None]
    """``data`` (SHA-256), ``model`` and ``model weights``."""

    def differences(self, earlier: RunMeta) -> list[str]:
        """Each setting and input that differs from an earlier start, with both values."""
        defaults = {name: TrainSection.model_fields[name].default for name in _ADDED_OFF if name in self.settings}
        pairs = ((defaults | dict(earlier.settings), self.settings), (earlier.inputs, self.inputs))
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
    weights: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of the files of the trained weights and their configuration."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON; without ``finished``, ``summary`` and ``weights`` while the run is not complete."""
        values = {"command": "train", **asdict(self)}
        return values if self.complete else {name: value for name, value in values.items() if value not in (None, {})}

    def completed(self, summary: TrainSummary) -> RunMeta:
        """The content for the complete run."""
        return replace(self, complete=True, finished=_now(), summary=summary)

    @classmethod
    def read(cls, path: Path) -> RunMeta | None:
        """The content of a file; None if the file does not exist.

        Raises:
            DataError: the file is not a JSON object, or is damaged.
        """
        values = jsonl.read_json(path)
        if not values:
            return None
        outputs.check_types(values, _TYPES, path, _CURE)
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
            summary=cls._summary(summary, path) if summary is not None else None,
            weights=values.get("weights", {}),
        )

    @staticmethod
    def _summary(values: Mapping[str, Any], path: Path) -> TrainSummary:
        try:
            return TrainSummary.from_dict(values)
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise DataError(f"the file is damaged: invalid summary ({error})", where=str(path), cure=_CURE) from None


@dataclass(frozen=True)
class RunFolder:
    """The output folder of a run."""

    path: Path

    @property
    def metrics(self) -> Path:
        """The file with one row per logged step."""
        return self.path / "metrics.jsonl"

    def lock(self) -> Lock:
        """The lock of the folder, held while a run trains.

        Raises:
            UserError: another process holds it, or the folder cannot be created.
        """
        if self.path.exists() and not self.path.is_dir():
            raise UserError("expected a folder, got a file", where=str(self.path), cure="set train.output")
        files.make_parent(self.path)
        lock = Lock(self.path, "folder")
        try:
            check_free(self.metrics)  # processes of a command that was killed end by themselves, soon
        except BaseException:
            lock.release()
            raise
        return lock

    def set_aside(self) -> None:
        """Rename the folder to ``NAME.old-N``, if it exists; of a link, the folder that it names.

        Raises:
            UserError: the folder has files, and no run made it.
        """
        real = Path(os.path.realpath(self.path))
        names = {path.name for path in real.iterdir()} if real.is_dir() else set()
        if not names:
            return
        if META not in names and not names <= _OWN:
            raise UserError(
                f"the folder has no {META}, so --fresh does not rename it",
                where=str(self.path),
                cure="set train.output to a folder of its own, or move the folder away",
            )
        number = 1
        while os.path.lexists(aside := real.with_name(f"{real.name}.old-{number}")):
            number += 1
        real.rename(aside)
        if self.path.is_symlink():
            real.mkdir()
        say(f"{self.path}: renamed the old folder to {aside.name}")

    def finished(self, identity: RunIdentity) -> TrainSummary | None:
        """The summary of a complete run with the same identity; None for a new or unfinished run.

        Raises:
            SettingsChanged: the folder holds another run, or other files.
        """
        meta = RunMeta.read(self.path / META)
        if meta is None:
            if self.path.is_dir() and not {path.name for path in self.path.iterdir()} <= _OWN:
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
        files.write_text(self.path / "recipe.yaml", recipe)
        return meta

    def finish(self, meta: RunMeta, card: str) -> None:
        """Write the model card, then spot-train.json of the complete run."""
        (self.path / "README.md").write_text(card, encoding="utf-8")
        jsonl.write_json(self.path / META, replace(meta, weights=weight_digests(self.path)).as_dict())

    def remove_checkpoints(self, after: int = 0) -> None:
        """Delete the checkpoints that were written after a training step, whole or not."""
        for checkpoint in checkpoints(self.path):
            if step_of(checkpoint) > after:
                shutil.rmtree(checkpoint)

    def last_checkpoint(self) -> Path | None:
        """The newest whole checkpoint."""
        return next((path for path in reversed(checkpoints(self.path)) if _is_whole(path)), None)

    def remove_damaged(self) -> None:
        """Delete the newest checkpoints until one is as it was written, and name what is damaged.

        The caller holds the lock of the folder: otherwise another run may be writing a checkpoint.
        """
        for checkpoint in reversed(checkpoints(self.path)):
            if not _is_whole(checkpoint):
                shutil.rmtree(checkpoint)  # a kill interrupted it
            elif damaged := _damaged(checkpoint):
                warn(f"{checkpoint}: removed, because {', '.join(damaged)} changed after it was written")
                shutil.rmtree(checkpoint)
            else:
                return

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
    paths = [path for path in sorted(checkpoint.rglob("*")) if path.is_file()]
    entries = {
        str(path.relative_to(checkpoint)): {"bytes": path.stat().st_size, "sha256": digest}
        for path, digest in zip(paths, jsonl.digests(paths), strict=True)
    }
    jsonl.write_json(checkpoint / STATE, {**state, "files": entries})


def _files(checkpoint: Path) -> dict[str, Any]:
    """The files of a checkpoint by name, each with ``bytes`` and ``sha256``; of earlier versions, with ``bytes``.

    Raises:
        SpotError: the state file is not a JSON object.
        KeyError: there is none.
    """
    entries = jsonl.read_json(checkpoint / STATE)["files"]
    return {name: {"bytes": entry} if isinstance(entry, int) else entry for name, entry in entries.items()}


def _is_whole(checkpoint: Path) -> bool:
    """Whether all files of a checkpoint exist with the sizes in its state file."""
    try:
        entries = _files(checkpoint).items()
        return all((checkpoint / name).stat().st_size == entry["bytes"] for name, entry in entries)
    except (SpotError, KeyError, TypeError, AttributeError, OSError):
        return False


def _damaged(checkpoint: Path) -> list[str]:
    """The files of a whole checkpoint whose content is not the one that was written."""
    expected = {name: entry["sha256"] for name, entry in _files(checkpoint).items() if "sha256" in entry}
    digests = jsonl.digests([checkpoint / name for name in expected])
    return [name for (name, digest), read in zip(expected.items(), digests, strict=True) if digest != read]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
