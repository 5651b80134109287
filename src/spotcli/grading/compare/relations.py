r"""Relations in answers: name and value of ``x = 5``, interval of ``x > 2``, modulus of ``3 \pmod 5``; conditions."""

from __future__ import annotations

import re
from itertools import pairwise

from spotcli.grading.compare import Undecidable
from spotcli.grading.compare.answer_tree import Node
from spotcli.grading.latex import canonical

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
    r"|\^\{?-1\}?(?=\()|(?<=[A-Za-z}1])\([^()]*\)|[(){}|',:/ ]|\^\{?\\prime\}?)+"
)
r"""A name on the left of "=": x, x_{1}, f(x), f^{-1}(x), |AB|, (p,q), \frac{NO}{BO}, \text{Area}; not 2x or x^2."""
_SUM_OF_NAMES = re.compile(r"(?=.*[A-Za-z].*[A-Za-z])[A-Za-z0-9+*^_{}() -]+|(?=.*[A-Za-z])[A-Za-z+_{}() -]+")
"""A combination of several variables, such as ``m+n`` and ``a^2+b^2``, which a problem asks for."""
_VARIABLE = re.compile(r"[a-zA-Z](?:_\{?\w+\}?)?|\\(?:theta|alpha|beta|lambda|mu|omega|gamma|phi)")


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


def combined_value(node: Node) -> Node | None:
    """The value of an equation whose other side combines several variables: 7 for ``a+b = 7`` and ``7 = a+b``."""
    if node.kind != "relation" or set(node.operators) - {"="} or len(node.items) != 2:
        return None
    left, right = node.items
    for name, value in ((left, right), (right, left)):
        letters = set(re.findall("[A-Za-z]", name.text))
        if (
            len(letters) > 1
            and value.text.strip() != "0"
            and _SUM_OF_NAMES.fullmatch(name.text)
            and not re.search("[A-Za-z]", value.text)
        ):
            return value
    return None


def nameless(*names: str) -> bool:
    r"""Whether a name is not a variable such as x or y: ``f(x)``, ``|AB|``, ``\text{Area}``, or no name at all."""
    return any(re.search(r"\(|\\text|\|\s*[A-Z]{2}", name) or not name for name in names)


def is_same_function(gold: str, answer: str) -> bool:
    """Whether two names are one function of different arguments: f(x) and f(t)."""
    calls = [_CALL.fullmatch(name.replace(" ", "")) for name in (gold, answer)]
    return bool(calls[0] and calls[1] and calls[0][1] == calls[1][1] and calls[0][2] != calls[1][2])


_MARK = re.compile(r"'|\^\s*\{?\s*\(?\s*-?\d|\\frac\s*\{\s*d|\\d?dot")
"""Signs of a derivative, an inverse or a power in the name of a value."""


def refuse_other_names(gold: tuple[str, Node], answer: tuple[str, Node]) -> None:
    """Check the names of two equal values.

    Raises:
        Undecidable: the names are different functions, f(x) and g(x), a function and its derivative, or they have other
            arguments, f(x) = n and f(n) = n.
    """
    (gold_name, gold_node), (answer_name, answer_node) = gold, answer
    if _MARK.findall(gold_name) != _MARK.findall(answer_name):
        raise Undecidable("a function compared with its derivative or inverse")
    calls = [_CALL.fullmatch(name.replace(" ", "")) for name in (gold_name, answer_name)]
    if not calls[0] or not calls[1]:
        return
    if calls[0][1] != calls[1][1]:
        raise Undecidable("the same value for different names")
    if calls[0][2] != calls[1][2] and gold_node.text == answer_node.text and calls[0][2] in gold_node.text:
        raise Undecidable("the argument of the function has another name")


_CALL = re.compile(r"([A-Za-z]\w*)\(([A-Za-z])\)")


def mentions(g: tuple[str, Node], a: tuple[str, Node]) -> bool:
    """Whether the name of one equation occurs in the other: y = 2x+3 and x = (y-3)/2 may be equivalent."""
    shared = set(re.findall(r"(?<![A-Za-z\\])[a-z](?![a-z])", g[0])) & set(re.findall("[a-z]", a[0]))
    return bool(shared) or bool(g[0] and g[0] in a[1].text) or bool(a[0] and a[0] in g[1].text)


_ABSOLUTE = re.compile(r"\|\s*([a-zA-Z])\s*\|")


