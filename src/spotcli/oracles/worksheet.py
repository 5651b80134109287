"""Wrong answers in one file that a person edits.

    spot rectify --export todo.md        write it
    spot rectify --import todo.md        read it back: as often as you like, finished or not

    #|FENCE answer DIGEST                which answer this is; do not edit such lines
    #| the problem, the reference        comments: they are not read back
    #|FENCE begin
    the wrong answer, to be corrected here
    #|FENCE end

FENCE is random and occurs in none of the file's texts, so that no answer can imitate one of these lines. DIGEST
identifies problem, reference and wrong answer. An entry can be moved or removed; a removed one stays open.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from spotcli.console import safe
from spotcli.core.oracle_prompts import new_fence
from spotcli.errors import UserError
from spotcli.oracles import CorrectionRequest

SKIP = "SKIP"
"""Alone in the place of an answer: do not ask about it again."""
UNDO = "UNDO"
"""Alone in the place of an answer: discard the earlier reply; the answer is open again."""

_FIRST_LINE = re.compile(r"#\| spot todo ([0-9a-f]{6})\b")
_HEAD = f"""\
#| Correct each answer between `begin` and `end` with as few changes as you can; do not edit the lines `begin` and
#| `end`. Unchanged: left for later. {SKIP} alone: not asked again. {UNDO} alone: open again. An entry that you edit and
#| import again replaces the earlier one.
"""


@dataclass(frozen=True)
class EditedAnswer:
    """One answer as a person left it."""

    digest: str
    text: str
    line: int
    """The number of its first line, from 1."""


def encodable(text: str) -> str:
    """The text with lone surrogates replaced, which cannot be encoded."""
    return text.encode("utf-8", errors="replace").decode()


def write(items: Iterable[tuple[str, CorrectionRequest]]) -> str:
    """The file's text; each item is a digest and its request."""
    entries = list(items)
    texts = [text for _, request in entries for text in (*problem_lines(request), request.sample.response)]
    fence = new_fence(texts)
    parts = [f"#| spot todo {fence}: {len(entries)} wrong answers\n{_HEAD}"]
    for digest, request in entries:
        comments = [f"#| {safe(line)}".rstrip() for line in problem_lines(request)]
        lines = [f"#|{fence} answer {digest}", *comments, f"#|{fence} begin", encodable(request.sample.response)]
        parts.append("\n".join([*lines, f"#|{fence} end\n"]))
    return "\n".join(parts)


def problem_lines(request: CorrectionRequest) -> list[str]:
    """What a person has to know about a wrong answer, as lines."""
    sample = request.sample
    problem = "\n\n".join(message["content"] for message in sample.messages)
    complaint = request.prompt.feedback.complaint if request.prompt.feedback else ""
    return [
        f"{sample.id}, answer {sample.trial}",
        "",
        *problem.splitlines(),
        "",
        f"reference: {sample.answer}",
        *(["", *f"earlier attempt: {complaint}".splitlines()] if complaint else []),
    ]


def read(text: str, where: str) -> list[EditedAnswer]:
    """The answers of a file; all of them, or an error.

    Raises:
        UserError: another kind of file, an answer without its end, a duplicate answer; with file and line.
    """
    lines = text.removeprefix("\ufeff").split("\n")
    first = _FIRST_LINE.match(lines[0])
    if not first:
        raise UserError(
            "expected a file that `spot rectify --export` wrote",
            where=f"{where}:1",
            cure="write one with spot rectify --export FILE",
        )
    mark = f"#|{first[1]} "
    answers: list[EditedAnswer] = []
    line_of: dict[str, int] = {}
    digest, start = "", 0
    for number, line in enumerate(lines, 1):
        if not line.startswith(mark):
            continue
        word, _, rest = line.removeprefix(mark).strip().partition(" ")
        expected = "end" if start else "begin" if digest else "answer"
        if word != expected:
            raise UserError(
                f"expected '{expected}', got '{word}'", where=f"{where}:{number}", cure="restore the exported line"
            )
        if word == "answer":
            digest = rest
            if digest in line_of:
                raise UserError(
                    f"duplicate answer (first in line {line_of[digest]})",
                    where=f"{where}:{number}",
                    cure="keep one of the two entries",
                )
            line_of[digest] = number
        elif word == "begin":
            start = number
        else:
            answers.append(EditedAnswer(digest, _inside(lines[start : number - 1], line), start + 1))
            digest, start = "", 0
    if digest:
        raise UserError(
            "the file ends inside an answer",
            where=f"{where}:{line_of[digest]}",
            cure=f"add '{mark}end' after it, or remove it",
        )
    return answers


def _inside(lines: list[str], end: str) -> str:
    """The text between `begin` and `end`; an editor that ends lines with CR LF does so in the line `end` too."""
    if end.endswith("\r"):
        lines = [line.removesuffix("\r") for line in lines]
    return "\n".join(lines)
