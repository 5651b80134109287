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

from spotcli.grading.algebra.function_arguments import readings, with_arguments
from spotcli.grading.algebra.points import align, same_after_renaming, same_for_integers, same_numerically
from spotcli.grading.algebra.relations import same_relations, same_sets
from spotcli.grading.compare import Undecidable
from spotcli.grading.compare.exact_numbers import ExactNumber, NotANumber, read_number
from spotcli.grading.compare.leaves import ROUNDED
from spotcli.grading.compare.number_equality import TOLERANCE, same_number

# Units are handled in ``compare``: math-verify reads "e ." as a unit.
_NORMALIZE = NormalizationConfig(basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none")
_CASE_SENSITIVE = ConversionConfig(lowercase_symbols=False)
_UNREAD = re.compile(
    r"\\(?:partial|ldots|det|nabla|angle|pmod)(?![A-Za-z])|\\begin\s*\{[vV]matrix\}"
    r"|\\frac\s*\{\s*d|\w'|!!|\\(?:gcd|lcm)\s*\([^)]*[A-Za-z]|[A-Z]\s*\^\s*(?:\{\s*T\s*\}|T)"
    r"|(?<![\w.^_])\d++ +\d++(?!\s*/)|\d\.\d+\.\d|^(?!.*\\int).*(?<![A-Za-z\\])d ?[txy]\s*$"
)
"""Notation that the parser misreads: derivatives and transposes as products, ``1 2`` as a sum, gcd(a, b) as 1."""
_UNIT_VECTOR = re.compile(
    r"\\(?:text|hat|vec)\s*\{\s*\\?(?:text\{)?([ijk])\s*\}?\}|\\(?:hat|vec)\s*([ijk])(?![A-Za-z])"
)
_POWER_T = re.compile(r"\^\s*(?:\{\s*T\s*\}|T)")
_LETTER_D = re.compile(r"(?<![A-Za-z\\])d(?=\s*\\[A-Za-z]|\s+[A-Za-z])")
_UNIT_I = re.compile(r"(?<![A-Za-z\\_])i(?![A-Za-z_])")
_LOG = re.compile(r"\\log(?![a-zA-Z])(?!\s*_)")
_SUBSCRIPTED = {"E": r"\Xi", "e": r"\xi", "i": r"\iota"}
"""latex2sympy reads these letters as constants, which take no index; E_{1} is replaced by another letter."""
_CURRENT = re.compile(r"(?<![A-Za-z\\])I(?![A-Za-z])")
_GREEK = [
    (re.compile(r"\\gamma(?![A-Za-z])"), r"\\varrho "),
    (re.compile(r"\\Gamma(?![A-Za-z])(?!\s*\()"), r"\\varpi "),
]
"""The parser reads these letters as the Gamma function, and ``\\gamma + 1`` as its value at 1."""
_DEGREE = re.compile(r"(\d+(?:\.\d+)?)\s*\^\\circ")
_DEGREES = re.compile(
    r"(\\(?:sin|cos|tan|cot|sec|csc)\s*(?:\^\s*\{?\d\}?)?)\s*[({]?\s*(\d+(?:\.\d+)?)\s*\^\\circ\s*[)}]?"
)


class Sympy:
    """Implements ``equality.Symbolic``."""

    def expression(self, gold: str, answer: str) -> bool | None:
        _refuse_unread(gold, answer)
        if ("\\circ" in gold + answer and "^{-1}" in gold + answer) or "\\arc" in gold + answer:
            gold, answer = (_DEGREE.sub(r"(\1\\cdot\\frac{\\pi}{180})", text) for text in (gold, answer))
        pairs = [(g, a) for g in readings(gold) for a in readings(answer)]
        results = {self._with_logarithms(g, a) for g, a in pairs}
        if len(results) > 1:
            raise Undecidable("the formula can be read in two ways")
        same = results.pop()
        if same is False:
            first = with_arguments(gold), with_arguments(answer)
            narrow = (with_arguments(gold, "narrow"), first[1]), (first[0], with_arguments(answer, "narrow"))
            if any(self._with_logarithms(*pair) for pair in narrow if pair != first):
                raise Undecidable("the formula can be read in two ways")
        return same

    def _with_logarithms(self, gold: str, answer: str) -> bool | None:
        same = self._expression(gold, answer)
        if same is not True and _LOG.search(gold + answer):  # \log may be natural or decimal
            with_ln = self._expression(_LOG.sub(r"\\ln", gold), _LOG.sub(r"\\ln", answer))
            return True if with_ln else (same if same == with_ln else None)
        return same

    def _expression(self, gold: str, answer: str) -> bool | None:
        complex_ = bool(should_treat_as_complex(gold + " " + answer) or _UNIT_I.search(gold + " " + answer))
        if not complex_:
            gold, answer = _without_i(gold), _without_i(answer)
        g, a = _read(gold, complex_), _read(answer, complex_)
        if g is None or a is None:
            return None
        if isinstance(g, sympy.Set) and isinstance(a, sympy.Set):
            return same_sets(g, a)
        if not isinstance(g, sympy.Expr) or not isinstance(a, sympy.Expr):
            return True if _math_verify(g, a) else None
        g, a = align(g, a, imaginary=complex_ and "\\sum" not in gold + answer)
        if not g.free_symbols and not a.free_symbols:
            x, y = _real(gold, g), _real(answer, a)
            if x is not None and y is not None:
                same = same_number(x, y)
                if same is None and (x.rounded or y.rounded):
                    raise Undecidable(ROUNDED)
                return same
        rounded = bool(g.atoms(sympy.Float) or a.atoms(sympy.Float) or re.search(r"\d\.\d", gold + answer))
        same = same_numerically(g, a, TOLERANCE if rounded else 0.0)
        if same is False:
            _forgive(g, a)
        return same if same is not None else (True if _math_verify(g, a) else None)

    def relation(self, gold: str, answer: str) -> bool | None:
        _refuse_unread(gold, answer)
        if not _UNIT_I.search(gold + " " + answer):
            gold, answer = _without_i(gold), _without_i(answer)
        g, a = _read(with_arguments(gold)), _read(with_arguments(answer))
        if isinstance(g, sympy.core.relational.Relational) and isinstance(a, sympy.core.relational.Relational):
            try:
                same = same_relations(g, a)
            except (TypeError, ValueError, NotImplementedError, AttributeError):
                same = None
            if same is not None:
                return same
        return True if g is not None and a is not None and _math_verify(g, a) else None


def _without_i(latex: str) -> str:
    """The formula with another letter for I, which the parser reads as the imaginary unit without its powers."""
    return _CURRENT.sub(r"\\varsigma ", latex)


def _refuse_unread(*texts: str) -> None:
    """Raises Undecidable where the parser would read a text as something else."""
    for text in texts:
        if unread := _UNREAD.search(text):
            raise Undecidable(f"{unread[0]} cannot be read in a formula")


def _forgive(g: Any, a: Any) -> None:
    """Raises Undecidable where two different formulas are equal in a way that a text cannot rule out."""
    if _differ_in_case(g, a):
        raise Undecidable("equal only if upper and lower case are the same")
    if same_for_integers(g, a):
        raise Undecidable("equal only for integers")
    if same_after_renaming(g, a):
        raise Undecidable("equal only after renaming variables")


def _differ_in_case(g: Any, a: Any) -> bool:
    """Whether two expressions are equal when all symbols are lower case."""
    if g.free_symbols == a.free_symbols:
        return False
    lower = {symbol: sympy.Symbol(symbol.name.lower()) for symbol in g.free_symbols | a.free_symbols}
    return bool(same_numerically(g.subs(lower), a.subs(lower), 0.0))


def _read(latex: str, complex_: bool = False) -> Any:
    """The sympy object of a LaTeX text, or None. No text is evaluated as code: latex2sympy has its own grammar."""
    if re.search(r"\\text\s*\{[^{}]*[a-z]{3,}", latex):
        latex = re.sub(r"\\text\s*\{[^{}]*\}\s*(?:\^\s*\{?\d\}?)?\s*$", "", latex)
    latex = _UNIT_VECTOR.sub(lambda vector: f"{{\\Upsilon_{{{'ijk'.index(vector[1] or vector[2])}}}}}", latex)
    latex = re.sub(r"\\text\s*\{\s*([A-Za-z])\s*\}", r"{\1}", latex)
    latex = re.sub(r"\\cr(?![a-z])", r"\\\\", latex).replace("\\reals", "\\mathbb{R}")
    latex = re.sub(r"(?<![A-Za-z\\])([Eei])_", lambda m: _SUBSCRIPTED[m[1]] + "_", latex)
    latex = _POWER_T.sub(r"^{\\vartheta}", latex)  # the parser drops T as the sign of a transpose
    if "\\int" not in latex:
        latex = _LETTER_D.sub("{d}", latex)  # no differential
    for letter, name in _GREEK:
        latex = letter.sub(name, latex)
    latex = re.sub(r"(\w)!\s*\^", r"(\1!)^", latex)
    latex = _DEGREES.sub(r"\1(\2\\cdot\\frac{\\pi}{180})", latex).replace("^\\circ", "")
    try:
        normal = normalize_latex(latex, _NORMALIZE)
        formula = latex2sympy(
            normal,
            is_real=not complex_ and not should_treat_as_complex(normal),
            convert_degrees=False,
            normalization_config=None,
            conversion_config=_CASE_SENSITIVE,
        )
        return None if formula.has(sympy.zoo, sympy.nan) else formula
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
