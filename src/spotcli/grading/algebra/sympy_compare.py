"""Comparing formulas with sympy and math-verify. Only workers import this module: it takes half a second and can hang.

The verdict of math-verify alone is not used: it returns False for what it cannot read, rounds to six decimal places,
and ignores units. Two formulas are different only where they differ *numerically* (or two sets have a symmetric
difference). They are equal where they agree numerically at every sample point, or where math-verify proves it.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

import sympy
from latex2sympy2_extended.latex2sympy2 import ConversionConfig, latex2sympy
from latex2sympy2_extended.math_normalization import NormalizationConfig, normalize_latex
from math_verify import verify
from math_verify.grader import should_treat_as_complex

from spotcli.grading.compare import Undecidable
from spotcli.grading.compare.exact_numbers import TOLERANCE, ExactNumber, NotANumber, read_number, same_number
from spotcli.grading.compare.leaves import ROUNDED

# Units are handled in ``compare``: math-verify reads "e ." as a unit.
_NORMALIZE = NormalizationConfig(basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none")
_CASE_SENSITIVE = ConversionConfig(lowercase_symbols=False)
_SAMPLES = [
    [0.7316, 1.2843, 0.4129, 1.7351, 0.9137, 0.5573, 1.4419, 0.3391, 1.1277, 0.6673],
    [2.3171, 0.8713, 1.6197, 0.2939, 3.1771, 1.3367, 0.4733, 2.7157, 0.7919, 1.9391],
    [1.4127, 3.2719, 0.5437, 2.1193, 0.3517, 1.8713, 2.9341, 0.6151, 1.2347, 0.4597],
]
"""Values of the free symbols, none near a zero of the usual functions."""
_NEGATIVE = [-0.7316, -1.2843, 0.4129, -1.7351, -0.9137, 0.5573, -1.4419, 0.3391, -1.1277, 0.6673]
_EQUAL = sympy.Float("1e-20")
"""The largest relative difference of equal values."""
_DIFFERENT = sympy.Float("1e-9")
"""Values are different from this relative difference on."""
_UNIT_I = re.compile(r"(?<![A-Za-z\\_])i(?![A-Za-z_])")
_LOG = re.compile(r"\\log(?![a-zA-Z])(?!\s*_)")
_SUBSCRIPTED = {"E": r"\Xi", "e": r"\xi", "i": r"\iota"}
"""latex2sympy reads these letters as constants, which take no index; E_{1} is replaced by another letter."""
_DEGREES = re.compile(
    r"(\\(?:sin|cos|tan|cot|sec|csc)\s*(?:\^\s*\{?\d\}?)?)\s*[({]?\s*(\d+(?:\.\d+)?)\s*\^\\circ\s*[)}]?"
)


class Sympy:
    """Implements ``equality.Symbolic``."""

    def expression(self, gold: str, answer: str) -> bool | None:
        same = self._expression(gold, answer)
        if same is not True and _LOG.search(gold + answer):  # \log may be natural or decimal
            with_ln = self._expression(_LOG.sub(r"\\ln", gold), _LOG.sub(r"\\ln", answer))
            return True if with_ln else (same if same == with_ln else None)
        return same

    def _expression(self, gold: str, answer: str) -> bool | None:
        complex_ = bool(should_treat_as_complex(gold + " " + answer) or _UNIT_I.search(gold + " " + answer))
        g, a = _read(gold, complex_), _read(answer, complex_)
        if g is None or a is None:
            return None
        if isinstance(g, sympy.Set) and isinstance(a, sympy.Set):
            return _same_sets(g, a)
        if not isinstance(g, sympy.Expr) or not isinstance(a, sympy.Expr):
            return True if _math_verify(g, a) else None
        g, a = _align(g, a, imaginary=complex_ and "\\sum" not in gold + answer)
        if not g.free_symbols and not a.free_symbols:
            x, y = _real(gold, g), _real(answer, a)
            if x is not None and y is not None:
                same = same_number(x, y)
                if same is None and (x.rounded or y.rounded):
                    raise Undecidable(ROUNDED)
                return same
        rounded = bool(g.atoms(sympy.Float) or a.atoms(sympy.Float) or re.search(r"\d\.\d", gold + answer))
        same = _same_numerically(g, a, TOLERANCE if rounded else 0.0)
        if same is False and _differ_in_case(g, a):
            raise Undecidable("equal only if upper and lower case are the same")
        return same if same is not None else (True if _math_verify(g, a) else None)

    def relation(self, gold: str, answer: str) -> bool | None:
        g, a = _read(gold), _read(answer)
        if isinstance(g, sympy.core.relational.Relational) and isinstance(a, sympy.core.relational.Relational):
            try:
                same = _same_relations(g, a)
            except (TypeError, ValueError, NotImplementedError, AttributeError):
                same = None
            if same is not None:
                return same
        return True if g is not None and a is not None and _math_verify(g, a) else None


def _differ_in_case(g: Any, a: Any) -> bool:
    """Whether two expressions are equal when all symbols are lower case."""
    if g.free_symbols == a.free_symbols:
        return False
    lower = {symbol: sympy.Symbol(symbol.name.lower()) for symbol in g.free_symbols | a.free_symbols}
    return bool(_same_numerically(g.subs(lower), a.subs(lower), 0.0))


def _read(latex: str, complex_: bool = False) -> Any:
    """The sympy object of a LaTeX text, or None. No text is evaluated as code: latex2sympy has its own grammar."""
    if re.search(r"\\text\s*\{[^{}]*[a-z]{3,}", latex):
        latex = re.sub(r"\\text\s*\{[^{}]*\}\s*(?:\^\s*\{?\d\}?)?\s*$", "", latex)
    latex = re.sub(r"\\text\s*\{\s*([A-Za-z])\s*\}", r"{\1}", latex)
    latex = re.sub(r"\\cr(?![a-z])", r"\\\\", latex)
    latex = re.sub(r"(?<![A-Za-z\\])([Eei])_", lambda m: _SUBSCRIPTED[m[1]] + "_", latex)
    latex = _DEGREES.sub(r"\1(\2\\cdot\\frac{\\pi}{180})", latex).replace("^\\circ", "")
    try:
        normal = normalize_latex(latex, _NORMALIZE)
        return latex2sympy(
            normal,
            is_real=not complex_ and not should_treat_as_complex(normal),
            convert_degrees=False,
            normalization_config=None,
            conversion_config=_CASE_SENSITIVE,
        )
    except Exception:  # the parser raises plain Exceptions in many places
        return None


def _math_verify(gold: Any, answer: Any) -> bool:
    """Whether math-verify proves two parsed formulas equal.

    Its own parser is not used, because it extracts only the part of a text that it understands. Its time-outs are off,
    because this process has its own.
    """
    try:
        return bool(verify(gold, answer, timeout_seconds=None))
    except Exception:
        return False


def _number(value: Any) -> Any:
    """A finite sympy number with 30 digits, or None."""
    try:
        number = sympy.N(value.doit() if hasattr(value, "doit") else value, 30)
    except Exception:
        return None
    if not isinstance(number, sympy.Expr) or not number.is_number:
        return None
    if not all(part.is_Float or part.is_Rational for part in number.as_real_imag()):
        return None
    return None if number.has(sympy.nan, sympy.oo, sympy.zoo) else number


def _real(text: str, expression: Any) -> ExactNumber | None:
    """The real number of an expression without symbols, with more digits than any comparison needs."""
    try:
        return read_number(text)
    except NotANumber:
        pass
    try:
        value = sympy.N(expression.doit(), 70)
    except Exception:
        return None
    if not isinstance(value, sympy.Float) or abs(value) < sympy.Float("1e-50"):
        return None  # complex, infinite, or zero after cancellation
    return ExactNumber(Decimal(str(value)), rounded=bool(re.search(r"\d\.\d", text)))


def _align(g: Any, a: Any, imaginary: bool = False) -> tuple[Any, Any]:
    """Make symbols with the same name equal, whatever the parser assumed about them; ``e`` and ``i`` are constants."""
    plain = {s: sympy.Symbol(s.name) for e in (g, a) for s in e.free_symbols}
    g, a = g.subs(plain), a.subs(plain)
    constants = {sympy.Symbol("e"): sympy.E}
    if imaginary or g.has(sympy.I) or a.has(sympy.I):
        constants[sympy.Symbol("i")] = sympy.I
    return g.subs(constants), a.subs(constants)


def _same_numerically(g: Any, a: Any, tolerance: float) -> bool | None:
    """True if both agree at every sample point, False if they differ at a point with positive values, else None."""
    functions = {f for e in (g, a) for f in e.atoms(sympy.core.function.AppliedUndef)}
    if functions:  # f(x) is treated as a symbol
        names = {f: sympy.Symbol(f"F{i}") for i, f in enumerate(sorted(functions, key=str))}
        g, a = g.xreplace(names), a.xreplace(names)
    symbols = sorted(g.free_symbols | a.free_symbols, key=str)
    if len(symbols) > len(_SAMPLES[0]):
        return None
    compared = 0
    for row, sample in enumerate([*_SAMPLES, _NEGATIVE] if symbols else _SAMPLES[:1]):
        point = {s: sympy.Rational(str(v)) for s, v in zip(symbols, sample, strict=False)}
        x, y = _number(g.subs(point)), _number(a.subs(point))
        if x is None or y is None:
            if symbols and any(s.name in ("n", "k", "m") for s in symbols):
                point = {s: sympy.Integer(i + row + 2) for i, s in enumerate(symbols)}  # sums and factorials
                x, y = _number(g.subs(point)), _number(a.subs(point))
            if x is None or y is None:
                continue
        size = max(abs(x), abs(y))
        if size < sympy.Float("1e-25"):
            if not symbols and (g != 0 and a != 0):
                return None  # two tiny numbers
            compared += 1
            continue
        gap = abs(x - y) / size
        if gap > max(_DIFFERENT if symbols else _EQUAL, tolerance):
            return False if row < len(_SAMPLES) else None
        if gap > max(_EQUAL, tolerance):
            return None
        compared += 1
    return True if compared >= (2 if symbols else 1) else None


def _same_sets(g: Any, a: Any) -> bool | None:
    try:
        if g == a:
            return True
        difference = g.symmetric_difference(a)
        if difference.is_empty is not None:
            return bool(difference.is_empty)
        return difference == sympy.S.EmptySet or None
    except Exception:
        return None


def _same_relations(g: Any, a: Any) -> bool | None:
    """Compare equations by their zeros, and inequalities by their difference up to a positive factor."""
    left, right = _align(g.lhs - g.rhs, a.lhs - a.rhs)
    kinds = {sympy.StrictLessThan: -1, sympy.LessThan: -2, sympy.StrictGreaterThan: 1, sympy.GreaterThan: 2}
    kind_g, kind_a = kinds.get(type(g), 0), kinds.get(type(a), 0)
    if abs(kind_g) != abs(kind_a):
        return False if kind_g and kind_a else None
    symbols = sorted(left.free_symbols | right.free_symbols, key=str)
    if not symbols or len(symbols) > 10:
        return None
    ratios = []
    for sample in _SAMPLES:
        point = {s: sympy.Rational(str(v)) for s, v in zip(symbols, sample, strict=False)}
        x, y = _number(left.subs(point)), _number(right.subs(point))
        if x is None or y is None or y == 0 or x == 0:
            return None
        ratios.append(x / y)
    if all(abs(r / ratios[0] - 1) < _EQUAL for r in ratios):
        if isinstance(g, sympy.Ne) != isinstance(a, sympy.Ne):
            return False
        return True if not kind_g else bool((ratios[0] > 0) == (kind_g * kind_a > 0))
    if kind_g:
        if len(symbols) == 1:
            solutions = [sympy.solveset(e, next(iter(e.free_symbols)), sympy.S.Reals) for e in (g, a)]
            return _same_sets(*solutions)
        return None
    return _same_zeros(left, right, symbols)


def _same_zeros(left: Any, right: Any, symbols: list[Any]) -> bool | None:
    """Whether both have the same real zeros, for sample values of all symbols but one."""
    for unknown in symbols:
        point = {s: sympy.Rational(str(v)) for s, v in zip(symbols, _SAMPLES[0], strict=False) if s != unknown}
        for solved, checked in ((left, right), (right, left)):
            if unknown not in solved.free_symbols:
                return False if unknown in checked.free_symbols else None
            zeros = [z for z in sympy.solve(solved.subs(point), unknown) if z.is_real]
            for zero in zeros:
                value = _number(checked.subs(point).subs(unknown, zero))
                if value is None:
                    return None
                if abs(value) > _DIFFERENT:
                    return False
            if zeros and solved is right:
                return True
    return None
