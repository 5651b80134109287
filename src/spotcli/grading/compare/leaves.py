"""Comparing the leaves of an answer: numbers with units, words, and numbers in other bases.

``same_leaves`` decides what arithmetic and tables can decide; formulas are left to sympy.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from spotcli.grading.compare import Undecidable
from spotcli.grading.compare.exact_numbers import PI, ExactNumber, NotANumber, TooLarge, read_number, same_number
from spotcli.grading.compare.units import Unit, conversions, is_unit, read_unit
from spotcli.grading.latex import canonical


def same_leaves(gold: str, answer: str) -> bool | None:
    """Compare two texts without structure: numbers with units, or words. None for formulas.

    Raises:
        Undecidable: the comparison depends on what is not stated, such as a unit, or a number is too large.
    """
    if (same_letter := _same_letters(gold, answer)) is not None:
        return same_letter
    if (same_in_bases := _same_in_bases(gold, answer)) is not None:
        return same_in_bases
    try:
        gold_quantity, answer_quantity = read_quantity(gold, trust=True), read_quantity(answer)
    except TooLarge as error:
        raise Undecidable("number too large to compare") from error
    if gold_quantity and answer_quantity:
        return _same_quantities(gold_quantity, answer_quantity)
    gold_infinity, answer_infinity = _infinity(gold), _infinity(answer)
    if gold_infinity and answer_infinity:
        return gold_infinity == answer_infinity
    if (gold_infinity or answer_infinity) and (gold_quantity or answer_quantity):
        return False
    gold_words, answer_words = _words(gold), _words(answer)
    if gold_words and answer_words:
        return _same_words(gold_words, answer_words)
    words, quantity = gold_words or answer_words, gold_quantity or answer_quantity
    return _same_words_and_number(words, quantity.number) if words and quantity else None


def _same_letters(gold: str, answer: str) -> bool | None:
    gold_match, answer_match = _ONE_LETTER.fullmatch(gold), _ONE_LETTER.fullmatch(answer)
    if not gold_match or not answer_match:
        return None
    gold_letter, answer_letter = gold_match[1] or gold_match[2], answer_match[1] or answer_match[2]
    if gold_letter != answer_letter and gold_letter.lower() == answer_letter.lower():
        raise Undecidable("the same letter in upper and lower case")
    return gold_letter == answer_letter


def _same_words_and_number(words: str, number: ExactNumber) -> bool | None:
    if words in _NUMBER_WORDS:
        return number.value == _NUMBER_WORDS.index(words)
    if words in _NO_VALUE:
        return False
    if " " not in words and len(words) > 2:
        if words in _COUNTING_WORDS:
            raise Undecidable("a word compared with a number")
        return False
    return None


def _same_in_bases(gold: str, answer: str) -> bool | None:
    gold_match, answer_match = _BASED.fullmatch(gold), _BASED.fullmatch(answer)
    if gold_match and answer_match:
        gold_base, answer_base = _base(gold_match[2]), _base(answer_match[2])
        if gold_base == answer_base:
            return _digits(gold_match[1]) == _digits(answer_match[1])
        if _in_base(gold_match[1], gold_base) == _in_base(answer_match[1], answer_base):
            raise Undecidable("the same number in different bases")
        return False
    if gold_match:
        return _differs_from_based(gold_match, answer)
    return _differs_from_based(answer_match, gold) if answer_match else None


def _differs_from_based(based: re.Match[str], plain: str) -> bool | None:
    """False where a number without a base differs from one with a base; None where it is not an integer."""
    if not re.fullmatch(r"\d+", plain):
        return None
    if _digits(plain) == _digits(based[1]) or int(plain[:4000]) == _in_base(based[1], _base(based[2])):
        raise Undecidable("only one of the two numbers states its base")
    return False


def _same_quantities(gold: Quantity, answer: Quantity) -> bool | None:
    same = same_number(gold.number, answer.number)
    if gold.percent != answer.percent:  # 50% equals 0.5 and, where the question asked for a percentage, 50
        percent, other = (gold, answer) if gold.percent else (answer, gold)
        return _decided(same) or same_number(_scaled(percent.number, Fraction(1, 100)), other.number)
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


def _same_with_units(gold: Quantity, gold_unit: Unit, answer: Quantity, answer_unit: Unit) -> bool:
    if gold_unit.powers == answer_unit.powers:
        return _decided(same_number(_scaled(gold.number, gold_unit.scale), _scaled(answer.number, answer_unit.scale)))
    if _is_angle(gold_unit) and _is_angle(answer_unit):
        return _decided(same_number(_in_radians(gold), _in_radians(answer)))
    if same_number(gold.number, answer.number) and not (gold_unit.known and answer_unit.known):
        raise Undecidable("different units")
    return False


def _same_with_one_unit(same: bool | None, with_unit: Quantity, unit: Unit, without: Quantity) -> bool:
    """A missing unit is forgiven, unless the numbers are equal only in another unit.

    ``same``: whether the numbers are equal.
    """
    if with_unit.variable:
        return is_unit(with_unit.unit_text) and _decided(same)  # 5x is not 5
    if same is False:
        if _is_angle(unit) and not isinstance(without.number.value, Fraction):
            return _decided(same_number(_in_radians(with_unit), without.number))
        if any(same_number(_scaled(with_unit.number, factor), without.number) for factor in conversions(unit)):
            raise Undecidable("equal only in another unit, and one of the two numbers has no unit")
    return _decided(same)


def _decided(same: bool | None) -> bool:
    if same is None:
        raise Undecidable(ROUNDED)
    return same


ROUNDED = "equal only after rounding to fewer digits than the tolerance requires"
"""Why two numbers are neither equal nor different."""


# --- quantities ---


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number with its unit."""

    number: ExactNumber
    unit_text: str = ""
    unit: Unit | None = None
    percent: bool = False
    variable: bool = False
    """The unit is a single letter, which may also be a variable."""


