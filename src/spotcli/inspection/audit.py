"""An audit: a random sample of the pairs, a decision about each, and the error rate of the file."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from spotcli import jsonl
from spotcli.console import one_line, out, say
from spotcli.core.stats import exact_interval
from spotcli.decisions import STALE, Audit, Event, ReviewFile, now, reviewer
from spotcli.errors import UserError


@dataclass(frozen=True)
class SampleSize:
    """How many pairs an audit draws, and how."""

    size: int
    seed: int = 0


def draw(rows: Sequence[int], wanted: SampleSize) -> list[int]:
    """Draw rows at random, in random order; the same seed draws the same rows of the same file.

    Raises:
        UserError: there are fewer rows.
    """
    if wanted.size > len(rows):
        raise UserError(
            f"the sample of {wanted.size} is larger than the {len(rows)} pairs to draw from",
            cure="lower --sample, or select more pairs with --where",
        )
    return random.Random(wanted.seed).sample(rows, wanted.size)


def result(states: Sequence[str | None], wanted: SampleSize, *, where: str | None, data: str) -> Audit | None:
    """The error rate of a sample; None if a decision about a pair is missing.

    Args:
        states: the decision about each pair of the sample.
        where: the filter that the sample was drawn from.
        data: SHA-256 of the file.
    """
    counts = Counter(states)
    if counts[None] or counts[STALE]:
        return None
    low, high = exact_interval(counts["reject"] + counts["edited"], len(states))
    return Audit(
        sample=len(states),
        seed=wanted.seed,
        where=where,
        rejected=counts["reject"],
        edited=counts["edited"],
        low=low,
        high=high,
        data=data,
    )


def report_audit(states: Sequence[str | None], wanted: SampleSize, review: ReviewFile, where: str | None) -> None:
    """Print the result of an audit, and append it to the decisions; or print how many decisions are missing.

    Args:
        states: the decision about each pair of the sample.
        review: the decisions about the file.
        where: the filter that the sample was drawn from.
    """
    audit = result(states, wanted, where=where, data=jsonl.digest(review.data))
    if audit is None:
        missing = sum(state in (None, STALE) for state in states)
        say(f"{review.data}: the audit requires a decision about all {len(states)} pairs; {missing} are undecided")
        return
    if audit != review.decisions.audit:
        review.append([Event(event="audit", time=now(), who=reviewer(), audit=audit)])
        review.close()
    out().print(f"{one_line(str(audit))} (exact 95 % interval)")
