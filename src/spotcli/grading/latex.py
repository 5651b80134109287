r"""Normalizing notation: ``\dfrac``, ``\left(``, ``×``, ``10{,}000`` and ``28 percent`` are rewritten to one form.

Only the notation changes, never the meaning; ``compare`` decides what is equal. This module uses only the standard
library.
"""

from __future__ import annotations

import re
import unicodedata

from spotcli.grading.characters import group_end, without_unicode
from spotcli.grading.notation import RULES

_REWRITES = [(re.compile(pattern), replacement) for pattern, replacement in RULES]
_DOUBLED_BACKSLASH = re.compile(r"\\\\+(?=[a-zA-Z({\[%$])")
"""Backslashes doubled by JSON or Python."""
_MATRIX = re.compile(r"\\begin\{(?:[pbvBV]?matrix|smallmatrix|array|cases|aligned)\}")
_SYMBOL = (
    r"\\(?:pi|alpha|beta|gamma|delta|epsilon|varepsilon|zeta|eta|theta|kappa|lambda|mu|nu|xi|rho|sigma|tau|phi|varphi"
    r"|chi|psi|omega|hbar|ell|Delta|Omega)(?![a-zA-Z])"
)
_BARE_SYMBOL = re.compile(rf"\\(frac|sqrt)\s*({_SYMBOL})")
_FRAC_CHARACTERS = re.compile(r"\\frac(?:\s*(?=\d)|\s+)([0-9a-zA-Z])\s*([0-9a-zA-Z])")
_FRAC_HALF = re.compile(r"\\frac\s*(\d|[a-zA-Z])\s*(?=[{\\])")
_FRAC_TAIL = re.compile(rf"(\\frac\s*\{{[^{{}}]*\}})\s*(\d|[a-zA-Z]|{_SYMBOL})")
_RAISED_FRAC = re.compile(r"\^\s*(\\frac\s*\{[^{}]*\}\s*\{[^{}]*\})")
_BINOM_DIGITS = re.compile(
    r"\\binom(?:\s*(\d)|\s+([a-z])|\s*\{([^{}]*)\})(?:\s*(\d)|\s*([a-z])(?![a-z])|\s*\{([^{}]*)\})"
)
_INNER_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{([^{}]*)\}")
_LONE_TEXT = re.compile(r"\\text\s*\{\s*\(?\s*([A-Za-z])\s*\)?\s*\}")


_PLAIN_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?")


def is_plain_number(text: str) -> bool:
    """Whether a text is a number in digits, with or without a sign and a decimal point."""
    return _PLAIN_NUMBER.fullmatch(text) is not None


def tidy(text: str) -> str:
    """Rewrite a text to the notation that the other modules read.

    Raises:
        ValueError: the text contains a control character.
    """
    text = text.strip()
    if is_plain_number(text):
        return text
    for character in text:
        if (
            (character < " " and character not in "\n\t\r")
            or "\x7f" <= character <= "\x9f"
            or unicodedata.bidirectional(character) in _BIDIRECTIONAL
        ):
            raise ValueError(f"control character U+{ord(character):04X} in the answer")
    text = without_unicode(text)
    text = _INNER_BOX.sub(r"{\1}", text) if "box" in text else text
    if "\\begin" in text and _MATRIX.search(text):
        text = text.replace("\\\\", " \\cr ")
    else:
        text = _DOUBLED_BACKSLASH.sub(r"\\", text).replace("\\\\", " ") if "\\\\" in text else text
    text = _dollars(text.replace("\\textdollar", "\\$") if "\\textdollar" in text else text)
    for pattern, replacement in _REWRITES:
        if pattern.search(text):  # faster: without a match, "sub" would expand the replacement for nothing
            text = pattern.sub(replacement, text)
    if "^(" in text or "^ (" in text:
        text = _raised_groups(text)
    if "\\frac" in text or "\\sqrt" in text:
        text = _BARE_SYMBOL.sub(r"\\\1{\2}", text)
    if "\\frac" in text:
        text = _FRAC_CHARACTERS.sub(r"\\frac{\1}{\2}", text)
        text = _FRAC_HALF.sub(r"\\frac{\1}", text)
        text = _FRAC_TAIL.sub(r"\1{\2}", text)
        text = _RAISED_FRAC.sub(r"^{\1}", text)
    if "\\binom" in text:
        text = _BINOM_DIGITS.sub(_binomial, text)
    return text.strip().rstrip("\\.,;: ").strip()


