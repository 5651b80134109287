"""The loop of a run: answers are received, written to the journal, graded, and written to the output.

An engine that works in the background (vllm, api) is read on a thread of its own, so that answers are on disk when
they arrive, also while the grading of earlier ones takes long.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Container, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import islice
from types import FrameType
from typing import Any, Generic, TypeVar

from spotcli.answering.answered import Answered, Work
from spotcli.answering.journal import AnswerJournal, KeptAnswer
from spotcli.console import progress, say
from spotcli.interrupts import interruptible
from spotcli.outputs import Output
from spotcli.policies import Failure, Policy, Request
from spotcli.policies.answer_queue import AnswerQueue
from spotcli.records import Problem, Sample, Score
from spotcli.work_time import work_time

R = TypeVar("R", bound=Sample | Score)
Item = KeptAnswer | Failure

SECONDS_AFTER_STOP = 1.0
"""For all grading after a stop; most answers take a few milliseconds."""
AT_ONCE = 256
"""Answers that are graded together at most, and written at once."""
AT_ONCE_RESUMED = 16
"""The same for answers of the last run, whose grading may be slow."""


class Answering(Generic[R]):
    """The answers of one output: those in the file, those that only have to be graded, and new ones.

    Args:
        output: the file of graded answers.
        journal: its journal.
        answered: the answers in the output.
        grade: grades answers, as rows of the output.
    """

    def __init__(
        self,
        output: Output,
        journal: AnswerJournal,
        answered: Answered,
        grade: Callable[[Sequence[KeptAnswer]], list[R]],
    ) -> None:
        self._output = output
        self._journal = journal
        self._answered = answered
        self._grade = grade

    def grade_kept(self, groups: Container[str] | None = None) -> None:
        """Grade the answers of earlier runs that have no row yet.

        Args:
            groups: only answers to requests of these groups; by default all.

        Raises:
            DataError: a line of the journal is not an answer.
        """

        def skipped(request: Request) -> bool:
            return self._answered.has(request) or (groups is not None and request.group not in groups)

        kept = self._journal.read(skipped)
        rows: list[R] = []
        while group := list(islice(kept, AT_ONCE_RESUMED)):
            if not rows:
                say(f"{self._journal.path}: grading answers of the last run")
            graded = self._grade(group)
            self._output.append(graded)
            self._journal.graded(group)
            rows += graded
        self._answered.add_rows(rows)

    def answer(
        self,
        policy: Policy,
        requests: Iterable[tuple[Problem, Request]],
        work: Work,
        *,
        label: str,
    ) -> None:
        """Have a policy answer what is missing, until it is done or stopped.

        Args:
            policy: who answers.
            requests: all requests, answered ones too.
            work: counts what is done.
            label: names the work in the progress line.

        Raises:
            UserError: no request can succeed.
            Unfinished: many requests in a row failed.
        """
        problems: dict[tuple[Any, ...], Problem] = {}
        grading = _StoppableGrading(self._grade)

        def asked() -> Iterator[Request]:
            for problem, request in requests:
                problems[request.key] = problem
                yield request

        def done(request: Request) -> bool:
            if self._answered.has(request):
                problems.pop(request.key, None)
                return True
            return False

        def received() -> Generator[list[Item]]:
            waiting_since = work_time()
            for group in policy.answers(asked(), work.wanted, done):
                seconds = (work_time() - waiting_since) / max(len(group), 1)
                items = [(problems.pop(item.request.key), item) for item in group]
                kept = [
                    item if isinstance(item, Failure) else KeptAnswer(problem, item, seconds) for problem, item in items
                ]
                self._journal.add([item for item in kept if isinstance(item, KeptAnswer)])
                yield kept
                waiting_since = work_time()

        def stop() -> None:
            policy.stop()
            grading.stop()

        def notice() -> str:
            # Only an endpoint finishes them: they may be paid for.
            in_flight = "waiting for the answers in flight" if policy.engine == "api" else "finished answers are saved"
            return f"stopping: {in_flight} (Ctrl-C again drops what is in flight)"

        source = _read_ahead(received(), policy) if policy.background else received()
        with progress("answers") as display, interruptible(stop, notice=notice), closing(source) as groups:
            bar = display.add_task(label, total=work.wanted, note="")
            for group in groups:
                for items in (group[start : start + AT_ONCE] for start in range(0, len(group), AT_ONCE)):
                    self._write(grading, items, work)
                    if self._output.disturbed:
                        policy.stop()  # the command fails in the end, so it asks nothing more
                    display.update(bar, advance=len(items), note=work.note(self._answered.verdicts))

    def _write(self, grading: _StoppableGrading[R], items: Sequence[Item], work: Work) -> None:
        """Grade answers and append their rows; after a stop, the answers may stay in the journal alone."""
        kept = [item for item in items if isinstance(item, KeptAnswer)]
        rows = grading.rows(kept) if kept else []
        work.add([item if isinstance(item, Failure) else item.answer for item in items], graded=rows is not None)
        if rows:
            self._output.append(rows)
            self._journal.graded(kept)
            self._answered.count_new(rows)


def _read_ahead(groups: Iterator[list[Item]], policy: Policy) -> Generator[list[Item]]:
    """Read groups on another thread, and yield what has arrived; if the reader fails, the policy is closed."""
    arrived: AnswerQueue[Item] = AnswerQueue()
    ending = threading.Event()

    def read() -> None:
        try:
            for group in groups:
                for item in group:
                    arrived.put(item)
                while arrived.full and not ending.is_set():
                    time.sleep(0.05)
        except BaseException as error:
            arrived.end(error)
        else:
            arrived.end()

    thread = threading.Thread(target=read, name="answers", daemon=True)
    thread.start()
    try:
        yield from arrived.groups()
    except BaseException:
        ending.set()
        policy.close()
        raise
    finally:
        thread.join()


class _TimeUp(BaseException):
    """The time for grading after a stop is used up."""


class _StoppableGrading(Generic[R]):
    """Grades groups of answers; after ``stop`` only for ``SECONDS_AFTER_STOP``."""

    def __init__(self, grade: Callable[[Sequence[KeptAnswer]], list[R]]) -> None:
        self._grade = grade
        self._seconds: float | None = None
        """Left for grading after a stop; None before it."""
        self._grading = False

    def stop(self) -> None:
        """Called in the handler of a signal, by the main thread."""
        self._seconds = SECONDS_AFTER_STOP
        if self._grading:
            signal.setitimer(signal.ITIMER_REAL, self._seconds)

    def rows(self, answers: Sequence[KeptAnswer]) -> list[R] | None:
        """The graded rows of the answers; None if the time after a stop did not suffice."""
        try:
            if self._seconds is None or self._seconds > 0:
                with self._clock():
                    return self._grade(answers)
        except _TimeUp:
            self._seconds = 0.0
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
