"""Any problem set as a task: files, data sets of the hub, task files, and tasks that other packages register."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest
from pyarrow import parquet

from spotcli import plugins
from spotcli.errors import RecipeError, UserError
from spotcli.evaluation.tasks import LoadedTask, TaskContext, load_task, load_tasks
from spotcli.grading.answers import Completion, grade_answers
from spotcli.recipe_yaml import load as load_recipe
from spotcli.stages.evaluate import evaluate
from tests.conftest import write_rows

ROWS = [{"question": f"{number} + 1?", "answer": f"so\n#### {number + 1}"} for number in range(5)]


def load(name: str, folder: Path, **context: Any) -> LoadedTask:
    return load_tasks([name], TaskContext(folder, **context))[name]


def refused(name: str, folder: Path, **context: Any) -> str:
    with pytest.raises(UserError) as caught:
        load(name, folder, **context)
    return str(caught.value)


def test_a_file_is_a_task(tmp_path: Path) -> None:
    write_rows(tmp_path / "mine.jsonl", ROWS)
    parquet.write_table(pa.Table.from_pylist(ROWS), tmp_path / "mine.parquet")
    (tmp_path / "mine.csv").write_text("question,answer\n" + "".join(f"{n} + 1?,{n + 1}\n" for n in range(5)))
    for name in ("mine.jsonl", "mine.parquet", "mine.csv", f"{tmp_path}/mine.jsonl"):
        loaded = load(name, tmp_path)
        assert [(problem.prompt, problem.answer) for problem in loaded.problems][1] == ("1 + 1?", "2")
        assert (loaded.task.name, loaded.task.trials, loaded.task.grader, loaded.task.group) == (
            name,
            1,
            "math",
            "other",
        )
    assert len(load("mine.jsonl", tmp_path, limit=2).problems) == 2


def test_a_data_set_of_the_hub_is_a_task(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def load_dataset(path: str, config: str | None, *, split: str | None) -> Any:
        assert (path, config, split) == ("org/name", "main", "test")
        return datasets.Dataset.from_list(ROWS)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert len(load("hf:org/name:main:test", tmp_path).problems) == 5


def test_the_recipe_sets_the_grader_and_rows_keep_their_own(tmp_path: Path) -> None:
    write_rows(
        tmp_path / "mine.jsonl", [{"prompt": "a?", "answer": "B"}, {"prompt": "1?", "answer": "1", "grader": "math"}]
    )
    recipe = load_recipe(None, ["grader=choice", "eval.task_settings={mine.jsonl: {trials: 3, instruction: Think.}}"])
    loaded = load_tasks(["mine.jsonl"], TaskContext.of(recipe, tmp_path))["mine.jsonl"]
    assert (loaded.task.grader, loaded.task.trials) == ("choice", 3)
    assert [(problem.grader, problem.prompt) for problem in loaded.problems] == [
        (None, "a?\n\nThink."),
        ("math", "1?\n\nThink."),
    ]


def test_settings_are_found_by_any_spelling_of_the_path(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(tmp_path / "mine.jsonl", [{"prompt": "a?", "answer": "B"}])
    for task in ("mine.jsonl", "./mine.jsonl", f"{tmp_path}/mine.jsonl"):
        for named in ("mine.jsonl", "./mine.jsonl", f"{tmp_path}/mine.jsonl"):
            recipe = load_recipe(None, [f"eval.task_settings={{{named}: {{trials: 3}}}}"])
            assert load_tasks([task], TaskContext.of(recipe, tmp_path))[task].task.trials == 3
    assert "does not exist" not in capsys.readouterr().err
    recipe = load_recipe(None, ["eval.task_settings={mien.jsonl: {trials: 3}}"])
    assert load_tasks(["mine.jsonl"], TaskContext.of(recipe, tmp_path))["mine.jsonl"].task.trials == 1
    text = " ".join(capsys.readouterr().err.split())
    assert "eval.task_settings: the file mien.jsonl does not exist; did you mean 'mine.jsonl'?" in text


def test_references_that_are_no_choice_letters_are_found_before_any_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_rows(tmp_path / "mine.jsonl", [{"prompt": "a?", "answer": "the Sun"}, {"prompt": "b?", "answer": "2"}])
    message = refused("mine.jsonl", tmp_path, grader="choice")
    assert message.startswith("mine.jsonl#1: the reference answer 'the Sun' is not a choice letter\n  cure:")
    write_rows(tmp_path / "mine.jsonl", [{"prompt": "a?", "answer": "the Sun"}, {"prompt": "b?", "answer": "b"}])
    (_, problem) = load("mine.jsonl", tmp_path, grader="choice").problems
    assert "answers to 1 problem of this kind will be undecided" in " ".join(capsys.readouterr().err.split())
    completions = [Completion(problem, text, "stop") for text in ("The answer is (B).", "The answer is (A).")]
    assert [grade.verdict for grade in grade_answers(completions, "choice")] == ["right", "wrong"]


def test_a_folder_is_named_with_the_way_to_read_it(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    for name in ("set", "set/"):
        assert "expected a file of problems, got a folder\n  cure: use hf:" in refused(name, tmp_path)


def test_invalid_sets_are_refused_before_any_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused("mine.jsonl", tmp_path).startswith(f"{tmp_path / 'mine.jsonl'}: file not found")
    assert refused("org/name", tmp_path).endswith("'org/name'\n  cure: a data set of the hub is hf:org/name")
    write_rows(tmp_path / "mine.jsonl", [])
    assert refused("mine.jsonl", tmp_path).startswith("mine.jsonl: the problem set is empty")
    write_rows(tmp_path / "mine.jsonl", [{"prompt": "a?"}, {"prompt": "b?", "answer": ""}])
    assert refused("mine.jsonl", tmp_path).startswith("mine.jsonl: no problem has a reference answer")
    write_rows(tmp_path / "mine.jsonl", [{"text": "a?"}])
    assert "mine.jsonl:1: the field 'prompt' is missing" in refused("mine.jsonl", tmp_path)
    write_rows(tmp_path / "mine.jsonl", [{"prompt": "a?", "answer": "1", "grader": "guess"}])
    assert refused("mine.jsonl", tmp_path).startswith("grader: unknown grader 'guess'")
    write_rows(tmp_path / "mine.jsonl", [{"prompt": "a?", "answer": "1", "grader": "os:system"}])
    assert "a row names the checker os:system" in refused("mine.jsonl", tmp_path)
    # The same prompt with two answers: at most one of them is right, and 1/2 and 0.5 are the same one.
    rows = [("a?", "1"), ("b?", "1/2"), ("a?", "2"), ("b?", "0.5")]
    write_rows(tmp_path / "mine.jsonl", [{"prompt": prompt, "answer": answer} for prompt, answer in rows])
    capsys.readouterr()
    assert [problem.prompt for problem in load("mine.jsonl", tmp_path).problems] == ["b?"]
    assert "1 problems are left out (conflicting references)" in " ".join(capsys.readouterr().err.split())


# Task files

TASK_FILE = """\
problems: mine.jsonl
grader: choice
trials: 4
max_new_tokens: 4096
instruction: End with the letter.
group: OOD
"""


def test_a_task_file_describes_a_task(tmp_path: Path) -> None:
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "mine.yaml").write_text(TASK_FILE)
    # The path is relative to the task file.
    write_rows(tmp_path / "tasks" / "mine.jsonl", [{"prompt": "a?", "answer": "B"}])
    loaded = load("tasks/mine.yaml", tmp_path)
    task = loaded.task
    assert (task.grader, task.trials, task.max_new_tokens, task.group) == ("choice", 4, 4096, "OOD")
    assert loaded.problems[0].prompt == "a?\n\nEnd with the letter."


def test_a_task_file_can_state_the_number_of_problems(tmp_path: Path) -> None:
    write_rows(tmp_path / "mine.jsonl", ROWS)
    (tmp_path / "mine.yaml").write_text("problems: mine.jsonl\nrows: 5\n")
    assert len(load("mine.yaml", tmp_path, limit=2).problems) == 2
    (tmp_path / "mine.yaml").write_text("problems: mine.jsonl\nrows: 6\n")
    assert refused("mine.yaml", tmp_path, limit=2).startswith("mine.jsonl: expected 6 problems, got 5")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("problem: mine.jsonl\n", "{path}: the key `problems` is missing"),
        ("problems: mine.jsonl\ntrails: 4\n", "{path}:2: trails: unknown key\n  cure: did you mean 'trials'?"),
        ("problems: mine.jsonl\ntrials: 0\n", "{path}:2: trials: input should be greater than 0, got 0"),
        ("problems: mine.jsonl\ntrials: 2\ntrials: 3\n", "{path}:3: trials: duplicate key (first in line 2)"),
        ("- mine.jsonl\n", "{path}: expected a mapping of keys to values, got a list"),
        ("", "{path}: the key `problems` is missing"),
    ],
)
def test_an_invalid_task_file_names_the_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError) as caught:
        load("mine.yaml", tmp_path)
    assert str(caught.value).startswith(message.format(path=path))


def test_a_missing_task_file(tmp_path: Path) -> None:
    assert refused("mine.yaml", tmp_path) == f"{tmp_path / 'mine.yaml'}: task file not found"


# Tasks of other packages

MODULE = """
from spotcli.evaluation.tasks import Task
from spotcli.records import Problem


