"""``rectify.keep``: right answers of the policy as rows beside the corrections, chosen near what is trained.

The order in which answers are chosen, until there are enough:

    1. rows that a person reviewed
    2. the first answer to each problem, then the second one to each, and so on
    3. answers to problems with a correction, then to problems with another wrong answer, then to all others
    4. groups of problems (``source``, ``family``, ``level`` ...) in turn, each as often as among the corrected ones
    5. problems that are more similar to the corrected ones
    6. by the recipe's seed

The similarity of a problem is the cosine of two vectors: its own words and the mean of those of the corrected problems.
A word of the last message is weighted by its inverse document frequency, so that what all prompts have in common does
not count. Numbers count by their number of digits, and fields such as ``family``, ``level`` and ``source`` as words.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from heapq import merge
from typing import Any

from spotcli import decisions, outputs
from spotcli.core.edits import words
from spotcli.records import Problem, Sample, key_hash
from spotcli.repair.cases import NOT_NEEDED, Case
from spotcli.repair.right_answers import distinct_right_answers, right_row
from spotcli.repair.summary import Origin
from spotcli.reviews import reviewed_rows, row_key

CORRECTED, WRONG, SIMILAR = "corrected problem", "problem with wrong answers", "similar problem"
NEARNESS = (CORRECTED, WRONG, SIMILAR)
"""Why an answer was chosen, the nearest first: its problem has a correction, another wrong answer, or neither."""

_DIGITS = re.compile(r"\d+")

GROUPS = ("task", "family", "level", "difficulty", "subject", "topic", "category", "type", "kind", "data_source")
"""Fields of a problem that name its group, beside ``source``."""


@dataclass(frozen=True)
class KeptAnswers:
    """The right answers that become rows: ``right`` answers = rows + reasons."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    """In the order of the samples."""
    reasons: dict[str, int] | None = None
    """Why the other right answers are left out; None if the recipe keeps none."""
    places: dict[tuple[str, int], int] = field(default_factory=dict)
    """The position of each sample in its file."""

    @property
    def counts(self) -> dict[str, Any]:
        """Fields of the summary."""
        return {"kept": len(self.rows), "not_kept": self.reasons}

    def beside(self, pairs: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Pairs and kept answers in the order of the samples.

        Args:
            pairs: the rows of the corrections, in that order.
        """
        if not self.rows:
            return iter(pairs)
        return merge(pairs, self.rows, key=lambda row: self.places.get(row_key(row), -1))


def keep_answers(origin: Origin, cases: Sequence[Case], output: outputs.Output) -> KeptAnswers:
    """Choose right answers beside the corrections.

    Args:
        origin: the samples, the contested ones among them, the seed, and ``rectify.keep``.
        cases: the wrong answers with their results.
        output: the rows so far; those that a person reviewed are kept first, as they are.
    """
    if origin.keep is None:
        return KeptAnswers()
    right, reasons = distinct_right_answers(origin.samples, origin.contested)
    reviewed = reviewed_rows(output.rows(), decisions.read(output.path).covers)
    ranked = _Ranking(origin, cases).sort(right, {key for key, row in reviewed.items() if row.get("rejected") is None})
    chosen = ranked[: row_count(origin.keep, pairs=sum(case.accepted for case in cases))]
    if len(chosen) < len(right):
        reasons[NOT_NEEDED] = len(right) - len(chosen)
    places: dict[tuple[str, int], int] = {}
    for index, sample in enumerate(origin.samples):
        places.setdefault(sample.key, index)
    chosen.sort(key=lambda answer: places[answer.sample.key])
    rows = [right_row(answer.sample, reviewed.get(answer.sample.key), answer.reason) for answer in chosen]
    return KeptAnswers(rows, dict(sorted(reasons.items())), places)


def row_count(keep: str, *, pairs: int) -> int:
    """The number of right answers to keep beside ``pairs`` corrections; half a row is rounded up."""
    if keep.endswith("%"):
        return math.floor(Fraction(keep[:-1]) / 100 * pairs + Fraction(1, 2))
    return int(keep)


