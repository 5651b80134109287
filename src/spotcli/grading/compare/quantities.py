r"""Quantities: a number with its unit: ``12\text{ cm}``, ``\$3.5\text{ million}``, ``50\%``, ``5 ft 6 in``."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction

from spotcli.grading.compare import Undecidable
from spotcli.grading.compare.exact_numbers import PI, ExactNumber, NotANumber, TooLarge, read_number
from spotcli.grading.compare.units import Unit, is_unit, read_unit
from spotcli.grading.compare.words import changing_words, factor_of
from spotcli.grading.latex import canonical


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number with its unit."""

    number: ExactNumber
    unit_text: str = ""
    unit: Unit | None = None
    percent: bool = False
    variable: bool = False
    """The unit is a single letter, which may also be a variable."""
    bare: ExactNumber | None = None
    """The number without a word that multiplies it: 3 for ``3 million``."""
    changing: str = ""
    """Words that change the number: ``or more``."""


_CURRENCY = re.compile(r"\\(?:USD|EUR|GBP|YEN|INR|KRW)(?![A-Za-z])|(?<![A-Za-z\\])Rs\.?(?=\s*\d)")
_UNIT_START = re.compile(
    r"\\text\s*\{|(?<![A-Za-z\\])(?!(?<=\d)[eE][+-]?\d)[A-Za-z]|\^\\circ|(?:(?<=\d)|(?<=[\d}] )){\s*(?=\\?[A-Za-z])"
)
_SUM = re.compile(r"(?<=[\w})!])(?<![\d.][eE])\s*(?:[+-]|\\pm|\\mp)")
_SENTENCE = re.compile(r"\\text\s*\{[^{}]*(?:\bis|:|=|are)\s*\}\s*(?=\S)")
_LEADING_WORD = re.compile(r"\s*((?:\\text\s*\{\s*)?)([A-Za-z]{3,})\b\s*")


def read_quantity(text: str, trust: bool = False) -> Quantity | None:
    """The number and the unit of a leaf, or None.

    ``trust``: the text is a reference, in which more words may follow the number.

    Raises:
        TooLarge: the number cannot be computed.
    """
    text = _SENTENCE.sub("", text.strip(), count=1).removeprefix("\\approx").strip()
    currency = ""
    if symbol := _CURRENCY.search(text):
        currency = symbol[0].lstrip("\\").rstrip(".")
        text = (text[: symbol.start()] + text[symbol.end() :]).strip()
    text = text.removesuffix("^\\circ") + " \\text{degree}" if text.endswith("^\\circ") else text
    percent = text.endswith("%")
    if number := _number(text.rstrip("% ") if percent else text):
        return Quantity(number, currency, _unit(currency), percent)
    if compound := read_compound(text):
        return compound
    unit_start = _UNIT_START.search(text)
    if not unit_start or unit_start.start() == 0:
        return None
    value, unit = text[: unit_start.start()].strip().removesuffix("\\").strip(), text[unit_start.start() :].strip()
    percent = value.endswith("%")  # 20% of the total
    number = _number(value.rstrip("% "))
    if not number:
        return None
    if "_" in unit and not is_unit(re.sub(r"\\text|[{\s]", "", unit.partition("}")[0])):  # 2H_2O
        return None
    if unit.startswith("{") and unit.endswith("}"):
        unit = unit[1:-1].strip()
    if _SUM.search(value) and not _follows_sum(unit):
        return None
    full, unit = _multiplied(number, unit)
    bare = number if full is not number else None
    if changing := changing_words(unit):
        return Quantity(full, currency, changing=changing)
    if bare and not re.search("[A-Za-z]", unit.replace("\\text", "")):
        return Quantity(full, currency, _unit(currency), percent, bare=bare)
    return _with_unit(Quantity(full, currency, percent=percent, bare=bare), unit, max_words=8 if trust else 5)


def _follows_sum(unit: str) -> bool:
    r"""Whether a text after a sum can be the unit of all of it: ``1+\sqrt{2} cm``, but not ``2+3i``."""
    word = re.match(r"[A-Za-z]{2,}", unit)
    return unit.startswith("\\text") or bool(word and (is_unit(word[0]) or word[0] in ("unit", "units")))


def _number(text: str) -> ExactNumber | None:
    try:
        return read_number(text)
    except TooLarge:
        raise
    except NotANumber:
        return None


def _multiplied(number: ExactNumber, unit: str) -> tuple[ExactNumber, str]:
    """The number times the words after it, such as ``million``, and the rest of the unit."""
    while (word := _LEADING_WORD.match(unit)) and (factor := factor_of(word[2])):
        number = scaled(number, factor)
        unit = word[1] + unit[word.end() :]
    return number, unit


def _with_unit(quantity: Quantity, unit: str, max_words: int) -> Quantity | None:
    unit = unit.replace("^\\circ", "degree ", 1) if unit.startswith("^\\circ") else unit
    bare = re.fullmatch(r"[A-Za-z]+", unit)
    if not _may_be_unit(unit, max_words):
        return None
    read = (_unit(quantity.unit_text) if quantity.unit_text else None) or read_unit(unit)
    if bare and len(unit) == 1 and not read:  # 3a, whose letter is also an article
        return None
    name = quantity.unit_text or (canonical(unit) if read else "")
    return replace(quantity, unit_text=name, unit=read, variable=bool(bare and len(unit) == 1))


_NO_UNIT = re.compile(
    r"[+=<>|!]|(?<![\^_])(?<![\^_]\{)(?<!\^-)(?<!\^\{-)(?<!\d)\d|(?<![A-Za-z^{])-|-(?![A-Za-z\d])"
    r"|(?<![A-Za-z])[A-Za-z]-|-[A-Za-z](?![A-Za-z])"
)
"""Signs of a formula: operators and numbers that are no powers. ``part-time`` has no minus sign."""


