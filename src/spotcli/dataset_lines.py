"""The lines of a dataset: read from any file that holds JSON lines, each parsed strictly; other files are named.

Compressed files, JSON arrays, byte order marks and the line ends of every system are read. A file of another format is
refused with its name and the cure, before its first line.
"""

from __future__ import annotations

import bz2
import codecs
import difflib
import gzip
import json
import lzma
import math
import re
import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, cast

from pydantic_core import from_json

from spotcli import files
from spotcli.errors import DataError, UserError

MAX_DEPTH = 200
"""Levels of lists and objects in a row; deeper rows cannot be written again by every library."""

DECOMPRESSORS: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
"""First bytes -> reader of compressed files that are read as they are."""

DAMAGED = (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile)
"""What reading a damaged compressed file raises."""

_CONVERT = "convert it to JSON lines (one object per line)"
FOREIGN: dict[bytes, tuple[str, str]] = {
    b"PAR1": ("a Parquet file", f"{_CONVERT}; `spot sample` reads Parquet as problems"),
    b"ARROW1": ("an Arrow file", _CONVERT),
    b"PK\x03\x04": ("a ZIP archive or a spreadsheet", "unpack it, or export the table as CSV for `spot sample`"),
    b"\xd0\xcf\x11\xe0": ("a spreadsheet", "export the table as CSV for `spot sample`"),
    b"\x28\xb5\x2f\xfd": ("a file compressed by zstd", "decompress it with `zstd -d`"),
    b"SQLite format 3": ("an SQLite database", f"export a table, and {_CONVERT}"),
    b"\x89HDF": ("an HDF5 file", _CONVERT),
    b"%PDF": ("a PDF file", _CONVERT),
    b"version https://git-lfs": ("a git-lfs pointer, not the file itself", "run `git lfs pull` in its repository"),
}
"""First bytes of other formats -> what the file is, and the cure."""

_SNIFFED = 512
"""Bytes that are looked at to recognise a format."""
_HUGE_NUMBER = re.compile(rb"\d[eE]\+?\d{3}|\d{300}")
"""Matches every number that can be too large for a float."""


def lines(path: Path) -> Iterator[tuple[str, int, bytes]]:
    """Yield the lines of a dataset, or the elements of a JSON array, each with its place and its number from 1.

    Raises:
        UserError: the file does not exist, is a folder, has another format, or is compressed and damaged.
        DataError: the last line is incomplete.
    """
    try:
        yield from _raw_lines(path)
    except FileNotFoundError:
        raise UserError("file not found", where=str(path), cure=_missing_file_cure(path)) from None
    except IsADirectoryError:
        raise UserError("expected a dataset file, got a folder", where=str(path), cure="name a file in it") from None
    except DAMAGED as error:
        raise damaged(path, error) from None


def sniff(path: Path) -> bytes:
    """Return the first bytes of a file, decompressed if the format is one that is read compressed.

    Raises:
        UserError: the file is compressed and damaged.
    """
    try:
        with path.open("rb") as file:
            return cast(bytes, decompressed(file).peek(_SNIFFED)[:_SNIFFED])
    except DAMAGED as error:
        raise damaged(path, error) from None


def damaged(path: Path, error: Exception) -> UserError:
    """The error for a compressed file that cannot be read to its end."""
    return UserError(f"failed to decompress the file: {error}", where=str(path), cure="check that the file is complete")


def decompressed(file: Any) -> Any:
    """A binary file, or the content of a compressed one, as a binary file."""
    start = file.peek(8)
    for magic, reader in DECOMPRESSORS.items():
        if start.startswith(magic):
            return reader(file)
    return file


