r"""Arithmetic as people write it: numbers and expressions read out of prose, and their exact values.

Reads + - * / with parentheses, integers, decimals and fractions, in plain text, Markdown or LaTeX. Nothing is
evaluated as code: a tokenizer, a strict parser, exact fractions, and a limit on everything. Powers, roots, percentages,
units at a number and whatever else is not understood raise ``Unreadable``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from typing import Literal

Why = Literal["too long", "too complex", "unreadable text", "unreadable equation", "unreadable box", "division by zero"]

MAX_DIGITS = 24
MAX_TOKENS = 1_500
MAX_OPERATIONS = 8
MAX_NESTING = 8


class Unreadable(Exception):
    """What stands there is not understood; ``reason`` is what is counted, ``detail`` what a human wants to know."""

    def __init__(self, reason: Why, detail: str = "") -> None:
        super().__init__(reason)
        self.reason: Why = reason
        self.detail = detail


@dataclass(frozen=True)
class Number:
    """A number as it stands in the text."""

    start: int
    end: int
    value: Fraction
    style: Literal["integer", "decimal", "fraction", "tex"]
    places: int = 0
    """Digits after the decimal point."""
    padded: bool = False
    """They end in 0, as in 4.50."""
    comma: str = ""
    """What separates thousands."""
    minus: str = ""
    """The sign as written; empty where the number is not negative."""
    boxed: bool = False


_DIGITS = r"(?:[0-9]{1,3}(?:(?P<comma>,|\{,\})[0-9]{3}(?:(?P=comma)[0-9]{3})*)(?![0-9])|[0-9]+)"
_NUMBER = re.compile(rf"(?P<minus>[-−]?)(?P<whole>{_DIGITS})(?:\.(?P<decimals>[0-9]+))?")
_FRACTION = re.compile(r"(?P<minus>[-−]?)(?P<over>[0-9]+)/(?P<under>[0-9]+)(?![0-9])")
_TEX = re.compile(r"(?P<minus>[-−]?)\\[dt]?frac\s?\{(?P<over>[0-9]+)\}\s?\{(?P<under>[0-9]+)\}")


def number_at(text: str, at: int, literal: bool) -> Number | None:
    """The number that starts there, its sign included; None where there is none.

    ``literal`` reads ``1/2`` as one number.

    Raises:
        Unreadable: a denominator of 0, or more than ``MAX_DIGITS``.
    """
    found = _TEX.match(text, at) or (_FRACTION.match(text, at) if literal else None)
    if found:
        _check_digits(found["over"] + found["under"])
        if not int(found["under"]):
            raise Unreadable("division by zero")
        value = Fraction(int(found["over"]), int(found["under"]))
        style: Literal["tex", "fraction"] = "tex" if "\\" in found[0] else "fraction"
        return Number(at, found.end(), -value if found["minus"] else value, style, minus=found["minus"])
    found = _NUMBER.match(text, at)
    if not found:
        return None
    comma, decimals = found["comma"] or "", found["decimals"] or ""
    whole = found["whole"].replace(comma, "") if comma else found["whole"]
    _check_digits(whole + decimals)
    value = Fraction(int(whole + decimals), 10 ** len(decimals))
    return Number(
        at,
        found.end(),
        -value if found["minus"] else value,
        "decimal" if decimals else "integer",
        places=len(decimals),
        padded=decimals.endswith("0"),
        comma=comma,
        minus=found["minus"],
    )


def _check_digits(digits: str) -> None:
    if len(digits) > MAX_DIGITS:
        raise Unreadable("too long", f"a number of {len(digits)} digits")


def lone_number(text: str, start: int, end: int) -> Number | None:
    """The number that ``text[start:end]`` is, dollar signs and blanks around it aside."""
    while start < end and text[start] in " \t\n$":
        start += 1
    while start < end and text[end - 1] in " \t\n$":
        end -= 1
    number = number_at(text, start, literal=True)
    return number if number and number.end == end else None


# Text -> tokens -> expressions

OPERATORS = {
    **dict.fromkeys(("+",), "+"),
    **dict.fromkeys(("-", "−", "–"), "-"),
    **dict.fromkeys(("*", "×", "∗", "·", "⋅", "∙", "x", "X", r"\times", r"\cdot"), "*"),
    **dict.fromkeys(("/", "÷", r"\div"), "/"),
}
"""What is written -> what it means."""

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
# Signs that change what a number beside them means.
_FOREIGN = set("^%√!<>≈≠≤≥±∓{}[]|~°")


@dataclass(frozen=True)
class Token:
    kind: Literal["number", "operator", "equals", "open", "close", "other", "foreign"]
    start: int
    end: int
    line: int
    text: str = ""
    number: Number | None = None

    @property
    def math(self) -> bool:
        return self.kind not in ("other", "foreign")


def _tokens(text: str, literal: bool) -> list[Token]:
    found: list[Token] = []
    at, line, counted, line_start = 0, 0, 0, True
    while at < len(text):
        if len(found) > MAX_TOKENS:
            raise Unreadable("too long")
        if line_start and (bullet := _BULLET.match(text, at)):
            # `2.` starts a list's second entry only after its first one; else it is a number.
            count = bullet["count"]
            if not count or int(count) == counted + 1:
                counted += bool(count)
                found.append(Token("other", at, bullet.end(), line))
                at, line_start = bullet.end(), False
                continue
        line_start = False
        scan = _SCAN.match(text, at)
        assert scan  # its last alternative takes any character
        kind, end = scan.lastgroup, scan.end()
        before = found[-1] if found and found[-1].line == line else None
        ends_value = before is not None and before.kind in ("number", "close")
        if kind == "line":
            line, line_start = line + 1, True
        elif kind == "blank":
            pass
        elif kind == "box":
            held, end = _boxed(text, end)
            found.append(Token("number", at, end, line, number=replace(held, boxed=True)))
        elif kind == "bold":
            starts_value = number_at(text, end, literal) is not None or text[end : end + 1] == "("
            if ends_value and starts_value:
                raise Unreadable("unreadable equation", "a power")
        elif kind in ("label", "ordinal", "arrow"):
            found.append(Token("other", at, end, line, text[at:end]))
        elif kind == "word" and ends_value and (times := _TIMES.match(text, at)):
            end = times.end()
            found.append(Token("operator", at, at + 1, line, text[at]))
        elif kind in ("equals", "open", "close"):
            found.append(Token(kind, at, end, line, text[at:end]))  # type: ignore[arg-type]
        elif not (kind == "operator" and ends_value) and (number := number_at(text, at, literal)):
            end = number.end
            _check_neighbours(text, number)
            found.append(Token("number", at, end, line, number=number))
        elif kind == "operator":
            found.append(Token("operator", at, end, line, text[at:end]))
        elif kind == "other":
            character = text[at]
            if character == "\0" or (character.isnumeric() and not character.isascii()):
                raise Unreadable("unreadable text", f"U+{ord(character):04X}")
            foreign = character in _FOREIGN and not (character == "!" and not ends_value)
            found.append(Token("foreign" if foreign else "other", at, end, line, character))
        else:
            found.append(Token("other", at, end, line, text[at:end]))
        at = end
    return found


def _boxed(text: str, start: int) -> tuple[Number, int]:
    """The number in the box whose content starts there, and where the box ends."""
    depth, end = 1, start
    while depth:
        if end >= len(text) or end - start > 100:
            raise Unreadable("unreadable box", "it does not end")
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        end += 1
    number = lone_number(text, start, end - 1)
    if number is None:
        raise Unreadable("unreadable box", "not one number")
    return number, end


def _check_neighbours(text: str, number: Number) -> None:
    before, after = text[number.start - 1 : number.start], text[number.end : number.end + 2]
    if (
        before == "."
        or before.isalpha()
        or (before == "," and text[number.start - 2 : number.start - 1].isdigit())
        or re.match(r"[.,][0-9]", after)
        or (after[:1].isalpha() and not _TIMES.match(text, number.end))
    ):
        raise Unreadable("unreadable text", f"'{text[max(0, number.start - 3) : number.end + 3]}'")


def runs(text: str, literal: bool) -> Iterator[list[Token]]:
    """Stretches of numbers, signs and equals signs, each within a line, without the prose around them.

    ``literal`` reads ``1/2`` without blanks as one number, else as a division.

    Raises:
        Unreadable: among others where a sign that is not understood stands beside a number.
    """
    run: list[Token] = []
    before: Token | None = None
    for token in _tokens(text, literal):
        if before and before.line == token.line and "foreign" in (before.kind, token.kind):
            foreign, other = (token, before) if token.kind == "foreign" else (before, token)
            if other.math:
                raise Unreadable("unreadable equation", f"beside '{foreign.text}'")
        if run and (not token.math or token.line != run[-1].line):
            # `12 + 30 = ?` asks, it does not claim.
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


def _trim(run: list[Token]) -> list[Token]:
    """Without the parentheses and dashes of the prose around it."""
    if run and run[0].kind == "operator" and OPERATORS[run[0].text] == "-":
        run = run[1:]  # a sign that stands off: a minus would be part of the number
    partner: dict[int, int] = {}
    opened: list[int] = []
    for at, token in enumerate(run):
        if token.kind == "open":
            opened.append(at)
        elif token.kind == "close" and opened:
            partner[at] = opened[-1]
            partner[opened.pop()] = at
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


Groups = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Shape:
    """An expression without its numbers: the signs between them, and what parentheses hold (first, last number)."""

    signs: tuple[str, ...]
    groups: Groups = ()


@dataclass(frozen=True)
class Written:
    """An expression as it stands in the text."""

    numbers: tuple[Number, ...]
    operators: tuple[Token, ...]
    groups: Groups

    @property
    def shape(self) -> Shape:
        return Shape(tuple(OPERATORS[token.text] for token in self.operators), self.groups)


def expression(tokens: Sequence[Token]) -> Written:
    """The expression that the tokens are.

    Raises:
        Unreadable: they are none, or a larger one than ``MAX_OPERATIONS`` and ``MAX_NESTING`` allow.
    """
    numbers: list[Number] = []
    operators: list[Token] = []
    groups: set[tuple[int, int]] = set()
    opened: list[int] = []
    operand = True  # what comes next
    for token in tokens:
        if operand and token.kind == "number" and token.number:
            numbers.append(token.number)
            operand = False
        elif operand and token.kind == "open":
            opened.append(len(numbers))
        elif not operand and token.kind == "operator":
            operators.append(token)
            operand = True
        elif not operand and token.kind == "close" and opened:
            groups.add((opened.pop(), len(numbers) - 1))
        else:
            raise Unreadable("unreadable equation")
        if len(opened) > MAX_NESTING or len(operators) > MAX_OPERATIONS:
            raise Unreadable("too complex")
    if operand or opened:
        raise Unreadable("unreadable equation")
    return Written(tuple(numbers), tuple(operators), real_groups(groups, len(numbers)))


def split_at_equals(run: list[Token]) -> Iterator[list[Token]]:
    """What stands left, between and right of the equals signs; empty where nothing does."""
    part: list[Token] = []
    for token in run:
        if token.kind == "equals":
            yield part
            part = []
        else:
            part.append(token)
    yield part


def real_groups(groups: set[tuple[int, int]], size: int) -> Groups:
    """Without those around one number or around everything, which mean nothing."""
    return tuple(sorted(group for group in groups if group[0] < group[1] and group != (0, size - 1)))


# Exact values

_BINDS = {"+": 1, "-": 1, "*": 2, "/": 2}


def apply(left: Fraction, sign: str, right: Fraction) -> Fraction | None:
    """None where it divides by zero."""
    if sign == "+":
        return left + right
    if sign == "-":
        return left - right
    if sign == "*":
        return left * right
    return left / right if right else None


Tree = int | tuple[str, "Tree", "Tree"]


@lru_cache(maxsize=4096)
def tree_of(shape: Shape) -> Tree:
    """In which order the signs work: a number's place, or (sign, left, right)."""

    def grow(first: int, last: int) -> Tree:
        if first == last:
            return first
        split = _split(shape, first, last)
        return shape.signs[split], grow(first, split), grow(split + 1, last)

    return grow(0, len(shape.signs))


