"""The summary of a rectify run, and the error for a run that did not finish."""

from __future__ import annotations

import math
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from spotcli.console import duration
from spotcli.errors import BudgetReached, Unfinished
from spotcli.providers.replies import RequestFailed
from spotcli.records import Sample
from spotcli.repair.cases import FAILED, IN_BATCH, NOT_ASKED, Case, History
from spotcli.repair.cost_estimate import CostEstimate
from spotcli.reply_entries import ContinuationEntry


@dataclass(frozen=True)
class RectifySummary:
    """What became of the samples: ``samples`` = right + undecided + wrong, and ``wrong`` = pairs + reasons.

    In the mode ``self`` the right answers become rows: ``right`` = pairs + reasons. With ``rectify.keep`` some of them
    become rows beside the pairs: ``right`` = kept + not_kept.
    """

    path: str
    samples: int
    right: int
    undecided: int
    wrong: int
    asked: int
    """Wrong answers with a reply, of this run or an earlier one."""
    pairs: int
    reasons: dict[str, int]
    """Why a wrong answer did not become a pair."""
    oracles: dict[str, dict[str, float]]
    """For each oracle: replies, pairs, cost, and cost per pair; for ``policy``, whose replies are continuations, also
    the tokens that it generated."""
    cost: float
    """US dollars of all replies in the journal whose price is known."""
    unsettled: float
    """US dollars reserved for requests without a known end (killed, timed out): the provider may have charged them."""
    unpriced: int
    """Replies whose price is unknown."""
    ratio_unit: str
    """What the change ratio counts: ``tokens of MODEL``, or ``words and signs``."""
    estimate: CostEstimate | None
    """Of a dry run."""
    seconds: float
    mode: str = "surgery"
    advice: list[str] = field(default_factory=list)
    """What could make more pairs, as sentences."""
    max_cost: float | None = None
    kept: int = 0
    """Right answers that are rows beside the pairs."""
    not_kept: dict[str, int] | None = None
    """Why the other right answers are left out; None without ``rectify.keep``, and in a dry run."""
    keep: str | None = None
    """``rectify.keep``."""

    def __post_init__(self) -> None:
        assert self.samples == self.right + self.undecided + self.wrong, self
        repaired = self.right if self.mode == "self" else self.wrong
        assert repaired == self.pairs + sum(self.reasons.values()), self
        assert self.not_kept is None or self.right == self.kept + sum(self.not_kept.values()), self

    def as_dict(self) -> dict[str, Any]:
        values = asdict(self)
        if self.estimate is None:
            del values["estimate"]
        del values["max_cost"], values["keep"]
        if self.not_kept is None:
            del values["kept"], values["not_kept"]
        return values

    @property
    def counts(self) -> dict[str, Any]:
        """What the meta file keeps."""
        return {name: value for name, value in self.as_dict().items() if name not in ("path", "seconds", "advice")}

    @property
    def remaining(self) -> int:
        """Wrong answers that the same command would ask about again."""
        open_reasons = (NOT_ASKED, IN_BATCH)
        return sum(n for reason, n in self.reasons.items() if reason in open_reasons or reason.startswith(FAILED))


@dataclass(frozen=True)
class Origin:
    """What a summary is about."""

    path: Path
    """The pairs."""
    samples: list[Sample]
    mode: str
    started: float
    """By ``time.monotonic``."""
    contested: frozenset[tuple[str, int]] = frozenset()
    """Keys of the samples whose prompt has different reference answers."""
    seed: int = 0
    keep: str | None = None
    """``rectify.keep``."""
    ratio_unit: str = ""


class BatchesOpen(Unfinished):
    """The run ends, and its batches go on at the provider."""


class RepliesUnread(Unfinished):
    """The run ends, because replies that were paid for cannot be read."""


