"""Parsing an answer into a tree of lists, tuples, sets, intervals, unions, matrices, relations, ratios and leaves.

``leaves`` reads the leaves, and ``equality`` compares two trees.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from spotcli.grading.compare import Undecidable
from spotcli.grading.compare.quantities import read_compound
from spotcli.grading.compare.words import number_of
from spotcli.grading.latex import balanced, split_top

NodeKind = Literal["list", "tuple", "set", "union", "matrix", "piecewise", "relation", "ratio", "leaf"]


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


_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,])|(?<![\d.,])\d{1,2}(?:,\d{2})+,\d{3}(?![\d,])")
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
        elif european and (number := decimal_comma(text)):
            texts.append(number)
    if _EUROPEAN.fullmatch(text):
        texts.append(text.replace(".", "").replace(",", "."))
    return [parse_answer(reading) for reading in texts]


def decimal_comma(text: str) -> str | None:
    """The text with a decimal point, if its only comma may be a decimal comma: ``2,74`` is ``2.74``."""
    number = _DECIMAL_COMMA.fullmatch(text)
    return f"{number[1]}.{number[2]}{number[3]}" if number else None


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
_COMMA_OUTSIDE_OF_MATRICES = re.compile(
    r"\s*,?\s*\\text\s*\{\s*,?\s*(?:and|or)\s*,?\s*\}\s*|\s*,?\s*(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])\s*|\s*,\s*"
)
_RELATION = re.compile(
    r"\\(?:le|ge|ne|in|approx|equiv|sim|to|rightarrow|Rightarrow|iff|implies)(?![A-Za-z])|:=|==?|<|>|\\notin(?![A-Za-z])"
)
_UNION = re.compile(r"\\cup(?![A-Za-z])|(?<=[\])])\s*U\s*(?=[\[(])")
_COLON = re.compile(r"\s*:\s*|\\text\s*\{\s*(?:to|:)\s*\}")
_MATRIX_TEXT = re.compile(r"\\begin\{([pbB]?matrix|smallmatrix|array)\}(?:\s*\{[lcr|\s]*\})?(.*)\\end\{\1\}", re.DOTALL)
_SYSTEM = re.compile(
    r"(?:\\\{\s*)?\\begin\{(cases|aligned|align\*?|gathered|split|array)\}(?:\s*\{[lcr|\s]*\})?(.*)\\end\{\1\}",
    re.DOTALL,
)
_PIECEWISE = re.compile(r"&\s*(?!=)|\\text|\\begin")
_ROW_END = re.compile(r"\\cr(?![a-z])|\\newline")
_PAIRS = {"(": ")]", "[": ")]"}
_ANY_SEPARATOR = re.compile(rf"{_COMMA.pattern}|\s*;\s*")
_EXACTLY = re.compile(r"(?:exactly|precisely|simply)\s*(?=[\d\\(-])")
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
    environment = "\\begin" in text
    system = _SYSTEM.fullmatch(text) if environment else None
    if system and system[1] == "array" and not all("=" in row for row in _ROW_END.split(system[2]) if row.strip()):
        system = None
    if environment and not system and (matrix := _matrix(text, depth)):
        return matrix
    if environment and (piecewise := _piecewise(text, depth)):
        return piecewise
    if system and not _PIECEWISE.search(system[2]):
        text = ", ".join(row.replace("&", "").strip(" ,;") for row in _ROW_END.split(system[2]) if row.strip(" &,;"))
    text, items = _list_items(text, depth)
    if items:
        return Node("list", text, items)
    for read in (_relation, _union, _plus_minus, _bracketed, _ratio):
        if node := read(text, depth):
            return node
    return Node("leaf", _EXACTLY.sub("", text))


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
    rows = _ROW_END.split(environment[2].replace("\\hline", ""))
    return Node(
        "matrix", text, tuple(Node("tuple", row, _parse_all(row.split("&"), depth)) for row in rows if row.strip())
    )


_CASES = re.compile(
    r"(?:([A-Za-z](?:_\w)?\s*\(?\s*[A-Za-z]?\s*\)?|\|?[A-Za-z]\|?)\s*=\s*)?(?:\\\{\s*)?\\begin\{(cases|array)\}(?:\s*\{[lcr|\s]*\})?"
    r"((?:(?!\\begin|\\end).)*)\\end\{\2\}",
    re.DOTALL,
)
_CASE_WORDS = re.compile(r"\\text\s*\{\s*,?\s*(?:if|for|when|where)?\s*\}|(?<![A-Za-z\\])(?:if|for|when)(?![A-Za-z])")


def _piecewise(text: str, depth: int) -> Node | None:
    """A function by cases: rows of a value and its condition."""
    cases = _CASES.fullmatch(text)
    if not cases or "&" not in cases[3]:
        return None
    rows = [_CASE_WORDS.sub(" ", row).split("&") for row in _ROW_END.split(cases[3]) if row.strip()]
    rows = [[cell.strip(" ,;.") for cell in row] for row in rows]
    if len(rows) < 2 or any(
        len(row) != 2 or not re.search(r"[<>]|\\(?:le|ge|ne|in)(?![a-z])|[a-z]{4}", row[1]) for row in rows
    ):
        return None
    return Node("piecewise", text, tuple(Node("tuple", "&".join(row), _parse_all(row, depth)) for row in rows))


_AND_A_HALF = re.compile(
    r"\band (?:a|one|two|three|four|five)[ -](?:half|third|quarter|fourth|fifth|sixth|eighth|tenth)s?\b"
)
_LARGE_AND = re.compile(r"\b(?:hundred|thousand|million|billion) and\b", re.IGNORECASE)


def _is_one_number(text: str) -> bool:
    """Whether a text with "and" is one number: ``two hundred and five``."""
    return bool(_LARGE_AND.search(text)) and number_of(text.lower()) is not None


def _list_items(text: str, depth: int) -> tuple[str, tuple[Node, ...]]:
    """The items of a list without brackets; for other texts no items, and the text without separators at its ends."""
    if read_compound(text) or _AND_A_HALF.search(text) or _is_one_number(text):  # 3 hours and 30 minutes
        return text, ()
    comma = _COMMA_OUTSIDE_OF_MATRICES if "\\begin" in text else _COMMA
    for separator in (_SEMICOLON, comma):
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
    if pieces[-1].endswith("\\ldots") and operators[-1] == "=":  # \sqrt{2} = 1.414...
        operators[-1] = "\\approx"
    return Node("relation", text, _parse_all(pieces, depth), operators=tuple(operators))


def _union(text: str, depth: int) -> Node | None:
    pieces, operators = split_top(text, _UNION)
    return Node("union", text, _parse_all(pieces, depth)) if operators and all(pieces) else None


_PLUS_MINUS = re.compile(r"\\(pm|mp)(?![a-z])")


def _plus_minus(text: str, depth: int) -> Node | None:
    r"""``1 \pm \sqrt 5`` as a list of two values."""
    if not _PLUS_MINUS.search(text):
        return None
    if depth > _MAX_PLUS_MINUS_DEPTH:
        raise Undecidable("nested too deeply")
    plus = _PLUS_MINUS.sub(lambda sign: "+" if sign[1] == "pm" else "-", text)
    minus = _PLUS_MINUS.sub(lambda sign: "-" if sign[1] == "pm" else "+", text)
    return Node("list", text, _parse_all((plus, minus), depth))


_BUILDER = re.compile(
    r"\s*([a-z])(?:\s*\\in\s*\\reals)?\s*(?:\||:|\\text\s*\{\s*(?:such that|with)\s*\})\s*"
    r"((?=[^|]*\1)(?=[^|]*[<>\\])[^|:]*)"
)
r"""A set of numbers by an inequality: ``x \in \reals | x > 0``."""


def _bracketed(text: str, depth: int) -> Node | None:
    """A set, a tuple, an interval, or the content of parentheses around one value."""
    if text.startswith("\\{") and text.endswith("\\}") and balanced(text.replace("\\", "")):
        inner = text[2:-2]
        if builder := _BUILDER.fullmatch(inner):  # {x | x > 0}
            return parse_answer(builder[2], depth + 1)
        if re.search(r"[|:]|\\text\s*\{\s*(?:such|with)", inner):
            return None  # other set-builder notation is left to sympy
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
    nodes = list(nodes)
    named = sum(node.kind == "relation" for node in nodes) == 1 < len(nodes)
    for node in nodes:
        value = node.items[-1] if named and node.kind == "relation" and node.operators == ("=",) else node
        flat.extend(value.items if value.kind == "list" else (node,))  # x = \\pm 2, \\pm 3
    return flat