def values_by_name(nodes: list[Node]) -> dict[str, Node] | None:
    """The values of a list such as ``x = 2, y = 1``; None if an item has no name or a name is repeated."""
    values: dict[str, Node] = {}
    for node in nodes:
        named = named_value(node)
        name = _VARIABLE.fullmatch(named[0]) or _CALL.fullmatch(named[0].replace(" ", "")) if named else None
        if not named or not name or named[0] in values:
            return None
        values[named[0]] = named[1]
    return values


_DISTANCE = re.compile(r"\|\s*([a-zA-Z])\s*([+-])\s*(\d{1,9})\s*\|")


def _ends_of_distance(items: list[Node]) -> tuple[Node, Node, Node] | None:
    """Name and ends of ``|x - 3| < 2``; None for other inequalities."""
    distance, radius = _DISTANCE.fullmatch(items[0].text.strip()), _WHOLE.fullmatch(items[1].text.strip())
    if not distance or not radius or int(radius[0]) <= 0:
        return None
    center = int(distance[3]) if distance[2] == "-" else -int(distance[3])
    low, high = center - int(radius[0]), center + int(radius[0])
    return Node("leaf", distance[1]), Node("leaf", str(low)), Node("leaf", str(high))


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
    elif len(items) == 2 and (ends := _ends_of_distance(items)):
        name, low, high = ends
        brackets = "[]" if closed[0] else "()"
    elif len(items) == 2 and (absolute := _ABSOLUTE.fullmatch(items[0].text)):
        name, high, low = Node("leaf", absolute[1]), items[1], Node("leaf", f"-({items[1].text})")
        brackets = "[]" if closed[0] else "()"
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


def equal_for_integers(gold: tuple[str, Node], answer: tuple[str, Node]) -> bool:
    """Whether two intervals of a letter that usually stands for an integer contain the same integers."""
    if gold[0] not in "ijkmnNpq" or gold[1].kind != "tuple" or answer[1].kind != "tuple":
        return False
    return _integer_ends(gold[1]) == _integer_ends(answer[1]) is not None


def _integer_ends(interval: Node) -> tuple[str, str] | None:
    """The smallest and the largest integer of an interval, infinities as they are; None for other ends."""
    ends = [node.text.replace(" ", "") for node in interval.items]
    if not all(_WHOLE.fullmatch(end) or "\\infty" in end for end in ends):
        return None
    low, high = ends
    if interval.brackets[0] == "(" and "\\infty" not in low:
        low = str(int(low) + 1)
    if interval.brackets[1] == ")" and "\\infty" not in high:
        high = str(int(high) - 1)
    return low.lstrip("+"), high.lstrip("+")


_EVERYTHING = Node("tuple", "(-\\infty,\\infty)", (Node("leaf", "-\\infty"), Node("leaf", "\\infty")), "()")


def _intersection(items: tuple[Node, ...]) -> Node | None:
    r"""``x > 1, x \ne 3`` as a union of intervals, if it is one interval without some of its inner points."""
    interval, points = None, []
    if items[0] is _EVERYTHING:
        interval, items = (canonical(items[1].items[0].text), items[0]), items[1:]
    for item in items:
        if item.kind == "relation" and item.operators == ("\\ne",) and _VARIABLE.fullmatch(item.items[0].text):
            points.append((canonical(item.items[0].text), item.items[1].text))
        elif interval is None and (found := interval_of(item)):
            interval = found
        else:
            return None
    if not interval or not points or any(name != interval[0] for name, _ in points):
        return None
    if not all(_WHOLE.fullmatch(point.replace(" ", "")) for _, point in points):
        return None
    low, high = (end.text for end in interval[1].items)
    brackets = interval[1].brackets
    ends = [low, *(str(point) for point in sorted(int(point.replace(" ", "")) for _, point in points)), high]
    pieces = []
    for index, (left, right) in enumerate(pairwise(ends)):
        sides = (brackets[0] if index == 0 else "(") + (brackets[1] if index == len(ends) - 2 else ")")
        text = f"{sides[0]}{left},{right}{sides[1]}"
        pieces.append(Node("tuple", text, (Node("leaf", left), Node("leaf", right)), sides))
    return Node("union", " \\cup ".join(piece.text for piece in pieces), tuple(pieces))


def without_point(relation: Node) -> Node | None:
    r"""``x \ne 0`` as a union of intervals; None for other relations."""
    return _intersection((_EVERYTHING, relation)) if relation.operators == ("\\ne",) else None


_REALS = re.compile(r"\\reals|(?:\\text\{ *)?(?:all )?reals?(?: numbers?)? *\}?", re.IGNORECASE)


