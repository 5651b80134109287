"""Answers on disk before they are graded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from spotcli.answering import journal as journals
from spotcli.answering.journal import AnswerJournal, KeptAnswer
from spotcli.errors import DataError
from spotcli.policies import Answer, Request
from spotcli.records import Problem


def kept(id: str, response: str = "4", *, group: str = "") -> KeptAnswer:
    key = (group, id, 0) if group else (id, 0)
    problem = Problem(id=id, prompt=f"{id}?", answer="4")
    request = Request(key, problem.messages, seed=7, group=group)
    return KeptAnswer(problem, Answer(request, response, "stop", [1, 2], 2, 9, cost=0.5))


def opened(path: Path, *, keeps_graded: bool = False) -> AnswerJournal:
    return AnswerJournal(path, keeps_graded=keeps_graded, keeps_tokens=False)


def read(path: Path, *done: str) -> list[KeptAnswer]:
    with opened(path, keeps_graded=True) as journal:
        return list(journal.read(lambda request: request.key[-2] in done))


def ids(path: Path) -> list[Any]:
    return [json.loads(line)["problem"]["id"] for line in path.read_text().splitlines()]


def test_answers_are_on_disk_before_they_are_graded_and_the_file_is_removed_after(tmp_path: Path) -> None:
    path = tmp_path / "x.ungraded.jsonl"
    with opened(path) as journal:
        assert not path.exists()
        journal.add([kept("a"), kept("b")])
        assert ids(path) == ["a", "b"]
        journal.graded([kept("a"), kept("b")])
    assert not path.exists()


def test_only_answers_that_are_not_graded_stay(tmp_path: Path) -> None:
    path = tmp_path / "x.ungraded.jsonl"

    def interrupted() -> None:
        with opened(path) as journal:
            journal.add([kept("a"), kept("b"), kept("c")])
            journal.graded([kept("a"), kept("c")])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert ids(path) == ["b"]


def test_a_long_run_does_not_keep_all_of_its_answers_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "MOST_GRADED", 1000)
    path = tmp_path / "x.ungraded.jsonl"
    with opened(path) as journal:
        journal.add([kept("slow")])
        for number in range(30):
            answers = [kept(f"p{number}", "4" * 100)]
            journal.add(answers)
            journal.graded(answers)
        assert ids(path)[0] == "slow"
        assert len(ids(path)) < 13


def test_a_permanent_journal_keeps_graded_answers_and_names_their_tasks(tmp_path: Path) -> None:
    path = tmp_path / "x.answers.jsonl"
    with opened(path, keeps_graded=True) as journal:
        journal.add([kept("a", group="arithmetic")])
        journal.graded([kept("a", group="arithmetic")])
    (answer,) = read(path)
    assert answer.key == ("arithmetic", "a", 0)
    assert (answer.answer.request.group, answer.answer.request.seed) == ("arithmetic", 7)
    assert (answer.answer.response, answer.answer.cost, answer.problem.answer) == ("4", 0.5, "4")
    assert answer.answer.token_ids is None  # long, and read by nothing unless they are asked for


def test_repeated_and_graded_answers_are_read_once_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "x.answers.jsonl"
    with opened(path, keeps_graded=True) as journal:
        journal.add([kept("a"), kept("b"), kept("a")])
    assert [answer.problem.id for answer in read(path)] == ["a", "b"]
    assert [answer.problem.id for answer in read(path, "a")] == ["b"]


def test_an_answer_that_a_kill_left_incomplete_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "x.answers.jsonl"
    with opened(path, keeps_graded=True) as journal:
        journal.add([kept("a"), kept("b")])
    path.write_bytes(path.read_bytes()[:-20])
    assert [answer.problem.id for answer in read(path)] == ["a"]
    path.write_text('{"problem": 3}\n')
    with pytest.raises(DataError, match=r"x\.answers\.jsonl:1: invalid ungraded answer"):
        read(path)
