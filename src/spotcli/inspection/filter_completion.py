"""How an unfinished expression of the filter language can go on: fields, operators, values and the words that join."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from spotcli.inspection.pair_filter import CHANGE, NUMBER_OPERATORS, TEXT_OPERATORS, Fields

_QUOTED = re.compile(r"""(?<=[=~<>])(\s*)("[^"]*"|'[^']*')""")
_OPEN_QUOTE = re.compile(r"""[=~<>]\s*["'][^"']*\Z""")
_TERM = re.compile(r"(?:\A|[,(]|\b(?:and|or|not)\s)\s*+(?P<start>[A-Za-z_]*)\Z", re.IGNORECASE)
_OPERATOR = re.compile(r"(?:\A|[\s,(])(?P<field>[A-Za-z_]+) ?\Z")
_VALUE = re.compile(r"(?<![A-Za-z_])(?P<field>[A-Za-z_]++)\s?[!=]?=\s?(?P<start>[A-Za-z_]*+)\Z")
_JOIN = re.compile(r"[^\s,(=~<>]\s(?P<start>[A-Za-z]*)\Z")
READ = 200
"""Characters at the end of an expression that are read."""


@dataclass(frozen=True)
class Completion:
    """What can follow an expression.

    ``options`` are in place of the last ``typed`` characters.
    """

    options: tuple[str, ...] = ()
    typed: int = 0
    proposed: bool = False
    """Whether the first option is likely enough to be shown in the line."""

    def apply(self, text: str, option: str) -> str:
        """Return the expression with an option; letters that were typed stay as they are."""
        return text + option[self.typed :]


def complete(text: str, fields: Fields[Any]) -> Completion:
    """Return what can follow an unfinished expression.

    Args:
        text: the expression up to the cursor.
        fields: those of the kind of row.
    """
    # Quoted values become one letter: words in them are no words of the language.
    text = _QUOTED.sub("x", text[-READ:])
    if _OPEN_QUOTE.search(text):
        return Completion()
    if term := _TERM.search(text):
        words = [name for name in fields.choices.get(CHANGE, ()) if CHANGE in fields.texts]
        return _starting(term["start"], [*_fields(fields), *words, "not "])
    if (operator := _OPERATOR.search(text)) and (name := fields.name(operator["field"])) in fields.names:
        return Completion(NUMBER_OPERATORS if name in fields.numbers else TEXT_OPERATORS)
    if value := _VALUE.search(text):
        name = fields.name(value["field"])
        return _starting(value["start"], fields.choices.get(name, ()), proposed=True)
    if join := _JOIN.search(text):
        return _starting(join["start"], ["and ", "or "])
    return Completion()


def _fields(fields: Fields[Any]) -> list[str]:
    """The fields, each with the operator that is used most."""
    usual = dict.fromkeys(fields.texts, "~") | dict.fromkeys(fields.choices, "=") | dict.fromkeys(fields.numbers, ">")
    return [f"{name}{usual[name]}" for name in fields.names]


def _starting(start: str, options: list[str] | tuple[str, ...], *, proposed: bool = False) -> Completion:
    """The options that start with what was typed, without those that were typed whole."""
    lower = start.casefold()
    matching = tuple(option for option in options if option.startswith(lower) and option != lower)
    return Completion(matching, len(start), proposed=bool(start) or proposed)
