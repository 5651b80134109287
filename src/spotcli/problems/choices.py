"""Multiple-choice questions whose choices are not in the prompt: nobody can answer them with a letter."""

from __future__ import annotations

import re
from string import ascii_uppercase
from typing import Any

from spotcli.errors import DataError

_LETTER = re.compile(r"\(?([A-Za-z])\)?\.?")
_LABELS = [re.compile(r"(?<![A-Za-z])A ?[.):\]]"), re.compile(r"(?<![A-Za-z])B ?[.):\]]")]
"""Labels of the first two choices in a prompt: ``A.``, ``(A)``, ``A:``."""


def refuse_unseen_choices(row: dict[str, Any], where: str, *, is_number: bool) -> None:
    """Refuse a question that is to be answered by one of its choices, and whose prompt does not show them.

    Args:
        row: the row, with its reference in ``answer``.
        where: file and line, for the error.
        is_number: whether the reference was written as a number, not as text.

    Raises:
        DataError: the reference is the letter or the index of a choice that is not in the prompt.
    """
    choices = _choices(row)
    answer = str(row.get("answer") or "").strip()
    if len(choices) < 2 or (answer in choices and not is_number):
        return
    letter = _LETTER.fullmatch(answer)
    if len(answer) < 3 and answer.isdecimal() and int(answer) <= len(choices):
        problem = "expected the letter of a choice in 'answer', got its index"
    elif letter and letter[1].upper() in ascii_uppercase[: len(choices)] and not _shows(_text(row), choices):
        problem = "the answer is the letter of a choice, and the prompt does not contain the choices"
    else:
        return
    raise DataError(
        problem,
        where=where,
        cure='write the choices into the prompt and the letter into "answer", and add "grader": "choice"',
    )


def _choices(row: dict[str, Any]) -> list[str]:
    """The texts of the choices: a list, a list of objects, an object, or the columns ``A``, ``B`` ..."""
    for name in ("choices", "options"):
        value = row.get(name)
        if isinstance(value, dict):
            value = value["text"] if isinstance(value.get("text"), list) else [*value.values()]
        if isinstance(value, str):  # a cell of a table
            value = re.findall(r"'([^']*)'|\"([^\"]*)\"", value)
            value = ["".join(texts) for texts in value]
        if isinstance(value, list):
            texts = [item.get("text", item.get("value")) if isinstance(item, dict) else item for item in value]
            return [str(text).strip() for text in texts if text is not None]
    columns: list[str] = []
    for letter in ascii_uppercase:
        if row.get(letter) in (None, ""):
            break
        columns.append(str(row[letter]).strip())
    return columns


def _text(row: dict[str, Any]) -> str:
    """The prompt as text."""
    prompt = next((row[name] for name in ("prompt", "question", "problem") if row.get(name)), "")
    if not isinstance(prompt, list):
        return str(prompt)
    return "\n".join(str(message.get("content")) for message in prompt if isinstance(message, dict))


def _shows(prompt: str, choices: list[str]) -> bool:
    """Whether a prompt contains the choices: their labels, or the texts of half of them."""
    if all(label.search(prompt) for label in _LABELS):
        return True
    plain = "".join(prompt.split()).casefold()
    return 2 * sum("".join(choice.split()).casefold() in plain for choice in choices) >= len(choices)
