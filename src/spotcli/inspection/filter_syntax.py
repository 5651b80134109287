"""The grammar of the filter language: an expression to terms that are joined by `and`, `or`, `not` and parentheses.

    EXPR   TERMS or TERMS or ...
    TERMS  PART and PART and ...    a comma is `and`
    PART   not PART,  (EXPR),  TERM
    TERM   FIELD OP VALUE, or a word that is a term alone

A value ends at a comma, at `and`, at `or` before another term, or at the closing parenthesis of its group; in quotes it
contains all of them. The value of a number or of a choice ends at any `or` or parenthesis.

A recursive descent without backtracking, in linear time. Nothing of an expression is executed or compiled.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spotcli.errors import UserError

MAX_DEPTH = 50
"""Parentheses and `not` inside one another."""

MAX_LENGTH = 100_000
"""Characters of an expression."""

QUOTED = 60
"""Characters of a long expression that an error shows."""

Predicate = Callable[[Any], bool]

_OP = r"(?:>=|<=|!=|!~|==|=|~|<|>)"
_START = re.compile(rf"(?P<field>[A-Za-z_]+)\s*(?P<op>{_OP})\s*")
_WORD = re.compile(r"(?P<word>[A-Za-z_]+)(?=\s*+(?:[,)]|\Z)|\s++(?:and|or)\b)", re.IGNORECASE)
_NAME = re.compile(r"[A-Za-z_]+")
_ALTERNATIVE = re.compile(r"(?<![A-Za-z_])([A-Za-z_]++)\s*+=\s*+[^\s,()=]++\s++or\s++\Z", re.IGNORECASE)
_NOT = re.compile(rf"not\b(?!\s*{_OP})", re.IGNORECASE)
_JOINED = re.compile(r"\s*+(?:(?P<comma>,)|(?P<word>and|or)\b)", re.IGNORECASE)
_BLANKS = re.compile(r"\s*+")

# A lookbehind before each run of blanks: without it, a search in n blanks takes n * n steps.
_AND = r"(?<!\s)\s++and\s"
_OR = rf"(?<!\s)\s++or\s++(?=(?:\(\s*+|not\b\s*+)*+[A-Za-z_]++\s*+{_OP})"
_TEXT_STOP = re.compile(rf",|{_AND}|{_OR}|[()]", re.IGNORECASE)
_OPEN_QUOTE_STOP = re.compile(rf",|{_AND}|[()]", re.IGNORECASE)
_CLOSED_STOP = re.compile(r"[,()]|(?<!\s)\s++(?:and|or)\b", re.IGNORECASE)
_QUOTES = re.compile(r"""(?:"[^"]*"|'[^']*')(?=\s*+(?:(?P<close>\))|,|\Z)|\s++(?:and|or)\b)""", re.IGNORECASE)


class FilterError(UserError):
    """An invalid expression.

    Args:
        message: the problem.
        expression: as it was written.
        position: the character at which the problem is, from 0; None: the whole expression.
        cure: what helps.
    """

    def __init__(self, message: str, expression: str, position: int | None, cure: str | None = None) -> None:
        place = "" if position is None else f" at character {position + 1}"
        default_cure = "join terms by and, or, not and parentheses: ratio>0.3 and (verdict=right or source~gsm8k)"
        where = f"--where {_excerpt(expression, position or 0)!r}"
        super().__init__(f"{message}{place}", where=where, cure=cure or default_cure)
        self.position = position
        self.args = (message, expression, position, cure)  # pickle creates the exception from these


def shortened(text: str) -> str:
    """Return a part of an expression for an error, which may be long."""
    return text if len(text) <= QUOTED else f"{text[:QUOTED]}..."


def _excerpt(text: str, position: int) -> str:
    """An expression, or the part of a long one around a position."""
    if len(text) <= 4 * QUOTED:
        return text
    start = max(position - QUOTED, 0)
    end = start + 2 * QUOTED
    return f"{'...' if start else ''}{text[start:end]}{'...' if end < len(text) else ''}"


@dataclass(frozen=True)
class Term:
    """A term as it was written, and the places of its field, operator and value in the expression."""

    field: str
    op: str
    value: str
    position: int
    op_position: int
    value_position: int


