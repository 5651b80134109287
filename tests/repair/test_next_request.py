"""What a case needs next, decided by scripted replies without a network."""

from __future__ import annotations

import pytest

from spotcli.core.edits import measure_text
from spotcli.core.oracle_prompts import ReplyMode
from spotcli.oracles import CorrectionRequest, Oracle
from spotcli.providers.replies import Reply
from spotcli.records import Sample
from spotcli.repair.cases import Case, History, PlannedRequest, keep_first_pairs
from spotcli.repair.judge import Criteria, Judge
from spotcli.repair.ladder import Ladder
from spotcli.repair.next_request import Decision, RepairJob
from spotcli.reply_entries import UndoEntry

WRONG = "12 + 30 = 43\n43 - 7 = 36\nThe answer is \\boxed{36}."
RIGHT = "12 + 30 = 42\n42 - 7 = 35\nThe answer is \\boxed{35}."


class Named:
    """An oracle that is never asked: replies are put into the history."""

    parallel: int | None = None

    def __init__(self, name: str, *, prompted: bool = True) -> None:
        self.name = name
        self.version = "1"
        self.prompted = prompted

    async def correct(self, request: CorrectionRequest) -> Reply:
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError


def job(
    *oracles: Oracle, attempts: int = 1, mode: ReplyMode = "rewrite", max_tokens: int = 100, answer: str = WRONG
) -> RepairJob:
    case = Case(Sample(id="a", prompt="12 + 30 - 7", answer="35", response=answer, verdict="wrong"))
    ladder = Ladder(oracles or (Named("small"),), mode, True, attempts, max_tokens, repeat_truncated=True)
    return RepairJob([case], ladder, History(), Judge(Criteria(measure_text, 0.6)))


def decide(repair: RepairJob, *, ask_again: str = "") -> Decision:
    return repair.decide(repair.cases[0], ask_again=ask_again)


def planned(repair: RepairJob) -> PlannedRequest:
    request = decide(repair).request
    assert request is not None
    return request


def answer(repair: RepairJob, text: str, finish_reason: str = "stop") -> None:
    """Reply to the next request; ``{}`` stands for the fence."""
    request = planned(repair)
    sent = repair.request(repair.cases[0], request)
    reply = Reply(text=text.replace("{}", sent.prompt.fence), finish_reason=finish_reason)
    repair.history.add(repair.entry(request, sent, reply))


def rewritten(text: str) -> str:
    return f"<answer-{{}}>\n{text}\n</answer-{{}}>"


def test_the_first_oracle_is_asked_first() -> None:
    request = planned(job(Named("small"), Named("large")))
    assert (request.oracle.name, request.attempt, request.mode) == ("small", 0, "rewrite")
    assert (request.feedback, request.max_tokens_factor) == (None, 1)


def test_an_accepted_reply_decides() -> None:
    repair = job(attempts=3)
    answer(repair, rewritten(RIGHT))
    decision = decide(repair)
    assert decision.request is None
    assert decision.last is not None
    assert (decision.last.correction.accepted, decision.last.correction.chosen) == (True, RIGHT)


def test_a_decision_changes_nothing() -> None:
    repair = job(attempts=2)
    answer(repair, "no tags")
    assert decide(repair) == decide(repair)
    assert (repair.cases[0].decided, len(repair.history.replies)) == (None, 1)


def test_another_attempt_has_feedback() -> None:
    repair = job(attempts=2)
    answer(repair, rewritten(WRONG.replace("36", "37")))
    request = planned(repair)
    assert request.attempt == 1
    assert request.feedback is not None
    assert "37" in request.feedback.complaint
    answer(repair, rewritten(WRONG))
    decision = decide(repair)
    assert decision.last is not None
    assert (decision.request, decision.last.correction.reason) == (None, "unchanged")


def test_the_next_oracle_starts_without_feedback() -> None:
    repair = job(Named("small"), Named("large"), attempts=2)
    answer(repair, "no tags")
    answer(repair, "no tags")
    request = planned(repair)
    assert (request.oracle.name, request.attempt, request.feedback) == ("large", 2, None)


def test_after_a_final_reason_the_same_oracle_is_not_asked_again() -> None:
    repair = job(Named("small"), Named("large"), attempts=3)
    answer(repair, "", finish_reason="refused")
    assert planned(repair).oracle.name == "large"


def test_edits_that_cannot_be_applied_are_not_attempts() -> None:
    repair = job(mode="edits")
    modes = []
    for _ in range(3):
        modes.append(planned(repair).mode)
        answer(repair, "no tags")
    assert modes == ["edits", "edits", "rewrite"]
    assert decide(repair).request is None


def test_a_truncated_reply_doubles_the_limit_of_the_next_one() -> None:
    repair = job(attempts=2)
    answer(repair, "12 +", finish_reason="length")
    assert planned(repair).max_tokens_factor == 2


@pytest.mark.parametrize(("max_tokens", "repeated"), [(100, False), (101, True)])
def test_a_truncated_reply_is_requested_again_with_a_higher_limit(max_tokens: int, repeated: bool) -> None:
    repair = job()
    answer(repair, "12 +", finish_reason="length")
    higher = job(max_tokens=max_tokens)
    higher.history.add(repair.history.replies[0])
    assert (decide(higher).request is not None) == repeated


def test_an_oracle_without_prompt_is_asked_once_and_keeps_its_key_on_every_ladder() -> None:
    person = Named("human", prompted=False)
    key = planned(job(person)).key
    repair = job(Named("small"), person, attempts=3)
    for _ in range(3):
        answer(repair, "no tags")
    assert (planned(repair).key, planned(repair).mode) == (key, "plain")
    answer(repair, WRONG.replace("36", "37"))
    assert decide(repair).request is None


def test_a_reply_can_be_replaced_or_taken_back() -> None:
    repair = job(Named("human", prompted=False))
    request = planned(repair)
    answer(repair, RIGHT)
    assert decide(repair).request is None
    assert decide(repair, ask_again="human").request == request
    repair.history.add(UndoEntry.of(repair.history.replies[0]))
    assert planned(repair) == request


def test_replies_of_another_version_count_on_request() -> None:
    repair = job()
    answer(repair, rewritten(RIGHT))
    newer = Named("small")
    newer.version = "2"
    for any_version in (False, True):
        history = History(repair.history.replies, any_version=any_version)
        ladder = Ladder((newer,), "rewrite", True, 1, 100)
        decision = RepairJob(repair.cases, ladder, history, repair.judge).decide(repair.cases[0])
        assert (decision.request is None) == any_version


def test_a_target_keeps_the_first_pairs() -> None:
    repair = job()
    answer(repair, rewritten(RIGHT))
    repair.settle()
    case = repair.cases[0]
    cases = [Case(case.sample, decided=case.decided) for _ in range(3)]
    assert keep_first_pairs(cases, 2)
    assert [case.accepted for case in cases] == [True, True, False]
    assert cases[2].reason == "not needed"
    assert not keep_first_pairs(cases, 3)
