"""Comparing the leaves of an answer: numbers with units, words, and numbers in other bases.

``same_leaves`` decides what arithmetic and tables can decide; formulas are left to sympy.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction

from spotcli.grading.compare import Undecidable
from spotcli.grading.compare.bases import same_in_bases
from spotcli.grading.compare.exact_numbers import NotANumber, TooLarge, read_number
from spotcli.grading.compare.number_equality import same_number, within_last_place
from spotcli.grading.compare.quantities import Quantity, in_radians, is_angle, read_quantity, scaled
from spotcli.grading.compare.units import Unit, conversions, is_unit
from spotcli.grading.compare.words import comparable_words, same_words, same_words_and_number


def same_leaves(gold: str, answer: str) -> bool | None:
    """Compare two texts without structure: numbers with units, or words. None for formulas.

    Raises:
        Undecidable: the comparison depends on what is not stated, such as a unit, or a number is too large.
    """
    if (same_letter := _same_letters(gold, answer)) is not None:
        return same_letter
    if (same_based := same_in_bases(gold, answer)) is not None:
        return same_based
    for dotted, other in ((gold, answer), (answer, gold)):
        if number := _DOTTED.fullmatch(dotted):
            return _differs_from_dotted(number[1], other)
    try:
        gold_quantity, answer_quantity = read_quantity(gold, trust=True), read_quantity(answer)
    except TooLarge as error:
        raise Undecidable("number too large to compare") from error
    if gold_quantity and answer_quantity:
        return _same_quantities(gold_quantity, answer_quantity)
    if (same_infinity := _same_infinities(gold, answer)) is not None:
        return same_infinity
    if "\\emptyset" in (gold.strip(), answer.strip()) and (gold_quantity or answer_quantity):
        return False
    gold_words, answer_words = comparable_words(gold), comparable_words(answer)
    if gold_words and answer_words:
        return same_words(gold_words, answer_words)
    words, quantity = gold_words or answer_words, gold_quantity or answer_quantity
    if quantity and (same_count := _same_count(gold if quantity is answer_quantity else answer, quantity)) is not None:
        return same_count
    if quantity and _ROMAN.fullmatch(gold if quantity is answer_quantity else answer):
        raise Undecidable("a Roman number")
    return same_words_and_number(words, quantity.number) if words and quantity else None


_ROMAN = re.compile(r"[IVXLCDM]{2,}")
_ONE_LETTER = re.compile(r"\\text\s*\{\s*([A-Za-z])\s*\}|([A-Za-z])")


def _same_letters(gold: str, answer: str) -> bool | None:
    gold_match, answer_match = _ONE_LETTER.fullmatch(gold), _ONE_LETTER.fullmatch(answer)
    if not gold_match or not answer_match:
        return None
    gold_letter, answer_letter = gold_match[1] or gold_match[2], answer_match[1] or answer_match[2]
    if gold_letter != answer_letter and gold_letter.lower() == answer_letter.lower():
        raise Undecidable("the same letter in upper and lower case")
    return gold_letter == answer_letter


# --- quantities ---


def same_numbers(gold: str, answer: str) -> bool:
    """Compare two plain numbers.

    Raises:
        Undecidable: one of them is a rounding of the other.
    """
    return _decided(same_number(read_number(gold), read_number(answer)))


def _same_quantities(gold: Quantity, answer: Quantity) -> bool | None:
    if gold.changing != answer.changing:
        raise Undecidable(f"the words '{answer.changing or gold.changing}' may change the number")
    same = same_number(gold.number, answer.number)
    if not same and (gold.bare or answer.bare):
        if same_number(gold.bare or gold.number, answer.bare or answer.number):
            raise Undecidable("equal only without the word that multiplies one number")
        return _decided(same)
    if gold.percent != answer.percent:  # 50% equals 0.5 and, where the question asked for a percentage, 50
        percent, other = (gold, answer) if gold.percent else (answer, gold)
        return _decided(same) or same_number(scaled(percent.number, Fraction(1, 100)), other.number)
    if gold.unit_text == answer.unit_text:
        return _decided(same)
    if gold.unit and answer.unit:
        return _same_with_units(gold, gold.unit, answer, answer.unit)
    if gold.unit:
        if same and gold.variable and is_unit(gold.unit_text):  # 0.64N: newtons or a variable
            raise Undecidable(f"'{gold.unit_text}' is missing, and may be a unit or a variable")
        return _same_with_one_unit(same, gold, gold.unit, answer)
    if answer.unit:
        return _same_with_one_unit(same, answer, answer.unit, gold)
    return _decided(same)


_TEMPERATURES = ((("celsius", 1),), (("fahrenheit", 1),), (("kelvin", 1),))


def _same_with_units(gold: Quantity, gold_unit: Unit, answer: Quantity, answer_unit: Unit) -> bool:
    if gold_unit.powers == answer_unit.powers:
        return _decided(same_number(scaled(gold.number, gold_unit.scale), scaled(answer.number, answer_unit.scale)))
    if is_angle(gold_unit) and is_angle(answer_unit):
        return _decided(same_number(in_radians(gold), in_radians(answer)))
    scales = (*_TEMPERATURES, (("degree", 1),))
    if gold_unit.powers in scales and answer_unit.powers in scales:
        raise Undecidable("different scales of temperature")
    if same_number(gold.number, answer.number) and not (gold_unit.known and answer_unit.known):
        raise Undecidable("different units")
    return False


_SHORT_FACTORS = {"k": 10**3, "K": 10**3, "m": 10**6, "M": 10**6, "B": 10**9}
"""Letters that may stand for a factor: 3.5M."""


def _same_with_one_unit(same: bool | None, with_unit: Quantity, unit: Unit, without: Quantity) -> bool:
    """A missing unit is forgiven, unless the numbers are equal only in another unit.

    ``same``: whether the numbers are equal.
    """
    if with_unit.variable:
        factor = _SHORT_FACTORS.get(with_unit.unit_text)
        if factor and same_number(scaled(with_unit.number, Fraction(factor)), without.number):
            raise Undecidable(f"'{with_unit.unit_text}' may be a factor or a variable")
        if with_unit.number.value == 0 and without.number.value == 0:
            raise Undecidable("zero with and without a variable")
        return is_unit(with_unit.unit_text) and _decided(same)  # 5x is not 5
    if same is False:
        if is_angle(unit) and not isinstance(without.number.value, Fraction):
            return _decided(same_number(in_radians(with_unit), without.number))
        if any(same_number(scaled(with_unit.number, factor), without.number) for factor in conversions(unit)):
            raise Undecidable("equal only in another unit, and one of the two numbers has no unit")
    return _decided(same)


def _decided(same: bool | None) -> bool:
    if same is None:
        raise Undecidable(ROUNDED)
    return same


ROUNDED = "equal only after rounding to fewer digits than the tolerance requires"
"""Why two numbers are neither equal nor different."""


# --- other notations of numbers ---

_DOTTED = re.compile(r"([+-]?\d+\.\d+)\s*\\ldots")


def _differs_from_dotted(digits: str, other: str) -> bool | None:
    r"""False where ``1.41421\ldots`` differs from a number by more than its last place; None for formulas."""
    try:
        number = read_number(_DOTTED.sub(r"\1", other))
    except NotANumber:
        return None
    if within_last_place(read_number(digits), number):
        raise Undecidable(ROUNDED)
    return False


_COUNT = re.compile(
    r"\{?\}?(?:\^\s*\{?(\d+)\}?|_\s*\{?(\d+)\}?)?\s*(?:\\text\s*\{\s*)?([CPA])\s*\}?\s*"
    r"(?:_\s*\{?(\d+)\}?\s*\^\s*\{?(\d+)\}?|\^\s*\{?(\d+)\}?\s*_\s*\{?(\d+)\}?|_\s*\{?(\d+)\}?|\((\d+),\s*(\d+)\))"
    r"|(\d+)\s*([CP])\s*(\d+)|n([CP])r\s*\((\d+),\s*(\d+)\)"
)
r"""Numbers of combinations and permutations: ``C_5^2``, ``{}^5C_2``, ``C(5,2)``, ``5C2``, ``nCr(5,2)``, ``P_5^2``."""


def _same_count(text: str, quantity: Quantity) -> bool | None:
    """Whether combinations or permutations, in a notation without a fixed order, give a number.

    Raises:
        Undecidable: they do not, but the notation may mean something else.
    """
    count = _COUNT.fullmatch(text.strip())
    if not count:
        return None
    numbers = sorted((int(group) for group in count.groups() if group and group.isdigit()), reverse=True)
    kind = count[3] or count[12] or count[14]
    if len(numbers) == 2 and numbers[0] <= 1000:
        value = math.comb(*numbers) if kind == "C" else math.perm(*numbers)
        if quantity.number.value == value:
            return True
    raise Undecidable("the notation of a number of combinations has several meanings")


def _same_infinities(gold: str, answer: str) -> bool | None:
    """Compare two texts of which one is an infinity; None for other texts, and for words, such as "unbounded"."""
    gold_sign, answer_sign = _infinity(gold), _infinity(answer)
    if gold_sign and answer_sign:
        return gold_sign == answer_sign
    other = answer if gold_sign else gold
    if (gold_sign or answer_sign) and "\\infty" not in other and not comparable_words(other):
        return False
    return None


def _infinity(text: str) -> str | None:
    """The sign of an infinity, or None."""
    infinity = re.fullmatch(r"\+?\s*(-?)\s*\\infty", text.strip())
    return (infinity[1] or "+") if infinity else None


_FORMULA = re.compile(
    r"(?=.*[0-9+*/^-])(?!.*(?:\\text|\\math|\\in|\\set|\\cap|\\emptyset|\\begin|\\reals|\\langle|\\hat|\\vec|\\{|\|"
    r"|[^\W\d_]{4}(?<!frac)(?<!sqrt)))"
)


def is_scalar(text: str) -> bool:
    """Whether a leaf is a single number or formula, which never equals a tuple, set or matrix of several members."""
    try:
        if quantity := read_quantity(text):
            return not quantity.changing
    except TooLarge:
        return True
    return bool(_FORMULA.match(re.sub(r"\\(?:frac|sqrt|cdot|times|left|right)", " ", text)))
