"""pairs -> terminal: what the corrections changed, before anything is trained on them.

    spot inspect data.jsonl --where 'ratio>0.3'

First the overview of the file: how large the edits are, where they begin, and why samples did not become pairs. Then
each pair as a diff: one per screen on a terminal, in a pipe as plain text with ``[-deleted-]`` and ``{+inserted+}``.
The file is read twice and never held in memory. It is not changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from spotcli import jsonl, outputs
from spotcli.console import note_renamed_fields, one_line, out, say
from spotcli.errors import DataError, UserError
from spotcli.inspection import terminal
from spotcli.inspection.html_page import write_page
from spotcli.inspection.overview import Overview, ReviewSummary, count_noun
from spotcli.inspection.pair_filter import ALL_PAIRS, Selection
from spotcli.recipe import Recipe
from spotcli.records import EVALUATION, Pair, Sample

__all__ = ["ReviewSummary", "Selection", "View", "review"]

HTML_LIMIT = 500
"""Pairs on an HTML page without a limit; a page with more is slow to open."""


@dataclass(frozen=True)
class View:
    """Where and how many of the selected pairs are shown."""

    limit: int | None = None
    """Show at most this many pairs after the overview; 0 shows the overview alone."""
    html: Path | None = None
    """Write this self-contained page instead of showing the pairs in the terminal."""
    quiet: bool = False
    """Print nothing; the caller uses the summary."""


DEFAULT_VIEW = View()


def review(
    recipe: Recipe,
    *,
    data: Path,
    folder: Path = Path(),
    selection: Selection = ALL_PAIRS,
    view: View = DEFAULT_VIEW,
) -> ReviewSummary:
    """Show a file of pairs. Paths are relative to ``folder``.

    A pair selected by its id is shown with its whole prompt and without the overview.

    Raises:
        UserError: the file does not exist or contains samples, the id is unknown, ``where`` is not a valid expression,
            or the page cannot be written.
        DataError: a row is not a pair.
    """
    path = folder / data
    matches = selection.compile()
    renamed: dict[str, str] = {}
    overview = Overview(recipe.rectify.gamma)
    for pair in _read_pairs(path, renamed):
        overview.add(pair, matches=matches(pair))
    note_renamed_fields(path, renamed)
    if selection.id is not None and not overview.matching:
        raise _unknown_id(path, selection.id, selection.where)
    summary = overview.summary(path, outputs.read_meta(path).get("counts") or {}, view.html)

    def selected(limit: int | None) -> Iterator[Pair]:
        return islice(filter(matches, _read_pairs(path)), limit)

    if view.html is not None:
        limit = HTML_LIMIT if view.limit is None else view.limit
        write_page(folder / view.html, summary, selected(limit))
        if summary.matching > limit:
            pairs = count_noun(summary.matching, "pair")
            say(f"{folder / view.html}: contains the first {limit} of {pairs}; --limit changes this")
    if view.quiet:
        return summary
    console = out()
    # Rich exits the process when the reader of a pipe closes it early, as `head` does; that is not an error here.
    with suppress(SystemExit):
        if selection.id is None:
            terminal.print_overview(console, summary)
        if summary.html is not None:
            console.print(f"page written to {one_line(summary.html)}")
        else:
            total = summary.matching if view.limit is None else min(view.limit, summary.matching)
            terminal.show_pairs(console, selected(view.limit), total, whole=selection.id is not None)
    return summary


def _read_pairs(path: Path, renamed: dict[str, str] | None = None) -> Iterator[Pair]:
    """Stream the pairs of a file.

    Raises:
        UserError: the file does not exist, or contains samples.
        DataError: a row is not a pair.
    """
    pairs = jsonl.read(path, Pair, renamed=renamed)
    try:
        first = next(pairs, None)
    except DataError:
        if _contains_samples(path):
            if _contains_evaluation(path):
                raise UserError(
                    "expected pairs, got the answers of an evaluation",
                    where=str(path),
                    cure="compare models with `spot eval MODEL --against BASE`",
                ) from None
            raise UserError(
                "expected pairs, got samples that are not rectified yet",
                where=str(path),
                cure=f"run `spot rectify {path} --oracle ORACLE` and inspect its output",
            ) from None
        raise
    if first is not None:
        yield first
        yield from pairs


def _contains_samples(path: Path) -> bool:
    try:
        next(jsonl.read(path, Sample))
    except DataError:
        return False
    return True


def _unknown_id(path: Path, id: str, where: str | None) -> UserError:
    """The error for an id that selects nothing, with the cause or with similar ids."""
    if any(pair.id == id for pair in _read_pairs(path)):
        return UserError(
            f"the pair {id!r} does not match --where {where!r}", where=str(path), cure="leave out --where or --id"
        )
    similar = list(islice((pair.id for pair in _read_pairs(path) if id.casefold() in pair.id.casefold()), 3))
    cure = f"did you mean {' or '.join(map(repr, similar))}?" if similar else "--where 'id~PART' finds parts of ids"
    return UserError(f"unknown id {id!r}", where=str(path), cure=cure)


def _contains_evaluation(path: Path) -> bool:
    """Whether the first row belongs to an evaluation."""
    first = next(iter(jsonl.rows(path)), {})
    return first.get("split") == EVALUATION or "task" in first
