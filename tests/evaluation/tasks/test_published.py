"""The tasks of published sets: their columns, sizes and sources, and one message where something is missing."""

from __future__ import annotations

import csv
import json
import re
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest
from pyarrow import parquet

from spotcli.errors import DataError, UserError
from spotcli.evaluation.tasks import BUILTIN, LoadedTask, TaskContext, gpqa, ifeval, load_task, load_tasks
from spotcli.evaluation.tasks.builtin import MATHEMATICS
from spotcli.evaluation.tasks.connect4 import boards
from spotcli.grading import grade
from spotcli.grading.answers import Completion, grade_answers
from spotcli.recipe import TaskSettings
from spotcli.records import Problem
from tests.conftest import ROOT, write_rows
from tests.evaluation.tasks import published_rows

IN_DOMAIN = ["aime24", "aime25", "amc23", "math500", "minerva", "olympiadbench"]


def load(name: str, data_dir: Path | None, **context: Any) -> LoadedTask:
    return next(iter(load_tasks([name], TaskContext(data_dir or Path(), data_dir=data_dir, **context)).values()))


def refused(name: str, data_dir: Path | None, **context: Any) -> str:
    with pytest.raises(UserError) as caught:
        load(name, data_dir, **context)
    return str(caught.value)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def test_the_tasks_of_the_paper_with_their_trials_and_groups() -> None:
    groups = {name: (task.group, task.trials, task.published_rows) for name, task in BUILTIN.items()}
    assert groups == {
        "aime24": ("in-domain", 16, 30),
        "aime25": ("in-domain", 16, 30),
        "aime26": ("other", 16, 30),
        "amc23": ("in-domain", 16, 40),
        "math500": ("in-domain", 5, 500),
        "minerva": ("in-domain", 5, 272),
        "olympiadbench": ("in-domain", 5, 675),
        "gpqa": ("OOD", 5, 198),
        "connect4": ("OOD", 5, None),
        "ifeval": ("IFEval", 5, 541),
        "arithmetic": ("in-domain", 1, None),
    }
    for name in [*IN_DOMAIN, "aime26", "gpqa"]:
        instruction = BUILTIN[name].instruction or ""
        assert instruction.endswith("Therefore, the final answer is: $\\boxed{ANSWER}$.")
    assert BUILTIN["ifeval"].instruction is None  # the last line could break an instruction of the prompt


@pytest.mark.parametrize(
    ("name", "make", "number", "answer", "response"),
    [
        # The reference is the last box of the solution; all values of a multiple answer, without the unit.
        ("aime24", published_rows.aime24, 30, "000", "0"),
        ("amc23", published_rows.amc23, 40, "0", "0.0"),
        ("minerva", published_rows.minerva, 272, "1e33", "10^{33}"),
        ("olympiadbench", published_rows.olympiadbench, 675, "$0$,$1$", "1, 0"),
    ],
)
def test_published_columns(tmp_path: Path, name: str, make: Any, number: int, answer: str, response: str) -> None:
    write_rows(tmp_path / f"{name}.jsonl", make(number))
    loaded = load(name, tmp_path)
    assert len(loaded.problems) == number
    first = loaded.problems[0]
    assert first.answer == answer
    assert grade(f"So $\\boxed{{{response}}}$.", answer).verdict == "right"
    question = make(1)[0].get("problem") or make(1)[0]["question"]
    assert first.prompt == f"{question}\n\n{loaded.task.instruction}"
    # Without the instruction, so that another wording keeps the ids; published ids are kept.
    assert first.id == str(make(1)[0].get("id", Problem(prompt=question).id))
    assert first.source == f"{name}.jsonl#1"


def test_a_limit_keeps_the_first_problems_of_a_complete_set(tmp_path: Path) -> None:
    write_rows(tmp_path / "aime24.jsonl", published_rows.aime24(30))
    assert [problem.id for problem in load("aime24", tmp_path, limit=2).problems] == ["60", "61"]
    write_rows(tmp_path / "aime24.jsonl", published_rows.aime24(3))
    assert "expected the 30 published problems of aime24, got 3\n" in refused("aime24", tmp_path, limit=2)


