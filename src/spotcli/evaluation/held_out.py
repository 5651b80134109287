"""Find problems that also occur in an evaluation set, by their words, independent of typesetting and wrappers.

Problems are compared by runs of 13 words, the usual measure of the field. One shared run is not enough: two problems
may both end in "where m and n are relatively prime positive integers. Find m + n". So a quarter of the evaluation
problem's runs have to be shared, and runs that occur in three or more evaluation problems do not count: they are an
instruction, a common phrase, or the rules of a game. A problem with few runs of its own matches only as a whole: its
text equals the other text or one of its paragraphs.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import ValidationError

from spotcli.evaluation import tasks
from spotcli.evaluation.tasks import LoadedTask, TaskContext
from spotcli.problems.set_rows import file_rows
from spotcli.problems.sources import iter_problems
from spotcli.recipe import Recipe
from spotcli.records import Pair, Problem

WORDS = 13
"""Words of a run."""
WORDING = 3
"""A run that occurs in at least this many evaluation problems is common wording and does not count."""
SHARE = 0.25
"""Minimum share of an evaluation problem's runs that the same problem contains."""
EXAMPLES = 5
"""Ids that an overlap lists."""

_WORD = re.compile(r"[^\W_]+")
_LAYOUT = re.compile(
    r"\\(?:left|right|displaystyle|textstyle|text|mathrm|mathbf|mathit|operatorname)(?![a-z])|\\[,;:! ()\[\]]|[\s$\\{}]"
)
"""What typesetting adds: white space, dollars, backslashes, braces, and commands that only change the appearance."""
_PARAGRAPH = re.compile(r"\n\s*\n")


@dataclass(frozen=True)
class Overlap:
    """What an evaluation task and a training file have in common."""

    problems: int
    """Problems of the task that occur in the training file."""
    rows: int
    """Rows of the training file that contain a problem of the task."""
    examples: list[str]
    """The ids of the first such problems of the task."""


class Evaluations:
    """The problems of evaluation tasks and problem sets, as hashes.

    Args:
        problems: by the name of their set; the order decides which set is named first.
    """

    def __init__(self, problems: Mapping[str, Iterable[Problem]]) -> None:
        self._holders: dict[str, list[tuple[str, str]]] = {}
        """Text without layout -> the problems with this text, each as set and id."""
        self._own: list[tuple[str, int]] = []
        """Text without layout and number of own runs of each text that has enough of them."""
        self._indices: dict[int, list[int]] = {}
        """The indices in ``_own`` of the texts that a run belongs to."""
        self.digests: dict[str, str] = {}
        """Set -> SHA-256 of the texts of its problems: a set with another digest finds other problems."""
        texts: list[tuple[str, set[int]]] = []
        for name, members in problems.items():
            questions = [(problem.id, _question(problem)) for problem in members]
            self.digests[name] = _digest(text for _, text in questions)
            for id, text in questions:
                holders = self._holders.setdefault(_plain(text), [])
                # The same problem in two sets does not make its runs common wording.
                if not holders:
                    texts.append((_plain(text), _runs(text)))
                holders.append((name, id))
        counts = Counter(run for _, runs in texts for run in runs)
        for plain, runs in texts:
            own = [run for run in runs if counts[run] < WORDING]
            if len(own) >= max(1, SHARE * len(runs)):
                for run in own:
                    self._indices.setdefault(run, []).append(len(self._own))
                self._own.append((plain, len(own)))

    @classmethod
    def of_sets(cls, names: Iterable[str], context: TaskContext) -> Evaluations:
        """The problems of tasks, or of problem sets as ``iter_problems`` takes them.

        Raises:
            UserError: a set is not found.
            DataError: a set has an invalid row.
        """
        return cls({name: _problems(name, context) for name in names})

    @classmethod
    def of_recipe(cls, names: Iterable[str], recipe: Recipe, folder: Path) -> Evaluations:
        """``of_sets`` with the recipe's settings of the tasks; relative paths are relative to ``folder``."""
        return cls.of_sets(names, replace(TaskContext.of(recipe, folder), limit=None))

    def holder(self, problem: Problem) -> str | None:
        """The first task or set that contains the problem; None if no set does."""
        return next((name for name, _ in self.holders(problem)), None)

    def holders(self, problem: Problem) -> Iterator[tuple[str, str]]:
        """Set and id of each evaluation problem that the problem contains; one can occur twice."""
        text = _question(problem)
        for part in (text, *_PARAGRAPH.split(text)):
            yield from self._holders.get(_plain(part), ())
        shared = Counter(index for run in _runs(text) for index in self._indices.get(run, ()))
        for index in sorted(shared):
            plain, own = self._own[index]
            if shared[index] >= SHARE * own:
                yield from self._holders[plain]


def overlaps(loaded: Mapping[str, LoadedTask], training_file: Path) -> dict[str, Overlap]:
    """How many problems of each task occur in a training file.

    Rows that are not trained on (rejected by a person, or without a prompt) are left out.

    Args:
        loaded: tasks by name.
        training_file: pairs, or any file with prompts.

    Raises:
        UserError: the file is not found or cannot be read.
    """
    evaluations = Evaluations({name: map(_without_instruction(task), task.problems) for name, task in loaded.items()})
    ids: dict[str, dict[str, None]] = {name: {} for name in loaded}
    rows: Counter[str] = Counter()
    for _, _, row in file_rows(training_file):
        fields = {Problem.aliases.get(name, name): value for name, value in row.items() if name in _PROMPTS}
        try:
            problem = Problem.model_validate({"prompt": fields.get("prompt")})
        except ValidationError:
            continue
        if row.get("review") == "reject":
            continue
        holders = set(evaluations.holders(problem))
        rows.update({name for name, _ in holders})
        for name, id in sorted(holders):
            ids[name].setdefault(id)
    return {name: Overlap(len(ids[name]), rows[name], list(ids[name])[:EXAMPLES]) for name in loaded}


_PROMPTS = ("prompt", *(alias for alias, name in Pair.aliases.items() if name == "prompt"))
"""Fields that can contain a prompt."""


def _without_instruction(task: LoadedTask) -> Callable[[Problem], Problem]:
    ending = f"\n\n{task.task.instruction}" if task.task.instruction else ""

    def shortened(problem: Problem) -> Problem:
        prompt = problem.prompt
        if isinstance(prompt, str):
            return problem.model_copy(update={"prompt": prompt.removesuffix(ending)})
        last = {**prompt[-1], "content": prompt[-1]["content"].removesuffix(ending)}
        return problem.model_copy(update={"prompt": [*prompt[:-1], last]})

    return shortened


def _problems(name: str, context: TaskContext) -> Iterable[Problem]:
    if not tasks.is_task(name):
        return iter_problems(name, folder=context.folder, seed=context.seed, limit=None, quiet=True)
    given = context.settings.get(name)
    return tasks.load_task(name, context).load(replace(context, problems=given.problems if given else None))


def _digest(questions: Iterable[str]) -> str:
    """Of the texts in any order."""
    parts = sorted(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for text in questions)
    return hashlib.sha256(b"".join(parts)).hexdigest()


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
