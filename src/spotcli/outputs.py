"""A stage's output: a dataset with a meta file, resumed with the same settings and refused with other settings."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Self

from spotcli import __version__, files
from spotcli.appender import Appender
from spotcli.console import detail
from spotcli.errors import DataError, SettingsChanged
from spotcli.jsonl import placed, read_json, write_json
from spotcli.locks import Lock

UNGRADED = ".ungraded.jsonl"
"""Ending of the file of answers that are not graded yet, beside X.jsonl."""
ANSWERS = ".answers.jsonl"
"""Ending of the file of all answers, graded or not, beside the scores X.jsonl."""
COMPANIONS = (
    ".meta.json",
    ".torn",
    ".rates.jsonl",
    ".batches.jsonl",
    UNGRADED,
    ANSWERS,
    ".summary.json",
    ".replies.jsonl",
    ".replies.meta.json",
    ".replies.torn",
)
"""Endings of the files beside X.jsonl that belong to it."""

VERSIONED = ("torch", "transformers", "vllm", "litellm", "math-verify", "sympy", "deepspeed", "peft", "bitsandbytes")
"""Packages that influence results; their versions are recorded."""

CURE = "start over with --fresh (the old file is renamed), or write to another file with -o"


def meta_path(path: Path) -> Path:
    """Return ``X.meta.json`` for ``X.jsonl``."""
    return path.with_suffix(".meta.json")


def read_meta(path: Path) -> dict[str, Any]:
    """Return the meta file of the dataset ``path`` as JSON; empty if it does not exist.

    Raises:
        DataError: the file is not a JSON object, or a value in it has another type than this program writes.
    """
    values = read_json(meta_path(path))
    check_types(values, _META_TYPES, meta_path(path))
    return values


_META_TYPES: dict[str, type] = {
    **dict.fromkeys(("settings", "inputs", "versions", "counts", "asked", "counted", "engine", "filters"), dict),
    **dict.fromkeys(("limits", "failed"), dict),
    "command": str,
    "started": str,
    "finished": str,
    "complete": bool,
    "merged": list,
}
"""Types of the values in a meta file."""


def check_types(values: Mapping[str, Any], types: Mapping[str, type], path: Path, cure: str = CURE) -> None:
    """Refuse a damaged file of settings; a missing value is allowed.

    Raises:
        DataError: a value has another type.
    """
    names = {dict: "an object", str: "a string", bool: "true or false", list: "an array"}
    for name, wanted in types.items():
        if name in values and not isinstance(values[name], wanted):
            raise DataError(f"the file is damaged: expected '{name}' to be {names[wanted]}", where=str(path), cure=cure)


def versions() -> dict[str, str]:
    """Return the versions of the packages that influence results, without importing them."""
    installed = {"spotcli": __version__, "python": platform.python_version()}
    for name in VERSIONED:
        try:
            installed[name] = version(name)
        except PackageNotFoundError:
            continue
    return installed


@dataclass
class Meta:
    """The content of ``X.meta.json``: how the rows of ``X.jsonl`` were made."""

    command: str
    settings: dict[str, Any]
    """What the rows depend on; another value is refused when the output is resumed."""
    inputs: dict[str, Any]
    """Digests of the input files, by name."""
    versions: dict[str, str]
    started: str
    """Time of the first start, as ISO 8601."""
    complete: bool = False
    counts: dict[str, Any] = field(default_factory=dict)
    finished: str | None = None
    """Time at which the output was last finished."""
    notes: dict[str, Any] = field(default_factory=dict)
    """More facts that a stage records; top-level keys of the file."""

    @classmethod
    def started_by(cls, command: str, wanted: Mapping[str, Any], before: Mapping[str, Any]) -> Self:
        """Return the meta data of an output that is opened with the settings and inputs in ``wanted``.

        Args:
            command: the command that opens it.
            wanted: ``settings`` and ``inputs``.
            before: the meta file of an earlier start; empty for a new output.
        """
        known = {item.name for item in fields(cls)}
        meta = cls(
            command=command,
            settings=wanted["settings"],
            inputs=wanted["inputs"],
            versions=versions(),
            started=before.get("started") or datetime.now(UTC).isoformat(timespec="seconds"),
            notes={name: value for name, value in before.items() if name not in known},
        )
        # A complete output stays complete until a row is added.
        if before.get("complete"):
            meta.complete = True
            meta.counts = before.get("counts", {})
            meta.versions = before.get("versions", meta.versions)
            meta.finished = before.get("finished")
        return meta

    def as_json(self) -> dict[str, Any]:
        """Return the JSON object of the file."""
        names = ("command", "settings", "inputs", "versions", "started", "complete", "counts")
        finished = {"finished": self.finished} if self.finished else {}
        return {name: getattr(self, name) for name in names} | self.notes | finished


class Output(Appender):
    """A stage's dataset: an ``Appender`` with a meta file beside it, resumed by key.

    Args:
        path: the dataset.
        command: the command that writes it.
        settings: what the content depends on. A file that was made with other settings is refused.
        inputs: digests of the input files, by name; compared like ``settings``.
        key: returns the key of a row; by default ``id`` and ``trial``.
        scan: called with each existing row instead of collecting the keys in ``done``, which can be millions.
        fresh: start over; the old files are renamed to ``X.old-N.*``.

    Raises:
        SettingsChanged: the file exists and was made with other settings, which the message names.
        UserError: another process is writing the file.
        DataError: an existing row is invalid.
    """

    def __init__(  # noqa: PLR0913  # what is recorded, how rows are identified, and whether to resume
        self,
        path: Path,
        *,
        command: str,
        settings: Mapping[str, Any],
        inputs: Mapping[str, str] | None = None,
        key: Callable[[dict[str, Any]], Hashable] | None = None,
        scan: Callable[[dict[str, Any]], object] | None = None,
        fresh: bool = False,
    ) -> None:
        files.check_writable(path)
        if fresh:
            _set_aside_locked(path)
        wanted = _as_recorded(settings, inputs)
        before = _earlier_start(path)
        _refuse_other_settings(path, before, wanted)
        super().__init__(path)
        self.done: set[Hashable] = set()
        """Keys of the existing rows; empty with ``scan``."""
        try:
            self._scan(scan or (lambda row: self.done.add(key(row) if key else (row["id"], row.get("trial", 0)))))
        except BaseException:
            self.close()
            raise
        detail(f"{path}: {'resumed: the settings are those of the last run' if before else 'a new file'}")
        self.meta = Meta.started_by(command, wanted, before)
        self._write_meta()

    def _scan(self, see: Callable[[dict[str, Any]], object]) -> None:
        for where, _, row in placed(self.path):
            try:
                see(row)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise DataError(
                    f"row without a valid key ({error})",
                    where=where,
                    cure="correct or remove that line, or start over with --fresh",
                ) from None

    def _write_meta(self) -> None:
        write_json(meta_path(self.path), self.meta.as_json())

    def note(self, *, complete: bool | None = None, **facts: Any) -> None:
        """Write facts to the meta file before the work is done."""
        if complete is not None:
            self.meta.complete = complete
        self.meta.notes |= facts
        self._write_meta()

    def finish(self, counts: Mapping[str, Any], *, complete: bool = True) -> None:
        """Write the counts, and whether all work is done (``complete``), to the meta file.

        Raises:
            UserError: another program changed or replaced the dataset; all rows are kept.
        """
        self.check()
        self.meta.counts = dict(counts)
        self.meta.complete = complete and not self.disturbed
        self.meta.finished = datetime.now(UTC).isoformat(timespec="seconds")
        self._write_meta()
        self.raise_if_disturbed()


def check_settings(path: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Check that an output can be resumed with these settings, before the work that comes first.

    Returns:
        The meta file of the earlier start; empty if the settings are free.

    Raises:
        SettingsChanged: the file exists and was made with other settings, which the message names.
    """
    before = _earlier_start(path)
    _refuse_other_settings(path, before, _as_recorded(settings, None))
    return before


