"""Find problems that also occur in an evaluation set, by their words, independent of typesetting and wrappers.

Problems are compared by runs of 13 words, the usual measure of the field. One shared run is not enough: two problems
may both end in "where m and n are relatively prime positive integers. Find m + n". So a quarter of the evaluation
problem's runs have to be shared, and runs that occur in three or more evaluation problems do not count: they are an
instruction, a common phrase, or the rules of a game. A problem with few runs of its own matches only as a whole: its
text equals the other text or one of its paragraphs.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from spotcli.evaluation import tasks
from spotcli.evaluation.tasks import TaskContext
from spotcli.problems.sources import iter_problems
from spotcli.records import Problem

WORDS = 13
"""Words of a run."""
WORDING = 3
"""A run that occurs in at least this many evaluation problems is common wording and does not count."""
SHARE = 0.25
"""Minimum share of an evaluation problem's runs that the same problem contains."""

_WORD = re.compile(r"[^\W_]+")
_LAYOUT = re.compile(
    r"\\(?:left|right|displaystyle|textstyle|text|mathrm|mathbf|mathit|operatorname)(?![a-z])|\\[,;:! ()\[\]]|[\s$\\{}]"
)
"""What typesetting adds: white space, dollars, backslashes, braces, and commands that only change the appearance."""
_PARAGRAPH = re.compile(r"\n\s*\n")


class Evaluations:
    """The problems of evaluation tasks and problem sets, as hashes.

    Args:
        names: tasks, or problem sets as ``iter_problems`` takes them.
        folder: for relative paths.
        seed: of generated problems.

    Raises:
        UserError: a set is not found.
        DataError: a set has an invalid row.
    """

    def __init__(self, names: Iterable[str], *, folder: Path, seed: int) -> None:
        self._wholes: dict[str, str] = {}
        self._own: list[tuple[str, int]] = []
        """Set and number of own runs of each problem that has enough of them."""
        self._holders: dict[int, list[int]] = {}
        """The indices in ``_own`` of the problems that a run belongs to."""
        problems: list[tuple[str, set[int]]] = []
        for name in names:
            for problem in _problems(name, folder, seed):
                text = _question(problem)
                # The same problem in two sets does not make its runs common wording.
                if self._wholes.setdefault(_plain(text), name) == name:
                    problems.append((name, _runs(text)))
        counts = Counter(run for _, runs in problems for run in runs)
        for name, runs in problems:
            own = [run for run in runs if counts[run] < WORDING]
            if len(own) >= max(1, SHARE * len(runs)):
                for run in own:
                    self._holders.setdefault(run, []).append(len(self._own))
                self._own.append((name, len(own)))

    def holder(self, problem: Problem) -> str | None:
        """The first task or set that contains the problem; None if no set does."""
        text = _question(problem)
        for part in (text, *_PARAGRAPH.split(text)):
            if name := self._wholes.get(_plain(part)):
                return name
        shared = Counter(index for run in _runs(text) for index in self._holders.get(run, ()))
        for index in sorted(shared):
            name, own = self._own[index]
            if shared[index] >= SHARE * own:
                return name
        return None


def _problems(name: str, folder: Path, seed: int) -> Iterable[Problem]:
    if tasks.is_task(name):
        return tasks.load_task(name, TaskContext(folder, seed)).load(TaskContext(folder, seed))
    return iter_problems(name, folder=folder, seed=seed, limit=None, quiet=True)


def _question(problem: Problem) -> str:
    """The last user turn: a system prompt and worked examples are the same for many problems."""
    turns = [message["content"] for message in problem.messages if message["role"] == "user"]
    return unicodedata.normalize("NFKC", turns[-1] if turns else "").casefold()


def _plain(text: str) -> str:
    return _LAYOUT.sub("", text).rstrip(".?!:")


def _runs(text: str) -> set[int]:
    """Hashes of every run of ``WORDS`` words."""
    words = _WORD.findall(text)
    return {hash(tuple(words[start : start + WORDS])) for start in range(len(words) - WORDS + 1)}
