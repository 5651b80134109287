"""What a case needs next: a pure function of the case, the replies so far and the ladder of oracles."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from spotcli.console import progress
from spotcli.core import oracle_prompts
from spotcli.core.oracle_prompts import Feedback, OraclePrompt, ReplyMode
from spotcli.oracles import AnyOracle, CorrectionRequest
from spotcli.oracles.policy import PolicyOracle
from spotcli.providers.replies import Reply
from spotcli.providers.request_errors import PROMPT_TOO_LONG
from spotcli.repair.cases import Case, History, JudgedReply, PlannedCut, PlannedRequest, digest_of
from spotcli.repair.continuations import Continued, read_continuations
from spotcli.repair.judge import FORM_ERRORS, Judge, feedback_on
from spotcli.repair.ladder import Ladder
from spotcli.reply_entries import ReplyEntry


@dataclass(frozen=True)
class Decision:
    """What the replies so far mean for a case."""

    request: PlannedRequest | None
    """What the case needs next; None if the replies decide about it, or no oracle is left."""
    last: JudgedReply | None
    """The last reply that was judged: the deciding one if ``request`` is None."""


@dataclass
class SharedFence:
    """One fence for the first requests of a run: providers charge less for a beginning that many prompts share.

    No text knows it, because it is drawn after the texts were written.
    """

    _fence: str = ""

    def for_texts(self, texts: Iterable[str]) -> str:
        """The shared fence, or another one if a text contains it."""
        known = list(texts)
        if not self._fence or any(self._fence in text for text in known):
            self._fence = oracle_prompts.new_fence(known)
        return self._fence


@dataclass(frozen=True)
class RepairJob:
    """The cases of one run, and everything that decides about them."""

    cases: list[Case]
    ladder: Ladder
    history: History
    judge: Judge
    fence: SharedFence = field(default_factory=SharedFence)

    def decide(self, case: Case, *, ask_again: str = "") -> Decision:
        """The next request about a case, or the reply that decides about it; see ``next_request``."""
        return next_request(case, self.history, self.ladder, self.judge, ask_again=ask_again)

    def continued(self, case: Case, oracle: PolicyOracle) -> Continued:
        """What the policy's continuations of an answer mean so far."""
        repeat = self.ladder.repeat_truncated
        return read_continuations(case, oracle, self.history, self.judge, repeat=repeat)

    def request(self, case: Case, planned: PlannedRequest, *, own_fence: bool = False) -> CorrectionRequest:
        """The request as the oracle gets it.

        Args:
            own_fence: no other request has its fence, so that the fence in a reply identifies the request.
        """
        fence = SharedFence() if own_fence else self.fence
        return correction_request(case, planned, fence, reference=self.ladder.reference)

    def entry(
        self,
        planned: PlannedRequest,
        request: CorrectionRequest,
        reply: Reply,
        *,
        reserved: float = 0.0,
        seconds: float = 0.0,
    ) -> ReplyEntry:
        """The reply as the journal keeps it; ``reserved`` in US dollars."""
        return answered(self.unanswered(planned, request), reply, reserved=reserved, seconds=seconds)

    def unanswered(self, planned: PlannedRequest, request: CorrectionRequest) -> ReplyEntry:
        """What is known of a reply before it comes."""
        return ReplyEntry(
            key=planned.key,
            id=request.sample.id,
            trial=request.sample.trial,
            sample=planned.digest,
            attempt=planned.attempt,
            oracle=planned.oracle.name,
            version=planned.oracle.version,
            prompt=oracle_prompts.VERSION,
            mode=planned.mode,
            fence=request.prompt.fence,
            max_tokens=(self.ladder.max_tokens or 0) * planned.max_tokens_factor,
            text="",
            finish_reason="",
        )

    def settle(self, target: int | None = None) -> None:
        """Decide about the cases by the replies so far, until ``target`` pairs are accepted."""
        accepted = 0
        with progress("rows") as display:
            task = display.add_task("rectify", total=len(self.cases), note="")
            for case in self.cases:
                if target is not None and accepted >= target:
                    return
                if case.open:
                    case.decided = self.decide(case).last
                accepted += case.accepted
                display.update(task, advance=1, note=f"{accepted} accepted")


def next_request(case: Case, history: History, ladder: Ladder, judge: Judge, *, ask_again: str = "") -> Decision:
    """The next request about a case, or the reply that decides about it.

    Each prompted oracle is asked ``attempts`` times. After edits that cannot be applied it is asked for edits once
    more, with the error, and then for the whole answer; neither of these requests counts as an attempt.
    The policy continues its own answer from one cut after another.

    Args:
        ask_again: the name of an oracle whose reply is to be replaced: its request is planned even if it has a reply.
    """
    attempt, last = 0, None
    for oracle in ladder.oracles:
        if isinstance(oracle, PolicyOracle) and not oracle.prompted:
            repeat = ladder.repeat_truncated
            continued = read_continuations(case, oracle, history, judge, repeat=repeat)
            if continued.last is None:
                return Decision(plan_cut(case, oracle, continued.cuts[-1]), last)
            attempt, last = attempt + 1, continued.last
            if last.correction.accepted:
                return Decision(None, last)
            continue
        turn = _Turn.of(oracle, ladder)
        while turn.attempts_left > 0:
            request = _plan(case, oracle, turn, attempt, ladder)
            entry = history.find(request)
            if entry is None or oracle.name == ask_again or _is_repeated(entry, request, ladder):
                return Decision(request, last)
            attempt += 1
            last = JudgedReply(entry, judge(case.sample, entry))
            if last.correction.accepted:
                return Decision(None, last)
            if last.correction.final:
                break
            feedback = feedback_on(
                last.correction, case.sample, entry, reference=ladder.reference, gamma=judge.criteria.gamma
            )
            turn = turn.after(last, feedback)
    return Decision(None, last)


