"""Whether the numbers of ``spot eval`` keep their promises: coverage of intervals, size and power of the verdicts.

    python benchmarks/eval_simulation.py

Each replicate is an evaluation of two models. The difficulty of a problem is a draw of a beta distribution, and the k
answers of a model to it are right with that probability, so trials of a problem are correlated. Training gives a tenth
of the problems a new difficulty at random. A loss is either even (every problem becomes harder in proportion) or
concentrated (some problems are never solved again). The statistics are computed for all replicates at once; a sample of
them is compared with ``spotcli.core.stats``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from math import sqrt
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from spotcli.core.stats import avg_at_k, compare, excludable_loss, retained
from spotcli.core.stats.estimates import normal_quantile, student_quantile
from spotcli.core.stats.retention import CHANGED

Array = NDArray[np.float64]
Loss = Literal["even", "concentrated"]

PROBLEMS = (30, 198, 500)
TRIALS = (1, 5, 16)
SHAPES = {"half solved": (0.5, 0.5), "a quarter solved": (0.25, 0.75), "nearly all solved": (0.9, 0.1)}
"""Beta distributions of the difficulty; the mean score is a / (a + b). Plans assume the first one."""
KINDS: tuple[Loss, ...] = ("even", "concentrated")
MARGIN = 0.02
WIDE = {30: 0.1, 198: 0.05, 500: 0.03}
"""A second margin for each number of problems: 30 problems never prove retention within 2 points."""
CHUNK = 1000
"""Replicates at once: 500 problems are 4 MB per array."""
COMPARED = 3
"""Replicates per setting that are compared with the package."""
Z = normal_quantile(0.95)


@dataclass(frozen=True)
class Setting:
    """One kind of evaluation."""

    problems: int
    trials: int
    shape: tuple[float, float]
    loss: float
    """True loss of the second model, as a share."""
    kind: Loss


@dataclass(frozen=True)
class Results:
    """The statistics of many replicates, each [replicates]."""

    score_low: Array
    score_high: Array
    """Interval of the first model's score."""
    low: Array
    high: Array
    """Interval of the difference."""
    bound: Array
    """Lower bound of ``retained``."""
    plain_low: Array
    plain_high: Array
    """Student's interval, which the package does not use."""

    @staticmethod
    def joined(parts: list[Results]) -> Results:
        return Results(
            *(np.concatenate(column) for column in zip(*(vars(part).values() for part in parts), strict=True))
        )

    def kept(self, margin: float) -> float:
        """Share of the verdict "kept"."""
        return float(((self.bound > -margin) & (self.high >= 0)).mean())

    def lost(self) -> float:
        """Share of the verdict "lost"."""
        return float((self.high < 0).mean())

    def covers(self, difference: float) -> float:
        """Share of the intervals of the difference that contain its true value."""
        return float(((self.low <= difference) & (difference <= self.high)).mean())

    def plainly_covers(self, difference: float) -> float:
        """The same for Student's interval."""
        return float(((self.plain_low <= difference) & (difference <= self.plain_high)).mean())

    def covers_score(self, score: float) -> float:
        """Share of the intervals of the score that contain its true value."""
        return float(((self.score_low <= score) & (score <= self.score_high)).mean())


def draw(setting: Setting, replicates: int, generator: np.random.Generator) -> tuple[Array, Array]:
    """Draw the mean outcome of every problem for both models, each [replicates, problems]."""
    a, b = setting.shape
    size = (replicates, setting.problems)
    before = generator.beta(a, b, size)
    after = np.where(generator.random(size) < CHANGED, generator.beta(a, b, size), before)
    share = setting.loss * (a + b) / a
    harder = 1 - share if setting.kind == "even" else np.where(generator.random(size) < share, 0.0, 1.0)
    after = after * harder
    return tuple(generator.binomial(setting.trials, chance) / setting.trials for chance in (before, after))  # type: ignore[return-value]


