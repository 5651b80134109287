"""The journal of an oracle's replies: complete, not parsed, and on the disk before anything else uses them.

``reply_entries`` describes the lines of the file.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from spotcli import jsonl
from spotcli.appender import Appender
from spotcli.recipe import RectifySection
from spotcli.repair.batch_log import BatchLog
from spotcli.reply_entries import ContinuationEntry, Entry, MoneyEntry, ReplyEntry, read_entry


class Journal(Appender):
    """An append-only file that many requests share: all entries that wait get one write and one fsync.

    ``entries`` are those that the file held when it was opened.

    Args:
        price: the cost of a reply at today's prices; the file keeps the recorded cost.
        batches: the file of the batches that requests were in; None: there are none.
    """

    def __init__(
        self,
        path: Path,
        price: Callable[[ReplyEntry], float | None] | None = None,
        batches: Path | None = None,
    ) -> None:
        super().__init__(path, private=True)
        self.entries: list[Entry] = []
        self.spent = 0.0
        """US dollars of all replies whose price is known."""
        self._reserved: dict[str, float] = {}
        self._queue: list[tuple[Entry, asyncio.Future[None]]] = []
        self._writer: asyncio.Task[None] | None = None
        self._error: Exception | None = None
        try:
            self.batches = None if batches is None else BatchLog(batches)
            seen: set[tuple[str, str, float, str | None]] = set()
            for where, _, row in jsonl.placed(path):
                entry = read_entry(row, where)
                if entry is None:
                    continue
                if isinstance(entry, ReplyEntry) and entry.at:
                    # A line that was copied by mistake is one reply, paid for once.
                    same = (entry.key, entry.at, entry.seconds, entry.batch)
                    if same in seen:
                        continue
                    seen.add(same)
                if price and isinstance(entry, ReplyEntry):
                    entry = replace(entry, cost=price(entry))
                self.entries.append(entry)
                self._count(entry)
        except BaseException:
            self.close()
            raise

    @property
    def unsettled(self) -> float:
        """US dollars reserved for requests whose end, or whose price, is unknown."""
        in_batches = self.batches.unsettled if self.batches else 0.0
        return sum(self._reserved.values()) + in_batches

    @property
    def in_batches(self) -> frozenset[str]:
        """Keys of requests that are in an open batch."""
        return self.batches.requested if self.batches else frozenset()

    def check_batches(self, settings: RectifySection) -> None:
        """Check that ordinary requests ask about nothing that a batch asks about.

        Raises:
            UserError: a batch is open, and ``batch`` is not set.
        """
        if self.batches is not None and not settings.batch:
            self.batches.check_collected()

    def close(self) -> None:
        super().close()
        if (batches := getattr(self, "batches", None)) is not None:
            batches.close()

    def _count(self, entry: Entry) -> None:
        if isinstance(entry, MoneyEntry) and entry.kind == "sent":
            self._reserved[entry.key] = self._reserved.get(entry.key, 0.0) + entry.reserved
        elif isinstance(entry, ContinuationEntry):
            self.spent += entry.cost
        elif isinstance(entry, MoneyEntry):
            self._settle(entry.key, entry.reserved)
        elif isinstance(entry, ReplyEntry):
            self.spent += entry.cost or 0.0
            if entry.batch is not None and self.batches:
                self.batches.replied(entry)
            elif entry.cost is not None:
                self._settle(entry.key, entry.reserved)

    def _settle(self, key: str, reserved: float) -> None:
        """Release one reservation; a process that was killed may have left another one for the same request."""
        if key in self._reserved:
            remaining = self._reserved[key] - reserved
            if remaining > 1e-12:
                self._reserved[key] = remaining
            else:
                del self._reserved[key]

    async def record(self, entry: Entry) -> None:
        """Append an entry; return when it is on the disk.

        Raises:
            OSError: it could not be written; every later entry is refused too.
        """
        if self._error:
            raise self._error
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append((entry, written))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())
        # A cancelled request must not cancel the writing of a reply that was paid for.
        await asyncio.shield(written)

    async def drain(self) -> None:
        """Wait until everything is written."""
        while self._writer and not self._writer.done():
            await self._writer

    async def _write(self) -> None:
        while self._queue:
            batch, self._queue = self._queue, []
            try:
                await asyncio.to_thread(self.append, [entry.as_row() for entry, _ in batch])
            except Exception as error:  # the requests that wait would wait forever
                # The file may end with half a line, and the next line would be lost with it.
                self._error = error
                for _, written in batch + self._queue:
                    if not written.done():
                        written.set_exception(error)
                self._queue = []
                return
            for entry, written in batch:
                self._count(entry)
                if not written.done():
                    written.set_result(None)