def test_a_copy_with_every_problem_twice_is_deduplicated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = published_rows.aime24(30)
    write_rows(tmp_path / "aime25.jsonl", rows + [{"problem": row["problem"], "answer": row["answer"]} for row in rows])
    assert len(load("aime25", tmp_path).problems) == 30
    message = "skipped 30 rows with a repeated prompt; 30 problems remain, as published"
    assert message in " ".join(capsys.readouterr().err.split())


def test_copies_that_differ_are_refused(tmp_path: Path) -> None:
    rows = published_rows.aime24(30)
    path = write_rows(
        tmp_path / "aime25.jsonl", [row | {"problem": row["problem"] + end} for row in rows for end in ("", " Now!")]
    )
    assert refused("aime25", tmp_path).startswith(f"{path}:2: duplicate id '60' with a different prompt")
    for row in (anonymous := [json.loads(line) for line in path.read_text().splitlines()]):
        del row["id"]
    write_rows(path, anonymous)
    assert "expected the 30 published problems of aime25, got 60\n" in refused("aime25", tmp_path)
    write_rows(path, [*rows, rows[4] | {"answer": "5000"}])
    message = refused("aime25", tmp_path)
    assert message.startswith(f"{path}:31: the reference answer '5000' differs from '004' of an earlier row")


def test_invalid_files(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "aime24.jsonl", [])
    assert refused("aime24", tmp_path).startswith(f"{path}: the problem set is empty")
    write_rows(path, [{"text": row["problem"], "answer": row["answer"]} for row in published_rows.aime24(30)])
    assert refused("aime24", tmp_path).startswith(f"{path}:1: the field 'prompt' is missing")
    rows = published_rows.aime24(30)
    rows[6] = {"id": 66, "problem": rows[6]["problem"], "answer": "nan"}
    write_rows(path, rows)
    assert refused("aime24", tmp_path).startswith("aime24.jsonl#7: the reference answer is missing")
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match=r"aime24\.jsonl:30: "):
        load("aime24", tmp_path)


def test_files_are_found_by_the_names_of_the_set(tmp_path: Path) -> None:
    rows = published_rows.aime24(30)
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "AIME_2024.parquet")
    assert load("aime24", tmp_path).problems[0].source == "AIME_2024.parquet#1"
    with (tmp_path / "aime-24.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    # The name of the task comes before the name on the hub.
    assert load("aime24", tmp_path).problems[0].source == "aime-24.csv#1"
    write_rows(tmp_path / "aime24.jsonl", rows)
    assert load("AIME_2024", tmp_path).problems[0].source == "aime24.jsonl#1"


def test_a_downloaded_folder_is_read_as_the_hub_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "data" / "AMC-23" / "data").mkdir(parents=True)
    table = pa.Table.from_pylist(published_rows.amc23(40))
    parquet.write_table(table, tmp_path / "data" / "AMC-23" / "data" / "train-00000-of-00001.parquet")
    loaded = load("amc23", tmp_path / "data")
    assert (len(loaded.problems), loaded.problems[3].answer) == (40, "3")


def test_a_recipe_can_name_another_source(tmp_path: Path) -> None:
    write_rows(tmp_path / "mine.jsonl", published_rows.aime24(30))
    settings = {
        "AIME24": TaskSettings(problems="mine.jsonl", trials=2, instruction="", max_new_tokens=50, group="other")
    }
    loaded = load_tasks(["aime24"], TaskContext(tmp_path, settings=settings))["aime24"]
    assert loaded.problems[0].prompt == "Find the number of cows on meadow 0."
    assert (loaded.task.trials, loaded.task.max_new_tokens, loaded.task.group) == (2, 50, "other")
    with pytest.raises(UserError, match="unknown task 'aime2'"):
        load_tasks(["aime24"], TaskContext(tmp_path, settings={"aime2": TaskSettings(trials=2)}))


