"""Points at which formulas are compared, and their values there; only workers import this module."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from typing import Any

import sympy

from spotcli.grading.compare import Undecidable

POSITIVE = [
    [0.7316, 1.2843, 0.4129, 1.7351, 0.9137, 0.5573, 1.4419, 0.3391, 1.1277, 0.6673],
    [2.3171, 0.8713, 1.6197, 0.2939, 3.1771, 1.3367, 0.4733, 2.7157, 0.7919, 1.9391],
    [1.4127, 3.2719, 0.5437, 2.1193, 0.3517, 1.8713, 2.9341, 0.6151, 1.2347, 0.4597],
]
"""Values of the free symbols, none near a zero of the usual functions."""
POINTS = [
    *POSITIVE,
    [-0.7316, -1.2843, 0.4129, -1.7351, -0.9137, 0.5573, -1.4419, 0.3391, -1.1277, 0.6673],
    [1.3127, -0.6719, -2.5437, 1.1193, -1.3517, -0.8713, 0.9341, -1.6151, 2.2347, -0.4597],
    [-2.9171, 1.8713, 3.6197, -2.2939, 0.1771, 2.3367, -3.4733, 1.7157, -0.2919, 0.9391],
    [-3.2171, -2.8713, -1.6197, 4.2939, 2.1771, -1.3367, 2.4733, -2.7157, 3.7919, -2.9391],
]
"""Points with coordinates of both signs, some of which are larger than 2."""
_SCALES = [29, 173, 1201]
_STEPS = (sympy.floor, sympy.ceiling, sympy.frac, sympy.Mod)
_BENDS = (*_STEPS, sympy.Abs, sympy.Max, sympy.Min, sympy.sign, sympy.Piecewise, sympy.Heaviside)
EQUAL = sympy.Float("1e-20")
"""The largest relative difference of equal values."""
DIFFERENT = sympy.Float("1e-9")
"""Values are different from this relative difference on."""
INTEGERS = {"n", "k", "m", "j", "l", "r", "N"}
"""Names of variables that often stand for integers."""
_PARAMETERS = {"n", "k", "m", "j", "l", "c", "C", "K", "a", "b", "A", "B", "t", "d"}
"""Names that people choose freely, as in pi/4 + n pi."""


def points_for(*formulas: Any) -> list[list[float]]:
    """The points at which formulas are compared: first those with positive coordinates, then the others.

    Formulas with bends or steps are also compared far away: |x - 5| is 5 - x at all small points.
    """
    if not any(map(_bends, formulas)) or any(map(_grows_fast, formulas)):
        return POINTS
    far = [[value * scale for value in values] for scale in _SCALES for values in POINTS]
    if any(formula.has(*_STEPS) for formula in formulas):  # floor(x) + 1 and ceiling(x) differ only at integers
        far += [[round(value) for value in values] for values in far]
    return sorted(POINTS + far, key=lambda values: min(values) < 0)


def _bends(formula: Any) -> bool:
    roots = (power.exp.is_Rational and not power.exp.is_Integer for power in formula.atoms(sympy.Pow))
    return bool(formula.has(*_BENDS)) or any(roots)


def _grows_fast(formula: Any) -> bool:
    """Whether the formula takes long to compute at large numbers: sums, and powers in exponents."""
    powers = formula.atoms(sympy.Pow, sympy.exp)
    towers = (power.exp.has(sympy.Pow, sympy.exp) for power in powers if power.exp.free_symbols)
    return bool(formula.has(sympy.Sum, sympy.Product, sympy.Integral)) or any(towers)


def point_of(symbols: Sequence[Any], values: Sequence[float]) -> dict[Any, Any]:
    """The values of symbols at one point, as exact fractions."""
    return {symbol: sympy.Rational(str(value)) for symbol, value in zip(symbols, values, strict=False)}


def number_at(expression: Any, point: dict[Any, Any]) -> Any:
    """The value of an expression at a point: a finite number with 30 digits, or None."""
    value = expression.subs(point)
    try:
        number = sympy.N(value.doit() if hasattr(value, "doit") else value, 30)
    except Exception:
        return None
    if not isinstance(number, sympy.Expr) or not number.is_number:
        return None
    if not all(part.is_Float or part.is_Rational for part in number.as_real_imag()):
        return None
    return None if number.has(sympy.nan, sympy.oo, sympy.zoo) else number


def align(gold: Any, answer: Any, imaginary: bool = False) -> tuple[Any, Any]:
    """Make symbols with the same name equal, whatever the parser assumed about them; ``e`` and ``i`` are constants."""
    plain = {symbol: sympy.Symbol(symbol.name) for formula in (gold, answer) for symbol in formula.free_symbols}
    gold, answer = gold.subs(plain), answer.subs(plain)
    constants = {sympy.Symbol("e"): sympy.E}
    if imaginary or gold.has(sympy.I) or answer.has(sympy.I):
        constants[sympy.Symbol("i")] = sympy.I
    return gold.subs(constants), answer.subs(constants)


def same_numerically(gold: Any, answer: Any, tolerance: float) -> bool | None:
    """True if both agree at every point, False if they differ at a point with positive values, else None.

    Raises:
        Undecidable: they agree at all positive points, but not at negative ones.
    """
    functions = {call for formula in (gold, answer) for call in formula.atoms(sympy.core.function.AppliedUndef)}
    if functions:  # f(x) is treated as a symbol
        names = {call: sympy.Symbol(f"F{index}") for index, call in enumerate(sorted(functions, key=str))}
        gold, answer = gold.xreplace(names), answer.xreplace(names)
    symbols = sorted(gold.free_symbols | answer.free_symbols, key=str)
    if len(symbols) > len(POSITIVE[0]):
        return None
    bounds = _bounds(gold, answer)
    compared = 0
    for row, values in enumerate(points_for(gold, answer) if symbols else POSITIVE[:1]):
        point = _with_bounds(point_of(symbols, values), symbols, bounds, row)
        x, y = (number_at(formula, point) for formula in (gold, answer))
        if (x is None or y is None) and any(symbol.name in INTEGERS for symbol in symbols):
            x, y = (number_at(formula, _integers(symbols, row)) for formula in (gold, answer))  # sums and factorials
        if x is None or y is None:
            continue
        size = max(abs(x), abs(y))
        if size < sympy.Float("1e-25"):
            if not symbols and (gold != 0 and answer != 0):
                return None  # two tiny numbers
            compared += 1
            continue
        gap = abs(x - y) / size
        if gap > max(DIFFERENT if symbols else EQUAL, tolerance):
            if min((value for symbol, value in point.items() if symbol not in bounds), default=1) > 0:
                return False
            if x.is_real and y.is_real:
                raise Undecidable("equal only for positive values")
            continue  # powers of negative numbers have several values
        if gap > max(EQUAL, tolerance):
            return None
        compared += 1
    return True if compared >= (2 if symbols else 1) else None


def _bounds(*formulas: Any) -> set[Any]:
    """The symbols in the bounds of sums and products, which stand for integers."""
    loops = (loop for formula in formulas for loop in formula.atoms(sympy.Sum, sympy.Product))
    return {symbol for loop in loops for limit in loop.limits for bound in limit[1:] for symbol in bound.free_symbols}


def _with_bounds(point: dict[Any, Any], symbols: Sequence[Any], bounds: set[Any], row: int) -> dict[Any, Any]:
    """The point with integers for the symbols in bounds."""
    return point | {symbol: value for symbol, value in _integers(symbols, row).items() if symbol in bounds}


def _integers(symbols: Sequence[Any], row: int) -> dict[Any, Any]:
    return {symbol: sympy.Integer(index + row + 2) for index, symbol in enumerate(symbols)}


def same_for_integers(gold: Any, answer: Any) -> bool:
    """Whether two different formulas agree wherever the variables that may be integers are integers."""
    symbols = sorted(gold.free_symbols | answer.free_symbols, key=str)
    if not any(symbol.name in INTEGERS for symbol in symbols):
        return False
    for row, values in enumerate(POSITIVE + POSITIVE):
        point = point_of(symbols, values[: len(symbols)])
        whole = _integers(symbols, row)
        point |= {symbol: whole[symbol] for symbol in symbols if symbol.name in INTEGERS}
        x, y = number_at(gold, point), number_at(answer, point)
        if x is None or y is None or abs(x - y) > EQUAL * max(abs(x), abs(y), 1):
            return False
    return True


def same_after_renaming(gold: Any, answer: Any) -> bool:
    """Whether two formulas are equal if freely chosen names are exchanged: c_1 and c_2, or n and k."""
    gold_symbols, answer_symbols = gold.free_symbols, answer.free_symbols
    if gold_symbols == answer_symbols:
        chosen = [symbol for symbol in gold_symbols if "_" in symbol.name and symbol.name[0] in "cCAB"]
        chosen = chosen or [symbol for symbol in gold_symbols if symbol.name in ("A", "B", "C", "C1", "C2")]
        old = sorted(chosen, key=str)
        orders = list(permutations(old))[1:] if 1 < len(old) <= 3 else []
    else:
        old = sorted(answer_symbols - gold_symbols, key=str)
        new = sorted(gold_symbols - answer_symbols, key=str)
        if len(old) != len(new) or len(old) > 2 or not all(symbol.name[0] in _PARAMETERS for symbol in old + new):
            return False
        orders = list(permutations(new))
    return any(
        same_numerically(gold, answer.subs(dict(zip(old, order, strict=True)), simultaneous=True), 0.0)
        for order in orders
    )
