"""Wrong answers in one file that a person edits where and when it suits them.

    spot rectify --export todo.md        write it
    spot rectify --import todo.md        read it back: as often as you like, finished or not

    #|FENCE answer DIGEST                which answer this is; do not touch such lines
    #| the problem, the reference        comments: nobody reads them back
    #|FENCE begin
    the wrong answer, to be mended here
    #|FENCE end

FENCE is drawn for each file and occurs in no text of it, so that no answer can pass for a line of ours. DIGEST stands
for problem, reference and wrong answer. An entry can be moved or removed; what is not there stays open.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from spotcli.console import safe
from spotcli.core.oracle_prompts import new_fence
from spotcli.errors import UserError
from spotcli.oracles import Request

SKIP = "SKIP"
"""Alone in the place of an answer: do not ask about it again."""
UNDO = "UNDO"
"""Alone in the place of an answer: forget what was said about it; it is open again."""

_FIRST = re.compile(r"#\| spot todo ([0-9a-f]{6})\b")
_HEAD = f"""\
#| Mend each answer between `begin` and `end`, with as few changes as you can, and leave the lines of these two as they
#| are. Unchanged: left for later. {SKIP} alone: not asked again. {UNDO} alone: open again. An entry that is edited once
#| more and read back takes the place of the former.
"""


@dataclass(frozen=True)
class Entry:
    """One answer as it came back."""

    digest: str
    text: str
    line: int
    """Of its first line, from 1."""


def shown(text: str) -> str:
    """The text as a file can hold it: half a surrogate pair has no bytes."""
    return text.encode("utf-8", errors="replace").decode()


def write(items: Iterable[tuple[str, Request]]) -> str:
    """The file's text; each item is a digest and what is asked."""
    asked = list(items)
    texts = [text for _, request in asked for text in (*problem(request), request.sample.response)]
    fence = new_fence(texts)
    parts = [f"#| spot todo {fence}: {len(asked)} wrong answers\n{_HEAD}"]
    for digest, request in asked:
        comments = [f"#| {safe(line)}".rstrip() for line in problem(request)]
        lines = [f"#|{fence} answer {digest}", *comments, f"#|{fence} begin", shown(request.sample.response)]
        parts.append("\n".join([*lines, f"#|{fence} end\n"]))
    return "\n".join(parts)


def problem(request: Request) -> list[str]:
    """What a person has to know of a wrong answer, in lines."""
    sample = request.sample
    told = "\n\n".join(message["content"] for message in sample.messages)
    before = request.ask.feedback.complaint if request.ask.feedback else ""
    return [
        f"{sample.id}, answer {sample.trial}",
        "",
        *told.splitlines(),
        "",
        f"reference: {sample.answer}",
        *(["", *f"before: {before}".splitlines()] if before else []),
    ]


def read(text: str, where: str) -> list[Entry]:
    """The answers of a file; nothing of it is taken where one of its lines is broken.

    Raises:
        UserError: not such a file, an answer without its end, the same answer twice; with file and line.
    """
    lines = text.removeprefix("\ufeff").split("\n")
    first = _FIRST.match(lines[0])
    if not first:
        raise UserError(
            "this is no file that spot wrote", where=f"{where}:1", cure="make one with spot rectify --export"
        )
    mark = f"#|{first[1]} "
    found: list[Entry] = []
    places: dict[str, int] = {}
    digest, start = "", 0
    for number, line in enumerate(lines, 1):
        if not line.startswith(mark):
            continue
        word, _, rest = line.removeprefix(mark).strip().partition(" ")
        here = f"{where}:{number}"
        expected = "end" if start else "begin" if digest else "answer"
        if word != expected:
            raise UserError(
                f"here should stand '{expected}', not '{word}'", where=here, cure="put back the line that spot wrote"
            )
        if word == "answer":
            digest = rest
            if digest in places:
                raise UserError(
                    f"the answer of line {places[digest]} again", where=here, cure="keep one of the two entries"
                )
            places[digest] = number
        elif word == "begin":
            start = number
        else:
            # An editor that ends lines with CR LF does so in our lines too.
            cut = 1 if line.endswith("\r") else 0
            inside = [one[: len(one) - cut] if one.endswith("\r") else one for one in lines[start : number - 1]]
            found.append(Entry(digest, "\n".join(inside), start + 1))
            digest, start = "", 0
    if digest:
        raise UserError(
            "the file ends within an answer",
            where=f"{where}:{places[digest]}",
            cure=f"write '{mark}end' behind it, or remove it",
        )
    return found
