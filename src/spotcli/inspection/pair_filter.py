"""The filter of ``--where``: the fields of each kind of row, and the predicate of an expression.

    ratio>0.3 and (verdict=right or source~gsm8k), not oracle=none

    OP     =  !=             equal, not equal; text is compared without regard to case
           ~  !~             the text contains VALUE, does not contain it
           <  <=  >  >=      numbers
    VALUE  `none` is equal to a missing text or number; no other comparison with a missing number holds

The words won, lost, both and neither are terms alone, for ``change=`` them: scores that are compared with a base
model's. ``filter_syntax`` has the grammar.
"""

from __future__ import annotations

import difflib
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar, get_args

from spotcli.inspection.filter_syntax import FilterError, Parser, Predicate, Term, shortened
from spotcli.inspection.pair_facts import (
    PAIR_KINDS,
    cost,
    first_edit_share,
    oracle_name,
    pair_change_ratio,
    pair_kind,
    prompt_text,
)
from spotcli.records import FinishReason, Pair, Problem, Score, Verdict
from spotcli.reviews import REVIEWS
from spotcli.score_changes import CHANGES, ProblemChange, ProblemKey

CHANGE = "change"
"""The field with the change of a problem from a base model's answers."""

WORDS: Mapping[str, str] = dict.fromkeys(CHANGES, CHANGE)
"""Values that are a term alone, with their field."""

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

    @property
    def names(self) -> list[str]:
        return [*self.numbers, *self.texts]

    def name(self, written: str) -> str:
        """Return the name of a field as it was written."""
        lower = written.lower()
        return self.other_names.get(lower, lower)


PAIR_FIELDS: Fields[Pair] = Fields(
    numbers={
        "ratio": lambda pair: None if pair.rejected is None else pair_change_ratio(pair),
        "first": lambda pair: None if pair.rejected is None else first_edit_share(pair),
        "trial": lambda pair: pair.trial,
        "length": lambda pair: len(pair.chosen),
        "cost": cost,
    },
    texts={
        "kind": pair_kind,
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
    choices={"kind": PAIR_KINDS, "verdict": (*get_args(Verdict), "none"), "review": (*REVIEWS, "none")},
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
    return replace(SCORE_FIELDS, texts=texts, choices={**SCORE_FIELDS.choices, CHANGE: CHANGES})


_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_EQUALITY = ("=", "!=")

NUMBER_OPERATORS = tuple(_COMPARE)
TEXT_OPERATORS = (*_EQUALITY, "~", "!~")


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
        if self.where is None:
            return False
        terms: list[Term] = []

        def noted(term: Term) -> Predicate:
            terms.append(term)
            return bool

        _parse(self.where, noted, compared_fields({}))
        return any(term.field == CHANGE for term in terms)


ALL_PAIRS = Selection()


def parse(expression: str, fields: Fields[Any] = PAIR_FIELDS) -> Predicate:
    """Return the predicate that an expression describes.

    Args:
        expression: in the filter language.
        fields: those of the kind of row that the predicate gets.

    Raises:
        FilterError: invalid syntax, an unknown field, or an operator or a value that the field does not have.
    """
    return _parse(expression, lambda term: _predicate(fields, term, expression), fields)


def _parse(expression: str, predicate: Callable[[Term], Predicate], fields: Fields[Any]) -> Predicate:
    def is_closed(name: str, op: str) -> bool:
        name = fields.name(name)
        return name in fields.numbers or (op in _EQUALITY and name in fields.choices)

    def cure(word: str) -> str | None:
        name = fields.name(word)
        if name in fields.names:
            operators = NUMBER_OPERATORS if name in fields.numbers else TEXT_OPERATORS
            return f"'{name}' requires one of the operators {' '.join(operators)}"
        return _nearest(word, (*fields.names, *(WORDS if CHANGE in fields.texts else ())))

    return Parser(expression, predicate, is_closed, WORDS, cure).parse()


def _nearest(name: str, names: Sequence[str]) -> str | None:
    """The cure for a name that is not known, if a similar one is."""
    near = difflib.get_close_matches(shortened(name).lower(), names, n=1)
    return f"did you mean '{near[0]}'?" if near else None


def _predicate(fields: Fields[Any], term: Term, expression: str) -> Predicate:
    name, op = fields.name(term.field), term.op
    if name in fields.numbers:
        return _number_predicate(name, fields.numbers[name], term, expression)
    if name not in fields.texts:
        raise _unknown_field(fields, term, expression)
    if op not in TEXT_OPERATORS:
        message = f"'{name}' is text, which has no operator {op}"
        raise FilterError(message, expression, term.op_position, "use =, !=, ~ (contains) or !~")
    wanted, choices = term.value.casefold(), fields.choices.get(name)
    if choices and op in _EQUALITY and wanted not in choices:
        message = f"invalid value {shortened(term.value)!r} for '{name}'"
        raise FilterError(message, expression, term.value_position, f"use one of {', '.join(choices)}")
    get = fields.texts[name]

    def matches(row: Any) -> bool:
        text = get(row)
        if op in ("~", "!~"):
            equal = wanted in (text or "").casefold()
        else:
            equal = ("none" if text is None else text.casefold()) == wanted
        return equal is not op.startswith("!")

    return matches


def _number_predicate(name: str, get: Callable[[Any], float | None], term: Term, expression: str) -> Predicate:
    op, value = term.op, term.value
    if op not in _COMPARE:
        message = f"'{name}' is a number, which has no operator {op}"
        raise FilterError(message, expression, term.op_position, "use =, !=, <, <=, > or >=")
    if value.casefold() == "none" and op in _EQUALITY:
        return lambda row: (get(row) is None) is (op == "=")
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if math.isnan(number):
        message = f"expected a number for '{name}', got {shortened(value)!r}"
        raise FilterError(message, expression, term.value_position, f"such as {name}>0.3, or {name}=none")
    compare = _COMPARE[op]

    def matches(row: Any) -> bool:
        known = get(row)
        return known is not None and compare(known, number)

    return matches


def _unknown_field(fields: Fields[Any], term: Term, expression: str) -> FilterError:
    if term.field == CHANGE:
        cure = "inspect scores/MODEL.jsonl with --against scores/BASE.jsonl"
        message = f"{shortened(term.value)!r} selects scores that are compared with a base model's"
        return FilterError(message, expression, term.position, cure)
    cure = _nearest(term.field, fields.names) or f"the fields are {', '.join(fields.names)}"
    return FilterError(f"unknown field '{shortened(term.field)}'", expression, term.position, cure)
