"""What is trained of a pair, the policy's surprise, and the order of the list: the keys t, T and S."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import ClassVar

from rich.text import Text
from textual import work
from textual.binding import BindingType
from textual.worker import Worker, get_current_worker

from spotcli.console import counted, one_line
from spotcli.decisions import text_digest
from spotcli.errors import SpotError
from spotcli.inspection.app.browser import REPORT, Browser, Opened, in_order, message
from spotcli.inspection.row_order import ORDERS, sort_key, sorted_rows
from spotcli.inspection.surprise import Computation
from spotcli.inspection.token_lines import token_parts
from spotcli.inspection.trained_tokens import PairEncoder, PairTokens
from spotcli.records import Pair

CACHED = 32
"""Pairs whose tokens are kept in memory."""


class TokenBrowser(Browser):
    """The viewer of one file, with the tokens of its pairs."""

    BINDINGS: ClassVar[list[BindingType]] = in_order({"t": "tokens", "T": "surprise", "S": "order"})

    def __init__(self, opened: Opened) -> None:
        super().__init__(opened)
        self.surprises = self.entries.surprises
        self._tokens: dict[str, PairTokens | str | SpotError] = {}
        """By the digest of a pair's text; the last ones."""
        self._encoder: PairEncoder | SpotError | None = None
        """None until it is loaded; or why it cannot be."""
        self._encoding = threading.Lock()
        self._computing: Worker[None] | None = None

    def on_mount(self) -> None:  # Textual calls that of Browser too
        self._read_surprise()
        if not self.opened.where:
            self._keep_order()

    @work(thread=True, group="surprise file")
    def _read_surprise(self) -> None:
        self.surprises.read_once()
        self.call_from_thread(self.view.lay_out)

    # t: what is trained

    def action_tokens(self) -> None:
        if not self.entries.has_pairs:
            self._tell("only pairs are trained on; this file has none")
            return
        self.view.tokens = self._token_lines if self.view.tokens is None else None
        self.view.scroll_to(y=0, animate=False, immediate=True)
        self.view.lay_out()

    def _token_lines(self, pair: Pair, width: int) -> list[Text]:
        """The tokens of a pair; while they are computed in the background, a line that says so."""
        tokens = self._tokens.get(text_digest(pair))
        if tokens is None:
            self._encode(pair)
            return [Text("loading the policy's tokenizer ...")]
        if isinstance(tokens, SpotError):
            return [Text(message(tokens), style="yellow")]
        folded, marked = self.view.options.folded, self.view.options.marked
        return token_parts(tokens, self.surprises.row(pair), marked=marked, width=width, folded=folded)

    @work(thread=True, exclusive=True, group="tokens")
    def _encode(self, pair: Pair) -> None:
        worker = get_current_worker()
        with self._encoding:  # a tokenizer serves one thread at a time
            if worker.is_cancelled:
                return
            tokens = self._tokens_of(pair)
        self.call_from_thread(self._encoded, text_digest(pair), tokens)

    def _tokens_of(self, pair: Pair) -> PairTokens | str | SpotError:
        """The tokens of a pair, or why there are none; loads the tokenizer first."""
        try:
            self._encoder = self._encoder or PairEncoder.load(self.opened.recipe, self.opened.path)
        except (SpotError, OSError) as error:
            self._encoder = error if isinstance(error, SpotError) else SpotError(str(error))
        if isinstance(self._encoder, SpotError):
            return self._encoder
        try:
            return self._encoder.tokens(pair)
        except SpotError as error:
            return error

    def _encoded(self, digest: str, tokens: PairTokens | str | SpotError) -> None:
        while len(self._tokens) >= CACHED:
            self._tokens.pop(next(iter(self._tokens)))
        self._tokens[digest] = tokens
        self.view.lay_out()

    # T: the surprise

    def action_surprise(self) -> None:
        if self._computing is not None and self._computing.is_running:
            self._computing.cancel()
            self._tell("stopping ...")
        elif not self.entries.has_pairs:
            self._tell("only pairs have a surprise; this file has none")
        else:
            self._computing = self._compute(tuple(self.list.rows))

    @work(thread=True, group="surprise")
    def _compute(self, rows: Sequence[int]) -> None:
        """Compute the surprise of rows, and append it to the file."""
        worker = get_current_worker()
        self.call_from_thread(self._tell, "surprise: loading the policy ...")

        def pairs() -> Iterator[Pair]:
            return (pair for row in rows if (pair := self.entries.shown(row)) is not None)

        try:
            computation = Computation(self.opened.recipe, self.opened.path, self.surprises)
            total = sum(1 for _ in computation.missing(pairs()))
            progress = _Progress(total)

            def advance(count: int) -> None:
                if not worker.is_cancelled:
                    self.call_from_thread(self._tell, progress.advanced(count))

            computation.run(computation.missing(pairs()), advance, lambda: worker.is_cancelled)
        except (SpotError, OSError) as error:
            text = message(error)
        else:
            left_out = "; ".join(f"{count:,} left out: {reason}" for reason, count in computation.left_out.items())
            text = f"surprise of {counted(len(self.surprises), 'pair')} known; S sorts by it  {left_out}"
        if self.is_running:
            self.call_from_thread(self._computed, one_line(text))

    def _computed(self, text: str) -> None:
        self.view.lay_out()
        self._tell(text)

    # S: the order

    def action_order(self) -> None:
        orders = [order for order in ORDERS if order != "similarity" or self.surprises.similarities]
        self.order = orders[(orders.index(self.order) + 1) % len(orders)]
        self._write_bars()
        self._sort(tuple(self.list.rows))

    @work(thread=True, exclusive=True, group="rows")
    def _sort(self, rows: Sequence[int]) -> None:
        """List rows in the order that is chosen."""
        worker = get_current_worker()
        if self.order == "surprise":
            self.surprises.read_once()
        key = sort_key(self.order, self.surprises)
        values = []
        for number, row in enumerate(sorted(rows)):
            if worker.is_cancelled:
                return
            pair = self.entries.shown(row) if self.order != "file" else None
            values.append((row, None if pair is None else key(pair)))
            if number % REPORT == REPORT - 1:
                self.call_from_thread(self._progress, "sorting", number, len(rows))
        missing = self.order == "surprise" and all(value is None for _, value in values)
        self.call_from_thread(self._sorted, sorted_rows(values), missing=missing)

    def _sorted(self, rows: Sequence[int], *, missing: bool) -> None:
        self.list.show(rows)
        self.list.move_to(0)
        self._write_bars()
        if missing:
            self._tell("no surprise is known: press T to compute it")

    def _selected(self, where: str, rows: Sequence[int]) -> None:
        super()._selected(where, rows)
        self._keep_order()

    def _set_filter(self, where: str | None) -> None:
        super()._set_filter(where)
        if where is not None and not where.strip():
            self._keep_order()

    def _keep_order(self) -> None:
        if self.order != "file":
            self._sort(tuple(self.list.rows))


class _Progress:
    """Count, rate and remaining time of a computation."""

    def __init__(self, total: int) -> None:
        self.total, self.done = total, 0
        self._start = time.monotonic()

    def advanced(self, count: int) -> str:
        """Count more, and return the line that shows it."""
        self.done += count
        rate = self.done / max(time.monotonic() - self._start, 1e-9)
        remaining = timedelta(seconds=round((self.total - self.done) / rate))
        return f"surprise: {self.done:,} of {self.total:,} pairs, {rate:.1f}/s, {remaining} remaining (T stops)"
