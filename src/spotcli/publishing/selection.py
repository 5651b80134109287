"""The rows of a file that are uploaded: with the decisions of reviewers, never those of gated or evaluation sets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spotcli import decisions, jsonl
from spotcli.console import note_renamed_fields
from spotcli.errors import DataError, UserError
from spotcli.records import EVALUATION, Pair, Sample, json_text
from spotcli.redaction import redact

GATED = ("gpqa",)
"""Parts of the names of gated benchmarks, whose authors ask that their text is not spread."""
_GATED_FIELDS = {"Canary String", "Correct Answer", "Pre-Revision Question"}
"""Columns that only the published files of gated benchmarks have."""


@dataclass
class Selection:
    """The rows of one file, as they are uploaded."""

    path: Path
    kind: str
    """``pairs`` or ``samples``."""
    lines: list[bytes] = field(default_factory=list)
    rejected: int = 0
    """Pairs that a reviewer rejected; they are left out."""
    edited: int = 0
    """Pairs that are uploaded with a reviewer's correction."""
    right: int = 0
    """Right answers among the pairs: rows without y-."""
    oracles: Counter[str] = field(default_factory=Counter)

    @property
    def content(self) -> bytes:
        return b"".join(self.lines)


def select_pairs(path: Path) -> Selection:
    """The pairs that no reviewer rejected, with their corrections.

    Raises:
        DataError: an invalid row, with its place.
        UserError: the file has no pairs, or has rows that must not be published.
    """
    decided = decisions.read(path)
    renamed: dict[str, str] = {}
    selection, problems = Selection(path, Pair.kind), _Problems()
    for pair in jsonl.read(path, Pair, renamed=renamed):
        applied = decided.applied(pair)
        if applied.is_rejected:
            selection.rejected += 1
            continue
        selection.edited += applied.review == "edited"
        selection.right += applied.rejected is None
        row = applied.model_dump(mode="json", exclude_unset=True)
        selection.oracles[str(applied.oracle.get("name") or "none")] += 1
        selection.lines.append(problems.checked(row))
    note_renamed_fields(path, renamed)
    problems.raise_if_any(path)
    if not selection.lines:
        raise UserError("there is no pair to upload", where=str(path), cure="make pairs with `spot rectify`")
    return selection


def select_samples(path: Path) -> Selection:
    """All samples of a file.

    Raises:
        DataError: an invalid row, with its place.
        UserError: the file has rows that must not be published.
    """
    selection, problems = Selection(path, Sample.kind), _Problems()
    for sample in jsonl.read(path, Sample):
        selection.lines.append(problems.checked(sample.model_dump(mode="json", exclude_unset=True)))
    problems.raise_if_any(path)
    return selection


class _Problems:
    """Counts the rows that must not be published."""

    def __init__(self) -> None:
        self._reasons: Counter[str] = Counter()
        self._first = ""

    def checked(self, row: Mapping[str, Any]) -> bytes:
        """The row as a line of the uploaded file; it is counted if it must not be published."""
        line = jsonl.encode([row])
        if reason := _why_not(row, line):
            self._reasons[reason] += 1
            self._first = self._first or str(row["id"])
        return line

    def raise_if_any(self, path: Path) -> None:
        """Raise the error for rows that must not be published, with their counts.

        Raises:
            DataError: there are some.
        """
        if self._reasons:
            counts = ", ".join(f"{count} {reason}" for reason, count in self._reasons.items())
            raise DataError(
                f"rows that must not be published: {counts} (first: id {self._first[:60]!r})",
                where=str(path),
                cure="remove these rows; nothing was uploaded",
            )


def _why_not(row: Mapping[str, Any], line: bytes) -> str | None:
    """Why a row must not be published; None if it may be."""
    if row.get("split") == EVALUATION:
        return "of an evaluation (split: eval)"
    names = f"{row.get('source')} {row.get('task')} {json_text(row.get('data_source'))}".lower()
    if any(name in names for name in GATED) or _GATED_FIELDS & {*row}:
        return f"of a gated benchmark ({', '.join(GATED)})"
    text = line.decode()
    return "with a key of this environment" if redact(text) != text else None
