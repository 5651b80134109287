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
from dataclasses import replace
from typing import Protocol

from spotcli.grading.compare import Undecidable
from spotcli.grading.compare.answer_tree import Node, decimal_comma, flatten, parse_answer, readings
from spotcli.grading.compare.choices import same_choice, without_choice
from spotcli.grading.compare.exact_numbers import TooLarge
from spotcli.grading.compare.groups import (
    COLLECTIONS,
    VECTOR,
    all_same,
    names_one_value,
    same_collections,
    same_matrices,
    same_members,
    same_piecewise,
    same_ratios,
)
from spotcli.grading.compare.leaves import ROUNDED, is_scalar, same_leaves, same_numbers
from spotcli.grading.compare.quantities import read_quantity, without_units
from spotcli.grading.compare.relations import (
    DATE,
    as_union,
    combined_value,
    equal_for_integers,
    interval_of,
    is_same_function,
    mentions,
    named_value,
    nameless,
    refuse_other_names,
    same_residue,
    split_modulus,
    without_condition,
    without_point,
)
from spotcli.grading.compare.units import is_unit
from spotcli.grading.compare.words import PROSE, is_product, same_items
from spotcli.grading.latex import canonical, is_plain_number, tidy

MAX_LENGTH = 1000
"""Characters; longer texts are not compared, except plain integers."""


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
    if gold == answer or canonical(gold) == canonical(answer):
        return True
    if is_plain_number(gold) and is_plain_number(answer):
        return same_numbers(gold, answer)
    if (same := same_choice(gold, answer)) is not None:
        return same
    if _ROMAN_DIGIT.search(gold) and (same := same_items(gold, answer)) is not None:
        return same
    answer = without_choice(answer)
    same = _same_readings(gold, answer, symbolic)
    return _same_values(gold, answer, symbolic) if same is False else same


_ROMAN_DIGIT = re.compile("[IVXivx]")


def _same_readings(gold: str, answer: str, symbolic: Symbolic | None) -> bool | None:
    """Whether one way to read the answer equals one way to read the reference."""
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


def _same_values(gold: str, answer: str, symbolic: Symbolic | None) -> bool | None:
    """Compare again what differs as a whole: without conditions, and with a decimal comma in the reference.

    Raises:
        Undecidable: the difference is no proof of a mistake.
    """
    gold_value, answer_value = without_condition(gold), without_condition(answer)
    if answer_value or gold_value:
        same = _same_readings(gold_value or gold, answer_value or answer, symbolic)
        if same is False or (same and gold_value and answer_value):
            raise Undecidable("the conditions of the answer and the reference differ")
        return same
    if any(DATE.fullmatch(text) for text in (gold, answer)) and re.search("[A-Za-z]{3}", gold + answer):
        raise Undecidable("a date in another notation")
    if (number := decimal_comma(gold)) and _same_readings(number, answer, symbolic) is not False:
        raise Undecidable("equal only if the comma in the reference is a decimal comma")
    return False


def _same_long_integers(gold: str, answer: str) -> bool:
    if re.fullmatch(r"\d+", gold) and re.fullmatch(r"\d+", answer):
        return gold.lstrip("0") == answer.lstrip("0")
    raise Undecidable(f"the answer is longer than {MAX_LENGTH} characters")


_TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")


def _key(name: str) -> str:
    return re.sub(r"[\s{}]", "", canonical(name))


def _prose(text: str) -> set[str]:
    return {word for word in PROSE.findall(text) if not is_product(word) or is_unit(word)}


