"""The overview of a file of scores: verdicts per task, and the reasons of undecided ones."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from spotcli.records import Score


@dataclass(frozen=True)
class ScoreSummary:
    """The result of ``spot inspect`` on the answers of an evaluation.

    ``tasks`` and ``reasons`` describe the selected ones.
    """

    path: str
    answers: int
    """All rows of the file."""
    matching: int
    """Rows selected by ``--id`` and ``--where``; without them, all rows."""
    tasks: dict[str, dict[str, int]]
    """Task -> problems, right, wrong, undecided and truncated answers; truncated ones are undecided too."""
    reasons: dict[str, int]
    """Reasons of undecided verdicts."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class ScoreOverview:
    """Counts over the answers of an evaluation; the ids of problems are kept in memory."""

    def __init__(self) -> None:
        self.answers = self.matching = 0
        self._verdicts: dict[str, Counter[str]] = defaultdict(Counter)
        self._problems: dict[str, set[str]] = defaultdict(set)
        self._reasons: Counter[str] = Counter()

    def add(self, score: Score, *, matches: bool) -> None:
        """Count a row of the file; its verdict counts only where it matches."""
        self.answers += 1
        if not matches:
            return
        self.matching += 1
        self._verdicts[score.task][score.verdict] += 1
        self._verdicts[score.task]["truncated"] += score.finish_reason == "length"
        self._problems[score.task].add(score.id)
        if score.verdict == "undecided":
            self._reasons[score.reason or "none given"] += 1

    def summary(self, path: Path) -> ScoreSummary:
        """Return the summary of the rows added so far."""
        kinds = ("right", "wrong", "undecided", "truncated")
        tasks = {
            task: {"problems": len(self._problems[task])} | {kind: verdicts[kind] for kind in kinds}
            for task, verdicts in self._verdicts.items()
        }
        return ScoreSummary(str(path), self.answers, self.matching, tasks, dict(self._reasons.most_common()))
