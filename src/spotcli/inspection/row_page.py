"""The HTML page of the selected rows of an open file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TypeVar

from spotcli.console import say
from spotcli.errors import UserError
from spotcli.inspection.entries import Entries
from spotcli.inspection.file_overview import FileSummary
from spotcli.inspection.html_page import write_page
from spotcli.inspection.overview import ReviewSummary, count_noun
from spotcli.inspection.score_overview import ScoreSummary
from spotcli.inspection.score_page import write_score_page

HTML_LIMIT = 500
"""Rows on an HTML page without a limit; a page with more is slow to open."""

T = TypeVar("T")


def write_rows(
    html: Path, summary: FileSummary, entries: Entries, rows: Sequence[int], limit: int | None, *, compare: bool
) -> None:
    """Write the page of some rows; damaged ones are left out.

    Args:
        html: the page.
        rows: the numbers of the selected rows.
        limit: most rows on the page; None: ``HTML_LIMIT``, with a notice if there are more.
        compare: show scores as diffs from the base model's.

    Raises:
        UserError: the file has rows of another kind, or the page cannot be written.
    """
    if isinstance(summary, ReviewSummary):
        write_page(html, summary, _first(html, (entries.shown(row) for row in rows), summary.matching, limit, "pair"))
    elif isinstance(summary, ScoreSummary) and compare:
        compared = (entries.compared(row) for row in rows)
        write_score_page(html, summary, _first(html, compared, summary.matching, limit, "problem"))
    elif isinstance(summary, ScoreSummary):
        scores = (entries.entry(row).score for row in rows)
        write_score_page(html, summary, _first(html, scores, summary.matching, limit, "answer"))
    else:
        cure = "leave out --html; the application and the printed output show every kind of row"
        raise UserError("a page has pairs, or answers of an evaluation", where="--html", cure=cure)


def _first(html: Path, found: Iterator[T | None], matching: int, limit: int | None, noun: str) -> Iterator[T]:
    """The rows on the page; a notice if it has not all of them."""
    most = HTML_LIMIT if limit is None else limit
    if matching > most:
        say(f"{html}: contains the first {most} of {count_noun(matching, noun)}; --limit changes this")
    return islice((row for row in found if row is not None), most)
