"""What a job will take and cost, from the tokens of the requests that it would send first."""

from __future__ import annotations

import dataclasses
from typing import Any

from spotcli.oracles import ProviderOracle
from spotcli.repair.dispatcher import Dispatcher

# The tags around a reply and the signs between its changes.
FORM_TOKENS = 20
# Edits are about so many times shorter than the answer (benchmarks/edits.py on whole answers).
EDITS_SHORTER = 4
# What a further attempt is told, without the attempt before.
COMPLAINT_TOKENS = 500


def estimate(job: Dispatcher) -> dict[str, Any]:
    """Requests, tokens and US dollars of all rows that have no reply yet; None where a price is unknown.

    ``likely``: each row is asked about once, by the first provider on the ladder, and a rewrite is as long as the
    answer. ``min``: replies of half that length, and oracles that cost nothing succeed where they come first. ``max``:
    every rung is needed with every attempt, and every reply is as long as allowed, thinking included.
    """
    settings = job.settings
    edited = job.reply == "edits"
    found: dict[str, Any] = {"requests": 0, "prompt_tokens": 0, "reply_tokens": 0}
    prices: dict[str, float | None] = {"min": 0.0, "likely": 0.0, "max": 0.0}

    def add(name: str, price: float | None) -> None:
        before = prices[name]
        prices[name] = None if before is None or price is None else before + price

    for case in job.cases:
        step = job.next_step(case) if case.correctable and case.reviewed is None else None
        case.outcome = case.entry = None
        if step is None:
            continue
        rungs = job.oracles[job.oracles.index(step.oracle) :]
        providers = [oracle for oracle in rungs if isinstance(oracle, ProviderOracle)]
        found["requests"] += 1
        if not providers:
            continue
        first = providers[0]
        if step.oracle is not first:
            step = dataclasses.replace(step, oracle=first, mode=job.reply, feedback=None)
        request = job.request(case, step)
        prompt, answer = first.count_tokens(request)
        reply = FORM_TOKENS + answer // (EDITS_SHORTER if step.mode == "edits" else 1)
        found["prompt_tokens"] += prompt
        found["reply_tokens"] += reply
        add("min", first.price_of(prompt, reply / 2) if rungs[0] is first else 0.0)
        add("likely", first.price_of(prompt, reply))
        # Two more for hunks that cannot be applied. After a reply that was cut, the next may be twice as long.
        again = settings.attempts - 1 + (2 if edited else 0)
        longest = settings.max_tokens
        for oracle in providers:
            repeated = prompt + COMPLAINT_TOKENS + 2 * longest
            add("max", oracle.price_of(prompt + again * repeated, longest + again * 2 * longest))
    return found | prices
