"""The filter language of ``--where``, as in ``ratio>0.3, verdict=right and source~gsm8k``.

    EXPR   TERM, TERM ...   or   TERM and TERM ...      every term must match
    TERM   FIELD OP VALUE
    OP     =  !=             equal, not equal; text is compared without regard to case
           ~  !~             the text contains VALUE, does not contain it
           <  <=  >  >=      numbers
    VALUE  up to the next comma or `and`, or in quotes; `none` matches a missing text
    TERM   won, lost, both or neither alone, for ``change=`` it: scores that are compared with a base model's

An expression is never executed as code.
"""

from __future__ import annotations

import difflib
import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar, get_args

from spotcli.errors import UserError
from spotcli.inspection.pair_facts import cost, first_edit_share, oracle_name, pair_change_ratio, prompt_text
from spotcli.records import FinishReason, Pair, Problem, Score, Verdict
from spotcli.reviews import REVIEWS
from spotcli.score_changes import CHANGES, ProblemChange, ProblemKey

CHANGE = "change"
"""The field with the change of a problem from a base model's answers."""

WORDS: Mapping[str, str] = dict.fromkeys(CHANGES, CHANGE)
"""The changes, each of which is a term alone."""

Predicate = Callable[[Any], bool]
R = TypeVar("R", bound=Problem)


@dataclass(frozen=True)
class Fields(Generic[R]):
    """The fields of a kind of row that an expression can name."""

    numbers: Mapping[str, Callable[[R], float | None]]
    """Fields that are compared as numbers; None if the row has no such number, which only ``none`` equals."""
    texts: Mapping[str, Callable[[R], str | None]]
    """Fields that are compared as text."""
    choices: Mapping[str, tuple[str, ...]]
    """The only values of some text fields."""
    other_names: Mapping[str, str] = field(default_factory=dict)
    """Names that are accepted for a field."""
    words: Mapping[str, str] = field(default_factory=dict)
    """Values that are terms alone, with their field: ``lost`` is short for ``change=lost``."""

    @property
    def names(self) -> list[str]:
        return [*self.numbers, *self.texts]


PAIR_FIELDS: Fields[Pair] = Fields(
    numbers={
        "ratio": pair_change_ratio,
        "first": first_edit_share,
        "trial": lambda pair: pair.trial,
        "length": lambda pair: len(pair.chosen),
        "cost": cost,
    },
    texts={
        "id": lambda pair: pair.id,
        "source": lambda pair: pair.source,
        "prompt": prompt_text,
        "answer": lambda pair: pair.answer,
        "rejected": lambda pair: pair.rejected,
        "chosen": lambda pair: pair.chosen,
        "oracle": oracle_name,
        "verdict": lambda pair: pair.verdict,
        "review": lambda pair: pair.review,
    },
    choices={"verdict": (*get_args(Verdict), "none"), "review": (*REVIEWS, "none")},
    other_names={"change_ratio": "ratio"},
)
"""The fields of pairs."""

SCORE_FIELDS: Fields[Score] = Fields(
    numbers={"trial": lambda score: score.trial, "length": lambda score: len(score.response)},
    texts={
        "id": lambda score: score.id,
        "task": lambda score: score.task,
        "source": lambda score: score.source,
        "prompt": prompt_text,
        "answer": lambda score: score.answer,
        "response": lambda score: score.response,
        "extracted": lambda score: score.extracted,
        "verdict": lambda score: score.verdict,
        "finish": lambda score: score.finish_reason,
        "reason": lambda score: score.reason,
    },
    choices={"verdict": get_args(Verdict), "finish": get_args(FinishReason)},
    other_names={"finish_reason": "finish"},
)
"""The fields of the answers of an evaluation."""


def compared_fields(changes: Mapping[ProblemKey, ProblemChange]) -> Fields[Score]:
    """The fields of answers whose problems are compared with those of a base model: ``SCORE_FIELDS`` and ``change``."""

    def change(score: Score) -> str | None:
        problem = changes.get((score.task, score.id))
        return None if problem is None else problem.change

    texts = {**SCORE_FIELDS.texts, CHANGE: change}
    return replace(SCORE_FIELDS, texts=texts, choices={**SCORE_FIELDS.choices, CHANGE: CHANGES}, words=WORDS)


_TERM = re.compile(
    r"""\s*(?P<field>[A-Za-z_]+)\s*(?P<op>>=|<=|!=|!~|==|=|~|<|>)\s*
        (?P<value>"[^"]*"|'[^']*'|.*?)(?:\s*,|\s+and\s+|\s*\Z)""",
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)

_ANY_CHANGE = "|".join(CHANGES)
_CHANGE = re.compile(rf"\s*(?P<value>{_ANY_CHANGE})(?:\s*,|\s+and\s+|\s*\Z)", re.IGNORECASE)
"""A change alone, which is short for ``change=`` it."""

