"""Rows of messages, of ShareGPT and of Alpaca as problems and as answers; several accepted answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from spotcli.errors import DataError
from spotcli.grading.answers import Completion, grade_answers
from spotcli.problems.sources import iter_answers, iter_problems
from spotcli.records import Problem
from tests.conftest import write_rows

PARTS = [{"type": "text", "text": "2 +"}, {"type": "text", "text": " 2?"}]
QUESTION = {"role": "user", "content": "2 + 2?"}
REPLY = {"role": "assistant", "content": "It is \\boxed{4}"}


def problem_of(row: dict[str, Any], folder: Path) -> Problem:
    write_rows(folder / "rows.jsonl", [row])
    return next(iter(list(iter_problems("rows.jsonl", folder=folder, seed=0, limit=None))))


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [QUESTION, REPLY]},
        {"messages": [{"role": "user", "content": PARTS}, REPLY]},
        {"conversations": [{"from": "human", "value": "2 + 2?"}, {"from": "gpt", "value": "It is \\boxed{4}"}]},
        {"conversations": [QUESTION, REPLY]},
        {"instruction": "2 + 2?", "input": "", "output": "It is \\boxed{4}"},
        {"instruction": "2 + 2?", "output": "4"},
    ],
)  # fmt: skip
def test_a_chat_is_a_problem_and_its_last_reply_the_solution(
    row: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    problem = problem_of(row, tmp_path)
    assert (problem.prompt, problem.answer) == ("2 + 2?", "4")
    assert not {*row} & {*problem.model_dump(exclude_unset=True)}
    field = next(iter(row))
    assert f"'{field}' as 'prompt'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        (
            {"conversations": [{"from": "human", "value": "Hi"}], "system": "Be short."},
            [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Hi"}],
        ),
        (
            {"instruction": "And now?", "input": "x = 3", "history": [["Hi", "Hello"]]},
            [
                {"role": "user", "content": "Hi"},
                {"role": "assistant", "content": "Hello"},
                {"role": "user", "content": "And now?\n\nx = 3"},
            ],
        ),
        ({"prompt": "the prompt", "messages": [QUESTION, REPLY]}, "the prompt"),
    ],
)
def test_the_rest_of_a_chat_is_the_prompt(row: dict[str, Any], prompt: Any, tmp_path: Path) -> None:
    assert problem_of(row | {"answer": "7"}, tmp_path).prompt == prompt


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [QUESTION, REPLY]},
        {"conversations": [{"from": "user", "value": "2 + 2?"}, {"from": "assistant", "value": "It is \\boxed{4}"}]},
        {"instruction": "2 + 2?", "output": "It is \\boxed{4}"},
        {"prompt": "2 + 2?", "response": [{"type": "text", "text": "It is "}, {"type": "text", "text": "\\boxed{4}"}]},
    ],
)
def test_the_last_reply_is_the_answer_to_grade(row: dict[str, Any], tmp_path: Path) -> None:
    write_rows(tmp_path / "answers.jsonl", [row | {"answer": ["5", "4"]}])
    (answer,) = iter_answers(tmp_path / "answers.jsonl")
    assert (answer.prompt, answer.response) == ("2 + 2?", "It is \\boxed{4}")
    assert (answer.answer, answer.accepted_answers) == ("5", ["5", "4"])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"conversations": [{"from": "tool", "value": "x"}]}, "unknown speaker 'tool'; known: human, user, gpt"),
        ({"conversations": ["hello"]}, 'expected turns like {"from": "human", "value": "..."}'),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "got a part of type 'image_url'"),
        ({"messages": [{"role": "user", "content": 7}]}, "expected the text of a message"),
        ({"messages": [REPLY]}, "the chat in 'messages' has no question of a user"),
        ({"instruction": "a", "history": [["b"]]}, "expected 'history' to be a list of [question, reply]"),
        ({"prompt": "a", "answer": [{"text": "b"}]}, "expected a text or a list of accepted answers in 'answer'"),
    ],
)
def test_an_invalid_chat_names_its_line(row: dict[str, Any], message: str, tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", [{"prompt": "fine", "answer": "1"}, row])
    with pytest.raises(DataError) as caught:
        list(iter_problems("rows.jsonl", folder=tmp_path, seed=0, limit=None))
    assert caught.value.where == f"{tmp_path / 'rows.jsonl'}:2"
    assert message in caught.value.message
    assert caught.value.cure


@pytest.mark.parametrize(
    ("answer", "first", "accepted"),
    [
        (["4"], "4", None),
        ([4.0], "4", None),
        (["1/2", "0.5", "1/2"], "1/2", ["1/2", "0.5"]),
        ([], None, None),
        (["", "7"], "7", None),
    ],
)
def test_lists_of_answers(answer: list[Any], first: str | None, accepted: list[str] | None, tmp_path: Path) -> None:
    problem = problem_of({"prompt": "a", "answer": answer}, tmp_path)
    assert (problem.answer, problem.accepted_answers) == (first, accepted)
    assert json.loads(problem.json_line()).get("accepted_answers") == accepted


@pytest.mark.parametrize("grader", ["math", "choice"])
def test_an_answer_is_right_if_it_matches_one_of_several(grader: str) -> None:
    texts = ("7", "9", "8") if grader == "math" else ("A", "C", "B")
    problem = Problem(prompt="a", answer=texts[0], accepted_answers=[*texts[:2]], grader=grader)
    completions = [Completion(problem, f"So it is \\boxed{{{text}}}.", "stop") for text in texts]
    grades = grade_answers(completions, "math")
    assert [grade.verdict for grade in grades] == ["right", "right", "wrong"]
