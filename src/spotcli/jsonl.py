"""Datasets as files: UTF-8 JSON lines, read and checked, appended to, repaired and locked.

One process writes a file at a time. Rows are appended whole and synced to disk. If a crash leaves an incomplete last
line, the next writer moves it to ``X.torn``.
"""

from __future__ import annotations

import codecs
import fcntl
import gzip
import hashlib
import json
import os
import zlib
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self, TypeVar, cast

from pydantic import ValidationError
from pydantic_core import from_json

from spotcli.errors import DataError, UserError
from spotcli.records import EVALUATION, Row, json_text

R = TypeVar("R", bound=Row)


def read(
    path: Path, model: type[R], *, renamed: dict[str, str] | None = None, refuse_evaluation: bool = False
) -> Iterator[R]:
    """Yield the rows of a dataset as checked records.

    Args:
        path: the dataset.
        model: the record. Rows must have unique keys: ``id``, with ``trial`` if the record has one.
        renamed: collects the alternative field names that were found (``Row.aliases``): alias -> field.
        refuse_evaluation: rows of an evaluation (``split: eval``) are errors, because training on them would make
            the evaluation worthless.

    Raises:
        DataError: a line is not a JSON object, a field is missing or invalid, a key is duplicate, or a row of an
            evaluation is refused.
        UserError: the file does not exist.
    """
    seen: dict[Hashable, int] = {}
    for number, raw in _lines(path):
        where = f"{path}:{number}"
        row = _parse(raw, where)
        if refuse_evaluation and row.get("split") == EVALUATION:
            raise DataError(
                "this answer belongs to an evaluation, so it must not be trained on",
                where=where,
                cure="use answers to other problems (spot sample); `spot eval` compares models on these",
            )
        record = as_record(row, model, where=where, renamed=renamed)
        key: Hashable = getattr(record, "key", None) or getattr(record, "id", None)
        if key is not None:
            if key in seen:
                raise DataError(
                    f"duplicate key {key!r} (first in line {seen[key]})",
                    where=where,
                    cure="give each row a unique id, or omit the ids and remove duplicate prompts",
                )
            seen[key] = number
        yield record


def as_record(row: dict[str, Any], model: type[R], *, where: str, renamed: dict[str, str] | None = None) -> R:
    """Return one row as a checked record.

    Args:
        row: the row; its alternative field names are replaced in place.
        model: the record.
        where: file and line, for the error message.
        renamed: collects the alternative field names that were found: alias -> field.

    Raises:
        DataError: a field is missing or invalid.
    """
    for alias, name in model.aliases.items():
        if alias in row and name not in row:
            row[name] = row.pop(alias)
            if renamed is not None:
                renamed[alias] = name
    try:
        return model.model_validate(row)
    except ValidationError as error:
        raise _data_error(error, model, where) from None


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a JSONL file as dictionaries, unchecked.

    Raises:
        DataError: a line is not a JSON object.
        UserError: the file does not exist.
    """
    return (row for _, row in numbered(path))


def numbered(
    path: Path, *, invalid: Callable[[DataError], object] | None = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the rows of a JSONL file as dictionaries, each with its line number.

    Args:
        path: the file.
        invalid: called with the error of a line that is not a JSON object, which is then left out.

    Raises:
        DataError: a line is not a JSON object.
        UserError: the file does not exist.
    """
    for number, raw in _lines(path):
        try:
            row = _parse(raw, f"{path}:{number}")
        except DataError as error:
            if invalid is None:
                raise
            invalid(error)
            continue
        yield number, row


