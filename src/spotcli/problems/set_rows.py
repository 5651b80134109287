"""The rows of a problem set as they are published: files (JSONL, Parquet, CSV, Arrow), and data sets of the hub.

Rows are streams, so a set may have millions of them.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from pydantic_core import PydanticSerializationError, to_jsonable_python

from spotcli import files, jsonl
from spotcli.console import say
from spotcli.dataset_lines import DAMAGED, damaged, decompressed, foreign, sniff, utf16_or_32
from spotcli.errors import DataError, UserError

BATCH = 1024
"""Rows in memory at once."""
ARROW_STREAM = b"\xff\xff\xff\xff"
"""First bytes of an Arrow stream, as which ``datasets`` saves its files."""

Rows = Iterator[tuple[str, int, dict[str, Any]]]
"""Place (``file:line``), number from 1, and fields of each row."""


class HubError(UserError):
    """A data set of the hub cannot be loaded: unknown, gated, or the hub cannot be reached."""


def set_rows(name: str, folder: Path, *, quiet: bool = False) -> Rows:
    """The rows of a problem set as they are published.

    Args:
        name: a path relative to ``folder``, or ``hf:NAME[:config][:split]``.
        folder: for relative paths.
        quiet: do not report which of several splits is read.

    Raises:
        UserError: the set is not found or cannot be read.
        HubError: a data set of the hub cannot be loaded.
    """
    return _hub(name, folder, quiet=quiet) if name.startswith("hf:") else file_rows(folder / name)


def file_rows(path: Path) -> Rows:
    """The rows of a file, read by its content; the ending decides only between kinds of text.

    Raises:
        UserError: the file is not found or cannot be read.
    """
    if path.is_dir():
        raise UserError(
            "expected a file of problems, got a folder",
            where=str(path),
            cure=f"use hf:{path} to read a folder of data files as the hub does",
        )
    files.check_readable(path)
    is_compressed = path.suffix.lower() in (".gz", ".bz2", ".xz")
    ending = Path(path.stem if is_compressed else path.name).suffix.lower()
    if ending in (".parquet", ".arrow", ".feather", ".csv", ".tsv") and not path.exists():
        raise UserError("file not found", where=str(path), cure="check the path")
    start = sniff(path) if path.is_file() else b""
    if start.startswith(b"PAR1"):
        return _parquet(path)
    if start.startswith((b"ARROW1", ARROW_STREAM)):
        return _arrow(path)
    is_text = not start.lstrip().startswith((b"{", b"[")) and not utf16_or_32(start) and not foreign(start)
    if ending in (".csv", ".tsv") and is_text:
        header = start.splitlines()[0] if start else b""
        separated = next((mark for mark in (b",", b";", b"\t") if mark in header), b",")
        return _csv(path, delimiter="\t" if ending == ".tsv" else separated.decode())
    if ending == ".parquet" and is_text and b"\0" in start:
        return _parquet(path)  # names what is wrong with it
    return jsonl.placed(path)


def _arrow(path: Path) -> Rows:
    import pyarrow

    try:
        with pyarrow.memory_map(str(path)) as file:
            if file.read(len(ARROW_STREAM)) == ARROW_STREAM:
                file.seek(0)
                batches = iter(pyarrow.ipc.open_stream(file))
            else:
                reader = pyarrow.ipc.open_file(file)
                batches = (reader.get_batch(index) for index in range(reader.num_record_batches))
            yield from _placed(path, chain.from_iterable(batch.to_pylist() for batch in batches))
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"failed to read the Arrow file: {reason}", where=str(path), cure="check that the file is complete"
        ) from None


def _parquet(path: Path) -> Rows:
    import pyarrow
    from pyarrow import parquet

    try:
        # Data that are read ahead stay in memory, and a row group can be as large as the file.
        with parquet.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20) as file:
            batches = (batch.to_pylist() for batch in file.iter_batches(BATCH))
            yield from _placed(path, chain.from_iterable(batches))
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"failed to read the Parquet file: {reason}", where=str(path), cure="check that the file is complete"
        ) from None


def _csv(path: Path, delimiter: str) -> Rows:
    """Rows of a CSV or TSV file: cells are text, and an empty cell is a missing field."""
    csv.field_size_limit(1 << 30)
    with path.open("rb") as file:
        text = io.TextIOWrapper(decompressed(file), encoding="utf-8-sig", newline="")
        reader = csv.reader(text, strict=True, delimiter=delimiter, skipinitialspace=True)
        try:
            header = _header(reader, path)
            # Spreadsheets write rows of empty cells.
            for number, cells in enumerate((cells for cells in reader if any(map(str.strip, cells))), 1):
                if len(cells) != len(header):
                    raise csv.Error(f"expected {len(header)} cells as in the header, got {len(cells)}")
                row = {name: cell for name, cell in zip(header, cells, strict=True) if cell}
                yield f"{path}: row {number}", number, row
        except csv.Error as error:
            raise DataError(
                f"invalid CSV: {error}", where=f"{path}:{reader.line_num}", cure="fix or remove the line"
            ) from None
        except UnicodeDecodeError as error:
            raise _not_utf8(path, error) from None
        except DAMAGED as error:
            raise damaged(path, error) from None


def _header(reader: Iterator[list[str]], path: Path) -> list[str]:
    """The names of the columns.

    Raises:
        DataError: a column occurs twice, so one of its values would be lost.
    """
    header = [name.strip() for name in next(reader, [])]
    for name in header:
        if name and header.count(name) > 1:
            raise DataError(f"duplicate column '{name}'", where=f"{path}:1", cure="remove or rename one of the columns")
    return header


def _not_utf8(path: Path, error: UnicodeDecodeError) -> DataError:
    """The error for a table in another encoding, with the first line that is not UTF-8."""
    where = str(path)
    if path.is_file():
        with path.open("rb") as file:
            for number, line in enumerate(decompressed(file), 1):
                try:
                    line.decode()
                except UnicodeDecodeError as in_line:
                    where, error = f"{path}:{number}", in_line
                    break
    cure = "save the table as UTF-8, or convert it: iconv -f ENCODING -t UTF-8"
    return DataError(f"invalid CSV: {error}", where=where, cure=cure)


def _placed(source: Path | str, rows: Iterable[dict[str, Any]]) -> Rows:
    """Rows with their places; values that JSON has no type for, such as dates, become text.

    Raises:
        DataError: a column is binary.
    """
    for number, row in enumerate(rows, 1):
        where = f"{source}: row {number}"
        yield where, number, _as_json(row, where)


def _as_json(row: dict[str, Any], where: str) -> dict[str, Any]:
    plain = {}
    for name, value in row.items():
        try:
            plain[name] = to_jsonable_python(value)
        except (PydanticSerializationError, ValueError):
            raise DataError(
                f"the column '{name}' is binary ({type(value).__name__}), which a row of text cannot contain",
                where=where,
                cure="remove the column, or convert it to text",
            ) from None
    return plain


def _hub(name: str, folder: Path, *, quiet: bool) -> Rows:
    """Rows of a data set of the hub or of a folder, through the local cache: a second reading needs no network.

    Raises:
        HubError: the data set cannot be loaded.
        UserError: it has several splits and none is chosen, or a file of the folder is a git-lfs pointer.
    """
    import datasets

    whole = name.removeprefix("hf:")
    path, config, split = [*([whole] if (folder / whole).is_dir() else whole.split(":")), "", ""][:3]
    is_folder = (folder / path).is_dir()
    if is_folder:
        path = str((folder / path).absolute())
    try:
        if (Path(path) / "state.json").is_file() and not split:
            loaded = datasets.load_from_disk(path)
        else:
            loaded = datasets.load_dataset(path, config or None, split=split or None)
    except Exception as error:  # any: each reader of a file format has errors of its own
        if is_folder:
            _refuse_pointers(Path(path))
        raise HubError(
            f"failed to load the data set: {_reason(error)}",
            where=name,
            cure="check the files in the folder, and the name: hf:FOLDER[:CONFIG][:SPLIT]; a single file has no hf:"
            if is_folder
            else "use hf:NAME, hf:NAME:CONFIG, hf:NAME:CONFIG:SPLIT or hf:NAME::SPLIT; offline, use a local file",
        ) from None
    if isinstance(loaded, dict):
        chosen = "train" if "train" in loaded else next(iter(loaded))
        if chosen != "train" and len(loaded) > 1:
            raise UserError(
                f"a split is required: the data set has {', '.join(loaded)}, but no train",
                where=name,
                cure=f"use hf:{path}:{config}:{chosen} or another split",
            )
        if len(loaded) > 1 and not quiet:
            say(f"{name}: reading the split {chosen} of {', '.join(loaded)}; hf:{path}:{config}:SPLIT reads another")
        loaded = loaded[chosen]
    batches = (
        [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]
        for batch in loaded.iter(BATCH)
    )
    return _placed(name, chain.from_iterable(batches))


def _reason(error: Exception) -> str:
    """Why a data set cannot be loaded; the library hides the error of its reader behind one of its own."""
    import datasets

    if isinstance(error, StopIteration):
        return "a file has no rows"
    if isinstance(error, datasets.exceptions.DatasetGenerationError) and error.__cause__:
        return " ".join(str(error.__cause__).split()) or type(error.__cause__).__name__
    return " ".join(str(error).split()) or type(error).__name__


def _refuse_pointers(folder: Path) -> None:
    """Refuse a folder that was cloned without the content of its files.

    Raises:
        UserError: a file is a git-lfs pointer.
    """
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            kind, cure = foreign(file.read(40)) or ("", "")
        if "git-lfs" in kind:
            raise UserError(f"expected a data file, got {kind}", where=str(path), cure=cure)
