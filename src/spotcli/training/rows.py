"""The rows of a training file as pairs: spot's own format, and the formats of ``preference_rows``.

A row that is not one of these is invalid. Invalid rows are left out and counted up to ``train.max_bad_rows``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from spotcli import jsonl
from spotcli.errors import DataError
from spotcli.preference_rows import with_pair_fields
from spotcli.problems.set_rows import file_rows
from spotcli.records import EVALUATION, Pair

P = TypeVar("P", bound=Pair)
Fields = dict[str, Any]
"""A row as it was read."""

INVALID = "invalid"
"""Reason: the row is not a pair, or the chat template rejects its messages."""

LIMIT = 10
"""Most invalid rows where the recipe sets no limit."""

_NAMED = 3
"""Invalid rows that are named."""

TABLES = (".parquet", ".csv", ".tsv")
"""Endings of files with columns."""

_FORMATS = "a row requires prompt, chosen and rejected; docs/training.md lists the formats that are read"


@dataclass
class InvalidRows:
    """The rows that are left out because they are invalid.

    Args:
        given: most rows that may be left out; None: ``LIMIT``, and less than half of the rows.
    """

    given: int | None = None
    count: int = 0
    first: list[DataError] = field(default_factory=list)
    """The errors of the first ones."""

    def add(self, error: DataError) -> None:
        """Count one more row.

        Raises:
            DataError: more rows are invalid than may be left out.
        """
        self.count += 1
        if len(self.first) < _NAMED:
            self.first.append(error)
        limit = LIMIT if self.given is None else self.given
        if self.count > limit:
            raise self.error(f"more than {limit} rows are invalid (train.max_bad_rows)")

    def check_share(self, rows: int) -> None:
        """Check that the file is not of another format as a whole.

        Args:
            rows: all rows of the file.

        Raises:
            DataError: at least half of the rows are invalid, and the recipe does not allow it.
        """
        if self.given is None and self.count and 2 * self.count >= rows:
            raise self.error(f"{self.count} of {rows} rows are invalid")

    def error(self, message: str) -> DataError:
        """The error of the first row, with a message about all of them."""
        first = self.first[0]
        text = first.message if self.count == 1 else f"{first.message}; {message}"
        return DataError(text, where=first.where, cure=first.cure)


def read_pairs(
    path: Path, kind: type[P], *, invalid: Callable[[DataError], object], renamed: dict[str, str] | None = None
) -> Iterator[tuple[str, P]]:
    """Yield the pairs of a file (.parquet, .csv, .tsv, JSONL otherwise), each with its place.

    Args:
        path: the file.
        kind: the record.
        invalid: called with the error of each row that is not a pair.
        renamed: collects the fields that were read under another name.

    Raises:
        DataError: a row belongs to an evaluation.
        UserError: the file is not found, cannot be read, or has rows of another kind, such as samples.
    """
    first_row: Fields = {}
    valid = False
    places: dict[tuple[str, int], str] = {}
    renamed = {} if renamed is None else renamed
    for where, row in _rows(path, invalid):
        if row.get("split") == EVALUATION:
            raise DataError(
                "this answer belongs to an evaluation, so it must not be trained on",
                where=where,
                cure="use answers to other problems (spot sample); `spot eval` compares models on these",
            )
        first_row = first_row or {**row}
        try:
            has_id = row.get("id") not in (None, "")
            record = jsonl.as_record(with_pair_fields(row, renamed), kind, where=where, renamed=renamed)
            if has_id and (first := places.setdefault(record.key, where)) != where:
                raise DataError(
                    f"duplicate key {record.key!r} (first in {first})",
                    cure="give each row a unique id, or leave the ids out",
                )
        except DataError as error:
            error.where = error.where or where
            if "'prompt' is missing" in error.message:
                error.cure = _FORMATS
            try:
                invalid(error)
            except DataError:
                if not valid:
                    _refuse_other_kind(first_row, kind, path)
                raise
            continue
        valid = True
        yield where, record
    if not valid:
        _refuse_other_kind(first_row, kind, path)


def _refuse_other_kind(first_row: Fields, kind: type[Pair], path: Path) -> None:
    """Refuse a file without a pair that is of another kind, such as samples.

    Raises:
        UserError: its first row is of another kind.
    """
    if not {"completion", "messages"} & {*first_row}:  # the errors of these formats are about the row
        jsonl.refuse_other_kind(first_row, kind, path)


def _rows(path: Path, invalid: Callable[[DataError], object]) -> Iterator[tuple[str, Fields]]:
    if path.suffix.lower() in TABLES:
        yield from ((where, row) for where, _, row in file_rows(path))
    else:
        yield from ((where, row) for where, _, row in jsonl.placed(path, invalid=invalid))
