"""rows -> terminal: what the corrections changed, before anything is trained on them.

    spot inspect data.jsonl --where 'ratio>0.3'

``browse`` is the interactive app, on a terminal: a list of the rows beside the one under the cursor, and decisions.
``review`` prints: the overview of the file, then each row; a pair as a diff with ``[-deleted-]`` and ``{+inserted+}``;
or an HTML page. The file is never held in memory, and not changed.

Pairs, samples, an oracle's replies and the answers of an evaluation are opened, and the preference files of other
tools. A row that cannot be read is shown with the reason. With `--where lost`, each lost problem of an evaluation is
shown as a diff of the base model's answer and the tuned model's.
"""

from __future__ import annotations

import os
import sys
from array import array
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from spotcli import decisions
from spotcli.console import note_renamed_fields, one_line, out
from spotcli.decisions import ReviewFile
from spotcli.errors import UserError
from spotcli.inspection.audit import SampleSize, report_audit
from spotcli.inspection.entries import Entries
from spotcli.inspection.file_overview import FileOverview, FileSummary
from spotcli.inspection.opening import open_entries, unknown_id
from spotcli.inspection.pair_filter import ALL_PAIRS, Selection
from spotcli.inspection.row_page import write_rows
from spotcli.inspection.row_terminal import print_file_overview, show_entry
from spotcli.inspection.shared_prompts import SharedPrompts
from spotcli.inspection.terminal import Layout
from spotcli.recipe import Recipe
from spotcli.records import Problem

__all__ = ["FileSummary", "SampleSize", "Selection", "View", "browse", "is_interactive", "review"]


@dataclass(frozen=True)
class View:
    """Where and how many of the selected rows are shown."""

    limit: int | None = None
    """Show at most this many rows after the overview; 0 shows the overview alone."""
    html: Path | None = None
    """Write this self-contained page instead of showing the rows in the terminal."""
    quiet: bool = False
    """Print nothing; the caller uses the summary."""

    def shown(self, matching: int) -> int:
        """Return how many of the matching rows are shown."""
        return matching if self.limit is None else min(self.limit, matching)


DEFAULT_VIEW = View()


def review(
    recipe: Recipe,
    *,
    data: Path,
    against: Path | None = None,
    folder: Path = Path(),
    selection: Selection = ALL_PAIRS,
    view: View = DEFAULT_VIEW,
) -> FileSummary:
    """Show a file of rows of any kind. Paths are relative to ``folder``.

    Scores are compared with the base model's if ``against`` names them, or if ``selection`` needs them: then the
    summary beside the scores names them. A row selected by its id is shown with its whole prompt and without the
    overview.

    Raises:
        UserError: the file does not exist, the id is unknown, ``where`` is not a valid expression, the scores of the
            base model are required and not found, or the page cannot be written.
        DataError: no row of the file can be read.
    """
    path, html = folder / data, view.html and folder / view.html
    base = None if against is None else folder / against
    compare = against is not None or selection.needs_base
    known = decisions.read(path)
    with open_entries(path, lambda: known, against=base, selection=selection, keep=False) as entries:
        selects = entries.selector(selection, compare=compare)
        overview, shared, selected = FileOverview(recipe.rectify.gamma), SharedPrompts(), array("Q")
        for row in entries.scan():
            record, matches = entries.record(row), selects(row)
            overview.add(record, matches=matches, duplicate=row in entries.duplicates)
            if isinstance(record, Problem):
                shared.add(record)
            if matches:
                selected.append(row)
        note_renamed_fields(path, entries.renamed)
        if selection.id is not None and not selected:
            raise unknown_id(entries, selection)
        summary = overview.summary(path, html=html, comparison=entries.comparison if compare else None)
        if html is not None:
            write_rows(html, summary, entries, selected, view.limit, compare=compare)
        if view.quiet:
            return summary
        # Rich exits the process when the reader of a pipe closes it early, as `head` does; that is not an error here.
        with suppress(SystemExit):
            if selection.id is None:
                print_file_overview(out(), summary)
            if html is not None:
                out().print(f"page written to {one_line(str(html))}", soft_wrap=True)
            else:
                layout = Layout.on(out(), whole=selection.id is not None, shared=shared)
                _show(entries, selected[: view.shown(len(selected))], layout, compare=compare)
    return summary


def _show(entries: Entries, rows: Sequence[int], layout: Layout, *, compare: bool) -> None:
    """Print rows, each with its place among them."""
    console = out()
    for number, row in enumerate(rows, 1):
        show_entry(console, entries, row, f"{number}/{len(rows)}", layout, compare=compare)


def is_interactive(view: View, selection: Selection) -> bool:
    """Whether the command opens the app: on a terminal, without an option that asks for printed text."""
    printed = view.quiet or view.html is not None or view.limit is not None or selection.id is not None
    terminals = sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    return terminals and not printed


def browse(
    recipe: Recipe,
    *,
    data: Path,
    against: Path | None = None,
    folder: Path = Path(),
    where: str | None = None,
    sample: SampleSize | None = None,
) -> None:
    """Show a file in the interactive app; decisions are appended to X.review.jsonl at once.

    Args:
        against: the scores of the base model; by default, those that the summary beside scores names.
        where: the first filter.
        sample: show a random sample of the pairs, and print the error rate that was found.

    Raises:
        UserError: the file does not exist, has other rows, or fewer pairs than the sample.
        DataError: no row can be read, or the file of decisions is damaged.
    """
    from spotcli.inspection.app.application import run
    from spotcli.inspection.app.browser import Opened

    path, base = folder / data, None if against is None else folder / against
    review_file = ReviewFile(path)
    selection = Selection(where=where)
    with open_entries(path, lambda: review_file.decisions, against=base, selection=selection, keep=True) as entries:
        if sample is not None and not entries.has_pairs:
            cure = "pass the file of pairs"
            raise UserError(f"expected pairs for --sample, got {entries.kind}", where=str(path), cure=cure)
        app = run(Opened(path, recipe, entries, review_file, where, sample))
        if sample is None or app.sample is None:
            return
        states = [entries.state(row) for row in app.sample]
    report_audit(states, sample, review_file, where)
