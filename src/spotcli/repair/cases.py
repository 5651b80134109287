"""The wrong answers of one run, and the replies about them.

Case              one wrong answer, and its result
PlannedRequest    the next request about a case
History           the replies of the journal, by the request that they answer
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from spotcli import jsonl
from spotcli.console import note_renamed_fields
from spotcli.core.oracle_prompts import Feedback, ReplyMode
from spotcli.errors import UserError
from spotcli.grading.references import CONFLICTING
from spotcli.oracles import AnyOracle
from spotcli.recipe import RectifySection
from spotcli.records import Sample
from spotcli.repair.judge import Correction
from spotcli.reply_entries import ContinuationEntry, Entry, ReplyEntry, UndoEntry

NOT_ASKED = "not asked"
"""The reason of a case that was not asked about before the run stopped."""
IN_BATCH = "in a batch"
"""The reason of a case whose request is at the provider."""
FAILED = "failed: "
"""Starts the reason of a case whose request got no reply."""
SAME_PROBLEM = "same problem"
"""The reason of further wrong answers to a problem in the mode ``direct``."""
NOT_NEEDED = "not needed"
"""The reason of wrong answers after the last pair of a ``target``."""


@dataclass(frozen=True)
class JudgedReply:
    """A reply and what it was judged to be."""

    entry: ReplyEntry
    correction: Correction
    cut: dict[str, Any] | None = None
    """Where the policy cut its answer, and what came of each cut, as the row keeps it."""


@dataclass
class Case:
    """One wrong answer, and its result."""

    sample: Sample
    repeats_problem: bool = False
    """An earlier case has the same problem, whose solution is one for this case too."""
    contested: bool = False
    """Another sample has the same prompt with a different reference answer."""
    reviewed: dict[str, Any] | None = None
    """Its pair as a person reviewed it: kept, whatever the filters are."""
    decided: JudgedReply | None = None
    """The reply that decides about it."""
    default_reason: str = NOT_ASKED
    """The reason if no reply decides about it."""

    def __post_init__(self) -> None:
        if self.sample.reference is None:
            self.default_reason = "no reference answer"
        elif not self.sample.response.strip():
            self.default_reason = "empty answer"
        elif self.contested:
            self.default_reason = CONFLICTING
        elif self.repeats_problem:
            self.default_reason = SAME_PROBLEM

    @cached_property
    def digest(self) -> str:
        """Identifies the wrong answer, its problem and its reference answer."""
        sample = self.sample
        return digest_of(sample.id, sample.trial, sample.prompt, sample.response, sample.answer)

    @property
    def correctable(self) -> bool:
        """False if no correction could be verified, the answer is empty, or an earlier case has the same problem."""
        has_texts = self.sample.reference is not None and bool(self.sample.response.strip())
        return has_texts and not self.contested and not self.repeats_problem

    @property
    def open(self) -> bool:
        """Whether replies decide about it: it can be corrected, and no person has reviewed it."""
        return self.correctable and self.reviewed is None

    @property
    def accepted(self) -> bool:
        return self.reviewed is not None or (self.decided is not None and self.decided.correction.accepted)

    @property
    def reason(self) -> str:
        """Why it is not a pair."""
        return self.decided.correction.reason if self.decided else self.default_reason

    def drop(self, reason: str) -> None:
        """Make it a case without a pair."""
        self.decided = self.reviewed = None
        self.default_reason = reason


@dataclass(frozen=True)
class PlannedRequest:
    """The next request about a case."""

    oracle: AnyOracle
    attempt: int
    """From 0, over all oracles; always 0 for an oracle that is not prompted."""
    key: str
    """Identifies the request in the journal."""
    digest: str
    """The case's."""
    mode: ReplyMode
    feedback: Feedback | None = None
    max_tokens_factor: int = 1
    cut: PlannedCut | None = None
    """For the oracle that continues the policy's answer: what is to be continued."""


@dataclass(frozen=True)
class PlannedCut:
    """A cut of an answer from which the policy is to continue."""

    step: int
    """The cut is before this step, from 1."""
    of: int
    """Steps of the answer."""
    start: int
    """Where the step starts, in characters."""


