r"""From an oracle's reply to a pair, or to the one reason why it is none.

    reply -> read -> changed at all? -> graded -> only the answer swapped? -> change ratio -> accepted

Each step can say no, in this order; the first one that does is the reason, so that reasons add up to rows.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from spotcli.core import edits, prompts
from spotcli.core.grading.graders import grader_of
from spotcli.records import Sample, Verdict

ACCEPTED = "accepted"

UNREADABLE = frozenset(prompts.Failure.__args__)  # type: ignore[attr-defined]
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
    mode: prompts.ReplyMode,
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
    reading = prompts.read(text, mode=mode, fence=fence, student=sample.response)
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
    if not answer_only and only_answer_changed(sample.response, chosen):
        return Correction("answer only", chosen, graded.verdict, graded.extracted, change)
    reason = ACCEPTED if change <= gamma else "too large"
    return Correction(reason, chosen, graded.verdict, graded.extracted, change)


def only_answer_changed(rejected: str, chosen: str) -> bool:
    """Whether nothing but the last boxed answer was changed, on a derivation that does not lead to the new one.

    Not so where the new answer stands in the derivation already (the student copied it wrongly), where the line of the
    box is itself a step (``42 - 7 = \\boxed{36}``), or where there is no derivation.
    """
    before, after = _around_box(rejected), _around_box(chosen)
    if before is None or after is None or (before[0], before[2]) != (after[0], after[2]):
        return False
    head, answer, _ = after
    derivation, _, line = head.rpartition("\n")
    if not derivation.strip() or "=" in line:
        return False
    return not re.search(rf"(?<![\w.]){re.escape(answer.strip())}(?![\w])", derivation)


def _around_box(text: str) -> tuple[str, str, str] | None:
    """The text before, in and after the last ``\\boxed{...}``."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    start += len("\\boxed{")
    depth = 1
    for at in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        if depth == 0:
            return text[:start], text[start:at], text[at:]
    return None


def feedback(correction: Correction, sample: Sample, *, reference: bool, gamma: float) -> prompts.Feedback | None:
    """What the oracle is told before its next attempt; None where there is nothing to learn from.

    ``reference``: the oracle may see the reference answer.
    """
    found = f"Its final answer, {correction.extracted}," if correction.extracted else "Its final answer"
    complaints = {
        "length": "The reply was cut at the token limit. Think less, and write only what was asked for.",
        "unchanged": "It is the student's solution without any change, and that is wrong.",
        "wrong": f"{found} is not right" + (f"; the right one is {sample.answer}." if reference else "."),
        "undecided": f"{found} could not be read. Write it alone, in \\boxed{{}}.",
        "answer only": "Only the final answer was replaced, and the steps before it still lead elsewhere. Mend the "
        "step that goes wrong, and what follows from it.",
    }
    complaint = complaints.get(correction.reason)
    if correction.reason in UNREADABLE:
        complaint = f"The form of the reply was wrong: {correction.detail}."
    elif correction.reason == "too large":
        assert correction.chosen is not None
        assert correction.change_ratio is not None
        complaint = (
            f"It changes {correction.change_ratio:.0%} of the solution; at most {gamma:.0%} may be new. "
            f"Keep more of the student's own text, above all here: {_largest_edit(sample.response, correction.chosen)}"
        )
    return prompts.Feedback(complaint, correction.chosen) if complaint else None


def _largest_edit(rejected: str, chosen: str, limit: int = 300) -> str:
    """The edit with the longest new text, as "old" -> "new"."""
    old, best = "", ("", "")
    for span in edits.diff(rejected, chosen):
        if span.kind == "inserted" and len(span.text) > len(best[1]):
            best = (old, span.text)
        old = span.text if span.kind == "deleted" else ""
    return " became ".join(repr(text if len(text) <= limit else f"{text[:limit]}...") for text in best)
