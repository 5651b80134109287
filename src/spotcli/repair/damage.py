r"""What a correction must not contain, because it would be trained on: each kind has a name.

The student's answer and the problem may contain it themselves: a solution about students, HTML or hidden characters
stays possible. So only what is new counts.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from typing import Literal

from spotcli.core.oracle_prompts import quotes_prompt
from spotcli.repair.language import changes_language

Damage = Literal[
    "hidden characters",
    "lookalike letters",
    "escaped text",
    "markup",
    "omitted text",
    "meta talk",
    "another language",
    "answer form",
    "false step",
]
"""Why a correction cannot be used as it is."""

COMPLAINTS: dict[str, str] = {
    "hidden characters": "The reply contains control or invisible characters. Write plain text.",
    "lookalike letters": "The reply mixes letters of several scripts in a word. Write plain text.",
    "escaped text": "The reply is escaped (\\n for line ends). Write line ends and backslashes as the student did.",
    "markup": "The reply contains markup or special tokens that the student did not write. Write plain text.",
    "omitted text": "The reply leaves out parts of the solution. Write every line of it.",
    "meta talk": "The reply speaks about the correction, the student or the reference. Write only the solution.",
    "another language": "The reply is not in the student's language. Keep the language of the solution.",
    "answer form": "The reply does not end as the solution does. Keep the form of the last line, with one final answer "
    "in \\boxed{}.",
    "false step": "The reply contains a calculation that is false. Every step must be right, not only the result.",
}
"""What the oracle is told for its next attempt."""

_N_COMMANDS = (
    "abla|atural|cong|e|earrow|eg|eq|ewcommand|ewline|exists|geq|i|leq|mid|o[a-z]{5,}|ormalsize|ot|otin|"
    "parallel|rightarrow|subseteq|supseteq|u|warrow"
)
LITERAL_LINE_END = re.compile(rf"(?<!\\)((?:\\\\)*)\\n(?!(?:{_N_COMMANDS})(?![A-Za-z]))")
r"""``\n`` as two characters that begin no LaTeX command; group 1: pairs of backslashes before it."""

_ESCAPED = re.compile(
    r"&(?:lt|gt|amp|quot|apos|nbsp|#\d{1,7}|#x[0-9a-f]{1,6});|\\u[0-9a-f]{4}|\\x[0-9a-f]{2}(?![0-9a-f])", re.IGNORECASE
)
_JSON = re.compile(r'\s*(?:\{\s*"[^"\n]{0,80}"\s*:|\[\s*["{]).*[}\]]\s*', re.DOTALL)
_TAG_NAMES = (
    "answer|article|audio|body|br|button|code|details|div|em|embed|font|form|head|hr|html|iframe|img|input|ins|li|link|"
    "mark|meta|object|ol|pre|reasoning|reflection|script|solution|span|strong|style|sub|summary|sup|svg|table|tbody|td|"
    "th|think|thinking|thought|tr|tool_call|ul|video"
)
_MARKUP = re.compile(
    rf"<!--|</[A-Za-z][\w-]*>|<(?:{_TAG_NAMES})(?:\s[^<>\n]{{0,300}})?/?>"
    r"|<[|｜](?:[A-Za-z]+[_▁][\w▁]+|assistant|bos|end|endoftext|eos|pad|system|unk|user)[|｜]>"
    r"|<(?:s|bos|eos|pad|unk|(?:start|end)_of_turn)>|<a\s+href\b|\[/?INST\]|<<SYS>>"
    r"|```|~~~|~~[^~\n]+~~|https?://|\bwww\.|\b[\w-]{1,63}\.(?:com|org|net|io|info|example)\b",
    re.IGNORECASE,
)
"""HTML, special tokens of chat templates, code fences, struck-out text and addresses."""
_OMITTED = re.compile(
    r"(?:\.{3}|…|\\l?dots)[^\n.…;:]{0,40}\b(?:unchanged|same as|as before|omitted|the rest|remains?)\b"
    r"|\b(?:unchanged|as before|as above|omitted|the rest)\b[^\n.…]{0,40}(?:\.{3}|…)"
    r"|\[(?:rest|remainder|unchanged|same as|previous|continue)[^\]\n]{0,60}\]"
    r"|[\[(<][^\])>\n]{0,40}\b(?:unchanged|omitted for brevity|same as (?:before|above))\b[^\])>\n]{0,40}[\])>]"
    r"|(?m:^[^\S\n]*[\[(]?(?:\.{3}|…)[\])]?[^\S\n]*$)",
    re.IGNORECASE,
)
_META = re.compile(
    r"\b(?:I|we)(?:'ve|’ve| have)? (?:just |only )?"
    r"(?:corrected|repaired|amended|mended|(?:fixed|changed) the (?:error|mistake|step|line|answer|result))\b"
    r"|\b(?:reference|official) (?:answer|solution)\b|\b(?:expected|provided|given) answer\b(?! (?:choice|option))"
    r"|\b(?:according to|matches) the reference\b"
    r"|\bthe reference (?:says|states|gives|is)\b|\banswer key\b|\bground[- ]truth\b"
    r"|\b(?:original|previous|earlier|student) (?:answer|response|mistake|error|attempt)\b"
    r"|\b(?:mistake|error) (?:was|is) (?:here|in|that)\b|\bmiscalculat\w+|\bmistakenly\b|\bmy mistake\b"
    r"|\b(?:made|found|spotted|fixed|fixing|contains?) (?:a|an|the) (?:\w+ )?(?:mistake|error)\b"
    r"|\b(?:calculation|arithmetic|sign|copying) (?:mistake|error)\b"
    r"|\b(?:that|this|which|it) (?:was|is|seems) (?:wrong|incorrect|not right)\b"
    r"|\bcorrected\b|\bcorrections?\s*[:)\]]|(?:^|[.!?(\[]\s*)(?:wait|oops|sorry|apologies|actually, no)\b[,.:!-]"
    r"|\blet me (?:correct|redo|fix|re-?check|recalculate|recompute|try again)\b"
    r"|\bhere(?:'s|’s| is) the (?:\w+ )?(?:solution|answer|correction)\b"
    r"|\b(?:ignore|disregard) (?:all |any |the )?(?:previous |above |earlier )?(?:instructions?|rules|prompts?)\b"
    r"|\bfrom now on\b|\b(?:these|the) rules above\b|\bas an AI\b|\blanguage model\b"
    r"|^[^\S\n]*(?-i:SYSTEM|USER|ASSISTANT|HUMAN)\s*:"
    r"|参考答案|标准答案|学生的|更正|修正后|已修正|Referenzlösung|Korrektur:|réponse de référence",
    re.IGNORECASE | re.MULTILINE,
)
_META_UNLESS_KNOWN = {
    "student": re.compile(r"\bthe student(?:'s|’s|s)?\b", re.IGNORECASE),
    "solution": re.compile(r"\b(?:original|previous|earlier|student|given|provided) solution\b", re.IGNORECASE),
}
"""Meta talk, unless the problem or the answer has this word: they can be about students, or chemistry."""
_LOOKALIKES = frozenset("ΑΒΕΖΗΙΚΜΝΟΡΤΥΧοАВЕКМНОРСТУХаеорсухіїјѕԁԛԝһӏ")
"""Greek and Cyrillic letters that look like Latin ones."""
_RESHAPED = re.compile(r"[Ａ-Ｚａ-ｚ]{2,}|[\U0001d400-\U0001d6a3]{3,}")
"""Words of wide or mathematical letters."""

_WORD = re.compile(r"\w+")

_FILLERS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u2028\u2029\u2065\u2800\u3164\uffa0")
_JOINERS = frozenset("\u200c\u200d")
_PRESENTATION = frozenset("\ufe0e\ufe0f")
_MANY_MARKS = re.compile(r"[\u0300-\u036f\u20d0-\u20f0]{4,}")


def damage_of(text: str, student: str, problem: str = "") -> Damage | None:
    """The first kind of damage in a correction; None if it has none."""
    if _has_hidden(text, student):
        return "hidden characters"
    known = f"{student}\n{problem}"
    if _is_escaped(text, student, known):
        return "escaped text"
    # Lines that the student wrote need no search.
    added = "\n".join(set(text.splitlines()) - set(student.splitlines()))
    if _is_new(_MARKUP, added, known):
        return "markup"
    if _is_new(_OMITTED, added, known):
        return "omitted text"
    if _is_meta_talk(added, known) or _is_diff(text, student):
        return "meta talk"
    if _is_new(_RESHAPED, added, known) or _has_lookalike(added, known):
        return "lookalike letters"
    return "another language" if added and changes_language(student, problem, text) else None


def form_damage(text: str, student: str) -> Damage | None:
    """Whether a correction loses the form in which the student gives the final answer: the box in the last line."""
    boxes, own = _boxes(text), _boxes(student)
    if len(boxes) > max(1, len(own)) and len(set(boxes)) > max(1, len(set(own))):
        return "answer form"
    if "\\boxed" in _last_line(student) and "\\boxed" not in _last_line(text):
        return "answer form"
    return None


def _boxes(text: str) -> list[str]:
    return [part[:40].partition("}")[0].strip() for part in text.split("\\boxed")[1:]]


def _last_line(text: str) -> str:
    return text.rstrip().rpartition("\n")[2]


def _has_hidden(text: str, student: str) -> bool:
    """Whether a text has control or invisible characters that the student's answer has not, or has more of them."""
    hidden = {character for character in set(text) if _is_hidden(character)}
    if hidden:
        counts, own = Counter(text), Counter(student)
        if any(counts[character] > own[character] and not _joins(character, text, own) for character in hidden):
            return True
    return any(match.group() not in student for match in _MANY_MARKS.finditer(text))


