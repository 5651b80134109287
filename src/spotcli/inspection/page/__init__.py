"""The page of ``spot inspect --html``: one file without network, to read, search and filter.

figures -> outliers -> histogram and counts -> search and filters -> every row
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from spotcli import html_pages
from spotcli.console import counted, one_line, say
from spotcli.inspection.entries import Entries
from spotcli.inspection.file_overview import FileSummary
from spotcli.inspection.page.cards import Card, Prompts, card
from spotcli.inspection.page.outliers import OutlierList, Outliers, RowFacts, shown_rows
from spotcli.inspection.page.overviews import figures, page_overviews
from spotcli.inspection.page.page_rows import FILTERS, NUMBERS, Number, PageRows, Shown
from spotcli.inspection.shared_prompts import SharedPrompts
from spotcli.records import Problem

__all__ = ["HTML_LIMIT", "PageRows", "Shown", "write_page", "write_rows"]

HTML_LIMIT = 500
"""Rows on a page without a limit."""

KINDS = {
    "pairs": ("pair", "Pairs"),
    "scores": ("answer", "Answers of an evaluation"),
    "compared": ("problem", "Two models compared"),
    "samples": ("sample", "Samples"),
    "replies": ("row", "Replies of an oracle"),
    "mixed": ("row", "Rows of several kinds"),
}
"""Kind of the rows of a file -> what one row is, and the title."""

_HERE = Path(__file__).parent


def write_rows(
    path: Path, summary: FileSummary, entries: Entries, rows: Sequence[int], limit: int | None, *, compare: bool
) -> None:
    """Write the page of some rows of an open file.

    Args:
        rows: the numbers of the selected rows.
        limit: as in ``write_page``.
        compare: show scores as diffs from the base model's.

    Raises:
        UserError: the folder does not exist or is not writable.
    """

    def shown(number: int) -> Shown:
        row = rows[number]
        entry = entries.entry(row)
        compared = entries.compared(row) if compare else None
        duplicate = entries.duplicates.get(row)
        return Shown(entries.record(row), compared, entry.where, entry.damage, entry.raw, duplicate)

    kind = "mixed" if len(entries.seen_kinds) > 1 else "compared" if compare else entries.kind
    noun, title = KINDS[kind]
    write_page(path, summary, PageRows(noun, title, len(rows), shown, entries.fields), limit)


def write_page(path: Path, summary: FileSummary, shown: PageRows, limit: int | None) -> None:
    """Write a page; rows are streamed, and ``path`` is replaced when the page is complete.

    Args:
        limit: show the first rows up to this number. None: at most ``HTML_LIMIT`` rows, the outliers of all rows
            among them.

    Raises:
        UserError: the folder does not exist or is not writable, or a file of rows does not exist any more.
        DataError: a row is invalid.
    """
    survey = _survey(shown, limit)
    total, chosen = shown.count, survey.chosen
    if len(chosen) < total:
        numbers = f"{len(chosen)} of {counted(total, shown.noun)}"
        first = set(chosen) == set(range(len(chosen)))
        content = f"the first {numbers}" if first else f"the outliers and the first others, {numbers}"
        say(f"{path}: contains {content}; --limit changes this")
    script, style = html_pages.page_script(_HERE / "page.js"), html_pages.page_style(_HERE / "page.css")
    template = html_pages.environment(_HERE).get_template("page.html.jinja")
    parts = template.generate(
        policy=html_pages.content_policy(style, script),
        script=html_pages.trusted(script),
        style=html_pages.trusted(style),
        name=one_line(Path(summary.path).name),
        title=shown.title,
        noun=shown.noun,
        total=total,
        count=len(chosen),
        figures=figures(summary, survey.rows["damaged"], survey.rows["duplicate"]),
        outliers=survey.outliers,
        overviews=page_overviews(summary),
        filters=FILTERS,
        numbers=survey.numbers,
        cards=_cards(shown, survey),
        counted=counted,
        line=one_line,
    )
    html_pages.write(path, parts)


@dataclass(frozen=True)
class _Survey:
    """What is known of all rows before the first one is written."""

    outliers: list[OutlierList]
    numbers: dict[str, Number]
    """The numbers that rows have."""
    chosen: Mapping[int, RowFacts]
    """The rows on the page, by their numbers."""
    rows: Counter[str]
    """Damaged and duplicate rows."""
    prompts: SharedPrompts


def _survey(shown: PageRows, limit: int | None) -> _Survey:
    outliers, prompts = Outliers(shown.outliers), SharedPrompts()
    most = HTML_LIMIT if limit is None else limit
    first: dict[int, RowFacts] = {}
    known: set[str] = set()
    rows: Counter[str] = Counter()
    for number, row, facts in shown.described():
        rows[facts.choices["row"]] += 1
        if isinstance(row.record, Problem):
            prompts.add(row.record)
        if number < most:
            first[number] = facts
        if limit is None or number < limit:
            outliers.add(number, facts)
            known |= facts.numbers.keys()
    listed = outliers.rows if limit is None else {}
    candidates = first | listed
    chosen = {number: candidates[number] for number in sorted(shown_rows(shown.count, most, listed))}
    lists = outliers.lists() if len(chosen) > 1 else []
    numbers = {name: number for name, number in NUMBERS.items() if name in known}
    return _Survey(lists, numbers, chosen, rows, prompts)


def _cards(shown: PageRows, survey: _Survey) -> Iterator[Card]:
    prompts = Prompts(survey.prompts)
    for number, facts in survey.chosen.items():
        yield replace(card(shown.row(number), facts, prompts), number=number, head=facts)
