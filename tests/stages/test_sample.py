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
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from spotcli import jsonl, outputs
from spotcli.errors import DataError, RecipeError, SettingsChanged, UserError
from spotcli.policies.models import load_tokenizer
from spotcli.problems.sources import iter_problems
from spotcli.recipe_yaml import load
from spotcli.records import Problem, Sample
from spotcli.sampling import problem_set
from spotcli.sampling.pass_rates import PassRate
from spotcli.sampling.shards import Shard
from spotcli.stages.sample import merge_shards, sample
from tests.conftest import write_rows


def problems(number: int) -> list[dict[str, Any]]:
    return [
        {"id": f"p{index}", "prompt": f"What is {index} + {index}?", "answer": str(2 * index), "note": index}
        for index in range(number)
    ]


def recipe(model: Path, **keys: Any) -> Any:
    options = {"sample.max_new_tokens": 6, "sample.batch_size": 4, "sample.dtype": "float32", "model": str(model)}
    return load(None, None, options | {f"sample.{name}": value for name, value in keys.items()})


def test_every_answer_is_a_row_with_its_verdict_and_parameters(tiny_model: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "problems.jsonl", problems(5))
    summary = sample(recipe(tiny_model, trials=2), folder=tmp_path)
    rows = list(jsonl.read(tmp_path / "samples.jsonl", Sample))
    assert summary.answers == len(rows) == 10
    assert {row.key for row in rows} == {(f"p{index}", trial) for index in range(5) for trial in range(2)}
    # A random model boxes nothing: its answers are truncated or have no final answer, neither is a mistake.
    assert (summary.right, summary.wrong, summary.undecided) == (0, 0, 10)
    assert summary.truncated == sum(row.finish_reason == "length" for row in rows)
    assert {row.reason for row in rows if row.finish_reason == "length"} <= {"truncated"}
    assert all(row.model_dump()["note"] == int(row.id[1:]) for row in rows)
    assert rows[0].sampling["temperature"] == 0.7
    assert outputs.read_meta(tmp_path / "samples.jsonl")["complete"] is True


def test_a_second_run_adds_nothing_and_more_trials_add_only_new_answers(tiny_model: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "problems.jsonl", problems(4))
    sample(recipe(tiny_model), folder=tmp_path)
    first = (tmp_path / "samples.jsonl").read_bytes()
    assert sample(recipe(tiny_model), folder=tmp_path).new_answers == 0
    assert (tmp_path / "samples.jsonl").read_bytes() == first
    assert sample(recipe(tiny_model, trials=3), folder=tmp_path).new_answers == 8
    assert (tmp_path / "samples.jsonl").read_bytes().startswith(first)


def test_changed_settings_are_refused_by_name_and_fresh_keeps_the_old_file(tiny_model: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "problems.jsonl", problems(2))
    sample(recipe(tiny_model), folder=tmp_path)
    first = (tmp_path / "samples.jsonl").read_bytes()
    with pytest.raises(SettingsChanged, match=r"temperature was 0\.7, now 0\.1"):
        sample(recipe(tiny_model, temperature=0.1), folder=tmp_path)
    assert (tmp_path / "samples.jsonl").read_bytes() == first
    sample(recipe(tiny_model, temperature=0.1), folder=tmp_path, fresh=True)
    assert (tmp_path / "samples.old-1.jsonl").read_bytes() == first


def test_other_parameters_of_the_endpoint_are_refused_and_a_folder_has_one_name(
    tiny_model: Path, tmp_path: Path
) -> None:
    write_rows(tmp_path / "problems.jsonl", problems(2))
    sample(recipe(tiny_model, params={"reasoning_effort": "low"}), folder=tmp_path)
    with pytest.raises(SettingsChanged, match="params was"):
        sample(recipe(tiny_model, params={"reasoning_effort": "high"}), folder=tmp_path)
    slash = load(None, None, {"model": f"{tiny_model}/"})
    again = recipe(tiny_model, params={"reasoning_effort": "low"}).model_copy(update={"model": slash.model})
    assert sample(again, folder=tmp_path).new_answers == 0


