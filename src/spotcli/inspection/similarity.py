"""How similar both answers of a pair are to the policy (CHES), as ``train.similarity`` wrote it.

data.similarity.jsonl    one row per pair: its digest, the policy, `ches`, `ches_normalized`
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from spotcli.decisions import text_digest
from spotcli.inspection.pair_filter import Fields
from spotcli.records import Pair

FIELD = "similarity"
"""The field of the filter language: the normalized CHES, 0 for equal answers, larger for more similar ones."""


class Similarities:
    """The similarity of a file's pairs; it is read when the first one is asked for.

    Args:
        data: the file of pairs.
    """

    def __init__(self, data: Path) -> None:
        self.path = data.with_name(f"{data.stem}.similarity.jsonl")

    @cached_property
    def _known(self) -> Mapping[str, float]:
        """By the digest of the pair. Damaged rows are left out, and a file that cannot be read has none."""
        known: dict[str, float] = {}
        with suppress(OSError), self.path.open("rb") as file:
            for line in file:
                with suppress(ValueError, RecursionError):
                    row = json.loads(line)
                    value = row.get("ches_normalized") if isinstance(row, dict) else None
                    if isinstance(value, float) and math.isfinite(value) and isinstance(row.get("pair"), str):
                        known[row["pair"]] = value
        return known

    def __bool__(self) -> bool:
        """Whether the similarity of any pair is known."""
        return bool(self._known)

    def of(self, pair: Pair) -> float | None:
        """The similarity of a pair whose text has not changed since; None if it is not known."""
        return self._known.get(text_digest(pair)) if self._known else None

    def with_field(self, fields: Fields[Any]) -> Fields[Any]:
        """The fields of the filter language, with ``similarity``."""

        def value(row: Any) -> float | None:
            return self.of(row) if isinstance(row, Pair) else None

        return replace(fields, numbers={**fields.numbers, FIELD: value})