def load(context):
    return [Problem(id=str(n), prompt=f"Say {n}.", answer=str(n)) for n in range(context.seed, context.seed + 3)]


SAY = Task("say", load, trials=2, max_new_tokens=16, metrics=lambda score: {"short": float(len(score.response) < 9)})


def build():
    return Task("another-name", load)


WRONG = "no task"


def broken():
    raise RuntimeError("no data")


TWICE = Task("twice", lambda context: [Problem(id="1", prompt="a"), Problem(id="1", prompt="b")])
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An installed distribution with tasks: a module and its metadata in a folder on the search path."""
    folder = tmp_path / "site"
    metadata = folder / "say_tasks-1.0.dist-info"
    metadata.mkdir(parents=True)
    (folder / "say_tasks.py").write_text(MODULE)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: say-tasks\nVersion: 1.0\n")
    entries = ["say = say_tasks:SAY", "built = say_tasks:build", "wrong = say_tasks:WRONG", "broken = say_tasks:broken"]
    entries += ["missing = say_tasks:missing", "math500 = say_tasks:SAY", "twice = say_tasks:TWICE"]
    (metadata / "entry_points.txt").write_text("\n".join(["[spotcli.tasks]", *entries, ""]))
    monkeypatch.syspath_prepend(str(folder))
    plugins.registered.cache_clear()
    yield folder
    plugins.registered.cache_clear()
    sys.modules.pop("say_tasks", None)


@pytest.mark.usefixtures("package")
def test_an_installed_package_registers_tasks(tmp_path: Path) -> None:
    loaded = load("say", tmp_path, seed=4)
    assert [problem.prompt for problem in loaded.problems] == ["Say 4.", "Say 5.", "Say 6."]
    assert (loaded.task.trials, loaded.task.max_new_tokens) == (2, 16)
    assert load_task("built").name == "built"  # the registered name
    assert load_task("math500").published_rows == 500  # a built-in task is never replaced
    with pytest.raises(UserError, match="did you mean 'say'"):
        load_task("sai")
    assert refused("twice", tmp_path).startswith("twice: 1 problem ids occur more than once, such as '1'")


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("wrong", "expected a spotcli.evaluation.tasks.Task, got str"),
        ("broken", "failed to load say_tasks:broken: RuntimeError: no data"),
        ("missing", "failed to load say_tasks:missing: AttributeError"),
    ],
)
def test_an_invalid_entry_point_names_its_package(name: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        load_task(name)
    assert str(caught.value).startswith(f"task '{name}' of the package say-tasks: {message}")


def test_two_packages_with_the_same_task(package: Path) -> None:
    metadata = package / "more_tasks-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: more-tasks\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[spotcli.tasks]\nsay = say_tasks:build\n")
    plugins.registered.cache_clear()
    with pytest.raises(
        UserError, match=r"several packages register the task 'say': (say|more)-tasks, (say|more)-tasks"
    ):
        load_task("say")


# Evaluations


def test_an_evaluation_answers_a_file_and_a_task_file(tiny_model: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "mine.jsonl", ROWS)
    (tmp_path / "mine.yaml").write_text("problems: mine.jsonl\ntrials: 2\nmax_new_tokens: 4\ninstruction: Be short.\n")
    recipe = load_recipe(None, ["eval.tasks=[mine.jsonl, mine.yaml]", "eval.max_new_tokens=6", "eval.dtype=float32"])
    evaluate(recipe, model=str(tiny_model), against=None, folder=tmp_path)
    path = next(path for path in (tmp_path / "scores").glob("*.jsonl") if "answers" not in path.name)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert {row["split"] for row in rows} == {"eval"}
    assert [sum(row["task"] == name for row in rows) for name in ("mine.jsonl", "mine.yaml")] == [5, 10]
    assert {row["prompt"] for row in rows if row["task"] == "mine.yaml" and row["trial"] == 1} == {
        f"{row['question']}\n\nBe short." for row in ROWS
    }


def test_the_overlap_with_the_training_file_is_reported(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_rows(tmp_path / "mine.jsonl", ROWS)
    pairs = [{"id": f"pair-{n}", "prompt": f"{n} + 1?", "rejected": "0", "chosen": str(n + 1)} for n in (2, 3, 77)]
    write_rows(tmp_path / "pairs.jsonl", pairs)
    overrides = ["eval.tasks=[mine.jsonl]", "eval.max_new_tokens=2", "eval.dtype=float32"]
    summary = evaluate(load_recipe(None, overrides), model=str(tiny_model), against=None, folder=tmp_path)
    assert summary.overlaps == {}  # there is no data.jsonl
    recipe = load_recipe(None, [*overrides, "train.data=pairs.jsonl"])
    summary = evaluate(recipe, model=str(tiny_model), against=None, folder=tmp_path)
    assert summary.overlaps == {"mine.jsonl": 2}
    ids = [problem.id for problem in load("mine.jsonl", tmp_path).problems[2:4]]
    assert f"2 rows contain 2 problems of mine.jsonl ({', '.join(ids)})" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task", "aime24", "--data-dir", "."], "expected the 30 published problems of aime24, got 2"),
        (["--task", "amc23", "--data-dir", "."], "amc23: the problem set is missing: no file amc23.jsonl in ."),
        (["--task", "empty.jsonl"], "empty.jsonl: the problem set is empty"),
        (["--task", "aime2024x"], "unknown task 'aime2024x'"),
        (["--task", "hf:cloned"], "hf:cloned: failed to load the data set: while parsing a flow sequence"),
        (["--task", "mmlu.jsonl"], "mmlu.jsonl:1: the answer is the letter of a choice, and the prompt does not"),
    ],
)
def test_the_command_refuses_invalid_data_in_one_message(tmp_path: Path, arguments: list[str], message: str) -> None:
    write_rows(tmp_path / "aime24.jsonl", [{"problem": f"{n}?", "answer": n} for n in range(2)])
    write_rows(tmp_path / "empty.jsonl", [])
    write_rows(tmp_path / "mmlu.jsonl", [{"question": "Which is a star?", "options": ["Sun", "Moon"], "answer": "A"}])
    (tmp_path / "cloned").mkdir()
    (tmp_path / "cloned" / "README.md").write_text("---\nlicense: [mit\n---\n")
    # The model is not found either, so the data are checked before a model is loaded.
    command = [sys.executable, "-m", "spotcli", "eval", "./nowhere", *arguments]
    env = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120)
    assert (result.returncode, result.stdout) == (2, "")
    assert message in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "scores").exists()
