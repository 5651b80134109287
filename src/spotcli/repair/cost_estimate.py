"""What a job will cost, estimated from the tokens of the requests that it would send first."""

from __future__ import annotations

from dataclasses import dataclass, replace

from spotcli.oracles.model import ModelOracle
from spotcli.oracles.policy import PolicyOracle, most_tried, step_starts
from spotcli.policies import LIMIT_OF_ENGINES
from spotcli.repair.cases import Case, PlannedRequest
from spotcli.repair.next_request import RepairJob
from spotcli.repair.policy_engine import PolicyEngine

FORM_TOKENS = 20
"""Tokens of the tags around a reply and of the markers between its changes."""
EDITS_SHORTER = 4
"""Edits have this many times fewer tokens than the answer (``benchmarks/edits.py`` on whole answers)."""
COMPLAINT_TOKENS = 500
"""Tokens that a further attempt adds to the prompt, without the attempt before."""


@dataclass
class CostEstimate:
    """Requests, tokens and US dollars of all wrong answers without a reply; None if a price is unknown."""

    requests: int = 0
    prompt_tokens: int = 0
    reply_tokens: int = 0
    min: float | None = 0.0
    """Replies of half the likely length; nothing where an oracle without a price comes first."""
    likely: float | None = 0.0
    """One reply per wrong answer by the first model on the ladder; a rewrite is as long as the answer."""
    max: float | None = 0.0
    """Every oracle, every attempt, and every reply as long as allowed, reasoning included."""
    policy_tokens: int = 0
    """Tokens that the policy generates at most, with its own engine."""


def estimate(job: RepairJob, engine: PolicyEngine) -> CostEstimate:
    """Estimate the cost of a job; nothing is sent.

    Args:
        engine: of the policy, for its tokenizer.
    """
    total = CostEstimate()
    for case in job.cases:
        planned = job.decide(case).request if case.open else None
        if planned is not None:
            total.requests += 1
            total.policy_tokens += _policy_tokens(job, case, planned, engine)
            _add(total, job, case, planned)
    return total


def _policy_tokens(job: RepairJob, case: Case, planned: PlannedRequest, engine: PolicyEngine) -> int:
    """Tokens that the policy generates about a case at most."""
    ladder, total = job.ladder, 0
    for oracle in ladder.oracles[ladder.oracles.index(planned.oracle) :]:
        if isinstance(oracle, PolicyOracle) and oracle.prompted:
            total += ladder.attempts * (ladder.max_tokens or LIMIT_OF_ENGINES)
        elif isinstance(oracle, PolicyOracle):
            starts = step_starts(case.sample.response)
            tried = len(job.continued(case, oracle).cuts) - 1
            # The cuts that remove most are the first ones.
            remaining = starts[: most_tried(len(starts), oracle.search)][: len(starts) - tried]
            longest = sum(oracle.limit(engine.cut(case.sample, start).removed) for start in remaining)
            total += oracle.continuations * longest
    return total


def _add(total: CostEstimate, job: RepairJob, case: Case, planned: PlannedRequest) -> None:
    """Add the cost of one case, beginning with the planned request."""
    ladder = job.ladder
    remaining = ladder.oracles[ladder.oracles.index(planned.oracle) :]
    models = [oracle for oracle in remaining if isinstance(oracle, ModelOracle)]
    if not models:
        return
    first = models[0]
    if planned.oracle is not first:
        planned = replace(planned, oracle=first, mode=ladder.mode, feedback=None)
    prompt, answer = first.count_tokens(job.request(case, planned))
    reply = FORM_TOKENS + answer // (EDITS_SHORTER if planned.mode == "edits" else 1)
    total.prompt_tokens += prompt
    total.reply_tokens += reply
    total.min = _sum(total.min, first.price_of(prompt, reply / 2) if remaining[0] is first else 0.0)
    total.likely = _sum(total.likely, first.price_of(prompt, reply))
    # Two more requests for edits that cannot be applied. After a truncated reply the next one may be twice as long.
    further = ladder.attempts - 1 + (2 if ladder.mode == "edits" else 0)
    for model in models:
        longest = model.longest_reply
        if longest is None:
            total.max = None
            break
        repeated = prompt + COMPLAINT_TOKENS + 2 * longest
        total.max = _sum(total.max, model.price_of(prompt + further * repeated, longest + further * 2 * longest))


def _sum(before: float | None, price: float | None) -> float | None:
    return None if before is None or price is None else before + price
