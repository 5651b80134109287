"""Worked examples that many prompts of a file begin with: they are shown as one line."""

from __future__ import annotations

from dataclasses import dataclass

from spotcli.records import Problem

LEAST_LINES = 4
"""Common lines from which they are shown as one."""

LEAST_PROMPTS = 3
"""Different prompts that begin with them."""

MOST_LINES = 500
"""Lines of a prompt that are compared."""

MOST_CHARACTERS = 50_000
"""Longer prompts are shown as they are: common beginnings are kept in memory."""

MOST_GROUPS = 256
"""Groups of prompts with the same first lines that are kept in memory."""


@dataclass
class _Group:
    """Prompts with the same first ``LEAST_LINES`` lines."""

    lines: list[str]
    """What all of them begin with."""
    last: int
    """Hash of the prompt that was added last."""
    prompts: int = 1
    """Different prompts, without those that equal the one before: trials of a problem follow each other."""
    rows: int = 1


@dataclass(frozen=True)
class SharedLines:
    """The first lines of a prompt that other prompts have too."""

    count: int
    rows: int
    """Rows of the file with these lines."""
    all_rows: bool
    """Whether each row of the file has them."""

    def __str__(self) -> str:
        rows = "all rows" if self.all_rows else f"{self.rows:,} rows"
        return f"⋯ {self.count:,} lines that the prompts of {rows} begin with"


class SharedPrompts:
    """Finds the common beginnings of the prompts of a file, by the last turn of each."""

    def __init__(self) -> None:
        self._groups: dict[str, _Group] = {}
        self._rows = 0

    def add(self, row: Problem) -> None:
        """Read one more row."""
        self._rows += 1
        text = row.messages[-1]["content"]
        key = _first_lines(text)
        if key is None:
            return
        group = self._groups.get(key)
        if group is None:
            self._make_room()
            if len(self._groups) < MOST_GROUPS:
                self._groups[key] = _Group(_lines(text), hash(text))
            return
        group.rows += 1
        if hash(text) == group.last:
            return
        group.prompts += 1
        group.last = hash(text)
        lines = _lines(text)
        pairs = zip(group.lines, lines, strict=False)
        different = next((place for place, (left, right) in enumerate(pairs) if left != right), None)
        group.lines = group.lines[: len(lines) if different is None else different]

    def _make_room(self) -> None:
        """Forget prompts that had nothing in common with another one so far."""
        if len(self._groups) >= MOST_GROUPS:
            self._groups = {key: group for key, group in self._groups.items() if group.prompts > 1}

    def of(self, row: Problem) -> SharedLines | None:
        """The lines that the prompt shares with others, if it goes on after them."""
        text = row.messages[-1]["content"]
        group = self._groups.get(_first_lines(text) or "")
        if group is None or group.prompts < LEAST_PROMPTS:
            return None
        count = len(group.lines)
        lines = _lines(text)
        if lines[:count] != group.lines or not any(line.strip() for line in lines[count:]):
            return None
        return SharedLines(count, group.rows, group.rows == self._rows)


def _lines(text: str) -> list[str]:
    return text.split("\n", MOST_LINES)[:MOST_LINES]


def _first_lines(text: str) -> str | None:
    """The first lines, by which prompts are grouped; None for a prompt that is not longer, or far too long."""
    if len(text) > MOST_CHARACTERS:
        return None
    lines = text.split("\n", LEAST_LINES)
    return "\n".join(lines[:LEAST_LINES]) if len(lines) > LEAST_LINES else None
