"""Repairing a worked calculation, and the oracle that does it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from spotcli.oracles import CorrectionRequest
from spotcli.oracles.symbolic.declined import CannotRepair, Declined
from spotcli.oracles.symbolic.expressions import WrittenExpression, value_of
from spotcli.oracles.symbolic.reading import read_answer, read_problem, read_reference
from spotcli.oracles.symbolic.search import Interpretation, best_interpretations
from spotcli.oracles.symbolic.writing import Replacement, Style
from spotcli.providers.replies import Reply

MAX_PROBLEM = 4_000
MAX_RESPONSE = 20_000


@dataclass(frozen=True)
class Repaired:
    """A corrected answer."""

    text: str
    """The corrected answer; outside of the edits it equals the response, character by character."""
    edits: tuple[Replacement, ...]
    """In the order of the text; at least one."""
    first_step: int | None
    """The number of the first equation that was changed, from 1; None if only the repeated result was wrong."""
    slips: int
    """Mistakes that explain the edits. A wrong result that later lines use is one slip and several edits."""
    value: Fraction
    """The true value of the problem, which the last box now contains."""


def repair_calculation(problem_text: str, response: str, reference: str | None = None) -> Repaired | Declined:
    """Repair the slips of a worked answer, or return why that is not certain.

    A repaired answer is checked again: every equation is true and follows from the problem, and the last box contains
    the value.

    Args:
        problem_text: the question without other turns of the chat; it contains exactly one arithmetic expression.
        response: the worked answer; its result is in a last ``\\boxed{}``.
        reference: the known answer of the problem, which must equal the value of the expression.
    """
    if len(problem_text) > MAX_PROBLEM or len(response) > MAX_RESPONSE:
        return Declined("too long")
    # `1/2 + 1/3` has one operation or three, depending on the meaning of the slash: try both.
    has_slash = re.search(r"[0-9]/[0-9]", f"{problem_text}\n{response}")
    repairs: list[Repaired] = []
    declined: list[Declined] = []
    truths: set[Fraction] = set()
    for literal in (False, True) if has_slash else (False,):
        try:
            problem = read_problem(problem_text, reference, literal)
            truth = _truth(problem, reference)
            truths.add(truth)
            repairs.append(_repair_and_check(problem, truth, response, literal))
        except CannotRepair as failure:
            declined.append(Declined(failure.reason, failure.detail))
    if not repairs:
        return Declined("ambiguous", _TWO_READINGS) if len(truths) == 2 else declined[0]
    fewest = min(repair.slips for repair in repairs)
    best = [repair for repair in repairs if repair.slips == fewest]
    if len(truths) == 2 or len({repair.text for repair in best}) == 2:
        return Declined("ambiguous", _TWO_READINGS)
    return best[0] if best[0].edits else Declined("nothing wrong")


_TWO_READINGS = "the fractions can be read in two ways"


def _truth(problem: WrittenExpression, reference: str | None) -> Fraction:
    truth = value_of(problem.shape, [number.value for number in problem.numbers])
    if truth is None:
        raise CannotRepair("division by zero")
    if reference is not None and truth != read_reference(reference):
        raise CannotRepair("reference differs", "the expression in the problem has another value")
    return truth


def _repair_and_check(problem: WrittenExpression, truth: Fraction, response: str, literal: bool) -> Repaired:
    repaired = _repair(problem, truth, response, literal)
    if repaired.edits and _repair(problem, truth, repaired.text, literal).edits:
        raise CannotRepair("ambiguous", "the repaired answer is not read as right")
    return repaired


def _repair(problem: WrittenExpression, truth: Fraction, text: str, literal: bool) -> Repaired:
    """The answer repaired by its best interpretation; without edits if nothing is wrong."""
    answer = read_answer(text, literal)
    best = _in_order(best_interpretations(problem, answer.claims))
    # An earlier step may be in a box too; the last box is graded.
    last_box = [number for number in answer.numbers if number.boxed][-1]
    result = {change.token: change.truth for change in best[0].changes}.get(last_box, last_box.value)
    if result != truth:
        raise CannotRepair("no boxed answer", "the last box contains an earlier result")
    style = Style.of(problem, answer)
    candidates = {style.replacements(interpretation.changes) for interpretation in best}
    if len(candidates) > 1:
        raise CannotRepair("ambiguous")
    edits = candidates.pop()
    changed_steps = [change.step for change in best[0].changes if change.step]
    return Repaired(_apply(edits, text), edits, min(changed_steps, default=None), best[0].slips, truth)


def _in_order(interpretations: list[Interpretation]) -> list[Interpretation]:
    """The interpretations with the fewest swaps, if all agree on the steps.

    ``12 + 12`` for 12 + 30 can be repaired in two places; the order of the problem decides.
    """
    if len({interpretation.order for interpretation in interpretations}) > 1:
        return interpretations
    fewest = min(interpretation.swaps for interpretation in interpretations)
    return [interpretation for interpretation in interpretations if interpretation.swaps == fewest]


def _apply(edits: tuple[Replacement, ...], text: str) -> str:
    pieces, position = [], 0
    for edit in edits:
        pieces += [text[position : edit.start], edit.new]
        position = edit.end
    return "".join([*pieces, text[position:]])


class SymbolicOracle:
    """``repair_calculation`` as an oracle: it costs nothing, works offline, and declines where it is not certain."""

    name = "symbolic"
    version = "1"
    prompted = False
    parallel: int | None = 1

    async def correct(self, request: CorrectionRequest) -> Reply:
        """The repaired answer, or a reply "declined" with one of ``REASONS``. It never fails."""
        sample = request.sample
        question = next((turn["content"] for turn in reversed(sample.messages) if turn["role"] == "user"), "")
        result = repair_calculation(question, sample.response, sample.answer)
        if isinstance(result, Declined):
            return Reply(finish_reason="declined", reason=result.reason, cost=0.0, model=self.name)
        return Reply(text=result.text, cost=0.0, model=self.name)

    async def close(self) -> None:
        """Nothing to close."""
