"""The pass rates of the problems of a samples file."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from spotcli import jsonl


@dataclass(frozen=True)
class PassRate:
    """Shares of right answers per problem, in four numbers."""

    mean: float
    never: int
    """Problems without a right answer."""
    sometimes: int
    always: int


def write_pass_rates(path: Path) -> PassRate:
    """Write each problem's share of right answers to ``X.rates.jsonl``.

    Undecided answers count as not right.
    """
    counts: dict[str, Counter[str]] = {}
    for row in jsonl.rows(path):
        counts.setdefault(row["id"], Counter())[row["verdict"]] += 1
    rates = {id: verdicts["right"] / verdicts.total() for id, verdicts in counts.items()}
    jsonl.write_rows(
        path.with_suffix(".rates.jsonl"),
        ({"id": id, "trials": counts[id].total(), **counts[id], "pass_rate": rate} for id, rate in rates.items()),
    )
    return PassRate(
        mean=sum(rates.values()) / max(1, len(rates)),
        never=sum(rate == 0 for rate in rates.values()),
        sometimes=sum(0 < rate < 1 for rate in rates.values()),
        always=sum(rate == 1 for rate in rates.values()),
    )
