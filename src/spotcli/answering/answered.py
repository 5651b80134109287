"""What is answered already, what remains, and what a run has done so far."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy

from spotcli.grading.answers import TRUNCATED
from spotcli.policies import Answer, Failure, Request
from spotcli.records import Sample, key_hash
from spotcli.sampling.problem_set import Counted, ProblemSet
from spotcli.work_time import work_time


class Answered:
    """The answers in the file, as hashes of eight bytes each, because there can be millions."""

    def __init__(self) -> None:
        self.verdicts: Counter[str] = Counter()
        """Verdicts of all answers; ``truncated`` are counted apart from the other ``undecided`` ones."""
        self._keys = array("Q")

    def read(self, row: dict[str, Any]) -> None:
        """Add a row of the file."""
        self._keys.append(key_hash(row["id"], row.get("trial", 0)))
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

    def count_new(self, rows: Sequence[Sample]) -> None:
        """Count the verdicts of answers that this run adds."""
        for row in rows:
            self._count(row.verdict, row.finish_reason)

    def add_rows(self, rows: Sequence[Sample]) -> None:
        """Add rows as if they had been read."""
        self._keys.extend(key_hash(*row.key) for row in rows)
        self.sort()
        self.count_new(rows)

    def _count(self, verdict: str, finish_reason: str | None) -> None:
        self.verdicts[TRUNCATED if finish_reason == "length" else verdict] += 1


@dataclass(frozen=True)
class Remaining:
    """What a run still has to answer."""

    missing: int
    """Answers that it asks for and the file does not have."""
    others: int
    """Answers in the file that it does not ask for: to problems beyond its limit, or later trials."""


def count_remaining(problems: ProblemSet, answered: Answered, counted: Counted | None) -> Remaining:
    """Compare the answers in the file with those that a run asks for.

    Args:
        problems: the counted problems.
        answered: the answers in the file.
        counted: what an earlier run with the same settings counted; with it, the problems are not read.
    """
    wanted = len(problems) * problems.trials
    if counted:
        missing = wanted - (len(answered) - counted.others)
    elif len(answered):
        missing = sum(not answered.has(request) for _, request in problems.requests())
    else:
        missing = wanted
    return Remaining(missing, others=len(answered) - (wanted - missing))


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
    only_reasoning: int = 0
    """Answers without a response, whose text is all in ``reasoning``."""
    ungraded: int = 0
    """Answers that a stop left ungraded; they are counted as remaining."""
    started: float = field(default_factory=work_time)

    @property
    def remaining(self) -> int:
        """Missing answers that were neither answered nor failed."""
        return self.wanted - self.answers - self.failures.total()

    def add(self, group: Sequence[Answer | Failure], *, graded: bool = True) -> None:
        for item in group:
            if isinstance(item, Failure):
                self.failures[item.reason] += 1
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
