"""Where each row of a file begins: byte offsets, so that any row of a large file is read alone.

The offsets are kept beside the file, ``X.index`` for ``X.jsonl``, and are made anew when the file has changed. A folder
that cannot be written, or an index that cannot be used, costs one pass over the file.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import os
import sys
import tempfile
from array import array
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import IO, Any, Self

from spotcli import dataset_lines, files, jsonl
from spotcli.dataset_lines import DECOMPRESSORS
from spotcli.errors import DataError, UserError
from spotcli.problems.set_rows import file_rows

HEAD = 1 << 16
"""Bytes at the beginning and at the end of a file that its index is checked against, beside its size and time."""

_FORMAT = "spot-index-1"


class RowIndex:
    """The rows of a dataset, read by number from 0. Only the offsets are in memory, 16 bytes per row.

    The file stays open: if another program replaces it, the rows are still those of the file that was opened.
    """

    def __init__(self, path: Path, file: IO[bytes], offsets: array[int], numbers: array[int], unit: str = "") -> None:
        self.path = path
        self._unit = unit
        self._file = file
        self._offsets = offsets
        """Where each row begins, and the end of the file."""
        self._numbers = numbers
        """Line of each row, from 1."""

    @classmethod
    def open(cls, path: Path, *, keep: bool = True) -> Self:
        """Open a dataset. A table, a compressed file or a JSON array is copied to a temporary file, one row per line.

        Args:
            path: the dataset.
            keep: keep the offsets beside the file.

        Raises:
            UserError: the file does not exist, is a folder, or has another format.
        """
        if is_table(path):
            return cls._open_copy(path, "row")
        with suppress(DataError):  # a damaged line is a row of its own
            next(dataset_lines.lines(path), None)
        file: IO[bytes] = path.open("rb")
        try:
            if not _has_one_row_per_line(file):
                is_array = dataset_lines.sniff(path).removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"[")
                file.close()
                return cls._open_copy(path, "element" if is_array else "")
            state = _state(file)
            index = _read(index_path(path), state)
            if index is None:
                index = _scan(file)
                if keep:
                    _write(index_path(path), state, *index)
            return cls(path, file, *index)
        except BaseException:
            file.close()
            raise

    @classmethod
    def _open_copy(cls, path: Path, unit: str) -> Self:
        file, numbers = _copied(path)
        return cls(path, file, _scan(file)[0], numbers, unit)

    def __len__(self) -> int:
        return len(self._numbers)

    def where(self, row: int) -> str:
        """The file and the line of a row, for messages."""
        return f"{self.path}: {self._unit} {self._numbers[row]}" if self._unit else f"{self.path}:{self._numbers[row]}"

    def raw(self, row: int) -> bytes:
        """The bytes of a row."""
        start, end = self._offsets[row], self._offsets[row + 1]
        return os.pread(self._file.fileno(), end - start, start)

    def row(self, row: int) -> dict[str, Any]:
        """Return a row as a dictionary.

        Raises:
            DataError: the row is not a JSON object, or incomplete.
        """
        raw = self.raw(row)
        if row == len(self) - 1 and not raw.endswith(b"\n") and not dataset_lines.is_object(raw):
            cure = "run the command that wrote the file again to resume it, or remove that line"
            raise DataError("the last line is incomplete", where=self.where(row), cure=cure)
        return dataset_lines.parse(raw, self.where(row))

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def is_table(path: Path) -> bool:
    """Whether a file has columns: Parquet or Arrow by its content, CSV or TSV by its name."""
    if path.suffix.lower() in (".csv", ".tsv"):
        return True
    return path.is_file() and dataset_lines.sniff(path).startswith((b"PAR1", b"ARROW1"))


def index_path(path: Path) -> Path:
    """``X.index`` beside ``X.jsonl``."""
    return path.with_name(f"{path.stem}.index")


def _has_one_row_per_line(file: IO[bytes]) -> bool:
    start = file.read(HEAD).removeprefix(codecs.BOM_UTF8)
    file.seek(0)
    if start.startswith(tuple(DECOMPRESSORS)) or start.lstrip().startswith(b"["):
        return False
    return b"\n" in start or b"\r" not in start.rstrip()


def _copied(path: Path) -> tuple[IO[bytes], array[int]]:
    """A copy with one row per line, and the numbers of the rows in the original."""
    copy = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the index
    numbers = array("Q")
    try:
        if is_table(path):
            for _, number, row in file_rows(path):
                copy.write(jsonl.encode([row]))
                numbers.append(number)
        else:
            with suppress(DataError):  # an incomplete last line
                for _, number, raw in dataset_lines.lines(path):
                    copy.write(raw.strip().replace(b"\r", b" ").replace(b"\n", b" ") + b"\n")
                    numbers.append(number)
        copy.flush()
        copy.seek(0)
    except BaseException:
        copy.close()
        raise
    return copy, numbers


def _scan(file: IO[bytes]) -> tuple[array[int], array[int]]:
    """The offsets and the line numbers of all rows that are not blank."""
    offsets, numbers = array("Q"), array("Q")
    file.seek(0)
    offset = end = 0
    for number, raw in enumerate(file, 1):
        if number == 1 and raw.startswith(codecs.BOM_UTF8):
            offset = len(codecs.BOM_UTF8)
            raw = raw[offset:]
        if raw.strip():
            # The offset of the next row ends this one, so blank lines between them belong to it and are white space.
            offsets.append(offset)
            numbers.append(number)
            end = offset + len(raw)
        offset += len(raw)
    offsets.append(end)
    return offsets, numbers


def _state(file: IO[bytes]) -> dict[str, Any]:
    """What a change of the file would change."""
    stat = os.fstat(file.fileno())
    ends = os.pread(file.fileno(), HEAD, 0) + os.pread(file.fileno(), HEAD, max(0, stat.st_size - HEAD))
    return {
        "format": _FORMAT,
        "order": sys.byteorder,
        "size": stat.st_size,
        "time": stat.st_mtime_ns,
        "ends": hashlib.sha256(ends).hexdigest(),
    }


def _read(path: Path, state: dict[str, Any]) -> tuple[array[int], array[int]] | None:
    """The offsets and line numbers in an index; None if it is missing, damaged, or of another state of the file."""
    try:
        files.check_readable(path)
        with path.open("rb") as file:
            head = json.loads(file.readline(4096))
            rows = head.pop("rows")
            content = file.read()
    except (OSError, UserError, ValueError, AttributeError, KeyError, TypeError, RecursionError):
        return None
    if head != state or not isinstance(rows, int) or len(content) != 8 * (2 * rows + 1):
        return None
    values = array("Q", content)
    offsets, numbers = values[: rows + 1], values[rows + 1 :]
    if any(before >= after for before, after in pairwise(offsets)) or offsets[-1] > state["size"]:
        return None
    return offsets, numbers


def _write(path: Path, state: dict[str, Any], offsets: array[int], numbers: array[int]) -> None:
    """Keep an index beside its file; without one, the next start reads the whole file again."""
    head = json.dumps(state | {"rows": len(numbers)}).encode() + b"\n"
    with suppress(OSError, UserError):
        files.replace(path, [head, offsets.tobytes(), numbers.tobytes()])
