"""What is answered already, and what a run has done so far."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy

from spotcli.errors import Unfinished
from spotcli.grading.answers import TRUNCATED
from spotcli.policies import Answer, Failure, Request
from spotcli.records import Sample, Score, key_hash
from spotcli.work_time import work_time


class Answered:
    """The answers in a file, as hashes of eight bytes each, because there can be millions.

    Args:
        key: the key of a row, as that of its request.
    """

    def __init__(self, key: Callable[[Mapping[str, Any]], tuple[Any, ...]]) -> None:
        self.verdicts: Counter[str] = Counter()
        """Verdicts of all answers; ``truncated`` are counted apart from the other ``undecided`` ones."""
        self._key = key
        self._keys = array("Q")

    def read(self, row: Mapping[str, Any]) -> None:
        """Add a row of the file."""
        self._keys.append(key_hash(*self._key(row)))
        self._count(row["verdict"], row.get("finish_reason"))

    def sort(self) -> None:
        """Prepare for ``has``, once all rows are read."""
        if self._keys:
            numpy.frombuffer(self._keys, dtype=numpy.uint64).sort()

    def has(self, request: Request) -> bool:
        key = key_hash(*request.key)
        index = bisect_left(self._keys, key)
        return index < len(self._keys) and self._keys[index] == key

    def __len__(self) -> int:
        """Answers that were read; those that a run adds are not counted."""
        return len(self._keys)

    def count_new(self, rows: Sequence[Sample | Score]) -> None:
        """Count the verdicts of answers that this run adds."""
        for row in rows:
            self._count(row.verdict, row.finish_reason)

    def add_rows(self, rows: Sequence[Sample | Score]) -> None:
        """Add rows as if they had been read."""
        self._keys.extend(key_hash(*row.key) for row in rows)
        self.sort()
        self.count_new(rows)

    def _count(self, verdict: str, finish_reason: str | None) -> None:
        self.verdicts[TRUNCATED if finish_reason == "length" else verdict] += 1


@dataclass
class Work:
    """What one run has done so far."""

    wanted: int
    """Answers that were missing at its start."""
    answers: int = 0
    tokens: int = 0
    cost: float | None = None
    """US dollars; None where no answer had a price."""
    failures: Counter[str] = field(default_factory=Counter)
    """By reason."""
    failed_groups: Counter[str] = field(default_factory=Counter)
    """The same by ``Request.group``."""
    only_reasoning: int = 0
    """Answers without a response, whose text is all in ``reasoning``."""
    ungraded: int = 0
    """Answers that a stop left ungraded; they are counted as remaining."""
    started: float = field(default_factory=work_time)

    @property
    def remaining(self) -> int:
        """Missing answers that were neither answered nor failed."""
        return self.wanted - self.answers - self.failures.total()

    def add(self, items: Sequence[Answer | Failure], *, graded: bool = True) -> None:
        """Add answers and failures that arrived together."""
        for item in items:
            if isinstance(item, Failure):
                self.failures[item.reason] += 1
                self.failed_groups[item.request.group] += 1
            elif not graded:
                self.ungraded += 1
            else:
                self.answers += 1
                self.only_reasoning += bool(item.reasoning and not item.response.strip())
            self.tokens += item.tokens
            if item.cost is not None:
                self.cost = (self.cost or 0.0) + item.cost

    def note(self, verdicts: Counter[str]) -> str:
        """The end of the progress line."""
        undecided = verdicts["undecided"] + verdicts[TRUNCATED]
        parts = [f"right {verdicts['right']} wrong {verdicts['wrong']}"]
        parts.append(f"undecided {undecided} (truncated {verdicts[TRUNCATED]})")
        if self.failures:
            parts.append(f"failed {self.failures.total()}")
        parts.append(f"{self.tokens / max(work_time() - self.started, 1e-9):.0f} tokens/s")
        if self.cost is not None:
            parts.append(f"${self.cost:.4f}")
        return " ".join(parts)


def stopped(where: str, *, answers: int, remaining: int, ungraded: int) -> Unfinished:
    """The end of a run that was stopped."""
    kept = f" ({ungraded} of them only have to be graded)" if ungraded else ""
    return Unfinished(
        f"stopped: {answers} answers are saved, {remaining} remain{kept}",
        where=where,
        cure="run the same command again to resume",
    )


def failed(where: str, *, answers: int, failures: Mapping[str, int]) -> Unfinished:
    """The end of a run in which requests failed."""
    reasons = ", ".join(f"{reason} {count}" for reason, count in Counter(failures).most_common())
    return Unfinished(
        f"{sum(failures.values())} requests failed ({reasons}); {answers} answers are saved",
        where=where,
        cure="run the same command again to retry them",
    )
