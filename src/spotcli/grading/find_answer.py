r"""Finding the answer in a text: in a box, in an announcement, or as the whole text.

Order of the search; the first match is the answer:

1. the last ``\boxed{...}`` or ``\fbox{...}`` with balanced braces, outside of thinking blocks; neighbouring boxes
   joined by a comma, "and" or "or" form one list;
2. an announcement near the end: ``the final answer is ...``, ``Answer: ...``, or a last line ``#### ...``, ``A: ...``
   or ``Solution: ...``;
3. the whole text, if it contains only an answer (``7,425,000``, ``$x=5$``).

This module uses only the standard library, and every pass is linear in the length of the text, because a model may
write a megabyte of open braces.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass


class NoAnswer(Exception):
    """The text contains no answer to grade; the message is the reason."""


@dataclass(frozen=True, slots=True)
class FoundAnswer:
    """The part of a text that is graded."""

    text: str
    announced: bool = False
    """Whether it follows an announcement such as "the answer is"; it may then be a sentence."""
    last_box: str | None = None
    """The last box, where ``text`` joins several neighbouring boxes."""


def find_answer(response: str) -> FoundAnswer:
    """Find the answer in a model's response.

    Raises:
        NoAnswer: the response contains no answer, or an incomplete or empty box.
    """
    text = strip_thinking(response)
    if boxed := _boxed(text):
        return _later_final_answer(text) or boxed
    if announced := _announced(text):
        return FoundAnswer(announced, announced=True)
    if whole := _whole(text):
        return FoundAnswer(whole)
    raise NoAnswer("no answer found: expected \\boxed{...} or an announcement such as 'the answer is'")


def find_reference(reference: str) -> FoundAnswer:
    """Find the answer in a reference: its box, the line after ``####``, or the whole text.

    In contrast to a response, a reference without a box is used as a whole, whatever its length.

    Raises:
        NoAnswer: the reference contains an incomplete or empty box.
    """
    if boxed := _boxed(reference):
        return boxed
    if len(reference) > 60 or "\n" in reference.strip() or "####" in reference:
        announced = _announced(reference)
        if announced:
            return FoundAnswer(announced, announced=True)
    return FoundAnswer(reference.strip())


# --- thinking ---

_TAGS = "think|thinking|thought|thoughts|reasoning|scratchpad|analysis"
_OPEN_OR_CLOSE = re.compile(rf"<(/?)(?:{_TAGS})>|(◁)(/?)think▷", re.IGNORECASE)


def strip_thinking(text: str) -> str:
    """Remove thinking blocks.

    The text after an opening tag that is not closed is removed, and so is the text before a closing tag without an
    opening one.
    """
    if "<" not in text and "◁" not in text:
        return text
    kept: list[str] = []
    position, depth = 0, 0
    for mark in _OPEN_OR_CLOSE.finditer(text):
        closing = bool(mark[1] or mark[3])
        if closing:
            if depth == 0:  # the chat template may have opened the block in the prompt
                kept.clear()
            depth = max(0, depth - 1)
        else:
            if depth == 0:
                kept.append(text[position : mark.start()])
            depth += 1
        position = mark.end()
    if depth == 0:
        kept.append(text[position:])
    return "".join(kept)


# --- boxes ---

# An escaped character such as \{ or \\ must not count as a brace. Doubled backslashes before "boxed" come from JSON.
# Each alternative begins with a fixed character, so that the search skips plain text fast. Pairs of backslashes are
# taken together: one by one, a long row of them takes the square of its length.
_BRACES = re.compile(r"\\++(?:boxed|fbox)(?![a-zA-Z])\s*+(\{)?|(?:\\\\)++|\\[^a-zA-Z]|\{|\}", re.DOTALL)
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


_NO_CONTENT = ("", "ldots", "dots", "cdots", "quad", "text")


def _boxed(text: str) -> FoundAnswer | None:
    """The answer in the last box and its neighbours; None for a text without a box."""
    if "\\boxed" not in text and "\\fbox" not in text:
        return None
    closed, unclosed = all_boxes(text)
    boxes = [box for box in _outside_programs(text, closed) if not _is_empty(box)]
    if unclosed is not None and (not boxes or unclosed > boxes[-1].start):
        raise NoAnswer("the last box is not closed")
    if not boxes:
        raise NoAnswer("the box is empty" if closed else "\\boxed is not followed by an answer")
    neighbours = [boxes[-1]]
    for box in reversed(boxes[:-1]):
        if not _are_neighbours(text[box.end : neighbours[-1].start]):
            break
        neighbours.append(box)
    contents = list(dict.fromkeys(box.content for box in reversed(neighbours)))
    if len(contents) == 1:
        return FoundAnswer(contents[0])
    return FoundAnswer(", ".join(contents), last_box=contents[-1])


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
    return "\\{" not in box.content and box.content.strip(" \t\n{}$.\\~_") in _NO_CONTENT


def all_boxes(text: str) -> tuple[list[Box], int | None]:
    """The outermost boxes in their order, and the start of the last box that is not closed."""
    closed: list[Box] = []
    # For each open brace: (start of the box, start of its content), or None for a plain brace.
    open_braces: list[tuple[int, int] | None] = []
    for mark in _BRACES.finditer(text):
        token = mark[0]
        if token == "{":
            open_braces.append(None)
        elif token == "}":
            if open_braces and (box := open_braces.pop()):
                start, content_start = box
                while closed and closed[-1].start > start:  # boxes within this box
                    closed.pop()
                closed.append(Box(start, mark.end(), text[content_start : mark.start()].strip()))
        elif mark[1]:
            open_braces.append((mark.start(), mark.end()))
        elif "box" in token:  # \boxed 5, without braces
            word = re.compile(r"[\w.+-]{1,40}").match(text, mark.end())
            if word:
                closed.append(Box(mark.start(), word.end(), word[0].rstrip(".")))
    unclosed = [entry[0] for entry in open_braces if entry]
    return closed, (unclosed[-1] if unclosed else None)


_MATH_SIGNS = re.compile(r"\$+|\\[()\[\]]|\\q?quad|\\text\w*|\\mbox|\\[,;! ]|[*{}&\\]|[A-Za-z]\w*(?:_\{?\w+\}?)?\s*=")

_STEP_WORDS = {
    "so", "then", "thus", "hence", "therefore", "finally", "but", "now", "next", "get", "not", "wait", "actually",
}  # fmt: skip
"""Words between two boxes that mark the first one as a step on the way to the second."""


def _are_neighbours(between: str) -> bool:
    r"""Whether two boxes separated by this text form one answer: ``\boxed{1} papers and \boxed{2} bins``."""
    if len(between) > 80 or re.search(r"\.\s|\n\s*\n|:", between):
        return False
    plain = _MATH_SIGNS.sub(" ", between)
    words = re.findall(r"[^\W\d_]+", plain.lower())
    others = [word for word in words if word not in ("and", "or")]
    if _STEP_WORDS & set(others):
        return False
    connected = len(others) < len(words) or "," in plain or ";" in plain
    return not words or (connected and len(others) <= 2 and len(words) - len(others) <= 1)


# --- announcements ---

_NEAR_END = 400
"""Characters at the end of a text that are searched. An earlier announcement may have been withdrawn since ("the answer
is 5. Wait, ...")."""
_ANSWER_IS = re.compile(
    r"\b(?:answers?|solutions?|(?:correct|right|best) (?:choice|option))\b"
    r"(?:\s*\([^()\n]{0,40}\))?(?:\s+(?:choice|option))?[*_`\"]*"
    r"(?:\s*(?:[:\uff1a=]|(?=\s*(?:\$|\\[(\[]))|\bis\b\s*:?|\bare\b\s*:?|->)"
    r"|\s+(?:to|for|of)\b[^.:\n]{0,100}?(?:\bis\b|\bare\b|:))"
    r"(?:\s+(?:clearly|definitely|therefore|thus|simply|option|choice)\b)?[*_`\"]*",
    re.IGNORECASE,
)
_LAST_LINE = re.compile(
    r"^\s*(?:\*\*)?(?:####|(?:A|Ans|Answer|Final Answer|Solution)\s*[:\uff1a](?:\*\*)?)\s*(.+)$",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(
    r"(\$\$.*?\$\$|\$[^$\n]*\$|\\\(.*?\\\)|\\\[.*?\\\]|\\.|\d[.,]\d)|([.!?。](?=\s|$|[\"*]|[^\x00-\x7f])|\n|<\|)",
    re.DOTALL,
)


def _announced(text: str) -> str | None:
    """The answer after the last announcement near the end."""
    text = text.rstrip()
    tail = text[max(0, len(text) - _NEAR_END) :]
    last_line = tail.rsplit("\n", 1)[-1]
    if line := _LAST_LINE.match(last_line):
        return _first_sentence(line[1])
    announcements = list(_ANSWER_IS.finditer(tail))
    return _first_sentence(tail[announcements[-1].end() :]) if announcements else None


_FINAL = re.compile(
    r"\bfinal answer\b(?:\s+is)?\s*:?\s*(?:the final answer is\s*:?\s*)?(?=[$\d-]|\\[(\[])", re.IGNORECASE
)


def _later_final_answer(text: str) -> FoundAnswer | None:
    """A ``final answer is $...$`` after the last box: the box was then only a step on the way."""
    tail = text[max(text.rfind("\\boxed"), text.rfind("\\fbox"), len(text) - _NEAR_END) :]
    announcement = _FINAL.search(tail)
    answer = _first_sentence(tail[announcement.end() :]) if announcement else None
    if not answer or len(answer) >= 60 or "box" in answer:
        return None
    return FoundAnswer(answer, announced=True)


def _first_sentence(text: str) -> str | None:
    text = text.lstrip(" \t\n*:")
    for mark in _SENTENCE_END.finditer(text):
        if mark[2]:
            text = text[: mark.start()]
            break
    text = text.strip(' \t*`"')
    if len(_WORD.findall(_COMMAND.sub(" ", text))) > 2 and (value := _IS_VALUE.match(text)):
        text = value[1]  # Final Answer: The largest $n$ is 34.
    return text or None


_IS_VALUE = re.compile(r"[^\W\d_].*\b(?:is|are|equals)\s+(?:equal to\s+)?(?=[$\\\d-])(.+)$", re.DOTALL)


# --- the whole text ---

_WORD = re.compile(r"(?<![\\A-Za-z])[^\W\d_]{2,}")
_COMMAND = re.compile(r"\\(?:text|mbox|mathrm|textbf|begin|end)\s*\{[^{}]*\}|\\[A-Za-z]+")
_FORMULA = re.compile(r"\$\$(.+?)\$\$|\$([^$]+)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_IN_FORMULAS = {
    "and", "or", "sin", "cos", "tan", "log", "ln", "exp", "sqrt", "pi", "max", "min", "inf", "percent", "pct",
}  # fmt: skip
"""Words that do not turn a formula into prose."""


def _whole(text: str) -> str | None:
    """The text itself, if it contains only an answer; else None.

    Such a text is a formula, a number with its unit, up to three words, or one short sentence around a single formula.
    """
    text = text.strip()
    if not text or len(text) > 1000:
        return None
    words = [word for word in _WORD.findall(_COMMAND.sub(" ", text)) if word.lower() not in _IN_FORMULAS]
    formulas = [m for m in _FORMULA.finditer(text) if not re.fullmatch(r"[\s\d.,]*\s[a-z]{3,}.*", m[0].strip("$"))]
    if len(formulas) == 1 and len(words) <= 8 and len(text) - len(formulas[0][0]) <= 60 and ". " not in text:
        outside = text.replace(formulas[0][0], " ")
        if re.search(r"\d|\bnot\b", outside):
            return None
        return formulas[0][0] if re.search(r"[^\W\d_]{3,}", text[: formulas[0].start()]) else text
    if text.count("\n") > (12 if text[0] in "$\\" else 0) or re.search(r"\w\s*:\s", text):
        return None
    number_first = re.match(r"[-+$€£\\(\[.]*\d", text)
    if len(words) <= 3 and (number_first or len(words) == len(text.split())):
        return text
    return text if len(words) <= 1 or ("=" in text and len(words) <= 2) else None


_CHOICE = re.compile(r"\W{0,3}\(?([A-J])(?:[).:,。]|[^\x00-\x7f]|\s*$)")


def leading_choice(response: str) -> str | None:
    """The choice letter at the start of a response (``D. it can't be A``), for references that are a letter."""
    choice = _CHOICE.match(strip_thinking(response).strip())
    return choice[1] if choice else None
