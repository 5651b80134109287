"""The journal of an oracle's replies: whole, raw, and on the disk before anybody reads them.

``X.replies.jsonl`` holds one JSON object a line; ``kind`` says what it is:

    reply   what the oracle said, under the key of the request: never asked again
    sent    money was reserved for a request; written only under a limit. Until a reply or a ``free`` with its key
            follows, the reserved sum counts as spent: whether the provider charged for it cannot be known
    free    the request failed in a way that costs nothing
    undo    a person takes back the reply with this key
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from spotcli import jsonl

Entry = dict[str, Any]


class Journal(jsonl.Appender):
    """An append that many requests share: one write and one fsync for all that wait.

    ``entries`` are those found when it was opened. ``spent``: US dollars of all replies whose price is known;
    ``unsettled``: reserved for requests whose end, or whose price, is not known. With ``price`` the replies that are
    there cost what it says; the file keeps what was noted.
    """

    def __init__(self, path: Path, price: Callable[[Entry], float | None] | None = None) -> None:
        super().__init__(path)
        self.entries: list[Entry] = []
        self.spent = 0.0
        self._open: dict[str, float] = {}
        self._queue: list[tuple[Entry, asyncio.Future[None]]] = []
        self._writer: asyncio.Task[None] | None = None
        self._broken: OSError | None = None
        try:
            for entry in self.rows():
                if price and entry.get("kind") == "reply":
                    entry["cost"] = price(entry)
                self.entries.append(entry)
                self._note(entry)
        except BaseException:
            self.close()
            raise

    @property
    def unsettled(self) -> float:
        return sum(self._open.values())

    def _note(self, entry: Entry) -> None:
        key = entry.get("key", "")
        if entry.get("kind") == "sent":
            self._open[key] = self._open.get(key, 0.0) + (entry.get("reserved") or 0.0)
            return
        if entry.get("kind") == "reply":
            self.spent += entry.get("cost") or 0.0
        if key in self._open and (entry.get("kind") != "reply" or entry.get("cost") is not None):
            # A request may have been sent before by a process that was killed: that reservation stays open.
            left = self._open[key] - (entry.get("reserved") or 0.0)
            if left > 1e-12:
                self._open[key] = left
            else:
                del self._open[key]

    async def record(self, entry: Entry) -> None:
        """Append an entry; returns when the disk has the entry.

        Raises:
            OSError: it could not be written; nothing more is accepted then.
        """
        if self._broken:
            raise self._broken
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append((entry, done))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())
        # A cancelled request must not take back a reply that was paid for.
        await asyncio.shield(done)

    async def drain(self) -> None:
        """Wait until nothing is left to write."""
        while self._writer and not self._writer.done():
            await self._writer

    async def _write(self) -> None:
        while self._queue:
            batch, self._queue = self._queue, []
            try:
                await asyncio.to_thread(self.append, [entry for entry, _ in batch])
            except OSError as error:
                # Half a line may be on the disk: another one behind it would be lost with it.
                self._broken = error
                for _, done in batch + self._queue:
                    if not done.done():
                        done.set_exception(error)
                self._queue = []
                return
            for entry, done in batch:
                self._note(entry)
                if not done.done():
                    done.set_result(None)
