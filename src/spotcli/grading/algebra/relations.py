"""Comparing equations and inequalities by their values and their zeros; only workers import this module.

A difference is proved by one point at which the two disagree. Points have positive and negative coordinates, because
|x| > 2 and x > 2 agree at positive ones.
"""

from __future__ import annotations

from typing import Any

import sympy

from spotcli.grading.algebra.points import DIFFERENT, EQUAL, POINTS, align, number_at, point_of, points_for

_KINDS = {sympy.StrictLessThan: -1, sympy.LessThan: -2, sympy.StrictGreaterThan: 1, sympy.GreaterThan: 2}


def same_relations(gold: Any, answer: Any) -> bool | None:
    """Whether two equations have the same zeros, or two inequalities the same solutions; None if that is open."""
    left, right = align(gold.lhs - gold.rhs, answer.lhs - answer.rhs)
    gold_kind, answer_kind = _KINDS.get(type(gold), 0), _KINDS.get(type(answer), 0)
    if isinstance(gold, sympy.Ne) != isinstance(answer, sympy.Ne) or bool(gold_kind) != bool(answer_kind):
        return None
    symbols = sorted(left.free_symbols | right.free_symbols, key=str)
    if not symbols or len(symbols) > 10:
        return None
    if (ratio := _constant_ratio(left, right, symbols)) is not None:
        if abs(gold_kind) != abs(answer_kind):
            return False
        return not gold_kind or (ratio > 0) == (gold_kind * answer_kind > 0)
    if not gold_kind:
        return _same_zeros(left, right, symbols)
    if len(symbols) == 1:
        return _same_solutions(gold, answer)
    if abs(gold_kind) != abs(answer_kind):
        return None
    return False if _truths_differ(left * gold_kind, right * answer_kind, symbols) else None


def _constant_ratio(left: Any, right: Any, symbols: list[Any]) -> Any:
    """The ratio of two expressions if it is the same at all points; else None."""
    ratios = []
    for values in points_for(left, right):
        point = point_of(symbols, values)
        x, y = number_at(left, point), number_at(right, point)
        if x is None and y is None:
            continue
        if x is None or y is None or x == 0 or y == 0:
            return None
        ratios.append(x / y)
    if len(ratios) < 3 or any(abs(ratio / ratios[0] - 1) >= EQUAL for ratio in ratios):
        return None
    return ratios[0]


def _truths_differ(left: Any, right: Any, symbols: list[Any]) -> bool:
    """Whether one of left > 0 and right > 0 is true at a point and the other is not."""
    for values in points_for(left, right):
        point = point_of(symbols, values)
        x, y = number_at(left, point), number_at(right, point)
        if x is None or y is None or not x.is_real or not y.is_real or abs(x) < DIFFERENT or abs(y) < DIFFERENT:
            continue
        if (x > 0) != (y > 0):
            return True
    return False


def _same_solutions(gold: Any, answer: Any) -> bool | None:
    """Compare the solutions of two inequalities with one variable."""
    solutions = [
        sympy.solveset(relation, next(iter(relation.free_symbols)), sympy.S.Reals) for relation in (gold, answer)
    ]
    return same_sets(*solutions)


def same_sets(gold: Any, answer: Any) -> bool | None:
    """Whether two sets are equal; None where sympy cannot decide it."""
    try:
        if gold == answer:
            return True
        difference = gold.symmetric_difference(answer)
        if difference.is_empty is not None:
            return bool(difference.is_empty)
        return difference == sympy.S.EmptySet or None
    except Exception:
        return None


def _same_zeros(left: Any, right: Any, symbols: list[Any]) -> bool | None:
    """Whether both have the same real zeros in every variable, at all points of the other variables."""
    if left.free_symbols != right.free_symbols:  # (x-1)(y-2) = 0 has more solutions than x = 1
        return False if _ignores_no_symbol(left, right) else None
    shared = 0
    for unknown in symbols:
        for values in POINTS[::2]:
            point = point_of([symbol for symbol in symbols if symbol != unknown], values)
            same = _same_zeros_of(left.subs(point), right.subs(point), unknown)
            if same is False:
                return False
            shared += same is True
    return True if shared >= len(symbols) else None


def _ignores_no_symbol(left: Any, right: Any) -> bool:
    """Whether the values of both expressions depend on all of their symbols."""
    for expression in (left, right):
        symbols = sorted(expression.free_symbols, key=str)
        base = number_at(expression, point_of(symbols, POINTS[0]))
        for index, _ in enumerate(symbols):
            values = [*POINTS[0]]
            values[index] = POINTS[1][index]
            changed = number_at(expression, point_of(symbols, values))
            if base is None or changed is None or abs(base - changed) < DIFFERENT:
                return False
    return True


def _same_zeros_of(left: Any, right: Any, unknown: Any) -> bool | None:
    """Whether two expressions of one variable have the same real zeros; None if there are none or they are unknown."""
    zeros_of_both = 0
    for solved, checked in ((left, right), (right, left)):
        zeros = [zero for zero in sympy.solve(solved, unknown) if zero.is_real]
        for zero in zeros:
            value = number_at(checked, {unknown: zero})
            if value is None:
                return None
            if abs(value) > DIFFERENT:
                return False
        zeros_of_both += len(zeros)
    return True if zeros_of_both >= 2 else None
