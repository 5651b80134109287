"""The leaves of an answer: numbers with units, words, choice letters, numbers in other bases.

``same_leaves`` settles what arithmetic and tables can settle, and leaves expressions to sympy.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Literal

from spotcli.grading.compare.exact_numbers import PI, NotANumber, Number, TooLarge, read_number, same_number
from spotcli.grading.compare.units import Unit, conversions, is_unit, read_unit
from spotcli.grading.find_answer import Undecidable
from spotcli.grading.latex import canonical


@dataclass(frozen=True, slots=True)
class Rules:
    """What counts as equal.

    ``tolerance``: relative, for numbers of which at least one is written with a decimal point or an exponent;
    integers, fractions and surds must agree exactly. ``ordered_lists``: whether ``1, 2`` differs from ``2,
    1`` (tuples always do, sets never). ``units``: "compare" (a missing unit is forgiven, another unit is not)
    or "ignore".
    """

    tolerance: float = 1e-6
    ordered_lists: bool = False
    units: Literal["compare", "ignore"] = "compare"


def same_leaves(gold: str, answer: str, rules: Rules) -> bool | None:
    """Two texts without structure: numbers with units, words, or expressions."""
    letter_g, letter_a = _ONE_LETTER.fullmatch(gold), _ONE_LETTER.fullmatch(answer)
    if letter_g and letter_a:
        one, other = letter_g[1] or letter_g[2], letter_a[1] or letter_a[2]
        if one != other and one.lower() == other.lower():
            raise Undecidable("the same letter in another case")
        return one == other
    if (based := _same_in_bases(gold, answer)) is not None:
        return based
    try:
        g, a = read_quantity(gold, trust=True), read_quantity(answer)
    except TooLarge as error:
        raise Undecidable("a number too large to compare") from error
    if g and a:
        return _same_quantities(g, a, rules)
    infinite_g, infinite_a = _infinite(gold), _infinite(answer)
    if infinite_g or infinite_a:
        if infinite_g and infinite_a:
            return infinite_g == infinite_a
        if g or a:
            return False
    text_g, text_a = _words(gold), _words(answer)
    if text_g and text_a:
        return _same_words(text_g, text_a)
    words, quantity = text_g or text_a, g or a
    if words and quantity:
        return _words_and_number(words, quantity.number)
    return None


def _words_and_number(words: str, number: Number) -> bool | None:
    if words in _NUMBER_WORDS:
        return number.value == _NUMBER_WORDS.index(words)
    if words in _NO_VALUE:
        return False
    if " " not in words and len(words) > 2:
        if words in _COUNTING_WORDS:
            raise Undecidable("a word beside a number")
        return False
    return None


def _same_in_bases(gold: str, answer: str) -> bool | None:
    g, a = _BASED.fullmatch(gold), _BASED.fullmatch(answer)
    if not g and not a:
        return None
    if g and a:
        base_g, base_a = _base(g[2]), _base(a[2])
        if base_g == base_a:
            return _digits(g[1]) == _digits(a[1])
        same_value = _in_base(g[1], base_g) == _in_base(a[1], base_a)
        if same_value:
            raise Undecidable("the same number in another base")
        return False
    based, plain = (g, answer) if g else (a, gold)
    assert based is not None
    digits = re.fullmatch(r"\d+", plain)
    if digits and (_digits(plain) == _digits(based[1]) or int(plain[:4000]) == _in_base(based[1], _base(based[2]))):
        raise Undecidable("only one of the two names its base")
    return False if digits else None


def _same_quantities(gold: Quantity, answer: Quantity, rules: Rules) -> bool | None:
    tolerance = rules.tolerance
    same = same_number(gold.number, answer.number, tolerance)
    if gold.percent != answer.percent:  # 50% answers 0.5 and, where per cent was asked for, 50
        percent, other = (gold, answer) if gold.percent else (answer, gold)
        share = _scaled(percent.number, Fraction(1, 100))
        return same or same_number(share, other.number, tolerance) if same is not None else _settled(same)
    if rules.units == "ignore" or gold.unit_text == answer.unit_text:
        return _settled(same)
    g, a = gold.unit, answer.unit
    if g and a:
        if g.powers == a.powers:
            converted = same_number(_scaled(gold.number, g.scale), _scaled(answer.number, a.scale), tolerance)
            return _settled(converted)
        if _is_angle(g) and _is_angle(a):
            return _settled(same_number(_in_radians(gold), _in_radians(answer), tolerance))
        if same and not (g.known and a.known):
            raise Undecidable("other units")
        return False
    if g or a:
        with_unit, without = (gold, answer) if g else (answer, gold)
        unit = g or a
        assert unit is not None
        if with_unit.variable:  # 0.64N: a unit or a variable
            if not is_unit(with_unit.unit_text):
                return False  # 5x is not 5
            if same and g:
                raise Undecidable(f"'{with_unit.unit_text}' is missing, a unit or a variable")
            return _settled(same)
        if same is False:
            if _is_angle(unit) and not isinstance(without.number.value, Fraction):
                radians = same_number(_in_radians(with_unit), without.number, tolerance)
                return _settled(radians)
            for factor in conversions(unit):
                if same_number(_scaled(with_unit.number, factor), without.number, tolerance):
                    raise Undecidable("equal only in another unit, and one of the two names none")
    return _settled(same)


def _settled(same: bool | None) -> bool:
    if same is None:
        raise Undecidable("equal only after rounding to fewer digits than the tolerance asks")
    return same


# --- quantities, words, bases ---


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number with its unit. ``variable``: the unit is one bare letter, which may be a variable as well."""

    number: Number
    unit_text: str = ""
    unit: Unit | None = None
    percent: bool = False
    variable: bool = False


