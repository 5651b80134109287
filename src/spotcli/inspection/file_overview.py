"""The overview of a file with rows of any kinds: one overview per kind, and the damaged and duplicate rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from spotcli import outputs
from spotcli.inspection.answer_overview import ReplyOverview, ReplySummary, SampleOverview, SampleSummary
from spotcli.inspection.comparison import Comparison
from spotcli.inspection.overview import Overview, ReviewSummary
from spotcli.inspection.row_kinds import PAIRS, REPLIES, SAMPLES, SCORES, Record
from spotcli.inspection.score_overview import ScoreOverview, ScoreSummary
from spotcli.records import Pair, Score, UngradedSample

KindSummary = ReviewSummary | ScoreSummary | SampleSummary | ReplySummary


@dataclass(frozen=True)
class MixedSummary:
    """The result of ``spot inspect`` on a file with rows of several kinds."""

    path: str
    rows: int
    """All rows that can be read."""
    matching: int
    kinds: Mapping[str, KindSummary]
    """The summary of the rows of each kind."""
    damaged: int = 0
    duplicates: int = 0

    def as_dict(self) -> dict[str, Any]:
        kinds = {kind: summary.as_dict() for kind, summary in self.kinds.items()}
        own = {"path": self.path, "rows": self.rows, "matching": self.matching}
        return own | {"kinds": kinds, "damaged": self.damaged, "duplicates": self.duplicates}


FileSummary = KindSummary | MixedSummary


class FileOverview:
    """Counts over the rows of a file.

    Args:
        gamma: the largest change ratio that the recipe keeps.
    """

    def __init__(self, gamma: float) -> None:
        self._gamma = gamma
        self._pairs: Overview | None = None
        self._scores: ScoreOverview | None = None
        self._samples: SampleOverview | None = None
        self._replies: ReplyOverview | None = None
        self.damaged = self.duplicates = self.readable = self.matching = 0

    def add(self, record: Record | None, *, matches: bool, duplicate: bool = False) -> None:
        """Count a row of the file, None for a damaged one; its facts count only where it matches."""
        self.duplicates += duplicate
        if record is None:
            self.damaged += 1
            return
        self.readable += 1
        self.matching += matches
        if isinstance(record, Pair):
            self._pairs = self._pairs or Overview(self._gamma)
            self._pairs.add(record, matches=matches)
        elif isinstance(record, Score):
            self._scores = self._scores or ScoreOverview()
            self._scores.add(record, matches=matches)
        elif isinstance(record, UngradedSample):
            self._samples = self._samples or SampleOverview()
            self._samples.add(record, matches=matches)
        else:
            self._replies = self._replies or ReplyOverview()
            self._replies.add(record, matches=matches)

    def summary(
        self, path: Path, *, html: Path | None = None, comparison: Comparison | None = None, one_each: bool = True
    ) -> FileSummary:
        """Return the summary of the rows added so far.

        Args:
            path: the file.
            html: the page that is written.
            comparison: of the scores with a base model's, if it was made.
            one_each: one answer per problem was counted, whose verdicts are no score.
        """
        parts: dict[str, KindSummary] = {}
        if self._pairs is not None or not (self._scores or self._samples or self._replies):
            counts = outputs.read_meta(path).get("counts") or {}
            parts[PAIRS] = (self._pairs or Overview(self._gamma)).summary(path, counts, html)
        if self._scores is not None:
            base = comparison.base if comparison is not None and one_each else None
            changes = {} if comparison is None else comparison.changes
            parts[SCORES] = self._scores.summary(path, against=base, changes=changes.values(), html=html)
        if self._samples is not None:
            parts[SAMPLES] = self._samples.summary(path)
        if self._replies is not None:
            parts[REPLIES] = self._replies.summary(path)
        if len(parts) == 1:
            only = next(iter(parts.values()))
            return replace(only, damaged=self.damaged, duplicates=self.duplicates)
        return MixedSummary(str(path), self.readable, self.matching, parts, self.damaged, self.duplicates)