_CURRENCY = re.compile(r"\\(?:USD|EUR|GBP|YEN)(?![A-Za-z])")
_UNIT_START = re.compile(r"\\text\s*\{|(?<![A-Za-z\\])[A-Za-z]|\^\\circ")
_SENTENCE = re.compile(r"\\text\s*\{[^{}]*(?:\bis|:|=|are)\s*\}\s*(?=\S)")


def read_quantity(text: str, trust: bool = False) -> Quantity | None:
    """The number and the unit of a leaf, or None.

    ``trust``: the text is a reference, in which more words may follow the number.

    Raises:
        TooLarge: the number cannot be computed.
    """
    text = _SENTENCE.sub("", text.strip(), count=1).removeprefix("\\approx").strip()
    currency = ""
    if symbol := _CURRENCY.search(text):
        currency = symbol[0][1:]
        text = (text[: symbol.start()] + text[symbol.end() :]).strip()
    text = text.removesuffix("^\\circ") + " \\text{degree}" if text.endswith("^\\circ") else text
    percent = text.endswith("%")
    try:
        return Quantity(read_number(text.rstrip("% ") if percent else text), currency, _unit(currency), percent)
    except TooLarge:
        raise
    except NotANumber:
        pass
    unit_start = _UNIT_START.search(text)
    if not unit_start or unit_start.start() == 0:
        return None
    value, unit = text[: unit_start.start()].strip().removesuffix("\\").strip(), text[unit_start.start() :].strip()
    unit = unit.replace("^\\circ", "degree ", 1) if unit.startswith("^\\circ") else unit
    percent = value.endswith("%")  # 20% of the total
    bare = re.fullmatch(r"[A-Za-z]+", unit)
    if not _may_be_unit(unit, max_words=8 if trust else 5):
        return None
    try:
        number = read_number(value.rstrip("% "))
    except TooLarge:
        raise
    except NotANumber:
        return None
    read = _unit(currency) or read_unit(unit)
    name = currency or (canonical(unit) if read else "")
    return Quantity(number, name, read, percent, variable=bool(bare and len(unit) == 1))


def _may_be_unit(text: str, max_words: int) -> bool:
    """Whether a text after a number may be its unit: words, or a product of known units."""
    bare = re.fullmatch(r"[A-Za-z]+", text)
    words = re.fullmatch(r"[A-Za-z]{3,}[A-Za-z ]*", text)
    if not bare and not words and not text.startswith("\\text") and not is_unit(re.split(r"[\s/^]", text)[0]):
        return False  # 2x^2
    if len(re.findall(r"[A-Za-z]+", text.replace("\\text", ""))) > max_words:
        return False  # a sentence
    return not (bare and len(text) == 2 and not is_unit(text))  # 2xy


_UNIT_AFTER = re.compile(r"(.*?\S)\s*((?:[/\s]*\\text\s*\{[^{}]*\}(?:\s*\^\s*\{?-?\d\}?)?)+)", re.DOTALL)


def without_units(gold: str, answer: str) -> tuple[str, str]:
    """Two formulas without the units after them.

    Raises:
        Undecidable: the units differ.
    """
    gold_match, answer_match = _UNIT_AFTER.fullmatch(gold), _UNIT_AFTER.fullmatch(answer)
    if gold_match and answer_match:
        gold_unit, answer_unit = read_unit(gold_match[2]), read_unit(answer_match[2])
        same = not gold_unit or not answer_unit or gold_unit.is_same(answer_unit)
        if not same:
            raise Undecidable("different units")
    return (gold_match[1] if gold_match else gold), (answer_match[1] if answer_match else answer)


def _unit(currency: str) -> Unit | None:
    return read_unit(currency) if currency else None


def _scaled(number: ExactNumber, factor: Fraction) -> ExactNumber:
    value = number.value
    scaled = value * factor if isinstance(value, Fraction) else value * factor.numerator / factor.denominator
    return ExactNumber(scaled, rounded=number.rounded)