def _binomial(binomial: re.Match[str]) -> str:
    upper, lower = [group for group in binomial.groups() if group is not None]
    return f"\\binom{{{upper}}}{{{lower}}}"


def _raised_groups(text: str) -> str:
    """Braces in place of the parentheses around an exponent: ``e^(2x)`` is ``e^{2x}``."""
    rewritten, position = "", 0
    while opening := _RAISED_GROUP.search(text, position):
        end = group_end(text, opening.end() - 1)
        if end is None:
            break
        rewritten += f"{text[position : opening.start()]}^{{{_raised_groups(text[opening.end() : end - 1])}}}"
        position = end
    return rewritten + text[position:]


_RAISED_GROUP = re.compile(r"\^\s*\(")
_BIDIRECTIONAL = {"RLO", "LRO", "RLE", "LRE", "PDF", "RLI", "LRI", "FSI", "PDI"}
"""Classes of the characters that change the direction of text."""


def _dollars(text: str) -> str:
    r"""Remove math delimiters; a dollar sign that is a currency becomes the command ``\USD``."""
    for opening in ("\\(", "\\)", "\\[", "\\]"):
        if opening in text:
            text = text.replace(opening, " ")
    if "$" not in text:
        return text
    text = text.replace("\\$", "\\USD ")
    text = text.replace("$$", "$")
    if text.count("$") % 2:
        text = re.sub(r"\$(?=\s*[\d.])", r"\\USD ", text, count=1)
        text = re.sub(r"(?<=\d)\s*\$(?!.*\$)", r"\\USD ", text) if text.count("$") % 2 else text
    return text.replace("$", " ")


def canonical(text: str) -> str:
    """A key that is equal only for tidy texts with the same meaning.

    Spaces are removed, except between two words or two numbers.
    """
    if "\\" in text:
        text = _LONE_TEXT.sub(r"\1", text).replace("\\reals", "R")
    if " " in text:
        text = _IDLE_SPACE.sub("", text)
        text = text if "\\" in text else _SPACE_BEFORE_NUMBER.sub("", text)
    return _RAISED_CHARACTER.sub(r"\1\2", text) if "{" in text else text


_IDLE_SPACE = re.compile(r"(?<![0-9A-Za-z.]) | (?![0-9A-Za-z.])")
_SPACE_BEFORE_NUMBER = re.compile(r"(?<=[A-Za-z]) (?=\d)|(?<=\d) (?=[A-Za-z])")
_RAISED_CHARACTER = re.compile(r"([_^])\{(\w)\}")
_OPEN, _CLOSE = "([{", ")]}"


def split_top(text: str, separators: re.Pattern[str]) -> tuple[list[str], list[str]]:
    """Split at separators outside of all brackets; return the pieces and the separators between them.

    Opening and closing brackets may differ in kind, because ``[0, 1)`` is an interval. After a closing bracket without
    an opening one, the text is not split.
    """
    if not separators.search(text):
        return [text.strip()], []
    pieces: list[str] = []
    between: list[str] = []
    depth, start, position = 0, 0, 0
    while position < len(text):
        character = text[position]
        if character in _OPEN:
            depth += 1
        elif character in _CLOSE:
            depth -= 1
        elif depth == 0 and (separator := separators.match(text, position)):
            pieces.append(text[start:position].strip())
            between.append(separator[0].strip())
            start = position = separator.end()
            continue
        if character == "\\" and position + 1 < len(text) and not text[position + 1].isalpha():
            depth += {"{": 1, "}": -1}.get(text[position + 1], 0)
            position += 1
        position += 1
    pieces.append(text[start:].strip())
    return pieces, between


def balanced(text: str) -> bool:
    """Whether the first and the last bracket of a text are a pair: true for ``(1, 2)``, false for ``(1)(2)``."""
    depth = 0
    for position, character in enumerate(text):
        if character in _OPEN:
            depth += 1
        elif character in _CLOSE:
            depth -= 1
            if depth == 0 and position < len(text) - 1:
                return False
    return depth == 0
