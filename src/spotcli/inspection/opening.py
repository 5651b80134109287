"""A file of rows, opened for the app or for printing, with the base model's scores that it is compared with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path

from spotcli.decisions import Decisions
from spotcli.errors import SpotError, UserError
from spotcli.inspection.comparison import Comparison
from spotcli.inspection.entries import Entries
from spotcli.inspection.pair_filter import Selection
from spotcli.inspection.row_index import RowIndex
from spotcli.inspection.row_kinds import SCORES
from spotcli.inspection.surprise import Surprises
from spotcli.recipe import Recipe
from spotcli.score_changes import base_scores


@contextmanager
def open_entries(
    path: Path,
    decisions: Callable[[], Decisions],
    *,
    against: Path | None,
    selection: Selection,
    keep: bool,
    recipe: Recipe | None = None,
) -> Iterator[Entries]:
    """Open a file. Scores are compared with those of ``against``, or of the base model that their summary names.

    Args:
        path: the file.
        decisions: returns the decisions about its pairs as they are now.
        against: the scores of the base model.
        selection: what is selected at first.
        keep: keep the index of the file beside it.
        recipe: names the policy whose surprise is shown.

    Raises:
        UserError: the file does not exist, has another format or other rows, or there are no scores to compare.
        DataError: no row can be read, or a summary is damaged that names the base model.
    """
    with ExitStack() as stack:
        index = stack.enter_context(RowIndex.open(path, keep=keep))
        entries = Entries(index, decisions)
        entries.surprises = Surprises.of(recipe or Recipe(), path)
        entries.check_readable()
        if SCORES in entries.seen_kinds:
            base = against or _base(path, required=selection.needs_base)
            if base is not None:
                entries.comparison = stack.enter_context(Comparison(base, index))
        elif against is not None:
            cure = "leave out --against, or inspect scores/MODEL.jsonl"
            raise UserError("only scores are compared with a base model", where=str(path), cure=cure)
        if selection.where is not None:
            entries.check_filter(selection.where)
        yield entries


def _base(path: Path, *, required: bool) -> Path | None:
    """The file of the base model's scores, if the summary beside the scores names it.

    Raises:
        DataError: the file is required, and the summary is damaged.
    """
    try:
        return base_scores(path)
    except SpotError:
        if required:
            raise
        return None


def unknown_id(entries: Entries, selection: Selection) -> UserError:
    """The error for an id that selects nothing, with the cause or with similar ids."""
    id, where = selection.id or "", str(entries.index.path)
    ids = {entry.id for entry in map(entries.entry, range(len(entries))) if entry.record is not None}
    if id in ids:
        message = f"{id!r} does not match --where {selection.where!r}"
        return UserError(message, where=where, cure="leave out --where or --id")
    similar = list(islice((known for known in ids if id.casefold() in known.casefold()), 3))
    cure = "--where 'id~PART' finds parts of ids"
    if similar:
        cure = f"did you mean {' or '.join(map(repr, sorted(similar)))}?"
    return UserError(f"unknown id {id!r}", where=where, cure=cure)
