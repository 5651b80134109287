"""The page of ``spot inspect --html``: one file without network, to read, search and filter.

figures -> outliers -> histogram and counts -> search and filters -> every row
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from spotcli import html_pages
from spotcli.console import one_line, say
from spotcli.html_pages import Figure
from spotcli.inspection.overview import ReviewSummary, count_noun
from spotcli.inspection.page.outliers import Outliers, shown_rows
from spotcli.inspection.page.page_rows import FILTERS, NUMBERS, Card, PageRows, Shown
from spotcli.inspection.score_overview import ScoreSummary

__all__ = ["HTML_LIMIT", "PageRows", "Shown", "write_page"]

HTML_LIMIT = 500
"""Rows on a page without a limit."""

_HERE = Path(__file__).parent


def write_page(path: Path, summary: ReviewSummary | ScoreSummary, shown: PageRows, limit: int | None) -> None:
    """Write a page; rows are streamed, and ``path`` is replaced when the page is complete.

    Args:
        limit: show the first rows up to this number. None: at most ``HTML_LIMIT`` rows, the outliers of all rows
            among them.

    Raises:
        UserError: the folder does not exist or is not writable, or a file of rows does not exist any more.
        DataError: a row is invalid.
    """
    outliers, numbers, total, chosen = _survey(shown, limit)
    if len(chosen) < total:
        which = "the first" if limit is not None else "the outliers and the first others,"
        say(f"{path}: contains {which} {len(chosen)} of {count_noun(total, shown.noun)}; --limit changes this")
    script, style = html_pages.page_script(_HERE / "page.js"), html_pages.page_style(_HERE / "page.css")
    template = html_pages.environment(_HERE).get_template("page.html.jinja")
    parts = template.generate(
        policy=html_pages.content_policy(style, script),
        script=html_pages.trusted(script),
        style=html_pages.trusted(style),
        name=one_line(Path(summary.path).name),
        noun=shown.noun,
        total=total,
        count=len(chosen),
        figures=_pair_figures(summary) if isinstance(summary, ReviewSummary) else [],
        outliers=outliers,
        pairs=summary if isinstance(summary, ReviewSummary) else None,
        scores=summary if isinstance(summary, ScoreSummary) else None,
        filters=FILTERS,
        numbers=numbers,
        cards=_cards(shown, chosen),
        counted=count_noun,
        line=one_line,
    )
    html_pages.write(path, parts)


def _survey(shown: PageRows, limit: int | None) -> tuple[list[Any], dict[str, Any], int, set[int]]:
    """The outliers and the numbers of the rows on the page, all rows, and the numbers of those on the page."""
    outliers = Outliers(shown.outliers)
    known: set[str] = set()
    total = 0
    for number, _, facts in shown.numbered():
        total += 1
        if limit is None or number < limit:
            outliers.add(number, facts)
            known |= facts.numbers.keys()
    chosen = set(range(min(total, limit))) if limit is not None else shown_rows(total, HTML_LIMIT, outliers.numbers)
    lists = outliers.lists() if len(chosen) > 1 else []
    return lists, {name: number for name, number in NUMBERS.items() if name in known}, total, chosen


def _cards(shown: PageRows, chosen: set[int]) -> Iterator[Card]:
    for number, row, facts in shown.numbered():
        if number in chosen:
            yield replace(shown.card(row, facts), number=number, head=facts)


def _pair_figures(summary: ReviewSummary) -> list[Figure]:
    """The file in a few numbers."""
    selected = f"of {summary.pairs:,} in the file" if summary.matching < summary.pairs else "in the file"
    figures = [Figure("Selected" if summary.matching < summary.pairs else "Pairs", f"{summary.matching:,}", selected)]
    if summary.ratio_median is not None:
        note = f"median; mean {summary.ratio_mean:.3f}, largest {summary.ratio_max:.3f}"
        figures.append(Figure("Change ratio", f"{summary.ratio_median:.3f}", note))
        kind = "bad" if summary.above_gamma else "good"
        figures.append(Figure("Above gamma", f"{summary.above_gamma:,}", f"gamma {summary.gamma:g}", kind))
    wrong, undecided = (summary.verdicts.get(name, 0) for name in ("wrong", "undecided"))
    if summary.verdicts.keys() - {"none"}:
        kind = "bad" if wrong else "open" if undecided else "good"
        note = f"{summary.verdicts.get('right', 0):,} right, {undecided:,} undecided"
        figures.append(Figure("y+ wrong", f"{wrong:,}", note, kind))
    decided = {name: count for name, count in summary.reviews.items() if name != "none"}
    if decided:
        note = ", ".join(f"{name} {count:,}" for name, count in decided.items())
        figures.append(Figure("Decided", f"{sum(decided.values()):,}", note))
    return figures
