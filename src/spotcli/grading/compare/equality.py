"""Whether two answers are the same mathematics.

``equal(gold, answer, rules)`` reads both into a small tree (lists, tuples, sets, intervals, unions, matrices,
relations, ratios; leaves are numbers with units, texts, or expressions), compares the trees and answers

* ``True``: proved equal;
* ``False``: proved different;
* ``None``: an expression is left that only sympy can settle: call again with ``symbolic`` (in a worker
  process).

It raises ``Undecidable`` where nothing would settle it (a unit that may or may not matter, a number too
large). The same code runs in the caller's process (without ``symbolic``: the fast path, standard library
only) and in the worker.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction
from typing import Protocol

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
from spotcli.grading.compare.exact_numbers import TooLarge
from spotcli.grading.compare.leaves import (
    PROSE,
    Rules,
    is_scalar,
    read_quantity,
    same_choice,
    same_leaves,
    without_choice,
    without_units,
)
from spotcli.grading.find_answer import Undecidable
from spotcli.grading.latex import canonical, tidy

MAX_LENGTH = 1000  # signs of an answer; what is longer is no answer


class Symbolic(Protocol):
    """Symbolic comparison of LaTeX texts; None where it cannot tell."""

    def expression(self, gold: str, answer: str, tolerance: float) -> bool | None: ...
    def relation(self, gold: str, answer: str) -> bool | None: ...


def equal(gold: str, answer: str, rules: Rules, symbolic: Symbolic | None = None) -> bool | None:
    """Compare a reference with an answer, both as found in the text (see the module's docstring)."""
    if gold == answer and gold:
        return True
    if len(gold) > MAX_LENGTH or len(answer) > MAX_LENGTH:
        g, a = gold.strip(), answer.strip()
        if re.fullmatch(r"\d+", g) and re.fullmatch(r"\d+", a):
            return g.lstrip("0") == a.lstrip("0")
        raise Undecidable(f"the answer is longer than {MAX_LENGTH} characters")
    try:
        gold, answer = tidy(gold), tidy(answer)
    except ValueError as error:
        raise Undecidable(str(error)) from error
    if not answer or not gold:
        raise Undecidable("the answer is empty" if gold else "the reference is empty")
    if canonical(gold) == canonical(answer):
        return True
    if (letters := same_choice(gold, answer)) is not None:
        return letters
    answer = without_choice(answer)
    compare = _Comparison(rules, symbolic)
    results = [compare.nodes(g, a) for g in readings(gold, False) for a in readings(answer, True)]
    if True in results:
        return True
    if None in results and compare.doubt and not compare.asks_sympy:
        raise Undecidable(compare.doubt)
    return None if None in results else False


def _all(results: Iterable[bool | None]) -> bool | None:
    seen = list(results)
    return False if False in seen else None if None in seen else True


def _key(name: str) -> str:
    return re.sub(r"[\s{}]", "", canonical(name))


def _scalar(node: Node) -> bool:
    return node.kind == "leaf" and is_scalar(node.text)


class _Comparison:
    def __init__(self, rules: Rules, symbolic: Symbolic | None) -> None:
        self.rules = rules
        self.symbolic = symbolic
        self.asks_sympy = False  # whether an expression is left for a call with ``symbolic``
        self.doubt = ""  # why a part of the answer cannot be decided; the whole may be wrong all the same

    def nodes(self, gold: Node, answer: Node) -> bool | None:
        try:
            return self._nodes(gold, answer)
        except Undecidable as doubt:
            self.doubt = str(doubt)
            return None
        except TooLarge:
            self.doubt = "a number too large to compare"
            return None

    def _nodes(self, gold: Node, answer: Node) -> bool | None:
        if canonical(gold.text) == canonical(answer.text):
            return True
        gold, answer = as_union(self._single(gold)), as_union(self._single(answer))
        if "relation" in (gold.kind, answer.kind):
            return self._with_relation(gold, answer)
        if gold.kind == answer.kind == "leaf":
            return self._leaves(gold.text, answer.text)
        if gold.kind == answer.kind == "matrix":
            return self._matrices(gold, answer)
        if "matrix" in (gold.kind, answer.kind):
            return self._matrix_and_other(gold, answer)
        if gold.kind == answer.kind == "ratio":
            return self._ratios(gold, answer)
        if "union" in (gold.kind, answer.kind):
            if _scalar(gold) or _scalar(answer):
                return False
            same = self._members(gold.items, answer.items) if gold.kind == answer.kind else None
            return True if same else self._expression(gold.text, answer.text)
        collections = ("list", "tuple", "set")
        if gold.kind in collections and answer.kind in collections:
            return self._collections(gold, answer)
        if gold.kind in collections or answer.kind in collections:
            leaf, group = (answer, gold) if gold.kind in collections else (gold, answer)
            if len(group.items) > 1 and _scalar(leaf):
                if group.kind == "list" and all(self.nodes(leaf, member) for member in flatten(group.items)):
                    raise Undecidable("the same value, once and several times")
                return False
        return self._expression(gold.text, answer.text)

    def _single(self, node: Node) -> Node:
        """A list of one is its member; what occurs twice in a set occurs once."""
        if node.kind == "list" and len(members := flatten(node.items)) == 1:
            return members[0]
        if node.kind == "set":
            return replace(node, items=tuple({canonical(m.text): m for m in node.items}.values()))
        return node

    # relations

    def _with_relation(self, gold: Node, answer: Node) -> bool | None:
        value_g, value_a = named_value(gold), named_value(answer)
        if gold.kind == answer.kind == "relation":
            if value_g and value_a:
                same = self.nodes(value_g[1], value_a[1])
                if _key(value_g[0]) == _key(value_a[0]) or (same and nameless(value_g[0], value_a[0])):
                    return same
                if same:  # x=1 and y=1
                    raise Undecidable("the same value for another name")
                if not mentions(value_g, value_a):
                    return same
            interval_g, interval_a = interval_of(gold) or value_g, interval_of(answer) or value_a
            if interval_g and interval_a and interval_g[0] == interval_a[0]:
                return self.nodes(interval_g[1], interval_a[1])
            parts = zip(gold.items, answer.items, strict=False)
            if gold.ops == answer.ops and _all(self.nodes(g, a) for g, a in parts):
                return True
            if self.symbolic is None:
                self.asks_sympy = True
                return None
            return self.symbolic.relation(gold.text, answer.text)
        relation, other = (gold, answer) if gold.kind == "relation" else (answer, gold)
        if value := value_g or value_a:
            return self.nodes(value[1], other) if relation is gold else self.nodes(other, value[1])
        if (interval := interval_of(relation)) and other.kind in ("tuple", "union"):
            return self.nodes(interval[1], other) if relation is gold else self.nodes(other, interval[1])
        if set(relation.ops) <= {"="} and other.kind == "leaf":
            last = relation.items[-1]
            same = self.nodes(last, other) if relation is gold else self.nodes(other, last)
            numeric = all(read_quantity(i.text) for i in relation.items)
            if same is False or (same and numeric):
                return same if numeric or relation is answer else None
            raise Undecidable("an equation beside a value")
        return self._expression(gold.text, answer.text)

    # collections

    def _collections(self, gold: Node, answer: Node) -> bool | None:
        g = flatten(gold.items) if gold.kind == "list" else list(gold.items)
        a = flatten(answer.items) if answer.kind == "list" else list(answer.items)
        ordered = _all(self.nodes(x, y) for x, y in zip(g, a, strict=True)) if len(g) == len(a) else False
        if gold.kind == answer.kind == "tuple":
            if len(g) == len(a) == 2 and gold.brackets and answer.brackets and gold.brackets != answer.brackets:
                return False  # [0, 1) is not (0, 1]
            return ordered
        if "tuple" in (gold.kind, answer.kind):
            group = gold if gold.kind == "tuple" else answer
            if ordered is True and group.brackets in ("()", "") and "set" not in (gold.kind, answer.kind):
                return True
            unordered = self._members(g, a)
            if unordered is True:
                raise Undecidable("the same values, as a tuple and as a list or set")
            return unordered
        if len(g) != len(a):
            unique_g, unique_a = ({canonical(n.text): n for n in nodes}.values() for nodes in (g, a))
            if len(unique_g) == len(unique_a) and self._members(unique_g, unique_a):
                raise Undecidable("the same values, some of them several times")
        if ordered or (self.rules.ordered_lists and gold.kind == answer.kind == "list"):
            return ordered
        return self._members(g, a)

    def _members(self, gold: Iterable[Node], answer: Iterable[Node]) -> bool | None:
        """Whether each member of one is a member of the other, whatever the order."""
        left, rest = list(gold), list(answer)
        if len(left) != len(rest):
            return False
        if len(left) > 40:
            raise Undecidable("too many members")
        open_ = False
        for g in left:
            results = [self.nodes(g, a) for a in rest]
            if True in results:
                rest.pop(results.index(True))
            elif None in results:
                open_ = True
            else:
                return False
        return None if open_ else True

    def _matrices(self, gold: Node, answer: Node) -> bool | None:
        g, a = [[*row.items] for row in gold.items], [[*row.items] for row in answer.items]
        if [len(r) for r in g] != [len(r) for r in a]:
            if sorted((len(g), len(g[0]))) == sorted((len(a), len(a[0]))):
                raise Undecidable("a row beside a column")
            return False
        return _all(self.nodes(x, y) for rg, ra in zip(g, a, strict=True) for x, y in zip(rg, ra, strict=True))

    def _matrix_and_other(self, gold: Node, answer: Node) -> bool | None:
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

    def _ratios(self, gold: Node, answer: Node) -> bool | None:
        if len(gold.items) != len(answer.items):
            return False
        same = _all(self.nodes(g, a) for g, a in zip(gold.items, answer.items, strict=True))
        if same is not False or re.search(r"\d:\d\d", gold.text):  # 12:00 is a time
            return same
        numbers = [
            (read_quantity(g.text), read_quantity(a.text)) for g, a in zip(gold.items, answer.items, strict=True)
        ]
        factors = set()
        for g, a in numbers:
            if not g or not a or not isinstance(g.number.value, Fraction) or not isinstance(a.number.value, Fraction):
                return None
            if not g.number.value or not a.number.value:
                return same
            factors.add(g.number.value / a.number.value)
        return len(factors) == 1

    # leaves

    def _leaves(self, gold: str, answer: str) -> bool | None:
        same = same_leaves(gold, answer, self.rules)
        return self._expression(gold, answer) if same is None else same

    def _expression(self, gold: str, answer: str) -> bool | None:
        gold, answer = without_units(gold, answer, self.rules)
        if canonical(gold) == canonical(answer):
            return True
        if set(PROSE.findall(gold)) != set(PROSE.findall(answer)):
            raise Undecidable("words within a formula")  # they would be read as products of letters
        if self.symbolic is None:
            self.asks_sympy = True
            return None
        return self.symbolic.expression(gold, answer, self.rules.tolerance)
