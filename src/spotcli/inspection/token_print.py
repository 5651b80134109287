"""What is trained, printed: the tokens of pairs, the order of pairs, and the computation of the policy's surprise."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from spotcli import jsonl
from spotcli.console import progress, say
from spotcli.core.edits import diff
from spotcli.decisions import Decisions
from spotcli.errors import UserError
from spotcli.inspection import terminal
from spotcli.inspection.entries import Entries, pair_fields
from spotcli.inspection.filter_syntax import Predicate
from spotcli.inspection.overview import count_noun
from spotcli.inspection.pair_filter import Fields
from spotcli.inspection.row_index import RowIndex
from spotcli.inspection.row_order import Order, sort_key, sorted_rows
from spotcli.inspection.surprise import Computation, Surprises
from spotcli.inspection.token_lines import token_parts
from spotcli.inspection.trained_tokens import PairEncoder, PairTokens
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


class PairPrinter:
    """Selects, orders and prints the pairs of a file.

    Args:
        recipe: names the policy, and how it is trained.
        path: the file of pairs.
        known: the decisions about them.
        options: what is shown.

    Raises:
        UserError: tokens are wanted, and the policy is not known or has no tokenizer within reach.
    """

    def __init__(self, recipe: Recipe, path: Path, known: Decisions, options: TokenOptions) -> None:
        self.recipe, self.path, self.known, self.options = recipe, path, known, options
        self.surprises = Surprises.of(recipe, path)
        self.surprises.read_once()
        self.encoder = PairEncoder.load(recipe, path) if options.tokens else None

    @property
    def fields(self) -> Fields[Pair]:
        """The fields of the filter language."""
        return self.surprises.with_fields(pair_fields(lambda: self.known))

    def pairs(self) -> Iterator[Pair]:
        """All pairs of the file, in its order."""
        return map(self.known.applied, jsonl.read(self.path, Pair))

    def selected(self, matches: Predicate, limit: int | None) -> Iterator[Pair]:
        """The pairs that match, in the order that is chosen; only row numbers are held in memory."""
        if self.options.order == "file":
            yield from islice(filter(matches, self.pairs()), limit)
            return
        key = sort_key(self.options.order, self.surprises)
        with RowIndex.open(self.path) as index:
            entries = Entries(index, lambda: self.known)

            def values() -> Iterator[tuple[int, float | None]]:
                for row in range(len(entries)):
                    if (pair := entries.shown(row)) is not None and matches(pair):
                        yield row, key(pair)

            for row in sorted_rows(values())[:limit]:
                pair = entries.shown(row)
                assert pair is not None
                yield pair

    def compute(self, matches: Predicate, where: str | None, limit: int | None) -> None:
        """Compute the surprise of the pairs that are shown, if that is wanted and as far as it is not known.

        If the selection or the order depends on the surprise, it is computed of all pairs.

        Raises:
            UserError: the policy is not known or cannot be loaded, or another process computes the surprise.
        """
        if not self.options.surprise:
            return

        def pairs() -> Iterator[Pair]:
            if "surprise" in (where or "").lower():
                return self.pairs()
            return islice(filter(matches, self.pairs()), limit if self.options.order == "file" else None)

        compute_surprise(self.recipe, self.path, self.surprises, pairs)

    def show(self, console: Console, pairs: Iterable[Pair], total: int, layout: Layout) -> None:
        """Print pairs: their diffs, or their tokens.

        Args:
            console: where to print.
            pairs: the pairs.
            total: their number.
            layout: how they are printed.
        """
        encoder = self.encoder
        if encoder is None:
            terminal.show_pairs(console, pairs, total, replace(layout, surprise=self.surprises.shown))
            return
        width = layout.width if console.is_terminal else None
        for number, pair in enumerate(pairs, 1):
            spans, surprise = diff(pair.original, pair.chosen), self.surprises.shown(pair)
            title, *head = terminal.pair_head(pair, f"{number}/{total}", spans, whole=False, surprise=surprise)
            try:
                tokens: PairTokens | str = encoder.tokens(pair)
            except UserError as error:
                tokens = error.message
            parts = token_parts(tokens, self.surprises.row(pair), marked=layout.marked, width=width, folded=False)
            if width is not None:
                parts = layout.wrapped(console, parts)
            terminal.show_row(console, title, [*layout.wrapped(console, head[:-1]), *parts])


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
