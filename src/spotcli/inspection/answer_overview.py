"""The overviews of samples and of an oracle's replies: verdicts, how answers ended, lengths, cost."""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from spotcli.inspection.row_fields import model_name, sample_cost, token_count
from spotcli.inspection.row_kinds import entry_name
from spotcli.records import Sample, UngradedSample
from spotcli.reply_entries import ReplyEntry, RequestEntry


@dataclass(frozen=True)
class Lengths:
    """The lengths of texts."""

    median: float
    mean: float
    largest: int

    @classmethod
    def of(cls, lengths: array[int]) -> Lengths | None:
        """None if there are no texts."""
        return cls(median(lengths), sum(lengths) / len(lengths), max(lengths)) if lengths else None


@dataclass(frozen=True)
class SampleSummary:
    """The result of ``spot inspect`` on samples. All fields but ``samples`` describe the selected ones."""

    path: str
    samples: int
    """All samples of the file."""
    matching: int
    problems: int
    solved: int
    """Problems with at least one right answer."""
    verdicts: dict[str, int]
    """``none``: the answer was not graded."""
    finish: dict[str, int]
    """``stop``, and ``length`` for truncated answers."""
    reasons: dict[str, int]
    """Reasons of undecided verdicts."""
    models: dict[str, int]
    characters: Lengths | None
    tokens: Lengths | None
    """None if no row has the number of its tokens."""
    cost: float | None
    """US dollars; None if no row has a cost."""
    damaged: int = 0
    """Rows that cannot be read."""
    duplicates: int = 0
    """Rows whose key an earlier row has."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class SampleOverview:
    """Counts over samples; a hash and two numbers per row are kept in memory."""

    def __init__(self) -> None:
        self.samples = self.matching = 0
        self._right: dict[str, bool] = {}
        """Id of a problem -> whether an answer is right."""
        self._counts: dict[str, Counter[str]] = defaultdict(Counter)
        self._characters, self._tokens = array("q"), array("q")
        self._costs: float | None = None

    def add(self, sample: UngradedSample, *, matches: bool) -> None:
        """Count a row of the file; its facts count only where it matches."""
        self.samples += 1
        if not matches:
            return
        self.matching += 1
        verdict = sample.verdict if isinstance(sample, Sample) else "none"
        self._right[sample.id] = self._right.get(sample.id, False) or verdict == "right"
        self._counts["verdicts"][verdict] += 1
        self._counts["finish"][sample.finish_reason] += 1
        self._counts["models"][model_name(sample) or "none"] += 1
        if verdict == "undecided":
            self._counts["reasons"][getattr(sample, "reason", None) or "none given"] += 1
        self._characters.append(len(sample.response))
        if (tokens := token_count(sample)) is not None:
            self._tokens.append(tokens)
        if (cost := sample_cost(sample)) is not None:
            self._costs = (self._costs or 0.0) + cost

    def summary(self, path: Path) -> SampleSummary:
        """Return the summary of the rows added so far."""
        return SampleSummary(
            path=str(path),
            samples=self.samples,
            matching=self.matching,
            problems=len(self._right),
            solved=sum(self._right.values()),
            verdicts=self._count("verdicts"),
            finish=self._count("finish"),
            reasons=self._count("reasons"),
            models=self._count("models"),
            characters=Lengths.of(self._characters),
            tokens=Lengths.of(self._tokens),
            cost=self._costs,
        )

    def _count(self, name: str) -> dict[str, int]:
        return dict(self._counts[name].most_common())


@dataclass(frozen=True)
class ReplySummary:
    """The result of ``spot inspect`` on an oracle's journal. All fields but ``entries`` describe the selected ones."""

    path: str
    entries: int
    """All entries of the file."""
    matching: int
    kinds: dict[str, int]
    """``reply``; ``sent`` and ``free`` for money that was reserved and returned; ``undo``."""
    answers: int
    """Wrong answers with a reply."""
    oracles: dict[str, int]
    """Replies by oracle, as the following counts."""
    models: dict[str, int]
    modes: dict[str, int]
    finish: dict[str, int]
    declined: dict[str, int]
    """Reasons of replies without a correction."""
    attempts: dict[str, int]
    """Replies by the attempt, from 0."""
    characters: Lengths | None
    tokens: dict[str, int]
    """The provider's token counts, added up by their names."""
    cost: float | None
    """US dollars; None if no price is known."""
    unpriced: int
    """Replies whose price is unknown."""
    damaged: int = 0
    """Rows that cannot be read."""
    duplicates: int = 0
    """Replies that an earlier row has too."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class ReplyOverview:
    """Counts over the entries of an oracle's journal."""

    def __init__(self) -> None:
        self.entries = self.matching = self._unpriced = 0
        self._answers: set[tuple[str, int]] = set()
        self._counts: dict[str, Counter[str]] = defaultdict(Counter)
        self._characters = array("q")
        self._costs: float | None = None

    def add(self, entry: RequestEntry, *, matches: bool) -> None:
        """Count a row of the file; its facts count only where it matches."""
        self.entries += 1
        if not matches:
            return
        self.matching += 1
        counts = self._counts
        counts["kinds"][entry_name(entry)] += 1
        if not isinstance(entry, ReplyEntry):
            return
        self._answers.add((entry.id, entry.trial))
        counts["oracles"][entry.oracle] += 1
        counts["models"][entry.model or "none"] += 1
        counts["modes"][entry.mode] += 1
        counts["finish"][entry.finish_reason] += 1
        counts["attempts"][str(entry.attempt)] += 1
        if entry.reason is not None:
            counts["declined"][entry.reason] += 1
        for name, count in entry.usage.items():
            if isinstance(count, int) and not isinstance(count, bool):
                counts["tokens"][name] += count
        self._characters.append(len(entry.text))
        if entry.cost is None:
            self._unpriced += 1
        else:
            self._costs = (self._costs or 0.0) + entry.cost

    def summary(self, path: Path) -> ReplySummary:
        """Return the summary of the rows added so far."""
        return ReplySummary(
            path=str(path),
            entries=self.entries,
            matching=self.matching,
            kinds=self._count("kinds"),
            answers=len(self._answers),
            oracles=self._count("oracles"),
            models=self._count("models"),
            modes=self._count("modes"),
            finish=self._count("finish"),
            declined=self._count("declined"),
            attempts=self._count("attempts"),
            characters=Lengths.of(self._characters),
            tokens=self._count("tokens"),
            cost=self._costs,
            unpriced=self._unpriced,
        )

    def _count(self, name: str) -> dict[str, int]:
        return dict(self._counts[name].most_common())