def as_union(node: Node) -> Node:
    r"""``x < 2 or x > 3`` as a union of intervals, ``\mathbb{R}`` as an interval; other nodes as they are."""
    if node.kind == "leaf" and "real" in node.text.lower() and _REALS.fullmatch(node.text):
        ends = (Node("leaf", "-\\infty"), Node("leaf", "\\infty"))
        return Node("tuple", "(-\\infty,\\infty)", ends, "()")
    if node.kind == "list" and (cut := _intersection(node.items)):
        return cut
    if node.kind != "list" or not re.search(r"\bor\b", node.text):
        return node
    intervals = [interval_of(item) for item in node.items]
    if not all(intervals) or len({interval[0] for interval in intervals if interval}) != 1:
        return node
    nodes = tuple(interval[1] for interval in intervals if interval)
    return Node("union", " \\cup ".join(node.text for node in nodes), nodes)


# --- congruences ---

_MODULUS = re.compile(r"(.*?\S)\s*\\pmod\s*\{([^{}]*)\}", re.DOTALL)
_WHOLE = re.compile(r"[+-]?\d{1,300}")


_PROGRESSION = re.compile(
    r"(?:[a-z]\s*=\s*)?(?:(-?\d+)\s*\+\s*(\d+)\s*(?:\\cdot|\*)?\s*[jklmnt]|(\d+)\s*(?:\\cdot|\*)?\s*[jklmnt]\s*([+-]\s*\d+))"
)


def split_modulus(text: str) -> tuple[str, str]:
    r"""``3 \pmod{5}`` and ``3 + 5k`` as "3" and "5"; other texts with an empty modulus."""
    congruence = _MODULUS.fullmatch(text)
    if progression := _PROGRESSION.fullmatch(text):  # 5 + 12k is 5 modulo 12
        return re.sub(r"[\s+]", "", progression[1] or progression[4]), progression[2] or progression[3]
    return (congruence[1], congruence[2].strip()) if congruence and "\\pmod" not in congruence[1] else (text, "")


def same_residue(gold: Node, answer: Node, modulus: str) -> bool | None:
    """Whether two whole numbers leave the same remainder; None where one is no whole number."""
    texts = [named[1].text if (named := named_value(node)) else node.text for node in (gold, answer)]
    if not modulus.isdigit() or len(modulus) > 300 or int(modulus) == 0:
        return None
    if not all(_WHOLE.fullmatch(text.replace(" ", "")) for text in texts):
        return None
    left, right = (int(text.replace(" ", "")) for text in texts)
    return (left - right) % int(modulus) == 0


# --- conditions ---

DATE = re.compile(r"\d{4}-\d{1,2}-\d{1,2}|\d{1,2}[/.]\d{1,2}[/.]\d{2,4}")
_CONDITION = r"(?:at|when|whenever|where|for|if|with|provided|as long as|given)(?: (?:all|any|every|each|some|that))?"
_CONDITION_AFTER = re.compile(
    rf"(?P<value>.*?\S)\s*,?\s*(?:\\text\s*\{{\s*,?\s*{_CONDITION}\b[^{{}}]*\}}|(?<![A-Za-z\\]){_CONDITION}(?![A-Za-z]))\s*\S.*",
    re.DOTALL,
)
_VARIABLE_NAME = r"(?:[a-zA-Z](?:_\{?\w+\}?)?|\\[a-z]+)"
_DOMAIN = re.compile(
    rf"(?P<value>.*?\S)\s*(?:,|;)\s*(?:\(?\s*{_VARIABLE_NAME}(?:\s*,\s*{_VARIABLE_NAME})*\s*"
    rf"(?:\\(?:in|ge|le|ne|notin)(?![a-z])|[<>])[^,;]*\)?|\\forall[^,;]*)",
    re.DOTALL,
)
_PLACE = re.compile(rf"(?P<value>[^=,;<>]*[^=,;<>\s])\s*[,;]\s*{_VARIABLE_NAME}\s*=[^=,;]+")
_CONDITION_BEFORE = re.compile(
    r"(?:\\forall[^,:;]*[,:;]|\\text\s*\{\s*(?:For|When|If)\b[^{}]*\}[^,]*,)\s*(?P<value>\S.*)", re.DOTALL
)


def without_condition(text: str) -> str | None:
    r"""The value in a text that also states a condition; None for a text without one.

    Such texts are ``5 \text{ at } x=2``, ``a_n=\frac1n, n \ge 1`` and ``\forall x>0, f(x)=0``.
    """
    for pattern in (_CONDITION_BEFORE, _CONDITION_AFTER, _DOMAIN, _PLACE):
        if condition := pattern.fullmatch(text):
            value = condition["value"].strip(" ,;")
            if value and value.count("{") == value.count("}") and value.count("(") == value.count(")"):
                return value
    return None
