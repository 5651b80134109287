"""The policy answers for all open cases at once, in rounds; each answer is on the disk before it is used.

A round of continuations is the n-th cut of every case that needs one. It consists of the same requests in a new and in
a resumed run, so that an engine whose answers depend on their batch gives the same ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

from spotcli.console import progress
from spotcli.errors import SpotError
from spotcli.interrupts import interruptible
from spotcli.oracles import CorrectionRequest
from spotcli.oracles.policy import PolicyOracle
from spotcli.policies import Answer, Failure, Policy, Request, answer_seed
from spotcli.providers.replies import Reply
from spotcli.repair.cases import FAILED, Case, PlannedRequest, likely_needed
from spotcli.repair.continuations import is_missing
from spotcli.repair.journal import Journal
from spotcli.repair.next_request import RepairJob, plan_cut
from spotcli.repair.policy_engine import CutAnswer, PolicyEngine
from spotcli.reply_entries import ContinuationEntry, ReplyEntry


@dataclass(frozen=True)
class _Work:
    """What one request to the policy is about."""

    case: Case
    planned: PlannedRequest
    number: int = 0
    """Of the continuation."""
    cut: CutAnswer | None = None
    """None: the policy is prompted for a correction."""
    correction: CorrectionRequest | None = None
    """Of a prompted request."""
    done: bool = False
    """An earlier run has its answer."""


class PolicyRounds:
    """Works on the cases of a job whose next oracle is the policy.

    Args:
        oracles: a group of the ladder: the policy as one oracle, or as several in a row.
        journal: gets every answer before it is used.
        engine: loaded for the first round that needs an answer.
        target: stop after this many accepted cases; None: work on all cases.
        log: the output; logs of the engine's workers are written next to it.
    """

    def __init__(
        self,
        job: RepairJob,
        oracles: Sequence[PolicyOracle],
        journal: Journal,
        engine: PolicyEngine,
        *,
        target: int | None,
        log: Path,
    ) -> None:
        self._job = job
        self._oracles = oracles
        self._journal = journal
        self._engine = engine
        self._target = target
        self._log = log
        self._policy: Policy | None = None
        self._stopped = False
        self._failed: set[str] = set()
        """Digests of cases whose request got no answer."""
        self._continued = {entry.sample for entry in job.history.continuations}
        """Digests of cases with continuations."""

    def run(self) -> BaseException | None:
        """Work until no answer is needed, or until something stops the run.

        Returns:
            What stopped the run: an error or ``KeyboardInterrupt``; None if nothing did.
        """
        cases = [case for case in self._job.cases if case.open]
        try:
            with interruptible(self._stop, notice=lambda: "stopping: finished continuations are kept"):
                start = 0
                while start < len(cases) and not self._stopped:
                    size = self._needed(start)
                    if not size:
                        break
                    self._work_on(cases[start : start + size])
                    start += size
        except (SpotError, OSError, KeyboardInterrupt) as error:
            return error
        finally:
            if self._policy is not None:
                self._policy.close()
        return KeyboardInterrupt() if self._stopped else None

    def _stop(self) -> None:
        self._stopped = True
        if self._policy is not None:
            self._policy.stop()

    def _needed(self, finished: int) -> int:
        """How many cases to work on together: those that the target is likely to need."""
        if self._target is None:
            return len(self._job.cases)
        return likely_needed(self._target, sum(case.accepted for case in self._job.cases), finished)

    def _work_on(self, cases: list[Case]) -> None:
        """Answer round by round until no case needs the policy."""
        for number in count():
            planned = [(case, request) for case in cases if (request := self._planned(case, number)) is not None]
            if not planned or self._stopped:
                return
            if any(self._missing(case, request) for case, request in planned):
                self._answer(planned, number)

    def _planned(self, case: Case, number: int) -> PlannedRequest | None:
        """What a case needs of the policy in a round, or needed if an earlier run has answered it; None for nothing."""
        if case.digest in self._failed:
            return None
        decision = self._job.decide(case)
        case.decided = decision.last if decision.request is None else None
        for oracle in self._oracles:
            asked = decision.request is not None and decision.request.oracle is oracle
            if asked and oracle.prompted:
                return decision.request
            if not oracle.prompted and (asked or case.digest in self._continued):
                continued = self._job.continued(case, oracle)
                cuts = continued.cuts if asked or continued.last else continued.cuts[:-1]
                if number < len(cuts):
                    self._continued.add(case.digest)
                    return plan_cut(case, oracle, cuts[number])
        return None

    def _missing(self, case: Case, planned: PlannedRequest) -> list[int]:
        """The numbers of the answers to a request that are to be generated."""
        oracle = _policy_of(planned)
        if planned.cut is None:
            return [0]
        entries = self._job.history.continuations_of(oracle, case.digest, planned.cut.start)
        repeat = self._job.ladder.repeat_truncated
        numbers = range(oracle.continuations)
        return [number for number in numbers if is_missing(entries.get(number), oracle, repeat=repeat)]

    def _works(self, case: Case, planned: PlannedRequest) -> Iterator[_Work]:
        """The requests to the engine; those that are answered too, so that a round stays the same."""
        missing = self._missing(case, planned)
        if planned.cut is None:
            yield _Work(case, planned, correction=self._job.request(case, planned))
            return
        cut = self._engine.cut(case.sample, planned.cut.start)
        for index in range(_policy_of(planned).continuations):
            yield _Work(case, planned, index, cut, done=index not in missing)

    def _answer(self, planned: list[tuple[Case, PlannedRequest]], number: int) -> None:
        """Have the policy answer one round."""
        if self._policy is None:
            continues = any(not oracle.prompted for oracle in self._oracles)
            self._policy = self._engine.load(log=self._log, continues=continues)
        works = [work for case, request in planned for work in self._works(case, request)]
        by_key = {(work.planned.key, work.number): work for work in works}
        missing = sum(not work.done for work in works)
        if self._stopped:
            return
        with progress("answers") as display:
            bar = display.add_task(f"policy, round {number + 1}", total=missing, note="")
            requests = (self._request(work) for work in works)
            for group in self._policy.answers(requests, missing, lambda request: by_key[request.key].done):
                items = [(by_key[item.request.key], item) for item in group]
                entries = [self._entry(work, item) for work, item in items if isinstance(item, Answer)]
                if entries:
                    self._journal.append([entry.as_row() for entry in entries])
                for entry in entries:
                    self._job.history.add(entry)
                for work, item in items:
                    if isinstance(item, Failure):
                        self._give_up(work.case, item)
                display.update(bar, advance=len(group), note=self._note())

    def _note(self) -> str:
        accepted = sum(case.accepted for case in self._job.cases)
        return f"{accepted} accepted, {len(self._failed)} failed"

    def _give_up(self, case: Case, failure: Failure) -> None:
        """Leave a case to a later run."""
        self._failed.add(case.digest)
        case.default_reason = f"{FAILED}{failure.reason}"

    def _request(self, work: _Work) -> Request:
        planned, key = work.planned, (work.planned.key, work.number)
        seed = answer_seed(self._engine.seed, planned.key, work.number)
        if work.cut is not None:
            limit = _policy_of(planned).limit(work.cut.removed)
            return Request(key, work.case.sample.messages, seed, max_new_tokens=limit, prefix=work.cut.prefix)
        assert work.correction is not None
        most = self._job.ladder.max_tokens
        allowed = most and most * planned.max_tokens_factor
        return Request(key, work.correction.prompt.messages, seed, max_new_tokens=allowed)

    def _entry(self, work: _Work, answer: Answer) -> ContinuationEntry | ReplyEntry:
        """The answer as the journal keeps it."""
        planned, sample = work.planned, work.case.sample
        sent = dict(answer.sent) if answer.sent else None
        if work.cut is None:
            assert work.correction is not None
            reply = Reply(
                answer.response,
                answer.finish_reason,
                usage={"completion_tokens": answer.tokens},
                cost=answer.cost or 0.0,
                model=self._engine.model,
                reasoning=answer.reasoning,
                sent=sent,
            )
            return self._job.entry(planned, work.correction, reply)
        cut = planned.cut
        assert cut is not None
        text = self._engine.text_after(work.cut, answer.token_ids, answer.response)
        return ContinuationEntry(
            key=f"{planned.key}-{work.number}",
            id=sample.id,
            trial=sample.trial,
            sample=planned.digest,
            oracle=planned.oracle.name,
            version=planned.oracle.version,
            step=cut.step,
            of=cut.of,
            start=cut.start,
            kept=len(work.cut.kept),
            tokens=len(work.cut.ids),
            number=work.number,
            seed=answer.request.seed,
            text=text.encode("utf-8", errors="replace").decode(),
            finish_reason=answer.finish_reason,
            generated=answer.tokens,
            max_tokens=answer.request.max_new_tokens or 0,
            model=self._engine.model,
            cost=answer.cost or 0.0,
            sent=sent,
            at=datetime.now(UTC).isoformat(timespec="seconds"),
        )


def _policy_of(planned: PlannedRequest) -> PolicyOracle:
    assert isinstance(planned.oracle, PolicyOracle)
    return planned.oracle
