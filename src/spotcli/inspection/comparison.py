"""A file of scores compared with a base model's, row by row; damaged rows of both files are left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from threading import Lock
from typing import Self

from spotcli.errors import DataError, UserError
from spotcli.inspection import row_kinds
from spotcli.inspection.row_index import RowIndex
from spotcli.records import Score, key_hash
from spotcli.score_changes import ComparedAnswers, ProblemChange, ProblemKey, compare


class Comparison:
    """The change of each problem, from the base model's answers to those of an open file; made at its first use.

    Args:
        base: the file of the base model's scores.
        tuned: the open file.

    Raises:
        UserError: the file of the base model does not exist or has another format.
    """

    def __init__(self, base: Path, tuned: RowIndex) -> None:
        self.base = base
        self.changes: Mapping[ProblemKey, ProblemChange] = {}
        self.is_made = False
        self._tuned = tuned
        self._index = RowIndex.open(base, keep=False)
        self._rows: dict[int, int] = {}
        """Hash of a key -> row of the base model's file."""
        self._lock = Lock()

    def make(self) -> None:
        """Compare the files, once.

        Raises:
            UserError: the file of the base model has no scores.
            DataError: a problem has another prompt in the other file.
        """
        with self._lock:
            if self.is_made:
                return
            self.changes = compare(self._before(), self._after(), base=self.base, tuned=self._tuned.path)
            if len(self._index) and not self._rows:
                cure = "name the scores of the base model, which `spot eval` wrote, with --against"
                raise UserError("expected scores, got other rows", where=str(self.base), cure=cure)
            self.is_made = True

    def _before(self) -> Iterator[Score]:
        for row, score in _scores(self._index):
            if self._rows.setdefault(key_hash(*score.key), row) == row:
                yield score

    def _after(self) -> Iterator[Score]:
        return (score for _, score in _scores(self._tuned))

    def change(self, score: Score) -> ProblemChange | None:
        """The change of the problem of an answer; None if the base model did not answer it."""
        return self.changes.get((score.task, score.id))

    def is_shown(self, score: Score) -> bool:
        """Whether an answer is the one that shows the change of its problem."""
        change = self.change(score)
        return change is not None and change.tuned_key == score.key

    def answers(self, score: Score) -> ComparedAnswers | None:
        """An answer and the base model's answer to compare it with: that of the same trial, if no other shows more."""
        change = self.change(score)
        if change is None:
            return None
        keys = [change.base_key] if change.tuned_key == score.key else [score.key, change.base_key]
        row = next((self._rows[hashed] for key in keys if (hashed := key_hash(*key)) in self._rows), None)
        base = None if row is None else _score(self._index, row)
        return None if base is None else ComparedAnswers(change, base, score)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._index.close()


def _scores(index: RowIndex) -> Iterator[tuple[int, Score]]:
    for row in range(len(index)):
        score = _score(index, row)
        if score is not None:
            yield row, score


def _score(index: RowIndex, row: int) -> Score | None:
    try:
        record = row_kinds.read_row(index.row(row), index.where(row), {})
    except DataError:
        return None
    return record if isinstance(record, Score) else None
