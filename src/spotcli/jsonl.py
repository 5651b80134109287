"""Datasets as files: UTF-8 JSON lines, read and checked, or written at once; ``appender`` adds rows to them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import ValidationError

from spotcli import files
from spotcli.dataset_lines import lines, parse, without_surrogates
from spotcli.errors import DataError, UserError
from spotcli.records import EVALUATION, Pair, Row, is_rectified, json_text, kind_of

R = TypeVar("R", bound=Row)
_DIGESTS_AT_ONCE = 4
"""Files that are read at the same time for their digests."""


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
    for where, number, raw in lines(path):
        row = parse(raw, where)
        if refuse_evaluation:
            refuse_evaluated(row, where)
        if not seen:
            refuse_other_kind(row, model, path)
        record = as_record(row, model, where=where, renamed=renamed)
        key: Hashable = getattr(record, "key", None) or getattr(record, "id", None)
        if key is not None:
            if key in seen:
                unit = "line" if where == f"{path}:{number}" else "element"
                raise DataError(
                    f"duplicate key {key!r} (first in {unit} {seen[key]})",
                    where=where,
                    cure="give each row a unique id, or omit the ids and remove duplicate prompts",
                )
            seen[key] = number
        yield record


WAYS = {
    ("samples", "problems"): "run `spot sample {path} --model MODEL` and pass its output",
    ("samples", "answers"): "grade them with `spot sample --grade {path}` and pass its output",
    ("samples", "pairs"): "pass the samples that they were made from; `spot train` takes pairs",
    ("answers", "problems"): "run `spot sample {path} --model MODEL`, which grades the answers too",
    ("answers", "pairs"): "pass the answers that they were made from; `spot train` takes pairs",
    ("pairs", "problems"): "run `spot sample {path} --model MODEL`, then `spot rectify` on its output",
    ("pairs", "answers"): "grade them with `spot sample --grade {path}`, then run `spot rectify` on its output",
    ("pairs", "samples"): "run `spot rectify {path} --oracle ORACLE` and pass its output",
}
"""Expected kind and kind of a file -> how the one is made from the other."""


def refuse_evaluated(row: dict[str, Any], where: str) -> None:
    """Refuse a row of an evaluation.

    Raises:
        DataError: the row belongs to an evaluation.
    """
    if row.get("split") == EVALUATION:
        raise DataError(
            "this answer belongs to an evaluation, so it must not be trained on",
            where=where,
            cure="use answers to other problems (spot sample); `spot eval` compares models on these",
        )


def refuse_other_kind(row: dict[str, Any], model: type[Row], path: Path) -> None:
    """Refuse a whole file of another kind, such as samples instead of pairs, by its first row.

    Raises:
        UserError: the row is of another kind.
    """
    got = kind_of(row)
    if got == Pair.kind and "response" in row and not is_rectified(row):
        return  # an answer to a problem of a set of preferences, which has a field `chosen` too
    if cure := WAYS.get((model.kind, got)):
        raise UserError(f"expected {model.kind}, got {got}", where=str(path), cure=cure.format(path=path))


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
    return (row for _, _, row in placed(path))


def placed(
    path: Path, *, invalid: Callable[[DataError], object] | None = None
) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Yield the rows of a JSONL file as dictionaries, each with its place (``file:line``) and its number.

    Args:
        path: the file.
        invalid: called with the error of a line that is not a JSON object, which is then left out.

    Raises:
        DataError: a line is not a JSON object.
        UserError: the file does not exist.
    """
    for where, number, raw in lines(path):
        try:
            row = parse(raw, where)
        except DataError as error:
            if invalid is None:
                raise
            invalid(error)
            continue
        yield where, number, row


def count(path: Path) -> int:
    """Return the number of rows of a dataset, without parsing them."""
    return sum(1 for _ in lines(path))


def _data_error(error: ValidationError, model: type[Row], where: str) -> DataError:
    # A union reports an error per type; the one with the longest path is about the type that was intended.
    first = max(error.errors(include_url=False, include_context=False), key=lambda detail: len(detail["loc"]))
    parts = [str(part) for part in first["loc"] if str(part).isalnum() or str(part).isidentifier()]
    field = ".".join(part for part in parts if part != "str") or "row"
    if first["type"] == "missing":
        required = [name for name, info in model.model_fields.items() if info.is_required()]
        cure = model.cures.get(field) or f"{model.kind} require {', '.join(required)}"
        return DataError(f"the field '{field}' is missing", where=where, cure=cure)
    message = first["msg"].removeprefix("Value error, ")
    cure = "correct the field in that line"
    if first["type"] == "string_type" and isinstance(first["input"], int | float):
        cure = f'write it as text: "{json.dumps(first["input"])}"'
    return DataError(f"the field '{field}': {message[:1].lower()}{message[1:]}", where=where, cure=cure)


def digest(path: Path) -> str:
    """Return the SHA-256 of a file in hex."""
    files.check_readable(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digests(paths: Sequence[Path]) -> list[str]:
    """The SHA-256 of files; several are read at once, because one can have tens of gigabytes."""
    with ThreadPoolExecutor(_DIGESTS_AT_ONCE) as pool:
        return list(pool.map(digest, paths))


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file; empty if the file does not exist.

    Raises:
        DataError: the file is not a JSON object.
        UserError: the path names something else than a file.
    """
    files.check_readable(path)
    try:
        return parse(path.read_bytes(), str(path))
    except FileNotFoundError:
        return {}


def write_json(path: Path, value: Any) -> None:
    """Write a private JSON file atomically: a reader sees the old file or the new one, even after a crash."""
    content = json_text(value, indent=2)
    files.replace(path, [content.encode("utf-8", "replace"), b"\n"], mode=files.PRIVATE)


def write_rows(path: Path, rows: Iterable[Row | Mapping[str, Any]]) -> None:
    """Write a dataset atomically: a reader sees the old file or the new one, even after a crash."""
    files.replace(path, (encode([row]) for row in rows))


def encode(rows: Iterable[Row | Mapping[str, Any]]) -> bytes:
    """Return rows as UTF-8 JSON lines; lone surrogates become U+FFFD."""
    texts = [row.json_line() if isinstance(row, Row) else json_text(row) for row in rows]
    text = "".join(f"{line}\n" for line in texts)
    try:
        return text.encode()
    except UnicodeEncodeError:
        # Replies can contain lone surrogates, which UTF-8 cannot encode.
        return cast(bytes, without_surrogates(text).encode())
