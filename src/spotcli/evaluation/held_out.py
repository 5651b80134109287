"""Whether an evaluation holds a problem, told by its words, whatever the typesetting and the wrapper around it.

Problems are compared by runs of 13 words, the field's usual measure. One shared run is not enough: "where m and n are
relatively prime positive integers. Find m + n" makes no two problems the same. So a quarter of the evaluation problem's
runs must be shared, and runs that stand in three or more evaluation problems say nothing: they are an instruction, a
turn of phrase, or the rules of a game. A problem that has few runs of its own is the same only as a whole: equal to the
other's text, or to a paragraph of it.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from spotcli.evaluation import tasks
from spotcli.problems.sources import iter_problems
from spotcli.records import Problem

WORDS = 13
WORDING = 3
SHARE = 0.25

_WORD = re.compile(r"[^\W_]+")
# What typesetting adds: dollars, backslashes, braces, and commands that only change how it looks.
_LAYOUT = re.compile(
    r"\\(?:left|right|displaystyle|textstyle|text|mathrm|mathbf|mathit|operatorname)(?![a-z])|\\[,;:! ()\[\]]|[\s$\\{}]"
)
_PARAGRAPH = re.compile(r"\n\s*\n")


class Evaluations:
    """The problems of tasks and sets, as hashes.

    Args:
        names: of tasks, or of problem sets as ``iter_problems`` takes them.
        seed: of what is generated.

    Raises:
        UserError: there is no such set.
        DataError: a row of it that is no problem.
    """

    def __init__(self, names: Iterable[str], *, folder: Path, seed: int) -> None:
        self._wholes: dict[str, str] = {}
        self._own: list[tuple[str, int]] = []
        """For each problem that has enough of them: the set that holds it, and how many runs are its own."""
        self._holders: dict[int, list[int]] = {}
        """A run -> the places in ``_own`` of the problems that it belongs to."""
        found: list[tuple[str, set[int]]] = []
        for name in names:
            for problem in _problems(name, folder, seed):
                text = _question(problem)
                # The same problem in two sets is not yet wording.
                if self._wholes.setdefault(_plain(text), name) == name:
                    found.append((name, _runs(text)))
        counts = Counter(run for _, runs in found for run in runs)
        for name, runs in found:
            own = [run for run in runs if counts[run] < WORDING]
            if len(own) >= max(1, SHARE * len(runs)):
                for run in own:
                    self._holders.setdefault(run, []).append(len(self._own))
                self._own.append((name, len(own)))

    def holder(self, problem: Problem) -> str | None:
        """The first task or set that holds the problem."""
        text = _question(problem)
        for part in (text, *_PARAGRAPH.split(text)):
            if name := self._wholes.get(_plain(part)):
                return name
        shared = Counter(at for run in _runs(text) for at in self._holders.get(run, ()))
        return next((self._own[at][0] for at in sorted(shared) if shared[at] >= SHARE * self._own[at][1]), None)


def _problems(name: str, folder: Path, seed: int) -> Iterable[Problem]:
    if name in tasks.NAMES:
        return tasks.find(name).problems(seed)
    return iter_problems(name, folder=folder, seed=seed, limit=None, quiet=True)


def _question(problem: Problem) -> str:
    """What is asked last: worked examples and a system prompt are the same for many problems."""
    asked = [message["content"] for message in problem.messages if message["role"] == "user"]
    return unicodedata.normalize("NFKC", asked[-1] if asked else "").casefold()


def _plain(text: str) -> str:
    return _LAYOUT.sub("", text).rstrip(".?!:")


def _runs(text: str) -> set[int]:
    """Hashes of every 13 words in a row."""
    words = _WORD.findall(text)
    return {hash(tuple(words[at : at + WORDS])) for at in range(len(words) - WORDS + 1)}
