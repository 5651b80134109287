"""The search for the interpretations of an answer with the fewest slips."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from spotcli.oracles.symbolic.declined import CannotRepair, Reason
from spotcli.oracles.symbolic.expressions import WrittenExpression, may_reduce
from spotcli.oracles.symbolic.reading import Claim, EquationChain
from spotcli.oracles.symbolic.state import Change, Fit, NumberRange, State, StateNumber, match_state
from spotcli.oracles.symbolic.tokens import WrittenNumber

MAX_INTERPRETATIONS = 4_000


@dataclass(frozen=True)
class Interpretation:
    """How the claims so far are interpreted."""

    state: State
    slips: int = 0
    swaps: int = 0
    """Sums and products that are written the other way round."""
    order: tuple[NumberRange, ...] = ()
    """The numbers of the problem that each equation computes."""
    changes: tuple[Change, ...] = ()
    results: tuple[StateNumber, ...] = ()
    """The numbers that were computed."""
    far: bool = False
    """Whether a step hardly means what it is interpreted as."""


def best_interpretations(problem: WrittenExpression, claims: tuple[Claim, ...]) -> list[Interpretation]:
    """All interpretations of an answer with the fewest slips; at least one.

    Raises:
        CannotRepair: the answer has no interpretation (the reason is that of the one that came furthest), a step of
            the best one is too far from the problem, or the search exceeds ``MAX_INTERPRETATIONS``.
    """
    search = _Search(problem, claims)
    search.run()
    if not search.best:
        raise CannotRepair(search.failure)
    if any(interpretation.far for interpretation in search.best):
        raise CannotRepair("step not recognised")
    return search.best


@dataclass
class _Search:
    problem: WrittenExpression
    claims: tuple[Claim, ...]
    best: list[Interpretation] = field(default_factory=list)
    tried: int = 0
    failed_claim: int = -1
    """The index of the claim at which the interpretation that came furthest failed."""
    failure: Reason = "step not recognised"

    def run(self) -> None:
        numbers = tuple(
            StateNumber(number.value, number.value, (index, index)) for index, number in enumerate(self.problem.numbers)
        )
        shape = self.problem.shape
        self._interpret(0, Interpretation(State(numbers, shape, shape.signs)))

    def _interpret(self, index: int, before: Interpretation) -> None:
        """Interpret the claims from ``index`` on."""
        if self.best and before.slips > self.best[0].slips:
            return
        if index == len(self.claims):
            self._finish(before)
            return
        claim = self.claims[index]
        if isinstance(claim, EquationChain):
            interpretations = self._chain(index, claim, before)
        else:
            interpretations = self._number(index, claim, before)
        for after in interpretations:
            self.tried += 1
            if self.tried > MAX_INTERPRETATIONS:
                raise CannotRepair("too complex")
            self._interpret(index + 1, after)

    def _finish(self, interpretation: Interpretation) -> None:
        if interpretation.state.written_signs:
            self._fail(len(self.claims), "missing step")
        elif not self.best or interpretation.slips < self.best[0].slips:
            self.best = [interpretation]
        else:
            self.best.append(interpretation)

    def _fail(self, index: int, reason: Reason) -> None:
        if index > self.failed_claim:
            self.failed_claim, self.failure = index, reason

    def _number(self, index: int, number: WrittenNumber, before: Interpretation) -> Iterator[Interpretation]:
        """A number in the prose or in a box of its own: the result so far, or a number of the problem."""
        state = before.state
        if number.boxed or not state.written_signs:
            if state.written_signs:
                self._fail(index, "missing step")
                return
            final = state.numbers[0]
            known = number.value in (final.true, final.written)
            if number.boxed or known:
                change = () if number.value == final.true else (Change(number, final.true, 0),)
                yield replace(before, slips=before.slips + (not known), changes=before.changes + change)
                return
        truths = {asked.value for asked in self.problem.numbers} | {result.true for result in before.results}
        meant = {result.true for result in before.results if result.written == number.value != result.true}
        if number.value in truths and not meant:
            yield before
        elif number.value not in truths and len(meant) == 1:
            yield replace(before, changes=(*before.changes, Change(number, meant.pop(), 0)))
        else:
            self._fail(index, "ambiguous" if meant else "unexplained number")

    def _chain(self, index: int, chain: EquationChain, before: Interpretation) -> Iterator[Interpretation]:
        """An equation: the computation of some part of the state."""
        state, start = before.state, chain.expressions[0]
        size = len(start.operators)
        if not state.written_signs:
            self._fail(index, "extra step")
        elif size > len(state.written_signs):
            self._fail(index, "step not recognised")
        fitted = False
        for first in range(len(state.written_signs) - size + 1):
            last = first + size
            if not may_reduce(state.shape, first, last):
                continue
            part = state.part(first, last)
            for swapped, start_fit in _starts(start, part, chain.step):
                for chain_fit in _follow(chain, 1, start_fit):
                    fitted = True
                    yield _after_chain(chain, before, chain_fit, (first, last), swapped)
        if not fitted:
            self._fail(index, "step not recognised")


def _after_chain(
    chain: EquationChain, before: Interpretation, chain_fit: Fit, computed: tuple[int, int], swapped: bool
) -> Interpretation:
    first, last = computed
    state = before.state
    part = state.numbers[first : last + 1]
    is_equation = len(chain.expressions) > 1
    result = chain_fit.state.numbers
    return Interpretation(
        state.with_part(first, last, chain_fit.state) if is_equation or not swapped else state,
        before.slips + chain_fit.slips,
        before.swaps + swapped,
        before.order + ((part[0].span[0], part[-1].span[1]),) * is_equation,
        before.changes + chain_fit.changes,
        before.results + tuple(number for number in result if number.span[0] != number.span[1]),
        before.far or chain_fit.far,
    )


def _starts(start: WrittenExpression, part: State, step: int) -> Iterator[tuple[bool, Fit]]:
    """The first expression of a chain matched with a part of the state; a + b and a * b also the other way round."""
    if start_fit := match_state(start, part, step):
        yield False, start_fit
    if len(part.written_signs) == 1 and part.shape.signs[0] in "+*" and part.numbers[0].true != part.numbers[1].true:
        left, right = part.numbers
        numbers = (replace(right, span=left.span), replace(left, span=right.span))
        if start_fit := match_state(start, State(numbers, part.shape, part.written_signs), step):
            yield True, start_fit


def _follow(chain: EquationChain, index: int, before: Fit) -> Iterator[Fit]:
    """Match the expressions of a chain from ``index`` on with the states that can follow from the one before."""
    if index == len(chain.expressions):
        yield before
        return
    expression = chain.expressions[index]
    spans = {number.span for number in before.state.numbers}
    for state in before.state.reductions(len(expression.operators)):
        fresh = frozenset(number.span for number in state.numbers if number.span not in spans)
        if after := match_state(expression, state, chain.step, fresh):
            slips, changes = before.slips + after.slips, before.changes + after.changes
            yield from _follow(chain, index + 1, Fit(after.state, slips, changes, before.far or after.far))
