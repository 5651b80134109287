"""What the policy's continuations of its own answer mean: the cut to try next, or the correction that decides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from spotcli.oracles.policy import PolicyOracle, SearchState, search_cut, step_starts
from spotcli.repair.cases import Case, History, JudgedReply, PlannedCut
from spotcli.repair.judge import Correction, Judge
from spotcli.reply_entries import ContinuationEntry

NONE_RIGHT = "declined: no continuation was right"
"""The reason of an answer without a right continuation from any cut."""


@dataclass(frozen=True)
class TriedCut:
    """A cut with all of its continuations, judged."""

    step: int
    continuations: list[tuple[ContinuationEntry, JudgedReply]]

    @property
    def verdicts(self) -> Counter[str]:
        """Continuations by the verdict on the whole answer; those that are not graded are undecided."""
        return Counter(_verdict(judged.correction) for _, judged in self.continuations)

    @property
    def accepted(self) -> list[JudgedReply]:
        """The continuations that become a pair."""
        return [judged for _, judged in self.continuations if judged.correction.accepted]

    @property
    def closest(self) -> JudgedReply | None:
        """The right continuation that changes least; one that becomes a pair comes before one that does not."""
        right = [judged for _, judged in self.continuations if judged.correction.verdict == "right"]
        return min(right, key=lambda judged: (not judged.correction.accepted, _ratio(judged)), default=None)

    def as_dict(self) -> dict[str, Any]:
        verdicts = self.verdicts
        counts = {name: verdicts[name] for name in ("right", "wrong", "undecided")}
        return {"step": self.step, "tokens": self.continuations[0][0].tokens, **counts}


@dataclass(frozen=True)
class Continued:
    """What the continuations of one answer so far mean."""

    cuts: tuple[PlannedCut, ...]
    """Every cut of the search so far, in order; the one to continue next is the last, unless the search has ended."""
    last: JudgedReply | None
    """The correction, or why there is none, once the search has ended."""


def read_continuations(case: Case, oracle: PolicyOracle, history: History, judge: Judge, *, repeat: bool) -> Continued:
    """The next cut of an answer, or what its continuations amount to.

    Args:
        repeat: a continuation that was truncated at a lower limit than today's counts as missing.
    """
    starts = step_starts(case.sample.response)
    cuts: dict[int, TriedCut] = {}

    def helps(step: int) -> bool | None:
        entries = history.continuations_of(oracle, case.digest, starts[step - 1])
        if any(is_missing(entries.get(number), oracle, repeat=repeat) for number in range(oracle.continuations)):
            return None
        cuts[step] = TriedCut(step, list(_judged(case, history, judge, entries, oracle.continuations)))
        return bool(cuts[step].accepted)

    state = search_cut(len(starts), oracle.search, helps)
    planned = tuple(PlannedCut(step, len(starts), starts[step - 1]) for step in state.path)
    return Continued(planned, None if state.next is not None else _decided(state, cuts, len(starts)))


def is_missing(entry: ContinuationEntry | None, oracle: PolicyOracle, *, repeat: bool) -> bool:
    """Whether a continuation is to be generated: there is none, or it was truncated at a lower limit than today's."""
    if entry is None:
        return True
    limit = oracle.max_new_tokens
    return repeat and entry.finish_reason == "length" and limit is not None and entry.max_tokens < limit


def _judged(
    case: Case, history: History, judge: Judge, entries: dict[int, ContinuationEntry], count: int
) -> Iterator[tuple[ContinuationEntry, JudgedReply]]:
    for number in range(count):
        entry = entries[number]
        reply = history.reply_of(entry, case.sample.response)
        yield entry, JudgedReply(reply, judge(case.sample, reply))


def _decided(state: SearchState, cuts: dict[int, TriedCut], count: int) -> JudgedReply:
    """The correction that the search found; else the latest right continuation and why it is no pair; else none."""
    order = [state.chosen] if state.chosen is not None else sorted(state.tried, reverse=True)
    found = next(((step, judged) for step in order if (judged := cuts[step].closest)), None)
    step, judged = found or (order[0], replace(cuts[order[0]].continuations[0][1], correction=Correction(NONE_RIGHT)))
    spent = sum(entry.generated for cut in cuts.values() for entry, _ in cut.continuations)
    entry = replace(judged.entry, usage={"completion_tokens": spent}, cost=_cost(cuts))
    return JudgedReply(entry, judged.correction, _facts(step, cuts, state, count))


def _facts(step: int, cuts: dict[int, TriedCut], state: SearchState, count: int) -> dict[str, Any]:
    """The cut as the row keeps it; the answer itself is what follows its last step, and it is wrong."""
    cut, after = cuts[step].as_dict(), cuts.get(step + 1)
    return {
        "step": step,
        "of": count,
        "tokens": cut["tokens"],
        "continuations": len(cuts[step].continuations),
        "right_before": cut["right"],
        "right_after": after.as_dict()["right"] if after else None,
        "tried": [cuts[tried].as_dict() for tried in state.tried],
    }


def _cost(cuts: dict[int, TriedCut]) -> float:
    return sum(entry.cost for cut in cuts.values() for entry, _ in cut.continuations)


def _verdict(correction: Correction) -> str:
    if correction.reason == "unchanged":
        return "wrong"  # it equals the wrong answer
    return correction.verdict or "undecided"


def _ratio(judged: JudgedReply) -> float:
    ratio = judged.correction.change_ratio
    return 1.0 if ratio is None else ratio
