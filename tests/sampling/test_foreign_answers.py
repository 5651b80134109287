"""Answers of other tools are graded, and can be rectified."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from spotcli import outputs
from spotcli.errors import DataError, SettingsChanged
from spotcli.recipe import Recipe
from spotcli.recipe_yaml import load
from spotcli.stages.rectify import rectify
from spotcli.stages.sample import grade_file
from tests.conftest import write_rows

ROWS = [
    {
        "question": "12 + 30 - 7",
        "solution": "35",
        "model_output": "12 + 30 = 43\n43 - 7 = 36\n\\boxed{36}",
        "set": "a",
    },
    {"question": "2 + 2", "solution": "4", "model_output": "\\boxed{4}"},
    {"question": "2 + 3", "model_output": "\\boxed{5}"},
    {"question": "2 + 4", "solution": "6", "model_output": "It is", "finish_reason": "length"},
]


def rows(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]


def test_answers_of_another_tool_are_graded_and_rectified(tmp_path: Path) -> None:
    write_rows(tmp_path / "answers.jsonl", ROWS)
    summary = grade_file(Recipe(), "answers.jsonl", folder=tmp_path)
    assert (summary.answers, summary.new_answers) == (4, 4)
    assert (summary.right, summary.wrong, summary.undecided, summary.truncated) == (1, 1, 2, 1)
    graded = rows(tmp_path)
    assert [row["verdict"] for row in graded] == ["wrong", "right", "undecided", "undecided"]
    assert [row.get("reason") for row in graded] == [None, None, "no reference answer", "truncated"]
    # Unknown fields are kept, and the place of each row is recorded.
    assert (graded[0]["set"], graded[0]["source"]) == ("a", "answers.jsonl#1")
    assert outputs.read_meta(tmp_path / "samples.jsonl")["complete"]
    assert rectify(load(None, None, {"rectify.oracle": "symbolic"}), folder=tmp_path).pairs == 1


def test_a_second_run_grades_only_what_is_missing(tmp_path: Path) -> None:
    write_rows(tmp_path / "answers.jsonl", ROWS)
    grade_file(Recipe(), "answers.jsonl", folder=tmp_path)
    before = (tmp_path / "samples.jsonl").read_text()
    (tmp_path / "samples.jsonl").write_text("".join(before.splitlines(keepends=True)[:2]))
    summary = grade_file(Recipe(), "answers.jsonl", folder=tmp_path)
    assert (summary.answers, summary.new_answers) == (4, 2)
    assert (tmp_path / "samples.jsonl").read_text() == before
    with pytest.raises(SettingsChanged):
        grade_file(Recipe(grader="choice"), "answers.jsonl", folder=tmp_path)


def test_several_answers_to_a_problem_need_a_trial(tmp_path: Path) -> None:
    write_rows(tmp_path / "answers.jsonl", [ROWS[1], ROWS[1]])
    with pytest.raises(DataError, match=r"answers\.jsonl:2: duplicate answer"):
        grade_file(Recipe(), "answers.jsonl", folder=tmp_path)
    assert not (tmp_path / "samples.jsonl").exists()
    write_rows(tmp_path / "answers.jsonl", [ROWS[1], ROWS[1] | {"trial": 1}])
    assert grade_file(Recipe(), "answers.jsonl", folder=tmp_path).right == 2
