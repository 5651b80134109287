r"""From an oracle's reply to a pair, or to the one reason why it is not a pair.

    reply -> parsed -> cleaned -> changed? -> graded -> more than the final answer changed? -> true steps? -> close?

The steps run in this order, and the first one that fails is the reason, so that the reasons add up to the rows.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from spotcli import outputs
from spotcli.console import warn
from spotcli.core import edits, hunks, oracle_prompts
from spotcli.errors import UserError
from spotcli.grading.kinds import grade_any, grader_of
from spotcli.recipe import RectifySection
from spotcli.records import Sample, Verdict
from spotcli.repair.clean import clean, unwrapped
from spotcli.repair.damage import COMPLAINTS, form_damage
from spotcli.repair.journal import ReplyEntry
from spotcli.repair.steps import false_steps

ACCEPTED = "accepted"

FORM_ERRORS = frozenset(hunks.FormError.__args__)  # type: ignore[attr-defined]
"""Reasons that concern the form of the reply."""

FINAL = ("declined", "filtered", "refused")
"""Reasons after which the same oracle is not asked again."""

PREVIOUS_LENGTH = 20_000
"""Characters of a reply with an error in its form that the next attempt is shown."""

Measure = Callable[[str, str], edits.Changes]
"""How much y- and y+ differ, as texts."""


@dataclass(frozen=True)
class Criteria:
    """What a correction must fulfil to become a pair."""

    measure: Measure
    gamma: float
    """The largest change ratio."""
    max_deleted: float = 1.0
    """The largest share of y- that y+ may lack."""
    answer_only: bool = False
    """Accept a correction that changes only the final answer and keeps a derivation that does not lead to it."""
    grader: str = "math"
    """Grades samples that name no grader."""


@dataclass(frozen=True)
class Correction:
    """The judgement of one reply."""

    reason: str
    """``accepted``, or why it is not a pair: ``wrong``, ``too large``, ``declined: ...`` and so on."""
    chosen: str | None = None
    verdict: Verdict | None = None
    extracted: str | None = None
    change_ratio: float | None = None
    detail: str = ""
    """The error in the reply's form, or the false step, in full."""

    @property
    def accepted(self) -> bool:
        return self.reason == ACCEPTED

    @property
    def final(self) -> bool:
        return self.reason.startswith(FINAL)


class Judge:
    """Judges replies by the same criteria, each reply once."""

    def __init__(self, criteria: Criteria) -> None:
        self.criteria = criteria
        self._judged: dict[int, tuple[ReplyEntry, Correction]] = {}

    def __call__(self, sample: Sample, reply: ReplyEntry) -> Correction:
        # The entry is kept beside its correction, so that its id stays its own.
        judged = self._judged.get(id(reply))
        if judged is None:
            judged = self._judged[id(reply)] = reply, judge(sample, reply, self.criteria)
        return judged[1]


def judge(sample: Sample, reply: ReplyEntry, criteria: Criteria) -> Correction:
    """Parse, grade and measure one reply.

    A ``solution`` is not a correction: its change ratio is measured, but not limited.
    """
    if reply.finish_reason == "declined":
        return Correction(f"declined: {reply.reason}" if reply.reason else "declined")
    if reply.finish_reason != "stop":
        return Correction(reply.finish_reason)
    parsed = oracle_prompts.parse_reply(
        reply.text, mode=reply.mode, fence=reply.fence, student=sample.response, unwrap=unwrapped
    )
    if parsed.error:
        return Correction(parsed.error, detail=parsed.detail)
    cleaned = clean(parsed.text or "", sample.response, _problem(sample))
    chosen = cleaned.text
    if cleaned.damage:
        return Correction(cleaned.damage, chosen)
    if chosen.split() == sample.response.split():
        return Correction("unchanged", chosen)
    grade = grade_any(grader_of(sample.grader, criteria.grader), chosen, sample.references)
    if grade.verdict != "right":
        return Correction(grade.verdict, chosen, grade.verdict, grade.extracted)
    changes = criteria.measure(sample.response, chosen)
    reason, detail = _objection(sample, chosen, grade.extracted or "", changes, reply.mode, criteria)
    return Correction(reason, chosen, grade.verdict, grade.extracted, changes.ratio, detail)


def _problem(sample: Sample) -> str:
    return "\n".join(message["content"] for message in sample.messages)


def _objection(
    sample: Sample, chosen: str, answer: str, changes: edits.Changes, mode: oracle_prompts.ReplyMode, criteria: Criteria
) -> tuple[str, str]:
    """Why a correction with the right final answer is not a pair, with details; ``ACCEPTED`` if it is one."""
    correction = mode != "solution"
    if correction and not criteria.answer_only and only_answer_changed(sample.response, chosen, answer):
        return "answer only", ""
    if correction and (damage := form_damage(chosen, sample.response)):
        return damage, ""
    known = f"{_problem(sample)}\n{sample.response}"
    # With `answer_only` the user accepts steps that do not lead to the answer, so only new ones are checked.
    steps = [step for step in false_steps(chosen, known) if not (criteria.answer_only and step in sample.response)]
    if steps:
        return "false step", steps[0]
    if correction and changes.ratio > criteria.gamma:
        return "too large", ""
    if correction and changes.deleted > criteria.max_deleted:
        return "too much deleted", ""
    return ACCEPTED, ""