def count(path: Path) -> int:
    """Return the number of rows of a dataset, without parsing them."""
    return sum(1 for _ in _lines(path))


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a dataset with their numbers; the elements of a JSON array, and a compressed file, are read too."""
    try:
        yield from _raw_lines(path)
    except FileNotFoundError:
        raise UserError("file not found", where=str(path), cure=_missing_file_cure(path)) from None
    except IsADirectoryError:
        raise UserError("expected a dataset file, got a folder", where=str(path)) from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(
            f"failed to decompress the file: {error}", where=str(path), cure="check that the file is complete"
        ) from None


def _raw_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    with path.open("rb") as file:
        if path.suffix.lower() in (".yaml", ".yml"):
            raise UserError("expected a dataset (JSON lines), got a recipe", where=str(path))
        start = file.peek(2)[:2]  # a pipe can be read only once
        if start in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            cure = f"iconv -f UTF-16 -t UTF-8 {path.name} > {path.stem}.utf8{path.suffix}"
            raise UserError("expected UTF-8, got UTF-16", where=str(path), cure=cure)
        content = gzip.GzipFile(fileobj=file) if start == b"\x1f\x8b" else file
        for number, raw in enumerate(content, 1):
            if number == 1:
                raw = raw.removeprefix(codecs.BOM_UTF8)
                if raw.lstrip().startswith(b"["):
                    yield from _elements(raw + content.read(), path)
                    return
            if not raw.strip():
                continue
            if not raw.endswith(b"\n") and not _is_object(raw):
                raise DataError(
                    "the last line is incomplete",
                    where=f"{path}:{number}",
                    cure="run the command that wrote the file again to resume it, or remove that line",
                )
            yield number, raw


def _elements(content: bytes, path: Path) -> Iterator[tuple[int, bytes]]:
    """The elements of a file that is one JSON array, numbered from 1."""
    try:
        elements = json.loads(content)
    except (ValueError, RecursionError):
        raise UserError(
            "invalid JSON array", where=str(path), cure="write one JSON object per line, without brackets around them"
        ) from None
    for number, element in enumerate(elements, 1):
        yield number, json.dumps(element).encode() + b"\n"


def _is_object(raw: bytes) -> bool:
    try:
        return isinstance(json.loads(raw), dict)
    except (ValueError, RecursionError):
        return False


def _parse(raw: bytes, where: str) -> dict[str, Any]:
    try:
        row = from_json(raw, allow_inf_nan=False)
    except ValueError:
        # Python's json module writes NaN and Infinity, which are not JSON; they are read as null. Lone surrogates are
        # valid in JSON but not in text.
        try:
            row = _without_surrogates(json.loads(raw.strip(), parse_constant=lambda _: None))
        except (ValueError, RecursionError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else type(error).__name__
            raise DataError(f"invalid JSON ({reason})", where=where, cure="correct or remove that line") from None
    if not isinstance(row, dict):
        message = f"expected a JSON object, got {_json_type(row)}"
        raise DataError(message, where=where, cure="write one object per line")
    return row


def _json_type(value: object) -> str:
    """Return the name of a JSON type, with its article."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return "an array" if isinstance(value, list) else "a string" if isinstance(value, str) else "a number"


def _without_surrogates(value: Any) -> Any:
    """Replace lone surrogates by U+FFFD; tokenizers and other programs refuse them."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {_without_surrogates(name): _without_surrogates(item) for name, item in value.items()}
    return [_without_surrogates(item) for item in value] if isinstance(value, list) else value


def _data_error(error: ValidationError, model: type[Row], where: str) -> DataError:
    # A union reports an error per type; the one with the longest path is about the type that was intended.
    first = max(error.errors(include_url=False, include_context=False), key=lambda detail: len(detail["loc"]))
    parts = [str(part) for part in first["loc"] if str(part).isalnum() or str(part).isidentifier()]
    field = ".".join(part for part in parts if part != "str") or "row"
    if first["type"] == "missing":
        required = [name for name, info in model.model_fields.items() if info.is_required()]
        cure = model.cures.get(field) or f"a {model.__name__.lower()} requires {', '.join(required)}"
        return DataError(f"the field '{field}' is missing", where=where, cure=cure)
    message = first["msg"].removeprefix("Value error, ")
    cure = "correct the field in that line"
    if first["type"] == "string_type" and isinstance(first["input"], int | float):
        cure = f'write it as text: "{json.dumps(first["input"])}"'
    return DataError(f"the field '{field}': {message[:1].lower()}{message[1:]}", where=where, cure=cure)


def _missing_file_cure(path: Path) -> str:
    commands = {"samples.jsonl": "spot sample", "data.jsonl": "spot rectify"}
    if path.name in commands:
        return f"create it with `{commands[path.name]}`, or pass another file"
    return "check the path"


def digest(path: Path) -> str:
    """Return the SHA-256 of a file in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file; empty if the file does not exist.

    Raises:
        DataError: the file is not a JSON object.
    """
    try:
        return _parse(path.read_bytes(), str(path))
    except FileNotFoundError:
        return {}


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically: a reader sees the old file or the new one, even after a crash."""
    _exchange(path, [json_text(value, indent=2).encode() + b"\n"])