_CURRENCY = re.compile(r"\\(?:USD|EUR|GBP|YEN)(?![A-Za-z])")
_UNIT_START = re.compile(r"\\text\s*\{|(?<![A-Za-z\\])[A-Za-z]|\^\\circ")
_SENTENCE = re.compile(r"\\text\s*\{[^{}]*(?:\bis|:|=|are)\s*\}\s*(?=\S)")


def read_quantity(text: str, trust: bool = False) -> Quantity | None:
    """The number and unit of a leaf, or None. ``trust``: a reference, in which any words may follow the
    number."""
    text = _SENTENCE.sub("", text.strip(), count=1).removeprefix("\\approx").strip()
    currency = ""
    if found := _CURRENCY.search(text):
        currency = found[0][1:]
        text = (text[: found.start()] + text[found.end() :]).strip()
    text = text.removesuffix("^\\circ") + " \\text{degree}" if text.endswith("^\\circ") else text
    percent = text.endswith("%")
    try:
        return Quantity(read_number(text.rstrip("% ") if percent else text), currency, _unit(currency), percent)
    except TooLarge:
        raise
    except NotANumber:
        pass
    found = _UNIT_START.search(text)
    if not found or found.start() == 0:
        return None
    value, unit = text[: found.start()].strip().removesuffix("\\").strip(), text[found.start() :].strip()
    unit = unit.replace("^\\circ", "degree ", 1) if unit.startswith("^\\circ") else unit
    percent = value.endswith("%")  # 20% of the total
    bare = re.fullmatch(r"[A-Za-z]+", unit)
    if (
        not unit.startswith("\\text")
        and not bare
        and not is_unit(re.split(r"[\s/^]", unit)[0])
        and not re.fullmatch(r"[A-Za-z]{3,}[A-Za-z ]*", unit)
    ):
        return None  # 2x^2
    if len(re.findall(r"[A-Za-z]+", unit.replace("\\text", ""))) > (8 if trust else 5):
        return None  # a sentence
    if bare and len(unit) == 2 and not is_unit(unit):
        return None  # 2xy
    try:
        number = read_number(value.rstrip("% "))
    except TooLarge:
        raise
    except NotANumber:
        return None
    read = _unit(currency) or read_unit(unit)
    name = currency or (canonical(unit) if read else "")
    return Quantity(number, name, read, percent, variable=bool(bare and len(unit) == 1))


_UNIT_AFTER = re.compile(r"(.*?\S)\s*((?:[/\s]*\\text\s*\{[^{}]*\}(?:\s*\^\s*\{?-?\d\}?)?)+)", re.DOTALL)


def without_units(gold: str, answer: str, rules: Rules) -> tuple[str, str]:
    """Two expressions without the units behind them; raises Undecidable where those differ."""
    g, a = _UNIT_AFTER.fullmatch(gold), _UNIT_AFTER.fullmatch(answer)
    if g and a and rules.units == "compare":
        unit_g, unit_a = read_unit(g[2]), read_unit(a[2])
        if unit_g and unit_a and (unit_g.scale, unit_g.powers) != (unit_a.scale, unit_a.powers):
            raise Undecidable("other units")
    return (g[1] if g else gold), (a[1] if a else answer)


def _unit(currency: str) -> Unit | None:
    return read_unit(currency) if currency else None


def _scaled(number: Number, factor: Fraction) -> Number:
    value = number.value
    scaled = value * factor if isinstance(value, Fraction) else value * factor.numerator / factor.denominator
    return Number(scaled, rounded=number.rounded)


def _is_angle(unit: Unit) -> bool:
    return unit.powers in ((("degree", 1),), (("rad", 1),))


