"""Prompts that occur in the samples with different reference answers: at most one of them is right.

A correction towards the other one would teach a wrong answer, so the answers to such a prompt are left out. Several
trials of a problem have one reference answer, and two notations of a value (``1/2`` and ``0.5``) are the same one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from spotcli import jsonl
from spotcli.console import warn
from spotcli.grading.kinds import grader_of
from spotcli.records import Sample, key_hash

CONTESTED = "conflicting references"
"""The reason of an answer to a prompt that has different reference answers."""

COMPARED = ("math", "choice", "coordinates")
"""Graders that compare two reference answers; another one's reference is not an answer."""

SHOWN = 60
"""Characters of a reference answer in the message."""


@dataclass(frozen=True)
class _Conflict:
    """Two samples with one prompt and different reference answers, by their indices, and all samples of the prompt."""

    first: int
    second: int
    samples: list[int]


def contested_samples(samples: Sequence[Sample], path: Path, grader: str) -> frozenset[tuple[str, int]]:
    """The keys of the samples whose prompt has different reference answers; a warning names an example.

    Args:
        samples: all samples.
        path: their file.
        grader: of samples that name none.
    """
    by_prompt: dict[int, list[int]] = defaultdict(list)
    for index, sample in enumerate(samples):
        if sample.reference is not None and (sample.grader or grader) in COMPARED:
            turns = tuple((message["role"], message["content"].strip()) for message in sample.messages)
            by_prompt[key_hash(turns, sample.grader or grader)].append(index)
    conflicts = [
        _Conflict(indices[0], second, indices)
        for indices in by_prompt.values()
        if (second := _differing(samples, indices, grader)) is not None
    ]
    if conflicts:
        _report(samples, path, conflicts)
    return frozenset(samples[index].key for conflict in conflicts for index in conflict.samples)


def _differing(samples: Sequence[Sample], indices: list[int], grader: str) -> int | None:
    """The first sample whose reference answer is not that of the first one."""
    first = samples[indices[0]]
    equal = {(first.answer or "").strip()}
    for index in indices[1:]:
        text = (samples[index].answer or "").strip()
        if text not in equal:
            if not _are_equal(text, (first.answer or "").strip(), samples[index].grader or grader):
                return index
            equal.add(text)
    return None


def _are_equal(text: str, other: str, grader: str) -> bool:
    grade = grader_of(grader)
    return any(
        grade(response, reference).verdict == "right"
        for answer, reference in ((text, other), (other, text))
        for response in (f"\\boxed{{{answer}}}", answer)
    )


def _report(samples: Sequence[Sample], path: Path, conflicts: list[_Conflict]) -> None:
    first, second = conflicts[0].first, conflicts[0].second
    lines = _lines_of(path, (first, second))
    answers = [repr((samples[index].answer or "").strip()[:SHOWN]) for index in (first, second)]
    count = sum(len(conflict.samples) for conflict in conflicts)
    warn(
        f"{path}:{lines[second]}: the reference answer {answers[1]} differs from {answers[0]} for the same prompt in "
        f"line {lines[first]}; {count} answers to {len(conflicts)} such prompts are left out ({CONTESTED})"
    )


def _lines_of(path: Path, indices: Iterable[int]) -> dict[int, int]:
    """Line numbers of rows; the file is read again, because they are needed for the message only."""
    wanted = sorted(indices)
    rows = enumerate(jsonl.numbered(path))
    return {index: number for index, (number, _) in islice(rows, wanted[-1] + 1) if index in wanted}