def write_rows(path: Path, rows: Iterable[Row | Mapping[str, Any]]) -> None:
    """Write a dataset atomically: a reader sees the old file or the new one, even after a crash."""
    _exchange(path, (encode([row]) for row in rows))


def _exchange(path: Path, parts: Iterable[bytes]) -> None:
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    with scratch.open("wb") as file:
        file.writelines(parts)
        file.flush()
        os.fsync(file.fileno())
    scratch.replace(path)


def encode(rows: Iterable[Row | Mapping[str, Any]]) -> bytes:
    """Return rows as UTF-8 JSON lines; lone surrogates become U+FFFD."""
    lines = [row.json_line() if isinstance(row, Row) else json_text(row) for row in rows]
    text = "".join(f"{line}\n" for line in lines)
    try:
        return text.encode()
    except UnicodeEncodeError:
        # Replies can contain lone surrogates, which UTF-8 cannot encode.
        return cast(bytes, _without_surrogates(text).encode())


def lock(file: BinaryIO, path: Path) -> None:
    """Lock an open file until it is closed.

    Raises:
        UserError: another process holds the lock, or has replaced the file since it was opened.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        locked = os.path.samestat(os.fstat(file.fileno()), path.stat())
    except (BlockingIOError, FileNotFoundError):
        locked = False
    if not locked:
        raise UserError(
            "another process is writing this file",
            where=str(path),
            cure="wait for it, stop it, or write to another file with -o",
        )


class Appender(AbstractContextManager["Appender"]):
    """An append-only JSONL file with one writer.

    Opening it locks the file and repairs an incomplete last line; ``torn`` is whether one was moved to ``X.torn``. The
    operating system releases the lock when the process ends.

    Raises:
        UserError: another process is writing the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: BinaryIO = path.open("ab")
        try:
            lock(self._file, path)
            self.torn = self._repair_tail()
        except BaseException:
            self._file.close()
            raise

    def _repair_tail(self) -> bool:
        """Move an incomplete last line to ``X.torn``; a complete row without its line end gets one."""
        tail, start = self._last_line()
        if not tail or tail.endswith(b"\n"):
            return False
        if _is_object(tail):
            self._append(b"\n")
            return False
        with self.path.with_suffix(".torn").open("ab") as aside:
            aside.write(tail + b"\n")
            os.fsync(aside.fileno())
        os.ftruncate(self._file.fileno(), start)
        os.fsync(self._file.fileno())
        return True

    def _last_line(self) -> tuple[bytes, int]:
        """Return the last line and its offset; read from the end, because the file can be large."""
        with self.path.open("rb") as file:
            start = file.seek(0, os.SEEK_END)
            tail = b""
            while start:
                step = min(start, 1 << 16)
                start = file.seek(start - step)
                tail = file.read(step) + tail
                line_end = tail.rfind(b"\n", 0, len(tail) - 1)
                if line_end >= 0:
                    return tail[line_end + 1 :], start + line_end + 1
            return tail, 0

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the rows of the file.

        Raises:
            DataError: a line is not a JSON object.
        """
        return rows(self.path)

    def append(self, rows: Iterable[Row | Mapping[str, Any]]) -> None:
        """Append rows in one write and sync them to disk."""
        data = encode(rows)
        if data:
            self._append(data)

    def _append(self, data: bytes) -> None:
        size = os.fstat(self._file.fileno()).st_size
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._file.fileno(), view) :]
        except OSError:
            # If the disk is full, half a row must not remain: the next row would be appended to it.
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
