r"""Sentences and the values in them. A formula is never split, and ``3.5`` and ``i.e.`` do not end a sentence."""

from __future__ import annotations

import re

DIGIT = re.compile(r"\d")
_IS_WRONG = re.compile(r"\b(?:that|this|it|which)(?:['\u2019]s| is| was)\s+(?:not (?:right|correct)|wrong|incorrect)\b")
FORMULA = re.compile(
    r"\$\$.+?\$\$|\$(?!\s*[\d,.]+\s+[A-Za-z(])[^$\n]*[^$\n=*/+\s(-]\s*\$(?!\d)|\\\((?:(?!\\\)).)+\\\)|\\\[.+?\\\]",
    re.DOTALL,
)
"""A formula in its delimiters; ``$5 and $`` in "$5 and $6" is not one."""
_SENTENCE_END = re.compile(
    r"(?=[\\$\d.!?。\n<ieavRscrEFDMSN])(?:"  # the first characters of all alternatives
    rf"(\\begin\{{(?:align|gather|equation|eqnarray)\w*\*?\}}.*?\\end\{{\w+\*?\}}|{FORMULA.pattern}|\\.|\d[.,]\d"
    r"|\b(?:i\.e|e\.g|approx|vs|Rs|sq|cu|resp|etc|Eq|Fig|Dr|Mr|Mrs|St|No)\.)"
    r"|([.!?。](?=\s|$|[\"*)]|[^\x00-\x7f])|\n|<\|))",
    re.DOTALL,
)
_CLOSING = re.compile(r"[)\]\"*]+")
"""Marks after a full stop that belong to the sentence before them."""
_BLANK_LINE = re.compile(r"\n\s*\n")
WORD = re.compile(r"(?<![\\A-Za-z])[^\W\d_]{2,}")
COMMAND = re.compile(r"\\(?:text|mbox|mathrm|textbf|begin|end)\s*\{[^{}]*\}|\\[A-Za-z]+")


def lowered(text: str) -> str:
    """The text in lower case, with the same positions.

    A pattern of words that is compared with it takes a fifth of the time that it takes with ``re.IGNORECASE``.
    """
    if not text.isascii():  # re.IGNORECASE accepts these letters too
        text = text.replace("\u017f", "s").replace("\u0131", "i").replace("\u0130", "i")
    return text.lower()


def first_sentence(text: str) -> tuple[str, str]:
    """The first sentence without its end, and the text after it."""
    for mark in _SENTENCE_END.finditer(text):
        if mark[2]:
            return text[: mark.start()].strip(), text[mark.end() :]
        if mark[0][-1] in _FORMULA_ENDS and _ends_in_formula(text, mark):
            return text[: mark.end()].strip(), text[mark.end() :]
    return text.strip(), ""


_FORMULA_ENDS = "$)]}"


def _ends_in_formula(text: str, mark: re.Match[str]) -> bool:
    """Whether a sentence ends with the full stop within a formula: ``... is $5.$ Then ...``."""
    return bool(_INNER_STOP.search(mark[0]) and _NEW_SENTENCE.match(text, mark.end()))


_INNER_STOP = re.compile(r"\.\s*(?:\$|\\[)\]]|\\end\{\w+\*?\})$")
_NEW_SENTENCE = re.compile(r"\s+[A-Z(]")


def sentence_ends(text: str) -> list[int]:
    """Where the sentences and lines of a text end; a line end within a formula does not count."""
    return [mark.end() for mark in _SENTENCE_END.finditer(text) if mark[2] or _ends_in_formula(text, mark)]


def sentences_of(text: str, last: int | None = None) -> list[str]:
    """The sentences of a text; only a blank line or a full stop ends one, because formulas fill several lines.

    ``last``: return the sentences of the last paragraphs, at least so many if the text has them.
    """
    paragraphs: list[list[str]] = []
    count = 0
    for paragraph in reversed(_BLANK_LINE.split(text)):
        if last is not None and count >= last:
            break
        paragraphs.append(_sentences_of_paragraph(paragraph))
        count += len(paragraphs[-1])
    return [sentence for sentences in reversed(paragraphs) for sentence in sentences]


def _sentences_of_paragraph(paragraph: str) -> list[str]:
    sentences: list[str] = []
    start = 0
    for mark in _SENTENCE_END.finditer(paragraph):
        stop = mark[2]
        if stop == "\n" or not (stop or (mark[0][-1] in _FORMULA_ENDS and _ends_in_formula(paragraph, mark))):
            continue
        closing = _CLOSING.match(paragraph, mark.end())
        end = closing.end() if closing else mark.end()
        sentences.append(paragraph[start:end])
        start = end
    sentences.append(paragraph[start:])
    return [stripped for sentence in sentences if (stripped := sentence.strip())]


def words_of(text: str) -> list[str]:
    """The words outside of formulas and commands, in lower case."""
    return [word.lower() for word in WORD.findall(COMMAND.sub(" ", without_formulas(text)))]


def without_formulas(text: str) -> str:
    """The text with a space in place of every formula."""
    return FORMULA.sub(" ", text) if "$" in text or "\\" in text else text


def has_value(text: str) -> bool:
    """Whether a text contains a formula or a number."""
    return bool(DIGIT.search(text) or FORMULA.search(text))


def is_wrong(words: str) -> bool:
    """Whether a clause of a text in lower case withdraws what is before it: "that is wrong"."""
    return ("right" in words or "correct" in words or "wrong" in words) and bool(_IS_WRONG.search(words))


def masked(text: str, mark: str = "*") -> str:
    """The text with every formula replaced by as many marks."""
    return FORMULA.sub(lambda formula: mark * len(formula[0]), text) if "$" in text or "\\" in text else text
