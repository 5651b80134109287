"""Answers on their way from the thread that gets them to the one that grades and writes them."""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")

# Finished answers that wait to be written; when writing is slower than answering, no more are asked for.
WAITING = 1024


class Outbox(Generic[T]):
    """Filled by an event loop on another thread; read here in groups of what has just come."""

    def __init__(self) -> None:
        self._queue: queue.Queue[T | BaseException | None] = queue.Queue()

    def put(self, item: T) -> None:
        self._queue.put(item)

    def end(self, error: BaseException | None = None) -> None:
        """Nothing more comes, because all is done or because of ``error``; only the first call counts."""
        self._queue.put(error)

    @property
    def full(self) -> bool:
        """The reader lags behind."""
        return self._queue.qsize() > WAITING

    def groups(self) -> Iterator[list[T]]:
        """What came, until the end; what came before an error is handed out before it is raised."""
        while True:
            items: list[T] = []
            with contextlib.suppress(queue.Empty):
                item = self._queue.get()
                while item is not None and not isinstance(item, BaseException):
                    items.append(item)
                    item = self._queue.get_nowait()
                if items:
                    yield items
                if item is not None:
                    raise item
                return
            yield items
