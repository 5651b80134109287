r"""Answers in ``\boxed{...}`` and ``\fbox{...}``: which of several boxes are the answer."""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise

from spotcli.grading.compare.units import is_unit
from spotcli.grading.extraction import FoundAnswer, NoAnswer
from spotcli.grading.extraction.sentences import DIGIT, lowered

# An escaped character such as \{ or \\ must not count as a brace. Doubled backslashes before "boxed" come from JSON.
# Each alternative begins with a fixed character, so that the search skips plain text fast. Pairs of backslashes are
# taken together: one by one, a long row of them takes the square of its length.
_BRACES = re.compile(r"\\++(?:boxed|fbox)(?![a-zA-Z])\s*+(\{)?|(?:\\\\)++|\\[^a-zA-Z]|\{|\}", re.DOTALL)
_BARE_CONTENT = re.compile(r"[\w.+-]{1,40}")
"""The content of a box without braces."""
_FENCE = re.compile(r"^```[ \t]*([A-Za-z+#]*)[^\n]*\n(.*?)^```", re.DOTALL | re.MULTILINE)
_PROGRAMS = {
    "python", "py", "python3", "sympy", "c", "cpp", "c++", "java", "javascript", "js", "bash", "sh", "rust", "go",
}  # fmt: skip
"""Languages of fenced blocks in which a box is part of a program."""


@dataclass(frozen=True, slots=True)
class Box:
    """A ``\\boxed{...}`` at ``text[start:end]``."""

    start: int
    end: int
    content: str


_NO_CONTENT = {
    "", "ldots", "dots", "cdots", "quad", "text", "answer", "your answer", "final answer", "your final answer",
    "the answer", "the final answer", "textanswer", "textyour answer", "textfinal answer",
}  # fmt: skip
_DENIED = re.compile(
    r"(?:\b(?:not|cannot|never)|n't|\b(?:wrong|incorrect) answer|\brather than)"
    r"(?:\s+(?:be|is|was|equal|equal to|simply|just|the|answer|right|correct))*[\s:]*$"
)
"""Words before a box that deny its content, in lower case."""
_EMPTY_MARKS = re.compile(r"[{}$.\\~_*<>\[\]]")


def boxed_answer(text: str) -> tuple[FoundAnswer, int] | None:
    """The answer in the last box and its neighbours, and the position after it; None for a text without a box.

    Raises:
        NoAnswer: the last box is not closed, empty or denied.
    """
    if "box" not in text:
        return None
    closed, unclosed = all_boxes(text)
    boxes = _outside_programs(text, closed)
    if unclosed is not None and (not boxes or unclosed > boxes[-1].start):
        raise NoAnswer("the last box is not closed")
    filled = [box for box in boxes if not _is_empty(box)]
    if not filled:
        return None
    if boxes[-1] is not filled[-1]:
        raise NoAnswer("the last box is empty")
    if _is_denied(text, filled[-1]):
        raise NoAnswer("the text denies the boxed answer")
    return _of_several(text, filled), filled[-1].end


def _is_denied(text: str, box: Box) -> bool:
    """Whether the text before a box denies its content: "it cannot be"."""
    words = lowered(text[max(0, box.start - 60) : box.start])
    if not ("not" in words or "n't" in words or "never" in words or "answer" in words or "rather" in words):
        return False
    return _DENIED.search(words.rstrip("$ (\\[")) is not None


def _outside_programs(text: str, boxes: list[Box]) -> list[Box]:
    """The boxes outside of fenced programs; all boxes if there are no others."""
    if "```" not in text:
        return boxes
    programs = [fence.span() for fence in _FENCE.finditer(text) if fence[1].lower() in _PROGRAMS]
    starts = [start for start, _ in programs]

    def is_outside(box: Box) -> bool:
        before = bisect_right(starts, box.start)
        return before == 0 or box.start >= programs[before - 1][1]

    return list(filter(is_outside, boxes)) or boxes


def _is_empty(box: Box) -> bool:
    if DIGIT.search(box.content) or "\\{" in box.content:
        return False
    return " ".join(_EMPTY_MARKS.sub("", box.content).lower().split()) in _NO_CONTENT


