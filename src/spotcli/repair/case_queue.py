"""The cases in the order in which they are worked on: no more at once than a target of pairs is likely to need."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from spotcli.repair.cases import Case, likely_needed


class CaseQueue:
    """Shared by the workers of one event loop.

    Args:
        target: stop after this many accepted cases; None: hand out all cases.
        stopped: whether the run is stopping: no case is handed out then.
    """

    def __init__(self, cases: list[Case], target: int | None, stopped: Callable[[], bool]) -> None:
        self._cases = cases
        self._target = target
        self._stopped = stopped
        self._pending = deque(cases)
        self._changed = asyncio.Condition()
        self._waiting: dict[tuple[str, int], asyncio.Task[Any] | None] = {}
        self._in_work = 0
        self.accepted = 0
        """Cases that became pairs."""
        self.finished = 0
        """Cases that are decided, or given up."""

    async def next(self) -> Case | None:
        """The next case; None if none is left or needed."""
        async with self._changed:
            while self._pending and not self._stopped():
                if self._target is not None:
                    if self.accepted >= self._target:
                        return None
                    if self._in_work >= likely_needed(self._target, self.accepted, self.finished):
                        await self._changed.wait()
                        continue
                self._in_work += 1
                return self._pending.popleft()
            return None

    async def finish(self, case: Case) -> None:
        """Count a case that ``next`` returned."""
        async with self._changed:
            self._in_work -= 1
            self.finished += 1
            self.accepted += case.accepted
            self._changed.notify_all()
        self._cancel_unneeded()

    @contextmanager
    def cancellable(self, case: Case) -> Iterator[None]:
        """Allow the current task to be cancelled: waiting costs nothing, but a request that was sent is paid for."""
        self._waiting[case.sample.key] = asyncio.current_task()
        try:
            yield
        finally:
            del self._waiting[case.sample.key]

    def _cancel_unneeded(self) -> None:
        """Cancel what waits after the last pair of the target, in the order of the samples.

        What waits before it continues: the speed of replies must not decide which pairs are kept.
        """
        if self._target is None or self.accepted < self._target:
            return
        accepted = 0
        for case in self._cases:
            if accepted >= self._target and (task := self._waiting.get(case.sample.key)):
                task.cancel()
            accepted += case.accepted
