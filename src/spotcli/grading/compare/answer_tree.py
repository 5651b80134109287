"""Reading an answer into a small tree: lists, tuples, sets, intervals, unions, matrices, relations, ratios,
and leaves.

What the leaves say is read in ``leaves``; whether two trees are the same mathematics is decided in
``equality``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

from spotcli.grading.find_answer import Undecidable
from spotcli.grading.latex import balanced, canonical, split_top

Kind = Literal["list", "tuple", "set", "union", "matrix", "relation", "ratio", "leaf"]


@dataclass(frozen=True, slots=True)
class Node:
    """One level of an answer. ``brackets``: of a tuple or interval, such as ``[)``; ``ops``: between a
    relation's parts."""

    kind: Kind
    text: str
    items: tuple[Node, ...] = ()
    brackets: str = ""
    ops: tuple[str, ...] = field(default=())


_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,])")
_SPACED_THOUSANDS = re.compile(r"(?<![\d.,] )(?<![\d.,])\d{1,3}(?: \d{3})+(?![\d,])(?! \d)")
_EUROPEAN = re.compile(r"[+-]?\d{1,3}(?:\.\d{3})+,\d+|[+-]?\d{1,3}(?:\.\d{3}){2,}")
_DECIMAL_COMMA = re.compile(r"((?:\\[A-Z]+ )?[+-]?\d+),(\d+)((?![\d,]).*)")


def readings(text: str, european: bool) -> list[Node]:
    """The readings of a text in which commas are ambiguous: 1,234 is a number or a list, and so
    (``european``) is 2,74."""
    text = _SPACED_THOUSANDS.sub(lambda m: m[0].replace(" ", ""), text)
    texts = [text]
    if "," in text:
        joined = _THOUSANDS.sub(_join_outside_of_brackets, text)
        if joined != text:
            texts = [joined, text] if re.fullmatch(r"[\d,. ]+", text) else [joined]
        elif european and (found := _DECIMAL_COMMA.fullmatch(text)):
            texts.append(f"{found[1]}.{found[2]}{found[3]}")
    if _EUROPEAN.fullmatch(text):
        texts.append(text.replace(".", "").replace(",", "."))
    return [parse(t) for t in texts]


def _join_outside_of_brackets(found: re.Match[str]) -> str:
    """1,234 as one number; but (1,234) is a point."""
    before = found.string[: found.start()]
    opened = sum(before.count(sign) for sign in ("(", "[", "\\{"))
    depth = opened - sum(before.count(sign) for sign in (")", "]", "\\}"))
    return found[0] if depth > 0 else found[0].replace(",", "")


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


def parse(text: str, depth: int = 0) -> Node:
    if depth > 12:
        raise Undecidable("nested too deeply")
    text = text.strip()
    while text[:1] == "{" and text[-1:] == "}" and balanced(text):
        text = text[1:-1].strip()
    stripped = text
    if (
        len(text) > 2
        and text[0] in "(["
        and text[-1] in ")]"
        and text[1:].lstrip().startswith("\\begin")
        and balanced(text)
    ):
        stripped = text[1:-1].strip()
    if (found := _MATRIX_TEXT.fullmatch(stripped)) and "\\begin" not in found[2]:
        return _matrix(text, found[2], depth)
    for separator in (_SEMICOLON, _COMMA):
        pieces = [p for p in split_top(text, separator)[0] if p]
        if len(pieces) > 1:
            items = [parse(p, depth + 1) for p in pieces]
            if separator is _SEMICOLON:  # p=5,q=2; p=7,q=2: each group is one solution
                items = [replace(i, kind="tuple", brackets="()") if i.kind == "list" else i for i in items]
            return Node("list", text, tuple(items))
        text = pieces[0] if pieces else text
    pieces, ops = split_top(text, _RELATION)
    if ops and pieces[-1] and (pieces[0] or len(pieces) > 2 or ops[0] in ("\\approx", "=")):
        if not pieces[0]:
            pieces, ops = pieces[1:], ops[1:]
        if not ops:
            return parse(pieces[0], depth + 1)
        return Node("relation", text, tuple(parse(p, depth + 1) for p in pieces), ops=tuple(ops))
    pieces, ops = split_top(text, _UNION)
    if ops and all(pieces):
        return Node("union", text, tuple(parse(p, depth + 1) for p in pieces))
    if "\\pm" in text or "\\mp" in text:
        if depth > 8:
            raise Undecidable("nested too deeply")
        plus = text.replace("\\pm", "+").replace("\\mp", "-")
        minus = text.replace("\\pm", "-").replace("\\mp", "+")
        return Node("list", text, (parse(plus, depth + 1), parse(minus, depth + 1)))
    if (group := _bracketed(text, depth)) is not None:
        return group
    pieces, ops = split_top(text, _COLON)
    if ops and all(pieces) and "|" not in text:
        return Node("ratio", text, tuple(parse(p, depth + 1) for p in pieces))
    return Node("leaf", text)


