r"""What models do to a text that they were asked to return, undone where that is certain.

A correction becomes training data as it is. So a wrapper around the whole text (a code fence, JSON, a heading) is
removed, escapes are undone (``\\boxed``, ``\n``, a form feed in the place of ``\f``), and lines that the student wrote
get their quotes, minus signs and line ends back. ``damage`` finds what cannot be undone.
"""

from __future__ import annotations

import json
import re
import unicodedata
from dataclasses import dataclass

from spotcli.core.typography import fold
from spotcli.repair.damage import LITERAL_LINE_END, Damage, damage_of

_FENCE_START = re.compile(r"(```|~~~)[\w+-]*[^\S\n]*")
_TAG_START = re.compile(r"<([A-Za-z][\w-]{2,30})>")
_HEADING = re.compile(
    r"[#*_\s]*+(?:here(?: is|'s|’s) )?(?:the |my |your )?(?:fully )?"
    r"(?:corrected|revised|fixed|updated|repaired|amended|mended) "
    r"(?:solution|answer|response|version|text|work)[*_ \t:.]*+\n(?:[ \t]*+\n)*+",
    re.IGNORECASE,
)
_QUOTED = re.compile(r"^>[^\S\n]?", re.MULTILINE)
_ANSWER_KEY = re.compile(
    r"solution|answer|correct|fixed|mended|revised|text|response|output|content|result", re.IGNORECASE
)
_TRAILING = re.compile(r"(?<![ \t])[ \t]+(?=\r?$)")
_INVALID_ESCAPE = re.compile(r'\\(?!["\\/bfnrtu])')

_COMMAND = re.compile(r"(?<!\\)(\\++)([A-Za-z]++)")
_KNOWN_COMMANDS = (
    "alpha|approx|bar|begin|beta|bigl|bigr|binom|boxed|cap|cdots?|circ|cos|cup|dfrac|displaystyle|div|dots|ell|end|"
    "equiv|frac|gamma|geq?|hat|hline|in|infty|int|lambda|langle|lceil|ldots|left|leq?|lfloor|lim|ln|log|mathbb|mathbf|"
    "mathrm|mid|mod|mu|nabla|neq?|omega|operatorname|overline|phi|pi|pm|pmod|prod|quad|rangle|rceil|rfloor|right|"
    "Rightarrow|rightarrow|sigma|sin|sqrt|sum|tan|tau|text|textbf|tfrac|theta|times|to|triangle|vec|vdots"
)
_DOUBLED = re.compile(rf"(?<!\\)\\\\(?=(?:{_KNOWN_COMMANDS})(?![A-Za-z]))")
"""A LaTeX command with two backslashes: a line end of LaTeX is followed by neither of these words."""
_CONTROLS = {"\a": "a", "\b": "b", "\v": "v", "\f": "f"}
_EATEN = re.compile(
    r"[\a\b\v\f](?=[A-Za-z])"
    r"|\t(?=(?:au|ext(?:bf|it|rm)?|frac|herefore|heta|ilde|imes|riangle)(?![A-Za-z]))"
    r"|\r(?=(?:angle|ceil|floor|ho|ight(?:arrow)?)(?![A-Za-z]))"
    r"|\n(?=(?:abla|eq|geq|leq|otin)(?![A-Za-z]))"
)
"""A control character that was the first letter of a LaTeX command: ``\f`` and ``rac``."""
_LETTER_OF = _CONTROLS | {"\t": "t", "\r": "r", "\n": "n"}


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
    text = f"{text[:start]}{unwrapped(core, student).strip()}{text[start + len(core) :]}"
    text = _with_lines_of(student, _with_line_ends_of(student, text))
    return Cleaned(text, damage_of(text, student, problem))


def unwrapped(text: str, replaced: str) -> str:
    """A text without what was certainly put around it, and without escapes.

    Args:
        text: what was returned, a whole answer or a part of one.
        replaced: the text in the place of which it was returned; what that has itself is not a wrapper.
    """
    for _ in range(3):  # a code fence in JSON in a code fence
        inner = _unwrapped_once(text, replaced)
        if inner == text:
            break
        text = inner
    text = _with_single_backslashes(text, replaced)
    text = _EATEN.sub(lambda match: _restored(match, replaced), text)
    text = _with_line_ends(text, replaced)
    unusual = {character for character in set(text) - set(replaced) if _is_unusual_blank(character)}
    return text.translate(dict.fromkeys(map(ord, unusual), " "))


