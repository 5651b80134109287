"""A small language to choose pairs: ``ratio>0.3, verdict=right and source~gsm8k``.

    EXPR   TERM, TERM ...   or   TERM and TERM ...      every term must hold
    TERM   FIELD OP VALUE
    OP     =  !=             the same, not the same; on text without regard to case
           ~  !~             the text holds VALUE, does not hold it
           <  <=  >  >=      numbers
    VALUE  up to the next comma or `and`, or in quotes; `none` is a text that is not there

Nothing of it is ever run as code.
"""

from __future__ import annotations

import difflib
import math
import operator
import re
from collections.abc import Callable
from typing import get_args

from spotcli.errors import UserError
from spotcli.inspection.pair_facts import first_edit_share, oracle_name, prompt_text, ratio_of
from spotcli.records import Pair, Verdict

Test = Callable[[Pair], bool]

_TERM = re.compile(
    r"""\s*(?P<field>[A-Za-z_]+)\s*(?P<op>>=|<=|!=|!~|==|=|~|<|>)\s*
        (?P<value>"[^"]*"|'[^']*'|.*?)(?:\s*,|\s+and\s+|\s*\Z)""",
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)


NUMBERS: dict[str, Callable[[Pair], float]] = {
    "ratio": ratio_of,
    "first": first_edit_share,
    "trial": lambda pair: pair.trial,
    "length": lambda pair: len(pair.chosen),
}
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
CHOICES = {"verdict": (*get_args(Verdict), "none"), "review": ("accept", "reject", "edited", "none")}
OTHER_NAMES = {"change_ratio": "ratio"}

_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def parse(expression: str) -> Test:
    """The test that an expression describes.

    Raises:
        UserError: it can't be read, names an unknown field, or compares a field with what it never is.
    """
    tests: list[Test] = []
    expression, place = expression.strip(), 0
    while place < len(expression) or not tests:
        term = _TERM.match(expression, place)
        if term is None or not term["value"]:
            raise _error(
                f"can't read {expression[place:].strip()!r}" if expression.strip() else "it is empty", expression
            )
        tests.append(_test(term["field"].lower(), term["op"].replace("==", "="), _unquoted(term["value"]), expression))
        place = term.end()
    return lambda pair: all(test(pair) for test in tests)


def _test(field: str, op: str, value: str, expression: str) -> Test:
    field = OTHER_NAMES.get(field, field)
    if field in NUMBERS:
        return _number_test(field, op, value, expression)
    if field not in TEXTS:
        near = difflib.get_close_matches(field, [*NUMBERS, *TEXTS], n=1)
        cure = f"did you mean '{near[0]}'?" if near else f"the fields are {', '.join([*NUMBERS, *TEXTS])}"
        raise _error(f"there is no field '{field}'", expression, cure)
    if op not in ("=", "!=", "~", "!~"):
        raise _error(f"'{field}' is text, which {op} does not compare", expression, "take =, !=, ~ (holds) or !~")
    wanted = value.casefold()
    if field in CHOICES and op in ("=", "!=") and wanted not in CHOICES[field]:
        raise _error(f"'{field}' is never {value!r}", expression, f"it is one of {', '.join(CHOICES[field])}")
    get = TEXTS[field]

    def holds(pair: Pair) -> bool:
        found = get(pair)
        text = "none" if found is None and op in ("=", "!=") else (found or "").casefold()
        return (text == wanted if op in ("=", "!=") else wanted in text) is not op.startswith("!")

    return holds


def _number_test(field: str, op: str, value: str, expression: str) -> Test:
    get = NUMBERS[field]
    if op not in _COMPARE:
        raise _error(f"'{field}' is a number, which {op} does not compare", expression, "take =, !=, <, <=, > or >=")
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if math.isnan(number):
        raise _error(f"'{field}' is a number, and {value!r} is none", expression)
    compare = _COMPARE[op]
    return lambda pair: compare(get(pair), number)


def _unquoted(value: str) -> str:
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'" else value


def _error(message: str, expression: str, cure: str | None = None) -> UserError:
    example = "terms such as ratio>0.3, verdict=right, source~gsm8k, joined by commas"
    return UserError(message, where=f"--where {expression!r}", cure=cure or example)
