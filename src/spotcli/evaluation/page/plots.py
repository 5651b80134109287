"""Positions of the marks in the plots, in percent of their width or height."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

from spotcli.evaluation.page.numbers import MINUS

STEPS = (0.5, 1, 2, 5, 10, 20, 25, 50)
"""Distances between the ticks of an axis in points."""
MOST_TICKS = 7
EDGE = 3.0
"""Percent of the width that stay free on each side, for the marks at the ends."""


@dataclass(frozen=True)
class Tick:
    at: float
    """Percent of the axis."""
    label: str


@dataclass(frozen=True)
class Axis:
    """A linear axis of differences in points."""

    low: float
    high: float
    ticks: list[Tick]

    def place(self, value: float) -> float:
        """Where a value is, in percent; values beyond the ends are at the ends."""
        share = (value - self.low) / (self.high - self.low)
        return round(EDGE + (100 - 2 * EDGE) * min(max(share, 0.0), 1.0), 2)


def point_axis(values: Iterable[float]) -> Axis:
    """An axis over some differences in points and 0, with ends on ticks."""
    values = [*values, 0.0]
    low, high = min(values), max(values)
    if high - low < 1:
        low, high = low - 0.5, high + 0.5
    step = next((step for step in STEPS if (high - low) / step < MOST_TICKS - 1), STEPS[-1])
    first, last = floor(low / step), ceil(high / step)
    bare = Axis(first * step, last * step, [])
    marks = [index * step for index in range(first, last + 1)]
    return Axis(bare.low, bare.high, [Tick(bare.place(mark), _label(mark)) for mark in marks])


def _label(value: float) -> str:
    return "0" if value == 0 else f"{value:+g}".replace("-", MINUS)


@dataclass(frozen=True)
class LogAxis:
    """A logarithmic axis over whole powers of ten; 0 and smaller values are at its start."""

    first: int
    last: int

    @property
    def ticks(self) -> list[Tick]:
        return [Tick(self.place(10.0**power), f"{10.0**power:g}") for power in range(self.first, self.last + 1)]

    def place(self, value: float) -> float:
        """Where a value is, in percent."""
        power = log10(value) if value > 0 else self.first
        share = (power - self.first) / (self.last - self.first)
        return round(EDGE + (100 - 2 * EDGE) * min(max(share, 0.0), 1.0), 2)


def drift_axis(values: Sequence[float]) -> LogAxis:
    """An axis over some drifts, at least from 0.001 to 0.1 nats per token."""
    positive = [value for value in values if value > 0]
    first = min([-4, *(floor(log10(value)) for value in positive)])
    last = max([0, *(ceil(log10(value)) for value in positive)])
    return LogAxis(max(first, -8), min(last, 3))
