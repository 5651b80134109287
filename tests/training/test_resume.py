"""A run that was killed resumes to the same weights."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from spotcli import recipe_yaml
from spotcli.appender import Appender
from spotcli.core.reward_shift import RewardShift
from spotcli.errors import DataError, SpotError, UserError
from spotcli.policies import models
from spotcli.stages.train import train
from tests.stages.test_train import apart, metrics, pair, recipe, write

STEPS = 90
SETTINGS: dict[str, Any] = {"num_train_epochs": 30, "save_steps": 20, "shift": "running", "weight_decay": 0.1}

# One run in its own process, with one thread.
RUN = """
import json, sys, torch
from pathlib import Path
torch.set_num_threads(1)
from spotcli.recipe import Recipe
from spotcli.stages.train import train
train(Recipe.model_validate_json(sys.argv[1]), folder=Path(sys.argv[2]))
"""


def start(model: Path, folder: Path, **section: Any) -> subprocess.Popen[str]:
    settings = recipe(model, **SETTINGS, **section).model_dump_json()
    command = [sys.executable, "-W", "error", "-c", RUN, settings, str(folder)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


def finish(process: subprocess.Popen[str]) -> str:
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    return stderr


def steps_done(folder: Path) -> int:
    try:
        return (folder / "metrics.jsonl").read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def test_killed_run_resumes_to_the_same_weights(tiny_model: Path, tmp_path: Path) -> None:
    write(tmp_path, [pair(number) for number in range(20)])
    finish(start(tiny_model, tmp_path, output="whole"))
    killed = tmp_path / "killed"
    # Kills after the first checkpoint and in the middle of an epoch, which has 3 steps.
    for stop in (25, 64):
        process = start(tiny_model, tmp_path, output="killed")
        while steps_done(killed) < stop and process.poll() is None:
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        assert not (killed / "model.safetensors").exists(), "the run was over before it was killed"
        assert steps_done(killed) < STEPS
    stderr = finish(start(tiny_model, tmp_path, output="killed"))
    assert "resuming after step" in stderr
    assert apart(tmp_path / "whole", killed) == 0.0
    whole, again = metrics(tmp_path / "whole"), metrics(killed)
    assert [row["step"] for row in again] == list(range(1, STEPS + 1))
    for name in ("loss", "shift", "learning_rate", "rewards_chosen"):
        assert [row[name] for row in again] == [row[name] for row in whole]


@pytest.fixture(scope="module")
def stopped(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A complete run with checkpoints 2, 4 and 6, and a copy of its output folder."""
    folder = tmp_path_factory.mktemp("stopped")
    write(folder, [pair(number) for number in range(20)])
    train(recipe(tiny_model, save_steps=2, save_total_limit=3), folder=folder)
    shutil.copytree(folder / "checkpoint", folder / "whole")
    return folder, folder / "whole"


def test_a_checkpoint_is_loaded_as_a_model(stopped: tuple[Path, Path]) -> None:
    _, whole = stopped
    models.load_model(str(whole / "checkpoint-2"))
    tokenizers = [models.load_tokenizer(str(folder)) for folder in (whole / "checkpoint-2", whole)]
    assert tokenizers[0].get_vocab() == tokenizers[1].get_vocab()
    assert tokenizers[0].chat_template == tokenizers[1].chat_template


def undo(output: Path) -> None:
    """The state of a run that was killed before it saved the model."""
    meta = json.loads((output / "spot-train.json").read_text())
    (output / "spot-train.json").write_text(json.dumps(meta | {"complete": False}))
    (output / "model.safetensors").unlink()


@pytest.mark.parametrize(
    "harm", ["no state file", "torn state file", "short optimizer file", "missing rng file"], ids=lambda name: name
)
def test_incomplete_checkpoint_is_skipped(
    stopped: tuple[Path, Path], tiny_model: Path, tmp_path: Path, harm: str
) -> None:
    folder, whole = stopped
    shutil.copytree(folder, tmp_path / "run")
    output = tmp_path / "run" / "checkpoint"
    undo(output)
    last = output / "checkpoint-6"
    if harm == "no state file":
        (last / "spot-state.json").unlink()
    elif harm == "torn state file":
        (last / "spot-state.json").write_text('{"step": 6, "sh')
    elif harm == "short optimizer file":
        os.truncate(last / "optimizer.pt", 100)
    else:
        (last / "rng_state.pth").unlink()
    summary = train(recipe(tiny_model, save_steps=2, save_total_limit=3), folder=tmp_path / "run")
    assert summary.resumed_from == 4
    assert apart(output, whole) == 0.0
    assert [row["step"] for row in metrics(output)] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("name", ["optimizer.pt", "model.safetensors"])
