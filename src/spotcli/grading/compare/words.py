"""Words in answers: names, numbers written as words, and words that change the number before them."""

from __future__ import annotations

import re
from fractions import Fraction

from spotcli.grading.compare import Undecidable
from spotcli.grading.compare.exact_numbers import ExactNumber
from spotcli.grading.compare.number_equality import same_number

PROSE = re.compile(r"(?<![A-Za-z\\])[A-Za-z]{3,}")
"""Words outside of commands; shorter ones may be products of variables."""

_UNITS = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
]  # fmt: skip
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
NUMBER_WORDS = {word: value for value, word in enumerate(_UNITS)} | {
    word: 10 * value for value, word in enumerate(_TENS, start=2)
}
_LARGE = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_PARTS = [
    "half", "third", "quarter", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth", "twelfth",
]  # fmt: skip
_FACTORS: dict[str, Fraction] = {
    **{word: Fraction(value) for word, value in _LARGE.items()},
    "lakh": Fraction(10**5), "crore": Fraction(10**7), "dozen": Fraction(12), "score": Fraction(20),
    "half": Fraction(1, 2), "halve": Fraction(1, 2), "third": Fraction(1, 3), "quarter": Fraction(1, 4),
    "fourth": Fraction(1, 4), "fifth": Fraction(1, 5), "sixth": Fraction(1, 6), "seventh": Fraction(1, 7),
    "eighth": Fraction(1, 8), "ninth": Fraction(1, 9), "tenth": Fraction(1, 10), "twelfth": Fraction(1, 12),
    "hundredth": Fraction(1, 100), "thousandth": Fraction(1, 1000), "millionth": Fraction(1, 10**6),
}  # fmt: skip
"""Words after a number that multiply it: 3 million, 2 dozen, 3 quarters."""
_CHANGING = {
    "or", "and", "than", "times", "below", "above", "under", "over", "before", "after", "ago", "squared", "cubed",
    "factorial", "when", "at", "if", "where", "unless", "to", "by", "out", "from", "plus", "minus", "power", "least",
    "most", "without", "except", "between", "until", "short", "fewer", "choose", "mod", "modulo", "divided",
    "multiplied", "root", "not", "half", "nor", "but", "as", "remainder", "less", "late", "early",
}  # fmt: skip
"""Words after a number that change what it says: 5 or more, 5 below zero. A unit contains none of them."""


def factor_of(word: str) -> Fraction | None:
    """The factor that a word after a number stands for, or None."""
    word = word.lower()
    return _FACTORS.get(word) or _FACTORS.get(word.removesuffix("s"))


def changing_words(text: str) -> str:
    """The words after a number, if one of them changes the number; else an empty text."""
    words = re.findall(r"[a-z]+", text.replace("\\text", " ").lower())
    return " ".join(words) if _CHANGING & set(words) else ""


def number_of(words: str) -> int | None:
    """The number written as words, such as ``thirty-two`` or ``two hundred five``; else None."""
    total, current = 0, None
    for word in words.replace("-", " ").split():
        value, large = NUMBER_WORDS.get(word), _LARGE.get(word)
        if value is not None:
            if current is not None and (current % 10 or value >= 10) and current % 100:
                return None
            current = (current or 0) + value
        elif large == 100 and current is not None:
            current *= large
        elif large and large > 100 and current is not None:
            total, current = total + current * large, 0
        elif word != "and" or current is None:
            return None
    return None if current is None else total + current


def fraction_of(words: str) -> Fraction | None:
    """The fraction written as words, such as ``two-thirds`` and ``one half``; else None."""
    whole, _, part = words.replace("-", " ").partition(" and ")
    if part and (count := number_of(whole)) is not None:  # two and a half
        fraction = fraction_of(re.sub(r"^an? ", "one ", part))
        return count + fraction if fraction else None
    parts = words.replace("-", " ").split()
    if len(parts) != 2 or parts[1].removesuffix("s").replace("halve", "half") not in _PARTS:
        return None
    count = NUMBER_WORDS.get(parts[0], 0)
    plural = parts[1].endswith("s")
    return count * _FACTORS[parts[1].removesuffix("s")] if 0 < count < 20 and plural == (count > 1) else None


def comparable_words(text: str) -> str | None:
    r"""The words of a leaf that is text, not a formula: ``\text{Evelyn}``, ``even``, ``no solution``; else None."""
    inner = re.sub(r"\\text\s*\{([^{}]*)\}", r" \1 ", text)
    inner = " ".join(inner.replace("{", " ").replace("}", " ").split()).strip(" .\"'`*").lower()
    if not _WORDS.fullmatch(inner) or len(inner) < 2 or re.fullmatch(r"\w(?:-\w)+", inner):
        return None
    if "\\text" not in text and text.islower() and is_product(inner):
        return None
    if "\\text" not in text and ((len(inner) < 3 and inner not in ("no", "up")) or inner in _FUNCTIONS):
        return None
    if predicate := _PREDICATE.fullmatch(inner):
        inner = predicate[1]
    return re.sub(r"^(?:the|a|an) ", "", inner)