@dataclass(frozen=True)
class _Turn:
    """How one oracle is asked next about one case."""

    attempts_left: int
    mode: ReplyMode
    feedback: Feedback | None = None
    max_tokens_factor: int = 1
    bad_edits: int = 0
    """Replies whose edits could not be applied."""

    @classmethod
    def of(cls, oracle: AnyOracle, ladder: Ladder) -> _Turn:
        return cls(ladder.attempts, ladder.mode) if oracle.prompted else cls(1, "plain")

    def after(self, reply: JudgedReply, feedback: Feedback | None) -> _Turn:
        """The turn after a reply that was not accepted."""
        factor = 2 if reply.correction.reason == "length" else 1
        if reply.entry.mode == "edits" and reply.correction.reason in FORM_ERRORS:
            mode: ReplyMode = "rewrite" if self.bad_edits else "edits"
            return _Turn(self.attempts_left, mode, feedback, factor, self.bad_edits + 1)
        return _Turn(self.attempts_left - 1, self.mode, feedback, factor, self.bad_edits)


def plan_cut(case: Case, oracle: AnyOracle, cut: PlannedCut) -> PlannedRequest:
    """The continuations of a wrong answer from a cut."""
    key = digest_of(oracle.name, oracle.version, case.digest, cut.start)
    return PlannedRequest(oracle=oracle, attempt=0, key=key, digest=case.digest, mode="plain", cut=cut)


def _plan(case: Case, oracle: AnyOracle, turn: _Turn, attempt: int, ladder: Ladder) -> PlannedRequest:
    prompting = (oracle_prompts.VERSION, ladder.mode, ladder.reference) if oracle.prompted else ()
    # An oracle that is not prompted is asked once, wherever it is on the ladder: a change of the oracles before it must
    # not undo a person's work.
    number = attempt if oracle.prompted else 0
    return PlannedRequest(
        oracle=oracle,
        attempt=number,
        key=digest_of(oracle.name, oracle.version, prompting, case.digest, number),
        digest=case.digest,
        mode=turn.mode,
        feedback=turn.feedback,
        max_tokens_factor=turn.max_tokens_factor,
    )


def _is_repeated(entry: ReplyEntry, request: PlannedRequest, ladder: Ladder) -> bool:
    """Whether the token limit decided about the reply, and another limit is set now.

    A truncated reply is asked for again with more tokens; a request that did not fit the model, with fewer.
    """
    if not ladder.repeat_truncated:
        return False
    allowed = (ladder.max_tokens or math.inf) * request.max_tokens_factor
    limit = entry.max_tokens or math.inf
    if entry.finish_reason == "length":
        return limit < allowed
    return entry.finish_reason == "declined" and entry.reason == PROMPT_TOO_LONG and limit > allowed


def answered(entry: ReplyEntry, reply: Reply, *, reserved: float = 0.0, seconds: float = 0.0) -> ReplyEntry:
    """An entry with its reply; ``reserved`` in US dollars."""
    return replace(
        entry,
        text=_readable(reply.text),
        finish_reason=reply.finish_reason,
        reason=reply.reason,
        usage=dict(reply.usage),
        cost=reply.cost,
        model=reply.model,
        reserved=reserved,
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(seconds, 3),
        reasoning=_readable(reply.reasoning) if reply.reasoning else None,
        max_tokens_sent=reply.max_tokens,
        sent=dict(reply.sent) if reply.sent else None,
    )


def _readable(text: str) -> str:
    """The text as it will be read from the disk, which lone surrogates do not reach."""
    return text.encode("utf-8", errors="replace").decode()


def correction_request(
    case: Case, planned: PlannedRequest, fence: SharedFence, *, reference: bool
) -> CorrectionRequest:
    """The request as the oracle gets it; a further attempt, which shows the tags of the former one, has a new fence.

    Args:
        fence: of the run.
        reference: show the reference answer to the oracle.
    """
    sample = case.sample
    if planned.mode == "plain":
        prompt = OraclePrompt(feedback=planned.feedback)
    else:
        texts = [sample.response, sample.answer or "", *(message["content"] for message in sample.messages)]
        prompt = oracle_prompts.build_prompt(
            sample.prompt,
            sample.response,
            sample.answer if reference else None,
            mode=planned.mode,
            fence=oracle_prompts.new_fence(texts) if planned.feedback else fence.for_texts(texts),
            feedback=planned.feedback,
        )
    return CorrectionRequest(sample, prompt, planned.max_tokens_factor)