def _is_hidden(character: str) -> bool:
    """Whether a character is a control or invisible one, other than a line end or a tab."""
    if character in "\n\r\t":
        return False
    if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co") or character in _FILLERS:
        return True
    code = ord(character)
    return 0xFE00 <= code <= 0xFE0F or 0xE0000 <= code <= 0xE0FFF


def _joins(character: str, text: str, own: Counter[str]) -> bool:
    """Whether the character has a use wherever it is: it joins letters of a script that the student joins too, or
    chooses the picture form of a symbol."""
    if character in _JOINERS and own[character]:
        allowed: tuple[str, ...] = ("Lo", "Mn", "Mc")
    elif character in _PRESENTATION:
        allowed = ("So", "Sm", "Nd", "Po")
    else:
        return False
    places = [match.start() for match in re.finditer(re.escape(character), text)]
    return all(place > 0 and unicodedata.category(text[place - 1]) in allowed for place in places)


def _is_escaped(text: str, student: str, known: str) -> bool:
    if LITERAL_LINE_END.search(text) and not LITERAL_LINE_END.search(known):
        return True
    if _JSON.fullmatch(text) and not _JSON.fullmatch(student):
        return True
    return _is_new(_ESCAPED, text, known)


def _is_meta_talk(added: str, known: str) -> bool:
    folded = known.casefold()
    other = any(pattern.search(added) and word not in folded for word, pattern in _META_UNLESS_KNOWN.items())
    return other or _is_new(_META, added, known) or quotes_prompt(added, known)


def _has_lookalike(added: str, known: str) -> bool:
    """Whether a new word mixes Latin letters with others that look like them."""
    return any(
        not _LOOKALIKES.isdisjoint(word) and sum(map(str.isascii, word)) >= 2 and word not in known
        for word in set(_WORD.findall(added))
    )


def _is_diff(text: str, student: str) -> bool:
    """Whether the student's lines are marked as deleted, as in a diff."""
    lines = set(student.splitlines())
    marked = {mark + line for line in lines if line.strip() for mark in ("-", "- ")} - lines
    return not marked.isdisjoint(text.splitlines())


def _is_new(pattern: re.Pattern[str], text: str, known: str) -> bool:
    """Whether the text contains a passage of this kind that is not known."""
    folded = known.casefold()
    return any(match.group().strip().casefold() not in folded for match in pattern.finditer(text))
