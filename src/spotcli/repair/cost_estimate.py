"""What a job will cost, estimated from the tokens of the requests that it would send first, and from its replies.

Before the first reply only prompts and answers are known. With replies, the estimate is multiplied by the ratio of what
the decided answers have cost to what had been estimated for them: it then includes reasoning, further attempts and
further oracles as they really are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from spotcli.console import counted
from spotcli.oracles.model import ModelOracle
from spotcli.oracles.policy import PolicyOracle, most_tried, step_starts
from spotcli.policies import LIMIT_OF_ENGINES
from spotcli.repair.cases import Case, History, PlannedRequest
from spotcli.repair.next_request import RepairJob
from spotcli.repair.policy_engine import PolicyEngine

FORM_TOKENS = 20
"""Tokens of the tags around a reply and of the markers between its changes."""
EDITS_SHORTER = 4
"""Edits have this many times fewer tokens than the answer (``benchmarks/edits.py`` on whole answers)."""
COMPLAINT_TOKENS = 500
"""Tokens that a further attempt adds to the prompt, without the attempt before."""
FEWEST_DECIDED = 10
"""Answers that must be decided before their cost corrects the estimate."""
MOST_DECIDED = 500
"""Decided answers that are looked at."""


@dataclass
class CostEstimate:
    """Requests, tokens and US dollars of all wrong answers without a reply; None if a price is unknown."""

    requests: int = 0
    prompt_tokens: int = 0
    reply_tokens: int = 0
    """With reasoning."""
    reasoning_tokens: int = 0
    """Assumed per reply, as part of ``reply_tokens``; 0 if the model does not reason, or its replies are known."""
    min: float | None = 0.0
    """Replies of half the likely length; nothing where an oracle without a price comes first."""
    likely: float | None = 0.0
    """One reply per wrong answer by the first model on the ladder; a rewrite is as long as the answer."""
    max: float | None = 0.0
    """Every oracle, every attempt, and every reply as long as allowed, reasoning included."""
    decided: int = 0
    """Answers whose replies correct the estimate; 0: too few are decided."""
    correction: float = 1.0
    """What they cost, divided by what had been estimated for them."""
    spent: float = 0.0
    """US dollars that earlier runs of the same output count against ``max_cost``."""
    worst_request: float | None = 0.0
    """US dollars that the most expensive first request can cost."""
    half_price: bool = False
    """Whether a model is asked by a batch API, so that its price is half of the ordinary one."""
    in_batches: int = 0
    """Further answers, whose requests are in an open batch; what it can cost is part of ``spent``."""
    policy_tokens: int = 0
    """Tokens that the policy generates at most, with its own engine."""

    def notes(self) -> Iterator[str]:
        """What the price and the time rest on, in a few words each."""
        if self.half_price:
            yield "in batches at half the price, each of up to a day"
        if self.decided:
            yield f"from the cost of {counted(self.decided, 'decided answer')}"
        elif self.reasoning_tokens:
            yield f"assumes {self.reasoning_tokens:,} reasoning tokens per reply"
        if self.policy_tokens:
            yield f"the policy generates at most {self.policy_tokens / self.requests:,.0f} tokens per wrong answer"

    def affordable(self, limit: float) -> int | None:
        """How many of the answers ``--max-cost`` is likely to pay for; None if a price is unknown.

        A request is sent only if its worst case fits in what is left, so the last ones are not paid for.
        """
        left = limit - self.spent
        if self.likely is None or self.worst_request is None:
            return None
        if not self.requests or not self.likely:
            return self.requests
        if left < self.worst_request:
            return 0
        each = self.likely / self.requests
        return min(self.requests, math.floor((left - self.worst_request) / each) + 1)


def estimate(
    job: RepairJob, engine: PolicyEngine, *, spent: float = 0.0, in_batches: frozenset[str] = frozenset()
) -> CostEstimate:
    """Estimate the cost of a job; nothing is sent.

    Args:
        engine: of the policy, for its tokenizer.
        spent: US dollars of earlier runs of the same output.
        in_batches: keys of requests that are in an open batch.
    """
    by_batch = any(isinstance(oracle, ModelOracle) and oracle.batch is not None for oracle in job.ladder.oracles)
    total = CostEstimate(spent=spent, half_price=by_batch)
    decided: list[Case] = []
    for case in job.cases:
        planned = job.decide(case).request if case.open else None
        if planned is not None and planned.key in in_batches:
            total.in_batches += 1
        elif planned is not None:
            total.requests += 1
            total.policy_tokens += _policy_tokens(job, case, planned, engine)
            _add(total, job, case, planned)
        elif case.open and job.history.has_reply_about(case):
            decided.append(case)
    _correct(total, job, decided)
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
    request = job.request(case, planned)
    prompt, answer = first.count_tokens(request)
    reply = FORM_TOKENS + answer // (EDITS_SHORTER if planned.mode == "edits" else 1)
    reasoning = first.reasoning_tokens
    total.reasoning_tokens = max(total.reasoning_tokens, reasoning)
    total.prompt_tokens += prompt
    total.reply_tokens += reply + reasoning
    total.min = _sum(total.min, first.price_of(prompt, (reply + reasoning) / 2) if remaining[0] is first else 0.0)
    total.likely = _sum(total.likely, first.price_of(prompt, reply + reasoning))
    worst = first.worst_cost(request)
    if total.worst_request is not None:
        total.worst_request = None if worst is None else max(total.worst_request, worst)
    # Two more requests for edits that cannot be applied. After a truncated reply the next one may be twice as long.
    further = ladder.attempts - 1 + (2 if ladder.mode == "edits" else 0)
    for model in models:
        longest = model.longest_reply
        if longest is None:
            total.max = None
            break
        repeated = prompt + COMPLAINT_TOKENS + 2 * longest
        total.max = _sum(total.max, model.price_of(prompt + further * repeated, longest + further * 2 * longest))


def _correct(total: CostEstimate, job: RepairJob, decided: list[Case]) -> None:
    """Correct the estimate by what the decided cases have cost."""
    if len(decided) < FEWEST_DECIDED or not total.likely:
        return
    looked_at = decided[:: math.ceil(len(decided) / MOST_DECIDED)]
    costs = [job.history.cost_of(case) for case in looked_at]
    expected = CostEstimate()
    before = replace(job, history=History())
    for case in looked_at:
        if (planned := before.decide(case).request) is not None:
            _add(expected, before, case, planned)
    if any(cost is None for cost in costs) or not expected.likely:
        return
    total.decided = len(decided)
    total.correction = math.fsum(cost or 0.0 for cost in costs) / expected.likely
    total.likely *= total.correction
    total.min = min(total.min or 0.0, total.likely)
    total.max = total.max and max(total.max, total.likely)
    tokens = sum(job.history.reply_tokens_of(case) for case in looked_at)
    total.reply_tokens = round(total.reply_tokens * tokens / expected.reply_tokens)
    total.reasoning_tokens = 0


def _sum(before: float | None, price: float | None) -> float | None:
    return None if before is None or price is None else before + price