def statistics(before: Array, after: Array, trials: int) -> Results:
    """Compute for each replicate what ``avg_at_k``, ``compare`` and ``retained`` return."""
    n = before.shape[1]
    mean = before.mean(1)
    squares = ((before - mean[:, None]) ** 2).sum(1)
    spread = mean * (1 - mean)
    effective = np.minimum((n + 1) * n * spread / np.maximum(squares + spread, 1e-300), n * trials)
    effective = np.where(spread > 0, effective, n)
    q = student_quantile(0.95, n - 1) if trials > 1 else Z
    centre = (mean + q**2 / (2 * effective)) / (1 + q**2 / effective)
    half = q / (1 + q**2 / effective) * np.sqrt(spread / effective + q**2 / (4 * effective**2))
    changes = after - before
    difference = changes.mean(1)
    squares = ((changes - difference[:, None]) ** 2).sum(1)
    adjusted = changes.sum(1) / (n + 2)
    error = np.sqrt((((changes**2).sum(1) + 2) / (n + 2) - adjusted**2) / (n + 2))
    middle = adjusted if trials == 1 else difference
    student = student_quantile(0.95, n - 1) / sqrt(n * (n - 1))
    width = Z * error if trials == 1 else student * np.sqrt(squares + 0.5)
    low, high = np.maximum(middle - width, -1), np.minimum(middle + width, 1)
    third = (((changes - adjusted[:, None]) ** 3).sum(1) + (1 - adjusted) ** 3 - (1 + adjusted) ** 3) / (n + 2)
    skewness = np.minimum(third / ((n + 2) * error**2), 0) * (1 + 2 * Z**2) / (6 * (n + 2))
    bound = np.maximum(np.minimum(adjusted - Z * error + skewness, low), -1)
    score = np.maximum(centre - half, 0), np.minimum(centre + half, 1)
    return Results(
        *score, low, high, bound, difference - student * np.sqrt(squares), difference + student * np.sqrt(squares)
    )


def difference_from_package(before: Array, after: Array, trials: int) -> float:
    """The largest absolute difference between ``statistics`` and the package, over the given replicates."""
    results, largest = statistics(before, after, trials), 0.0
    for index, (old, new) in enumerate(zip(before, after, strict=True)):
        first, second = outcomes(old, trials), outcomes(new, trials)
        estimate, comparison = avg_at_k(first), compare(first, second)
        package = (
            *(estimate.low, estimate.high, comparison.low, comparison.high),
            retained(first, second, margin=MARGIN).bound,
        )
        ours = (float(column[index]) for column in vars(results).values())
        largest = max(largest, *(abs(one - other) for one, other in zip(ours, package, strict=False)))
    return largest


def outcomes(means: Array, trials: int) -> dict[str, list[float]]:
    """Outcomes with these means, by problem."""
    rights = [round(mean * trials) for mean in means]
    return {str(place): [1.0] * right + [0.0] * (trials - right) for place, right in enumerate(rights)}


def simulate(setting: Setting, replicates: int, generator: np.random.Generator) -> Results:
    """The results of a number of replicates.

    Raises:
        AssertionError: they differ from the package.
    """
    parts = []
    for start in range(0, replicates, CHUNK):
        before, after = draw(setting, min(CHUNK, replicates - start), generator)
        if not start:
            difference = difference_from_package(before[:COMPARED], after[:COMPARED], setting.trials)
            assert difference < 1e-9, f"{setting}: {difference}"
        parts.append(statistics(before, after, setting.trials))
    return Results.joined(parts)


@dataclass(frozen=True)
class Row:
    """What is reported of one number of problems and trials: shares, over all shapes and losses."""

    problems: int
    trials: int
    score_coverage: tuple[float, float]
    """Lowest and highest coverage of the score."""
    coverage: tuple[float, float]
    """Lowest and highest coverage of the difference."""
    student_coverage: tuple[float, float]
    """The same for Student's interval."""
    false_kept: float
    """Highest rate of "kept" at a true loss of 2 points with a margin of 2 points."""
    false_kept_wide: float
    """The same for the wider loss and margin."""
    student_kept: float
    """``false_kept`` or ``false_kept_wide``, if Student's interval decided."""
    false_lost: float
    """Highest rate of "lost" without a loss."""
    power: tuple[float, float]
    """Lowest and highest rate of "kept" without a loss, with a margin of 2 points."""
    excludable: float
    """The planned smallest excludable loss."""
    excludable_power: float
    """Rate of "kept" without a loss and with this margin, for the difficulty that the plan assumes."""
    found: tuple[float, float]
    """Lowest and highest rate of "lost" at a true loss of this size."""


def rows(replicates: int, seed: int) -> Iterator[Row]:
    """Simulate every number of problems and trials."""
    generator = np.random.default_rng(seed)
    for problems in PROBLEMS:
        for trials in TRIALS:
            yield _row(problems, trials, replicates, generator)