def _raw_lines(path: Path) -> Iterator[tuple[str, int, bytes]]:
    files.check_readable(path)
    with path.open("rb") as file:
        if path.suffix.lower() in (".yaml", ".yml"):
            raise UserError(
                "expected a dataset (JSON lines), got a recipe",
                where=str(path),
                cure="recipes are given with --recipe; `spot train` and `spot run` take them by position",
            )
        content = decompressed(file)
        _refuse_foreign(content.peek(_SNIFFED)[:_SNIFFED], path)
        number = 0
        for raw in content:
            if not number:
                raw = raw.removeprefix(codecs.BOM_UTF8)
                if raw.lstrip().startswith(b"["):
                    yield from _elements(raw + content.read(), path)
                    return
            for part in _parts(raw):
                number += 1
                if not part.strip():
                    continue
                where = f"{path}:{number}"
                if not part.endswith((b"\n", b"\r")) and not is_object(part):
                    raise DataError(
                        "the last line is incomplete",
                        where=where,
                        cure="run the command that wrote the file again to resume it, or remove that line",
                    )
                yield where, number, part


def _parts(raw: bytes) -> list[bytes]:
    """The rows of one line: usually one; several in a file whose line ends are lone carriage returns."""
    if b"\r" not in raw[:-2] or is_object(raw):
        return [raw]
    return re.findall(rb"[^\r]++(?:\r\n?)?|\r\n?", raw)


def _refuse_foreign(start: bytes, path: Path) -> None:
    """Raise the error for a file that has no JSON lines.

    Raises:
        UserError: another format or another encoding.
    """
    if found := foreign(start):
        raise UserError(f"expected JSON lines, got {found[0]}", where=str(path), cure=found[1])
    if encoding := utf16_or_32(start):
        cure = f"iconv -f {encoding} -t UTF-8 {path.name} > {path.stem}.utf8{path.suffix}"
        raise UserError(f"expected UTF-8, got {encoding}", where=str(path), cure=cure)
    text = start.removeprefix(codecs.BOM_UTF8).lstrip()
    if text.startswith(b"<"):
        cure = "download the file itself, not the page that shows it (on the hub: the `resolve` address)"
        raise UserError("expected JSON lines, got a web page or XML", where=str(path), cure=cure)
    if start[257:262] == b"ustar":
        raise UserError("expected JSON lines, got a tar archive", where=str(path), cure="unpack it")
    ending = path.suffix.lower()
    first = text.split(b"\n", 1)[0]
    if text and not text.startswith((b"{", b"[")) and (ending in (".csv", ".tsv") or b"," in first or b"\t" in first):
        cure = f"{_CONVERT}; `spot sample` reads .csv and .tsv files"
        raise UserError("expected JSON lines, got a table (CSV or TSV)", where=str(path), cure=cure)


def foreign(start: bytes) -> tuple[str, str] | None:
    """The name of a format of its own, and the cure, by the first bytes of a file; None for a text."""
    return next((value for magic, value in FOREIGN.items() if start.startswith(magic)), None)


def utf16_or_32(start: bytes) -> str | None:
    """The encoding of a text in UTF-16 or UTF-32, with or without a byte order mark; None for another one."""
    if start.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "UTF-32"
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "UTF-16"
    even, odd = start[0:16:2], start[1:16:2]
    if odd and all(even) and not any(odd):
        return "UTF-16LE"
    return "UTF-16BE" if odd and all(odd) and not any(even) else None


def _elements(content: bytes, path: Path) -> Iterator[tuple[str, int, bytes]]:
    """The elements of a file that is one JSON array, numbered from 1."""
    try:
        elements = json.loads(content)
    except (ValueError, RecursionError):
        raise UserError(
            "invalid JSON array", where=str(path), cure="write one JSON object per line, without brackets around them"
        ) from None
    for number, element in enumerate(elements, 1):
        yield f"{path}: element {number}", number, json.dumps(element).encode() + b"\n"


def is_object(raw: bytes) -> bool:
    """Whether a line is one whole JSON object."""
    try:
        return isinstance(json.loads(raw), dict)
    except (ValueError, RecursionError):
        return False