def _is_angle(unit: Unit) -> bool:
    return unit.powers in ((("degree", 1),), (("rad", 1),))


def _in_radians(quantity: Quantity) -> ExactNumber:
    if quantity.unit and quantity.unit.powers == (("degree", 1),):
        value = quantity.number.value
        decimal = value if isinstance(value, Decimal) else Decimal(value.numerator) / Decimal(value.denominator)
        return ExactNumber(decimal * PI / 180, rounded=True)
    return quantity.number


def _infinity(text: str) -> str | None:
    """The sign of an infinity, or None."""
    infinity = re.fullmatch(r"\+?\s*(-?)\s*\\infty", text.strip())
    return (infinity[1] or "+") if infinity else None


# --- words ---

PROSE = re.compile(r"(?<![A-Za-z\\])[A-Za-z]{4,}")
"""Words outside of commands."""
_ONE_LETTER = re.compile(r"\\text\s*\{\s*([A-Za-z])\s*\}|([A-Za-z])")
_NUMBER_WORDS = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
]  # fmt: skip
_COUNTING_WORDS = {
    "half", "quarter", "third", "dozen", "both", "once", "twice", "double", "triple", "pair", "single", "all",
    "many", "infinite", "infinitely", "hundred", "thousand", "million", "unity", "zeros", "nil", "square",
}  # fmt: skip
_NO_VALUE = {
    "no solution", "no solutions", "no real solutions", "none", "undefined", "does not exist", "dne",
    "impossible",
}  # fmt: skip
_SAME_WORDS = [{"yes", "true"}, {"no", "false"}, _NO_VALUE - {"undefined", "does not exist", "dne"}]
_FUNCTIONS = {
    "sin", "cos", "tan", "cot", "sec", "csc", "log", "exp", "sqrt", "max", "min", "gcd", "lcm", "arcsin",
    "arccos", "arctan", "mod",
}  # fmt: skip


def _words(text: str) -> str | None:
    r"""The words of a leaf that is text, not a formula: ``\text{Evelyn}``, ``even``, ``no solution``."""
    inner = re.sub(r"\\text\s*\{([^{}]*)\}", r" \1 ", text)
    inner = " ".join(inner.replace("{", " ").replace("}", " ").split()).strip(" .\"'`*").lower()
    if not re.fullmatch(r"[^\W\d_][^\W\d_'\u2019 -]*(?: [^\W\d_'\u2019.,-]+)*", inner) or len(inner) < 2:
        return None
    if "\\text" not in text and ((len(inner) < 3 and inner not in ("no", "up")) or inner in _FUNCTIONS):
        return None
    return re.sub(r"^(?:the|a|an) ", "", inner)


def _same_words(gold: str, answer: str) -> bool:
    gold_letters, answer_letters = re.sub(r"[\s'\u2019-]", "", gold), re.sub(r"[\s'\u2019-]", "", answer)
    if gold_letters == answer_letters or any(gold in group and answer in group for group in _SAME_WORDS):
        return True
    if sorted(gold_letters) == sorted(answer_letters):  # abc and cab may be products
        raise Undecidable("the same letters in a different order")
    short = len(gold.split()) <= 2 and len(answer.split()) <= 2
    if short and not set(gold.split()) & set(answer.split()):
        return False
    raise Undecidable("different words")


# --- bases ---

_BASED = re.compile(
    r"(-?[0-9A-Fa-f]+)\s*_\s*(\{\s*(?:\\text\s*\{)?\s*(?:base)?\s*\w+\s*\}?\s*\}|\d+|\\text\s*\{\s*\w+\s*\})"
)
_BASE_WORDS = {word: number for number, word in enumerate(_NUMBER_WORDS)}


def _base(text: str) -> int | str:
    inner = re.sub(r"\\text|[{}\s]|base", "", text).lower()
    return int(inner) if inner.isdigit() else _BASE_WORDS.get(inner, inner)


def _digits(text: str) -> str:
    return text.replace(" ", "").upper().lstrip("0") or "0"


def _in_base(digits: str, base: int | str) -> int | None:
    try:
        return int(digits, base) if isinstance(base, int) and 2 <= base <= 36 and len(digits) < 300 else None
    except ValueError:
        return None


_FORMULA = re.compile(
    r"(?=.*[0-9+*/^-])(?!.*(?:\\text|\\math|\\in|\\set|\\cap|\\emptyset|\\begin|\\{|\||[^\W\d_]{4}(?<!frac)(?<!sqrt)))"
)


def is_scalar(text: str) -> bool:
    """Whether a leaf is a single number or formula, which never equals a tuple, set or matrix of several members."""
    try:
        if read_quantity(text):
            return True
    except TooLarge:
        return True
    return bool(_FORMULA.match(re.sub(r"\\(?:frac|sqrt|cdot|times|left|right)", " ", text)))
