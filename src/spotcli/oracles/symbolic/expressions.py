"""Arithmetic expressions: parsed from tokens, and computed with exact fractions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from spotcli.oracles.symbolic.declined import CannotRepair
from spotcli.oracles.symbolic.tokens import OPERATORS, Token, WrittenNumber

MAX_OPERATIONS = 8
MAX_NESTING = 8

Groups = tuple[tuple[int, int], ...]
"""Parentheses, each as the indices of the first and the last number in it."""


@dataclass(frozen=True)
class ExpressionShape:
    """An expression without its numbers."""

    signs: tuple[str, ...]
    """The operators between the numbers: ``+``, ``-``, ``*`` or ``/``."""
    groups: Groups = ()


@dataclass(frozen=True)
class WrittenExpression:
    """An expression of the text."""

    numbers: tuple[WrittenNumber, ...]
    operators: tuple[Token, ...]
    groups: Groups

    @property
    def shape(self) -> ExpressionShape:
        return ExpressionShape(tuple(OPERATORS[token.text] for token in self.operators), self.groups)


def parse_expression(tokens: Sequence[Token]) -> WrittenExpression:
    """Parse tokens as an expression.

    Raises:
        CannotRepair: the tokens are not an expression, or exceed ``MAX_OPERATIONS`` or ``MAX_NESTING``.
    """
    numbers: list[WrittenNumber] = []
    operators: list[Token] = []
    groups: set[tuple[int, int]] = set()
    opened: list[int] = []
    expects_operand = True
    for token in tokens:
        if expects_operand and token.kind == "number" and token.number:
            numbers.append(token.number)
            expects_operand = False
        elif expects_operand and token.kind == "open":
            opened.append(len(numbers))
        elif not expects_operand and token.kind == "operator":
            operators.append(token)
            expects_operand = True
        elif not expects_operand and token.kind == "close" and opened:
            groups.add((opened.pop(), len(numbers) - 1))
        else:
            raise CannotRepair("unreadable equation")
        if len(opened) > MAX_NESTING or len(operators) > MAX_OPERATIONS:
            raise CannotRepair("too complex")
    if expects_operand or opened:
        raise CannotRepair("unreadable equation")
    return WrittenExpression(tuple(numbers), tuple(operators), real_groups(groups, len(numbers)))


def real_groups(groups: set[tuple[int, int]], size: int) -> Groups:
    """Remove groups around a single number or around everything: these parentheses have no effect."""
    return tuple(sorted(group for group in groups if group[0] < group[1] and group != (0, size - 1)))


# --- exact values ---

_PRECEDENCE = {"+": 1, "-": 1, "*": 2, "/": 2}


def apply_sign(left: Fraction, sign: str, right: Fraction) -> Fraction | None:
    """The result of an operation; None for a division by zero."""
    if sign == "+":
        return left + right
    if sign == "-":
        return left - right
    if sign == "*":
        return left * right
    return left / right if right else None


Tree = int | tuple[str, "Tree", "Tree"]


@lru_cache(maxsize=4096)
def tree_of(shape: ExpressionShape) -> Tree:
    """The order of the operations: the index of a number, or (sign, left, right)."""

    def grow(first: int, last: int) -> Tree:
        if first == last:
            return first
        split = _split(shape, first, last)
        return shape.signs[split], grow(first, split), grow(split + 1, last)

    return grow(0, len(shape.signs))


def _split(shape: ExpressionShape, first: int, last: int) -> int:
    """The index of the sign that is computed last between these numbers."""
    indices = _top_level(shape, first, last)
    weakest = min(_PRECEDENCE[shape.signs[index]] for index in indices)
    return max(index for index in indices if _PRECEDENCE[shape.signs[index]] == weakest)


def _top_level(shape: ExpressionShape, first: int, last: int) -> list[int]:
    """The indices of the signs between these numbers that are not in parentheses among them."""
    inner = [group for group in shape.groups if first <= group[0] and group[1] <= last and group != (first, last)]
    return [index for index in range(first, last) if not any(low <= index < high for low, high in inner)]


def value_of(shape: ExpressionShape, numbers: Sequence[Fraction]) -> Fraction | None:
    """The value of an expression with these numbers; None for a division by zero."""

    def compute(tree: Tree) -> Fraction | None:
        if isinstance(tree, int):
            return numbers[tree]
        sign, left, right = tree[0], compute(tree[1]), compute(tree[2])
        return None if left is None or right is None else apply_sign(left, sign, right)

    return compute(tree_of(shape))


def may_reduce(shape: ExpressionShape, first: int, last: int) -> bool:
    """Whether these numbers can be computed next, on their own, without changing the value of the whole."""
    low, high = 0, len(shape.signs)
    for group in shape.groups:
        if group == (first, last):
            return True
        if group[0] <= first and last <= group[1]:
            if group[1] - group[0] < high - low:
                low, high = group
        elif not (first <= group[0] and group[1] <= last) and not (group[1] < first or last < group[0]):
            return False
    precedence = min(_PRECEDENCE[shape.signs[index]] for index in _top_level(shape, first, last))
    if first > low:
        left = shape.signs[first - 1]
        # a + b - c may start with b - c, a - b + c may not start with b + c.
        if _PRECEDENCE[left] > precedence or (_PRECEDENCE[left] == precedence and left in "-/"):
            return False
    return not (last < high and _PRECEDENCE[shape.signs[last]] > precedence)