def _spelling(text: str) -> str:
    """The characters of a formula, whatever is set as text and whether there are spaces between letters."""
    return re.sub(r"(?<=[A-Za-z]) (?=[A-Za-z])", "", canonical(_TEXT.sub(r" \1 ", text)))


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
        if "\\pmod" in gold.text + answer.text and "list" not in (gold.kind, answer.kind):
            return self._congruences(gold, answer)
        gold, answer = as_union(self._single(gold)), as_union(self._single(answer))
        kinds = (gold.kind, answer.kind)
        if "relation" in kinds:
            return self._with_relation(gold, answer)
        if kinds == ("leaf", "leaf"):
            return self._leaves(gold.text, answer.text)
        if kinds == ("piecewise", "piecewise"):
            return same_piecewise(gold, answer, self.nodes)
        if "matrix" in kinds:
            return self._with_matrix(gold, answer)
        if kinds == ("ratio", "ratio"):
            return same_ratios(gold, answer, self.nodes)
        if "union" in kinds:
            return self._with_union(gold, answer)
        if gold.kind in COLLECTIONS or answer.kind in COLLECTIONS:
            return self._with_collection(gold, answer)
        return self._expression(gold.text, answer.text)

    def _single(self, node: Node) -> Node:
        """The member of a list with one member; a set without repeated members."""
        if node.kind == "list" and len(members := flatten(node.items)) == 1:
            return members[0]
        if node.kind == "set":
            return replace(node, items=tuple({canonical(item.text): item for item in node.items}.values()))
        return node

    def _congruences(self, gold: Node, answer: Node) -> bool | None:
        (gold_text, gold_modulus), (answer_text, answer_modulus) = split_modulus(gold.text), split_modulus(answer.text)
        if "\\pmod" in gold_text + answer_text:
            raise Undecidable("several moduli")
        gold, answer = parse_answer(gold_text), parse_answer(answer_text)
        if gold_modulus and answer_modulus and (same := self._leaves(gold_modulus, answer_modulus)) is not True:
            return same
        congruent = same_residue(gold, answer, gold_modulus or answer_modulus)
        if congruent is None or (congruent and not (gold_modulus and answer_modulus)):
            same = self.nodes(gold, answer)
            if congruent and same is False:
                raise Undecidable("equal only modulo the modulus that one of them states")
            return same
        return congruent

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
            if same:
                refuse_other_names(gold_value, answer_value)
            if _key(gold_name) == _key(answer_name) or (same and nameless(gold_name, answer_name)):
                return same
            if same is not True and is_same_function(gold_name, answer_name):
                raise Undecidable("the argument of the function has another name")
            if same:  # x=1 and y=1
                raise Undecidable("the same value for different names")
            if not mentions(gold_value, answer_value):
                return same
        gold_interval, answer_interval = interval_of(gold) or gold_value, interval_of(answer) or answer_value
        if gold_interval and answer_interval and gold_interval[0] == answer_interval[0]:
            same = self.nodes(gold_interval[1], answer_interval[1])
            if same is False and equal_for_integers(gold_interval, answer_interval):
                raise Undecidable("equal for integers only")
            return same
        parts = zip(gold.items, answer.items, strict=False)
        if gold.operators == answer.operators and all_same(self.nodes(g, a) for g, a in parts):
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

        named = named_value(relation)
        members = flatten(other.items) if other.kind == "list" else []
        if any(member.kind == "relation" for member in members) and (not named or named[1].kind == "leaf"):
            return self._relation_and_list(relation, members)
        if named:
            return compare_with(named[1])
        if other.kind == "union" and (union := without_point(relation)):
            return compare_with(union)
        if (interval := interval_of(relation)) and other.kind in ("tuple", "union"):
            return compare_with(interval[1])
        if value := combined_value(relation):
            same = compare_with(value)
            if same is False and (relation is gold or not read_quantity(other.text)):
                raise Undecidable("an equation compared with a value")
            return same
        if set(relation.operators) <= {"="} and other.kind == "leaf":
            same = compare_with(relation.items[-1])
            quantities = [read_quantity(item.text) for item in relation.items]
            numeric = all(quantity and not quantity.changing for quantity in quantities)
            if same is False or (same and numeric):
                return same if numeric or relation is answer else None
            raise Undecidable("an equation compared with a value")
        return self._expression(gold.text, answer.text)

    def _relation_and_list(self, relation: Node, members: list[Node]) -> bool | None:
        """``f(x) = x`` compared with ``f(x) = x, f(x) = -x``.

        Raises:
            Undecidable: all members of the list are the same.
        """
        results = [self.nodes(relation, member) for member in members]
        if all(results):
            raise Undecidable("the same value, but repeated on one side")
        return None if None in results else False

    # collections

    def _with_union(self, gold: Node, answer: Node) -> bool | None:
        if _scalar(gold) or _scalar(answer):
            return False
        if gold.kind == answer.kind and same_members(gold.items, answer.items, self.nodes):
            return True
        return self._expression(gold.text, answer.text)

    def _with_collection(self, gold: Node, answer: Node) -> bool | None:
        if gold.kind in COLLECTIONS and answer.kind in COLLECTIONS:
            return same_collections(gold, answer, self.nodes)
        leaf, group = (answer, gold) if gold.kind in COLLECTIONS else (gold, answer)
        if len(group.items) > 1 and _scalar(leaf):
            if group.kind == "list" and all(self.nodes(leaf, member) for member in flatten(group.items)):
                if names_one_value(group):
                    return True
                raise Undecidable("the same value, but repeated on one side")
            if group is answer and self._is_same_value_twice(leaf, group):
                return True
            if VECTOR.search(leaf.text) and group.kind == "tuple":
                raise Undecidable("a vector in another notation")
            return False
        return self._expression(gold.text, answer.text)

    def _is_same_value_twice(self, leaf: Node, group: Node) -> bool:
        """Whether ``90 minutes or 1.5 hours`` states the value ``leaf`` in two ways.

        Raises:
            Undecidable: one of the two equals the leaf and the other may be its rounding, or none can be compared.
        """
        members = flatten(group.items)
        if len(members) != 2 or not names_one_value(group):
            return False
        results = [self.nodes(leaf, member) for member in members]
        if not any(results):
            if None in results:
                raise Undecidable("two values, one of which cannot be compared")
            return False
        same = self.nodes(*members)
        if same is None and not (results[0] and self.doubt == ROUNDED):  # 1/3 or 0.333 is one value
            raise Undecidable("two values, which may be the same")
        return same is not False

    def _with_matrix(self, gold: Node, answer: Node) -> bool | None:
        if gold.kind == answer.kind:
            return same_matrices(gold, answer, self.nodes)
        matrix, other = (gold, answer) if gold.kind == "matrix" else (answer, gold)
        if _scalar(other) and sum(len(row.items) for row in matrix.items) > 1:
            return False
        cells = [cell for row in matrix.items for cell in row.items]
        if other.kind == "tuple" and (len(matrix.items) == 1 or len(cells) == len(matrix.items)):
            if len(cells) != len(other.items):
                return False
            pairs = zip(cells, other.items, strict=True)
            return all_same(self.nodes(*((x, y) if matrix is gold else (y, x))) for x, y in pairs)
        return self._expression(gold.text, answer.text)

    # leaves

    def _leaves(self, gold: str, answer: str) -> bool | None:
        same = same_leaves(gold, answer)
        return self._expression(gold, answer) if same is None else same

    def _expression(self, gold: str, answer: str) -> bool | None:
        gold, answer = without_units(gold, answer)
        if canonical(gold) == canonical(answer):
            return True
        if _spelling(gold) == _spelling(answer):
            return True
        if _prose(gold) != _prose(answer):  # sympy would read words as products of letters
            raise Undecidable("different words in a formula")
        if self.symbolic is None:
            self.needs_algebra = True
            return None
        return self.symbolic.expression(gold, answer)
