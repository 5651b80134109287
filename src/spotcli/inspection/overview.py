"""The overview of a pair file: how large the edits are, where they begin, verdicts, oracles and rectify's counts."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import dropwhile
from pathlib import Path
from statistics import median
from typing import Any

from spotcli.console import one_line
from spotcli.core.edits import shared_prefix
from spotcli.inspection.pair_facts import oracle_name, pair_change_ratio
from spotcli.records import Pair


@dataclass(frozen=True)
class ReviewSummary:
    """The result of ``spot inspect``. All fields but ``pairs`` and ``counts`` describe the selected pairs."""

    path: str
    pairs: int
    """All rows of the file."""
    matching: int
    """Rows selected by ``--id`` and ``--where``; without them, all rows."""
    gamma: float
    """The largest change ratio that the recipe keeps."""
    above_gamma: int
    unmeasured: int
    """Pairs without a change ratio in the file; it is computed on words instead of tokens."""
    without_rejected: int
    """Rows without y-: the policy's own right answers. Ratios and edits describe the other rows."""
    unchanged: int
    """Pairs whose y- and y+ are identical; training drops them."""
    ratio_median: float | None
    ratio_mean: float | None
    ratio_max: float | None
    histogram: list[tuple[float, float, int]]
    """Change ratios: lower bound, upper bound, pairs."""
    first_edit_median: float | None
    """Where the first edit begins, as a share of y-."""
    first_edits: list[int]
    """Pairs whose first edit begins in each tenth of y-."""
    shared_prefix: float | None
    """The share of y+ before the first edit, in characters over all pairs."""
    verdicts: dict[str, int]
    reviews: dict[str, int]
    oracles: dict[str, int]
    counts: dict[str, Any]
    """The counts of X.meta.json: which samples became pairs, and why the others did not."""
    html: str | None = None
    damaged: int = 0
    """Rows that cannot be read."""
    duplicates: int = 0
    """Rows whose key an earlier row has."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def shown_bins(self) -> list[tuple[float, float, int]]:
        """The histogram from its first pair on: with ``--where``, the bins below can all be empty."""
        return list(dropwhile(lambda bar: not bar[2], self.histogram))

    @property
    def outcomes(self) -> dict[str, str]:
        """``counts`` on one level, formatted for display."""
        return dict(_flatten(self.counts))


class Overview:
    """Totals over the pairs of a file; two numbers per pair are kept in memory."""

    def __init__(self, gamma: float) -> None:
        self.gamma = gamma
        self.pairs = self.matching = self.unmeasured = self.without_rejected = self.unchanged = 0
        self.shared_characters = self.chosen_characters = 0
        self.ratios, self.first_edits = array("d"), array("d")
        self.verdicts: Counter[str] = Counter()
        self.reviews: Counter[str] = Counter()
        self.oracles: Counter[str] = Counter()

    def add(self, pair: Pair, *, matches: bool) -> None:
        """Count a row of the file; its facts count only where it matches."""
        self.pairs += 1
        if not matches:
            return
        self.matching += 1
        if pair.rejected is None:
            self.without_rejected += 1
        else:
            self._add_edit(pair, pair.rejected)
        self.verdicts[pair.verdict or "none"] += 1
        self.reviews[pair.review or "none"] += 1
        self.oracles[oracle_name(pair) or "none"] += 1

    def _add_edit(self, pair: Pair, rejected: str) -> None:
        self.unmeasured += pair.change_ratio is None
        self.ratios.append(pair_change_ratio(pair))
        if rejected == pair.chosen:
            self.unchanged += 1
        else:
            shared = shared_prefix(rejected, pair.chosen)
            self.first_edits.append(shared / len(rejected))
            self.shared_characters += shared
            self.chosen_characters += len(pair.chosen)

    def summary(self, path: Path, counts: Mapping[str, Any], html: Path | None) -> ReviewSummary:
        """Return the summary of the pairs added so far.

        Args:
            counts: those of the file's X.meta.json.
            html: the page that is written.
        """
        tenths = Counter(min(int(share * 10), 9) for share in self.first_edits)
        return ReviewSummary(
            path=str(path),
            pairs=self.pairs,
            matching=self.matching,
            gamma=self.gamma,
            above_gamma=sum(ratio > self.gamma for ratio in self.ratios),
            unmeasured=self.unmeasured,
            without_rejected=self.without_rejected,
            unchanged=self.unchanged,
            ratio_median=median(self.ratios) if self.ratios else None,
            ratio_mean=sum(self.ratios) / len(self.ratios) if self.ratios else None,
            ratio_max=max(self.ratios, default=None),
            histogram=histogram(self.ratios),
            first_edit_median=median(self.first_edits) if self.first_edits else None,
            first_edits=[tenths[index] for index in range(10)],
            shared_prefix=self.shared_characters / self.chosen_characters if self.chosen_characters else None,
            verdicts=dict(self.verdicts.most_common()),
            reviews=dict(self.reviews.most_common()),
            oracles=dict(self.oracles.most_common()),
            counts=dict(counts),
            html=None if html is None else str(html),
        )


def histogram(ratios: array[float]) -> list[tuple[float, float, int]]:
    """Count ratios in equal bins from 0: lower bound, upper bound, count.

    Bins are 0.01, 0.02, 0.05 or 0.1 wide, the narrowest with which at most sixteen are needed. A ratio on a boundary
    belongs to the upper bin.
    """
    if not ratios:
        return []
    hundredths = next(width for width in (1, 2, 5, 10) if max(ratios) < 0.16 * width)
    # A computed ratio of 0.3 can be 0.29999999999999998; without the tolerance it would fall into the lower bin.
    bins = Counter(min(int(ratio * 100 / hundredths + 1e-9), 100 // hundredths - 1) for ratio in ratios)
    return [(index * hundredths / 100, (index + 1) * hundredths / 100, bins[index]) for index in range(max(bins) + 1)]


def _flatten(counts: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in counts.items():
        name = one_line(f"{prefix}{key}").replace("_", " ")
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}: ")
        elif isinstance(value, float):
            yield name, f"{value:,.4g}"
        elif isinstance(value, int):
            yield name, f"{value:,}"
        elif value is not None:
            yield name, one_line(str(value))
