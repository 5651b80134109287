"""Comparing groups of answers: lists, tuples, sets, matrices and ratios.

``same`` compares two members: True, False, or None where that is undecided or needs algebra.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from fractions import Fraction

from spotcli.grading.compare import Undecidable
from spotcli.grading.compare.answer_tree import Node, flatten
from spotcli.grading.compare.quantities import read_quantity
from spotcli.grading.compare.relations import values_by_name
from spotcli.grading.latex import canonical

COLLECTIONS = ("list", "tuple", "set")
_MAX_MEMBERS = 40
VECTOR = re.compile(r"\\(?:text|hat|vec)\s*\{\s*[ijk]\s*\}|\\hat\s*[ijk]")
"""A unit vector in a sum such as 2i + 3j."""
_ONE_VALUE = re.compile(r"\bor\b|\bi\.?e\b|equivalent|\bthat is\b")

Same = Callable[[Node, Node], bool | None]


def all_same(results: Iterable[bool | None]) -> bool | None:
    """False if one result is False, None if one is None, else True."""
    values = list(results)
    return False if False in values else None if None in values else True


def names_one_value(group: Node) -> bool:
    """Whether a list such as ``3/4 or 0.75`` may state one value in several ways."""
    return bool(_ONE_VALUE.search(group.text))


def same_collections(gold: Node, answer: Node, same: Same) -> bool | None:
    """Compare two lists, tuples or sets.

    Raises:
        Undecidable: they differ only in repetitions or in the kind of brackets.
    """
    gold_items = flatten(gold.items) if gold.kind == "list" else list(gold.items)
    answer_items = flatten(answer.items) if answer.kind == "list" else list(answer.items)
    if any(node.text == "\\ldots" for node in (*gold_items, *answer_items)):
        raise Undecidable("a list with an ellipsis")
    if (same_named := _same_named(gold_items, answer_items, same)) is not None:
        return same_named
    same_length = len(gold_items) == len(answer_items)
    ordered = all_same(map(same, gold_items, answer_items)) if same_length else False
    if gold.kind == answer.kind == "tuple":
        if same_length and len(gold_items) == 2 and gold.brackets and answer.brackets:
            return ordered if gold.brackets == answer.brackets else False  # [0, 1) is not (0, 1]
        return ordered
    if "tuple" in (gold.kind, answer.kind):
        group = gold if gold.kind == "tuple" else answer
        if ordered is True and group.brackets in ("()", "") and "set" not in (gold.kind, answer.kind):
            return True
        named = values_by_name(answer_items if gold.kind == "tuple" else gold_items)
        if named and len(named) > 1 and list(named) == sorted(named):  # x = 3, y = -2 is (3, -2)
            return ordered
        unordered = same_members(gold_items, answer_items, same)
        if unordered is True:
            raise Undecidable("the same values, but only one side is a tuple")
        return unordered
    if not same_length:
        gold_unique, answer_unique = (
            {canonical(node.text): node for node in nodes}.values() for nodes in (gold_items, answer_items)
        )
        if len(gold_unique) == len(answer_unique) and same_members(gold_unique, answer_unique, same):
            raise Undecidable("the same values, but some are repeated on one side")
    unordered = ordered or same_members(gold_items, answer_items, same)
    if unordered and not ordered and bool(_labels(gold_items)) != bool(_labels(answer_items)):
        raise Undecidable("the same values in another order, and only one side names them")
    return unordered


def _labels(nodes: list[Node]) -> list[str]:
    r"""The names of ``\text{Ann: } 12, \text{Bob: } 8`` or ``5 \text{ red}, 3 \text{ blue}``, if all differ."""
    labels = [" ".join(re.findall(r"[A-Za-z]{2,}", re.sub(r"\\text|\\[a-z]+", " ", node.text))) for node in nodes]
    return labels if all(labels) and len(set(labels)) == len(labels) else []


def _same_named(gold: list[Node], answer: list[Node], same: Same) -> bool | None:
    """Compare ``x = 2, y = 1`` with ``y = 1, x = 2`` by the names; None where the items have no such names."""
    gold_values, answer_values = values_by_name(gold), values_by_name(answer)
    if not gold_values or not answer_values or len(gold_values) < 2 or set(gold_values) != set(answer_values):
        return None
    return all_same(same(value, answer_values[name]) for name, value in gold_values.items())


def same_members(gold: Iterable[Node], answer: Iterable[Node], same: Same) -> bool | None:
    """Whether both have the same members, in any order."""
    gold_items, remaining = list(gold), list(answer)
    if len(gold_items) != len(remaining):
        return False
    if len(gold_items) > _MAX_MEMBERS:
        raise Undecidable(f"more than {_MAX_MEMBERS} members")
    undecided = False
    for item in gold_items:
        results = [same(item, candidate) for candidate in remaining]
        if True in results:
            remaining.pop(results.index(True))
        elif None in results:
            undecided = True
        else:
            return False
    return None if undecided else True


def same_matrices(gold: Node, answer: Node, same: Same) -> bool | None:
    """Compare two matrices cell by cell.

    Raises:
        Undecidable: one is a row and the other a column.
    """
    gold_sizes, answer_sizes = ([len(row.items) for row in node.items] for node in (gold, answer))
    if gold_sizes != answer_sizes:
        if sorted((len(gold_sizes), gold_sizes[0])) == sorted((len(answer_sizes), answer_sizes[0])):
            raise Undecidable("a row compared with a column")
        if "\\cr" not in answer.text and sum(answer_sizes) == 1 and len(gold_sizes) > 1:
            raise Undecidable("a matrix without separators of rows")
        return False
    rows = zip(gold.items, answer.items, strict=True)
    return all_same(
        same(gold_cell, answer_cell)
        for gold_row, answer_row in rows
        for gold_cell, answer_cell in zip(gold_row.items, answer_row.items, strict=True)
    )


def same_piecewise(gold: Node, answer: Node, same: Same) -> bool | None:
    """Compare two functions by cases, row by row.

    Raises:
        Undecidable: the conditions differ, because the same function can be divided in several ways.
    """
    if len(gold.items) == len(answer.items):
        for rows in (answer.items, answer.items[::-1]):
            pairs = list(zip(gold.items, rows, strict=True))
            if all(same(gold_row.items[1], row.items[1]) for gold_row, row in pairs):
                return all_same(same(gold_row.items[0], row.items[0]) for gold_row, row in pairs)
    raise Undecidable("functions with other cases")


_TIME = re.compile(r"\d{1,2}:\d\d")
_HALF_OF_DAY = re.compile(r"\\text\s*\{\s*[ap]m\s*\}")


def same_ratios(gold: Node, answer: Node, same: Same) -> bool | None:
    """Compare two ratios, of which one may be a multiple of the other, or two times.

    Raises:
        Undecidable: only one of two times states whether it is before noon.
    """
    if len(gold.items) != len(answer.items):
        return False
    times = bool(_TIME.search(gold.text) and _TIME.search(answer.text))
    pairs = list(zip(gold.items, answer.items, strict=True))
    equal = all_same(same(gold_part, answer_part) for gold_part, answer_part in pairs)
    if equal is False and times and bool(_HALF_OF_DAY.search(gold.text)) != bool(_HALF_OF_DAY.search(answer.text)):
        raise Undecidable("a time with and without a.m. or p.m.")
    if equal is not False or re.search(r"\d:\d\d", gold.text):  # 12:00 is a time
        return equal
    quantities = [(read_quantity(gold_part.text), read_quantity(answer_part.text)) for gold_part, answer_part in pairs]
    factors = set()
    for gold_quantity, answer_quantity in quantities:
        if not gold_quantity or not answer_quantity:
            return None
        gold_value, answer_value = gold_quantity.number.value, answer_quantity.number.value
        if not isinstance(gold_value, Fraction) or not isinstance(answer_value, Fraction):
            return None
        if not gold_value or not answer_value:
            return equal
        factors.add(gold_value / answer_value)
    return len(factors) == 1
