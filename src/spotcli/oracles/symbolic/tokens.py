r"""Reading numbers, operators and equals signs out of prose.

Integers, decimals and fractions with + - * / and parentheses are read in plain text, Markdown or LaTeX. Nothing is
evaluated as code, and everything has a limit. Powers, roots, percentages, numbers with units, and other text that is
not understood raise ``CannotRepair``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

from spotcli.oracles.symbolic.declined import CannotRepair

MAX_DIGITS = 24
MAX_TOKENS = 1_500


@dataclass(frozen=True)
class WrittenNumber:
    """A number of the text, at ``text[start:end]``."""

    start: int
    end: int
    value: Fraction
    style: Literal["integer", "decimal", "fraction", "tex"]
    places: int = 0
    """Digits after the decimal point."""
    padded: bool = False
    """Whether these digits end in 0, as in 4.50."""
    comma: str = ""
    """The separator of thousands."""
    minus: str = ""
    """The minus sign as written; empty if the number is not negative."""
    boxed: bool = False


_DIGITS = r"(?:[0-9]{1,3}(?:(?P<comma>,|\{,\})[0-9]{3}(?:(?P=comma)[0-9]{3})*)(?![0-9])|[0-9]+)"
_NUMBER = re.compile(rf"(?P<minus>[-−]?)(?P<whole>{_DIGITS})(?:\.(?P<decimals>[0-9]+))?")
_FRACTION = re.compile(r"(?P<minus>[-−]?)(?P<over>[0-9]+)/(?P<under>[0-9]+)(?![0-9])")
_TEX = re.compile(r"(?P<minus>[-−]?)\\[dt]?frac\s?\{(?P<over>[0-9]+)\}\s?\{(?P<under>[0-9]+)\}")


def number_at(text: str, start: int, literal: bool) -> WrittenNumber | None:
    """The number that starts at ``text[start]``, including its sign; None without one.

    ``literal``: read ``1/2`` as one number.

    Raises:
        CannotRepair: the denominator is 0, or the number has more than ``MAX_DIGITS`` digits.
    """
    fraction = _TEX.match(text, start) or (_FRACTION.match(text, start) if literal else None)
    if fraction:
        _check_digits(fraction["over"] + fraction["under"])
        if not int(fraction["under"]):
            raise CannotRepair("division by zero")
        value = Fraction(int(fraction["over"]), int(fraction["under"]))
        style: Literal["tex", "fraction"] = "tex" if "\\" in fraction[0] else "fraction"
        minus = fraction["minus"]
        return WrittenNumber(start, fraction.end(), -value if minus else value, style, minus=minus)
    number = _NUMBER.match(text, start)
    if not number:
        return None
    comma, decimals = number["comma"] or "", number["decimals"] or ""
    whole = number["whole"].replace(comma, "") if comma else number["whole"]
    _check_digits(whole + decimals)
    value = Fraction(int(whole + decimals), 10 ** len(decimals))
    return WrittenNumber(
        start,
        number.end(),
        -value if number["minus"] else value,
        "decimal" if decimals else "integer",
        places=len(decimals),
        padded=decimals.endswith("0"),
        comma=comma,
        minus=number["minus"],
    )


def _check_digits(digits: str) -> None:
    if len(digits) > MAX_DIGITS:
        raise CannotRepair("too long", f"a number of {len(digits)} digits")


def lone_number(text: str, start: int, end: int) -> WrittenNumber | None:
    """The number in ``text[start:end]``, if only dollar signs and blanks surround it; else None."""
    while start < end and text[start] in " \t\n$":
        start += 1
    while start < end and text[end - 1] in " \t\n$":
        end -= 1
    number = number_at(text, start, literal=True)
    return number if number and number.end == end else None


# --- tokens ---

OPERATORS = {
    **dict.fromkeys(("+",), "+"),
    **dict.fromkeys(("-", "−", "–"), "-"),
    **dict.fromkeys(("*", "×", "∗", "·", "⋅", "∙", "x", "X", r"\times", r"\cdot"), "*"),
    **dict.fromkeys(("/", "÷", r"\div"), "/"),
}
"""Operators by the way they are written."""

_SCAN = re.compile(
    r"""
      (?P<blank> [ \t\r\f\v$`_&]+ | \\[()\[\],;:!] | \\\\ | \\(?:left|right|quad|qquad)(?![A-Za-z]) )
    | (?P<line> \n )
    | (?P<box> \\boxed\s?\{ )
    | (?P<label> (?i:step|line|part)\s?\#?[0-9]{1,2} (?= [ ]?(?:[:.),]|[-–—][ ]|[A-Za-z]|\n|$|\*\*) ) )
    | (?P<bold> \*\*+ )
    | (?P<arrow> => | -> | [→⇒⟹∴] )
    | (?P<equals> = )
    | (?P<ordinal> [0-9]{1,2}(?:st|nd|rd|th)\b )
    | (?P<operator> [-+−–*×∗·⋅∙/÷] | \\(?:times|cdot|div)(?![A-Za-z]) )
    | (?P<open> \( )
    | (?P<close> \) )
    | (?P<word> \\?[A-Za-z]+(?:[-'’][A-Za-z]+)* )
    | (?P<other> . )
    """,
    re.VERBOSE | re.DOTALL,
)
_BULLET = re.compile(r"[ \t]*(?:[-*•+#>]+|\(?(?P<count>[0-9]{1,2})[.)])[ \t]+(?=[0-9(\\$A-Za-z]|\*\*)")
_TIMES = re.compile(r"[xX]\s?(?=[0-9(])")
_FOREIGN = set("^%√!<>≈≠≤≥±∓{}[]|~°")
"""Characters that change the meaning of a number next to them."""

TokenKind = Literal["number", "operator", "equals", "open", "close", "other", "foreign"]
_FIXED_KINDS: dict[str, TokenKind] = {
    "label": "other", "ordinal": "other", "arrow": "other", "equals": "equals", "open": "open", "close": "close",
}  # fmt: skip
"""Groups of ``_SCAN`` that are always tokens of the same kind."""


@dataclass(frozen=True)
class Token:
    """A part of the text, at ``text[start:end]``."""

    kind: TokenKind
    start: int
    end: int
    line: int
    text: str = ""
    number: WrittenNumber | None = None

    @property
    def math(self) -> bool:
        return self.kind not in ("other", "foreign")


class _Tokenizer:
    def __init__(self, text: str, literal: bool) -> None:
        self.text = text
        self.literal = literal
        self.tokens: list[Token] = []
        self.position = 0
        self.line = 0
        self.line_start = True
        self.bullets = 0
        """Entries of a numbered list so far."""

    def read(self) -> list[Token]:
        while self.position < len(self.text):
            if len(self.tokens) > MAX_TOKENS:
                raise CannotRepair("too long")
            bullet = self.line_start and self._bullet()
            self.line_start = False
            if not bullet:
                scan = _SCAN.match(self.text, self.position)
                assert scan  # its last alternative matches any character
                self.position = self._token(scan.lastgroup or "", scan.end())
        return self.tokens

    def _bullet(self) -> bool:
        """Skip the bullet of a list. ``2.`` is a bullet only after the first one; otherwise it is a number."""
        bullet = _BULLET.match(self.text, self.position)
        if not bullet or (bullet["count"] and int(bullet["count"]) != self.bullets + 1):
            return False
        self.bullets += bool(bullet["count"])
        self.tokens.append(Token("other", self.position, bullet.end(), self.line))
        self.position = bullet.end()
        return True

    def _token(self, kind: str, end: int) -> int:
        """Append the token at the position, of a group of ``_SCAN``; return where it ends."""
        if kind in ("blank", "line", "bold"):
            self._layout(kind, end)
            return end
        if kind == "box":
            number, end = _boxed(self.text, end)
            return self._append_number(replace(number, boxed=True), end)
        if kind in _FIXED_KINDS:
            return self._append(_FIXED_KINDS[kind], end)
        after_value = self._after_value()
        if kind == "word" and after_value and (times := _TIMES.match(self.text, self.position)):
            self._append("operator", self.position + 1)
            return times.end()
        # After a value, a minus sign is an operator.
        is_operator = kind == "operator" and after_value
        if not is_operator and (written := number_at(self.text, self.position, self.literal)):
            _check_neighbours(self.text, written)
            return self._append_number(written, written.end)
        if kind == "operator":
            return self._append("operator", end)
        return self._append(self._character_kind() if kind == "other" else "other", end)

    def _after_value(self) -> bool:
        """Whether the last token of this line ends a value."""
        before = self.tokens[-1] if self.tokens else None
        return before is not None and before.line == self.line and before.kind in ("number", "close")

    def _layout(self, kind: str, end: int) -> None:
        if kind == "line":
            self.line, self.line_start = self.line + 1, True
        elif kind == "bold" and self._after_value() and self._value_starts(end):
            raise CannotRepair("unreadable equation", "a power")

    def _value_starts(self, position: int) -> bool:
        return self.text[position : position + 1] == "(" or number_at(self.text, position, self.literal) is not None

    def _character_kind(self) -> TokenKind:
        character = self.text[self.position]
        if character == "\0" or (character.isnumeric() and not character.isascii()):
            raise CannotRepair("unreadable text", f"U+{ord(character):04X}")
        punctuation = character == "!" and not self._after_value()
        return "foreign" if character in _FOREIGN and not punctuation else "other"

    def _append(self, kind: TokenKind, end: int) -> int:
        self.tokens.append(Token(kind, self.position, end, self.line, self.text[self.position : end]))
        return end

    def _append_number(self, number: WrittenNumber, end: int) -> int:
        self.tokens.append(Token("number", self.position, end, self.line, number=number))
        return end


def _boxed(text: str, start: int) -> tuple[WrittenNumber, int]:
    """The number in the box whose content starts at ``text[start]``, and the end of the box."""
    depth, end = 1, start
    while depth:
        if end >= len(text) or end - start > 100:
            raise CannotRepair("unreadable box", "the box is not closed")
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        end += 1
    number = lone_number(text, start, end - 1)
    if number is None:
        raise CannotRepair("unreadable box", "the box does not contain exactly one number")
    return number, end


def _check_neighbours(text: str, number: WrittenNumber) -> None:
    """Raise for a number that is part of a word or of a larger number."""
    before, after = text[number.start - 1 : number.start], text[number.end : number.end + 2]
    if (
        before == "."
        or before.isalpha()
        or (before == "," and text[number.start - 2 : number.start - 1].isdigit())
        or re.match(r"[.,][0-9]", after)
        or (after[:1].isalpha() and not _TIMES.match(text, number.end))
    ):
        raise CannotRepair("unreadable text", f"'{text[max(0, number.start - 3) : number.end + 3]}'")


def runs(text: str, literal: bool) -> Iterator[list[Token]]:
    """The sequences of numbers, operators and equals signs of a text, each within one line, without the prose.

    ``literal``: read ``1/2`` without blanks as one number, else as a division.

    Raises:
        CannotRepair: the text cannot be read, for example because an unknown character is next to a number.
    """
    run: list[Token] = []
    before: Token | None = None
    for token in _Tokenizer(text, literal).read():
        if before:
            _check_foreign(before, token)
        if run and (not token.math or token.line != run[-1].line):
            # `12 + 30 = ?` is a question, not a claim.
            if token.text == "?" and run[-1].kind == "equals":
                run.pop()
            if trimmed := _trim(run):
                yield trimmed
            run = []
        if token.math:
            run.append(token)
        before = token
    if trimmed := _trim(run):
        yield trimmed


def _check_foreign(before: Token, token: Token) -> None:
    if before.line == token.line and "foreign" in (before.kind, token.kind):
        foreign, other = (token, before) if token.kind == "foreign" else (before, token)
        if other.math:
            raise CannotRepair("unreadable equation", f"next to '{foreign.text}'")


def _trim(run: list[Token]) -> list[Token]:
    """Remove the parentheses and dashes of the surrounding prose."""
    if run and run[0].kind == "operator" and OPERATORS[run[0].text] == "-":
        run = run[1:]  # a dash: a minus sign would be part of the number
    partner: dict[int, int] = {}
    opened: list[int] = []
    for index, token in enumerate(run):
        if token.kind == "open":
            opened.append(index)
        elif token.kind == "close" and opened:
            partner[index] = opened[-1]
            partner[opened.pop()] = index
    start, end = 0, len(run)
    while start < end:
        first, last = run[start], run[end - 1]
        if (first.kind == "open" and start not in partner) or first.kind == "close":
            start += 1
        elif (last.kind == "close" and end - 1 not in partner) or last.kind == "open":
            end -= 1
        elif (
            first.kind == "open"
            and partner.get(start) == end - 1
            and any(token.kind == "equals" for token in run[start:end])
        ):
            start, end = start + 1, end - 1
        else:
            break
    return run[start:end]


def split_at_equals(run: list[Token]) -> Iterator[list[Token]]:
    """The parts before, between and after the equals signs; a part may be empty."""
    part: list[Token] = []
    for token in run:
        if token.kind == "equals":
            yield part
            part = []
        else:
            part.append(token)
    yield part
