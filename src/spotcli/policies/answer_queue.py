"""A queue of answers from the thread that receives them to the thread that grades and writes them."""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")

WAITING = 1024
"""Answers that may wait to be written. With more, the engine pauses until the writer catches up."""


class AnswerQueue(Generic[T]):
    """Filled by an event loop on another thread; read here in groups of what has just arrived."""

    def __init__(self) -> None:
        self._queue: queue.Queue[T | BaseException | None] = queue.Queue()

    def put(self, item: T) -> None:
        self._queue.put(item)

    def end(self, error: BaseException | None = None) -> None:
        """No more items follow, because of ``error`` or because all are done; only the first call counts."""
        self._queue.put(error)

    @property
    def full(self) -> bool:
        """Whether the reader is too far behind."""
        return self._queue.qsize() > WAITING

    def groups(self) -> Iterator[list[T]]:
        """Yield groups until the end; items that arrived before an error are yielded before it is raised."""
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
