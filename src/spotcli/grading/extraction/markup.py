"""Marks of other formats in a text: HTML entities and tags, full-width punctuation."""

from __future__ import annotations

import html
import re

_ENTITY = re.compile(r"&(?:#\d{1,6}|#x[0-9a-fA-F]{1,6}|[a-zA-Z]{2,8}\d{0,2});")
_TAG = re.compile(r"</?(?:b|strong|i|em|u|p|div|span|code|center|font|h[1-6])(?:\s[^<>]{0,100})?>|<br\s*/?>", re.IGNORECASE)
_RAISED = re.compile(r"<(sup|sub)>([^<>]{1,40})</\1>", re.IGNORECASE)
_WIDE = str.maketrans({"\uff0c": ", ", "\uff1a": ": ", "\uff1b": "; ", "\uff08": " (", "\uff09": ") ", "\uff1d": "=", "\uff01": "! ", "\u3002": ". "})


_EMOJI = re.compile("[\U0001f000-\U0001faff\u2600-\u27bf\ufe0f\u200d]")


def without_markup(text: str) -> str:
    """The text with plain characters in place of HTML entities, tags and full-width punctuation."""
    if "&" in text:
        text = _ENTITY.sub(lambda entity: html.unescape(entity[0]), text)
    if "<" in text:
        text = _RAISED.sub(lambda raised: ("^" if raised[1].lower() == "sup" else "_") + f"{{{raised[2]}}}", text)
        text = _TAG.sub(lambda tag: "\n" if tag[0][:3].lower() in ("<br", "<p>", "</p") else "", text)
    return text if text.isascii() else _EMOJI.sub("", text.translate(_WIDE))