def test_a_checkpoint_that_changed_is_named_and_the_one_before_is_used(
    stopped: tuple[Path, Path], tiny_model: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, whole = stopped
    shutil.copytree(folder, tmp_path / "run")
    output = tmp_path / "run" / "checkpoint"
    undo(output)
    # The file keeps its size; its end is zero, as after a crash of the system.
    path = output / "checkpoint-6" / name
    path.write_bytes(path.read_bytes()[:-2000] + bytes(2000))
    summary = train(recipe(tiny_model, save_steps=2, save_total_limit=3), folder=tmp_path / "run")
    assert f"checkpoint-6: removed, because {name} changed after it was written" in capsys.readouterr().err
    assert summary.resumed_from == 4
    assert apart(output, whole) == 0.0


def test_a_checkpoint_that_another_process_writes_is_not_removed(
    stopped: tuple[Path, Path], tiny_model: Path, tmp_path: Path
) -> None:
    folder, _ = stopped
    shutil.copytree(folder, tmp_path / "run")
    output = tmp_path / "run" / "checkpoint"
    undo(output)
    (output / "checkpoint-6" / "spot-state.json").unlink()
    with Appender(output / "metrics.jsonl"), pytest.raises(UserError, match="another process is writing"):
        train(recipe(tiny_model, save_steps=2, save_total_limit=3), folder=tmp_path / "run")
    assert (output / "checkpoint-6").is_dir()


def test_checkpoints_of_earlier_versions_have_no_digests(
    stopped: tuple[Path, Path], tiny_model: Path, tmp_path: Path
) -> None:
    folder, whole = stopped
    shutil.copytree(folder, tmp_path / "run")
    output = tmp_path / "run" / "checkpoint"
    undo(output)
    path = output / "checkpoint-6" / "spot-state.json"
    state = json.loads(path.read_text())
    state["files"] = {name: entry["bytes"] for name, entry in state["files"].items()}
    path.write_text(json.dumps(state))
    summary = train(recipe(tiny_model, save_steps=2, save_total_limit=3), folder=tmp_path / "run")
    assert summary.resumed_from == 6
    assert apart(output, whole) == 0.0


def test_run_killed_after_its_last_step_only_saves(
    stopped: tuple[Path, Path], tiny_model: Path, tmp_path: Path
) -> None:
    folder, whole = stopped
    shutil.copytree(folder, tmp_path / "run")
    output = tmp_path / "run" / "checkpoint"
    undo(output)
    summary = train(recipe(tiny_model, save_steps=2, save_total_limit=3), folder=tmp_path / "run")
    assert summary.resumed_from == 6
    assert apart(output, whole) == 0.0
    assert summary.final["loss"] == metrics(output)[-1]["loss"]


def test_lora_resumes_exactly(tiny_model: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    write(tmp_path, [pair(number) for number in range(20)])
    lora = {"lora": {"r": 4, "alpha": 8}, "save_steps": 2, "save_total_limit": 3}
    train(recipe(tiny_model, **lora), folder=tmp_path)
    output = tmp_path / "checkpoint"
    whole = load_file(output / "adapter_model.safetensors")
    meta = json.loads((output / "spot-train.json").read_text())
    (output / "spot-train.json").write_text(json.dumps(meta | {"complete": False}))
    (output / "adapter_model.safetensors").unlink()
    shutil.rmtree(output / "checkpoint-6")
    assert train(recipe(tiny_model, **lora), folder=tmp_path).resumed_from == 4
    again = load_file(output / "adapter_model.safetensors")
    assert again.keys() == whole.keys()
    assert all((again[name] == whole[name]).all() for name in whole)


def test_save_total_limit_of_one(tiny_model: Path, tmp_path: Path) -> None:
    write(tmp_path, [pair(number) for number in range(20)])
    train(recipe(tiny_model, save_steps=2, save_total_limit=1), folder=tmp_path)
    assert [path.name for path in (tmp_path / "checkpoint").glob("checkpoint-*")] == ["checkpoint-6"]


def test_checkpoint_restores_the_reward_shift(stopped: tuple[Path, Path]) -> None:
    state = json.loads((stopped[0] / "checkpoint" / "checkpoint-4" / "spot-state.json").read_text())
    rows = metrics(stopped[0] / "checkpoint")
    shift = RewardShift.of("ema")
    shift.load_state_dict(state["shift"])
    assert shift.value == pytest.approx(rows[4]["shift"])
    assert shift.steps == 4


def test_two_runs_cannot_write_the_same_folder(tiny_model: Path, tmp_path: Path) -> None:
    write(tmp_path, [pair(number) for number in range(8)])
    with (
        Appender(tmp_path / "checkpoint" / "metrics.jsonl"),
        pytest.raises(SpotError, match=r"another process is writing|not empty"),
    ):
        train(recipe(tiny_model), folder=tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_stops_with_exit_code_3_and_resumes(
    tiny_model: Path, tmp_path: Path, number: signal.Signals
) -> None:
    write(tmp_path, [pair(number) for number in range(20)])
    (tmp_path / "recipe.yaml").write_text(recipe_yaml.dump(recipe(tiny_model, **SETTINGS)))
    command = [sys.executable, "-m", "spotcli", "train", "recipe.yaml"]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, cwd=tmp_path, env=env, stderr=subprocess.PIPE, text=True)
    while steps_done(tmp_path / "checkpoint") < 25 and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 3, stderr
    # Checkpoints are written every 20 steps.
    assert re.search(r"checkpoint: stopped; the last checkpoint is that of step (20|40|60|80) of 90", stderr)
    assert "Traceback" not in stderr
    again = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120)
    assert again.returncode == 0, again.stderr
    assert "resuming after step" in again.stderr


def test_rows_of_an_evaluation_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    write(tmp_path, [pair(0), pair(1) | {"split": "eval"}])
    with pytest.raises(DataError, match=r"data\.jsonl:2: this answer belongs to an evaluation"):
        train(recipe(tiny_model), folder=tmp_path)
