"""What is trained, printed: the tokens of pairs, the order of pairs, and the computation of the policy's surprise."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from spotcli.console import counted, progress, say
from spotcli.core.edits import diff
from spotcli.errors import Unfinished, UserError
from spotcli.inspection import terminal
from spotcli.inspection.entries import Entries
from spotcli.inspection.pair_filter import Selection
from spotcli.inspection.row_order import Order, sort_key, sorted_rows
from spotcli.inspection.row_terminal import show_entry
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
    """Orders and prints the rows of a file.

    Args:
        recipe: names the policy, and how it is trained.
        entries: the rows.
        options: what is shown.

    Raises:
        UserError: tokens are wanted, and the policy is not known or has no tokenizer within reach.
    """

    def __init__(self, recipe: Recipe, entries: Entries, options: TokenOptions) -> None:
        self.recipe, self.entries, self.options = recipe, entries, options
        self.surprises = entries.surprises
        self.surprises.read_once()
        self.encoder = PairEncoder.load(recipe, entries.index.path) if options.tokens else None

    def compute_for(self, selection: Selection) -> None:
        """Compute the surprise of all pairs, if it is wanted and the selection depends on it.

        Raises:
            UserError: the policy is not known or cannot be loaded, or another process computes the surprise.
        """
        if self.options.surprise and "surprise" in (selection.where or "").lower():
            self._compute(range(len(self.entries)))

    def arranged(self, rows: Sequence[int], limit: int | None) -> Sequence[int]:
        """Rows in the order that is chosen, after the surprise of those that are shown was computed if it is wanted.

        Raises:
            UserError: as ``compute_for``.
        """
        order = self.options.order
        if self.options.surprise:
            # Without rows that are shown, as with --limit 0, the command is there to compute the surprise.
            self._compute(rows if order == "surprise" else self._sorted(rows)[: limit or None])
        return self._sorted(rows)

    def _sorted(self, rows: Sequence[int]) -> Sequence[int]:
        if self.options.order == "file":
            return rows
        key = sort_key(self.options.order, self.surprises)
        pairs = ((row, self.entries.shown(row)) for row in rows)
        return sorted_rows((row, None if pair is None else key(pair)) for row, pair in pairs)

    def _compute(self, rows: Sequence[int]) -> None:
        def pairs() -> Iterator[Pair]:
            return (pair for row in rows if (pair := self.entries.shown(row)) is not None)

        compute_surprise(self.recipe, self.entries.index.path, self.surprises, pairs)

    def show(self, console: Console, rows: Sequence[int], layout: Layout, *, compare: bool) -> None:
        """Print rows, each with its place among them: pairs as diffs, or as tokens.

        Args:
            console: where to print.
            rows: their numbers.
            layout: how they are printed.
            compare: show an answer of an evaluation as a diff from the base model's.
        """
        layout = replace(layout, surprise=self.surprises.shown)
        for number, row in enumerate(rows, 1):
            pair, place = self.entries.shown(row), f"{number}/{len(rows)}"
            if self.encoder is None or pair is None:
                show_entry(console, self.entries, row, place, layout, compare=compare)
            else:
                self._show_tokens(console, pair, place, layout, self.encoder)

    def _show_tokens(self, console: Console, pair: Pair, place: str, layout: Layout, encoder: PairEncoder) -> None:
        spans, surprise = diff(pair.original, pair.chosen), self.surprises.shown(pair)
        title, *head = terminal.pair_head(pair, place, spans, whole=False, surprise=surprise)
        try:
            tokens: PairTokens | str = encoder.tokens(pair)
        except UserError as error:
            tokens = error.message
        width = layout.width if console.is_terminal else None
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
        Unfinished: Ctrl-C; what was computed is saved.
    """
    computation = Computation(recipe, path, surprises)
    missing = sum(1 for _ in computation.missing(pairs()))
    if missing:
        with progress("pairs") as display:
            task = display.add_task("surprise", total=missing)
            try:
                computation.run(computation.missing(pairs()), lambda count: display.advance(task, count))
            except KeyboardInterrupt:
                known = f"the surprise of {counted(len(surprises), 'pair')} is saved"
                raise Unfinished(f"interrupted; {known}", cure="run the same command again to resume") from None
    for reason, count in computation.left_out.items():
        say(f"{counted(count, 'pair')} without surprise: {reason}")
