"""NaN and infinity stop a run: in the loss, in the gradients, in the weights of the start and of the end."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from spotcli import jsonl, recipe_yaml, tables
from spotcli.appender import Appender
from spotcli.errors import UserError
from spotcli.records import Sample
from spotcli.stages.train import train
from spotcli.training.trainer import PairTrainer
from tests.stages.test_train import metrics, pair, recipe, write
from tests.training.models_for_tests import save_model

# A learning rate that makes weights of 1e18 at the first step.
DIVERGES: dict[str, Any] = {"learning_rate": 1e18, "warmup_steps": 0, "batch_size": 4, "num_train_epochs": 1}


def constant(text: str) -> Any:
    raise AssertionError(f"the file has {text}, which is not JSON")


def no_nan(folder: Path) -> None:
    """Every JSON file of a run is JSON."""
    for path in folder.rglob("*.json*"):
        for line in path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]:
            json.loads(line, parse_constant=constant)


@pytest.mark.parametrize("objective", ["sft", "spot-bce", "spot-bco"])
def test_a_run_that_diverges_stops_and_keeps_its_checkpoints(tiny_model: Path, tmp_path: Path, objective: str) -> None:
    write(tmp_path, [pair(number) for number in range(16)])
    settings = recipe(tiny_model, objective=objective, save_steps=1, max_grad_norm=0, **DIVERGES)
    with pytest.raises(UserError, match=r"in training step 2 of 4; the last checkpoint is that of step 1") as caught:
        train(settings, folder=tmp_path)
    for cure in ("a smaller train.learning_rate (now 1e+18)", "train.max_grad_norm: 1.0", "train.warmup_steps: 0.05"):
        assert cure in str(caught.value.cure)
    output = tmp_path / "checkpoint"
    assert caught.value.where == str(output)
    assert not json.loads((output / "spot-train.json").read_text())["complete"]
    assert not (output / "model.safetensors").exists()
    assert [row["step"] for row in metrics(output)] == [1]
    assert (output / "checkpoint-1" / "spot-state.json").exists()
    no_nan(tmp_path)
    # The same command resumes there, and stops there again.
    with pytest.raises(UserError, match="in training step 2 of 4"):
        train(settings, folder=tmp_path)


def test_the_command_ends_with_exit_code_2_and_one_line(tiny_model: Path, tmp_path: Path) -> None:
    write(tmp_path, [pair(number) for number in range(8)])
    (tmp_path / "recipe.yaml").write_text(
        recipe_yaml.dump(recipe(tiny_model, objective="sft", **DIVERGES | {"learning_rate": 1e18}))
    )
    command = [sys.executable, "-m", "spotcli", "train", "recipe.yaml", "--json"]
    env = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "300"}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert done.stderr.splitlines()[-2].startswith("checkpoint: the loss is nan in training step 2 of 2")
    assert "Traceback" not in done.stderr


def damaged(folder: Path, value: float) -> Path:
    """A model with one weight that is not finite."""
    from safetensors.torch import load_file, save_file

    save_model(folder)
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.1.self_attn.q_proj.weight"][0, 0] = value
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize(("objective", "value"), [("sft", math.nan), ("spot-bco", math.nan), ("spot-bco", math.inf)])
def test_a_model_with_damaged_weights_is_not_trained(tmp_path: Path, objective: str, value: float) -> None:
    model = damaged(tmp_path / "model", value)
    write(tmp_path, [pair(number) for number in range(8)])
    with pytest.raises(UserError, match=r"not finite: model\.layers\.1\.self_attn\.q_proj\.weight") as caught:
        train(recipe(model, objective=objective), folder=tmp_path)
    assert caught.value.where == str(model)
    no_nan(tmp_path)


def test_weights_that_are_not_finite_are_not_saved(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    def after_update(trainer: PairTrainer) -> None:
        update(trainer)
        if trainer.state.global_step == 2:
            with torch.no_grad():
                next(iter(trainer.model.parameters())).view(-1)[0] = math.inf  # type: ignore[union-attr]  # is set

    update = PairTrainer.after_update
    monkeypatch.setattr(PairTrainer, "after_update", after_update)
    write(tmp_path, [pair(number) for number in range(8)])
    for steps in (1, 100):  # with a checkpoint after the step, and with the finished model alone
        output = f"every-{steps}"
        settings = recipe(tiny_model, output=output, batch_size=4, num_train_epochs=1, save_steps=steps)
        with pytest.raises(UserError, match=r"a weight is not finite \(model.embed_tokens.weight\) in training step 2"):
            train(settings, folder=tmp_path)
        folder = tmp_path / output
        assert not (folder / "model.safetensors").exists()
        names = [path.name for path in folder.glob("checkpoint-*")]
        assert names == (["checkpoint-1"] if steps == 1 else [])


@pytest.mark.skipif(not os.environ.get("SPOT_SLOW"), reason="SPOT_SLOW=1 runs it")
@pytest.mark.parametrize("kind", [{"zero": 0}, {"zero": 2}, {"zero": 3}, {"fsdp": True}], ids=str)
def test_several_processes_stop_too(tiny_model: Path, tmp_path: Path, kind: dict[str, Any]) -> None:
    write(tmp_path, [pair(number) for number in range(16)])
    settings = recipe(tiny_model, processes=2, save_steps=1, **DIVERGES, **kind)
    with pytest.raises(UserError, match="in training step 2 of 4; the last checkpoint is that of step 1"):
        train(settings, folder=tmp_path)
    assert not (tmp_path / "checkpoint" / "model.safetensors").exists()


def test_no_stage_writes_a_number_that_is_not_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = {"a": math.nan, "b": [math.inf, {"c": -math.inf}], "d": 1.5, "e": "NaN"}
    without = {"a": None, "b": [None, {"c": None}], "d": 1.5, "e": "NaN"}
    jsonl.write_json(tmp_path / "a.json", values)
    jsonl.write_rows(tmp_path / "b.jsonl", [values])
    with Appender(tmp_path / "c.jsonl") as file:
        file.append([values])
    tables.as_json(values)
    row = Sample(prompt="1", response="2", verdict="right", sampling=values).json_line()
    texts = [*(path.read_text() for path in sorted(tmp_path.iterdir())), capsys.readouterr().out]
    assert [json.loads(text, parse_constant=constant) for text in texts] == [without] * 4
    assert json.loads(row, parse_constant=constant)["sampling"] == without