def parse(raw: bytes, where: str) -> dict[str, Any]:
    """Return the JSON object of a line. NaN, infinite and too large numbers become null, lone surrogates U+FFFD.

    Raises:
        DataError: not a JSON object, a duplicate key, or nested too deeply.
    """
    try:
        row = from_json(raw, allow_inf_nan=False)
    except ValueError:
        row = _lenient(raw, where)
    if not isinstance(row, dict):
        message = f"expected a JSON object, got {_json_type(row)}"
        raise DataError(message, where=where, cure="write one object per line")
    # Counting is quicker than collecting every key, and a text with quotes and colons only causes a closer look.
    if raw.count(b'":') + raw.count(b'" :') > _count_keys(row):
        _refuse_duplicate_keys(raw, where)
    return cast("dict[str, Any]", _finite(row)) if _HUGE_NUMBER.search(raw) else row


def _lenient(raw: bytes, where: str) -> Any:
    """Parse what is not strict JSON.

    Python's json module writes NaN and Infinity, which are read as null. Lone surrogates are valid in JSON but not in
    text.
    """
    cure = "correct or remove that line"
    try:
        row = json.loads(raw.strip(), parse_constant=lambda _: None)
    except UnicodeDecodeError as error:
        message = f"expected UTF-8, got the byte 0x{error.object[error.start]:02x}"
        raise DataError(message, where=where, cure="convert the file: iconv -f ENCODING -t UTF-8") from None
    except json.JSONDecodeError as error:
        if raw.strip() in (b"{", b"[{"):
            cure = "write each object on one line, for example with `jq -c . FILE`"
        raise DataError(f"invalid JSON ({error.msg})", where=where, cure=cure) from None
    except RecursionError:
        raise _too_deep(where) from None
    except ValueError:
        raise DataError("a number has more than 4,300 digits", where=where, cure=cure) from None
    if _is_deep(row):
        raise _too_deep(where)
    return without_surrogates(row)


def _too_deep(where: str) -> DataError:
    return DataError(f"nested more than {MAX_DEPTH} levels deep", where=where, cure="flatten or remove that line")


def _is_deep(value: Any) -> bool:
    """Whether a value is nested too deeply; a loop, because recursion has a limit of its own."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [
            item
            for outer in level
            if isinstance(outer, dict | list)
            for item in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return False
    return True


def _count_keys(value: Any) -> int:
    """At most the number of keys in a value; lists that begin with a plain value are not searched."""
    if isinstance(value, dict):
        return len(value) + sum(_count_keys(item) for item in value.values() if isinstance(item, dict | list))
    if isinstance(value, list) and value and isinstance(value[0], dict | list):
        return sum(map(_count_keys, value))
    return 0


def _refuse_duplicate_keys(raw: bytes, where: str) -> None:
    def checked(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = dict(pairs)
        if len(keys) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise DataError(f"duplicate key {twice!r} in the row", where=where, cure="remove one of the two values")
        return keys

    json.loads(raw.strip(), object_pairs_hook=checked)


def _finite(value: Any) -> Any:
    """The value with null for infinite numbers: JSON has none, so they could not be written again."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list) else value


def _json_type(value: object) -> str:
    """Return the name of a JSON type, with its article."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return "an array" if isinstance(value, list) else "a string" if isinstance(value, str) else "a number"


def without_surrogates(value: Any) -> Any:
    """Replace lone surrogates by U+FFFD; tokenizers and other programs refuse them."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {without_surrogates(name): without_surrogates(item) for name, item in value.items()}
    return [without_surrogates(item) for item in value] if isinstance(value, list) else value


def _missing_file_cure(path: Path) -> str:
    commands = {"samples.jsonl": "spot sample", "data.jsonl": "spot rectify"}
    if path.name in commands:
        return f"create it with `{commands[path.name]}`, or pass another file"
    if path.is_symlink():
        return f"the link points to {path.readlink()}, which does not exist"
    near = close_name(path)
    return f"did you mean '{near}'?" if near else "check the path"


def close_name(path: Path) -> str | None:
    """The name in the folder of ``path`` that is closest to its name, if one is similar."""
    try:
        names = {item.stem: item.name for item in islice(path.parent.iterdir(), 1000) if item.suffix == path.suffix}
    except OSError:
        return None
    near = difflib.get_close_matches(path.stem, names, n=1, cutoff=0.7)
    return names[near[0]] if near else None
