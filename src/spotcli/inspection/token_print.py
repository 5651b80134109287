"""What is trained, printed: the tokens of pairs, the order of pairs, and the computation of the policy's surprise."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from spotcli.console import progress, say
from spotcli.core.edits import diff
from spotcli.decisions import Decisions
from spotcli.errors import UserError
from spotcli.inspection import terminal
from spotcli.inspection.entries import Entries
from spotcli.inspection.overview import count_noun
from spotcli.inspection.pair_filter import Predicate
from spotcli.inspection.row_index import RowIndex
from spotcli.inspection.row_order import Order, sort_key, sorted_rows
from spotcli.inspection.surprise import Computation, Surprises
from spotcli.inspection.token_lines import token_parts
from spotcli.inspection.trained_tokens import PairEncoder
from spotcli.recipe import Recipe
from spotcli.records import Pair

if TYPE_CHECKING:
    from rich.console import Console

    from spotcli.inspection.terminal import Layout


@dataclass(frozen=True)
class TokenOptions:
    """What is shown of the policy's tokens."""

    tokens: bool = False
    """Show the tokens instead of the diff."""
    surprise: bool = False
    """Compute the surprise that is not known."""
    order: Order = "file"


PLAIN = TokenOptions()


def show_tokens(
    console: Console, pairs: Iterable[Pair], total: int, layout: Layout, encoder: PairEncoder, surprises: Surprises
) -> None:
    """Print the tokens of pairs.

    Args:
        total: the number of pairs.
    """
    width = layout.width if console.is_terminal else None
    for number, pair in enumerate(pairs, 1):
        spans, surprise = diff(pair.original, pair.chosen), surprises.shown(pair)
        title, *head = terminal.pair_head(pair, f"{number}/{total}", spans, whole=False, surprise=surprise)
        try:
            parts = token_parts(
                encoder.tokens(pair), surprises.row(pair), marked=layout.marked, width=width, folded=False
            )
        except UserError as error:
            parts = token_parts(error.message, None, marked=True, width=width, folded=False)
        terminal.show_row(console, title, [*layout.wrapped(console, head[:-1]), *parts])


def in_order(
    path: Path, known: Decisions, matches: Predicate, order: Order, surprises: Surprises, limit: int | None
) -> Iterator[Pair]:
    """The matching pairs of a file in an order; only row numbers are held in memory."""
    key = sort_key(order, surprises)
    with RowIndex.open(path) as index:
        entries = Entries(index, lambda: known)

        def values() -> Iterator[tuple[int, float | None]]:
            for row in range(len(entries)):
                if (pair := entries.shown(row)) is not None and matches(pair):
                    yield row, key(pair)

        for row in sorted_rows(values())[:limit]:
            pair = entries.shown(row)
            assert pair is not None
            yield pair


def compute_surprise(recipe: Recipe, path: Path, surprises: Surprises, pairs: Callable[[], Iterable[Pair]]) -> None:
    """Compute the surprise of pairs where it is not known, with progress.

    Args:
        recipe: names the policy.
        path: the file of pairs.
        surprises: what is known.
        pairs: returns the pairs; called twice.

    Raises:
        UserError: the policy is not known or cannot be loaded, or another process computes the surprise.
    """
    computation = Computation(recipe, path, surprises)
    missing = sum(1 for _ in computation.missing(pairs()))
    if missing:
        with progress("pairs") as display:
            task = display.add_task("surprise", total=missing)
            computation.run(computation.missing(pairs()), lambda count: display.advance(task, count))
    for reason, count in computation.left_out.items():
        say(f"{count_noun(count, 'pair')} without surprise: {reason}")


def wanted_pairs(
    pairs: Iterable[Pair], matches: Predicate, where: str | None, order: Order, limit: int | None
) -> Iterable[Pair]:
    """The pairs whose surprise is needed: all if the selection or the order depends on it, else those shown."""
    if "surprise" in (where or "").lower():
        return pairs
    return islice(filter(matches, pairs), None if order == "surprise" else limit)
