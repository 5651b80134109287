"""The problems that training lost and won, each as a diff of the base model's answer and the tuned model's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from spotcli import html_pages
from spotcli.evaluation.scores import EvalSummary, TaskComparison
from spotcli.records import Score
from spotcli.score_changes import ComparedAnswers, ProblemChange, compare_files, compared_answers

if TYPE_CHECKING:
    from markupsafe import Markup

SHOWN = 20
"""Lost and won problems on the page, of each at most."""
FOLD = 1200
"""Characters of a deleted, inserted or kept text in a diff; of a longer one the middle is left out."""
LONGEST = 4000
"""Characters of a prompt, and of an answer that is shown without a diff."""


@dataclass(frozen=True)
class Answer:
    """One model's answer to a problem."""

    name: str
    verdict: str
    notes: str
    text: Markup
    """The whole text, which is shown where a diff does not help."""


@dataclass(frozen=True)
class Flip:
    """A problem that was lost or won."""

    problem: ProblemChange
    prompt: Markup
    reference: str
    answers: list[Answer]
    diff: Markup | None


@dataclass(frozen=True)
class FlipCounts:
    """How many problems of a task were won, lost, answered by both and by neither model."""

    task: str
    won: int
    lost: int
    both: int
    neither: int

    @property
    def problems(self) -> int:
        return self.won + self.lost + self.both + self.neither

    def share(self, count: int) -> float:
        """A count in percent of the problems."""
        return 100 * count / self.problems if self.problems else 0.0


@dataclass(frozen=True)
class FlipSection:
    counts: list[FlipCounts]
    lost: list[Flip]
    won: list[Flip]
    lost_left: int
    won_left: int
    """Problems that are not shown."""


def flip_section(summary: EvalSummary) -> FlipSection | None:
    """Counts of all tasks, and the answers of the first lost and won problems; None without a base model.

    Raises:
        UserError: a file of scores does not exist any more.
        DataError: a row of it is invalid.
    """
    comparisons = summary.comparisons
    if not comparisons:
        return None
    counts = [
        FlipCounts(item.task, len(item.won), len(item.lost), item.both, item.neither) for item in comparisons.values()
    ]
    wanted = {kind: _spread(list(comparisons.values()), kind) for kind in ("lost", "won")}
    flips = _read(summary, {key for keys in wanted.values() for key in keys})
    lost, won = (
        [flips[key] for key in keys if key in flips and flips[key].problem.change == kind]
        for kind, keys in wanted.items()
    )
    return FlipSection(
        counts,
        lost,
        won,
        lost_left=sum(count.lost for count in counts) - len(lost),
        won_left=sum(count.won for count in counts) - len(won),
    )


def _spread(comparisons: Sequence[TaskComparison], kind: str) -> list[tuple[str, str]]:
    """Task and id of at most ``SHOWN`` problems, taken in turn from each task."""
    left = {item.task: list(item.lost if kind == "lost" else item.won) for item in comparisons}
    taken: dict[str, list[str]] = {task: [] for task in left}
    while any(left.values()) and sum(map(len, taken.values())) < SHOWN:
        for task, ids in left.items():
            if ids and sum(map(len, taken.values())) < SHOWN:
                taken[task].append(ids.pop(0))
    return [(task, id) for task, ids in taken.items() for id in ids]


def _read(summary: EvalSummary, wanted: set[tuple[str, str]]) -> dict[tuple[str, str], Flip]:
    """The problems with their answers, by task and id."""
    if not wanted:
        return {}
    base, tuned = (Path(model.path) for model in summary.models[:2])
    # A file can have more trials, from an evaluation with a larger k.
    trials = {task: item.trials for task, item in summary.comparisons.items()}

    def is_compared(row: Score) -> bool:
        return (row.task, row.id) in wanted and row.trial < trials[row.task]

    changes = compare_files(base, tuned, wanted=is_compared)
    pairs = compared_answers(base, tuned, changes.values())
    return {(pair.problem.task, pair.problem.id): _flip(pair) for pair in pairs}


def _flip(pair: ComparedAnswers) -> Flip:
    turns = pair.tuned.messages
    prompt = "\n\n".join(f"{turn['role']}: {turn['content']}" if len(turns) > 1 else turn["content"] for turn in turns)
    spans = html_pages.similar_diff(pair.base.response, pair.tuned.response)
    return Flip(
        problem=pair.problem,
        prompt=html_pages.trusted(html_pages.clipped(prompt, LONGEST)),
        reference=pair.tuned.answer or "",
        answers=[_answer("base", pair.base), _answer("tuned", pair.tuned)],
        diff=None if spans is None else html_pages.trusted(html_pages.marked_diff(spans, fold=FOLD)),
    )


def _answer(name: str, score: Score) -> Answer:
    notes = ["truncated"] if score.finish_reason == "length" else [score.reason] if score.reason else []
    notes += [f"extracted {score.extracted[:200]}"] if score.extracted is not None else []
    text = html_pages.trusted(html_pages.clipped(score.response, LONGEST))
    return Answer(name, score.verdict, ", ".join(notes), text)
