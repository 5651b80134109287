r"""From an oracle's reply to a pair, or to the one reason why it is none.

    reply -> read -> changed at all? -> graded -> only the answer swapped? -> change ratio -> accepted

Each step can say no, in this order; the first one that does is the reason, so that reasons add up to rows.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from spotcli.core import edits, oracle_prompts
from spotcli.grading.kinds import grader_of
from spotcli.records import Sample, Verdict

ACCEPTED = "accepted"

UNREADABLE = frozenset(oracle_prompts.Failure.__args__)  # type: ignore[attr-defined]
"""Reasons that are about the form of the reply."""

FINAL = ("declined", "filtered", "refused")
"""Reasons after which the same oracle is not asked again."""


@dataclass(frozen=True)
class Correction:
    """What became of one reply."""

    reason: str
    """``accepted``, or why it is no pair: ``wrong``, ``too large``, ``declined: ...`` and so on."""
    chosen: str | None = None
    verdict: Verdict | None = None
    extracted: str | None = None
    change_ratio: float | None = None
    detail: str = ""
    """Of an unreadable reply: what was wrong with its form."""

    @property
    def accepted(self) -> bool:
        return self.reason == ACCEPTED

    @property
    def final(self) -> bool:
        return self.reason.startswith(FINAL)


def judge(
    sample: Sample,
    text: str,
    *,
    finish_reason: str,
    why: str | None,
    mode: oracle_prompts.ReplyMode,
    fence: str,
    gamma: float,
    ratio: Callable[[str, str], float],
    answer_only: bool,
    grader: str = "math",
) -> Correction:
    """Read, grade and measure one reply.

    A ``solution`` is no correction: its change ratio is measured, but nothing asks that it be close to the answer.

    Args:
        why: of a reply that declined, the oracle's reason.
        ratio: the change ratio of y- and y+ as texts.
        grader: of samples that name none.
        answer_only: let a correction pass that swaps the final answer and keeps a derivation that does not reach it.
    """
    if finish_reason == "declined":
        return Correction(f"declined: {why}" if why else "declined")
    if finish_reason != "stop":
        return Correction(finish_reason)
    reading = oracle_prompts.read(text, mode=mode, fence=fence, student=sample.response)
    if reading.failure:
        return Correction(reading.failure, detail=reading.detail)
    chosen = reading.text or ""
    if chosen.split() == sample.response.split():
        return Correction("unchanged", chosen)
    graded = grader_of(sample.grader, grader)(chosen, sample.answer or "")
    if graded.verdict != "right":
        return Correction(graded.verdict, chosen, graded.verdict, graded.extracted)
    change = ratio(sample.response, chosen)
    if mode == "solution":
        return Correction(ACCEPTED, chosen, graded.verdict, graded.extracted, change)
    if not answer_only and only_answer_changed(sample.response, chosen, graded.extracted or ""):
        return Correction("answer only", chosen, graded.verdict, graded.extracted, change)
    reason = ACCEPTED if change <= gamma else "too large"
    return Correction(reason, chosen, graded.verdict, graded.extracted, change)


# An equation with something to compute on its left: a step, where `x = 5` only says the result.
_STEP = re.compile(r"(?:[\d+*/^-]|\\\w+)[^=]*=")


def only_answer_changed(rejected: str, chosen: str, answer: str) -> bool:
    """Whether no step was changed but the line that gives the answer, and the others do not lead to the new one.

    Not so where ``answer``, that of y+, stands in the derivation already (the student copied it wrongly), where the
    line is itself a step (``42 - 7 = \\boxed{36}``), or where there is no derivation.
    """
    before, after = ([line.strip() for line in text.splitlines() if line.strip()] for text in (rejected, chosen))
    head = edits.shared_prefix(before, after)
    tail = edits.shared_prefix(before[head:][::-1], after[head:][::-1])
    changed = after[head : len(after) - tail]
    if not head or len(changed) != 1 or len(before) - head - tail > 1:
        return False
    line = changed[0]
    # What stands behind the line is talk where the line has the box.
    if tail and "\\boxed" not in line:
        return False
    if _STEP.search(line[: max(line.rfind("\\boxed"), line.rfind(answer), 0)]):
        return False
    derivation = "\n".join(after[:head])
    return not (answer and re.search(rf"(?<![\w.]){re.escape(answer)}(?!\w)", derivation))


def feedback(
    correction: Correction, sample: Sample, *, reference: bool, gamma: float
) -> oracle_prompts.Feedback | None:
    """What the oracle is told before its next attempt; None where there is nothing to learn from.

    ``reference``: the oracle may see the reference answer.
    """
    found = f"Its final answer, {correction.extracted}," if correction.extracted else "Its final answer"
    edit = _largest_edit(sample.response, correction.chosen) if correction.reason in ("wrong", "too large") else ""
    largest = f" Its largest change: {edit}." if edit else ""
    complaints = {
        "length": "The reply was cut at the token limit. Think less, and write only what was asked for.",
        "unchanged": "It is the student's solution without any change, and that is wrong.",
        "wrong": f"{found} is not right" + (f"; the right one is {sample.answer}." if reference else ".") + largest,
        "undecided": f"{found} could not be read. Write it alone, in \\boxed{{}}.",
        "answer only": "Only the final answer was replaced, and the steps before it still lead elsewhere. Mend the "
        "step that goes wrong, and what follows from it.",
    }
    complaint = complaints.get(correction.reason)
    if correction.reason in UNREADABLE:
        complaint = f"The form of the reply was wrong: {correction.detail}."
    elif correction.reason == "too large":
        assert correction.change_ratio is not None
        complaint = (
            f"It changes {correction.change_ratio:.0%} of the solution; at most {gamma:.0%} may be new. "
            f"Keep more of the student's own text, above all here: {edit}"
        )
    return oracle_prompts.Feedback(complaint, correction.chosen) if complaint else None


def _largest_edit(rejected: str, chosen: str | None, limit: int = 300) -> str:
    """The edit with the longest new text, as "old" became "new"; empty where nothing is new."""
    old, best = "", ("", "")
    for span in edits.diff(rejected, chosen or ""):
        if span.kind == "inserted" and len(span.text) > len(best[1]):
            best = (old, span.text)
        old = span.text if span.kind == "deleted" else ""
    return " became ".join(repr(text if len(text) <= limit else f"{text[:limit]}...") for text in best if any(best))
