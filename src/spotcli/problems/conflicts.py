"""Prompts that occur in a problem set with different reference answers: at most one of them is right.

The first reading notes the repeated prompts whose reference answers are other texts. Only if there are any, a second
reading compares them with the first rows: two notations of a value are no conflict. The memory depends on the number of
such rows, not on the size of the set.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from spotcli.grading.references import COMPARED, are_equal
from spotcli.records import Problem, plain_prompt, prompt_digest

MOST_REFERENCES = 16
"""Other reference answers that are noted per prompt; a prompt with more of them has conflicting ones."""


@dataclass(frozen=True)
class Repeat:
    """A row that repeats the prompt of an earlier row with another text as its reference answer."""

    where: str
    reference: str
    grader: str | None


@dataclass(frozen=True)
class Conflict:
    """Two reference answers of one prompt that are not equal."""

    where: str
    """The place of the second one."""
    first: str
    second: str


class Repeats:
    """The repeated rows of a problem set with other reference answers, by prompt."""

    def __init__(self) -> None:
        self._rows: dict[int, list[Repeat]] = {}
        self.skipped = 0
        """All rows that repeat a prompt, whatever their reference answer."""

    def add(self, prompt: int, repeat: Repeat | None) -> None:
        """Note a row that repeats a prompt.

        Args:
            prompt: ``prompt_key`` of its prompt.
            repeat: the row; None if its reference answer is missing or was noted before.
        """
        self.skipped += 1
        if repeat is None:
            return
        rows = self._rows.setdefault(prompt, [])
        if len(rows) <= MOST_REFERENCES:
            rows.append(repeat)

    def __bool__(self) -> bool:
        return bool(self._rows)

    def conflicts(self, problems: Iterable[Problem], grader: str) -> dict[int, Conflict]:
        """The prompts with different reference answers, by ``prompt_key``.

        Args:
            problems: the first row of each prompt.
            grader: of problems that name none.
        """
        found = {}
        for problem in problems:
            key = prompt_key(problem)
            if (rows := self._rows.get(key)) and (conflict := _conflict(problem, rows, grader)):
                found[key] = conflict
        return found


def prompt_key(problem: Problem) -> int:
    """A 64-bit hash of a prompt, the same for a string and a chat of one user message."""
    return int(prompt_digest(plain_prompt(problem.prompt)), 16)


def _conflict(problem: Problem, rows: list[Repeat], grader: str) -> Conflict | None:
    first, kind = problem.reference, problem.grader or grader
    if first is None or kind not in COMPARED:
        return None
    compared = [row for row in rows if (row.grader or grader) == kind]
    for number, row in enumerate(compared):
        if number == MOST_REFERENCES or not are_equal(row.reference, first, kind):
            return Conflict(row.where, first.strip(), row.reference.strip())
    return None
