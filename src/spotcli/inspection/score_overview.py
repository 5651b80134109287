"""The overview of a file of scores: verdicts per task, and the reasons of undecided ones."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from spotcli.records import Score
from spotcli.score_changes import Change, ProblemChange, count_changes


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
    against: str | None = None
    """The scores of the base model that the problems are compared with; then one answer per problem is selected."""
    changes: dict[str, dict[Change, int]] = field(default_factory=dict)
    """Task -> problems won, lost, answered by both and by neither model, of all problems that are compared."""
    html: str | None = None
    damaged: int = 0
    """Rows that cannot be read."""
    duplicates: int = 0
    """Rows whose key an earlier row has."""

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

    def summary(
        self, path: Path, *, against: Path | None, changes: Iterable[ProblemChange], html: Path | None
    ) -> ScoreSummary:
        """Return the summary of the rows added so far.

        Args:
            against: the scores of the base model, if the problems are compared with it.
            changes: of the problems that are compared.
            html: the page that is written.
        """
        kinds = ("right", "wrong", "undecided", "truncated")
        tasks = {
            task: {"problems": len(self._problems[task])} | {kind: verdicts[kind] for kind in kinds}
            for task, verdicts in self._verdicts.items()
        }
        return ScoreSummary(
            str(path),
            self.answers,
            self.matching,
            tasks,
            dict(self._reasons.most_common()),
            None if against is None else str(against),
            count_changes(changes),
            None if html is None else str(html),
        )
