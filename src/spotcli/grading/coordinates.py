"""Grading sets of cells of a board, such as the winning moves in Connect Four."""

from __future__ import annotations

import json
import re
from collections.abc import Set
from functools import lru_cache

from spotcli.grading import Grade
from spotcli.grading.extraction.boxes import all_boxes
from spotcli.grading.find_answer import strip_thinking

Cells = frozenset[tuple[int, int]]
"""Cells of a board, each (row, column)."""


def grade_coordinates(response: str, reference: str) -> Grade:
    """Grade sets of cells, each of which must equal the reference's set. The order of the cells has no meaning.

    The reference has one of two forms:

    - Labelled lines, as in ``Own: (3, 2)`` and ``Opponent: None``. The response must have a line with each label, and
      its last such line counts. A line with anything but cells or ``None`` is undecided.
    - JSON, a list of sets, each a list of [row, column], as in ``[[[3, 2]], []]``. The response states its sets in the
      same order, ``None`` for an empty one: one box per set, or one line per set at the end, or one box with the sets
      separated by ``;``.
    """
    if labels := _LABEL.findall(reference):
        return _grade_labelled(response, reference, labels)
    try:
        gold = [frozenset((int(row), int(column)) for row, column in cells) for cells in json.loads(reference)]
    except (ValueError, TypeError):
        return Grade("undecided", "the reference is neither labelled lines nor a JSON list of sets of [row, column]")
    return _grade_in_order(response, gold)


# --- labelled lines ---

_LABEL = re.compile(r"^([A-Za-z][\w ]*):", re.MULTILINE)
_CELL = re.compile(r"\(\s*([0-9]{1,9})\s*,\s*([0-9]{1,9})\s*\)")
_BETWEEN_CELLS = re.compile(r"(?:[\s,;.{}\[\]*_`$\\]|\band\b)*")
_NO_CELLS = ("none", "{}", "[]", "∅", "\\emptyset")


def write_cells(cells: Set[tuple[int, int]]) -> str:
    """The cells as the text of a labelled line, sorted: ``(0, 4), (3, 2)``, or ``None``."""
    return ", ".join(f"({row}, {column})" for row, column in sorted(cells)) or "None"


def _grade_labelled(response: str, reference: str, labels: list[str]) -> Grade:
    answer: dict[str, Cells] = {}
    for label in labels:
        cells = labelled_cells(response, label)
        if isinstance(cells, str):
            return Grade("undecided", cells)
        answer[label] = cells
    extracted = "\n".join(f"{label}: {write_cells(cells)}" for label, cells in answer.items())
    right = all(labelled_cells(reference, label) == cells for label, cells in answer.items())
    return Grade("right" if right else "wrong", extracted=extracted)


def labelled_cells(text: str, label: str) -> Cells | str:
    """The cells in the last line with a label, or the reason why they cannot be read."""
    lines = _label_pattern(label).findall(text)
    if not lines:
        return f"no line begins with '{label}:'"
    value = lines[-1]
    cells = frozenset((int(row), int(column)) for row, column in _CELL.findall(value))
    if cells and _BETWEEN_CELLS.fullmatch(_CELL.sub(" ", value)):
        return cells
    if value.strip(" \t\r.*_`$").casefold() in _NO_CELLS:
        return frozenset()
    return f"the line '{label}:' contains something other than cells"


@lru_cache(maxsize=64)
def _label_pattern(label: str) -> re.Pattern[str]:
    return re.compile(rf"^[^\w\n]*{re.escape(label)}[^\w\n:]*:[^\S\n]*(.*)$", re.IGNORECASE | re.MULTILINE)


# --- sets in order ---

_PAIR = re.compile(r"[(\[]\s*(-?\d{1,4})\s*,\s*(-?\d{1,4})\s*[)\]]")
_NONE = re.compile(r"\b(?:none|empty|no (?:winning )?moves?)\b|\\emptyset|∅|\[\s*\]|\{\s*\}", re.IGNORECASE)


def _grade_in_order(response: str, gold: list[Cells]) -> Grade:
    candidates = _candidates(strip_thinking(response), len(gold))
    if len(candidates) < len(gold):
        return Grade("undecided", f"sets of coordinates: expected {len(gold)}, got {len(candidates)}")
    chosen = candidates[len(candidates) - len(gold) :]
    answer = [read_coordinates(text) for text in chosen]
    extracted = " ; ".join(text.strip() for text in chosen)[:500]
    if any(cells is None for cells in answer):
        return Grade("undecided", "a set contains neither coordinates nor None", extracted)
    return Grade("right" if answer == gold else "wrong", "", extracted)


def _candidates(text: str, expected: int) -> list[str]:
    """The parts of a response that may be sets of cells: its boxes, else its last lines."""
    candidates = [box.content for box in all_boxes(text)[0]]
    if len(candidates) == 1 and expected > 1:
        candidates = re.split(r";|\\\\|\n", candidates[0])
    if len(candidates) >= expected:
        return candidates
    lines = [line.rsplit(":", 1)[-1] for line in text.splitlines() if line.strip()]
    return [line for line in lines[-3 * expected :] if read_coordinates(line) is not None]


def read_coordinates(text: str) -> Cells | None:
    """The cells in ``(0, 4), (1,2)``; the empty set for ``None``; None for other texts."""
    text = re.sub(r"\\(?:text|mathrm|left|right)|[\\{}$*`]", lambda m: m[0] if m[0] in "{}" else " ", text)
    pairs = _PAIR.findall(text)
    rest = _PAIR.sub(" ", text)
    if pairs:
        return None if re.search(r"\d", rest) else frozenset((int(row), int(column)) for row, column in pairs)
    return frozenset() if _NONE.search(text) and not re.search(r"\d", rest) else None
