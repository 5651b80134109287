"""Whether two numbers are equal: exactly, to a tolerance, or only after rounding."""

from __future__ import annotations

from decimal import Decimal, localcontext
from fractions import Fraction

from spotcli.grading.compare.exact_numbers import ExactNumber, decimal_of, exact_context

TOLERANCE = 1e-6
"""Relative, for numbers of which at least one has a decimal point or an exponent; all others must be equal exactly."""
_EXACT_TOLERANCE = Fraction(TOLERANCE).limit_denominator(10**15)


def same_number(gold: ExactNumber, answer: ExactNumber) -> bool | None:
    """Whether two numbers are equal: exactly, or to ``TOLERANCE`` where one has a decimal point or an exponent.

    None where this is open: one number is a correct rounding of the other to at least two digits, but to fewer digits
    than the tolerance requires; or the two are too close to tell them apart.
    """
    a, b = gold.value, answer.value
    rounded = gold.rounded or answer.rounded
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        if a == b or (rounded and abs(a - b) <= _EXACT_TOLERANCE * abs(a)):
            return True
        return None if _rounds_to(gold, answer) or _rounds_to(answer, gold) else False
    with localcontext(exact_context()):
        x, y = decimal_of(a), decimal_of(b)
        size = max(abs(x), abs(y))
        if size == 0:
            return None
        gap = abs(x - y) / size
    if rounded:
        if gap <= Decimal(str(TOLERANCE)):
            return True
        return None if _rounds_to(gold, answer) or _rounds_to(answer, gold) else False
    if abs(size.adjusted()) > 60:  # the digits do not prove that numbers of this size are equal
        return False if gap > Decimal("1e-40") and size.adjusted() > 60 else None
    return gap < Decimal("1e-50")


def _rounds_to(rounded: ExactNumber, other: ExactNumber) -> bool:
    """Whether ``rounded`` is ``other`` rounded to as many places."""
    if rounded.places is None or rounded.digits < 2 or abs(rounded.places) > 60:
        return False
    with localcontext(exact_context()):
        half_step = Decimal(10) ** -rounded.places / 2
        return abs(decimal_of(rounded.value) - decimal_of(other.value)) <= half_step


def within_last_place(truncated: ExactNumber, other: ExactNumber) -> bool:
    """Whether a number differs from a truncated decimal by no more than one unit of its last place."""
    with localcontext(exact_context()):
        gap = abs(decimal_of(truncated.value) - decimal_of(other.value))
        return gap <= Decimal(10) ** -(truncated.places or 0)
