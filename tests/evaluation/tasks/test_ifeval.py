"""IFEval: four numbers per answer, from the columns that the hub publishes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from spotcli.errors import UserError
from spotcli.evaluation.tasks import LoadedTask, TaskContext, load_tasks
from spotcli.records import Problem, Score
from tests.conftest import write_rows
from tests.evaluation.tasks import published_rows


@pytest.fixture(autouse=True)
def _checkers() -> None:
    pytest.importorskip("if_verifiable", exc_type=ImportError)
    pytest.importorskip("punkt", exc_type=ImportError)


def load(folder: Path) -> LoadedTask:
    return load_tasks(["ifeval"], TaskContext(data_dir=folder))["ifeval"]


def numbers(loaded: LoadedTask, problem: Problem, response: str, reason: str | None = None) -> list[float]:
    assert loaded.task.metrics
    fields = problem.model_dump(exclude_unset=True) | {"task": "ifeval", "verdict": "wrong", "reason": reason}
    score = Score.model_validate(fields | {"response": response, "finish_reason": "length" if reason else "stop"})
    metrics = loaded.task.metrics(score)
    assert list(metrics) == ["prompt_strict", "prompt_loose", "instruction_strict", "instruction_loose"]
    return list(metrics.values())


def test_strict_and_loose_by_prompt_and_by_instruction(tmp_path: Path) -> None:
    write_rows(tmp_path / "ifeval.jsonl", published_rows.ifeval(541))
    loaded = load(tmp_path)
    problem = loaded.problems[2]
    assert (problem.id, problem.prompt) == ("1002", "Write about town 2 in lower case, without commas.")
    assert json.loads(problem.answer or "")["kwargs"] == [{}, {}]
    # The instructions: no commas, lower case.
    assert numbers(loaded, problem, "a small town by the sea") == [1, 1, 1, 1]
    assert numbers(loaded, problem, "A small town by the sea") == [0, 0, 0.5, 0.5]
    assert numbers(loaded, problem, "A town, by the sea") == [0, 0, 0, 0]
    # Loose also accepts the response without its first line.
    assert numbers(loaded, problem, "Here it is, as you asked:\na small town by the sea") == [0, 1, 0, 1]
    assert numbers(loaded, problem, "<think>Well, A</think>a small town") == [1, 1, 1, 1]
    assert numbers(loaded, problem, "a small town by", reason="truncated") == [0, 0, 0, 0]
    # A mean by instruction counts a prompt once per instruction.
    assert loaded.task.weights
    assert loaded.task.weights(problem) == {"instruction_strict": 2, "instruction_loose": 2}


def test_arguments_from_a_data_frame(tmp_path: Path) -> None:
    rows = published_rows.ifeval(541)
    row = {"num_paragraphs": 2.0, "nth_paragraph": 1.0, "first_word": "once", "num_words": float("nan")}
    rows[0] |= {"instruction_id_list": ["length_constraints:nth_paragraph_first_word"], "kwargs": [row]}
    write_rows(tmp_path / "ifeval.jsonl", rows)
    loaded = load(tmp_path)
    assert json.loads(loaded.problems[0].answer or "")["kwargs"] == [
        {"num_paragraphs": 2, "nth_paragraph": 1, "first_word": "once"}
    ]
    assert numbers(loaded, loaded.problems[0], "Once there was.\n\nThe end.") == [1, 1, 1, 1]


def test_a_letter_that_the_checkers_draw_is_always_the_same(tmp_path: Path) -> None:
    rows = published_rows.ifeval(541)
    letter = {"letter": "#", "let_frequency": 3, "let_relation": "at least"}
    rows[0] |= {"instruction_id_list": ["keywords:letter_frequency"], "kwargs": [letter]}
    write_rows(tmp_path / "ifeval.jsonl", rows)
    loaded = load(tmp_path)
    # Half of the letters; a letter that is drawn anew each time gives the same verdict 12 times once in 2,000 cases.
    assert len({tuple(numbers(loaded, loaded.problems[0], "abcdefghijklm" * 3)) for _ in range(12)}) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kwargs": None}, "the column 'kwargs' is missing or not a list"),
        ({"instruction_id_list": []}, "the column 'instruction_id_list' is missing or not a list"),
        ({"kwargs": [{}]}, "expected kwargs for 2 instructions, got 1"),
        ({"prompt": ""}, "the column 'prompt' is missing or empty"),
    ],
)
def test_invalid_columns(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    path = write_rows(tmp_path / "ifeval.jsonl", [row | changes for row in published_rows.ifeval(541)])
    with pytest.raises(UserError) as caught:
        load(tmp_path)
    assert str(caught.value).startswith(f"{path}:1: {message}\n  cure: use the published file of ifeval, with")


def test_the_published_verdicts(shared: Path) -> None:
    loaded = load(shared)
    problems = {problem.id: problem for problem in loaded.problems}
    published = [json.loads(line) for line in (shared / "ifeval_real_responses.jsonl").read_text().splitlines()]
    for row in published:
        strict, loose = row["strict"], row["loose"]
        assert numbers(loaded, problems[str(row["key"])], row["response"]) == [
            all(strict),
            all(loose),
            pytest.approx(sum(strict) / len(strict)),
            pytest.approx(sum(loose) / len(loose)),
        ]