_OPERAND = re.compile(r"[\d+*/^-]|\\\w+")
"""Something to compute."""


def only_answer_changed(rejected: str, chosen: str, answer: str) -> bool:
    """Whether only the line of the final answer changed, and the lines before it do not lead to the new answer.

    False if the derivation already contains ``answer``, that of y+ (the student copied it wrongly), if the line itself
    is a calculation (``42 - 7 = \\boxed{36}``), or if the answer has no derivation.
    """
    before, after = ([line.strip() for line in text.splitlines() if line.strip()] for text in (rejected, chosen))
    head = edits.shared_prefix(before, after)
    tail = edits.shared_prefix(before[head:][::-1], after[head:][::-1])
    changed = after[head : len(after) - tail]
    if not head or len(changed) != 1 or len(before) - head - tail > 1:
        return False
    line = changed[0]
    # With the box in the line, the lines after it are only remarks.
    if tail and "\\boxed" not in line:
        return False
    if _is_calculation(line[: max(line.rfind("\\boxed"), line.rfind(answer), 0)]):
        return False
    derivation = "\n".join(after[:head])
    return not (answer and re.search(rf"(?<![\w.]){re.escape(answer)}(?!\w)", derivation))


def _is_calculation(line: str) -> bool:
    """Whether an equation has something to compute on its left; `x = 5` is only a result."""
    return any(_OPERAND.search(left) for left in line.split("=")[:-1])


def feedback_on(
    correction: Correction, sample: Sample, reply: ReplyEntry, *, reference: bool, gamma: float
) -> oracle_prompts.Feedback | None:
    """The error in this attempt, for the oracle's next one; None if the next attempt cannot learn from it.

    The texts are part of the prompt (``oracle_prompts.VERSION``).

    Args:
        reply: the reply that was judged.
        reference: the oracle may see the reference answer.
        gamma: the largest change ratio.
    """
    answer = f"Its final answer, {correction.extracted}," if correction.extracted else "Its final answer"
    edit = _largest_edit(sample.response, correction.chosen) if correction.reason in ("wrong", "too large") else ""
    largest = f" Its largest change: {edit}." if edit else ""
    complaints: dict[str, str] = {
        **COMPLAINTS,
        "length": "The reply was cut at the token limit. Think less, and write only what was asked for.",
        "unchanged": "It is the student's solution without any change, and that is wrong.",
        "wrong": f"{answer} is not right" + (f"; the right one is {sample.answer}." if reference else ".") + largest,
        "undecided": f"{answer} could not be read. Write it alone, in \\boxed{{}}.",
        "too much deleted": "Most of the student's solution is missing. Keep every step that is right.",
        "answer only": "Only the final answer was replaced, and the steps before it still lead elsewhere. Mend the "
        "step that goes wrong, and what follows from it.",
    }
    complaint = complaints.get(correction.reason)
    if correction.reason in FORM_ERRORS:
        complaint = f"The form of the reply was wrong: {correction.detail}."
    elif correction.reason == "false step":
        complaint = f"{COMPLAINTS['false step']} False: {correction.detail}."
    elif correction.reason == "too large":
        assert correction.change_ratio is not None
        complaint = (
            f"It changes {correction.change_ratio:.0%} of the solution; at most {gamma:.0%} may be new. "
            f"Keep more of the student's own text, above all here: {edit}"
        )
    previous = correction.chosen
    if correction.reason in FORM_ERRORS and reply.text.strip():
        previous = reply.text[:PREVIOUS_LENGTH]
    return oracle_prompts.Feedback(complaint, previous, reply.fence) if complaint else None


def _largest_edit(rejected: str, chosen: str | None, limit: int = 300) -> str:
    """The edit with the longest new text, as ``'old' became 'new'``; empty without new text."""
    old, best = "", ("", "")
    for span in edits.diff(rejected, chosen or ""):
        if span.kind == "inserted" and len(span.text) > len(best[1]):
            best = (old, span.text)
        old = span.text if span.kind == "deleted" else ""
    return " became ".join(repr(text if len(text) <= limit else f"{text[:limit]}...") for text in best if any(best))


def measure_by(settings: RectifySection, source: Path) -> tuple[Measure, str]:
    """The measure in the policy's tokens, or in words and signs if its tokenizer cannot be loaded; and its unit.

    Raises:
        UserError: ``rectify.tokenizer`` cannot be loaded.
    """
    name = settings.tokenizer or outputs.read_meta(source).get("settings", {}).get("model")
    if not name:
        warn(f"{source}: without a meta file that names the policy, change ratios count words and signs (--tokenizer)")
        return edits.measure_text, "words and signs"
    try:
        from spotcli.policies.models import load_tokenizer

        tokenizer = load_tokenizer(name)
    except UserError as error:
        if settings.tokenizer:
            raise
        warn(f"failed to load the policy's tokenizer ({error.message}): change ratios count words and signs")
        return edits.measure_text, "words and signs"

    def in_tokens(rejected: str, chosen: str) -> edits.Changes:
        ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in (rejected, chosen)]
        return edits.measure(*ids)

    return in_tokens, f"tokens of {name}"
