"""Numbers in other bases: ``12_5``, ``204_{five}``, ``(1011)_2``."""

from __future__ import annotations

import re

from spotcli.grading.compare import Undecidable
from spotcli.grading.compare.words import NUMBER_WORDS

_BASED = re.compile(
    r"\(?(-?[0-9A-Fa-f]+)\)?\s*_\s*"
    r"(\{\s*(?:\\text\s*\{)?\s*(?:base)?\s*\w+\s*\}?\s*\}|\{\s*\\text\s*\{\s*base\s*\}\s*\w+\s*\}|\d+"
    r"|\\text\s*\{\s*\w+\s*\})"
)
_DIGITS = re.compile(r"\d[0-9A-Fa-f]*")


def same_in_bases(gold: str, answer: str) -> bool | None:
    """Compare two numbers of which one states its base; None for other texts.

    Raises:
        Undecidable: only one base is stated, or the bases differ.
    """
    gold_match, answer_match = _BASED.fullmatch(gold), _BASED.fullmatch(answer)
    if gold_match and answer_match:
        gold_base, answer_base = _base(gold_match[2]), _base(answer_match[2])
        if gold_base == answer_base:
            return _digits(gold_match[1]) == _digits(answer_match[1])
        if _value(gold_match[1], gold_base) == _value(answer_match[1], answer_base):
            raise Undecidable("the same number in different bases")
        return False
    if gold_match:
        return _differs_from_based(gold_match, answer)
    return _differs_from_based(answer_match, gold) if answer_match else None


def _differs_from_based(based: re.Match[str], plain: str) -> bool | None:
    """False where a number without a base differs from one with a base; None where it is not an integer."""
    if not _DIGITS.fullmatch(plain):
        return None
    base = _base(based[2])
    if not isinstance(base, int) or not 2 <= base <= 36:  # 1_234 may be 1234
        raise Undecidable("a number with an unknown base")
    if _digits(plain) == _digits(based[1]) or (plain.isdigit() and int(plain[:4000]) == _value(based[1], base)):
        raise Undecidable("only one of the two numbers states its base")
    return False


def _base(text: str) -> int | str:
    inner = re.sub(r"\\text|[{}\s]|base", "", text).lower()
    return int(inner) if inner.isdigit() else NUMBER_WORDS.get(inner, inner)


def _digits(text: str) -> str:
    return text.replace(" ", "").upper().lstrip("0") or "0"


def _value(digits: str, base: int | str) -> int | None:
    try:
        return int(digits, base) if isinstance(base, int) and 2 <= base <= 36 and len(digits) < 300 else None
    except ValueError:
        return None
