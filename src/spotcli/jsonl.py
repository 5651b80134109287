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
from collections.abc import Hashable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self, TypeVar, cast

from pydantic import ValidationError
from pydantic_core import from_json

from spotcli.errors import DataError, UserError
from spotcli.records import Row

R = TypeVar("R", bound=Row)


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
        raise _misfit(error, model, where) from None


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """Stream the rows of a file of ours as they are.

    Raises:
        DataError: a line that is not a JSON object.
        UserError: the file does not exist.
    """
    return (row for _, row in numbered(path))


def numbered(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Stream the rows of a JSONL file of whatever kind, each with the number of its line.

    Raises:
        DataError: a line that is not a JSON object.
        UserError: the file does not exist.
    """
    for number, raw in _lines(path):
        yield number, _parse(raw, f"{path}:{number}")


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
            if not raw.strip():
                continue
            if not raw.endswith(b"\n") and not _is_object(raw):
                raise DataError(
                    "the last line is cut off in the middle",
                    where=f"{path}:{number}",
                    cure="run the command that wrote the file again (it resumes), or remove that line",
                )
            yield number, raw


def _is_object(raw: bytes) -> bool:
    try:
        return isinstance(json.loads(raw), dict)
    except (ValueError, RecursionError):
        return False


def _parse(raw: bytes, where: str) -> dict[str, Any]:
    try:
        row = from_json(raw, allow_inf_nan=False)
    except ValueError:
        # Python's own writer may leave NaN and Infinity in a file; they are no JSON, and nothing known. Lone surrogates
        # are JSON, and no text.
        try:
            row = _mended(json.loads(raw.strip(), parse_constant=lambda _: None))
        except (ValueError, RecursionError) as error:
            why = error.msg if isinstance(error, json.JSONDecodeError) else type(error).__name__
            raise DataError(f"not a line of JSON ({why})", where=where, cure="mend or remove that line") from None
    if not isinstance(row, dict):
        raise DataError(f"a JSON {type(row).__name__}, not an object", where=where, cure="one object a line")
    return row


def _mended(value: Any) -> Any:
    """The value without lone surrogates: no tokenizer takes them, and no other reader of our files would."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {_mended(name): _mended(item) for name, item in value.items()}
    return [_mended(item) for item in value] if isinstance(value, list) else value


def _misfit(error: ValidationError, model: type[Row], where: str) -> DataError:
    # A field of several types reports an error for each of them; the one that came deepest is about the type meant.
    first = max(error.errors(include_url=False, include_context=False), key=lambda one: len(one["loc"]))
    parts = [str(part) for part in first["loc"] if str(part).isalnum() or str(part).isidentifier()]
    field = ".".join(part for part in parts if part != "str") or "row"
    if first["type"] == "missing":
        needed = [name for name, one in model.model_fields.items() if one.is_required()]
        cure = model.cures.get(field) or f"a {model.__name__.lower()} needs the fields {', '.join(needed)}"
        return DataError(f"the field '{field}' is missing", where=where, cure=cure)
    message = first["msg"].removeprefix("Value error, ")
    cure = "correct the field in that line"
    if first["type"] == "string_type" and isinstance(first["input"], int | float):
        cure = f'write it as text: "{json.dumps(first["input"])}"'
    return DataError(f"the field '{field}': {message[:1].lower()}{message[1:]}", where=where, cure=cure)


def _where_from(path: Path) -> str:
    makers = {"samples.jsonl": "spot sample", "data.jsonl": "spot rectify"}
    if path.name in makers:
        return f"make it with `{makers[path.name]}`, or name another file"
    return "check the path"


def digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
    _exchange(path, [json.dumps(value, ensure_ascii=False, indent=2).encode() + b"\n"])


def write_rows(path: Path, rows: Iterable[Row | Mapping[str, Any]]) -> None:
    """Write a whole dataset so that a reader sees the old one or the new one, whatever kills us."""
    _exchange(path, (_encode([row]) for row in rows))


def _exchange(path: Path, parts: Iterable[bytes]) -> None:
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    with scratch.open("wb") as file:
        file.writelines(parts)
        file.flush()
        os.fsync(file.fileno())
    scratch.replace(path)


def _encode(rows: Iterable[Row | Mapping[str, Any]]) -> bytes:
    lines = [row.json_line() if isinstance(row, Row) else json.dumps(row, ensure_ascii=False) for row in rows]
    text = "".join(f"{line}\n" for line in lines)
    try:
        return text.encode()
    except UnicodeEncodeError:
        # Lone surrogates, which broken replies can hold, have no encoding: U+FFFD takes their place.
        return cast(bytes, _mended(text).encode())


def _lock(file: BinaryIO, path: Path) -> None:
    """Take the lock of an open file, which lasts as long as the file is open.

    Raises:
        UserError: another process has it, or has put another file in its place meanwhile.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        ours = os.path.samestat(os.fstat(file.fileno()), path.stat())
    except (BlockingIOError, FileNotFoundError):
        ours = False
    if not ours:
        raise UserError(
            "another process is writing this file",
            where=str(path),
            cure="wait for it, stop it, or choose another output with -o",
        )


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
            _lock(self._file, path)
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
        return rows(self.path)

    def append(self, rows: Iterable[Row | Mapping[str, Any]]) -> None:
        """Append rows in one write and wait until the disk has them."""
        data = _encode(rows)
        if data:
            self._append(data)

    def _append(self, data: bytes) -> None:
        size = os.fstat(self._file.fileno()).st_size
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._file.fileno(), view) :]
        except OSError:
            # A full disk must not leave half a row for the next one to be glued to.
            os.ftruncate(self._file.fileno(), size)
            raise
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