_LETTER = re.compile(r"(?<![A-Za-z\\])([A-Za-z])(?![A-Za-z])((?<!m)\s*\^\s*\{?\s*\d)?")
"""A letter by itself, and its power; areas and volumes are powers of metres."""


def _may_be_unit(text: str, max_words: int) -> bool:
    """Whether a text after a number may be its unit: words, or a product of known units."""
    if _NO_UNIT.search(re.sub(r"\s+", "", text)):
        return False  # 3 s^2 + 1
    plain = re.sub(r"\\text\s*\{[^{}]*\}", " ", text)
    if "/" not in plain and any(letter[2] or not is_unit(letter[1]) for letter in _LETTER.finditer(plain)):
        return len(text) == 1  # 3 s^2, 3 h k
    bare = re.fullmatch(r"[A-Za-z]+", text)
    words = re.fullmatch(r"[A-Za-z]{3,}[A-Za-z ]*", text)
    if not bare and not words and not text.startswith("\\text") and not is_unit(re.split(r"[\s/^\\]", text)[0]):
        return False  # 2x^2
    if len(re.findall(r"[A-Za-z]+", text.replace("\\text", ""))) > max_words:
        return False  # a sentence
    return not (bare and len(text) == 2 and not is_unit(text))  # 2xy


# --- several units: 5 ft 6 in, 1 hour 20 minutes, 30 degrees 15' ---

_PART = re.compile(
    r"\s*(?:,|\+|and\b|\\text\s*\{\s*,?\s*and\s*\})?\s*(\d+(?:\.\d+)?|\\frac\{\d+\}\{\d+\})\s*"
    r"(\\text\s*\{\s*[A-Za-z]+\.?\s*(?:,|\band)?\s*\}|[A-Za-z]+|\^\\circ|'{1,2})\.?"
)
_PART_UNITS = {"^\\circ": "degree", "'": "arcminute", "''": "arcsecond", "in": "inch"}


def read_compound(text: str) -> Quantity | None:
    """The sum of quantities in ever smaller units of one kind, in the first unit; else None."""
    total, first, last = Fraction(0), None, None
    position, count = 0, 0
    while part := _PART.match(text, position):
        word = re.sub(r"\\text|[{}\s,.]", "", part[2])
        word = word.removesuffix("and") if part[2].startswith("\\text") else word
        word = _PART_UNITS.get(part[2], _PART_UNITS.get(word, word))
        unit, number = read_unit(word), _number(part[1])
        if not unit or not unit.known or not number or not isinstance(number.value, Fraction):
            return None
        if last and (unit.powers != last.powers or unit.scale >= last.scale):
            return None
        first = first or unit
        total += number.value * unit.scale / first.scale
        last, position, count = unit, part.end(), count + 1
    if count < 2 or position < len(text.rstrip()) or first is None:
        return None
    return Quantity(ExactNumber(total), text, first)


# --- arithmetic on quantities ---


def scaled(number: ExactNumber, factor: Fraction) -> ExactNumber:
    """The number times a factor."""
    value = number.value
    product = value * factor if isinstance(value, Fraction) else value * factor.numerator / factor.denominator
    return ExactNumber(product, rounded=number.rounded)


def is_angle(unit: Unit) -> bool:
    """Whether a unit measures angles."""
    return unit.powers in ((("degree", 1),), (("rad", 1),))


def in_radians(quantity: Quantity) -> ExactNumber:
    """The number of an angle in radians."""
    if quantity.unit and quantity.unit.powers == (("degree", 1),):
        value = quantity.number.value
        decimal = value if isinstance(value, Decimal) else Decimal(value.numerator) / Decimal(value.denominator)
        return ExactNumber(decimal * PI / 180, rounded=True)
    return quantity.number


def _unit(currency: str) -> Unit | None:
    return read_unit(currency) if currency else None


_UNIT_AFTER = re.compile(r"(.*?\S)\s*((?:[/\s]*\\text\s*\{[^{}]*\}(?:\s*\^\s*\{?-?\d\}?)?)+)", re.DOTALL)


_UNIT_VECTOR = re.compile(r"\\text\s*\{\s*[ijk]\s*\}|\\(?:hat|vec)")
_ELEMENT = re.compile(r"\\text\s*\{\s*[A-Z][a-z]?\s*\}\s*_|_\{?\d+\}?$")
"""A part of a chemical formula."""


def without_units(gold: str, answer: str) -> tuple[str, str]:
    """Two formulas without the units after them.

    Raises:
        Undecidable: the units differ, or words that are no units follow a formula.
    """
    if _UNIT_VECTOR.search(gold) or _UNIT_VECTOR.search(answer):
        return gold, answer
    gold_match, answer_match = _UNIT_AFTER.fullmatch(gold), _UNIT_AFTER.fullmatch(answer)
    gold_words = changing_words(gold_match[2]) if gold_match else ""
    answer_words = changing_words(answer_match[2]) if answer_match else ""
    if gold_words != answer_words:
        raise Undecidable(f"the words '{answer_words or gold_words}' may change the value")
    if any(match and _ELEMENT.search(match[1]) for match in (gold_match, answer_match)):
        return gold, answer
    if gold_match and answer_match:
        gold_unit, answer_unit = read_unit(gold_match[2]), read_unit(answer_match[2])
        same = not gold_unit or not answer_unit or gold_unit.is_same(answer_unit)
        if not same:
            raise Undecidable("different units")
    return (gold_match[1] if gold_match else gold), (answer_match[1] if answer_match else answer)
