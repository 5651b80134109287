"""What is answered, what remains, and what a run has done."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spotcli.answering.answered import Answered, Work
from spotcli.policies import Answer, Failure, Request
from spotcli.recipe_yaml import load
from spotcli.sampling.problem_set import ProblemSet, Remaining, count_remaining
from tests.conftest import write_rows


def request(id: str, trial: int = 0) -> Request:
    return Request((id, trial), [{"role": "user", "content": "?"}], seed=0, trial=trial)


def by_id_and_trial(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["id"], row.get("trial", 0)


def answered(*keys: tuple[str, int]) -> Answered:
    answers = Answered(by_id_and_trial)
    for id, trial in keys:
        answers.read({"id": id, "trial": trial, "verdict": "right", "finish_reason": "stop"})
    answers.sort()
    return answers


def test_truncated_answers_are_counted_apart() -> None:
    answers = Answered(by_id_and_trial)
    answers.read({"id": "a", "verdict": "undecided", "finish_reason": "length"})
    answers.read({"id": "b", "verdict": "undecided", "finish_reason": "stop"})
    answers.read({"id": "c", "verdict": "wrong"})
    assert answers.verdicts == {"truncated": 1, "undecided": 1, "wrong": 1}


def test_answers_are_found_by_id_and_trial() -> None:
    answers = answered(("a", 0), ("b", 1), ("c", 0))
    assert len(answers) == 3
    assert answers.has(request("b", 1))
    assert not answers.has(request("b", 0))
    assert not Answered(by_id_and_trial).has(request("b", 0))


def test_remaining_and_other_answers(tmp_path: Path) -> None:
    write_rows(tmp_path / "problems.jsonl", [{"id": id, "prompt": id} for id in "abc"])
    recipe = load(None, None, {"sample.trials": 2, "sample.limit": 2})
    problems = ProblemSet(recipe, tmp_path, shard=None, held_out=None)
    problems.count(None)
    assert count_remaining(problems, answered(), None) == Remaining(missing=4, others=0)
    # Two trials of a and b are asked for: (a, 0) is answered, (a, 2) and (c, 0) are others.
    answers = answered(("a", 0), ("a", 2), ("c", 0))
    assert count_remaining(problems, answers, None) == Remaining(missing=3, others=2)
    # With counts of an earlier run, the problems are not compared one by one.
    assert count_remaining(problems, answers, problems.counted(others=2)) == Remaining(missing=3, others=2)


def test_work_adds_up() -> None:
    work = Work(wanted=5)
    work.add([Answer(request("a"), "4", "stop", None, tokens=3, max_new_tokens=9, cost=0.25)])
    work.add([Failure(request("b"), "time-out"), Answer(request("c"), "4", "stop", None, 2, 9)])
    assert (work.answers, work.tokens, work.cost, work.failures) == (2, 5, 0.25, {"time-out": 1})
    assert work.remaining == 2
