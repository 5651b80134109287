"""problems -> samples, on a tiny real model and real files."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from spotcli import jsonl, outputs
from spotcli.errors import DataError, RecipeError, SettingsChanged, UserError
from spotcli.policies.models import load_tokenizer
from spotcli.problems.sources import iter_problems
from spotcli.recipe_yaml import load
from spotcli.records import Problem, Sample
from spotcli.stages import sample as stage
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
    assert outputs.read_meta(tmp_path / "samples.jsonl")["complete"] is True


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
        ('{"prompt": "a", "answer": "1"}\n{"prompt": "b", "ans', r"problems\.jsonl:2: the last line is incomplete"),
        ('{"prompt": "a"}\nnot json\n{"prompt": "c"}\n', r"problems\.jsonl:2: invalid JSON"),
        ('{"id": "1", "answer": "1"}\n', r"problems\.jsonl:1: the field 'prompt' is missing"),
        ('{"prompt": "a", "answer": [5]}\n', r"problems\.jsonl:1: the field 'answer'"),
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
    with pytest.raises(UserError, match=r"problems\.jsonl: file not found"):
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
    with pytest.raises(UserError, match="unknown grader 'chioce'"):
        sample(recipe(tiny_model), folder=tmp_path)


def test_a_larger_limit_adds_only_the_new_problems(tiny_model: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "problems.jsonl", problems(5))
    assert sample(recipe(tiny_model, limit=2, trials=2), folder=tmp_path).new == 4
    first = (tmp_path / "samples.jsonl").read_bytes()
    assert sample(recipe(tiny_model, limit=4, trials=2), folder=tmp_path).new == 4
    assert sample(recipe(tiny_model, trials=2), folder=tmp_path).new == 2
    assert (tmp_path / "samples.jsonl").read_bytes().startswith(first)
    assert outputs.read_meta(tmp_path / "samples.jsonl")["asked"] == {"trials": 2, "limit": None}
    # Asked for less again, what is there stays, and still counts.
    again = sample(recipe(tiny_model, limit=1), folder=tmp_path)
    assert (again.new, again.answers) == (0, 10)


def test_a_start_that_goes_on_does_not_count_the_problems_again(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[bool] = []

    def counting(*args: Any, quiet: bool, **more: Any) -> Iterator[Problem]:
        read.append(quiet)
        yield from iter_problems(*args, quiet=quiet, **more)

    monkeypatch.setattr(stage, "iter_problems", counting)
    write_rows(tmp_path / "problems.jsonl", problems(5))
    sample(recipe(tiny_model, trials=3), folder=tmp_path)
    # The same with only two of the three trials: 5 answers are others. Three rows are missing, one of them another.
    output = tmp_path / "samples.jsonl"
    rows = list(jsonl.rows(output))
    gone = {("p1", 0), ("p2", 1), ("p3", 2)}
    write_rows(output, [row for row in rows if (row["id"], row["trial"]) not in gone])
    assert sample(recipe(tiny_model, trials=2), folder=tmp_path).new == 2
    assert outputs.read_meta(output)["counted"]["others"] == 4
    read.clear()
    kept = list(jsonl.rows(output))
    write_rows(output, [row for row in kept if (row["id"], row["trial"]) != ("p4", 1)])
    assert sample(recipe(tiny_model, trials=2), folder=tmp_path).new == 1
    assert set(read) == {True}
    read.clear()
    # Another wish, or other problems, and all is counted anew.
    assert sample(recipe(tiny_model, trials=3), folder=tmp_path).new == 1
    assert read[0] is False
    assert sorted((row["id"], row["trial"]) for row in jsonl.rows(output)) == sorted(
        (row["id"], row["trial"]) for row in rows
    )
    with (tmp_path / "problems.jsonl").open("a") as file:
        file.write('{"prompt": "another", "answer": "1"}\n')
    with pytest.raises(SettingsChanged):
        sample(recipe(tiny_model, trials=3), folder=tmp_path)


def test_pass_rates_count_what_is_undecided_as_not_right(tiny_model: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "problems.jsonl", problems(3))
    sample(recipe(tiny_model, trials=2), folder=tmp_path)
    rows = list(jsonl.rows(tmp_path / "samples.jsonl"))
    said = {("p0", 0): "right", ("p0", 1): "right", ("p1", 0): "right", ("p1", 1): "undecided", ("p2", 0): "wrong"}
    write_rows(
        tmp_path / "samples.jsonl",
        [row | {"verdict": said.get((row["id"], row["trial"]), "undecided")} for row in rows],
    )
    # p0 2 of 2, p1 1 of 2, p2 0 of 2: the mean of 1, 1/2 and 0.
    rates = {"mean": 0.5, "never": 1, "sometimes": 1, "always": 1}
    assert sample(recipe(tiny_model, trials=2), folder=tmp_path).pass_rate == rates
    assert outputs.read_meta(tmp_path / "samples.jsonl")["counts"]["pass_rate"] == rates
    assert list(jsonl.rows(tmp_path / "samples.rates.jsonl")) == [
        {"id": "p0", "trials": 2, "right": 2, "pass_rate": 1.0},
        {"id": "p1", "trials": 2, "right": 1, "undecided": 1, "pass_rate": 0.5},
        {"id": "p2", "trials": 2, "wrong": 1, "undecided": 1, "pass_rate": 0.0},
    ]


def test_the_recipes_words_stand_around_every_problem(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chat = [{"role": "system", "content": "You add."}, {"role": "user", "content": "1 + 2?"}]
    write_rows(tmp_path / "problems.jsonl", [{"id": "plain", "prompt": "1 + 1?"}, {"id": "chat", "prompt": chat}])
    settings = recipe(tiny_model, system="Be brief.", instruction="Box it.")
    sample(settings, folder=tmp_path)
    rows = {row.id: row.prompt for row in jsonl.read(tmp_path / "samples.jsonl", Sample)}
    assert rows["plain"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "1 + 1?\n\nBox it."},
    ]
    # A system prompt of its own stays.
    assert rows["chat"] == [
        {"role": "system", "content": "You add."},
        {"role": "user", "content": "1 + 2?\n\nBox it."},
    ]
    tail = (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n1 + 1?\n\nBox it.<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert outputs.read_meta(tmp_path / "samples.jsonl")["engine"]["prompt_tail"] == tail
    assert f"prompts end with: {tail!r}" in capsys.readouterr().err
    with pytest.raises(SettingsChanged, match=r'instruction was "Box it\.", now "No box\."'):
        sample(recipe(tiny_model, system="Be brief.", instruction="No box."), folder=tmp_path)


def test_tokens_are_kept_on_request(tiny_model: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "problems.jsonl", problems(4))
    sample(recipe(tiny_model, output="without.jsonl"), folder=tmp_path)
    assert not any("response_ids" in row for row in jsonl.rows(tmp_path / "without.jsonl"))
    sample(recipe(tiny_model, keep_tokens=True, max_new_tokens=300), folder=tmp_path)
    tokenizer = load_tokenizer(str(tiny_model))
    ends = set()
    for row in jsonl.read(tmp_path / "samples.jsonl", Sample):
        ids = row.model_dump()["response_ids"]
        assert tokenizer.decode(ids, skip_special_tokens=True) == row.response
        assert len(ids) == row.model_dump()["tokens"]
        # The end of turn is one of the emitted tokens, and a cut answer has none.
        assert (ids[-1] == tokenizer.eos_token_id) == (row.finish_reason == "stop")
        ends.add(row.finish_reason)
    assert "stop" in ends


@pytest.mark.parametrize(
    ("thinking", "tail"),
    [("auto", "assistant\n"), ("on", "assistant\n"), ("off", "assistant\n<think>\n\n</think>\n\n")],
)
def test_thinking_is_switched_by_the_templates_own_name(
    tiny_model: Path, tmp_path: Path, thinking: str, tail: str
) -> None:
    model = shutil.copytree(tiny_model, tmp_path / "model")
    template = (model / "chat_template.jinja").read_text()
    switched = template.replace(
        "assistant\n{% endif %}",
        "assistant\n{% if enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}",
    )
    assert switched != template
    (model / "chat_template.jinja").write_text(switched)
    write_rows(tmp_path / "problems.jsonl", problems(1))
    sample(recipe(model, thinking=thinking), folder=tmp_path)
    facts = outputs.read_meta(tmp_path / "samples.jsonl")["engine"]
    assert facts["prompt_tail"].endswith(f"<|im_start|>{tail}")
    assert facts["chat_template_kwargs"] == ({} if thinking == "auto" else {"enable_thinking": thinking == "on"})


def test_a_template_without_a_switch_cannot_be_made_to_think(tiny_model: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "problems.jsonl", problems(1))
    with pytest.raises(RecipeError, match="the model's chat template has no switch for thinking"):
        sample(recipe(tiny_model, thinking="on"), folder=tmp_path)


def test_parameters_are_recorded_and_the_models_own_do_not_replace_them(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = shutil.copytree(tiny_model, tmp_path / "model")
    (model / "generation_config.json").write_text(
        json.dumps({"do_sample": True, "temperature": 0.3, "top_k": 5, "repetition_penalty": 1.1, "eos_token_id": 1})
    )
    # A token a letter, and 1 + 5 + 1 + 1 + 1 + 10 of the template: of 4096 tokens of context, 5 are left.
    long = {"id": "long", "prompt": "x" * 4072, "answer": "1"}
    write_rows(tmp_path / "problems.jsonl", [*problems(1), long])
    requested = {"temperature": 0.9, "top_p": 0.7, "top_k": 3, "max_new_tokens": 9}
    settings = recipe(model, **requested)
    sample(settings, folder=tmp_path)
    assert (
        "not used of the model's own defaults: temperature 0.3 (here 0.9), top_k 5 (here 3), repetition_penalty 1.1"
    ) in capsys.readouterr().err
    meta = outputs.read_meta(tmp_path / "samples.jsonl")
    assert meta["engine"]["requested"] == requested
    assert meta["engine"]["model_defaults_not_used"] == {"temperature": 0.3, "top_k": 5, "repetition_penalty": 1.1}
    assert (meta["engine"]["name"], meta["engine"]["dtype"]) == ("transformers", "float32")
    rows = {row.id: row.sampling for row in jsonl.read(tmp_path / "samples.jsonl", Sample)}
    assert rows["p0"].items() >= requested.items()
    assert rows["long"]["max_new_tokens"] == 5
    assert rows["p0"]["seed"] != rows["long"]["seed"]
    assert {row["model"] for row in rows.values()} == {str(model)}
    # What is known of the engine outlives a start that had nothing to do.
    sample(settings, folder=tmp_path)
    assert outputs.read_meta(tmp_path / "samples.jsonl")["engine"] == meta["engine"]


def test_problems_that_evaluations_hold_are_left_out(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from spotcli.evaluation.tasks import arithmetic

    held = [problem.model_dump(include={"id", "prompt", "answer"}) for problem in arithmetic.problems(0, 3)]
    write_rows(tmp_path / "problems.jsonl", [*problems(5), *held])
    write_rows(tmp_path / "mine.jsonl", [{"question": "What is  $2 + 2$"}])
    # The flag alone: the tasks of the recipe, whose default is arithmetic.
    summary = sample(recipe(tiny_model), folder=tmp_path, decontaminated=True)
    assert (summary.problems, summary.answers, summary.decontaminated) == (5, 5, {"arithmetic": 3})
    assert "3 problems that evaluations hold are left out (arithmetic 3)" in capsys.readouterr().err
    meta = outputs.read_meta(tmp_path / "samples.jsonl")
    assert meta["counts"]["decontaminated"] == {"arithmetic": 3}
    assert meta["settings"]["decontaminate"] == ["arithmetic"]
    with pytest.raises(SettingsChanged, match="decontaminate was"):
        sample(recipe(tiny_model), folder=tmp_path)
    # The setting needs no flag, and its files are inputs.
    summary = sample(recipe(tiny_model, decontaminate=["mine.jsonl"], output="other.jsonl"), folder=tmp_path)
    assert summary.decontaminated == {"arithmetic": 3, "mine.jsonl": 1}
    assert "4 problems that evaluations hold are left out (arithmetic 3, mine.jsonl 1)" in capsys.readouterr().err
    assert set(outputs.read_meta(tmp_path / "other.jsonl")["inputs"]) == {"problems.jsonl", "mine.jsonl"}
    write_rows(tmp_path / "problems.jsonl", held)
    with pytest.raises(UserError, match=r"problems\.jsonl: no problem is left"):
        sample(recipe(tiny_model, output="none.jsonl"), folder=tmp_path, decontaminated=True)


def test_ctrl_c_keeps_what_is_finished_and_the_same_command_goes_on(tiny_model: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "problems.jsonl", problems(60))
    command = [sys.executable, "-m", "spotcli", "sample", "--model", str(tiny_model), "--max-new-tokens", "60"]
    command += ["-s", "sample.batch_size=4"]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while process.poll() is None and not count_lines(tmp_path / "samples.jsonl"):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, said = process.communicate(timeout=120)
    assert process.returncode == 3, said
    assert out == ""
    assert "stopping; finished answers are kept" in said
    kept = count_lines(tmp_path / "samples.jsonl")
    assert 0 < kept < 60
    assert f"stopped; {kept} answers are kept, {60 - kept} are still to come" in said
    assert "cure: the same command goes on from here" in said
    assert "Traceback" not in said
    first = (tmp_path / "samples.jsonl").read_bytes()
    meta = outputs.read_meta(tmp_path / "samples.jsonl")
    assert (meta["complete"], meta["counts"]["left"]) == (False, 60 - kept)
    subprocess.run(command, cwd=tmp_path, env=env, check=True, capture_output=True)
    assert (tmp_path / "samples.jsonl").read_bytes().startswith(first)
    keys = [row.key for row in jsonl.read(tmp_path / "samples.jsonl", Sample)]
    assert len(keys) == len(set(keys)) == 60