def _matrix(text: str, body: str, depth: int) -> Node:
    rows = [row for row in re.split(r"\\cr(?![a-z])|\\newline", body.replace("\\hline", "")) if row.strip()]
    return Node(
        "matrix",
        text,
        tuple(Node("tuple", row, tuple(parse(cell, depth + 1) for cell in row.split("&"))) for row in rows),
    )


_ANY_SEPARATOR = re.compile(rf"{_COMMA.pattern}|\s*;\s*")


def _bracketed(text: str, depth: int) -> Node | None:
    if text.startswith("\\{") and text.endswith("\\}") and balanced(text.replace("\\", "")):
        inner = text[2:-2]
        if re.search(r"[|:]|\\text\s*\{\s*(?:such|with)", inner):
            return None  # set-builder notation is left to sympy
        pieces = [p for p in split_top(inner, _ANY_SEPARATOR)[0] if p]
        return Node("set", text, tuple(flatten(parse(p, depth + 1) for p in pieces)))
    if text[:1] in _PAIRS and text[-1:] in _PAIRS[text[0]] and balanced(text):
        pieces = split_top(text[1:-1], _ANY_SEPARATOR)[0]
        if len(pieces) > 1 and all(pieces):
            return Node("tuple", text, tuple(parse(p, depth + 1) for p in pieces), brackets=text[0] + text[-1])
        if text[0] == "(" and text[-1] == ")":
            return parse(text[1:-1], depth + 1)
    return None


def flatten(nodes: Iterable[Node]) -> list[Node]:
    """The members of a list in which some members (``1 \\pm \\sqrt 5``) are lists themselves."""
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
# What may stand left of "=" as a mere name: x, x_{1}, f(x), |AB|, (p,q), \frac{NO}{BO}, V_1:V_2, \text{Area};
# no 2x, no x^2.
# (The group is atomic: with backtracking, "a(b)a(b)..." would take for ever.)
_NAME = re.compile(
    r"(?>\\(?!sqrt|pm|mp|sin|cos|tan|log|ln|sum|int|infty)[A-Za-z]+|_\{[^{}]*\}|_\w|[A-Za-z]"
    r"|(?<=[A-Za-z}])\([^()]*\)|[(){}|',:/ ]|\^\{?\\prime\}?)+"
)
_VARIABLE = re.compile(r"[a-zA-Z](?:_\{?\w+\}?)?|\\(?:theta|alpha|beta|lambda|mu|omega|gamma|phi|varphi)")


def named_value(node: Node) -> tuple[str, Node] | None:
    """Name and value of ``x = 1``, ``f(x) = x = 3``, ``x \\in [0, 1]``; None for an equation that is to be
    solved."""
    if node.kind != "relation" or not all(op in _EQUALS for op in node.ops):
        return None
    items, ops = list(node.items), list(node.ops)
    if "\\approx" in ops:  # the exact value stands before the rounded one
        cut = ops.index("\\approx")
        if cut > 0 or not _NAME.fullmatch(items[0].text):
            items, ops = items[: cut + 1], ops[:cut]
    if len(items) == 1:
        return "", items[0]
    if _NAME.fullmatch(items[0].text):
        return items[0].text, items[-1]
    if len(items) > 2:  # a derivation ends in its result
        return items[0].text, items[-1]
    return None


def nameless(*names: str) -> bool:
    """Whether one of the names is none in particular: f(x), |AB|, \\text{Area}; x and y are."""
    return any(re.search(r"\(|\\text|\|", n) or not n for n in names)


def mentions(g: tuple[str, Node], a: tuple[str, Node]) -> bool:
    """Whether one equation's name occurs in the other's value: y = 2x+3 and x = (y-3)/2 may be the same
    line."""
    return bool(g[0] and g[0] in a[1].text) or bool(a[0] and a[0] in g[1].text)


def interval_of(node: Node) -> tuple[str, Node] | None:
    """Variable and interval of ``0 < x \\le 1`` or ``x > 3``."""
    if node.kind != "relation" or not all(op in _FLIP for op in node.ops) or len(node.ops) > 2:
        return None
    items, ops = list(node.items), list(node.ops)
    if ops[0] in (">", "\\ge"):
        items, ops = items[::-1], [_FLIP[op] for op in reversed(ops)]
    if any(op in (">", "\\ge") for op in ops):
        return None
    infinity = Node("leaf", "\\infty"), Node("leaf", "-\\infty")
    closed = [op == "\\le" for op in ops]
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
    if not all(intervals) or len({i[0] for i in intervals if i}) != 1:
        return node
    return Node("union", " \\cup ".join(i[1].text for i in intervals if i), tuple(i[1] for i in intervals if i))
