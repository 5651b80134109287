"""Grading that a stop cuts short: the answers are kept in ``X.ungraded.jsonl`` and graded when the run resumes.

A verdict must not depend on a stop, so an answer whose grading did not end has no row in ``X.jsonl``.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from types import FrameType
from typing import Any

from spotcli import jsonl
from spotcli.appender import Appender
from spotcli.console import say
from spotcli.errors import DataError
from spotcli.outputs import UNGRADED, Output
from spotcli.policies import Answer, Request
from spotcli.records import Problem, Sample
from spotcli.sampling.graded_rows import RowSettings, graded_rows

SECONDS_AFTER_STOP = 1.0
"""For all grading after a stop; most answers take a few milliseconds."""
AT_ONCE = 16
"""Answers that are graded together when a run resumes, and written at once."""
_ANSWER_KEYS = [field.name for field in fields(Answer) if field.name != "request"]


class _TimeUp(BaseException):
    """The time for grading after a stop is used up."""


class UngradedAnswers:
    """The file ``X.ungraded.jsonl`` of the samples ``X.jsonl``."""

    def __init__(self, samples: Path) -> None:
        self.path = samples.with_suffix(UNGRADED)

    def add(self, problems: Sequence[Problem], answers: Sequence[Answer]) -> None:
        """Append answers to the problems at the same index."""
        with Appender(self.path) as file:
            file.append(_row(problem, answer) for problem, answer in zip(problems, answers, strict=True))

    def grade(self, settings: RowSettings, output: Output, done: Callable[[Request], bool]) -> list[Sample]:
        """Grade the answers that are not ``done`` and append them to the output; remove the file in the end.

        Raises:
            DataError: a line is no ungraded answer.
        """
        if not self.path.exists():
            return []
        rows: list[Sample] = []
        with Appender(self.path) as file:
            by_key = {answer.request.key: (problem, answer) for problem, answer in self._read(file.location)}
            kept = [(problem, answer) for problem, answer in by_key.values() if not done(answer.request)]
            say(f"{self.path}: grading {len(kept)} answers that arrived when the last run was stopped")
            for start in range(0, len(kept), AT_ONCE):
                problems, answers = zip(*kept[start : start + AT_ONCE], strict=True)
                group = graded_rows(problems, answers, settings)
                output.append(group)
                rows += group
        self.path.unlink(missing_ok=True)
        return rows

    def _read(self, path: Path) -> Iterator[tuple[Problem, Answer]]:
        for where, _, row in jsonl.placed(path):
            try:
                problem = Problem.model_validate(row["problem"])
                request = Request((problem.id, row["trial"]), problem.messages, row["seed"], row["trial"])
                answer = Answer(request, **{name: row[name] for name in _ANSWER_KEYS})
            except (KeyError, TypeError, ValueError):
                cure = "remove that line: its answer is requested again then"
                raise DataError("invalid ungraded answer", where=where, cure=cure) from None
            yield problem, answer


def _row(problem: Problem, answer: Answer) -> dict[str, Any]:
    return {
        "problem": problem.model_dump(mode="json", exclude_unset=True),
        "trial": answer.request.trial,
        "seed": answer.request.seed,
        **{name: getattr(answer, name) for name in _ANSWER_KEYS},
    }


class StoppableGrading:
    """Grades groups of answers; after ``stop`` only for ``SECONDS_AFTER_STOP``, and keeps the rest ungraded."""

    def __init__(self, settings: RowSettings, ungraded: UngradedAnswers) -> None:
        self._settings = settings
        self._ungraded = ungraded
        self._seconds: float | None = None
        """Left for grading after a stop; None before it."""
        self._grading = False

    def stop(self) -> None:
        """Called in the handler of a signal, by the main thread."""
        self._seconds = SECONDS_AFTER_STOP
        if self._grading:
            signal.setitimer(signal.ITIMER_REAL, self._seconds)

    def rows(self, problems: Sequence[Problem], answers: Sequence[Answer]) -> list[Sample] | None:
        """The graded rows of answers to the problems at the same index; None if the answers are kept ungraded."""
        try:
            if self._seconds is None or self._seconds > 0:
                with self._clock():
                    return graded_rows(problems, answers, self._settings)
        except _TimeUp:
            self._seconds = 0.0
        except KeyboardInterrupt:  # a second signal
            self._ungraded.add(problems, answers)
            raise
        self._ungraded.add(problems, answers)
        return None

    @contextmanager
    def _clock(self) -> Iterator[None]:
        """Raise ``_TimeUp`` inside the context if the time after a stop is used up."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def end(number: int, frame: FrameType | None) -> None:
            if self._grading:
                self._grading = False
                raise _TimeUp

        former = signal.signal(signal.SIGALRM, end)
        started = time.monotonic()
        self._grading = True
        try:
            if self._seconds is not None:
                signal.setitimer(signal.ITIMER_REAL, self._seconds)
            yield
        finally:
            self._grading = False
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, former)
            if self._seconds is not None:
                self._seconds = max(0.0, self._seconds - (time.monotonic() - started))