def _unwrapped_once(text: str, replaced: str) -> str:
    if (inner := _inside_fence(text)) is not None and _inside_fence(replaced) is None:
        return inner
    start = text.lstrip()[:1]
    if start and start in '{["' and not replaced.lstrip().startswith(start) and (inner := _json_text(text)):
        return inner
    if (inner := _inside_tags(text)) is not None and _inside_tags(replaced) is None:
        return inner
    if (heading := _HEADING.match(text)) and not _HEADING.match(replaced):
        return text[heading.end() :]
    lines = text.split("\n")
    if all(line.startswith(">") for line in lines if line.strip()) and not _QUOTED.search(replaced):
        return _QUOTED.sub("", text)
    if len(text) > 2 and text[0] == text[-1] == "`" and "`" not in text[1:-1] + replaced:
        return text[1:-1]
    return text


def _inside_fence(text: str) -> str | None:
    """The text in a code fence around all of it."""
    first, _, rest = text.strip().partition("\n")
    inner, _, last = rest.rpartition("\n")
    fence = _FENCE_START.fullmatch(first)
    return inner if fence and last.strip() == fence[1] and fence[1] not in inner else None


def _inside_tags(text: str) -> str | None:
    """The text in a pair of tags around all of it."""
    text = text.strip()
    tag = _TAG_START.match(text)
    inner = text[tag.end() :].removesuffix(f"</{tag[1]}>") if tag else text
    return inner.strip() if tag and len(inner) < len(text) - tag.end() and f"<{tag[1]}>" not in inner else None


def _json_text(text: str) -> str | None:
    """The only answer in a JSON text or object; None if it has none or several, or it is not JSON."""
    for candidate in (text, _INVALID_ESCAPE.sub(r"\\\\", text)):
        try:
            value = json.loads(candidate, strict=False)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        if isinstance(value, str):
            return value
        texts = {key: item for key, item in value.items() if isinstance(item, str)} if isinstance(value, dict) else {}
        if len(texts) > 1:
            texts = {key: item for key, item in texts.items() if _ANSWER_KEY.search(key)}
        return next(iter(texts.values())) if len(texts) == 1 else None
    return None


def _with_single_backslashes(text: str, replaced: str) -> str:
    r"""Halve the backslashes if every LaTeX command is written ``\\boxed``, or those of well-known commands."""
    if "\\\\" not in text:
        return text
    lengths = {len(slashes) for slashes, _ in _COMMAND.findall(text)}
    replaced_lengths = {len(slashes) for slashes, _ in _COMMAND.findall(replaced)}
    if lengths == {2} and replaced_lengths == {1}:
        return text.replace("\\\\", "\\")
    return text if _DOUBLED.search(replaced) else _DOUBLED.sub(lambda _: "\\", text)


def _restored(match: re.Match[str], replaced: str) -> str:
    character = match.group()
    following = match.string[match.end() : match.end() + 3]
    return character if f"{character}{following}" in replaced else f"\\{_LETTER_OF[character]}"


def _with_line_ends(text: str, replaced: str) -> str:
    r"""Line ends in the place of ``\n``, if the text has no other line end and the text it replaces has several."""
    if "\n" in text or "\n" not in replaced.strip() or LITERAL_LINE_END.search(replaced):
        return text
    return LITERAL_LINE_END.sub("\\1\n", text)


def _is_unusual_blank(character: str) -> bool:
    return character != " " and unicodedata.category(character) == "Zs"


def _with_line_ends_of(student: str, text: str) -> str:
    """The text with the line ends of the student's answer, if they are all of one kind."""
    windows = student.count("\r\n")
    if not windows and "\r" not in student:
        return text.replace("\r\n", "\n")
    if windows and windows == student.count("\n"):
        return text.replace("\r\n", "\n").replace("\n", "\r\n")
    return text


def _with_lines_of(student: str, text: str) -> str:
    """The text in which every line of the student's answer is as it was: quotes, minus signs, trailing blanks."""
    lines = text.split("\n")
    own = student.split("\n")
    unknown = set(lines) - set(own)
    if not unknown:
        return text
    by_key: dict[str, set[str]] = {}
    for line in own:
        by_key.setdefault(_line_key(line), set()).add(line)
    trailing = any(map(_TRAILING.search, own))
    restored: dict[str, str] = {}
    for line in unknown:
        same = by_key.get(_line_key(line), ())
        restored[line] = next(iter(same)) if len(same) == 1 else line
        if not trailing:
            restored[line] = _TRAILING.sub("", restored[line])
    return "\n".join(restored.get(line, line) for line in lines)


def _line_key(line: str) -> str:
    """The line without what is only typography."""
    line = line.rstrip()
    if line.isascii():
        return line.replace("`", "'")
    # Blanks inside a line can be what was corrected: they indent code.
    return "".join(" " * len(part) if part.isspace() else fold(part).text for part in re.split(r"(\s+)", line))
