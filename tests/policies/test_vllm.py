"""The vLLM engine: the stage and the command with real workers around a fake vLLM."""

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

from spotcli import jsonl, outputs
from spotcli.errors import RecipeError, Unfinished, UserError
from spotcli.policies import Request, Sampling, TokenPrefix, vllm
from spotcli.policies.vllm import VllmPolicy
from spotcli.recipe import SampleSection
from spotcli.recipe_yaml import load
from spotcli.records import Sample
from spotcli.stages.sample import sample
from tests.conftest import write_rows
from tests.processes import MARK, alive, alive_after

FAKE = Path(__file__).parent / "fake_vllm"


@pytest.fixture(autouse=True)
def fake_vllm(monkeypatch: pytest.MonkeyPatch, mark: str) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{FAKE}:{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setenv(MARK, mark)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


def recipe(model: Path, engine: str = "vllm", **keys: Any) -> Any:
    options = {"model": str(model), "sample.engine": engine, "sample.max_new_tokens": 20, "sample.dtype": "float32"}
    return load(None, None, options | {f"sample.{name}": value for name, value in keys.items()})


def problems(folder: Path, number: int) -> None:
    write_rows(
        folder / "problems.jsonl", [{"id": f"p{index}", "prompt": f"What is {index}?"} for index in range(number)]
    )


def test_the_rows_have_the_fields_of_the_other_engines(tiny_model: Path, tmp_path: Path) -> None:
    problems(tmp_path, 9)
    sample(recipe(tiny_model, workers=2, trials=3, keep_tokens=True), folder=tmp_path)
    keys = {"trials": 3, "keep_tokens": True, "output": "other.jsonl"}
    sample(recipe(tiny_model, "transformers", **keys), folder=tmp_path)
    ours, other = (list(jsonl.rows(tmp_path / name)) for name in ("samples.jsonl", "other.jsonl"))
    assert sorted((row["id"], row["trial"]) for row in ours) == [
        (f"p{index}", k) for index in range(9) for k in range(3)
    ]
    assert {tuple(row) for row in ours} == {tuple(row) for row in other}
    assert {tuple(row["sampling"]) for row in ours} == {tuple(row["sampling"]) for row in other}
    seeds = {(row["id"], row["trial"]): row["sampling"]["seed"] for row in other}
    for row in ours:
        assert len(row["response_ids"]) == row["tokens"]
        assert row["sampling"]["seed"] == seeds[row["id"], row["trial"]]
        assert (row["finish_reason"], row["reason"] == "truncated") in {("stop", False), ("length", True)}
    assert not list(tmp_path.glob("*.log"))


def test_effective_engine_parameters_are_recorded(tiny_model: Path, tmp_path: Path) -> None:
    problems(tmp_path, 3)
    sample(recipe(tiny_model, top_k=5, vllm={"max_model_len": 50, "max_num_seqs": 2}), folder=tmp_path)
    engine = outputs.read_meta(tmp_path / "samples.jsonl")["engine"]
    sampling = {"temperature": 0.7, "top_p": 0.8, "top_k": 5, "max_tokens": 20, "stop_token_ids": [1]}
    assert engine["effective"] == sampling | {"capacity": 2, "context": 50, "vllm": "0.0-fake"}
    assert engine["prompt_tail"] == "<|im_start|>user\nWhat is 0?<|im_end|>\n<|im_start|>assistant\n"
    # <|im_start|>user_What_is_0?<|im_end|>_<|im_start|>assistant_: 1 + 5 + 10 + 1 + 1 + 1 + 10 tokens of one byte each
    rows = jsonl.read(tmp_path / "samples.jsonl", Sample)
    assert {row.sampling["max_new_tokens"] for row in rows} == {min(20, 50 - 29)}


def test_a_failure_is_retried_and_its_log_is_kept(tiny_model: Path, tmp_path: Path) -> None:
    problems(tmp_path, 3)
    # 29 tokens of prompt fill this context.
    with pytest.raises(Unfinished, match=r"3 requests failed \(the prompt fills the context 3\)"):
        sample(recipe(tiny_model, vllm={"max_model_len": 29}), folder=tmp_path)
    assert list(tmp_path.glob("*.log"))
    assert sample(recipe(tiny_model, vllm={"max_model_len": 60}), folder=tmp_path).new_answers == 3
    assert not list(tmp_path.glob("*.log"))


def command(model: Path, pace: float) -> list[str]:
    options = ["--model", str(model), "--engine", "vllm", "--max-new-tokens", "20", "-s", "sample.workers=2"]
    return [sys.executable, "-m", "spotcli", "sample", *options, "-s", f"sample.vllm={{pace: {pace}}}"]


def wait_for_lines(path: Path, number: int) -> None:
    while not path.exists() or path.read_bytes().count(b"\n") < number:
        time.sleep(0.02)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_command_leaves_no_process_and_resumes(
    tiny_model: Path, tmp_path: Path, mark: str, how: signal.Signals
) -> None:
    problems(tmp_path, 80)
    with subprocess.Popen(command(tiny_model, 0.02), cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        wait_for_lines(tmp_path / "samples.jsonl", 5)
        process.send_signal(how)
        talk = process.communicate()[1]
    assert process.returncode == (-how if how == signal.SIGKILL else 3)
    assert how == signal.SIGKILL or "run the same command again to resume" in talk
    assert alive_after(mark, 1 if how != signal.SIGKILL else 8) == []
    before = (tmp_path / "samples.jsonl").read_bytes()
    done = subprocess.run(command(tiny_model, 0.001), cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "samples.jsonl: resuming with" in done.stderr
    after = (tmp_path / "samples.jsonl").read_bytes()
    assert after.startswith(before)
    assert sorted(json.loads(line)["id"] for line in after.splitlines()) == sorted(f"p{index}" for index in range(80))
    assert alive(mark) == []


def vllm_policy(model: Path, folder: Path, **keys: Any) -> VllmPolicy:
    return VllmPolicy(str(model), Sampling(20), SampleSection(**keys), log=folder / "samples.jsonl")


def test_each_worker_has_its_own_devices(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm, "visible_gpus", lambda: ["0", "1", "2", "5", "6"])

    def devices(**keys: Any) -> list[str]:
        return [job.env["CUDA_VISIBLE_DEVICES"] for job in vllm_policy(tiny_model, tmp_path, **keys)._jobs]

    assert devices() == ["0", "1", "2", "5", "6"]
    assert devices(workers=2) == ["0", "1"]
    assert devices(tensor_parallel=2) == ["0,1", "2,5"]
    with pytest.raises(RecipeError, match="3 workers of 2 GPUs need 6, but 5 are visible"):
        devices(workers=3, tensor_parallel=2)
    with pytest.raises(RecipeError, match="1 workers of 8 GPUs need 8, but 5 are visible"):
        devices(tensor_parallel=8)


def test_a_prefix_reaches_the_engine_as_token_ids(tiny_model: Path, tmp_path: Path) -> None:
    policy = vllm_policy(tiny_model, tmp_path, vllm={"max_model_len": 40})
    # The fake engine generates as many tokens as the first token of the prompt says.
    prefixes = [TokenPrefix((length, 2, 3), "") for length in (5, 9)]
    requests = [
        Request((index,), [{"role": "user", "content": "?"}], 0, prefix=prefix) for index, prefix in enumerate(prefixes)
    ]
    try:
        answers = [item for group in policy.answers(requests, 2, lambda request: False) for item in group]
    finally:
        policy.close()
    assert sorted((item.request.key, item.tokens) for item in answers) == [((0,), 5), ((1,), 9)]


def test_another_interpreter_does_not_inherit_the_package_paths_of_this_one(tiny_model: Path, tmp_path: Path) -> None:
    assert "PYTHONPATH" in vllm_policy(tiny_model, tmp_path)._jobs[0].env
    assert "PYTHONPATH" not in vllm_policy(tiny_model, tmp_path, python=sys.executable)._jobs[0].env


def test_an_interpreter_may_be_named_from_the_home_folder(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(Path(sys.executable).parent))
    policy = vllm_policy(tiny_model, tmp_path, python=f"~/{Path(sys.executable).name}")
    assert policy._jobs[0].command[0] == sys.executable


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"vllm": {"trust_remote_code": True}}, "'trust_remote_code' cannot be set here"),
        ({"vllm": {"generation_config": "auto"}}, "'generation_config' cannot be set here"),
        ({"python": "/no/such/python"}, "interpreter not found"),
        ({"thinking": "on"}, "no switch for thinking"),
    ],
)
def test_invalid_settings_are_refused_before_anything_starts(
    tiny_model: Path, tmp_path: Path, keys: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        vllm_policy(tiny_model, tmp_path, **keys)
    assert caught.value.cure
