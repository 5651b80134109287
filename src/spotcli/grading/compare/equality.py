"""Comparing two answers.

``equal(gold, answer)`` parses both into small trees (lists, tuples, sets, intervals, unions, matrices, relations,
ratios; the leaves are numbers with units, words, or formulas) and compares the trees. The result is

* ``True``: proved equal;
* ``False``: proved different;
* ``None``: undecided without algebra; call it again with ``symbolic``, in a worker process.

The same code runs in the caller's process (without ``symbolic``, on the standard library alone) and in the worker.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction
from typing import Protocol

from spotcli.grading.compare import Undecidable
from spotcli.grading.compare.answer_tree import (
    Node,
    as_union,
    flatten,
    interval_of,
    mentions,
    named_value,
    nameless,
    readings,
)
from spotcli.grading.compare.choices import same_choice, without_choice
from spotcli.grading.compare.exact_numbers import TooLarge
from spotcli.grading.compare.leaves import PROSE, is_scalar, read_quantity, same_leaves, without_units
from spotcli.grading.latex import canonical, tidy

MAX_LENGTH = 1000
"""Characters; longer texts are not compared, except plain integers."""
_MAX_MEMBERS = 40
_COLLECTIONS = ("list", "tuple", "set")


class Symbolic(Protocol):
    """Compares LaTeX texts with algebra; None where it can prove neither equality nor difference."""

    def expression(self, gold: str, answer: str) -> bool | None: ...
    def relation(self, gold: str, answer: str) -> bool | None: ...


def equal(gold: str, answer: str, symbolic: Symbolic | None = None) -> bool | None:
    """Compare a reference with an answer, both as found in their texts.

    Returns:
        Whether they are equal; None where that needs algebra.

    Raises:
        Undecidable: algebra would not decide it either, for example because a unit is missing.
    """
    if gold == answer and gold:
        return True
    if len(gold) > MAX_LENGTH or len(answer) > MAX_LENGTH:
        return _same_long_integers(gold.strip(), answer.strip())
    try:
        gold, answer = tidy(gold), tidy(answer)
    except ValueError as error:
        raise Undecidable(str(error)) from error
    if not answer or not gold:
        raise Undecidable("the answer is empty" if gold else "the reference is empty")
    if canonical(gold) == canonical(answer):
        return True
    if (same := same_choice(gold, answer)) is not None:
        return same
    answer = without_choice(answer)
    compare = _Comparison(symbolic)
    results = [
        compare.nodes(gold_node, answer_node)
        for gold_node in readings(gold, european=False)
        for answer_node in readings(answer, european=True)
    ]
    if True in results:
        return True
    if None in results and compare.doubt and not compare.needs_algebra:
        raise Undecidable(compare.doubt)
    return None if None in results else False


def _same_long_integers(gold: str, answer: str) -> bool:
    if re.fullmatch(r"\d+", gold) and re.fullmatch(r"\d+", answer):
        return gold.lstrip("0") == answer.lstrip("0")
    raise Undecidable(f"the answer is longer than {MAX_LENGTH} characters")


def _all(results: Iterable[bool | None]) -> bool | None:
    values = list(results)
    return False if False in values else None if None in values else True


def _key(name: str) -> str:
    return re.sub(r"[\s{}]", "", canonical(name))


def _scalar(node: Node) -> bool:
    return node.kind == "leaf" and is_scalar(node.text)


class _Comparison:
    """Compares the nodes of two trees, each ``gold`` with an ``answer``."""

    def __init__(self, symbolic: Symbolic | None) -> None:
        self.symbolic = symbolic
        self.needs_algebra = False
        """Whether a formula is left for a call with ``symbolic``."""
        self.doubt = ""
        """Why a part of the answer is undecided; another part may still be wrong."""

    def nodes(self, gold: Node, answer: Node) -> bool | None:
        try:
            return self._nodes(gold, answer)
        except Undecidable as doubt:
            self.doubt = str(doubt)
            return None
        except TooLarge:
            self.doubt = "number too large to compare"
            return None

    def _nodes(self, gold: Node, answer: Node) -> bool | None:
        if canonical(gold.text) == canonical(answer.text):
            return True
        gold, answer = as_union(self._single(gold)), as_union(self._single(answer))
        kinds = (gold.kind, answer.kind)
        if "relation" in kinds:
            return self._with_relation(gold, answer)
        if kinds == ("leaf", "leaf"):
            return self._leaves(gold.text, answer.text)
        if "matrix" in kinds:
            return self._with_matrix(gold, answer)
        if kinds == ("ratio", "ratio"):
            return self._ratios(gold, answer)
        if "union" in kinds:
            return self._with_union(gold, answer)
        if gold.kind in _COLLECTIONS or answer.kind in _COLLECTIONS:
            return self._with_collection(gold, answer)
        return self._expression(gold.text, answer.text)

    def _single(self, node: Node) -> Node:
        """The member of a list with one member; a set without repeated members."""
        if node.kind == "list" and len(members := flatten(node.items)) == 1:
            return members[0]
        if node.kind == "set":
            return replace(node, items=tuple({canonical(item.text): item for item in node.items}.values()))
        return node

    # relations

    def _with_relation(self, gold: Node, answer: Node) -> bool | None:
        if gold.kind == answer.kind:
            return self._relations(gold, answer)
        return self._relation_and_other(gold, answer)

    def _relations(self, gold: Node, answer: Node) -> bool | None:
        gold_value, answer_value = named_value(gold), named_value(answer)
        if gold_value and answer_value:
            (gold_name, gold_node), (answer_name, answer_node) = gold_value, answer_value
            same = self.nodes(gold_node, answer_node)
            if _key(gold_name) == _key(answer_name) or (same and nameless(gold_name, answer_name)):
                return same
            if same:  # x=1 and y=1
                raise Undecidable("the same value for different names")
            if not mentions(gold_value, answer_value):
                return same
        gold_interval, answer_interval = interval_of(gold) or gold_value, interval_of(answer) or answer_value
        if gold_interval and answer_interval and gold_interval[0] == answer_interval[0]:
            return self.nodes(gold_interval[1], answer_interval[1])
        parts = zip(gold.items, answer.items, strict=False)
        if gold.operators == answer.operators and _all(self.nodes(g, a) for g, a in parts):
            return True
        if self.symbolic is None:
            self.needs_algebra = True
            return None
        return self.symbolic.relation(gold.text, answer.text)

    def _relation_and_other(self, gold: Node, answer: Node) -> bool | None:
        """``x = 5`` compared with ``5``, ``x > 2`` with an interval."""
        relation, other = (gold, answer) if gold.kind == "relation" else (answer, gold)

        def compare_with(value: Node) -> bool | None:
            return self.nodes(value, other) if relation is gold else self.nodes(other, value)

        if value := named_value(relation):
            return compare_with(value[1])
        if (interval := interval_of(relation)) and other.kind in ("tuple", "union"):
            return compare_with(interval[1])
        if set(relation.operators) <= {"="} and other.kind == "leaf":
            same = compare_with(relation.items[-1])
            numeric = all(read_quantity(item.text) for item in relation.items)
            if same is False or (same and numeric):
                return same if numeric or relation is answer else None
            raise Undecidable("an equation compared with a value")
        return self._expression(gold.text, answer.text)

    # collections

    def _with_union(self, gold: Node, answer: Node) -> bool | None:
        if _scalar(gold) or _scalar(answer):
            return False
        if gold.kind == answer.kind and self._members(gold.items, answer.items):
            return True
        return self._expression(gold.text, answer.text)

    def _with_collection(self, gold: Node, answer: Node) -> bool | None:
        if gold.kind in _COLLECTIONS and answer.kind in _COLLECTIONS:
            return self._collections(gold, answer)
        leaf, group = (answer, gold) if gold.kind in _COLLECTIONS else (gold, answer)
        if len(group.items) > 1 and _scalar(leaf):
            if group.kind == "list" and all(self.nodes(leaf, member) for member in flatten(group.items)):
                raise Undecidable("the same value, but repeated on one side")
            return False
        return self._expression(gold.text, answer.text)

    def _collections(self, gold: Node, answer: Node) -> bool | None:
        gold_items = flatten(gold.items) if gold.kind == "list" else list(gold.items)
        answer_items = flatten(answer.items) if answer.kind == "list" else list(answer.items)
        same_length = len(gold_items) == len(answer_items)
        ordered = (
            _all(self.nodes(g, a) for g, a in zip(gold_items, answer_items, strict=True)) if same_length else False
        )
        if gold.kind == answer.kind == "tuple":
            if same_length and len(gold_items) == 2 and gold.brackets and answer.brackets:
                return ordered if gold.brackets == answer.brackets else False  # [0, 1) is not (0, 1]
            return ordered
        if "tuple" in (gold.kind, answer.kind):
            group = gold if gold.kind == "tuple" else answer
            if ordered is True and group.brackets in ("()", "") and "set" not in (gold.kind, answer.kind):
                return True
            unordered = self._members(gold_items, answer_items)
            if unordered is True:
                raise Undecidable("the same values, but only one side is a tuple")
            return unordered
        if not same_length:
            gold_unique, answer_unique = (
                {canonical(node.text): node for node in nodes}.values() for nodes in (gold_items, answer_items)
            )
            if len(gold_unique) == len(answer_unique) and self._members(gold_unique, answer_unique):
                raise Undecidable("the same values, but some are repeated on one side")
        return ordered or self._members(gold_items, answer_items)

    def _members(self, gold: Iterable[Node], answer: Iterable[Node]) -> bool | None:
        """Whether both have the same members, in any order."""
        gold_items, remaining = list(gold), list(answer)
        if len(gold_items) != len(remaining):
            return False
        if len(gold_items) > _MAX_MEMBERS:
            raise Undecidable(f"more than {_MAX_MEMBERS} members")
        undecided = False
        for item in gold_items:
            results = [self.nodes(item, candidate) for candidate in remaining]
            if True in results:
                remaining.pop(results.index(True))
            elif None in results:
                undecided = True
            else:
                return False
        return None if undecided else True

    def _with_matrix(self, gold: Node, answer: Node) -> bool | None:
        if gold.kind == answer.kind:
            return self._matrices(gold, answer)
        matrix, other = (gold, answer) if gold.kind == "matrix" else (answer, gold)
        if _scalar(other) and sum(len(row.items) for row in matrix.items) > 1:
            return False
        cells = [cell for row in matrix.items for cell in row.items]
        if other.kind == "tuple" and (len(matrix.items) == 1 or len(cells) == len(matrix.items)):
            if len(cells) != len(other.items):
                return False
            pairs = zip(cells, other.items, strict=True)
            return _all(self.nodes(*((x, y) if matrix is gold else (y, x))) for x, y in pairs)
        return self._expression(gold.text, answer.text)

    def _matrices(self, gold: Node, answer: Node) -> bool | None:
        gold_sizes, answer_sizes = ([len(row.items) for row in node.items] for node in (gold, answer))
        if gold_sizes != answer_sizes:
            if sorted((len(gold_sizes), gold_sizes[0])) == sorted((len(answer_sizes), answer_sizes[0])):
                raise Undecidable("a row compared with a column")
            return False
        rows = zip(gold.items, answer.items, strict=True)
        return _all(
            self.nodes(gold_cell, answer_cell)
            for gold_row, answer_row in rows
            for gold_cell, answer_cell in zip(gold_row.items, answer_row.items, strict=True)
        )

    def _ratios(self, gold: Node, answer: Node) -> bool | None:
        if len(gold.items) != len(answer.items):
            return False
        pairs = list(zip(gold.items, answer.items, strict=True))
        same = _all(self.nodes(gold_part, answer_part) for gold_part, answer_part in pairs)
        if same is not False or re.search(r"\d:\d\d", gold.text):  # 12:00 is a time
            return same
        quantities = [
            (read_quantity(gold_part.text), read_quantity(answer_part.text)) for gold_part, answer_part in pairs
        ]
        factors = set()
        for gold_quantity, answer_quantity in quantities:
            if not gold_quantity or not answer_quantity:
                return None
            gold_value, answer_value = gold_quantity.number.value, answer_quantity.number.value
            if not isinstance(gold_value, Fraction) or not isinstance(answer_value, Fraction):
                return None
            if not gold_value or not answer_value:
                return same
            factors.add(gold_value / answer_value)
        return len(factors) == 1

    # leaves

    def _leaves(self, gold: str, answer: str) -> bool | None:
        same = same_leaves(gold, answer)
        return self._expression(gold, answer) if same is None else same

    def _expression(self, gold: str, answer: str) -> bool | None:
        gold, answer = without_units(gold, answer)
        if canonical(gold) == canonical(answer):
            return True
        if set(PROSE.findall(gold)) != set(PROSE.findall(answer)):  # sympy would read words as products of letters
            raise Undecidable("different words in a formula")
        if self.symbolic is None:
            self.needs_algebra = True
            return None
        return self.symbolic.expression(gold, answer)