_WORDS = re.compile(r"[^\W\d_](?:[^\W\d_]|['\u2019.-](?=[^\W\d_]))*(?: [^\W\d_](?:[^\W\d_]|['\u2019.-](?=[^\W\d_]))*)*")
_PREDICATE = re.compile(
    r"(?:the|this|it|that|these|there) (?:[a-z]+ ){0,6}?(?:is|are|has|have|was|were) ((?:[a-z-]+ ?){1,4})"
)
"""A sentence about the answer: "the function is even"."""
_FUNCTIONS = {
    "sin", "cos", "tan", "cot", "sec", "csc", "log", "exp", "sqrt", "max", "min", "gcd", "lcm", "arcsin",
    "arccos", "arctan", "mod",
}  # fmt: skip
_NO_SOLUTION = {
    "no solution", "no solutions", "no real solution", "no real solutions", "none", "impossible", "no such numbers",
    "no such number", "there is no solution", "there are no solutions",
}  # fmt: skip
_NO_VALUE = {
    "undefined", "not defined", "does not exist", "doesn't exist", "do not exist", "doesnt exist", "dne",
    "limit does not exist",
}  # fmt: skip
_SAME_WORDS = [
    {"yes", "true"}, {"no", "false"}, _NO_SOLUTION, _NO_VALUE - {"undefined", "not defined"},
    {"undefined", "not defined"}, {"diverges", "divergent"}, {"converges", "convergent"},
]  # fmt: skip
_COUNTING_WORDS = {
    "both", "once", "twice", "double", "triple", "pair", "single", "all", "many", "unity", "zeros", "nil", "square",
    "some", "several", "couple", "few", "first", "second", "last", "nothing", "nobody",
}  # fmt: skip
_INFINITE = re.compile(r"(?:(?:an )?infinit(?:e|ely)|infinity)(?: many)?(?: (?:number|numbers|solutions?))?(?: of .*)?")
_NOTHING = {"none", "no", "nothing", "nobody", "nil", "never"}
_ROMAN = re.compile(r"[ivxlcdm]+")


def is_product(word: str) -> bool:
    """Whether a word is a product of letters, such as ``abc``, ``zyx``, ``mgh`` and ``qvB``."""
    return 3 <= len(word) <= 4 and (
        "".join(sorted(word)) in "abcdefghijklmnopqrstuvwxyz"
        or bool(
            re.fullmatch(
                r"(?!gcd|lcm|hcf)[b-df-hj-np-tv-xz]{3}|[A-Za-z]*[a-z][A-Z][A-Za-z]*|[A-Z]{2,3}[a-z]|[A-Z]{3}", word
            )
        )
    )


_ITEM = re.compile(r"(?<![A-Za-z])(?:[IVX]{1,4}|[ivx]{1,4})(?![A-Za-z])")
_ITEM_WORDS = {"and", "only", "both", "statements", "statement", "or", "all", "of", "the", "true", "are", "is"}


def same_items(gold: str, answer: str) -> bool | None:
    """Compare lists of Roman numerals, such as ``I and III only``; None for other texts."""
    items = [_items(gold), _items(answer)]
    return items[0] == items[1] if items[0] and items[1] else None


def _items(text: str) -> frozenset[str]:
    plain = text[:_MAX_ITEMS].replace("\\text", " ")
    items = _ITEM.findall(plain)
    rest = _ITEM.sub(" ", plain)
    listed = len(items) > 1 and any(len(item) > 1 for item in items) and not re.search(r"[^A-Za-z\s(){},.]", rest)
    words = re.findall(r"[A-Za-z]+", rest)
    return (
        frozenset(map(str.upper, items))
        if listed and all(word.lower() in _ITEM_WORDS for word in words)
        else frozenset()
    )


_MAX_ITEMS = 100
"""Characters of a list of Roman numerals."""


def same_words(gold: str, answer: str) -> bool:
    """Compare two texts of words.

    Raises:
        Undecidable: the words differ, but may mean the same.
    """
    gold_letters, answer_letters = re.sub(r"[\s'\u2019.-]", "", gold), re.sub(r"[\s'\u2019.-]", "", answer)
    if gold_letters == answer_letters or any(gold in group and answer in group for group in _SAME_WORDS):
        return True
    if {gold, answer} <= _NO_SOLUTION | _NO_VALUE:
        raise Undecidable("two words for a missing value")
    if sorted(gold_letters) == sorted(answer_letters):  # abc and cab may be products
        raise Undecidable("the same letters in a different order")
    shorter, longer = sorted((gold_letters, answer_letters), key=len)
    abbreviated = 3 <= len(shorter) <= len(longer) - 2 and longer.startswith(shorter)  # Tues and Tuesday
    stem = max(5, len(shorter) - 4)  # diverges and divergent
    if abbreviated or (len(shorter) >= stem and shorter[:stem] == longer[:stem]):
        raise Undecidable("similar words")
    short = len(gold.split()) <= 2 and len(answer.split()) <= 2
    if short and not set(gold.split()) & set(answer.split()):
        return False
    raise Undecidable("different words")


def same_words_and_number(words: str, number: ExactNumber) -> bool | None:
    """Compare words with a number; None where the words may be a formula.

    Raises:
        Undecidable: the words may stand for a number.
    """
    if (value := number_of(words)) is not None:
        return number.value == value
    if (fraction := fraction_of(words)) is not None:
        return same_number(ExactNumber(fraction), number)
    if words in _NOTHING and number.value != 0:
        return False
    if words in _NO_SOLUTION | _NO_VALUE | _NOTHING:
        if number.value == 0 and words not in _NO_VALUE:  # "none" may be the number of solutions
            raise Undecidable("a word for nothing compared with zero")
        return False
    if _INFINITE.fullmatch(words):
        return False
    parts = words.replace("-", " ").split()
    counting = any(part in _COUNTING_WORDS or factor_of(part) is not None or part in NUMBER_WORDS for part in parts)
    if counting or _ROMAN.fullmatch(words):
        raise Undecidable("a word compared with a number")
    return False if len(parts) == 1 and len(words) > 2 else None
