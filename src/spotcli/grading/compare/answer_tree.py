"""Parsing an answer into a tree of lists, tuples, sets, intervals, unions, matrices, relations, ratios and leaves.

``leaves`` reads the leaves, and ``equality`` compares two trees.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from spotcli.grading.compare import Undecidable
from spotcli.grading.latex import balanced, canonical, split_top

NodeKind = Literal["list", "tuple", "set", "union", "matrix", "relation", "ratio", "leaf"]


@dataclass(frozen=True, slots=True)
class Node:
    """One level of an answer."""

    kind: NodeKind
    text: str
    items: tuple[Node, ...] = ()
    brackets: str = ""
    """Of a tuple or an interval, such as ``[)``."""
    operators: tuple[str, ...] = ()
    """Between the items of a relation."""


_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,])")
_SPACED_THOUSANDS = re.compile(r"(?<![\d.,] )(?<![\d.,])\d{1,3}(?: \d{3})+(?![\d,])(?! \d)")
_EUROPEAN = re.compile(r"[+-]?\d{1,3}(?:\.\d{3})+,\d+|[+-]?\d{1,3}(?:\.\d{3}){2,}")
_DECIMAL_COMMA = re.compile(r"((?:\\[A-Z]+ )?[+-]?\d+),(\d+)((?![\d,]).*)")


def readings(text: str, european: bool) -> list[Node]:
    """All ways to read a text with ambiguous commas: 1,234 is a number or a list; with ``european``, so is 2,74."""
    text = _SPACED_THOUSANDS.sub(lambda m: m[0].replace(" ", ""), text)
    texts = [text]
    if "," in text:
        joined = _THOUSANDS.sub(_join_outside_of_brackets, text)
        if joined != text:
            texts = [joined, text] if re.fullmatch(r"[\d,. ]+", text) else [joined]
        elif european and (number := _DECIMAL_COMMA.fullmatch(text)):
            texts.append(f"{number[1]}.{number[2]}{number[3]}")
    if _EUROPEAN.fullmatch(text):
        texts.append(text.replace(".", "").replace(",", "."))
    return [parse_answer(reading) for reading in texts]


def _join_outside_of_brackets(digits: re.Match[str]) -> str:
    """1,234 is one number, but (1,234) is a point."""
    before = digits.string[: digits.start()]
    opened = sum(before.count(bracket) for bracket in ("(", "[", "\\{"))
    depth = opened - sum(before.count(bracket) for bracket in (")", "]", "\\}"))
    return digits[0] if depth > 0 else digits[0].replace(",", "")


_SEMICOLON = re.compile(r";")
_COMMA = re.compile(
    r"\s*,?\s*\\text\s*\{\s*,?\s*(?:and|or)\s*,?\s*\}\s*|\s*,?\s*(?<![A-Za-z\\])(?:and|or|&)(?![A-Za-z])\s*|\s*,\s*"
)
_RELATION = re.compile(
    r"\\(?:le|ge|ne|in|approx|equiv|sim|to|rightarrow|Rightarrow|iff|implies)(?![A-Za-z])|:=|==?|<|>|\\notin(?![A-Za-z])"
)
_UNION = re.compile(r"\\cup(?![A-Za-z])|(?<=[\])])\s*U\s*(?=[\[(])")
_COLON = re.compile(r"\s*:\s*|\\text\s*\{\s*(?:to|:)\s*\}")
_MATRIX_TEXT = re.compile(r"\\begin\{([pbB]?matrix|smallmatrix|array)\}(?:\s*\{[lcr|\s]*\})?(.*)\\end\{\1\}", re.DOTALL)
_PAIRS = {"(": ")]", "[": ")]"}
_ANY_SEPARATOR = re.compile(rf"{_COMMA.pattern}|\s*;\s*")
_MAX_DEPTH = 12
_MAX_PLUS_MINUS_DEPTH = 8
"""Each plus-minus sign doubles the tree."""


def parse_answer(text: str, depth: int = 0) -> Node:
    """The tree of a tidy text.

    Raises:
        Undecidable: the text is nested too deeply.
    """
    if depth > _MAX_DEPTH:
        raise Undecidable("nested too deeply")
    text = text.strip()
    while text[:1] == "{" and text[-1:] == "}" and balanced(text):
        text = text[1:-1].strip()
    if matrix := _matrix(text, depth):
        return matrix
    text, items = _list_items(text, depth)
    if items:
        return Node("list", text, items)
    for read in (_relation, _union, _plus_minus, _bracketed, _ratio):
        if node := read(text, depth):
            return node
    return Node("leaf", text)


def _parse_all(texts: Iterable[str], depth: int) -> tuple[Node, ...]:
    return tuple(parse_answer(text, depth + 1) for text in texts)


def _matrix(text: str, depth: int) -> Node | None:
    stripped = text
    if len(text) > 2 and text[0] in "([" and text[-1] in ")]" and balanced(text):
        inner = text[1:-1].strip()
        stripped = inner if inner.startswith("\\begin") else text
    environment = _MATRIX_TEXT.fullmatch(stripped)
    if not environment or "\\begin" in environment[2]:
        return None
    rows = re.split(r"\\cr(?![a-z])|\\newline", environment[2].replace("\\hline", ""))
    return Node(
        "matrix", text, tuple(Node("tuple", row, _parse_all(row.split("&"), depth)) for row in rows if row.strip())
    )


def _list_items(text: str, depth: int) -> tuple[str, tuple[Node, ...]]:
    """The items of a list without brackets; for other texts no items, and the text without separators at its ends."""
    for separator in (_SEMICOLON, _COMMA):
        pieces = [piece for piece in split_top(text, separator)[0] if piece]
        if len(pieces) > 1:
            items = _parse_all(pieces, depth)
            if separator is _SEMICOLON:  # p=5,q=2; p=7,q=2: each group is one solution
                items = tuple(
                    replace(item, kind="tuple", brackets="()") if item.kind == "list" else item for item in items
                )
            return text, items
        text = pieces[0] if pieces else text
    return text, ()


def _relation(text: str, depth: int) -> Node | None:
    pieces, operators = split_top(text, _RELATION)
    if not operators or not pieces[-1]:
        return None
    if not pieces[0]:
        if len(pieces) == 2 and operators[0] not in ("\\approx", "="):
            return None
        pieces, operators = pieces[1:], operators[1:]
    if not operators:
        return parse_answer(pieces[0], depth + 1)
    return Node("relation", text, _parse_all(pieces, depth), operators=tuple(operators))


def _union(text: str, depth: int) -> Node | None:
    pieces, operators = split_top(text, _UNION)
    return Node("union", text, _parse_all(pieces, depth)) if operators and all(pieces) else None


def _plus_minus(text: str, depth: int) -> Node | None:
    r"""``1 \pm \sqrt 5`` as a list of two values."""
    if "\\pm" not in text and "\\mp" not in text:
        return None
    if depth > _MAX_PLUS_MINUS_DEPTH:
        raise Undecidable("nested too deeply")
    plus = text.replace("\\pm", "+").replace("\\mp", "-")
    minus = text.replace("\\pm", "-").replace("\\mp", "+")
    return Node("list", text, _parse_all((plus, minus), depth))


def _bracketed(text: str, depth: int) -> Node | None:
    """A set, a tuple, an interval, or the content of parentheses around one value."""
    if text.startswith("\\{") and text.endswith("\\}") and balanced(text.replace("\\", "")):
        inner = text[2:-2]
        if re.search(r"[|:]|\\text\s*\{\s*(?:such|with)", inner):
            return None  # set-builder notation is left to sympy
        pieces = [piece for piece in split_top(inner, _ANY_SEPARATOR)[0] if piece]
        return Node("set", text, tuple(flatten(_parse_all(pieces, depth))))
    if text[:1] in _PAIRS and text[-1:] in _PAIRS[text[0]] and balanced(text):
        pieces = split_top(text[1:-1], _ANY_SEPARATOR)[0]
        if len(pieces) > 1 and all(pieces):
            return Node("tuple", text, _parse_all(pieces, depth), brackets=text[0] + text[-1])
        if text[0] == "(" and text[-1] == ")":
            return parse_answer(text[1:-1], depth + 1)
    return None


def _ratio(text: str, depth: int) -> Node | None:
    pieces, operators = split_top(text, _COLON)
    if not operators or not all(pieces) or "|" in text:
        return None
    return Node("ratio", text, _parse_all(pieces, depth))


def flatten(nodes: Iterable[Node]) -> list[Node]:
    r"""The members of a list; members that are lists themselves (``1 \pm \sqrt 5``) are replaced by their own."""
    flat: list[Node] = []
    for node in nodes:
        flat.extend(node.items if node.kind == "list" else (node,))
    return flat


# --- relations: names, values, intervals ---

_EQUALS = (
    "=",
    "==",
    ":=",
    "\\approx",
    "\\in",
    "\\equiv",
    "\\to",
    "\\rightarrow",
    "\\Rightarrow",
    "\\implies",
)
_FLIP = {"<": ">", ">": "<", "\\le": "\\ge", "\\ge": "\\le"}
# The group is atomic: with backtracking, "a(b)a(b)..." would take exponential time.
_NAME = re.compile(
    r"(?>\\(?!sqrt|pm|mp|sin|cos|tan|log|ln|sum|int|infty)[A-Za-z]+|_\{[^{}]*\}|_\w|[A-Za-z]"
    r"|(?<=[A-Za-z}])\([^()]*\)|[(){}|',:/ ]|\^\{?\\prime\}?)+"
)
r"""A name on the left of "=": x, x_{1}, f(x), |AB|, (p,q), \frac{NO}{BO}, V_1:V_2, \text{Area}; not 2x or x^2."""
_VARIABLE = re.compile(r"[a-zA-Z](?:_\{?\w+\}?)?|\\(?:theta|alpha|beta|lambda|mu|omega|gamma|phi|varphi)")


def named_value(node: Node) -> tuple[str, Node] | None:
    r"""Name and value of ``x = 1``, ``f(x) = x = 3``, ``x \in [0, 1]``; None for an equation without a lone name."""
    if node.kind != "relation" or not all(operator in _EQUALS for operator in node.operators):
        return None
    items = list(node.items)
    if "\\approx" in node.operators:  # the exact value precedes the rounded one
        end = node.operators.index("\\approx")
        if end > 0 or not _NAME.fullmatch(items[0].text):
            items = items[: end + 1]
    if len(items) == 1:
        return "", items[0]
    if _NAME.fullmatch(items[0].text):
        return items[0].text, items[-1]
    if len(items) > 2:  # a derivation ends in its result
        return items[0].text, items[-1]
    return None


def nameless(*names: str) -> bool:
    r"""Whether a name is not a variable such as x or y: ``f(x)``, ``|AB|``, ``\text{Area}``, or no name at all."""
    return any(re.search(r"\(|\\text|\|", name) or not name for name in names)


def mentions(g: tuple[str, Node], a: tuple[str, Node]) -> bool:
    """Whether the name of one equation occurs in the value of the other: y = 2x+3 and x = (y-3)/2 may be equivalent."""
    return bool(g[0] and g[0] in a[1].text) or bool(a[0] and a[0] in g[1].text)


def interval_of(node: Node) -> tuple[str, Node] | None:
    r"""Variable and interval of ``0 < x \le 1`` or ``x > 3``."""
    if node.kind != "relation" or not all(operator in _FLIP for operator in node.operators) or len(node.operators) > 2:
        return None
    items, operators = list(node.items), list(node.operators)
    if operators[0] in (">", "\\ge"):
        items, operators = items[::-1], [_FLIP[operator] for operator in reversed(operators)]
    if any(operator in (">", "\\ge") for operator in operators):
        return None
    infinity = Node("leaf", "\\infty"), Node("leaf", "-\\infty")
    closed = [operator == "\\le" for operator in operators]
    if len(items) == 3 and _VARIABLE.fullmatch(items[1].text):
        low, name, high = items
        brackets = ("[" if closed[0] else "(") + ("]" if closed[1] else ")")
    elif len(items) == 2 and _VARIABLE.fullmatch(items[0].text) and not _VARIABLE.fullmatch(items[1].text):
        (name, high), low = items, infinity[1]
        brackets = "(" + ("]" if closed[0] else ")")
    elif len(items) == 2 and _VARIABLE.fullmatch(items[1].text) and not _VARIABLE.fullmatch(items[0].text):
        (low, name), high = items, infinity[0]
        brackets = ("[" if closed[0] else "(") + ")"
    else:
        return None
    text = f"{brackets[0]}{low.text},{high.text}{brackets[1]}"
    return canonical(name.text), Node("tuple", text, (low, high), brackets)


def as_union(node: Node) -> Node:
    """``x < 2 or x > 3`` as a union of intervals."""
    if node.kind != "list" or not re.search(r"\bor\b", node.text):
        return node
    intervals = [interval_of(item) for item in node.items]
    if not all(intervals) or len({interval[0] for interval in intervals if interval}) != 1:
        return node
    nodes = tuple(interval[1] for interval in intervals if interval)
    return Node("union", " \\cup ".join(node.text for node in nodes), nodes)
