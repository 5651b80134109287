"""GPQA: the order of the choices, the letters and the checks; the rows are made up."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from spotcli.errors import UserError
from spotcli.evaluation.tasks import LoadedTask, TaskContext, load_tasks
from spotcli.grading.answers import Completion, grade_answers
from tests.conftest import write_rows
from tests.evaluation.tasks import published_rows


def load(folder: Path, **context: Any) -> LoadedTask:
    return load_tasks(["gpqa"], TaskContext(data_dir=folder, **context))["gpqa"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = published_rows.gpqa(198)
    with (tmp_path / "gpqa_diamond.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return tmp_path


def test_the_choices_are_permuted_and_the_row_keeps_the_order(folder: Path) -> None:
    loaded = load(folder)
    assert len(loaded.problems) == 198
    published = ["proton 7", "neutron 7", "photon 7", "muon 7"]
    row = json.loads(loaded.problems[7].json_line())
    assert row["choices"] == [published[index] for index in row["permutation"]]
    assert row["answer"] == "ABCD"[row["permutation"].index(0)]
    assert (row["id"], row["grader"]) == ("rec0007", "choice")
    lines = row["prompt"].splitlines()
    assert lines[:2] == ["Which particle has the charge of sample 7?", ""]
    assert lines[2:6] == [f"({letter}) {choice}" for letter, choice in zip("ABCD", row["choices"], strict=True)]
    # Each place of the right choice is expected 198 / 4 = 49.5 times, with a standard deviation of 6.1.
    letters = Counter(problem.answer for problem in loaded.problems)
    assert all(25 <= letters[letter] <= 75 for letter in "ABCD")
    assert loaded.task.chance == {"score": letters["A"] / 198}


def test_the_order_depends_on_the_seed_and_not_on_the_order_of_the_rows(tmp_path: Path, folder: Path) -> None:
    def orders(source: Path, seed: int) -> dict[str, Any]:
        return {problem.id: (problem.model_extra or {})["permutation"] for problem in load(source, seed=seed).problems}

    (tmp_path / "reversed").mkdir()
    write_rows(tmp_path / "reversed" / "gpqa.jsonl", published_rows.gpqa(198)[::-1])
    assert orders(folder, 0) == orders(folder, 0) == orders(tmp_path / "reversed", 0)
    assert orders(folder, 0) != orders(folder, 1)


def test_answers_are_graded_by_letter(folder: Path) -> None:
    loaded = load(folder)
    problem = loaded.problems[0]
    wrong = next(letter for letter in "ABCD" if letter != problem.answer)
    responses = [
        f"Therefore, the final answer is: $\\boxed{{{problem.answer}}}$.",
        f"Therefore, the final answer is: $\\boxed{{{wrong}}}$.",
        "I cannot tell.",
    ]
    grades = grade_answers([Completion(problem, response, "stop") for response in responses], loaded.task.grader)
    assert [grade.verdict for grade in grades] == ["right", "wrong", "undecided"]


def test_a_choice_may_be_the_number_zero(tmp_path: Path) -> None:
    rows = [{**row, "Incorrect Answer 2": 0} for row in published_rows.gpqa(198)]
    write_rows(tmp_path / "gpqa.jsonl", rows)
    assert "0" in (load(tmp_path).problems[0].model_extra or {})["choices"]


def test_missing_columns_and_rows_are_named(tmp_path: Path) -> None:
    rows = published_rows.gpqa(198)
    path = write_rows(tmp_path / "gpqa.jsonl", [{**row, "Incorrect Answer 2": None} for row in rows])
    with pytest.raises(UserError) as caught:
        load(tmp_path)
    assert str(caught.value).startswith(f"{path}:1: the column 'Incorrect Answer 2' is missing or empty\n  cure: ")
    write_rows(path, rows[:100])
    with pytest.raises(UserError, match="expected the 198 published problems of gpqa, got 100\n"):
        load(tmp_path)
    write_rows(path, [*rows, {**rows[0], "Question": "Another one?"}])
    with pytest.raises(UserError, match=r"gpqa\.jsonl:199: duplicate id 'rec0000' with a different prompt"):
        load(tmp_path)