class History:
    """The replies of a journal, by the request that they answer.

    Args:
        any_version: a reply answers a request of another prompt, version or form too.
    """

    def __init__(self, entries: Iterable[Entry] = (), *, any_version: bool = False) -> None:
        self._any_version = any_version
        self._by_request: dict[tuple[str, ...], ReplyEntry] = {}
        self._by_sample: dict[str, list[ReplyEntry]] = {}
        self.replies: list[ReplyEntry] = []
        """All replies, in the order in which they came."""
        self.continuations: list[ContinuationEntry] = []
        """All continuations of the policy's answers, in the order in which they came."""
        self._by_cut: dict[tuple[str, str, int], dict[int, ContinuationEntry]] = {}
        self._continued: set[str] = set()
        self._read: dict[int, ReplyEntry] = {}
        for entry in entries:
            self.add(entry)

    def add(self, entry: Entry) -> None:
        if isinstance(entry, ReplyEntry):
            # An incomplete reply was paid for, but it answers nothing: its request is sent again.
            if entry.finish_reason != "incomplete":
                self._by_request[self._request_of(entry)] = entry
            self._by_sample.setdefault(entry.sample, []).append(entry)
            self.replies.append(entry)
        elif isinstance(entry, UndoEntry):
            self._by_request.pop(self._request_of(entry), None)
        elif isinstance(entry, ContinuationEntry):
            version = "" if self._any_version else entry.version
            of_cut = self._by_cut.setdefault((version, entry.sample, entry.start), {})
            if of_cut.get(entry.number) == entry:
                return  # a line that was copied by mistake
            of_cut[entry.number] = entry
            self._continued.add(entry.sample)
            self.continuations.append(entry)

    @property
    def answers(self) -> list[ReplyEntry | ContinuationEntry]:
        """All replies and continuations."""
        return [*self.replies, *self.continuations]

    def continuations_of(self, oracle: AnyOracle, sample: str, start: int) -> dict[int, ContinuationEntry]:
        """The continuations of a wrong answer from a cut, by their numbers."""
        version = "" if self._any_version else oracle.version
        return self._by_cut.get((version, sample, start), {})

    def reply_of(self, entry: ContinuationEntry, response: str) -> ReplyEntry:
        """A continuation as a reply; the same object each time, so that it is judged once."""
        reply = self._read.get(id(entry))
        if reply is None:
            reply = self._read[id(entry)] = entry.as_reply(response)
        return reply

    def has_reply_about(self, case: Case) -> bool:
        """Whether the case ever got a reply."""
        return case.digest in self._by_sample or case.digest in self._continued

    def cost_of(self, case: Case) -> float | None:
        """US dollars of all replies about a case; None if the price of one is unknown."""
        costs = [reply.cost for reply in self._by_sample.get(case.digest, ())]
        return None if None in costs else math.fsum(cost or 0.0 for cost in costs)

    def reply_tokens_of(self, case: Case) -> int:
        """Tokens of all replies about a case, reasoning included, as far as the provider counts them."""
        counts = (reply.usage.get("completion_tokens") for reply in self._by_sample.get(case.digest, ()))
        return sum(count for count in counts if isinstance(count, int))

    def find(self, request: PlannedRequest) -> ReplyEntry | None:
        if self._any_version:
            return self._by_request.get((request.oracle.name, request.digest, str(request.attempt)))
        return self._by_request.get((request.key,))

    def _request_of(self, entry: ReplyEntry | UndoEntry) -> tuple[str, ...]:
        return (entry.oracle, entry.sample, str(entry.attempt)) if self._any_version else (entry.key,)


def read_samples(path: Path, *, truncated_are_wrong: bool) -> list[Sample]:
    """The samples of a file.

    Raises:
        UserError: the file does not exist, or is empty.
        DataError: an invalid row, with its line.
    """
    renamed: dict[str, str] = {}
    samples = list(jsonl.read(path, Sample, renamed=renamed, refuse_evaluation=True))
    if not samples:
        raise UserError("the file has no samples", where=str(path), cure="create samples with `spot sample`")
    note_renamed_fields(path, renamed)
    if truncated_are_wrong:
        for sample in samples:
            if sample.finish_reason == "length":
                sample.verdict = "wrong"
    return samples


def cases_of(
    samples: Iterable[Sample], settings: RectifySection, contested: frozenset[tuple[str, int]] = frozenset()
) -> list[Case]:
    """The wrong answers; in the mode ``direct`` only the first one of each problem is asked about.

    Args:
        contested: keys of samples whose prompt has different reference answers.
    """
    cases: list[Case] = []
    problems: set[str] = set()
    for sample in samples:
        if sample.verdict == "wrong":
            repeats = settings.mode == "direct" and sample.id in problems
            case = Case(sample, repeats_problem=repeats, contested=sample.key in contested)
            if case.correctable:
                problems.add(sample.id)
            cases.append(case)
    return cases


def keep_first_pairs(cases: Iterable[Case], target: int | None) -> bool:
    """Keep the first ``target`` pairs in the order of the samples, so that the speed of replies does not matter.

    Returns:
        Whether the target is reached.
    """
    accepted = 0
    for case in cases:
        if target is not None and accepted >= target:
            case.drop(NOT_NEEDED)
        accepted += case.accepted
    return target is not None and accepted >= target


def likely_needed(target: int, accepted: int, finished: int) -> int:
    """How many cases a target still needs, at the rate of acceptance so far (Laplace's rule of succession)."""
    return max(0, math.ceil((target - accepted) * (finished + 2) / (accepted + 1)))


def digest_of(*parts: Any) -> str:
    """32 hex digits of a SHA-256."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]
