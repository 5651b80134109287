"""Where the answer stands in a text: the box, the announcement, or nothing.

Order of search, the first that is there decides:

1. the last ``\\boxed{...}`` or ``\\fbox{...}`` with balanced braces, outside of thinking blocks; neighbours
   joined by
   commas, "and" or "or" form one list;
2. an announcement near the end: ``the final answer is ...``, ``Answer: ...``, a last line ``#### ...``, ``A:
   ...`` or
   ``Solution: ...``;
3. the whole text, where it is nothing but an answer (``7,425,000``, ``$x=5$``);
4. only when asked for: the last number of the prose.

Standard library only, and every pass is linear in the length of the text: a model may write a megabyte of
open braces.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Kind = Literal["box", "announced", "whole", "number"]


class NoAnswer(Exception):
    """There is no answer to grade; the message is the reason of the "undecided"."""


class Undecidable(Exception):
    """Neither right nor wrong can be proved; the message is the reason."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The piece of text that is graded. ``last`` is the last box alone where ``text`` joins several
    neighbours."""

    text: str
    kind: Kind
    last: str | None = None


def find_answer(response: str, *, bare_number: bool = False) -> Answer:
    """The answer of a model's response.

    ``bare_number``: with no box and no announcement, take the last number of the prose.
    Raises NoAnswer with the reason.
    """
    text = strip_thinking(response)
    if boxed := _boxes(text):
        return _later_final_answer(text) or boxed
    if announced := _announced(text):
        return Answer(announced, "announced")
    if whole := _whole(text):
        return Answer(whole, "whole")
    if bare_number and (number := _last_number(text)):
        return Answer(number, "number")
    raise NoAnswer("no answer found: neither a box nor an announcement such as 'the answer is'")


def find_reference(reference: str) -> Answer:
    """The answer of a reference: its box, the line after ``####``, or the whole text.

    Unlike a response, a reference without a box is taken as it stands, however long.
    """
    if boxed := _boxes(reference):
        return boxed
    if len(reference) > 60 or "\n" in reference.strip() or "####" in reference:
        announced = _announced(reference)
        if announced:
            return Answer(announced, "announced")
    return Answer(reference.strip(), "whole")


# --- thinking ---

_TAGS = "think|thinking|thought|thoughts|reasoning|scratchpad|analysis"
_OPEN_OR_CLOSE = re.compile(rf"<(/?)(?:{_TAGS})>|(◁)(/?)think▷", re.IGNORECASE)


def strip_thinking(text: str) -> str:
    """What stands after the last thinking block. A block that was never closed leaves only what came before
    it."""
    if "<" not in text and "◁" not in text:
        return text
    kept: list[str] = []
    position, depth = 0, 0
    for mark in _OPEN_OR_CLOSE.finditer(text):
        closing = bool(mark[1] or mark[3])
        if closing:
            if depth == 0:  # chat templates may open the block in the prompt: everything so far was thinking
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

# An escaped sign such as \{ or \\ must not count as a brace. Doubled backslashes before "boxed" come from
# JSON.
# Each alternative begins with one sign, which is what lets the search skip plain text.
_BRACES = re.compile(r"\\(?:\\*(?:boxed|fbox)(?![a-zA-Z])\s*(\{)?|[^a-zA-Z])|\{|\}", re.DOTALL)
_FENCE = re.compile(r"^```[ \t]*([A-Za-z+#]*)[^\n]*\n(.*?)^```", re.DOTALL | re.MULTILINE)
_PROGRAMS = {
    "python",
    "py",
    "python3",
    "sympy",
    "c",
    "cpp",
    "c++",
    "java",
    "javascript",
    "js",
    "bash",
    "sh",
    "rust",
    "go",
}


@dataclass(frozen=True, slots=True)
class Box:
    start: int
    end: int
    content: str


def _boxes(text: str) -> Answer | None:
    if "\\boxed" not in text and "\\fbox" not in text:
        return None
    found, unclosed = all_boxes(text)
    programs = [m.span() for m in _FENCE.finditer(text) if m[1].lower() in _PROGRAMS] if "```" in text else []
    spoken = [b for b in found if not any(s <= b.start < e for s, e in programs)] or found
    boxes = [
        b
        for b in spoken
        if "\\{" in b.content or b.content.strip(" \t\n{}$.\\~_") not in ("", "ldots", "dots", "cdots", "quad", "text")
    ]
    if unclosed is not None and (not boxes or unclosed > boxes[-1].start):
        raise NoAnswer("the last box is not closed")
    if not boxes:
        raise NoAnswer("the box is empty") if found else NoAnswer("a box without content")
    run = [boxes[-1]]
    for box in reversed(boxes[:-1]):
        if not _neighbours(text[box.end : run[-1].start]):
            break
        run.append(box)
    contents: list[str] = []
    for box in reversed(run):
        if box.content not in contents:
            contents.append(box.content)
    if len(contents) == 1:
        return Answer(contents[0], "box")
    return Answer(", ".join(contents), "box", last=contents[-1])


def all_boxes(text: str) -> tuple[list[Box], int | None]:
    """Every box that lies in no other box, in order, and the start of the last box that was never closed."""
    closed: list[Box] = []
    open_braces: list[
        tuple[int, int] | None
    ] = []  # (start of the box, start of its content), or None for a plain brace
    for mark in _BRACES.finditer(text):
        token = mark[0]
        if token == "{":
            open_braces.append(None)
        elif token == "}":
            if open_braces and (box := open_braces.pop()):
                start, inside = box
                while closed and closed[-1].start > start:  # boxes within this one
                    closed.pop()
                closed.append(Box(start, mark.end(), text[inside : mark.start()].strip()))
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
    "so",
    "then",
    "thus",
    "hence",
    "therefore",
    "finally",
    "but",
    "now",
    "next",
    "get",
    "not",
    "wait",
    "actually",
}


def _neighbours(between: str) -> bool:
    """Whether two boxes with this text between them are one answer: ``\\boxed{1} papers and \\boxed{2}
    bins``."""
    if len(between) > 80 or re.search(r"\.\s|\n\s*\n|:", between):
        return False
    plain = _MATH_SIGNS.sub(" ", between)
    words = re.findall(r"[^\W\d_]+", plain.lower())
    others = [w for w in words if w not in ("and", "or")]
    if _STEP_WORDS & set(others):
        return False
    connected = len(others) < len(words) or "," in plain or ";" in plain
    return not words or (connected and len(others) <= 2 and len(words) - len(others) <= 1)


# --- announcements ---

# An announcement far from the end may have been revoked since ("the answer is 5. Wait, ...").
_NEAR_END = 400
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
    text = text.rstrip()
    start = max(0, len(text) - _NEAR_END)
    tail = text[start:]
    last_line = tail.rsplit("\n", 1)[-1]
    if line := _LAST_LINE.match(last_line):
        return _first_sentence(line[1])
    found = None
    for found in _ANSWER_IS.finditer(tail):  # noqa: B007 - the last one counts
        pass
    return _first_sentence(tail[found.end() :]) if found else None


_FINAL = re.compile(
    r"\bfinal answer\b(?:\s+is)?\s*:?\s*(?:the final answer is\s*:?\s*)?(?=[$\d-]|\\[(\[])", re.IGNORECASE
)


def _later_final_answer(text: str) -> Answer | None:
    """A ``final answer is $...$`` after the last box, which then was only a step on the way."""
    tail = text[max(text.rfind("\\boxed"), text.rfind("\\fbox"), len(text) - _NEAR_END) :]
    found = _FINAL.search(tail)
    answer = _first_sentence(tail[found.end() :]) if found else None
    return Answer(answer, "announced") if answer and len(answer) < 60 and "box" not in answer else None


def _first_sentence(text: str) -> str | None:
    text = text.lstrip(" \t\n*:")
    for mark in _SENTENCE_END.finditer(text):
        if mark[2]:
            text = text[: mark.start()]
            break
    text = text.strip(' \t*`"')
    if len(_WORD.findall(_COMMAND.sub(" ", text))) > 2 and (said := _IS_VALUE.match(text)):
        text = said[1]  # Final Answer: The largest $n$ is 34.
    return text or None


_IS_VALUE = re.compile(r"[^\W\d_].*\b(?:is|are|equals)\s+(?:equal to\s+)?(?=[$\\\d-])(.+)$", re.DOTALL)

# --- the whole text, the last number ---

_WORD = re.compile(r"(?<![\\A-Za-z])[^\W\d_]{2,}")
_COMMAND = re.compile(r"\\(?:text|mbox|mathrm|textbf|begin|end)\s*\{[^{}]*\}|\\[A-Za-z]+")
_FORMULA = re.compile(r"\$\$(.+?)\$\$|\$([^$]+)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_IN_FORMULAS = {
    "and",
    "or",
    "sin",
    "cos",
    "tan",
    "log",
    "ln",
    "exp",
    "sqrt",
    "pi",
    "max",
    "min",
    "inf",
    "percent",
    "pct",
}


def _whole(text: str) -> str | None:
    """The text itself, where it is nothing but an answer: a formula, a number with its unit, up to three
    words, or one short sentence around a single formula."""
    text = text.strip()
    if not text or len(text) > 1000:
        return None
    words = [w for w in _WORD.findall(_COMMAND.sub(" ", text)) if w.lower() not in _IN_FORMULAS]
    formulas = [m for m in _FORMULA.finditer(text) if not re.fullmatch(r"[\s\d.,]*\s[a-z]{3,}.*", m[0].strip("$"))]
    if len(formulas) == 1 and len(words) <= 8 and len(text) - len(formulas[0][0]) <= 60 and ". " not in text:
        outside = text.replace(formulas[0][0], " ")
        if re.search(r"\d|\bnot\b", outside):
            return None
        return formulas[0][0] if re.search(r"[^\W\d_]{3,}", text[: formulas[0].start()]) else text
    if text.count("\n") > (12 if text[0] in "$\\" else 0) or re.search(r"\w\s*:\s", text):
        return None
    number_first = re.match(r"[-+$€£\\(\[.]*\d", text)
    return (
        text
        if len(words) <= 3 and (number_first or not words or len(words) == len(text.split()))
        else (text if len(words) <= 1 or ("=" in text and len(words) <= 2) else None)
    )


_CHOICE = re.compile(r"\W{0,3}\(?([A-J])(?:[).:,。]|[^\x00-\x7f]|\s*$)")


def leading_choice(response: str) -> str | None:
    """The letter with which a response begins (``D. it can't be A``), for references that are a letter."""
    found = _CHOICE.match(strip_thinking(response).strip())
    return found[1] if found else None


_NUMBER = re.compile(r"(?<![\w.])[-+]?\$?\d[\d,]*(?:\.\d+)?(?:/\d+)?%?")


def _last_number(text: str) -> str | None:
    numbers = _NUMBER.findall(text[-4000:])
    return numbers[-1].rstrip(",") if numbers else None
