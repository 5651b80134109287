"""pairs -> terminal: what the corrections changed, before anything is trained on them.

    spot inspect data.jsonl --where 'ratio>0.3'

``browse`` is the interactive app, on a terminal: a list of the rows beside the pair under the cursor, and decisions.
``review`` prints: the overview of the file, then each pair as a diff with ``[-deleted-]`` and ``{+inserted+}``, or an
HTML page. The file is never held in memory, and not changed.

The answers of an evaluation (scores/MODEL.jsonl) are opened too: verdicts per task, then each answer. With
`--where lost`, each lost problem is shown as a diff of the base model's answer and the tuned model's.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from spotcli import decisions, jsonl, outputs
from spotcli.console import note_renamed_fields, one_line, out
from spotcli.decisions import ReviewFile
from spotcli.errors import UserError
from spotcli.inspection import score_terminal, terminal
from spotcli.inspection.audit import SampleSize, report_audit
from spotcli.inspection.entries import Entries, pair_fields
from spotcli.inspection.overview import Overview, ReviewSummary
from spotcli.inspection.page import PageRows, Shown, write_page
from spotcli.inspection.pair_filter import ALL_PAIRS, SCORE_FIELDS, Selection, compared_fields, parse
from spotcli.inspection.row_index import RowIndex
from spotcli.inspection.score_overview import ScoreOverview, ScoreSummary
from spotcli.inspection.shared_prompts import SharedPrompts
from spotcli.inspection.terminal import Layout
from spotcli.recipe import Recipe
from spotcli.records import Pair, Score, kind_of
from spotcli.score_changes import ComparedAnswers, ProblemChange, base_scores, compare_files, compared_answers

__all__ = ["ReviewSummary", "SampleSize", "ScoreSummary", "Selection", "View", "browse", "is_interactive", "review"]


@dataclass(frozen=True)
class View:
    """Where and how many of the selected pairs are shown."""

    limit: int | None = None
    """Show at most this many pairs after the overview; 0 shows the overview alone."""
    html: Path | None = None
    """Write this self-contained page instead of showing the pairs in the terminal."""
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
) -> ReviewSummary | ScoreSummary:
    """Show a file of pairs, or the answers of an evaluation. Paths are relative to ``folder``.

    Scores are compared with the base model's if ``against`` names them, or if ``selection`` needs them: then the
    summary beside the scores names them. A row selected by its id is shown with its whole prompt and without the
    overview.

    Raises:
        UserError: the file does not exist or contains samples, the id is unknown, ``where`` is not a valid expression,
            the scores of the base model are required and not found, or the page cannot be written.
        DataError: a row is not a pair.
    """
    path = folder / data
    if kind_of(next(jsonl.rows(path), {})) == Score.kind:
        other = None if against is None else folder / against
        view = replace(view, html=view.html and folder / view.html)
        return _review_scores(path, other, selection, view)
    if against is not None or selection.needs_base:
        cure = "leave out --against and won, lost, both and neither, or inspect scores/MODEL.jsonl"
        raise UserError("only scores are compared with a base model", where=str(path), cure=cure)
    known = decisions.read(path)
    fields = pair_fields(lambda: known)
    matches = selection.compile(fields)
    renamed: dict[str, str] = {}
    overview, shared = Overview(recipe.rectify.gamma), SharedPrompts()
    for pair in map(known.applied, jsonl.read(path, Pair, renamed=renamed)):
        shared.add(pair)
        overview.add(pair, matches=matches(pair))
    note_renamed_fields(path, renamed)
    if selection.id is not None and not overview.matching:
        raise _unknown_id(path, Pair, selection)
    summary = overview.summary(path, outputs.read_meta(path).get("counts") or {}, view.html)

    def selected(limit: int | None = None) -> Iterator[Pair]:
        return islice(filter(matches, map(known.applied, jsonl.read(path, Pair))), limit)

    if view.html is not None:
        write_page(folder / view.html, summary, PageRows("pair", lambda: map(Shown, selected()), fields), view.limit)
    if view.quiet:
        return summary
    console = out()
    # Rich exits the process when the reader of a pipe closes it early, as `head` does; that is not an error here.
    with suppress(SystemExit):
        if selection.id is None:
            terminal.print_overview(console, summary)
        if summary.html is not None:
            console.print(f"page written to {one_line(summary.html)}", soft_wrap=True)
        else:
            layout = Layout.on(console, whole=selection.id is not None, shared=shared)
            terminal.show_pairs(console, selected(view.limit), view.shown(summary.matching), layout)
    return summary


def is_interactive(view: View, selection: Selection) -> bool:
    """Whether the command opens the app: on a terminal, without an option that asks for printed text."""
    printed = view.quiet or view.html is not None or view.limit is not None or selection.id is not None
    printed = printed or selection.needs_base  # the app shows one model's answers
    terminals = sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    return terminals and not printed


def browse(
    recipe: Recipe, *, data: Path, folder: Path = Path(), where: str | None = None, sample: SampleSize | None = None
) -> None:
    """Show a file in the interactive app; decisions are appended to X.review.jsonl at once.

    Args:
        where: the first filter.
        sample: show a random sample of the pairs, and print the error rate that was found.

    Raises:
        UserError: the file does not exist, has another kind of rows, or fewer pairs than the sample.
        DataError: the file of decisions is damaged.
    """
    from spotcli.inspection.app.application import run
    from spotcli.inspection.app.browser import Opened

    path = folder / data
    first = next((row for _, _, row in jsonl.placed(path, invalid=lambda _: None)), {})
    scores = kind_of(first) == Score.kind
    if not scores:
        jsonl.refuse_other_kind(first, Pair, path)
    elif sample is not None:
        raise UserError("expected pairs for --sample, got scores", where=str(path), cure="pass the file of pairs")
    review_file = ReviewFile(path)
    with RowIndex.open(path) as index:
        entries = Entries(index, lambda: review_file.decisions, scores=scores)
        if where is not None:
            parse(where, entries.fields)
        app = run(Opened(path, recipe, entries, review_file, where, sample))
        if sample is None or app.sample is None:
            return
        states = [entries.state(row) for row in app.sample]
    report_audit(states, sample, review_file, where)


def _review_scores(path: Path, against: Path | None, selection: Selection, view: View) -> ScoreSummary:
    """Show the answers of an evaluation; with a base model's scores, one pair of answers per problem as a diff.

    Raises:
        UserError: as ``review``.
        DataError: a row is not a score, or the two files have different prompts.
    """
    html = view.html
    base = against or (_base_scores(path) if selection.needs_base else None)
    changes = compare_files(base, path) if base else {}
    fields = compared_fields(changes) if base else SCORE_FIELDS
    matches = selection.compile(fields)
    overview, shared = ScoreOverview(), SharedPrompts()
    selected: list[ProblemChange] = []
    for score in jsonl.read(path, Score):
        shared.add(score)
        change = changes.get((score.task, score.id))
        matching = matches(score) and (base is None or (change is not None and change.tuned_key == score.key))
        overview.add(score, matches=matching)
        if matching and change is not None:
            selected.append(change)
    if selection.id is not None and not overview.matching:
        raise _unknown_id(path, Score, selection)
    summary = overview.summary(path, against=base, changes=changes.values(), html=html)

    def answers() -> Iterator[Score]:
        return filter(matches, jsonl.read(path, Score))

    def compared(limit: int | None = None) -> Iterator[ComparedAnswers]:
        return compared_answers(base, path, selected[:limit]) if base else iter(())

    if html is not None:
        if base is not None:
            rows = PageRows("problem", lambda: (Shown(row.tuned, row) for row in compared()), fields)
        else:
            rows = PageRows("answer", lambda: map(Shown, answers()), fields)
        write_page(html, summary, rows, view.limit)
    if view.quiet:
        return summary
    console = out()
    with suppress(SystemExit):
        if selection.id is None:
            score_terminal.print_score_overview(console, summary)
        total = view.shown(summary.matching)
        layout = Layout.on(console, whole=selection.id is not None, shared=shared)
        if html is not None:
            console.print(f"page written to {one_line(str(html))}", soft_wrap=True)
        elif base is not None:
            score_terminal.show_changes(console, compared(view.limit), total, layout)
        else:
            score_terminal.show_scores(console, islice(answers(), view.limit), total, layout)
    return summary


def _base_scores(path: Path) -> Path:
    """The scores of the base model, which the summary beside the scores names.

    Raises:
        UserError: there is no such file.
    """
    base = base_scores(path)
    if base is None:
        raise UserError(
            "the scores of the base model were not found",
            where=str(path),
            cure="name them with --against scores/BASE.jsonl, or run `spot eval MODEL --against BASE` first",
        )
    return base


def _unknown_id(path: Path, model: type[Pair] | type[Score], selection: Selection) -> UserError:
    """The error for an id that selects nothing, with the cause or with similar ids."""
    id = selection.id or ""
    ids = {row.id for row in jsonl.read(path, model)}
    if id in ids:
        return UserError(
            f"{id!r} does not match --where {selection.where!r}", where=str(path), cure="leave out --where or --id"
        )
    similar = list(islice((known for known in ids if id.casefold() in known.casefold()), 3))
    cure = (
        f"did you mean {' or '.join(map(repr, sorted(similar)))}?"
        if similar
        else "--where 'id~PART' finds parts of ids"
    )
    return UserError(f"unknown id {id!r}", where=str(path), cure=cure)