def test_after_kills_the_file_is_the_same(tiny_model: Path, tmp_path: Path) -> None:
    calm, rough = tmp_path / "calm", tmp_path / "rough"
    for folder in (calm, rough):
        folder.mkdir()
        write_rows(folder / "problems.jsonl", problems(60))
    command = [sys.executable, "-m", "spotcli", "sample", "--model", str(tiny_model), "--max-new-tokens", "40"]
    command += ["-s", "sample.batch_size=4"]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(command, cwd=calm, env=env, check=True, capture_output=True)
    # Killed three times, each time when the file has more rows.
    for lines in (1, 17, 38):
        process = subprocess.Popen(command, cwd=rough, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and count_lines(rough / "samples.jsonl") < lines:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        assert process.wait() in (-signal.SIGKILL, 0)
    # As after a kill in the middle of a write.
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
        ('{"prompt": "a", "answer": [[5]]}\n', r"problems\.jsonl:1: expected a text or a list of accepted answers"),
    ],
)
def test_an_invalid_input_is_named_with_its_line(tiny_model: Path, tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "problems.jsonl").write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        sample(recipe(tiny_model), folder=tmp_path)
    assert caught.value.cure
    assert (tmp_path / "problems.jsonl").read_text() == content
    assert not (tmp_path / "samples.jsonl").exists()


def test_missing_inputs_are_reported_before_anything_is_written(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="a model is required"):
        sample(load(None), folder=tmp_path)
    with pytest.raises(UserError, match=r"problems\.jsonl: file not found"):
        sample(recipe(tiny_model), folder=tmp_path)
    write_rows(tmp_path / "problems.jsonl", problems(1))
    with pytest.raises(UserError, match="model folder not found"):
        sample(recipe(tmp_path / "nowhere"), folder=tmp_path)


def test_repeated_prompts_are_asked_once(tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"question": "Why?", "ground_truth": "42", "id": str(index)} for index in range(3)]
    write_rows(tmp_path / "problems.jsonl", rows)
    assert sample(recipe(tiny_model), folder=tmp_path).answers == 1
    talk = capsys.readouterr().err
    assert "problems.jsonl: skipped 2 rows with a repeated prompt; 1 problems remain" in talk
    assert "'question' as 'prompt'" in talk
    assert json.loads((tmp_path / "samples.jsonl").read_text())["answer"] == "42"


def test_a_recipe_may_name_a_custom_checker_but_data_may_not(
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
    with pytest.raises(UserError, match="only a recipe may name a checker"):
        sample(recipe(tiny_model, problems="hostile.jsonl", output="other.jsonl"), folder=tmp_path)


def test_an_unknown_grader_of_a_problem_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "problems.jsonl", [{"prompt": "a", "answer": "1", "grader": "chioce"}])
    with pytest.raises(UserError, match="unknown grader 'chioce'"):
        sample(recipe(tiny_model), folder=tmp_path)


def test_a_larger_limit_adds_only_the_new_problems(tiny_model: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "problems.jsonl", problems(5))
    assert sample(recipe(tiny_model, limit=2, trials=2), folder=tmp_path).new_answers == 4
    first = (tmp_path / "samples.jsonl").read_bytes()
    assert sample(recipe(tiny_model, limit=4, trials=2), folder=tmp_path).new_answers == 4
    assert sample(recipe(tiny_model, trials=2), folder=tmp_path).new_answers == 2
    assert (tmp_path / "samples.jsonl").read_bytes().startswith(first)
    assert outputs.read_meta(tmp_path / "samples.jsonl")["asked"] == {"trials": 2, "limit": None}
    # With a smaller limit, all answers stay and count.
    again = sample(recipe(tiny_model, limit=1), folder=tmp_path)
    assert (again.new_answers, again.answers) == (0, 10)