def _in_radians(quantity: Quantity) -> Number:
    if quantity.unit and quantity.unit.powers == (("degree", 1),):
        value = quantity.number.value
        decimal = value if isinstance(value, Decimal) else Decimal(value.numerator) / Decimal(value.denominator)
        return Number(decimal * PI / 180, rounded=quantity.number.rounded or True)
    return quantity.number


def _infinite(text: str) -> str | None:
    found = re.fullmatch(r"\+?\s*(-?)\s*\\infty", text.strip())
    return (found[1] or "+") if found else None


PROSE = re.compile(r"(?<![A-Za-z\\])[A-Za-z]{4,}")  # words outside of commands
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
    """The words of a leaf that is text and no formula: ``\\text{Evelyn}``, ``even``, ``no solution``."""
    inner = re.sub(r"\\text\s*\{([^{}]*)\}", r" \1 ", text)
    inner = " ".join(inner.replace("{", " ").replace("}", " ").split()).strip(" .\"'`*").lower()
    if not re.fullmatch(r"[^\W\d_][^\W\d_'\u2019 -]*(?: [^\W\d_'\u2019.,-]+)*", inner) or len(inner) < 2:
        return None
    if "\\text" not in text and ((len(inner) < 3 and inner not in ("no", "up")) or inner in _FUNCTIONS):
        return None
    return re.sub(r"^(?:the|a|an) ", "", inner)


def _same_words(gold: str, answer: str) -> bool:
    g, a = re.sub(r"[\s'\u2019-]", "", gold), re.sub(r"[\s'\u2019-]", "", answer)
    if g == a or any(gold in group and answer in group for group in _SAME_WORDS):
        return True
    if sorted(g) == sorted(a):
        raise Undecidable("the same letters in another order")  # abc and cab may be products
    short = len(gold.split()) <= 2 and len(answer.split()) <= 2
    if short and not set(gold.split()) & set(answer.split()):
        return False
    raise Undecidable("other words")


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
    """Whether a leaf is one number or formula, which no tuple, set or matrix of several members equals."""
    try:
        if read_quantity(text):
            return True
    except TooLarge:
        return True
    return bool(_FORMULA.match(re.sub(r"\\(?:frac|sqrt|cdot|times|left|right)", " ", text)))


# --- choice letters ---

_LETTER = re.compile(r"\\text\s*\{\s*\(?([A-Ja-j])\)?[.:)]?\s*\}|\(([A-Ja-j])\)|([A-J])")
_LETTER_AND_TEXT = re.compile(
    r"(?:(?:\\text\s*\{)?\s*(?:choice|option|answer)[\\_ ]*\(?([A-Ja-j])\)?(?![A-Za-z/])"
    r"|\\text\s*\{\s*\(([A-J])\)\s*\}|\(([A-J])\)|([A-J])\s*(?:[.):,]|\s[(\u2013-])|\\text\s*\{\s*\(?([A-J])[).:])",
    re.IGNORECASE,
)


def lone_letter(text: str) -> str | None:
    """The letter of a text that is nothing but a choice: ``C``, ``(C)``, ``\\text{(C)}``; else None."""
    found = _LETTER.fullmatch(text.strip())
    return next(g for g in found.groups() if g).upper() if found else None


def leading_letter(text: str) -> str | None:
    """The letter with which a text names a choice: ``(C) Cecile``, ``Choice_C``, ``D, it is``; else None."""
    found = _LETTER_AND_TEXT.match(text)
    return next(g for g in found.groups() if g).upper() if found else None


def same_choice(gold: str, answer: str) -> bool | None:
    """Letters of a multiple choice; None where this is none."""
    g, a = lone_letter(gold), lone_letter(answer)
    if g and not a and g.isupper():
        a = leading_letter(answer)
        if a and re.search(r"^\W*[A-J]\)?\s*(?:,|/|,?\s*\bor\b|,?\s*\band\b)\s*\(?[A-J]\)?(?![a-zA-Z])", answer):
            raise Undecidable("several choices named")
        if not a and re.match(r"(?:none|no|not|neither)\b", answer, re.IGNORECASE):
            return False  # none of the above, where one of them was right
    elif a and not g:
        g = leading_letter(gold) or (found[1] if (found := re.match(r"([A-J]) [A-Za-z]{2,}", gold)) else None)
    return g == a if g and a else None


def without_choice(text: str) -> str:
    r"""``\text{(C)} 5`` says 5 to a reference that is no letter."""
    found = re.match(r"(?:\\text\s*\{\s*\(([A-J])\)\s*\}|\(([A-J])\))\s*(?=\S)", text)
    return text[found.end() :] if found and not text[found.end() :].startswith(("=", "^", "_", "+", "-", "/")) else text
