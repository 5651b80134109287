"""The filter language of ``--where``, as in ``ratio>0.3, verdict=right and source~gsm8k``.

    EXPR   TERM, TERM ...   or   TERM and TERM ...      every term must match
    TERM   FIELD OP VALUE
    OP     =  !=             equal, not equal; text is compared without regard to case
           ~  !~             the text contains VALUE, does not contain it
           <  <=  >  >=      numbers
    VALUE  up to the next comma or `and`, or in quotes; `none` matches a missing text

An expression is never executed as code.
"""

from __future__ import annotations

import difflib
import math
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

from spotcli.errors import UserError
from spotcli.inspection.pair_facts import first_edit_share, oracle_name, pair_change_ratio, prompt_text
from spotcli.records import Pair, Verdict
from spotcli.reviews import REVIEWS

Predicate = Callable[[Pair], bool]

NUMBERS: dict[str, Callable[[Pair], float]] = {
    "ratio": pair_change_ratio,
    "first": first_edit_share,
    "trial": lambda pair: pair.trial,
    "length": lambda pair: len(pair.chosen),
}
"""Fields that are compared as numbers."""

TEXTS: dict[str, Callable[[Pair], str | None]] = {
    "id": lambda pair: pair.id,
    "source": lambda pair: pair.source,
    "prompt": prompt_text,
    "answer": lambda pair: pair.answer,
    "rejected": lambda pair: pair.rejected,
    "chosen": lambda pair: pair.chosen,
    "oracle": oracle_name,
    "verdict": lambda pair: pair.verdict,
    "review": lambda pair: pair.review,
}
"""Fields that are compared as text."""

CHOICES: dict[str, tuple[str, ...]] = {"verdict": (*get_args(Verdict), "none"), "review": (*REVIEWS, "none")}
"""The only values of some text fields."""

OTHER_NAMES = {"change_ratio": "ratio"}
"""Names that are accepted for a field."""

_TERM = re.compile(
    r"""\s*(?P<field>[A-Za-z_]+)\s*(?P<op>>=|<=|!=|!~|==|=|~|<|>)\s*
        (?P<value>"[^"]*"|'[^']*'|.*?)(?:\s*,|\s+and\s+|\s*\Z)""",
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)

_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True)
class Selection:
    """The pairs to inspect: those that have ``id`` and match ``where``; without either, all of them."""

    id: str | None = None
    """All trials of this problem."""
    where: str | None = None
    """An expression of the filter language."""

    def compile(self) -> Predicate:
        """Return the predicate that selects a pair.

        Raises:
            UserError: ``where`` is not a valid expression.
        """
        matches = None if self.where is None else parse(self.where)
        return lambda pair: (self.id is None or pair.id == self.id) and (matches is None or matches(pair))


ALL_PAIRS = Selection()


def parse(expression: str) -> Predicate:
    """Return the predicate that an expression describes.

    Raises:
        UserError: invalid syntax, an unknown field, or an operator or a value that the field does not have.
    """
    predicates: list[Predicate] = []
    expression, position = expression.strip(), 0
    if not expression:
        raise _error("the expression is empty", expression)
    while position < len(expression):
        term = _TERM.match(expression, position)
        if term is None or not term["value"]:
            raise _error(f"expected FIELD OP VALUE, got {expression[position:].strip()!r}", expression)
        value = _without_quotes(term["value"])
        predicates.append(_predicate(term["field"].lower(), term["op"].replace("==", "="), value, expression))
        position = term.end()
    return lambda pair: all(matches(pair) for matches in predicates)


def _predicate(field: str, op: str, value: str, expression: str) -> Predicate:
    field = OTHER_NAMES.get(field, field)
    if field in NUMBERS:
        return _number_predicate(field, op, value, expression)
    if field not in TEXTS:
        near = difflib.get_close_matches(field, [*NUMBERS, *TEXTS], n=1)
        cure = f"did you mean '{near[0]}'?" if near else f"the fields are {', '.join([*NUMBERS, *TEXTS])}"
        raise _error(f"unknown field '{field}'", expression, cure)
    if op not in ("=", "!=", "~", "!~"):
        raise _error(f"'{field}' is text, which has no operator {op}", expression, "use =, !=, ~ (contains) or !~")
    wanted = value.casefold()
    if field in CHOICES and op in ("=", "!=") and wanted not in CHOICES[field]:
        raise _error(f"invalid value {value!r} for '{field}'", expression, f"use one of {', '.join(CHOICES[field])}")
    get = TEXTS[field]

    def matches(pair: Pair) -> bool:
        text = get(pair)
        if op in ("~", "!~"):
            equal = wanted in (text or "").casefold()
        else:
            equal = ("none" if text is None else text.casefold()) == wanted
        return equal is not op.startswith("!")

    return matches


def _number_predicate(field: str, op: str, value: str, expression: str) -> Predicate:
    get = NUMBERS[field]
    if op not in _COMPARE:
        raise _error(f"'{field}' is a number, which has no operator {op}", expression, "use =, !=, <, <=, > or >=")
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if math.isnan(number):
        raise _error(f"expected a number for '{field}', got {value!r}", expression)
    compare = _COMPARE[op]
    return lambda pair: compare(get(pair), number)


def _without_quotes(value: str) -> str:
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'" else value


def _error(message: str, expression: str, cure: str | None = None) -> UserError:
    default_cure = "separate terms by commas: ratio>0.3, verdict=right, source~gsm8k"
    return UserError(message, where=f"--where {expression!r}", cure=cure or default_cure)