_OR = re.compile(r"""^[^"'].*\s+or\s+[A-Za-z_]+\s*(?:>=|<=|!=|!~|=|~|<|>)""", re.DOTALL | re.IGNORECASE)
"""Matches a value without quotes in which `or` and another term follow."""

_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True)
class _Term:
    field: str
    op: str
    value: str


@dataclass(frozen=True)
class Selection:
    """The pairs to inspect: those that have ``id`` and match ``where``; without either, all of them."""

    id: str | None = None
    """All trials of this problem."""
    where: str | None = None
    """An expression of the filter language."""

    def compile(self, fields: Fields[Any] = PAIR_FIELDS) -> Predicate:
        """Return the predicate that selects a row.

        Args:
            fields: those of the kind of row.

        Raises:
            UserError: ``where`` is not a valid expression.
        """
        matches = None if self.where is None else parse(self.where, fields)
        return lambda row: (self.id is None or row.id == self.id) and (matches is None or matches(row))

    @property
    def needs_base(self) -> bool:
        """Whether ``where`` selects by the change from a base model's answers.

        Raises:
            UserError: ``where`` has invalid syntax.
        """
        return self.where is not None and any(term.field == CHANGE for term in _terms(self.where))


ALL_PAIRS = Selection()


def parse(expression: str, fields: Fields[Any] = PAIR_FIELDS) -> Predicate:
    """Return the predicate that an expression describes.

    Args:
        expression: terms of the filter language.
        fields: those of the kind of row that the predicate gets.

    Raises:
        UserError: invalid syntax, an unknown field, or an operator or a value that the field does not have.
    """
    predicates = [_predicate(fields, term, expression.strip()) for term in _terms(expression)]
    return lambda row: all(matches(row) for matches in predicates)


def _terms(expression: str) -> Iterator[_Term]:
    """The terms of an expression, whose fields are not checked.

    Raises:
        UserError: invalid syntax.
    """
    expression, position = expression.strip(), 0
    if not expression:
        raise _error("the expression is empty", expression)
    while position < len(expression):
        if change := _CHANGE.match(expression, position):
            yield _Term(CHANGE, "=", change["value"])
            position = change.end()
            continue
        term = _TERM.match(expression, position)
        if term is None or not term["value"]:
            raise _error(f"expected FIELD OP VALUE, got {expression[position:].strip()!r}", expression)
        if _OR.search(term["value"]):
            cure = "every term must match; put quotes around a text that contains `or`"
            raise _error(f"terms cannot be joined by `or`, got {term['value']!r}", expression, cure)
        yield _Term(term["field"].lower(), term["op"].replace("==", "="), _without_quotes(term["value"]))
        position = term.end()


def _predicate(fields: Fields[Any], term: _Term, expression: str) -> Predicate:
    name, op, value = fields.other_names.get(term.field, term.field), term.op, term.value
    if name in fields.numbers:
        return _number_predicate(name, fields.numbers[name], op, value, expression)
    if name not in fields.texts:
        near = difflib.get_close_matches(name, fields.names, n=1)
        cure = f"did you mean '{near[0]}'?" if near else f"the fields are {', '.join(fields.names)}"
        raise _error(f"unknown field '{name}'", expression, cure)
    if op not in ("=", "!=", "~", "!~"):
        raise _error(f"'{name}' is text, which has no operator {op}", expression, "use =, !=, ~ (contains) or !~")
    wanted, choices = value.casefold(), fields.choices.get(name)
    if choices and op in ("=", "!=") and wanted not in choices:
        raise _error(f"invalid value {value!r} for '{name}'", expression, f"use one of {', '.join(choices)}")
    get = fields.texts[name]

    def matches(row: Any) -> bool:
        text = get(row)
        if op in ("~", "!~"):
            equal = wanted in (text or "").casefold()
        else:
            equal = ("none" if text is None else text.casefold()) == wanted
        return equal is not op.startswith("!")

    return matches


def _number_predicate(name: str, get: Callable[[Any], float | None], op: str, value: str, expression: str) -> Predicate:
    if op not in _COMPARE:
        raise _error(f"'{name}' is a number, which has no operator {op}", expression, "use =, !=, <, <=, > or >=")
    if value.casefold() == "none" and op in ("=", "!="):
        return lambda row: (get(row) is None) is (op == "=")
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if math.isnan(number):
        raise _error(f"expected a number for '{name}', got {value!r}", expression)
    compare = _COMPARE[op]

    def matches(row: Any) -> bool:
        known = get(row)
        return known is not None and compare(known, number)

    return matches


def _without_quotes(value: str) -> str:
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'" else value


def _error(message: str, expression: str, cure: str | None = None) -> UserError:
    default_cure = "separate terms by commas: ratio>0.3, verdict=right, source~gsm8k"
    return UserError(message, where=f"--where {expression!r}", cure=cure or default_cure)
