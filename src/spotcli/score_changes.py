"""Two files of scores, joined: what changed for each problem, from the base model's answers to the tuned model's.

    won      the tuned model has more right answers       lost     it has fewer
    both     as many, and at least one is right           neither  both models have no right answer

Only trials that both files have are compared. The files are read row by row; of each answer only its verdict is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from spotcli import jsonl
from spotcli.errors import DataError
from spotcli.records import Score, key_hash

Change = Literal["won", "lost", "both", "neither"]
CHANGES: tuple[Change, ...] = get_args(Change)
"""All changes, in the order in which they are counted."""

ProblemKey = tuple[str, str]
"""Task and id of a problem."""


@dataclass(frozen=True)
class ProblemChange:
    """The answers of two models to one problem."""

    task: str
    id: str
    change: Change
    trials: int
    """Answers of each model that are compared."""
    base_right: int
    tuned_right: int
    base_trial: int
    """The base model's answer to show: a right one if the problem is lost, one that is not right if it is won."""
    tuned_trial: int
    """The tuned model's answer to show; the same trial as the base model's where that shows the change."""

    @property
    def base_key(self) -> tuple[str, str, int]:
        """``Score.key`` of the base model's answer to show."""
        return self.task, self.id, self.base_trial

    @property
    def tuned_key(self) -> tuple[str, str, int]:
        """``Score.key`` of the tuned model's answer to show."""
        return self.task, self.id, self.tuned_trial


@dataclass(frozen=True)
class ComparedAnswers:
    """The two answers that show the change of a problem."""

    problem: ProblemChange
    base: Score
    tuned: Score


@dataclass
class _Problem:
    prompt: int
    """Hash of the prompt."""
    right: dict[int, bool]
    """Trial -> whether the answer is right."""


def compare_files(
    base: Path, tuned: Path, *, wanted: Callable[[Score], bool] = lambda row: True
) -> dict[ProblemKey, ProblemChange]:
    """Return the change of every problem that both files answer, in the order of the tuned model's file.

    Args:
        base: scores of the base model.
        tuned: scores of the tuned model.
        wanted: the rows to compare.

    Raises:
        UserError: a file does not exist or is no file of scores.
        DataError: a row is invalid, or a problem has another prompt in the other file.
    """
    return compare(
        filter(wanted, jsonl.read(base, Score)), filter(wanted, jsonl.read(tuned, Score)), base=base, tuned=tuned
    )


def compare(
    base_scores: Iterable[Score], tuned_scores: Iterable[Score], *, base: Path, tuned: Path
) -> dict[ProblemKey, ProblemChange]:
    """Return the change of every problem with scores of both models, in the order of the tuned model's.

    Args:
        base_scores: those of the base model.
        tuned_scores: those of the tuned model.
        base: the file of the base model, for messages.
        tuned: the file of the tuned model, for messages.

    Raises:
        DataError: a problem has another prompt in the other file.
    """
    before = _verdicts(base_scores)
    after = _verdicts(tuned_scores)
    changes = {}
    for key, problem in after.items():
        other = before.get(key)
        if other is None:
            continue
        if other.prompt != problem.prompt:
            raise DataError(
                f"problem {key[1]!r} of the task {key[0]!r} has another prompt in {base}",
                where=str(tuned),
                cure="compare the scores of one evaluation: the same tasks, seed and settings for both models",
            )
        trials = sorted(problem.right.keys() & other.right.keys())
        if trials:
            changes[key] = _change(key, {trial: (other.right[trial], problem.right[trial]) for trial in trials})
    return changes


def answers(path: Path, keys: Iterable[tuple[str, str, int]]) -> dict[tuple[str, str, int], Score]:
    """Return the rows of a file of scores that have one of some keys.

    Raises:
        UserError: the file does not exist or is no file of scores.
        DataError: a row is invalid.
    """
    keys = set(keys)
    return {row.key: row for row in jsonl.read(path, Score) if row.key in keys} if keys else {}


def compared_answers(base: Path, tuned: Path, problems: Iterable[ProblemChange]) -> Iterator[ComparedAnswers]:
    """Yield the answers of some problems, in the order of the tuned model's file; the base's are kept in memory.

    Raises:
        UserError: a file does not exist or is no file of scores.
        DataError: a row is invalid.
    """
    by_key = {problem.tuned_key: problem for problem in problems}
    before = answers(base, (problem.base_key for problem in by_key.values()))
    for row in jsonl.read(tuned, Score) if by_key else ():
        problem = by_key.get(row.key)
        if problem is not None and problem.base_key in before:
            yield ComparedAnswers(problem, before[problem.base_key], row)


def base_scores(path: Path) -> Path | None:
    """The file of the base model's scores that the summary beside a file of scores names, if it exists.

    Raises:
        DataError: the summary is no JSON object.
    """
    summary = jsonl.read_json(path.with_suffix(".summary.json"))
    models, files = summary.get("models"), summary.get("files")
    name = None
    if not summary.get("against"):
        return None
    if isinstance(models, list) and models and isinstance(models[0], dict):
        name = models[0].get("path")
    elif isinstance(files, list) and len(files) > 1:
        name = files[0]  # a summary of an earlier version
    if not isinstance(name, str) or not name:
        return None
    # A folder of scores that was moved or copied still has both files.
    places = (path.parent / Path(name).name, Path(name))
    return next((place for place in places if place.is_file() and place.resolve() != path.resolve()), None)


def count_changes(changes: Iterable[ProblemChange]) -> dict[str, dict[Change, int]]:
    """The number of problems of each task with each change."""
    counts: dict[str, dict[Change, int]] = {}
    for problem in changes:
        of_task = counts.setdefault(problem.task, dict.fromkeys(CHANGES, 0))
        of_task[problem.change] += 1
    return counts


def _verdicts(scores: Iterable[Score]) -> dict[ProblemKey, _Problem]:
    problems: dict[ProblemKey, _Problem] = {}
    for row in scores:
        problem = problems.setdefault((row.task, row.id), _Problem(key_hash(row.prompt), {}))
        problem.right.setdefault(row.trial, row.verdict == "right")
    return problems


def _change(key: ProblemKey, verdicts: Mapping[int, tuple[bool, bool]]) -> ProblemChange:
    """The change of one problem, given whether each trial of the base and of the tuned model is right."""
    base_right, tuned_right = (sum(pair[side] for pair in verdicts.values()) for side in (0, 1))
    change: Change = "both" if base_right else "neither"
    if base_right != tuned_right:
        change = "won" if tuned_right > base_right else "lost"
    shown = {"won": (False, True), "lost": (True, False), "both": (True, True), "neither": (False, False)}[change]
    same = next((trial for trial, pair in verdicts.items() if pair == shown), None)
    base_trial, tuned_trial = (
        next((trial for trial, pair in verdicts.items() if pair[side] == shown[side]), min(verdicts))
        if same is None
        else same
        for side in (0, 1)
    )
    return ProblemChange(*key, change, len(verdicts), base_right, tuned_right, base_trial, tuned_trial)