def test_a_resumed_run_does_not_count_the_problems_again(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[bool] = []

    def counting(*args: Any, quiet: bool, **more: Any) -> Iterator[Problem]:
        read.append(quiet)
        yield from iter_problems(*args, quiet=quiet, **more)

    monkeypatch.setattr(problem_set, "iter_problems", counting)
    write_rows(tmp_path / "problems.jsonl", problems(5))
    sample(recipe(tiny_model, trials=3), folder=tmp_path)
    # With only two of the three trials, 5 answers are others. Three rows are missing, one of them of the others.
    output = tmp_path / "samples.jsonl"
    rows = list(jsonl.rows(output))
    gone = {("p1", 0), ("p2", 1), ("p3", 2)}
    write_rows(output, [row for row in rows if (row["id"], row["trial"]) not in gone])
    assert sample(recipe(tiny_model, trials=2), folder=tmp_path).new_answers == 2
    assert outputs.read_meta(output)["counted"]["others"] == 4
    read.clear()
    kept = list(jsonl.rows(output))
    write_rows(output, [row for row in kept if (row["id"], row["trial"]) != ("p4", 1)])
    assert sample(recipe(tiny_model, trials=2), folder=tmp_path).new_answers == 1
    assert set(read) == {True}
    read.clear()
    # With other trials or other problems, everything is counted again.
    assert sample(recipe(tiny_model, trials=3), folder=tmp_path).new_answers == 1
    assert read[0] is False
    assert sorted((row["id"], row["trial"]) for row in jsonl.rows(output)) == sorted(
        (row["id"], row["trial"]) for row in rows
    )
    with (tmp_path / "problems.jsonl").open("a") as file:
        file.write('{"prompt": "another", "answer": "1"}\n')
    with pytest.raises(SettingsChanged):
        sample(recipe(tiny_model, trials=3), folder=tmp_path)


def test_pass_rates_count_undecided_answers_as_not_right(tiny_model: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "problems.jsonl", problems(3))
    sample(recipe(tiny_model, trials=2), folder=tmp_path)
    rows = list(jsonl.rows(tmp_path / "samples.jsonl"))
    verdicts = {("p0", 0): "right", ("p0", 1): "right", ("p1", 0): "right", ("p1", 1): "undecided", ("p2", 0): "wrong"}
    write_rows(
        tmp_path / "samples.jsonl",
        [row | {"verdict": verdicts.get((row["id"], row["trial"]), "undecided")} for row in rows],
    )
    # p0 has 2 of 2, p1 1 of 2, p2 0 of 2: the mean of 1, 1/2 and 0.
    rates = PassRate(mean=0.5, never=1, sometimes=1, always=1)
    assert sample(recipe(tiny_model, trials=2), folder=tmp_path).pass_rate == rates
    assert outputs.read_meta(tmp_path / "samples.jsonl")["counts"]["pass_rate"] == asdict(rates)
    assert list(jsonl.rows(tmp_path / "samples.rates.jsonl")) == [
        {"id": "p0", "trials": 2, "right": 2, "pass_rate": 1.0},
        {"id": "p1", "trials": 2, "right": 1, "undecided": 1, "pass_rate": 0.5},
        {"id": "p2", "trials": 2, "wrong": 1, "undecided": 1, "pass_rate": 0.0},
    ]


def test_system_prompt_and_instruction_are_added_to_every_problem(
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
    # A problem keeps its own system prompt.
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


def test_token_ids_are_written_on_request(tiny_model: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "problems.jsonl", problems(4))
    sample(recipe(tiny_model, output="without.jsonl"), folder=tmp_path)
    assert not any("response_ids" in row for row in jsonl.rows(tmp_path / "without.jsonl"))
    sample(recipe(tiny_model, keep_tokens=True, max_new_tokens=300), folder=tmp_path)
    tokenizer = load_tokenizer(str(tiny_model))
    finish_reasons = set()
    for row in jsonl.read(tmp_path / "samples.jsonl", Sample):
        ids = row.model_dump()["response_ids"]
        assert tokenizer.decode(ids, skip_special_tokens=True) == row.response
        assert len(ids) == row.model_dump()["tokens"]
        # The end of turn is one of the generated tokens; a truncated answer has none.
        assert (ids[-1] == tokenizer.eos_token_id) == (row.finish_reason == "stop")
        finish_reasons.add(row.finish_reason)
    assert "stop" in finish_reasons


@pytest.mark.parametrize(
    ("thinking", "tail"),
    [("auto", "assistant\n"), ("on", "assistant\n"), ("off", "assistant\n<think>\n\n</think>\n\n")],
)
def test_thinking_is_switched_by_the_parameter_of_the_template(
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


def test_thinking_is_refused_for_a_template_without_a_switch(tiny_model: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "problems.jsonl", problems(1))
    with pytest.raises(RecipeError, match="the chat template has no switch for thinking"):
        sample(recipe(tiny_model, thinking="on"), folder=tmp_path)


def test_parameters_are_recorded_and_the_models_defaults_are_ignored(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = shutil.copytree(tiny_model, tmp_path / "model")
    (model / "generation_config.json").write_text(
        json.dumps({"do_sample": True, "temperature": 0.3, "top_k": 5, "repetition_penalty": 1.1, "eos_token_id": 1})
    )
    # One token per letter, and 1 + 5 + 1 + 1 + 1 + 10 of the template: 5 of the 4096 tokens of context remain.
    long = {"id": "long", "prompt": "x" * 4072, "answer": "1"}
    write_rows(tmp_path / "problems.jsonl", [*problems(1), long])
    requested = {"temperature": 0.9, "top_p": 0.7, "top_k": 3, "max_new_tokens": 9}
    settings = recipe(model, **requested)
    sample(settings, folder=tmp_path)
    assert (
        "ignored defaults of the model: temperature 0.3 (using 0.9), top_k 5 (using 3), repetition_penalty 1.1"
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
    # A run without missing answers keeps the facts about the engine.
    sample(settings, folder=tmp_path)
    assert outputs.read_meta(tmp_path / "samples.jsonl")["engine"] == meta["engine"]


def test_problems_of_evaluation_sets_are_excluded(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from spotcli.problems.arithmetic import take

    held = [problem.model_dump(include={"id", "prompt", "answer"}) for problem in take(0, "test", 3)]
    write_rows(tmp_path / "problems.jsonl", [*problems(5), *held])
    write_rows(tmp_path / "mine.jsonl", [{"question": "What is  $2 + 2$"}])
    # The flag alone excludes problems of the recipe's tasks, which are arithmetic by default.
    summary = sample(recipe(tiny_model), folder=tmp_path, decontaminated=True)
    assert (summary.problems, summary.answers, summary.decontaminated) == (5, 5, {"arithmetic": 3})
    assert "excluded 3 problems that occur in evaluation sets (arithmetic 3)" in capsys.readouterr().err
    meta = outputs.read_meta(tmp_path / "samples.jsonl")
    assert meta["counts"]["decontaminated"] == {"arithmetic": 3}
    assert meta["settings"]["decontaminate"] == ["arithmetic"]
    with pytest.raises(SettingsChanged, match="decontaminate was"):
        sample(recipe(tiny_model), folder=tmp_path)
    # The setting needs no flag, and its files are recorded as inputs.
    summary = sample(recipe(tiny_model, decontaminate=["mine.jsonl"], output="other.jsonl"), folder=tmp_path)
    assert summary.decontaminated == {"arithmetic": 3, "mine.jsonl": 1}
    assert "excluded 4 problems that occur in evaluation sets (arithmetic 3, mine.jsonl 1)" in capsys.readouterr().err
    inputs = {"problems.jsonl", "mine.jsonl", "problems of arithmetic", "problems of mine.jsonl"}
    assert set(outputs.read_meta(tmp_path / "other.jsonl")["inputs"]) == inputs
    write_rows(tmp_path / "problems.jsonl", held)
    with pytest.raises(UserError, match=r"problems\.jsonl: every problem occurs in an evaluation set"):
        sample(recipe(tiny_model, output="none.jsonl"), folder=tmp_path, decontaminated=True)


def test_a_changed_evaluation_set_is_noticed_on_resume(tiny_model: Path, tmp_path: Path) -> None:
    held = [{"problem": f"What is {index} times {index}?", "answer": str(index**2)} for index in range(30)]
    write_rows(tmp_path / "problems.jsonl", [*problems(4), {"id": "held", "prompt": "What is 40 times 40?"}])
    (tmp_path / "sets").mkdir()
    write_rows(tmp_path / "sets" / "aime24.jsonl", held)
    (tmp_path / "task.yaml").write_text("problems: mine.jsonl\n")
    write_rows(tmp_path / "mine.jsonl", [{"prompt": "Name a prime above 100.", "answer": "101"}])
    tasks = {"eval.tasks": ["aime24"], "eval.data_dir": "sets"}
    settings = recipe(tiny_model, decontaminate=["task.yaml"])
    settings = settings.model_copy(update={"eval": load(None, None, tasks).eval})
    assert sample(settings, folder=tmp_path).decontaminated == {}
    # The same problems in another order, with other answers, exclude the same.
    write_rows(tmp_path / "sets" / "aime24.jsonl", [row | {"answer": "7"} for row in reversed(held)])
    before = (tmp_path / "samples.jsonl").read_bytes()
    assert sample(settings, folder=tmp_path).answers == 5
    assert (tmp_path / "samples.jsonl").read_bytes() == before
    # Another problem in a file of the folder, which is neither a setting nor an input by its name.
    write_rows(tmp_path / "sets" / "aime24.jsonl", [*held[:-1], {"problem": "What is 40 times 40?", "answer": "1600"}])
    with pytest.raises(SettingsChanged, match="problems of aime24 was"):
        sample(settings, folder=tmp_path)
    assert (tmp_path / "samples.jsonl").read_bytes() == before
    assert sample(settings, folder=tmp_path, fresh=True).decontaminated == {"aime24": 1}
    # The problems that a task file names, while the task file stays as it is.
    write_rows(tmp_path / "mine.jsonl", [{"prompt": "What is 1 + 1?", "answer": "2"}])
    with pytest.raises(SettingsChanged, match=r"problems of task\.yaml was"):
        sample(settings, folder=tmp_path)


def test_answers_of_versions_without_digests_of_evaluation_sets_are_resumed(tiny_model: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "problems.jsonl", problems(3))
    sample(recipe(tiny_model), folder=tmp_path, decontaminated=True)
    meta = json.loads((tmp_path / "samples.meta.json").read_text())
    meta["inputs"] = {"problems.jsonl": meta["inputs"]["problems.jsonl"]}
    (tmp_path / "samples.meta.json").write_text(json.dumps(meta))
    assert sample(recipe(tiny_model, trials=2), folder=tmp_path, decontaminated=True).new_answers == 3


def test_problems_with_conflicting_reference_answers_are_excluded(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = problems(4)
    other = {"prompt": rows[1]["prompt"], "answer": "3"}
    same = {"prompt": rows[2]["prompt"], "answer": "4.0"}
    write_rows(tmp_path / "problems.jsonl", [*rows, other, same])
    # An earlier version answered the first of the conflicting rows too; its file is resumed as it is.
    write_rows(tmp_path / "once.jsonl", rows)
    sample(recipe(tiny_model, problems="once.jsonl"), folder=tmp_path)
    (tmp_path / "problems.jsonl").rename(tmp_path / "twice.jsonl")
    meta = outputs.read_meta(tmp_path / "samples.jsonl")
    meta["settings"]["problems"] = "twice.jsonl"
    meta["inputs"] = {"twice.jsonl": jsonl.digest(tmp_path / "twice.jsonl")}
    del meta["counted"]["conflicting"]
    jsonl.write_json(outputs.meta_path(tmp_path / "samples.jsonl"), meta)
    before = (tmp_path / "samples.jsonl").read_bytes()
    summary = sample(recipe(tiny_model, problems="twice.jsonl"), folder=tmp_path)
    assert (summary.problems, summary.conflicting, summary.answers, summary.new_answers) == (3, 1, 4, 0)
    assert (tmp_path / "samples.jsonl").read_bytes() == before
    # A new file has no answer to it, in the first run and in one that resumes it.
    capsys.readouterr()
    settings = recipe(tiny_model, problems="twice.jsonl", output="new.jsonl")
    for trials in (1, 2):
        settings.sample.trials = trials
        summary = sample(settings, folder=tmp_path)
        assert (summary.problems, summary.conflicting, summary.remaining) == (3, 1, 0)
        assert (summary.answers, summary.new_answers) == (3 * trials, 3)
        error = " ".join(capsys.readouterr().err.split())
        assert f"{tmp_path / 'twice.jsonl'}:5: the reference answer '3' differs from '2'" in error
        assert "1 problems are left out (conflicting references)" in error
    assert {row.id for row in jsonl.read(tmp_path / "new.jsonl", Sample)} == {"p0", "p2", "p3"}
    assert outputs.read_meta(tmp_path / "new.jsonl")["counts"]["conflicting"] == 1
    # Of the shards, the one that has the problem counts it.
    for number in (1, 2):
        sample(settings, folder=tmp_path, shard=Shard(number, 2))
    merged = merge_shards(settings, folder=tmp_path, fresh=True)
    assert (merged.problems, merged.conflicting, merged.answers) == (3, 1, 6)


def test_ctrl_c_keeps_finished_answers_and_the_same_command_resumes(tiny_model: Path, tmp_path: Path) -> None:
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
    out, talk = process.communicate(timeout=120)
    assert process.returncode == 3, talk
    assert out == ""
    assert "stopping: finished answers are saved" in talk
    kept = count_lines(tmp_path / "samples.jsonl")
    assert 0 < kept < 60
    assert f"stopped: {kept} answers are saved, {60 - kept} remain" in talk
    assert "cure: run the same command again to resume" in talk
    assert "Traceback" not in talk
    first = (tmp_path / "samples.jsonl").read_bytes()
    meta = outputs.read_meta(tmp_path / "samples.jsonl")
    assert (meta["complete"], meta["counts"]["remaining"]) == (False, 60 - kept)
    subprocess.run(command, cwd=tmp_path, env=env, check=True, capture_output=True)
    assert (tmp_path / "samples.jsonl").read_bytes().startswith(first)
    keys = [row.key for row in jsonl.read(tmp_path / "samples.jsonl", Sample)]
    assert len(keys) == len(set(keys)) == 60