# The hub


def hub(monkeypatch: pytest.MonkeyPatch, sets: dict[str, list[dict[str, Any]] | Exception]) -> list[str]:
    """Replace the hub by these sets; the names that are asked are returned."""
    asked: list[str] = []

    def load_dataset(path: str, config: str | None, *, split: str | None) -> Any:
        asked.append(":".join(filter(None, (path, config, split))))
        rows = sets.get(path, datasets.exceptions.DatasetNotFoundError(f"Dataset '{path}' doesn't exist on the Hub"))
        if isinstance(rows, Exception):
            raise rows
        data = datasets.Dataset.from_list(rows)
        return data if split else datasets.DatasetDict({"test": data})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return asked


def test_a_set_that_has_moved_is_found_under_its_other_name(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = hub(monkeypatch, {"yentinglin/aime_2025": published_rows.aime24(30)})
    loaded = load("aime25", None)
    assert asked == ["math-ai/aime25", "yentinglin/aime_2025"]
    assert loaded.problems[0].source == "hf:yentinglin/aime_2025#1"


def test_a_set_with_another_number_of_problems_is_not_replaced_by_another(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = hub(monkeypatch, {"math-ai/aime25": published_rows.aime24(29)})
    message = refused("aime25", None)
    assert message.startswith("hf:math-ai/aime25: expected the 30 published problems of aime25, got 29\n")
    assert asked == ["math-ai/aime25"]


def test_a_recipe_can_name_another_set_of_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = hub(
        monkeypatch, {"linius/connect4": [published_rows.connect4(board) for board in islice(boards(0, "train"), 500)]}
    )
    context = TaskContext(settings={"connect4": TaskSettings(problems="hf:linius/connect4")})
    assert load_tasks(["connect4"], context)["connect4"].problems[0].source == "hf:linius/connect4#1"
    context = TaskContext(data_dir=tmp_path, settings={"amc23": TaskSettings(problems="hf:org/amc")})
    with pytest.raises(UserError, match=r"amc23: .* no file amc23\.jsonl in .*'org/amc' doesn't exist on the Hub"):
        load_tasks(["amc23"], context)
    assert asked == ["linius/connect4", "org/amc"]
    # As everywhere, a file in the folder of files comes before the hub.
    write_rows(tmp_path / "amc23.jsonl", published_rows.amc23(40))
    assert load_tasks(["amc23"], context)["amc23"].problems[0].source == "amc23.jsonl#1"


def test_a_gated_set_names_its_page_and_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    gated = "Dataset 'Idavidrein/gpqa' is a gated dataset on the Hub."
    asked = hub(monkeypatch, {"Idavidrein/gpqa": datasets.exceptions.DatasetNotFoundError(gated)})
    assert refused("gpqa", None) == (
        f"gpqa: the problem set is missing: failed to load the data set: {gated}\n"
        "  cure: accept the terms at https://huggingface.co/datasets/Idavidrein/gpqa and run `hf auth login`, or set "
        "eval.data_dir (--data-dir) to a folder with gpqa_diamond.csv"
    )
    assert asked == ["Idavidrein/gpqa:gpqa_diamond:train"]


@pytest.mark.usefixtures("offline")
def test_without_hub_and_file_both_ways_are_named(tmp_path: Path) -> None:
    assert refused("aime24", None) == (
        "aime24: the problem set is missing: failed to load the data set: Couldn't reach 'HuggingFaceH4/aime_2024' on "
        "the Hub (OfflineModeIsEnabled)\n"
        "  cure: connect to the hub (HuggingFaceH4/aime_2024), or set eval.data_dir (--data-dir) to a folder with "
        "aime24.jsonl"
    )
    assert refused("aime24", tmp_path).startswith(
        f"aime24: the problem set is missing: no file aime24.jsonl in {tmp_path}, and failed to load the data set"
    )
    assert refused("aime24", tmp_path / "nowhere").startswith(
        f"eval.data_dir: {tmp_path / 'nowhere'}: folder not found"
    )


@pytest.mark.usefixtures("offline")
def test_half_a_folder_is_one_message_with_all_missing_files(tmp_path: Path) -> None:
    write_rows(tmp_path / "aime24.jsonl", published_rows.aime24(30))
    with pytest.raises(UserError) as caught:
        load_tasks(["aime24", "amc23", "gpqa", "arithmetic"], TaskContext(data_dir=tmp_path))
    message = str(caught.value)
    assert message.startswith(f"eval.tasks: 2 problem sets are missing (amc23, gpqa): no files in {tmp_path}, and ")
    assert message.endswith("to a folder with amc23.jsonl, gpqa_diamond.csv")


def test_names_of_tasks() -> None:
    names = ["AIME24", "aime_2024", "MATH-500", "AMC-23", "Minerva-Math", "gpqa_diamond", "GPQA-Diamond", "IFEval"]
    assert [load_task(name).name for name in names] == [
        *("aime24", "aime24", "math500", "amc23", "minerva", "gpqa", "gpqa", "ifeval")
    ]
    with pytest.raises(UserError, match="unknown task 'mth500'\n  cure: did you mean 'math500'"):
        load_task("mth500")
    with pytest.raises(UserError, match=r"cure: use aime24, .*, a file \(\.jsonl, \.parquet, \.csv\), hf:org/name, or"):
        load_task("chess")


def test_the_documentation_lists_the_tasks() -> None:
    text = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)`[^|]*\|([^|]*)\| (\d+) \| (\d+) \| (\S+) \|$", text, re.MULTILINE)
    listed = {name: (int(number), int(trials), group) for name, _, number, trials, group in rows}
    generated = {"arithmetic": 400, "connect4": 500}
    assert listed == {
        name: (task.published_rows or generated[name], task.trials, task.group) for name, task in BUILTIN.items()
    }
    sets = {
        published.task: list(published.hub) for published in (*(row[0] for row in MATHEMATICS), gpqa.SET, ifeval.SET)
    }
    assert {name: re.findall(r"`([^`]*/[^`]*)`", hub) for name, hub, *_ in rows if "/" in hub} == sets


def test_the_published_files(shared: Path) -> None:
    names = [*IN_DOMAIN, "connect4", "ifeval"]
    loaded = load_tasks(names, TaskContext(data_dir=shared))
    assert {name: len(task.problems) for name, task in loaded.items()} == {
        "aime24": 30,
        "aime25": 30,
        "amc23": 40,
        "math500": 500,
        "minerva": 272,
        "olympiadbench": 675,
        "connect4": 500,
        "ifeval": 541,
    }
    answers = {name: task.problems[0].answer for name, task in loaded.items()}
    assert [answers[name] for name in ("aime24", "amc23", "minerva", "olympiadbench")] == ["204", "27", "1.6", "2"]
    assert loaded["connect4"].task.chance == pytest.approx(
        {"score": 0.2, "own": 0.522, "opponent": 0.43, "both": 0.2}, abs=1e-12
    )


def test_every_published_reference_is_a_right_answer(shared: Path) -> None:
    for name, loaded in load_tasks([*IN_DOMAIN, "connect4"], TaskContext(data_dir=shared)).items():
        completions = []
        for problem in loaded.problems:
            answer = problem.answer or ""
            if name != "connect4":
                value = re.sub(r"(?<!\\)\$", "", answer)
                answer = f"We add.\nTherefore, the final answer is: $\\boxed{{{value}}}$."
            completions.append(Completion(problem, answer, "stop"))
        grades = grade_answers(completions, loaded.task.grader)
        pairs = zip(loaded.problems, grades, strict=True)
        assert [problem.answer for problem, result in pairs if result.verdict != "right"] == [], name
