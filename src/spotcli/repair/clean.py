r"""What models do to a text that they were asked to return: undone where that is certain, otherwise refused by name.

A correction becomes training data as it is. So a wrapper around the whole text (a code fence, JSON, a heading) is
removed, and text that the student did not write and no solution should contain (remarks about the correction, omitted
parts, hidden characters) makes it no pair.
"""

from __future__ import annotations

import json
import re
import unicodedata
from dataclasses import dataclass
from typing import Literal

Damage = Literal["hidden characters", "escaped text", "omitted text", "meta talk"]
"""Why a correction cannot be used as it is."""

COMPLAINTS: dict[str, str] = {
    "hidden characters": "The reply contains control or invisible characters. Write plain text.",
    "escaped text": "The reply is escaped (\\n for line ends). Write line ends and backslashes as the student did.",
    "omitted text": "The reply leaves out parts of the solution. Write every line of it.",
    "meta talk": "The reply speaks about the correction, the student or the reference. Write only the solution.",
}
"""What the oracle is told for its next attempt."""

# These patterns search whole replies, so none of them may take the square of a text's length.
_FENCE_START = re.compile(r"```[\w+-]*[^\S\n]*\n")
_HEADING = re.compile(
    r"[#*_\s]*+(?:here is )?(?:the |my )?(?:corrected|revised|fixed|updated|repaired) "
    r"(?:solution|answer|response|version|text|work)[*_\s:.]*\n",
    re.IGNORECASE,
)
_LITERAL_LINE_END = re.compile(r"\\n")
_COMMAND = re.compile(r"(?<!\\)(\\++)([A-Za-z]+)")
_OMITTED = re.compile(
    r"(?:\.{3}|…)[^\n.…]{0,40}\b(?:unchanged|same as|as before|omitted|the rest|remains?)\b"
    r"|\b(?:unchanged|as before|omitted|the rest)\b[^\n.…]{0,40}(?:\.{3}|…)"
    r"|\[(?:rest|remainder)[^\]\n]{0,60}\]",
    re.IGNORECASE,
)
_META = re.compile(
    r"\b(?:I|we)(?:'ve| have)? (?:just )?(?:corrected|repaired|amended|fixed the (?:error|mistake|step|line))\b"
    r"|\bthe student(?:'s|s)?\b|\breference (?:answer|solution)\b"
    r"|\b(?:original|previous|earlier) (?:answer|solution|response|mistake|error)\b"
    r"|\b(?:mistake|error) (?:was|is) (?:here|in|that)\b|\bcorrected (?:step|line|answer|solution|value)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Cleaned:
    """A correction without its wrapper, or why it cannot be used."""

    text: str
    damage: Damage | None = None


def clean(text: str, student: str, problem: str = "") -> Cleaned:
    """Undo what was certainly added around or to a correction, and find what must not be trained on.

    Whatever the student's answer or the problem contains itself is allowed. White space around the text is kept.
    """
    core = text.strip()
    start = text.index(core)
    text = f"{text[:start]}{_unwrapped(core, student).strip()}{text[start + len(core) :]}"
    known = f"{student}\n{problem}"
    if any(map(_is_hidden, set(text) - set(student))):
        return Cleaned(text, "hidden characters")
    if _is_escaped(text, student):
        return Cleaned(text, "escaped text")
    # Lines that the student wrote need no search.
    added = "\n".join(set(text.splitlines()) - set(student.splitlines()))
    if _is_new(_OMITTED, added, known):
        return Cleaned(text, "omitted text")
    if _is_new(_META, added, known):
        return Cleaned(text, "meta talk")
    return Cleaned(text)


def _unwrapped(text: str, student: str) -> str:
    """The text without a code fence, a JSON object, a heading or doubled backslashes around or in all of it."""
    if (fenced := _fenced(text)) is not None and _fenced(student) is None and "```" not in fenced:
        text = fenced
    if text.lstrip().startswith("{") and not student.lstrip().startswith("{"):
        text = _json_text(text) or text
    if (heading := _HEADING.match(text)) and not _HEADING.match(student):
        text = text[heading.end() :]
    return _with_single_backslashes(text, student)


def _fenced(text: str) -> str | None:
    """The text in a code fence around the whole text; None if there is no such fence."""
    text = text.strip()
    start = _FENCE_START.match(text)
    if start is None or not text[start.end() :].endswith("```"):
        return None
    inside = text[start.end() : -len("```")].rstrip(" \t")
    return inside.removesuffix("\n")


def _json_text(text: str) -> str | None:
    """The only text in a JSON object; None if there is another number of texts, or it is not JSON."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    texts = [item for item in value.values() if isinstance(item, str)] if isinstance(value, dict) else []
    return texts[0] if len(texts) == 1 else None


def _with_single_backslashes(text: str, student: str) -> str:
    r"""Halve the backslashes if every LaTeX command is written ``\\boxed``, while the student writes ``\boxed``."""
    if "\\\\" not in text:
        return text
    lengths = {len(slashes) for slashes, _ in _COMMAND.findall(text)}
    student_lengths = {len(slashes) for slashes, _ in _COMMAND.findall(student)}
    return text.replace("\\\\", "\\") if lengths == {2} and student_lengths == {1} else text


def _is_escaped(text: str, student: str) -> bool:
    r"""Whether line ends are written as ``\n``.

    ``\neq`` and ``\nu`` begin the same way, so the number of lines decides.
    """
    if not _LITERAL_LINE_END.search(text) or _LITERAL_LINE_END.search(student):
        return False
    return text.count("\n") * 2 < student.strip().count("\n")


def _is_hidden(character: str) -> bool:
    """Whether a character is a control or invisible one, other than a line end or a tab."""
    if character in "\n\r\t":
        return False
    if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co"):
        return True
    code = ord(character)
    # Variation selectors can carry hidden text; U+FE0E and U+FE0F choose between text and emoji.
    return 0xFE00 <= code <= 0xFE0D or 0xE0100 <= code <= 0xE01EF


def _is_new(pattern: re.Pattern[str], text: str, known: str) -> bool:
    """Whether the text contains a passage of this kind that is not known."""
    passages, known = {match.group().casefold() for match in pattern.finditer(text)}, known.casefold()
    return any(passage not in known for passage in passages)