class Parser:
    """Reads one expression.

    Args:
        expression: what the user wrote.
        term: returns the predicate of a term.
        is_closed: whether the value of a field and an operator is a number or a choice, not any text.
        words: terms that are one word, with their field.
        cure: what helps if a word has no operator.
    """

    def __init__(
        self,
        expression: str,
        term: Callable[[Term], Predicate],
        is_closed: Callable[[str, str], bool],
        words: Mapping[str, str],
        cure: Callable[[str], str | None],
    ) -> None:
        self.expression = expression
        self._term, self._is_closed, self._words, self._cure = term, is_closed, words, cure
        self._end = len(expression.rstrip())
        self._position = 0
        self._groups = 0
        """Open parentheses."""

    def parse(self) -> Predicate:
        """Return the predicate of the whole expression.

        Raises:
            FilterError: invalid syntax, or an error of ``term``.
        """
        if len(self.expression) > MAX_LENGTH:
            raise self._error(f"the expression is longer than {MAX_LENGTH:,} characters", None, "shorten it")
        self._skip_blanks()
        if self._position == self._end:
            raise self._error("the expression is empty", None)
        predicate = self._alternatives(0)
        if self._position < self._end:
            # Only a closing parenthesis ends the alternatives earlier.
            cure = "remove it, or open its group with ("
            raise self._error("closing parenthesis without an opening one", self._position, cure)
        return predicate

    def _alternatives(self, depth: int) -> Predicate:
        """EXPR, up to a closing parenthesis or the end."""
        alternatives, parts = [], [self._part(depth)]
        while joined := self._joined():
            if joined["comma"] and self._at_end_of_group():  # a comma after the last term
                break
            if (joined["word"] or "").casefold() == "or":
                alternatives.append(_every(parts))
                parts = []
            parts.append(self._part(depth))
        return _some([*alternatives, _every(parts)])

    def _joined(self) -> re.Match[str] | None:
        """Read a comma, `and` or `or`; None at the end of the group.

        Raises:
            FilterError: something else is there.
        """
        joined = _JOINED.match(self.expression, self._position, self._end)
        if joined:
            self._position = joined.end()
        else:
            self._skip_blanks()
            if not self._at_end_of_group():
                cure = "join terms by and, or, or a comma; put quotes around a text that contains parentheses"
                raise self._error(f"expected and, or, or the end, got {self._rest()}", self._position, cure)
        self._skip_blanks()
        return joined

    def _part(self, depth: int) -> Predicate:
        """PART, at the current position."""
        if depth > MAX_DEPTH:
            cure = f"nest at most {MAX_DEPTH} parentheses and not"
            raise self._error("the expression is nested too deeply", self._position, cure)
        if negation := _NOT.match(self.expression, self._position, self._end):
            self._position = negation.end()
            self._skip_blanks()
            part = self._part(depth + 1)
            return lambda row: not part(row)
        if self.expression.startswith("(", self._position):
            opened = self._position
            self._position += 1
            self._groups += 1
            self._skip_blanks()
            group = self._alternatives(depth + 1)
            if not self._at(")"):
                raise self._error("parenthesis without an end", opened, "close its group with )")
            self._position += 1
            self._groups -= 1
            return group
        return self._term(self._read_term())

    def _read_term(self) -> Term:
        """TERM, at the current position."""
        begin = self._position
        start = _START.match(self.expression, begin, self._end)
        if start is None:
            word = _WORD.match(self.expression, begin, self._end)
            if word is None or word["word"].casefold() not in self._words:
                raise self._error(f"expected FIELD OP VALUE, got {self._rest()}", begin, self._cure_of_rest())
            self._position = word.end()
            value = word["word"]
            return Term(self._words[value.casefold()], "=", value, begin, begin, begin)
        name, op = start["field"].lower(), start["op"].replace("==", "=")
        closed = self._is_closed(name, op)
        self._position = start.end()
        quoted = _QUOTES.match(self.expression, self._position, self._end)
        if quoted and (closed or self._groups or not quoted["close"]):
            self._position = quoted.end()
        else:
            self._position = self._end_of_value(closed=closed)
        value = self.expression[start.end() : self._position].rstrip()
        if not value:
            raise self._error(f"expected FIELD OP VALUE, got {self.expression[begin : start.end()].strip()!r}", begin)
        return Term(name, op, _without_quotes(value), begin, start.start("op"), start.end())

    def _end_of_value(self, *, closed: bool) -> int:
        """Where the value at the current position ends."""
        stops, opened = (_CLOSED_STOP if closed else _TEXT_STOP), 0
        if not closed and self.expression[self._position : self._position + 1] in ("'", '"'):
            stops = _OPEN_QUOTE_STOP
        for stop in stops.finditer(self.expression, self._position, self._end):
            if closed or stop.group() not in "()":
                return stop.start()
            if stop.group() == "(":
                opened += 1
            elif opened:
                opened -= 1
            elif self._groups:
                return stop.start()
        return self._end

    def _cure_of_rest(self) -> str | None:
        """What helps if no term is at the current position."""
        word = _NAME.match(self.expression, self._position, self._end)
        if word is None:
            return None
        # The value of the term before was meant to have a second one.
        before = _ALTERNATIVE.search(self.expression[: self._position][-QUOTED:])
        return f"repeat the field: {before[1]}={word.group()}" if before else self._cure(word.group())

    def _rest(self) -> str:
        """What follows, for an error."""
        rest = self.expression[self._position : self._end]
        return repr(shortened(rest)) if rest else "the end"

    def _at(self, character: str) -> bool:
        return self._position < self._end and self.expression[self._position] == character

    def _at_end_of_group(self) -> bool:
        return self._position >= self._end or self._at(")")

    def _skip_blanks(self) -> None:
        blanks = _BLANKS.match(self.expression, self._position, self._end)
        self._position = blanks.end() if blanks else self._position

    def _error(self, message: str, position: int | None, cure: str | None = None) -> FilterError:
        return FilterError(message, self.expression, position, cure)


def _every(parts: Sequence[Predicate]) -> Predicate:
    return parts[0] if len(parts) == 1 else lambda row: all(matches(row) for matches in parts)


def _some(parts: Sequence[Predicate]) -> Predicate:
    return parts[0] if len(parts) == 1 else lambda row: any(matches(row) for matches in parts)


def _without_quotes(value: str) -> str:
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'" else value
