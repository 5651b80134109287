"""The state of a calculation: the numbers and signs that remain to be computed, the true ones and the written ones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

from spotcli.oracles.symbolic.expressions import (
    ExpressionShape,
    WrittenExpression,
    apply_sign,
    may_reduce,
    real_groups,
    tree_of,
)
from spotcli.oracles.symbolic.tokens import Token, WrittenNumber

NumberRange = tuple[int, int]
"""Indices of the first and the last number of the problem that a number of the state was computed from."""


@dataclass(frozen=True)
class StateNumber:
    """A number of the state."""

    true: Fraction
    written: Fraction | None
    """The value in the answer; None if that follows from a division by zero."""
    span: NumberRange


@dataclass(frozen=True)
class State:
    """What remains to be computed."""

    numbers: tuple[StateNumber, ...]
    shape: ExpressionShape
    """With the true signs."""
    written_signs: tuple[str, ...]
    """The signs in the answer."""

    def part(self, first: int, last: int) -> State:
        """The numbers from index ``first`` to ``last`` as a state of their own."""
        groups = {(a - first, b - first) for a, b in self.shape.groups if first <= a and b <= last}
        shape = ExpressionShape(self.shape.signs[first:last], real_groups(groups, last - first + 1))
        return State(self.numbers[first : last + 1], shape, self.written_signs[first:last])

    def with_part(self, first: int, last: int, part: State) -> State:
        """The state with the numbers from ``first`` to ``last`` replaced by ``part``."""
        numbers = self.numbers[:first] + part.numbers + self.numbers[last + 1 :]
        shift = len(part.numbers) - (last - first + 1)
        groups = {(a + first, b + first) for a, b in part.shape.groups}
        for a, b in self.shape.groups:
            if a <= first and last <= b:
                groups.add((a, b + shift))
            elif b < first:
                groups.add((a, b))
            elif a > last:
                groups.add((a + shift, b + shift))
        signs = self.shape.signs[:first] + part.shape.signs + self.shape.signs[last:]
        written_signs = self.written_signs[:first] + part.written_signs + self.written_signs[last:]
        return State(numbers, ExpressionShape(signs, real_groups(groups, len(numbers))), written_signs)

    def reduced(self, index: int) -> State | None:
        """The state after computing the operation at ``index``; None for a division by zero."""
        left, right = self.numbers[index], self.numbers[index + 1]
        true = apply_sign(left.true, self.shape.signs[index], right.true)
        if true is None:
            return None
        written = None
        if left.written is not None and right.written is not None:
            written = apply_sign(left.written, self.written_signs[index], right.written)
        number = StateNumber(true, written, (left.span[0], right.span[1]))
        return self.with_part(index, index + 1, State((number,), ExpressionShape(()), ()))

    def reductions(self, operations: int) -> set[State]:
        """All states with ``operations`` remaining operations that can follow from this state."""
        states = {self}
        while states and len(next(iter(states)).written_signs) > operations:
            states = {
                after
                for state in states
                for index in range(len(state.written_signs))
                if may_reduce(state.shape, index, index + 1) and (after := state.reduced(index))
            }
        return states


@dataclass(frozen=True)
class Change:
    """A number or a sign of the answer, and its true value."""

    token: WrittenNumber | Token
    truth: Fraction | str
    step: int
    after_operator: bool = False


@dataclass(frozen=True)
class Fit:
    """A written expression matched with a state."""

    state: State
    slips: int
    changes: tuple[Change, ...]
    far: bool = False
    """Whether more than a third of the expression differs; it then hardly means this state."""


def match_state(
    expression: WrittenExpression, state: State, step: int, fresh: frozenset[NumberRange] = frozenset()
) -> Fit | None:
    """Match an expression with a state; None if the expression has another form.

    ``fresh``: the numbers of the state that are new results. However wrong they are, they do not show whether the step
    means this state.
    """
    shape = expression.shape
    if len(expression.numbers) != len(state.numbers) or not _same_form(shape, state.shape):
        return None
    copied = results = wrong_signs = 0
    changes: list[Change] = []
    numbers: list[StateNumber] = []
    for index, (number, expected) in enumerate(zip(expression.numbers, state.numbers, strict=True)):
        if number.value not in (expected.true, expected.written):
            if expected.span in fresh:
                results += 1
            else:
                copied += 1
        if number.value != expected.true:
            changes.append(Change(number, expected.true, step, after_operator=index > 0))
        numbers.append(replace(expected, written=number.value))
    signs = zip(expression.operators, shape.signs, state.shape.signs, state.written_signs, strict=True)
    for token, sign, true, written in signs:
        wrong_signs += sign not in (true, written)
        if sign != true:
            changes.append(Change(token, true, step))
    strange = copied + wrong_signs
    far = strange > max(1, (len(expression.numbers) + len(expression.operators)) // 3)
    after = State(tuple(numbers), state.shape, shape.signs)
    return Fit(after, strange + results, tuple(changes), far)


def _same_form(written: ExpressionShape, shape: ExpressionShape) -> bool:
    """Whether the parentheses are the same, or have no effect on the order of the operations."""
    if written.groups == shape.groups:
        return True
    return written.signs == shape.signs and tree_of(written) == tree_of(shape)