def all_boxes(text: str) -> tuple[list[Box], int | None]:
    """The outermost boxes in their order, and the start of the last box that is not closed."""
    start = _first_box(text)
    closed: list[Box] = []
    # For each open brace: (start of the box, start of its content), or None for a plain brace.
    open_braces: list[tuple[int, int] | None] = []
    for mark in _BRACES.finditer(text, start):  # a brace that is opened before the first box closes no box
        token = mark[0]
        if token == "{":
            open_braces.append(None)
        elif token == "}":
            if open_braces and (box := open_braces.pop()):
                box_start, content_start = box
                while closed and closed[-1].start > box_start:  # boxes within this box
                    closed.pop()
                closed.append(Box(box_start, mark.end(), text[content_start : mark.start()].strip()))
        elif mark[1]:
            open_braces.append((mark.start(), mark.end()))
        elif "box" in token:  # \boxed 5, without braces
            word = _BARE_CONTENT.match(text, mark.end())
            if word:
                closed.append(Box(mark.start(), word.end(), word[0].rstrip(".")))
    unclosed = [entry[0] for entry in open_braces if entry]
    return closed, (unclosed[-1] if unclosed else None)


def _first_box(text: str) -> int:
    """The start of the backslashes before the first box; the length of a text without a box."""
    starts = [start for start in (text.find("\\boxed"), text.find("\\fbox")) if start >= 0]
    return len(text[: min(starts)].rstrip("\\")) if starts else len(text)


# --- several boxes ---


class _Link(Enum):
    """What the text between two boxes makes of them."""

    LIST = "one answer with several members"
    PARTS = "the answers of parts of the problem"
    SAME = "one value in two notations"
    FORMULA = "two operands of a formula"
    SIDE = "the answer and the place where it is attained"
    STEP = "a step and the answer"
    UNCLEAR = "unclear"


_MATH_SIGNS = re.compile(r"\$+|\\[()\[\]]|\\q?quad|\\text\w*|\\mbox|\\[,;! ]|[*{}&\\]|[A-Za-z]\w*(?:_\{?\w+\}?)?\s*=")
_OPERATOR = re.compile(r"\s*\$?\s*(:|/|\\times|\\cdot|\\div|\+|-|\^|\bby\b|\u00d7)\s*\$?\s*")
_RATIO = re.compile(r"[:/]")
_EQUIVALENT = re.compile(r"[\s$]*(?:=|,?\s*(?:or|i\.e\.|that is),?(?: equivalently| simply)?,?)[\s$]*")
_REMARK = re.compile(r"[\s$.,]*\([^()\n]{0,40}")
"""Text between two boxes, of which the second one is in a remark: ``\\boxed{3} (in meters: \\boxed{3 m})``."""
_OR = re.compile(r"\bor\b", re.IGNORECASE)
_EQUIVALENTLY = re.compile(r"\b(?:equivalent|same as|in other words|that is|i\.e)\b|\bequivalently\b", re.IGNORECASE)
_STEP_WORDS = {
    "so", "then", "thus", "hence", "therefore", "finally", "but", "now", "next", "get", "not", "wait", "actually",
    "step", "final", "checking", "again", "correction", "instead",
}  # fmt: skip
"""Words between two boxes that mark the first one as a step on the way to the second."""
_REPLACING_WORDS = {
    "no", "not", "wrong", "incorrect", "should", "instead", "wait", "actually", "final", "finally", "correction",
    "take", "choose", "reject",
}  # fmt: skip
"""Words between two boxes that replace the first one."""
_IN_FORMULA = re.compile(r"[\^<>]|\\(?:cup|cap|le|ge|lt|gt|frac|sqrt)(?![a-z])")
_SIDE = re.compile(
    r"(?:\b(?:at|when|where|for|if|with)\b)[^.\n]{0,20}?[A-Za-z]\w*\s*(?:=|\\(?:in|to)|is)?\s*[$\\(\[]*$"
)
_LABEL = re.compile(
    r"(?:^|[\s.;:*(])(?:(?:parts?|questions?|answer|problem|case|q)\s*\(?([a-h]|\d{1,2}|[ivx]{1,4})\b|\(([a-h]|\d{1,2}|[ivx]{1,4})\))"
    r"|(?:^|\n)\s*[*#]*(\d{1,2}|[a-h]|[ivx]{1,4})[.)]\s|\b(minim|maxim|smallest|largest|least|greatest)"
)


_PARTS_IN_BOX = re.compile(r"\s*(?:\\text\s*\{\s*)?(?:\(a\).*\(b\)|\(i\).*\(ii\))", re.DOTALL)
_PART_LABEL = re.compile(r"(?:\\text\s*\{\s*)?\((?:[a-h]|i{1,3}|iv|v)\)(?:\s*\})?:?")


