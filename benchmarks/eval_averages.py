"""Coverage of the intervals of averages over tasks: as ``eval_simulation.py``, with the tasks of the paper's table.

    python benchmarks/eval_averages.py

The tasks of an average have different difficulties, in every order of the three distributions, and the same true loss.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from math import sqrt
from statistics import fmean

import numpy as np
from eval_simulation import (
    CHUNK,
    KINDS,
    MARGIN,
    SHAPES,
    Array,
    Columns,
    Loss,
    Setting,
    draw,
    lowest_and_highest,
    mean_score,
    outcomes,
    span,
    statistics,
    table,
)

from spotcli.core.stats import average_change, average_score, avg_at_k, compare
from spotcli.core.stats.estimates import student_quantile

MATHEMATICS = (*[(30, 16)] * 2, (40, 16), (500, 5), (272, 5), (675, 5))
OTHERS = ((198, 5), (500, 5), (541, 5))
AVERAGES: dict[str, tuple[tuple[int, int], ...]] = {
    "in-domain": MATHEMATICS,
    "OOD": OTHERS[:2],
    "overall": (*MATHEMATICS, *OTHERS),
    "two sets of 30, 1 trial": ((30, 1), (30, 1)),
    "six sets of 30, 1 trial": ((30, 1),) * 6,
}
"""Average -> problems and trials of its tasks: those of the paper's table, and sets of few problems."""


@dataclass(frozen=True)
class AverageRow:
    """What is reported of an average: lowest and highest coverage over the shapes and losses."""

    name: str
    score: tuple[float, float]
    change: tuple[float, float]
    recovered_change: tuple[float, float]
    """The difference with the interval that the tasks' own intervals give, which the package does not use."""


def average_rows(replicates: int, seed: int) -> Iterator[AverageRow]:
    """Simulate the averages; their tasks have different shapes."""
    generator = np.random.default_rng(seed)
    shapes = [*SHAPES.values()]
    cases: list[tuple[float, Loss]] = [(0.0, "even"), *((MARGIN, kind) for kind in KINDS)]
    for name, sizes in AVERAGES.items():
        covered = []
        for first in range(len(shapes)):
            chosen = [shapes[(first + place) % len(shapes)] for place in range(len(sizes))]
            for loss, kind in cases:
                parts = [Setting(*size, shape, loss, kind) for size, shape in zip(sizes, chosen, strict=True)]
                covered.append(_average_coverage(parts, replicates, generator))
        yield AverageRow(name, *(lowest_and_highest(column) for column in zip(*covered, strict=True)))


def _average_coverage(
    parts: list[Setting], replicates: int, generator: np.random.Generator
) -> tuple[float, float, float]:
    """How often the intervals of an average score and of an average difference contain the true value."""
    score, loss = fmean(mean_score(part.shape) for part in parts), fmean(part.loss for part in parts)
    hits = np.zeros(3)
    for start in range(0, replicates, CHUNK):
        drawn = [draw(part, min(CHUNK, replicates - start), generator) for part in parts]
        averages = average_statistics(drawn, [part.trials for part in parts])
        if not start:
            difference = averages_from_package(drawn, averages, [part.trials for part in parts])
            assert difference < 1e-9, f"{parts}: {difference}"
        truths = (score, -loss, -loss)
        hits += [((low <= true) & (true <= high)).sum() for (low, high), true in zip(averages, truths, strict=True)]
    return tuple(hits / replicates)


def average_statistics(drawn: list[tuple[Array, Array]], trials: list[int]) -> list[tuple[Array, Array]]:
    """The intervals of an average score and an average difference, and the latter from the tasks' own intervals."""
    number = len(drawn)
    results = [statistics(*pair, k) for pair, k in zip(drawn, trials, strict=True)]
    scores = np.array([before.mean(1) for before, _ in drawn])
    changes = np.array([(after - before).mean(1) for before, after in drawn])
    sizes = np.array([before.shape[1] for before, _ in drawn])[:, None]
    variances = np.array([(after - before).var(1, ddof=1) / before.shape[1] for before, after in drawn])
    variances += 1 / (2 * number * sizes * (sizes - 1))
    total = variances.sum(0)
    degrees = np.floor(total**2 / (variances**2 / (sizes - 1)).sum(0) + 1e-9)
    half = np.array([_quantile(int(f)) for f in degrees]) * np.sqrt(total) / number
    middle = changes.mean(0)
    return [
        _recovered(scores, [part.score_low for part in results], [part.score_high for part in results]),
        (np.maximum(middle - half, -1), np.minimum(middle + half, 1)),
        _recovered(changes, [part.low for part in results], [part.high for part in results]),
    ]


@cache
def _quantile(degrees: int) -> float:
    return student_quantile(0.95, degrees)


def _recovered(means: Array, lows: list[Array], highs: list[Array]) -> tuple[Array, Array]:
    """The interval of a mean over tasks, [tasks, replicates], from the tasks' own intervals."""
    below, above = (np.sqrt(((means - np.array(ends)) ** 2).sum(0)) / len(means) for ends in (lows, highs))
    return means.mean(0) - below, means.mean(0) + above


def averages_from_package(
    drawn: list[tuple[Array, Array]], averages: list[tuple[Array, Array]], trials: list[int]
) -> float:
    """The largest absolute difference between ``average_statistics`` and the package in the first replicate."""
    answers = [[outcomes(means[0], k) for means in pair] for pair, k in zip(drawn, trials, strict=True)]
    score = average_score({str(place): avg_at_k(first) for place, (first, _) in enumerate(answers)})
    change = average_change({str(place): compare(*pair) for place, pair in enumerate(answers)})
    package = (score.low, score.high, change.low, change.high)
    ours = (float(end[0]) for interval in averages[:2] for end in interval)
    return max(abs(one - other) for one, other in zip(ours, package, strict=True))


MEANS: Columns[AverageRow] = (
    ("average", lambda row: row.name),
    ("score", lambda row: span(row.score)),
    ("difference", lambda row: span(row.change)),
    ("difference, from the tasks' intervals", lambda row: span(row.recovered_change)),
)
"""The columns of the table: heading, and the cell of a row."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicates", type=int, default=5_000, help="evaluations per setting [default: 5000]")
    parser.add_argument("--seed", type=int, default=0, help="seed of all draws [default: 0]")
    options = parser.parse_args()
    started = time.monotonic()
    print(table(MEANS, list(average_rows(options.replicates, options.seed))))
    error = 100 * sqrt(0.05 * 0.95 / options.replicates)
    print(f"\nStandard error of a coverage of 95 %: {error:.2f}. {time.monotonic() - started:.0f} s.")


if __name__ == "__main__":
    main()
