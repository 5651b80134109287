"""TODO."""

from __future__ import annotations

import fcntl
import json
import os
import platform
from collections.abc import Callable, Hashable, Iterable, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from spotcli import __version__
from spotcli.errors import DataError, SettingsChanged
from spotcli.jsonl import Appender, _encode, _lines, _lock, _parse, read_json, write_json
from spotcli.records import Row

# What stands beside X.jsonl and belongs to it.
COMPANIONS = (
    ".meta.json",
    ".torn",
    ".rates.jsonl",
    ".summary.json",
    ".replies.jsonl",
    ".replies.meta.json",
    ".replies.torn",
)


VERSIONED = ("torch", "transformers", "vllm", "litellm", "math-verify", "sympy", "deepspeed", "peft", "bitsandbytes")


def meta_path(path: Path) -> Path:
    """``X.meta.json`` beside ``X.jsonl``."""
    return path.with_suffix(".meta.json")


def read_meta(path: Path) -> dict[str, Any]:
    """What ``X.meta.json`` says of the dataset ``X.jsonl``; empty where there is none.

    Raises:
        DataError: the file is not a JSON object.
    """
    return read_json(meta_path(path))


def versions() -> dict[str, str]:
    """Versions of what shapes a result, without importing any of it."""
    found = {"spotcli": __version__, "python": platform.python_version()}
    for name in VERSIONED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


class Output(Appender):
    """A stage's dataset: an ``Appender`` with ``X.meta.json`` beside it, resumed by key.

    ``settings`` are what the content depends on. A file made with other settings is refused, unless ``fresh``, which
    keeps the old files aside as ``X.old-N.*``. ``done`` holds the keys of the rows that are there already, unless the
    caller looks at each of them itself (``scan``), because there can be millions.

    Raises:
        SettingsChanged: the file exists and was made with other settings; says which.
    """

    def __init__(
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
        if fresh and path.exists():
            with path.open("ab") as old:
                _lock(old, path)
                set_aside(path)
        elif fresh:
            set_aside(path)
        # What went through JSON once compares equal to what is read back.
        wanted = json.loads(json.dumps({"settings": settings, "inputs": inputs or {}}))
        # Without its rows, what the meta file says is true of nothing.
        before = read_meta(path) if path.exists() else {}
        if before:
            changed = _differences(before, wanted)
            if changed:
                raise SettingsChanged(
                    "this file was made with other settings: " + "; ".join(changed),
                    where=str(path),
                    cure="--fresh starts anew (the old file is kept aside), -o writes elsewhere",
                )
        elif path.exists() and path.stat().st_size:
            raise SettingsChanged(
                f"the file exists, and {meta_path(path).name} does not say how it was made",
                where=str(path),
                cure="--fresh starts anew (the old file is kept aside), -o writes elsewhere",
            )
        super().__init__(path)
        try:
            self.done: set[Hashable] = set()
            self._scan(scan or (lambda row: self.done.add(key(row) if key else (row["id"], row.get("trial", 0)))))
        except BaseException:
            self.close()
            raise
        self.meta: dict[str, Any] = {
            **before,
            "command": command,
            **wanted,
            "versions": versions(),
            "started": before.get("started") or datetime.now(UTC).isoformat(timespec="seconds"),
            "complete": False,
            "counts": {},
        }
        # A file that is complete stays so until a row is added.
        if before.get("complete"):
            self.meta |= {name: before[name] for name in ("complete", "counts", "versions") if name in before}
        else:
            self.meta.pop("finished", None)
        write_json(meta_path(path), self.meta)

    def _scan(self, see: Callable[[dict[str, Any]], object]) -> None:
        for number, raw in _lines(self.path):
            where = f"{self.path}:{number}"
            row = _parse(raw, where)
            try:
                see(row)
            except (KeyError, TypeError) as error:
                cure = "mend or remove that line, or start anew with --fresh"
                raise DataError(f"a row without a usable key ({error})", where=where, cure=cure) from None

    def note(self, **facts: Any) -> None:
        """Add to the meta file what is known before the work is done."""
        self.meta |= facts
        write_json(meta_path(self.path), self.meta)

    def replace(self, rows: Iterable[Row | Mapping[str, Any]]) -> None:
        """Exchange all rows at once: a reader sees the old file or the new one, whatever kills us.

        The new file is locked before anybody can see it. ``done`` is left as it is.
        """
        scratch = self.path.with_name(f".{self.path.name}.new")
        scratch.unlink(missing_ok=True)
        new = scratch.open("ab")
        try:
            fcntl.flock(new, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for row in rows:
                new.write(_encode([row]))
            new.flush()
            os.fsync(new.fileno())
            scratch.replace(self.path)
        except BaseException:
            new.close()
            raise
        self._file.close()
        self._file = new

    def finish(self, counts: Mapping[str, Any], *, complete: bool = True) -> None:
        """Record the counts, and that nothing is left over (``complete``)."""
        self.meta["counts"] = dict(counts)
        self.meta["complete"] = complete
        self.meta["finished"] = datetime.now(UTC).isoformat(timespec="seconds")
        write_json(meta_path(self.path), self.meta)


def _differences(before: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    found = []
    for part in ("settings", "inputs"):
        old, new = before.get(part, {}), wanted[part]
        found += [
            f"{name} was {json.dumps(old.get(name))}, now {json.dumps(new.get(name))}"
            for name in sorted(old.keys() | new.keys())
            if old.get(name) != new.get(name)
        ]
    return found


def set_aside(path: Path) -> Path | None:
    """Rename ``X.jsonl`` and its companions to ``X.old-N.*``; the dataset's new path, or None where there was none."""
    tails = (path.suffix, *COMPANIONS)
    there = [tail for tail in tails if path.with_name(path.stem + tail).exists()]
    if not there:
        return None
    number = 1
    while any(path.with_name(f"{path.stem}.old-{number}{tail}").exists() for tail in tails):
        number += 1
    for tail in there:
        path.with_name(path.stem + tail).rename(path.with_name(f"{path.stem}.old-{number}{tail}"))
    return path.with_name(f"{path.stem}.old-{number}{path.suffix}")
