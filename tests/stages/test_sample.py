"""problems -> samples, on a tiny real model and real files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from spotcli import jsonl
from spotcli.errors import DataError, RecipeError, SettingsChanged, UserError
from spotcli.recipe import load
from spotcli.records import Sample
from spotcli.stages.sample import sample
from tests.conftest import write_rows


def problems(number: int) -> list[dict[str, Any]]:
    return [
        {"id": f"p{at}", "prompt": f"What is {at} + {at}?", "answer": str(2 * at), "note": at} for at in range(number)
    ]


def recipe(model: Path, **keys: Any) -> Any:
    options = {"sample.max_new_tokens": 6, "sample.batch_size": 4, "sample.dtype": "float32", "model": str(model)}
    return load(None, None, options | {f"sample.{name}": value for name, value in keys.items()})


def test_every_answer_is_a_row_with_its_verdict_and_parameters(tiny_model: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "problems.jsonl", problems(5))
    summary = sample(recipe(tiny_model, trials=2), folder=tmp_path)
    rows = list(jsonl.read(tmp_path / "samples.jsonl", Sample))
    assert summary.answers == len(rows) == 10
    assert {row.key for row in rows} == {(f"p{at}", trial) for at in range(5) for trial in range(2)}
    # A random model boxes nothing: its answers are cut or hold no answer, and neither is a mistake.
    assert (summary.right, summary.wrong, summary.undecided) == (0, 0, 10)
    assert summary.cut == sum(row.finish_reason == "length" for row in rows)
    assert {row.reason for row in rows if row.finish_reason == "length"} <= {"cut"}
    assert all(row.model_dump()["note"] == int(row.id[1:]) for row in rows)
    assert rows[0].sampling["temperature"] == 0.7
    assert jsonl.read_meta(tmp_path / "samples.jsonl")["complete"] is True


def test_a_second_start_does_nothing_and_more_trials_add_only_the_new_ones(tiny_model: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "problems.jsonl", problems(4))
    sample(recipe(tiny_model), folder=tmp_path)
    first = (tmp_path / "samples.jsonl").read_bytes()
    assert sample(recipe(tiny_model), folder=tmp_path).new == 0
    assert (tmp_path / "samples.jsonl").read_bytes() == first
    assert sample(recipe(tiny_model, trials=3), folder=tmp_path).new == 8
    assert (tmp_path / "samples.jsonl").read_bytes().startswith(first)


def test_other_settings_are_refused_by_name_and_fresh_keeps_the_old_file(tiny_model: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "problems.jsonl", problems(2))
    sample(recipe(tiny_model), folder=tmp_path)
    first = (tmp_path / "samples.jsonl").read_bytes()
    with pytest.raises(SettingsChanged, match=r"temperature was 0\.7, now 0\.1"):
        sample(recipe(tiny_model, temperature=0.1), folder=tmp_path)
    assert (tmp_path / "samples.jsonl").read_bytes() == first
    sample(recipe(tiny_model, temperature=0.1), folder=tmp_path, fresh=True)
    assert (tmp_path / "samples.old-1.jsonl").read_bytes() == first


def test_killed_at_any_moment_the_file_ends_up_the_same(tiny_model: Path, tmp_path: Path) -> None:
    calm, rough = tmp_path / "calm", tmp_path / "rough"
    for folder in (calm, rough):
        folder.mkdir()
        write_rows(folder / "problems.jsonl", problems(60))
    command = [sys.executable, "-m", "spotcli", "sample", "--model", str(tiny_model), "--max-new-tokens", "40"]
    command += ["-s", "sample.batch_size=4"]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(command, cwd=calm, env=env, check=True, capture_output=True)
    # Killed once a part of the file is there, at three different parts of it.
    for lines in (1, 17, 38):
        process = subprocess.Popen(command, cwd=rough, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and count_lines(rough / "samples.jsonl") < lines:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        assert process.wait() in (-signal.SIGKILL, 0)
    # What a kill in the middle of a write leaves behind.
    with (rough / "samples.jsonl").open("r+b") as file:
        file.truncate(file.seek(0, os.SEEK_END) - 25)
    subprocess.run(command, cwd=rough, env=env, check=True, capture_output=True)
    assert (rough / "samples.jsonl").read_bytes() == (calm / "samples.jsonl").read_bytes()
    assert len((rough / "samples.torn").read_text().splitlines()) == 1


def count_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"prompt": "a", "answer": "1"}\n{"prompt": "b", "ans', r"problems\.jsonl:2: the last line is cut off"),
        ('{"prompt": "a"}\nnot json\n{"prompt": "c"}\n', r"problems\.jsonl:2: not a line of JSON"),
        ('{"id": "1", "answer": "1"}\n', r"problems\.jsonl:1: the field 'prompt' is missing"),
        ('{"prompt": "a", "answer": 5}\n', r"problems\.jsonl:1: the field 'answer'"),
    ],
)
def test_a_broken_input_is_named_with_its_line(tiny_model: Path, tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "problems.jsonl").write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        sample(recipe(tiny_model), folder=tmp_path)
    assert caught.value.cure
    assert (tmp_path / "problems.jsonl").read_text() == content
    assert not (tmp_path / "samples.jsonl").exists()


def test_what_is_missing_is_said_before_anything_is_written(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no model is named"):
        sample(load(None), folder=tmp_path)
    with pytest.raises(UserError, match=r"problems\.jsonl: there is no such file"):
        sample(recipe(tiny_model), folder=tmp_path)
    write_rows(tmp_path / "problems.jsonl", problems(1))
    with pytest.raises(UserError, match="no such model folder"):
        sample(recipe(tmp_path / "nowhere"), folder=tmp_path)


def test_repeated_prompts_are_asked_once(tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"question": "Why?", "ground_truth": "42", "id": str(at)} for at in range(3)]
    write_rows(tmp_path / "problems.jsonl", rows)
    assert sample(recipe(tiny_model), folder=tmp_path).answers == 1
    said = capsys.readouterr().err
    assert "2 problems whose prompt was there already are left out" in said
    assert "'question' as 'prompt'" in said
    assert json.loads((tmp_path / "samples.jsonl").read_text())["answer"] == "42"


def test_a_recipe_may_bring_its_own_checker_and_data_may_not(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "house_rules.py").write_text(
        "def long_enough(response, reference):\n    return len(response) >= int(reference)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    checker = "house_rules:long_enough"
    rows = [{"id": "short", "prompt": "a", "answer": "0"}, {"id": "long", "prompt": "b", "answer": "999"}]
    write_rows(tmp_path / "problems.jsonl", rows)
    settings = load(None, None, {"model": str(tiny_model), "grader": checker, "sample.max_new_tokens": 400})
    sample(settings, folder=tmp_path)
    stopped = {row.id: row for row in jsonl.read(tmp_path / "samples.jsonl", Sample) if row.finish_reason == "stop"}
    assert stopped
    assert all(row.verdict == ("right" if row.id == "short" else "wrong") for row in stopped.values())
    assert all(row.grader == checker for row in stopped.values())

    write_rows(tmp_path / "hostile.jsonl", [{"prompt": "a", "answer": "1", "grader": "os:system"}])
    with pytest.raises(UserError, match="which only a recipe may name"):
        sample(recipe(tiny_model, problems="hostile.jsonl", output="other.jsonl"), folder=tmp_path)


def test_a_problem_says_how_it_is_graded(tiny_model: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "problems.jsonl", [{"prompt": "a", "answer": "1", "grader": "chioce"}])
    with pytest.raises(UserError, match="there is no grader 'chioce'"):
        sample(recipe(tiny_model), folder=tmp_path)
