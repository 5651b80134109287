r"""Marks of other formats in a text: HTML entities and tags, full-width punctuation, emoji, announcements in LaTeX."""

from __future__ import annotations

import html
import re

from spotcli.grading.extraction.languages import in_english

_ENTITY = re.compile(r"&(?:#\d{1,6}|#x[0-9a-fA-F]{1,6}|[a-zA-Z]{2,8}\d{0,2});")
_TAG = re.compile(
    r"</?(?:b|strong|i|em|u|p|div|span|code|center|font|h[1-6])(?:\s[^<>]{0,100})?>|<br\s*/?>", re.IGNORECASE
)
_QUOTED = re.compile(r"^[ \t]*>[ \t]+(?=\S)|(?<=\n)[ \t]*[-=]{3,}[ \t]*(?:\n|\Z)", re.MULTILINE)
"""Marks of a quotation, and lines below a heading."""
_RAISED = re.compile(r"<(sup|sub)>([^<>]{1,40})</\1>", re.IGNORECASE)
_ANNOUNCEMENT = re.compile(
    r"\\text(?<!boxed\{\\text)(?:bf)?\s*\{\s*((?:[Tt]he |[Ff]inal ){0,2}[Aa]nswer(?: is)?\s*:?)\s*\}"
)
r"""An announcement within a formula: ``\text{Answer: } 42``."""
_WIDE = {"，": ", ", "：": ": ", "；": "; ", "（": " (", "）": ") ", "＝": "=", "！": "! ", "。": ". "}
_FOREIGN = re.compile("[\u200d\u2600-\U0010ffff]")
"""Full-width characters, emoji and Chinese characters."""
_EMOJI = re.compile("[\U0001f000-\U0001faff\u2600-\u27bf\ufe0f\u200d]")


def without_markup(text: str) -> str:
    """The text with plain characters in place of HTML entities, tags, full-width punctuation and emoji."""
    if "nswer" in text and "\\text" in text:
        text = _ANNOUNCEMENT.sub(r"\1 ", text)
    if "&" in text:
        text = _ENTITY.sub(lambda entity: html.unescape(entity[0]), text)
    if "--" in text or "==" in text or (">" in text and ("> " in text or ">\t" in text or "-=" in text)):
        text = _QUOTED.sub("", text)
    if "<" in text:
        text = _RAISED.sub(lambda raised: ("^" if raised[1].lower() == "sup" else "_") + f"{{{raised[2]}}}", text)
        text = _TAG.sub(lambda tag: "\n" if tag[0][:3].lower() in ("<br", "<p>", "</p") else "", text)
    if text.isascii() or not _FOREIGN.search(text):
        return text
    for wide, plain in _WIDE.items():
        text = text.replace(wide, plain)
    return in_english(_EMOJI.sub("", text))
