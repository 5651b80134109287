"""The only file that opens a dataset: read, append, resume, repair, lock.

A dataset is a UTF-8 file of JSON objects, one a line; beside ``X.jsonl`` stands ``X.meta.json`` with the command, the
resolved settings, versions, the digest of the input and the counts. One process writes a file at a time. Rows are
appended whole and fsynced; a line that a kill tore is set aside in ``X.torn`` when the file is next opened for writing.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self, TypeVar

from pydantic import ValidationError

from spotcli import __version__
from spotcli.errors import DataError, SettingsChanged, UserError
from spotcli.records import Row

R = TypeVar("R", bound=Row)

VERSIONED = ("torch", "transformers", "vllm", "litellm", "math-verify", "sympy", "deepspeed", "peft")


def read(path: Path, model: type[R], *, renamed: dict[str, str] | None = None) -> Iterator[R]:
    """Stream the rows of a dataset, each checked.

    Common other names of fields are accepted (``Row.aliases``); the ones met are collected in ``renamed``, for the
    caller to name in one line. Rows must have different keys (``id``, with ``trial`` where the record has one).

    Raises:
        DataError: a line that is not a JSON object, a missing or wrong field, a key seen before; with file and line.
        UserError: the file does not exist.
    """
    seen: dict[Hashable, int] = {}
    for number, raw in _lines(path):
        where = f"{path}:{number}"
        record = as_record(_parse(raw, where), model, where=where, renamed=renamed)
        key: Hashable = getattr(record, "key", None) or getattr(record, "id", None)
        if key is not None:
            if key in seen:
                raise DataError(
                    f"the key {key!r} stands in line {seen[key]} already",
                    where=where,
                    cure="give each row an id of its own, or leave the ids out and remove the repeated prompts",
                )
            seen[key] = number
        yield record


def as_record(row: dict[str, Any], model: type[R], *, where: str, renamed: dict[str, str] | None = None) -> R:
    """Check one row, common other names of fields accepted.

    Raises:
        DataError: a missing or wrong field; ``where`` says which row.
    """
    for other, ours in model.aliases.items():
        if other in row and ours not in row:
            row[ours] = row.pop(other)
            if renamed is not None:
                renamed[other] = ours
    try:
        return model.model_validate(row)
    except ValidationError as error:
        raise DataError(_explain(error), where=where, cure=_cure(model)) from None


def count(path: Path) -> int:
    """Lines of a dataset, without reading them as JSON."""
    return sum(1 for _ in _lines(path))


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise UserError("there is no such file", where=str(path), cure=_where_from(path)) from None
    except IsADirectoryError:
        raise UserError("this is a folder, not a dataset file", where=str(path)) from None
    with file:
        for number, raw in enumerate(file, 1):
            if not raw.endswith(b"\n") and not _is_object(raw):
                raise DataError(
                    "the last line is cut off in the middle",
                    where=f"{path}:{number}",
                    cure="run the command that wrote the file again (it resumes), or remove that line",
                )
            if raw.strip():
                yield number, raw


def _is_object(raw: bytes) -> bool:
    try:
        return isinstance(json.loads(raw), dict)
    except ValueError:
        return False


def _parse(raw: bytes, where: str) -> dict[str, Any]:
    try:
        row = json.loads(raw)
    except (ValueError, RecursionError) as error:
        why = error.msg if isinstance(error, json.JSONDecodeError) else type(error).__name__
        raise DataError(f"not a line of JSON ({why})", where=where, cure="mend or remove that line") from None
    if not isinstance(row, dict):
        raise DataError(f"a JSON {type(row).__name__}, not an object", where=where, cure="one object a line")
    return row


def _explain(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    # A union reports one error for each member; the field's own name comes first in every one of them.
    field = str(first["loc"][0]) if first["loc"] else "row"
    if first["type"] == "missing":
        return f"the field '{field}' is missing"
    return f"the field '{field}': {first['msg'][:1].lower()}{first['msg'][1:]}"


def _cure(model: type[Row]) -> str:
    needed = [name for name, field in model.model_fields.items() if field.is_required()]
    return f"a {model.__name__.lower()} needs the fields {', '.join(needed)}"


def _where_from(path: Path) -> str:
    makers = {"samples.jsonl": "spot sample", "data.jsonl": "spot rectify"}
    if path.name in makers:
        return f"make it with `{makers[path.name]}`, or name another file"
    return "check the path"


def digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def meta_path(path: Path) -> Path:
    """``X.meta.json`` beside ``X.jsonl``."""
    return path.with_suffix(".meta.json")


def read_meta(path: Path) -> dict[str, Any]:
    """What ``X.meta.json`` says of the dataset ``X.jsonl``; empty where there is none.

    Raises:
        DataError: the file is not a JSON object.
    """
    return read_json(meta_path(path))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object out of a file; empty where there is none.

    Raises:
        DataError: the file is not a JSON object.
    """
    try:
        return _parse(path.read_bytes(), str(path))
    except FileNotFoundError:
        return {}


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file so that a reader sees the old one or the new one whole, whatever kills us."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    with scratch.open("w", encoding="utf-8") as file:
        json.dump(value, file, ensure_ascii=False, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    scratch.replace(path)


def versions() -> dict[str, str]:
    """Versions of what shapes a result, without importing any of it."""
    found = {"spotcli": __version__, "python": platform.python_version()}
    for name in VERSIONED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _encode(rows: Iterable[Row | Mapping[str, Any]]) -> bytes:
    lines = [row.json_line() if isinstance(row, Row) else json.dumps(row, ensure_ascii=False) for row in rows]
    # Lone surrogates, which a model's broken UTF-8 can leave behind, have no encoding.
    return "".join(f"{line}\n" for line in lines).encode("utf-8", errors="replace")


class Appender(AbstractContextManager["Appender"]):
    """An append-only JSONL file with one writer, whole lines and a repaired tail.

    ``rows`` are the rows found when it was opened. Opening takes the file's lock, which the system releases when the
    process ends in whatever way.

    Raises:
        UserError: another process is writing the file.
        DataError: a line in the middle of the file is not JSON.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: BinaryIO = path.open("ab")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise UserError(
                "another process is writing this file",
                where=str(path),
                cure="wait for it, stop it, or choose another output with -o",
            ) from None
        try:
            self.torn = self._repair_tail()
        except BaseException:
            self._file.close()
            raise

    def _repair_tail(self) -> bool:
        """Set a torn last line aside; a whole row that only lacks its line end gets one."""
        tail, cut = self._last_line()
        if not tail or tail.endswith(b"\n"):
            return False
        if _is_object(tail):
            self._append(b"\n")
            return False
        with self.path.with_suffix(".torn").open("ab") as aside:
            aside.write(tail + b"\n")
            os.fsync(aside.fileno())
        os.ftruncate(self._file.fileno(), cut)
        os.fsync(self._file.fileno())
        return True

    def _last_line(self) -> tuple[bytes, int]:
        """The last line and where it starts; read from the end, since the file can be large."""
        with self.path.open("rb") as file:
            start = file.seek(0, os.SEEK_END)
            tail = b""
            while start:
                step = min(start, 1 << 16)
                start = file.seek(start - step)
                tail = file.read(step) + tail
                cut = tail.rfind(b"\n", 0, len(tail) - 1)
                if cut >= 0:
                    return tail[cut + 1 :], start + cut + 1
            return tail, 0

    def rows(self) -> Iterator[dict[str, Any]]:
        for number, raw in _lines(self.path):
            yield _parse(raw, f"{self.path}:{number}")

    def append(self, rows: Iterable[Row | Mapping[str, Any]]) -> None:
        """Append rows in one write and wait until the disk has them."""
        data = _encode(rows)
        if data:
            self._append(data)

    def _append(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._file.fileno(), view) :]
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Output(Appender):
    """A stage's dataset: an ``Appender`` with ``X.meta.json`` beside it, resumed by key.

    ``settings`` are what the content depends on. A file made with other settings is refused, unless ``fresh``, which
    keeps the old files aside as ``X.old-N.*``. ``done`` holds the keys of the rows that are there already.

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
        fresh: bool = False,
    ) -> None:
        if fresh:
            set_aside(path)
        # What went through JSON once compares equal to what is read back.
        wanted = json.loads(json.dumps({"settings": settings, "inputs": inputs or {}}))
        before = read_meta(path)
        if before and path.exists():
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
        key = key or (lambda row: (row["id"], row.get("trial", 0)))
        try:
            self.done: set[Hashable] = {key(row) for row in self.rows()}
        except KeyError as error:
            self.close()
            raise DataError(f"a row without the field {error}", where=str(path), cure="--fresh starts anew") from None
        self.meta: dict[str, Any] = {
            "command": command,
            **wanted,
            "versions": versions(),
            "started": before.get("started") or datetime.now(UTC).isoformat(timespec="seconds"),
            "complete": False,
            "counts": {},
        }
        # A file that is complete stays so until a row is added.
        if before.get("complete"):
            self.meta |= {
                name: before[name] for name in ("complete", "counts", "versions", "finished") if name in before
            }
        write_json(meta_path(path), self.meta)

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
    companions = [file for file in path.parent.glob(f"{path.stem}.*") if ".old-" not in file.name]
    if not companions:
        return None
    number = 1
    while list(path.parent.glob(f"{path.stem}.old-{number}.*")):
        number += 1
    for file in companions:
        file.rename(file.with_name(f"{path.stem}.old-{number}{file.name.removeprefix(path.stem)}"))
    return path.with_name(f"{path.stem}.old-{number}{path.suffix}")
