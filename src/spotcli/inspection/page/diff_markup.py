"""A diff as HTML, with the rules of the terminal: by words, or old and new line whole; kept stretches folded.

Each edit has the marks ``[-deleted-]`` and ``{+inserted+}``: hidden on a screen, printed on paper, and part of a copied
text. What is folded is a ``details`` element, which needs no script.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import TYPE_CHECKING

from spotcli import html_pages
from spotcli.console import counted
from spotcli.core.edits import Span
from spotcli.html_pages import text
from spotcli.inspection.diff_lines import CONTEXT, Block, Part, blocks

if TYPE_CHECKING:
    from markupsafe import Markup

LONG = 4000
"""Characters of a text without a line end that are shown; of a longer one the middle is folded."""

_TAGS = {"deleted": ("del", "[-", "-]"), "inserted": ("ins", "{+", "+}")}


def diff_markup(spans: Iterable[Span]) -> Markup:
    """Both answers in one text: the text before the first edit soft, kept stretches folded around edits."""
    items = blocks(spans)
    return html_pages.trusted("".join(_shown(items) if any(block.changed for block in items) else _unchanged(items)))


def answer_markup(answer: str, *, shown: int = LONG) -> Markup:
    """One answer; of a longer one the middle is folded, because an answer is at its end."""
    return html_pages.trusted(_folded(answer, shown))


def fold_markup(summary: str, inside: str) -> Markup:
    """Text in a fold."""
    return html_pages.trusted(_fold(summary, inside))


def _unchanged(items: list[Block]) -> Iterator[str]:
    yield _folded("".join(part.text for block in items for part in block.parts), LONG)


def _shown(items: list[Block]) -> Iterator[str]:
    edited = False
    stretches = [(changed, list(run)) for changed, run in groupby(items, key=lambda block: block.changed)]
    for number, (changed, run) in enumerate(stretches):
        if not changed:
            last = number == len(stretches) - 1
            kept = "".join(_stretch(run, before=CONTEXT if edited else 0, after=0 if last else CONTEXT))
            yield kept if edited else f'<span class="prefix">{kept}</span>'
            continue
        for block in run:
            yield from _block(block, edited=edited)
            edited = True


def _stretch(run: list[Block], *, before: int, after: int) -> Iterator[str]:
    """Kept lines; those that are not among the first and last few are folded."""
    lines = ["".join(part.text for part in block.parts) for block in run]
    hidden = len(lines) - before - after
    if hidden < 2:
        yield from (_folded(line, LONG) for line in lines)
        return
    yield from (_folded(line, LONG) for line in lines[:before])
    yield _fold(counted(hidden, "kept line"), "".join(lines[before : before + hidden]))
    yield from (_folded(line, LONG) for line in lines[before + hidden :])


def _block(block: Block, *, edited: bool) -> Iterator[str]:
    """One line of the text with its edits, or the old and the new line."""
    if block.whole:
        yield from (_edit(part, ' class="line"') for part in block.parts[:2] if part.text)
        return
    for part in block.parts:
        if part.kind != "kept":
            yield _edit(part)
            edited = True
        else:
            kept = _folded(part.text, LONG)
            yield kept if edited else f'<span class="prefix">{kept}</span>'


def _edit(part: Part, attributes: str = "") -> str:
    tag, before, after = _TAGS[part.kind]
    content = _folded(part.text, LONG).replace("\n", '<i class="end">⏎</i>\n')
    return f"<{tag}{attributes}><i>{before}</i>{content}<i>{after}</i></{tag}>"


def _folded(value: str, shown: int) -> str:
    """Text as HTML; of a longer one the middle is in a fold."""
    if len(value) <= shown:
        return text(value)
    head, tail = shown // 3, len(value) - (shown - shown // 3)
    # At line ends, if there are any nearby.
    head = value.rfind("\n", head // 2, head) + 1 or head
    tail = value.find("\n", tail, tail + shown // 3) + 1 or tail
    return text(value[:head]) + _fold(f"{tail - head:,} characters", value[head:tail]) + text(value[tail:])


def _fold(summary: str, inside: str) -> str:
    return f'<details class="kept"><summary>{text(summary)}</summary>{text(inside)}</details>'