def _split(shape: Shape, first: int, last: int) -> int:
    """The sign that is worked out last."""
    open_signs = _top_level(shape, first, last)
    weakest = min(_BINDS[shape.signs[at]] for at in open_signs)
    return max(at for at in open_signs if _BINDS[shape.signs[at]] == weakest)


def _top_level(shape: Shape, first: int, last: int) -> list[int]:
    """Signs between these numbers that no parentheses inside enclose."""
    inner = [group for group in shape.groups if first <= group[0] and group[1] <= last and group != (first, last)]
    return [at for at in range(first, last) if not any(low <= at < high for low, high in inner)]


def value_of(shape: Shape, numbers: Sequence[Fraction]) -> Fraction | None:
    """None where it divides by zero."""

    def work(tree: Tree) -> Fraction | None:
        if isinstance(tree, int):
            return numbers[tree]
        sign, left, right = tree[0], work(tree[1]), work(tree[2])
        return None if left is None or right is None else apply(left, sign, right)

    return work(tree_of(shape))


def may_reduce(shape: Shape, first: int, last: int) -> bool:
    """Whether these numbers can be worked out next, on their own, without changing the value of the whole."""
    low, high = 0, len(shape.signs)
    for group in shape.groups:
        if group == (first, last):
            return True
        if group[0] <= first and last <= group[1]:
            if group[1] - group[0] < high - low:
                low, high = group
        elif not (first <= group[0] and group[1] <= last) and not (group[1] < first or last < group[0]):
            return False
    binds = min(_BINDS[shape.signs[at]] for at in _top_level(shape, first, last))
    if first > low:
        left = shape.signs[first - 1]
        # a + b - c may start with b - c, a - b + c may not start with b + c.
        if _BINDS[left] > binds or (_BINDS[left] == binds and left in "-/"):
            return False
    return not (last < high and _BINDS[shape.signs[last]] > binds)