@dataclass(frozen=True)
class _Answer:
    """A right answer, and why it was chosen."""

    sample: Sample
    nearness: str
    similarity: float

    @property
    def reason(self) -> dict[str, Any]:
        """For the field ``oracle`` of its row."""
        return {"kept_for": self.nearness, "similarity": self.similarity}


class _Ranking:
    """Orders right answers, the nearest to the corrected problems first.

    Args:
        origin: the samples and the seed.
        cases: the wrong answers.
    """

    def __init__(self, origin: Origin, cases: Iterable[Case]) -> None:
        self._seed = origin.seed
        self._nearness = dict.fromkeys((case.sample.id for case in cases), WRONG)
        self._nearness |= dict.fromkeys((case.sample.id for case in cases if case.accepted), CORRECTED)
        self._words = {sample.id: _word_set(sample) for sample in reversed(origin.samples)}
        corrected = [self._words[name] for name, nearness in self._nearness.items() if nearness == CORRECTED]
        problems = {sample.id: sample for sample in origin.samples}
        self._shares = Counter(
            _group(problems[name]) for name, nearness in self._nearness.items() if nearness == CORRECTED
        )
        frequency = Counter(word for own in self._words.values() for word in own)
        self._weight = {word: math.log((1 + len(self._words)) / (1 + count)) for word, count in frequency.items()}
        self._mean = {
            word: count / len(corrected) for word, count in Counter(w for own in corrected for w in own).items()
        }
        self._norm = math.sqrt(math.fsum((self._weight[word] * share) ** 2 for word, share in self._mean.items()))

    def similarity(self, problem: str) -> float:
        """The similarity of a problem to the corrected ones, 0 to 1."""
        own = self._words[problem]
        norm = self._norm * math.sqrt(math.fsum(self._weight[word] ** 2 for word in own))
        product = math.fsum(self._weight[word] ** 2 * self._mean.get(word, 0.0) for word in own)
        return round(product / norm, 4) if norm else 0.0

    def sort(self, answers: Iterable[Sample], reviewed: set[tuple[str, int]]) -> list[_Answer]:
        """All answers in the order in which they are chosen."""
        by_problem: dict[str, list[Sample]] = defaultdict(list)
        for sample in sorted(answers, key=self._chance):
            by_problem[sample.id].append(sample)
        ranked: list[tuple[tuple[Any, ...], _Answer]] = []
        for problem, own in by_problem.items():
            answer = _Answer(own[0], self._nearness.get(problem, SIMILAR), self.similarity(problem))
            for turn, sample in enumerate(own):
                level = (sample.key not in reviewed, turn, NEARNESS.index(answer.nearness))
                ranked.append((level, replace(answer, sample=sample)))
        ranked.sort(key=lambda item: (-item[1].similarity, self._chance(item[1].sample)))
        # The k-th answer of a group that has a tenth of the corrected problems comes after 10 k answers.
        places: Counter[tuple[Any, ...]] = Counter()
        ordered: list[tuple[tuple[Any, ...], _Answer]] = []
        for level, answer in ranked:
            group = _group(answer.sample)
            share, place = self._shares[group], places[level, group]
            places[level, group] += 1
            ordered.append(((*level, (place + 0.5) / share if share else math.inf), answer))
        return [answer for _, answer in sorted(ordered, key=lambda item: item[0])]

    def _chance(self, sample: Sample) -> int:
        return key_hash(self._seed, *sample.key)


def _word_set(problem: Problem) -> frozenset[str]:
    """The words of the last message, numbers as their number of digits, and the fields of ``_group``."""
    text = problem.messages[-1]["content"].casefold()
    own = {f"{len(word)} digits" if word.isdecimal() else word for word in words(text) if not word.isspace()}
    return frozenset(own.union(_group(problem)))


def _group(problem: Problem) -> tuple[str, ...]:
    """The fields that sort problems into groups, as ``name=value``; the source without the number of the row."""
    fields = problem.model_extra or {}
    named = [f"{name}={fields[name]}" for name in GROUPS if isinstance(fields.get(name), str | int)]
    return (f"source={_DIGITS.sub('', problem.source or '')}", *named)
