"""rows -> terminal: what the corrections changed, before anything is trained on them.

    spot inspect data.jsonl --where 'ratio>0.3'

``browse`` is the interactive app, on a terminal: a list of the rows beside the one under the cursor, and decisions.
``review`` prints: the overview of the file, then each row; a pair as a diff with ``[-deleted-]`` and ``{+inserted+}``;
or an HTML page. The file is never held in memory, and not changed.

Pairs, samples, an oracle's replies and the answers of an evaluation are opened, and the preference files of other
tools. A row that cannot be read is shown with the reason. With `--where lost`, each lost problem of an evaluation is
shown as a diff of the base model's answer and the tuned model's. The metrics of a training run are shown as a table.
"""

from __future__ import annotations

import os
import sys
from array import array
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from spotcli import decisions
from spotcli.console import note_renamed_fields, one_line, out
from spotcli.decisions import ReviewFile
from spotcli.errors import UserError
from spotcli.inspection.audit import SampleSize, report_audit
from spotcli.inspection.file_overview import FileOverview, FileSummary
from spotcli.inspection.metrics import MetricsSummary, read_metrics
from spotcli.inspection.opening import open_entries, unknown_id
from spotcli.inspection.page import write_rows
from spotcli.inspection.pair_filter import ALL_PAIRS, Selection
from spotcli.inspection.row_order import Order
from spotcli.inspection.row_terminal import print_file_overview
from spotcli.inspection.shared_prompts import SharedPrompts
from spotcli.inspection.terminal import Layout
from spotcli.inspection.token_print import PLAIN, PairPrinter, TokenOptions
from spotcli.recipe import Recipe
from spotcli.records import Problem

__all__ = [
    "FileSummary",
    "MetricsSummary",
    "SampleSize",
    "Selection",
    "TokenOptions",
    "View",
    "browse",
    "is_interactive",
    "review",
    "show_metrics",
]


@dataclass(frozen=True)
class View:
    """Where and how many of the selected rows are shown."""

    limit: int | None = None
    """Show at most this many rows after the overview; 0 shows the overview alone."""
    html: Path | None = None
    """Write this self-contained page instead of showing the rows in the terminal."""
    quiet: bool = False
    """Print nothing; the caller uses the summary."""
    tokens: TokenOptions = PLAIN
    """Whether tokens are shown instead of diffs, and the order of the rows."""

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
    with open_entries(path, lambda: known, against=base, selection=selection, keep=False, recipe=recipe) as entries:
        printer = PairPrinter(recipe, entries, view.tokens)
        printer.compute_for(selection)
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
        rows = printer.arranged(selected, view.limit)
        summary = overview.summary(path, html=html, comparison=entries.comparison if compare else None)
        if html is not None:
            write_rows(html, summary, entries, rows, view.limit, compare=compare)
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
                printer.show(out(), rows[: view.shown(len(rows))], layout, compare=compare)
    return summary


def show_metrics(path: Path, selection: Selection = ALL_PAIRS, view: View = DEFAULT_VIEW) -> MetricsSummary | None:
    """Print the metrics of a training run; None if the file has other rows, which ``review`` shows.

    Raises:
        UserError: a page, an id or a filter is given.
    """
    metrics = read_metrics(path, selection)
    if metrics is None:
        return None
    if view.html is not None:
        raise UserError("metrics have no page", where=str(path), cure="leave out --html")
    if not view.quiet:
        with suppress(SystemExit):
            metrics.show(out(), view.limit)
    return metrics.summary()


def is_interactive(view: View, selection: Selection) -> bool:
    """Whether the command opens the app: on a terminal, without an option that asks for printed text."""
    printed = view.quiet or view.html is not None or view.limit is not None or selection.id is not None
    printed = printed or view.tokens.tokens
    terminals = sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    return terminals and not printed


def browse(
    recipe: Recipe,
    *,
    data: Path,
    against: Path | None = None,
    where: str | None = None,
    sample: SampleSize | None = None,
    order: Order = "file",
) -> None:
    """Show a file in the interactive app; decisions are appended to X.review.jsonl at once.

    Args:
        against: the scores of the base model; by default, those that the summary beside scores names.
        where: the first filter.
        sample: show a random sample of the pairs, and print the error rate that was found.
        order: the first order of the list.

    Raises:
        UserError: the file does not exist, has other rows, or fewer pairs than the sample.
        DataError: no row can be read, or the file of decisions is damaged.
    """
    from spotcli.inspection.app.application import run
    from spotcli.inspection.app.browser import Opened

    if show_metrics(data, Selection(where=where)) is not None:
        return
    review_file = ReviewFile(data)
    selection = Selection(where=where)
    with open_entries(
        data, lambda: review_file.decisions, against=against, selection=selection, keep=True, recipe=recipe
    ) as entries:
        if sample is not None and not entries.has_pairs:
            cure = "pass the file of pairs"
            raise UserError(f"expected pairs for --sample, got {entries.kind}", where=str(data), cure=cure)
        app = run(Opened(data, recipe, entries, review_file, where, sample, order))
        if sample is None or app.sample is None:
            return
        states = [entries.state(row) for row in app.sample]
    report_audit(states, sample, review_file, where)
