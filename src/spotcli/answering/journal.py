"""Answers on disk before they are graded: whatever happens while they are graded, no answer is asked for again.

A verdict must not depend on a stop either, so an answer whose grading did not end has no row in the output: it is in
the journal, and the next run grades it.
"""

from __future__ import annotations

import contextlib
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from spotcli import jsonl
from spotcli.appender import Appender
from spotcli.errors import DataError, UserError
from spotcli.policies import Answer, Request
from spotcli.records import Problem

MOST_GRADED = 1 << 25
"""Bytes of graded answers that stay in a journal before they are removed from it."""
_FIELDS = [field.name for field in fields(Answer) if field.name != "request"]


@dataclass(frozen=True)
class KeptAnswer:
    """An answer and the problem that it answers."""

    problem: Problem
    answer: Answer
    seconds: float | None = None
    """Its part of the time in which the answers that arrived with it were made."""

    @property
    def key(self) -> tuple[Any, ...]:
        return self.answer.request.key


class AnswerJournal(AbstractContextManager["AnswerJournal"]):
    """The journal of an output, ``X.ungraded.jsonl`` or ``X.answers.jsonl``; created with the first answer.

    Any thread may add answers.

    Args:
        path: the file.
        keeps_graded: graded answers stay in the file, so that they can be graded again. Otherwise the file is removed
            once all of its answers are graded.
        keeps_tokens: write the generated token ids.
    """

    def __init__(self, path: Path, *, keeps_graded: bool, keeps_tokens: bool) -> None:
        self.path = path
        self.seconds: dict[str, float] = defaultdict(float)
        """Time of all answers in the journal by ``Request.group``, once ``read`` has ended."""
        self._keeps_graded = keeps_graded
        self._left_out = () if keeps_tokens else ("token_ids",)
        self._file: Appender | None = None
        self._ungraded: dict[tuple[Any, ...], KeptAnswer] = {}
        self._graded_bytes = 0
        self._lock = threading.Lock()

    def add(self, answers: Sequence[KeptAnswer]) -> None:
        """Write answers to disk."""
        if not answers:
            return
        with self._lock:
            self._opened().append(map(self._row, answers))
            for answer in answers:
                self._count_time(answer)
            if not self._keeps_graded:
                self._ungraded.update((answer.key, answer) for answer in answers)

    def graded(self, answers: Iterable[KeptAnswer]) -> None:
        """Note that answers are graded, and that their rows are on disk."""
        if self._keeps_graded:
            return
        with self._lock:
            for answer in answers:
                self._ungraded.pop(answer.key, None)
                self._graded_bytes += len(answer.answer.response)
            if self._graded_bytes > MOST_GRADED:
                self._remove_graded()

    def read(self, done: Callable[[Request], bool]) -> Iterator[KeptAnswer]:
        """Yield the answers of earlier runs that are not ``done``, each once.

        Raises:
            DataError: a line is not an answer.
        """
        if not self.path.exists():
            return
        keys = set()
        for where, _, row in jsonl.placed(self._opened().location):
            answer = _read(row, where)
            if answer.key in keys:
                continue
            keys.add(answer.key)
            self._count_time(answer)
            if done(answer.answer.request):
                continue
            if not self._keeps_graded:
                self._ungraded[answer.key] = answer
            yield answer

    def _count_time(self, kept: KeptAnswer) -> None:
        if kept.seconds is not None:
            self.seconds[kept.answer.request.group] += kept.seconds

    def _opened(self) -> Appender:
        if self._file is None:
            self._file = Appender(self.path)
        return self._file

    def _row(self, kept: KeptAnswer) -> dict[str, Any]:
        request = kept.answer.request
        return {
            "problem": kept.problem.model_dump(mode="json", exclude_unset=True),
            **({"task": request.group} if request.group else {}),
            "trial": request.trial,
            "seed": request.seed,
            **{name: None if name in self._left_out else getattr(kept.answer, name) for name in _FIELDS},
            **({} if kept.seconds is None else {"seconds": round(kept.seconds, 6)}),
        }

    def _remove_graded(self) -> None:
        assert self._file is not None
        self._file.replace(map(self._row, self._ungraded.values()))
        self._graded_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is None:
            return
        try:
            with contextlib.suppress(*((OSError, UserError) if kind else ())):
                if not self._keeps_graded and self._ungraded:
                    self._remove_graded()
                self._file.raise_if_disturbed()
        finally:
            self._file.close()
        if not self._keeps_graded and not self._ungraded:
            self.path.unlink(missing_ok=True)


def _read(row: dict[str, Any], where: str) -> KeptAnswer:
    try:
        problem, task = Problem.model_validate(row["problem"]), row.get("task", "")
        key = (task, problem.id, row["trial"]) if task else (problem.id, row["trial"])
        request = Request(key, problem.messages, row["seed"], row["trial"], problem.tools, group=task)
        answer = Answer(request, **{name: row[name] for name in _FIELDS})
        return KeptAnswer(problem, answer, row.get("seconds"))
    except (KeyError, TypeError, ValueError):
        cure = "remove that line: its answer is requested again then"
        raise DataError("invalid ungraded answer", where=where, cure=cure) from None