def _as_recorded(settings: Mapping[str, Any], inputs: Mapping[str, str] | None) -> dict[str, Any]:
    """JSON turns tuples into lists and keys into strings, as in the file that is compared."""
    recorded: dict[str, Any] = json.loads(json.dumps({"settings": settings, "inputs": inputs or {}}))
    return recorded


def _earlier_start(path: Path) -> dict[str, Any]:
    """The meta file of an earlier start; empty if the settings are free."""
    # A meta file whose dataset was removed is ignored, unless its journal of answers is there.
    kept = any(_has_content(path.with_suffix(ending)) for ending in (UNGRADED, ANSWERS))
    before = read_meta(path) if path.exists() or kept else {}
    if before and not before.get("complete") and not _has_content(path) and not kept:
        return {}  # a start that failed before the first row leaves the settings free
    return before


def _has_content(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


def _refuse_other_settings(path: Path, before: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    if before:
        differences = _differences(before, wanted)
        if differences:
            message = f"this file was made with other settings: {'; '.join(differences)}"
            raise SettingsChanged(message, where=str(path), cure=CURE)
    elif path.exists() and path.stat().st_size:
        message = f"the file exists, but {meta_path(path).name} with its settings is missing"
        raise SettingsChanged(message, where=str(path), cure=CURE)


def _differences(before: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    changes = []
    for part in ("settings", "inputs"):
        old, new = before.get(part, {}), wanted[part]
        changes += [
            f"{name} was {json.dumps(old.get(name))}, now {json.dumps(new.get(name))}"
            for name in sorted(old.keys() | new.keys())
            if old.get(name) != new.get(name)
        ]
    return changes


def _set_aside_locked(path: Path) -> None:
    if path.parent.is_dir():
        with Lock(path):
            set_aside(path)


def set_aside(path: Path) -> Path | None:
    """Rename ``X.jsonl`` and its companions to ``X.old-N.*``; of links, the files that they name.

    Returns:
        The new path of the dataset, or None if none of the files exists.

    Raises:
        UserError: the path names something else than a file.
    """
    files.check_writable(path)
    tails = (path.suffix, *COMPANIONS)
    existing = [tail for tail in tails if path.with_name(path.stem + tail).exists()]
    if not existing:
        return None
    number = files.unused_number(path, "old", tails)
    for tail in existing:
        files.rename(path.with_name(path.stem + tail), path.with_name(f"{path.stem}.old-{number}{tail}"))
    return path.with_name(f"{path.stem}.old-{number}{path.suffix}")
