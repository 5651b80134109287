"""What the HTML pages share: one file without network, colours for dark and light, and text that is made harmless.

Text from a model, a data set or a provider is made harmless three times: ``console.safe`` shows invisible characters,
all text is escaped, and the content security policy of the page forbids loading anything and applying any style or
script but the page's own, which it names by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spotcli import files
from spotcli.console import safe
from spotcli.core.edits import Span, diff
from spotcli.errors import UserError

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

LONGEST_DIFF = 200_000
"""Characters on each side that are compared word by word; the comparison of longer texts takes seconds."""
LEAST_COMMON = 0.25
"""Share of the longer text that a diff must keep. Below it the texts are easier to read one after the other."""


@dataclass(frozen=True)
class Figure:
    """A number at the top of a page."""

    title: str
    text: str
    note: str
    kind: str = ""
    """Style: ``good``, ``bad``, ``open`` or none."""


def text(value: object) -> str:
    """Return text from outside, escaped and with invisible characters shown."""
    return escape(safe(str(value)))


def page_style(file: Path) -> str:
    """The style of a page: what all pages share, then its own."""
    shared = Path(__file__).with_suffix(".css")
    return "\n" + "".join(part.read_text(encoding="utf-8") for part in (shared, file))


def page_script(file: Path) -> str:
    """The script of a page."""
    return file.read_text(encoding="utf-8").strip()


def content_policy(style: str, script: str) -> str:
    """The content security policy of a page that loads nothing, with one style and one script, named by their hashes.

    Args:
        style: the text between ``<style>`` and ``</style>``.
        script: the text between ``<script>`` and ``</script>``.
    """
    sources = f"style-src {_hash(style)}; script-src {_hash(script)}"
    return f"default-src 'none'; {sources}; base-uri 'none'; form-action 'none'"


def _hash(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def environment(folder: Path) -> Environment:
    """An environment for the templates in a folder: every value is escaped and its invisible characters are shown."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    def visible(value: Any) -> Any:
        return value if isinstance(value, Markup) else safe(str(value))

    return Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def trusted(markup: str) -> Markup:
    """Text of ours that a template inserts as it is."""
    from markupsafe import Markup

    return Markup(markup)


def marked_diff(spans: Iterable[Span], *, fold: int | None = None) -> str:
    """Return a diff as HTML: deleted and inserted text marked, the text before the first edit soft.

    Args:
        spans: as ``core.edits.diff`` returns them.
        fold: leave out the middle of a span that has more characters, and show how many; None shows all.
    """
    spans = list(spans)
    parts = []
    for index, span in enumerate(spans):
        if span.kind == "kept":
            shown = clipped(span.text, fold)
            parts.append(f"<span class='prefix'>{shown}</span>" if index == 0 and len(spans) > 1 else shown)
        else:
            tag = "del" if span.kind == "deleted" else "ins"
            parts.append(f"<{tag}>{clipped(span.text, fold).replace(chr(10), '⏎' + chr(10))}</{tag}>")
    return "".join(parts)


def clipped(value: str, most: int | None) -> str:
    """Return text as HTML; of a longer one the middle is left out, because an answer is at the end."""
    if most is None or len(value) <= most:
        return text(value)
    head, tail = most // 3, most - most // 3
    left_out = f"<span class='fold'> … {len(value) - most:,} characters … </span>"
    return f"{text(value[:head])}{left_out}{text(value[-tail:])}"


def similar_diff(old: str, new: str) -> list[Span] | None:
    """The diff of two texts, or None if they are too long or too different for a diff to help a reader."""
    if max(len(old), len(new)) > LONGEST_DIFF:
        return None
    spans = diff(old, new)
    kept = sum(len(span.text) for span in spans if span.kind == "kept")
    return spans if kept >= LEAST_COMMON * max(len(old), len(new)) else None


def write(path: Path, parts: Iterable[str]) -> None:
    """Write a page; ``path`` is replaced when the page is complete.

    Raises:
        UserError: the folder does not exist or is not writable.
    """
    try:
        files.replace(path, (part.encode() for part in parts))
    except OSError as error:
        cure = "write to another file, or free space on that disk"
        raise UserError(f"failed to write the page ({error.strerror})", where=str(path), cure=cure) from None