def _of_several(text: str, boxes: list[Box]) -> FoundAnswer:
    """The answer in the last box and the boxes that belong to it."""
    last = boxes[-1]
    group: list[Box] = [last]
    links: list[_Link] = []
    for box in reversed(boxes[:-1]):
        if last.start - box.end > 4000 or len(group) == 12:
            break
        link = _link(text, box, group[0], boxes)
        if link is _Link.STEP:
            break
        group.insert(0, box)
        links.insert(0, link)
    contents = list(dict.fromkeys(box.content for box in group))
    if len(contents) == 1:
        parts = _PART_LABEL.sub(" ", contents[0]) if _PARTS_IN_BOX.match(contents[0][:1000]) else ""
        return FoundAnswer(parts, doubt="several parts in one box") if parts else FoundAnswer(contents[0])
    joined = ", ".join(contents)
    kinds = set(links)
    if kinds == {_Link.LIST}:
        alternatives = all(_OR.search(text[box.end : following.start]) for box, following in pairwise(group))
        return FoundAnswer(" or ".join(contents) if alternatives else joined, others=(last.content,))
    if kinds == {_Link.SAME}:
        return FoundAnswer(" or ".join(contents), doubt="several boxes, which may state one value")
    if kinds == {_Link.FORMULA}:
        formula = _formula(text, group)
        return FoundAnswer(formula, doubt="" if _RATIO.search(formula) else "several boxes in one formula")
    if kinds == {_Link.SIDE} and len(group) == 2:
        return FoundAnswer(contents[0], doubt="two boxes, of which one states where the value is attained")
    return FoundAnswer(joined, doubt="several boxes, of which one may be the answer")


def _link(text: str, box: Box, following: Box, boxes: list[Box]) -> _Link:
    between = text[box.end : following.start]
    if _OPERATOR.fullmatch(between):
        return _Link.FORMULA
    if (_EQUIVALENT.fullmatch(between) and "=" in between) or _EQUIVALENTLY.search(between):
        return _Link.SAME
    if _are_labelled(text, box, following, boxes):
        return _Link.PARTS
    is_step = bool((_STEP_WORDS | _REPLACING_WORDS) & set(re.findall(r"[a-z]+", between.lower())))
    if len(between) < 40 and _IN_FORMULA.search(between) and not is_step:
        return _Link.UNCLEAR
    if _are_neighbours(between):
        return _Link.LIST
    if not between.strip("$ \t\n.,;"):
        return _Link.UNCLEAR
    if _SIDE.search(between) and not is_step:
        return _Link.SIDE
    if _REMARK.fullmatch(between) and text[following.end :].lstrip("$ .").startswith(")"):
        return _Link.SAME
    return _Link.UNCLEAR if _is_one_sentence(between) else _Link.STEP


def _is_one_sentence(between: str) -> bool:
    """Whether two boxes may be two answers of one sentence: "the area is 12 and the perimeter is 14"."""
    if len(between) > 80 or re.search(r"\.\s|[!?]|\n\s*\n", between):
        return False
    words = set(re.findall(r"[a-z]+", between.lower()))
    if words & _REPLACING_WORDS:
        return False
    return ";" in between or (not words & _STEP_WORDS and (len(between) <= 40 or "and" in words))


def _formula(text: str, group: list[Box]) -> str:
    """The boxes as operands of the operators between them."""
    formula = group[0].content
    for box, following in pairwise(group):
        operator = _OPERATOR.fullmatch(text[box.end : following.start])
        sign = operator[1] if operator else ","
        formula += {"by": "\\times ", "\u00d7": "\\times "}.get(sign, f"{sign} ") + following.content
    return formula


def _are_labelled(text: str, box: Box, following: Box, boxes: list[Box]) -> bool:
    """Whether the text before each of two boxes names a part of the problem, each another one."""
    index = boxes.index(box)
    start = max(boxes[index - 1].end if index else 0, box.start - 2000)
    labels = []
    for region in (text[start : box.start], text[box.end : following.start]):
        found = _LABEL.findall(lowered(region))
        labels.append("".join(found[-1]) if found else "")
    return all(labels) and labels[0] != labels[1]


def _are_neighbours(between: str) -> bool:
    r"""Whether two boxes separated by this text form one answer: ``\boxed{1} papers and \boxed{2} bins``."""
    if len(between) > 80 or re.search(r"\.\s|\n\s*\n|:", between):
        return False
    plain = _MATH_SIGNS.sub(" ", between)
    words = re.findall(r"[^\W\d_]+", plain.lower())
    others = [word for word in words if word not in ("and", "or")]
    if _STEP_WORDS & set(others) or _SIDE.search(between) or any(is_unit(word) for word in others):
        return False  # 3 hours and 20 minutes are one answer
    connected = len(others) < len(words) or "," in plain or ";" in plain
    return bool(plain.strip()) and (not words or (connected and len(others) <= 2 and len(words) - len(others) <= 1))