def summarise(
    origin: Origin, cases: list[Case], history: History, *, unsettled: float = 0.0, estimate: CostEstimate | None = None
) -> RectifySummary:
    """The summary of a run with oracles.

    Args:
        unsettled: US dollars reserved for requests without a known end.
        estimate: of a dry run.
    """
    verdicts = Counter(sample.verdict for sample in origin.samples)
    replies = history.replies
    answered = {(entry.id, entry.trial) for entry in history.answers}
    keys = {case.sample.key for case in cases}
    return RectifySummary(
        path=str(origin.path),
        samples=len(origin.samples),
        right=verdicts["right"],
        undecided=verdicts["undecided"],
        wrong=verdicts["wrong"],
        asked=len(answered & keys),
        pairs=sum(case.accepted for case in cases),
        reasons=dict(sorted(Counter(case.reason for case in cases if not case.accepted).items())),
        oracles=_by_oracle(cases, history),
        # The same in any order of the replies.
        cost=math.fsum(entry.cost or 0.0 for entry in history.answers),
        unsettled=unsettled,
        unpriced=sum(reply.cost is None for reply in replies),
        ratio_unit=origin.ratio_unit,
        estimate=estimate,
        seconds=time.monotonic() - origin.started,
        mode=origin.mode,
        keep=origin.keep,
    )


def _by_oracle(cases: list[Case], history: History) -> dict[str, dict[str, float]]:
    costs: dict[str, list[float]] = {}
    tokens: Counter[str] = Counter()
    for entry in history.answers:
        costs.setdefault(entry.oracle, []).append(entry.cost or 0.0)
        if isinstance(entry, ContinuationEntry):
            tokens[entry.oracle] += entry.generated
    by_oracle: dict[str, dict[str, float]] = {
        name: {"replies": len(paid), "pairs": 0, "cost": math.fsum(paid)} for name, paid in costs.items()
    }
    for name, generated in tokens.items():
        by_oracle[name]["tokens"] = generated
    for case in cases:
        if case.decided is not None and case.accepted:
            by_oracle[case.decided.entry.oracle]["pairs"] += 1
    for row in by_oracle.values():
        if row["pairs"]:
            row["cost_per_pair"] = row["cost"] / row["pairs"]
    return dict(sorted(by_oracle.items()))


def summarise_right_answers(origin: Origin, kept: int, reasons: dict[str, int]) -> RectifySummary:
    """The summary of the mode ``self``."""
    verdicts = Counter(sample.verdict for sample in origin.samples)
    return RectifySummary(
        path=str(origin.path),
        samples=len(origin.samples),
        right=verdicts["right"],
        undecided=verdicts["undecided"],
        wrong=verdicts["wrong"],
        asked=0,
        pairs=kept,
        reasons=reasons,
        oracles={},
        cost=0.0,
        unsettled=0.0,
        unpriced=0,
        ratio_unit="",
        estimate=None,
        seconds=time.monotonic() - origin.started,
        mode=origin.mode,
    )


def raise_unfinished(stopped: BaseException | None, summary: RectifySummary) -> None:
    """Raise the error for a run that left wrong answers to ask about.

    Args:
        stopped: what stopped the run; None: requests failed.

    Raises:
        BudgetReached: the cost limit stopped it.
        Unfinished: Ctrl-C stopped it, or the provider cannot be reached, or requests failed.
    """
    kept = f"{summary.pairs} pairs are in {summary.path}, {summary.remaining} of {summary.wrong} wrong answers remain"
    if isinstance(stopped, BudgetReached):
        unsettled = f" (${summary.unsettled:.4f} for requests without a known end)" if summary.unsettled else ""
        raise BudgetReached(f"{stopped.message}{unsettled}; {kept}", where=stopped.where, cure=stopped.cure)
    if isinstance(stopped, BatchesOpen | RepliesUnread):
        raise Unfinished(f"{stopped.message}; {kept}", cure=stopped.cure)
    if isinstance(stopped, KeyboardInterrupt):
        raise Unfinished(f"stopped; {kept}", cure="the same command resumes")
    if isinstance(stopped, RequestFailed):
        later = f"in {duration(stopped.retry_after)}" if stopped.retry_after else "later"
        raise Unfinished(
            f"the oracle cannot be reached ({stopped.kind}: {stopped}); {kept}",
            cure=f"run the same command again {later}",
        )
    if stopped is not None:
        raise stopped
    failed = ", ".join(f"{reason} {count}" for reason, count in summary.reasons.items() if reason.startswith(FAILED))
    raise Unfinished(f"some answers got no reply ({failed}); {kept}", cure="run the same command again")
