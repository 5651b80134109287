r"""Choice letters in answers to multiple-choice questions: ``C``, ``(C)``, ``\text{(C)} 5``, ``D, it is``."""

from __future__ import annotations

import re

from spotcli.grading.compare import Undecidable

_LETTER = re.compile(r"\\text\s*\{\s*\(?([A-Ja-j])\)?[.:)]?\s*\}|\(([A-Ja-j])\)|([A-J])")
_LETTER_AND_TEXT = re.compile(
    r"(?:(?:\\text\s*\{)?\s*(?:choice|option|answer)[\\_ ]*\(?([A-Ja-j])\)?(?![A-Za-z/])"
    r"|\\text\s*\{\s*\(([A-J])\)\s*\}|\(([A-J])\)|([A-J])\s*(?:[.):,]|\s[(\u2013-])|\\text\s*\{\s*\(?([A-J])[).:])",
    re.IGNORECASE,
)
_SEVERAL = re.compile(r"^\W*[A-J]\)?\s*(?:,|/|,?\s*\bor\b|,?\s*\band\b)\s*\(?[A-J]\)?(?![a-zA-Z])")


def lone_letter(text: str) -> str | None:
    r"""The letter of a text that contains only a choice: ``C``, ``(C)``, ``\text{(C)}``; else None."""
    return _letter_of(_LETTER.fullmatch(text.strip()))


def leading_letter(text: str) -> str | None:
    """The choice letter at the start of a text: ``(C) Cecile``, ``Choice_C``, ``D, it is``; else None."""
    return _letter_of(_LETTER_AND_TEXT.match(text))


def _letter_of(match: re.Match[str] | None) -> str | None:
    return next(letter for letter in match.groups() if letter).upper() if match else None


def letter_and_words(text: str) -> str | None:
    """The choice letter before words: ``C Cecile``; else None."""
    match = re.match(r"(?![AI] [a-z])([A-J]) [A-Za-z]{2,}", text)  # "I choose" and "A train" name no choice
    return match[1] if match else None


def names_several(text: str) -> bool:
    """Whether a text starts with more than one choice letter: ``A or B``, ``(A), (C)``."""
    return bool(_SEVERAL.search(text))


def same_choice(gold: str, answer: str) -> bool | None:
    """Whether two answers name the same choice; None where the answers are no choices.

    Raises:
        Undecidable: the answer names several choices.
    """
    gold_letter, answer_letter = lone_letter(gold), lone_letter(answer)
    if gold_letter and not answer_letter:
        answer_letter = leading_letter(answer)
        if answer_letter and names_several(answer):
            raise Undecidable("the answer names several choices")
        if not answer_letter and re.match(r"(?:none|no|not|neither)\b", answer, re.IGNORECASE):
            return False  # none of the choices
    elif answer_letter and not gold_letter:
        gold_letter = leading_letter(gold) or letter_and_words(gold)
    return gold_letter == answer_letter if gold_letter and answer_letter else None


def without_choice(text: str) -> str:
    r"""The text without the choice letter before a value: ``5`` for ``\text{(C)} 5``."""
    choice = re.match(r"(?:\\text\s*\{\s*\(([A-J])\)\s*\}|\(([A-J])\)|([A-J])[.)]\s)\s*(?=\S)", text)
    if not choice or text[choice.end() :].startswith(("=", "^", "_", "+", "-", "/")):
        return text
    return text[choice.end() :]