def _row(problems: int, trials: int, replicates: int, generator: np.random.Generator) -> Row:
    excludable, wide = excludable_loss([(problems, trials)]), WIDE[problems]
    shapes = SHAPES.values()

    def simulated(loss: float) -> list[Results]:
        """Every shape whose score is larger than the loss, with both kinds of loss."""
        return [
            simulate(Setting(problems, trials, shape, loss, kind), replicates, generator)
            for shape in shapes
            if loss < mean_score(shape)
            for kind in KINDS
        ]

    same = [simulate(Setting(problems, trials, shape, 0.0, "even"), replicates, generator) for shape in shapes]
    small, large = simulated(MARGIN), simulated(wide)
    cases = [(0.0, same), (MARGIN, small), (wide, large)]
    return Row(
        problems=problems,
        trials=trials,
        score_coverage=lowest_and_highest(
            part.covers_score(mean_score(shape)) for part, shape in zip(same, shapes, strict=True)
        ),
        coverage=lowest_and_highest(part.covers(-loss) for loss, parts in cases for part in parts),
        student_coverage=lowest_and_highest(part.plainly_covers(-loss) for loss, parts in cases for part in parts),
        false_kept=max(part.kept(MARGIN) for part in small),
        false_kept_wide=max(part.kept(wide) for part in large),
        student_kept=max(float((part.plain_low > -loss).mean()) for loss, parts in cases[1:] for part in parts),
        false_lost=max(part.lost() for part in same),
        power=lowest_and_highest(part.kept(MARGIN) for part in same),
        excludable=excludable,
        excludable_power=same[0].kept(excludable),
        found=lowest_and_highest(part.lost() for part in simulated(excludable)),
    )


def mean_score(shape: tuple[float, float]) -> float:
    """The mean of a beta distribution."""
    return shape[0] / sum(shape)


def lowest_and_highest(shares: Iterable[float]) -> tuple[float, float]:
    values = list(shares)
    return min(values), max(values)


Reported = TypeVar("Reported")
Columns = tuple[tuple[str, Callable[[Reported], str]], ...]

INTERVALS: Columns[Row] = (
    ("problems, trials", lambda row: f"{row.problems}, {row.trials}"),
    ("score", lambda row: span(row.score_coverage)),
    ("difference", lambda row: span(row.coverage)),
    ("difference, plain Student", lambda row: span(row.student_coverage)),
)
VERDICTS: Columns[Row] = (
    ("problems, trials", lambda row: f"{row.problems}, {row.trials}"),
    ("false *kept*, 2 points", lambda row: f"{100 * row.false_kept:.1f}"),
    ("false *kept*, wider", lambda row: f"{100 * row.false_kept_wide:.1f} ({100 * WIDE[row.problems]:.0f})"),
    ("the same, plain Student", lambda row: f"{100 * row.student_kept:.1f}"),
    ("false *lost*", lambda row: f"{100 * row.false_lost:.1f}"),
    ("*kept* within 2 points", lambda row: span(row.power, 0)),
    ("excludable loss", lambda row: f"{100 * row.excludable:.1f}"),
    ("*kept* within it", lambda row: f"{100 * row.excludable_power:.0f}"),
    ("*lost* at it", lambda row: span(row.found, 0)),
)
"""The columns of the two tables: heading, and the cell of a row."""


def span(pair: tuple[float, float], digits: int = 1) -> str:
    low, high = (f"{100 * value:.{digits}f}" for value in pair)
    return low if low == high else f"{low} to {high}"


def table(columns: Columns[Reported], results: list[Reported]) -> str:
    """The results as a Markdown table, in percent and points."""
    lines = [[heading for heading, _ in columns], ["---"] * len(columns)]
    lines += [[cell(row) for _, cell in columns] for row in results]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicates", type=int, default=10_000, help="evaluations per setting [default: 10000]")
    parser.add_argument("--seed", type=int, default=0, help="seed of all draws [default: 0]")
    options = parser.parse_args()
    started = time.monotonic()
    results = list(rows(options.replicates, options.seed))
    print(f"Coverage\n\n{table(INTERVALS, results)}\n\nVerdicts\n\n{table(VERDICTS, results)}")
    error = 100 * sqrt(0.025 * 0.975 / options.replicates)
    print(f"\nStandard error of a rate of 2.5 %: {error:.2f}. {time.monotonic() - started:.0f} s.")


if __name__ == "__main__":
    main()
