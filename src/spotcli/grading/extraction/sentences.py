r"""Sentences and the values in them. A formula is never split, and ``3.5`` and ``i.e.`` do not end a sentence."""

from __future__ import annotations

import re

IS_WRONG = re.compile(
    r"\b(?:that|this|it|which)(?:['\u2019]s| is| was)\s+(?:not (?:right|correct)|wrong|incorrect)\b", re.IGNORECASE
)
"""A clause that withdraws what is before it."""
FORMULA = re.compile(
    r"\$\$.+?\$\$|\$(?!\s*[\d,.]+\s+[A-Za-z(])[^$\n]*[^$\n=*/+\s(-]\s*\$(?!\d)|\\\((?:(?!\\\)).)+\\\)|\\\[.+?\\\]",
    re.DOTALL,
)
"""A formula in its delimiters; ``$5 and $`` in "$5 and $6" is not one."""
_SENTENCE_END = re.compile(
    rf"(\\begin\{{(?:align|gather|equation|eqnarray)\w*\*?\}}.*?\\end\{{\w+\*?\}}|{FORMULA.pattern}|\\.|\d[.,]\d"
    r"|\b(?:i\.e|e\.g|approx|vs|Rs|sq|cu|resp|etc|Eq|Fig|Dr|Mr|Mrs|St|No)\.)"
    r"|([.!?。](?=\s|$|[\"*)]|[^\x00-\x7f])|\n|<\|)",
    re.DOTALL,
)
_CLOSING = re.compile(r"[)\]\"*]+")
"""Marks after a full stop that belong to the sentence before them."""
_BLANK_LINE = re.compile(r"\n\s*\n")
WORD = re.compile(r"(?<![\\A-Za-z])[^\W\d_]{2,}")
COMMAND = re.compile(r"\\(?:text|mbox|mathrm|textbf|begin|end)\s*\{[^{}]*\}|\\[A-Za-z]+")


def first_sentence(text: str) -> tuple[str, str]:
    """The first sentence without its end, and the text after it."""
    for mark in _SENTENCE_END.finditer(text):
        if mark[2]:
            return text[: mark.start()].strip(), text[mark.end() :]
        if _ends_in_formula(text, mark):
            return text[: mark.end()].strip(), text[mark.end() :]
    return text.strip(), ""


def _ends_in_formula(text: str, mark: re.Match[str]) -> bool:
    """Whether a sentence ends with the full stop within a formula: ``... is $5.$ Then ...``."""
    return bool(_INNER_STOP.search(mark[0]) and _NEW_SENTENCE.match(text, mark.end()))


_INNER_STOP = re.compile(r"\.\s*(?:\$|\\[)\]]|\\end\{\w+\*?\})$")
_NEW_SENTENCE = re.compile(r"\s+[A-Z(]")


def sentence_ends(text: str) -> list[int]:
    """Where the sentences and lines of a text end; a line end within a formula does not count."""
    return [mark.end() for mark in _SENTENCE_END.finditer(text) if mark[2] or _ends_in_formula(text, mark)]


def sentences_of(text: str) -> list[str]:
    """The sentences of a text; only a blank line or a full stop ends one, because formulas fill several lines."""
    sentences: list[str] = []
    for paragraph in _BLANK_LINE.split(text):
        start = 0
        for mark in _SENTENCE_END.finditer(paragraph):
            if (mark[2] and mark[2] != "\n") or _ends_in_formula(paragraph, mark):
                closing = _CLOSING.match(paragraph, mark.end())
                end = closing.end() if closing else mark.end()
                sentences.append(paragraph[start:end])
                start = end
        sentences.append(paragraph[start:])
    return [sentence.strip() for sentence in sentences if sentence.strip()]


def words_of(text: str) -> list[str]:
    """The words outside of formulas and commands, in lower case."""
    return [word.lower() for word in WORD.findall(COMMAND.sub(" ", FORMULA.sub(" ", text)))]


def has_value(text: str) -> bool:
    """Whether a text contains a formula or a number."""
    return bool(re.search(r"\d", text) or FORMULA.search(text))


def masked(text: str) -> str:
    """The text with every formula replaced by as many asterisks."""
    return FORMULA.sub(lambda formula: "*" * len(formula[0]), text)
