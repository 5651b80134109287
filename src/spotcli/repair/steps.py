r"""Calculations in a correction that are false although its final answer is right.

    12 + 30 = 43, so \boxed{35}        the step is false

Only what is certain counts: numbers, ``+ - * /`` and one result, alone in its sentence. Other arithmetic (other bases,
remainders, clocks, operations that the problem defines), rounding, units and assumptions are left out.
"""

from __future__ import annotations

import re
from fractions import Fraction

_NUMBER = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?"
_OPERATOR = r"(?:[-+*/−–×·÷]|\\times|\\cdot|\\div)"
_BEFORE = (
    r"(?:^|[.:,;](?=\s)|[=$(]|\\[(\[]|\b(?:so|then|thus|hence|therefore|get|gives|have|is|that|now|first|next|since))"
)
_AFTER = r"(?=\s*(?:$|\.(?!\d)|[;:)$!]|,(?!\d)|\\[)\]]|(?:so|and|then|which|because|as)\b))"
_EQUATION = re.compile(
    rf"{_BEFORE}[^\S\n]*({_NUMBER}(?:[^\S\n]{{0,3}}{_OPERATOR}[^\S\n]{{0,3}}{_NUMBER}){{1,6}})"
    rf"[^\S\n]{{0,3}}=[^\S\n]{{0,3}}({_NUMBER}){_AFTER}",
    re.MULTILINE | re.IGNORECASE,
)
_PART = re.compile(rf"({_NUMBER})|({_OPERATOR})")
_SIGNS = {"−": "-", "–": "-", "×": "*", "·": "*", "÷": "/", "\\times": "*", "\\cdot": "*", "\\div": "/"}

_OTHER_ARITHMETIC = re.compile(
    r"\b(?:mod(?:ulo|ular)?|base|binary|octal|hex\w*|digits?|remainder|clock|congruen\w*|operations?|operators?|defined?|"
    r"defines|hours?|minutes?|weekdays?|months?|angles?|degrees?|matrix|vectors?|cryptarithm\w*|false|incorrect)\b"
    r"|≡|\\equiv|\\p?b?mod|\\oplus|[∗★◦⊕]|\\star|\\circ",
    re.IGNORECASE,
)
"""In a problem or an answer with one of these, ``3 + 4 = 2`` can be right."""
_ASSUMED = re.compile(
    r"\?|≠|\\neq?\b|≈|\\approx|\b(?:not|false|contradict\w*|suppose|assum\w*|if|wrong|incorrect|instead|would|try|guess)\b",
    re.IGNORECASE,
)
"""In a line with one of these, an equation need not be claimed."""

LONGEST = 20
"""Digits of a number that is computed with."""


def false_steps(text: str, known: str = "") -> list[str]:
    """The calculations of a text that are certainly false.

    Args:
        text: a worked solution.
        known: the problem and the student's answer, which can announce other arithmetic.
    """
    if _OTHER_ARITHMETIC.search(known) or _OTHER_ARITHMETIC.search(text):
        return []
    return [
        f"{match[1]} = {match[2]}"
        for line in text.splitlines()
        if "=" in line and not _ASSUMED.search(line)
        for match in _EQUATION.finditer(line)
        if _is_false(match[1], match[2])
    ]


def _is_false(left: str, right: str) -> bool:
    value = _value(left)
    if value is None or len(right) > LONGEST:
        return False
    result = _number(right)
    exact = "." not in left and "/" not in left and "÷" not in left and "\\div" not in left
    decimals = len(right.partition(".")[2])
    return value != result if exact and not decimals else abs(value - result) >= Fraction(1, 10**decimals)


def _value(expression: str) -> Fraction | None:
    """The value of numbers and signs; None if it is divided by zero, or a number is too long."""
    total, product, sign, operator = Fraction(0), Fraction(0), 1, "+"
    for number, written in _PART.findall(expression):
        if written:
            operator = _SIGNS.get(written, written)
            continue
        if len(number) > LONGEST:
            return None
        value = _number(number)
        if operator in "+-":
            total += sign * product
            sign, product = (-1 if operator == "-" else 1), value
        elif operator == "*":
            product *= value
        elif not value:
            return None
        else:
            product /= value
    return total + sign * product


def _number(text: str) -> Fraction:
    return Fraction(text.replace(",", ""))
