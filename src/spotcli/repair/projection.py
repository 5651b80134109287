"""What a run will cost in the end, projected from the answers that are decided so far."""

from __future__ import annotations

from collections.abc import Sequence

from spotcli.repair.cases import Case, History
from spotcli.repair.cost_estimate import FEWEST_DECIDED

REQUEST_CHARACTERS = 2_000
"""Characters that every request has: about those of the instructions."""
REPLY_WEIGHT = 4
"""A character of a reply costs so many times one of a prompt."""


class CostProjection:
    """Projects the cost of a run while it goes on.

    Cheap replies come first, so where possible only the answers before the first undecided one are counted, and not
    whatever is decided.

    Args:
        cases: in the order in which they are worked on.
        history: all replies; those of this run are added to it.
    """

    def __init__(self, cases: Sequence[Case], history: History) -> None:
        self._cases = [case for case in cases if case.open]
        self._history = history
        self._sizes = [_size(case) for case in self._cases]
        self._total = sum(self._sizes)
        self._number = {id(case): number for number, case in enumerate(self._cases)}
        self._decided = [False] * len(self._cases)
        self._costs = [0.0] * len(self._cases)
        self._without_gap = 0
        """All cases before this one are decided."""
        self._gapless = _Sums()
        self._all = _Sums()
        self._unpriced = False

    def decide(self, case: Case) -> None:
        """Count a case that needs no more requests in this run."""
        number = self._number.get(id(case))
        if number is None or self._decided[number]:
            return
        cost = self._history.cost_of(case)
        if cost is None:
            self._unpriced = True
            return
        self._decided[number], self._costs[number] = True, cost
        self._all.add(self._sizes[number], cost)
        while self._without_gap < len(self._cases) and self._decided[self._without_gap]:
            self._gapless.add(self._sizes[self._without_gap], self._costs[self._without_gap])
            self._without_gap += 1

    @property
    def total(self) -> float | None:
        """US dollars of the whole job, replies of earlier runs included; None if too little is known."""
        if self._unpriced or self._all.count < FEWEST_DECIDED:
            return None
        rate = self._gapless if self._gapless.count >= FEWEST_DECIDED else self._all
        return self._all.cost + rate.cost / rate.size * (self._total - self._all.size)

    def affordable(self, limit: float) -> int | None:
        """How many answers a cost limit is likely to pay for; None if too little is known."""
        total = self.total
        if total is None:
            return None
        return len(self._cases) if total <= limit else int(len(self._cases) * limit / total)

    def __len__(self) -> int:
        return len(self._cases)


class _Sums:
    """Counted cases, their sizes and their cost."""

    def __init__(self) -> None:
        self.count = 0
        self.size = 0
        self.cost = 0.0

    def add(self, size: int, cost: float) -> None:
        self.count += 1
        self.size += size
        self.cost += cost


def _size(case: Case) -> int:
    """A number to which the cost of a case is about proportional; counting tokens would take seconds."""
    prompt = sum(len(message["content"]) for message in case.sample.messages)
    return REQUEST_CHARACTERS + prompt + REPLY_WEIGHT * len(case.sample.response)
