"""How often each problem is answered right, where it is answered several times."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from spotcli import jsonl


def pass_rates(path: Path) -> dict[str, float]:
    """Write each problem's share of right answers to ``X.rates.jsonl``; the whole in four numbers.

    What is undecided is in the denominator: it is not right.
    """
    counts: dict[str, Counter[str]] = {}
    for row in jsonl.rows(path):
        counts.setdefault(row["id"], Counter())[row["verdict"]] += 1
    rates = {id: verdicts["right"] / verdicts.total() for id, verdicts in counts.items()}
    jsonl.write_rows(
        path.with_suffix(".rates.jsonl"),
        ({"id": id, "trials": counts[id].total(), **counts[id], "pass_rate": rate} for id, rate in rates.items()),
    )
    return {
        "mean": sum(rates.values()) / max(1, len(rates)),
        "never": sum(rate == 0 for rate in rates.values()),
        "sometimes": sum(0 < rate < 1 for rate in rates.values()),
        "always": sum(rate == 1 for rate in rates.values()),
    }
