"""QLoRA: adapters with 4 bits per weight of the frozen model."""

from __future__ import annotations

import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from spotcli.errors import MissingExtra, RecipeError, install_command
from spotcli.policies import models
from spotcli.stages.train import train
from tests.stages.test_train import metrics, pair, recipe, write

slow = pytest.mark.skipif(not os.environ.get("SPOT_SLOW"), reason="SPOT_SLOW=1 runs it")

LORA: dict[str, Any] = {"lora": {"r": 4, "alpha": 8}, "learning_rate": 1e-2}
QLORA = {**LORA, "quantize": "nf4"}


def adapter(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(folder / "adapter_model.safetensors")


def apart(one: Path, two: Path) -> float:
    first, second = adapter(one), adapter(two)
    assert first.keys() == second.keys()
    return max(float((first[name] - second[name]).abs().max()) for name in first)


def test_adapters_equal_those_of_the_dequantised_model(tiny_model: Path, tmp_path: Path) -> None:
    write(tmp_path, [pair(number) for number in range(20)])
    packed: Any = models.load_model(str(tiny_model), "float32", "float32")
    kinds = {name.rpartition("_proj")[1]: str(weight.dtype) for name, weight in packed.named_parameters()}
    assert kinds == {"_proj": "torch.uint8", "": "torch.float32"}
    unpacked = tmp_path / "unpacked"
    shutil.copytree(tiny_model, unpacked)
    packed.dequantize().save_pretrained(unpacked)
    summary = train(recipe(tiny_model, output="packed", **QLORA), folder=tmp_path)
    train(recipe(unpacked, output="plain", **LORA), folder=tmp_path)
    assert summary.first_loss == pytest.approx(2 * math.log(2), abs=1e-5)
    assert summary.final["loss"] < 1.38
    assert apart(tmp_path / "packed", tmp_path / "plain") < 1e-4
    one, two = metrics(tmp_path / "packed"), metrics(tmp_path / "plain")
    assert [row["loss"] for row in one] == pytest.approx([row["loss"] for row in two], abs=1e-4)
    # The model with whole weights is another one.
    train(recipe(tiny_model, output="whole", **LORA), folder=tmp_path)
    assert apart(tmp_path / "packed", tmp_path / "whole") > 1e-3


def test_reference_is_computed_with_the_quantised_model(tiny_model: Path, tmp_path: Path) -> None:
    write(tmp_path, [pair(number) for number in range(6)])
    cache = tmp_path / "reference.jsonl"
    train(recipe(tiny_model, output="whole", num_train_epochs=1, **LORA), folder=tmp_path)
    train(recipe(tiny_model, output="packed", num_train_epochs=1, **QLORA), folder=tmp_path)
    rows = [json.loads(line) for line in cache.read_text().splitlines()]
    assert len({row["key"] for row in rows}) == 12
    assert all(abs(one["chosen"] - two["chosen"]) > 1e-4 for one, two in zip(rows[:6], rows[6:], strict=True))
    train(recipe(tiny_model, output="again", num_train_epochs=1, objective="dpo", **QLORA), folder=tmp_path)
    assert cache.read_text().count("\n") == 12


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_run_resumes_exactly_with_gradient_checkpointing_and_checks(
    tiny_model: Path, tmp_path: Path, dtype: str
) -> None:
    write(tmp_path, [pair(number, answer="1") for number in range(20)])
    section = {"gradient_checkpointing": True, "save_steps": 2, "save_total_limit": 3, "dtype": dtype, **QLORA}
    train(recipe(tiny_model, output="silent", **section), folder=tmp_path)
    checks = {"check_every": 1, "check_problems": 2}
    train(recipe(tiny_model, **checks, **section), folder=tmp_path)
    output = tmp_path / "checkpoint"
    assert apart(tmp_path / "silent", output) == 0.0
    meta = json.loads((output / "spot-train.json").read_text())
    (output / "spot-train.json").write_text(json.dumps(meta | {"complete": False}))
    (output / "adapter_model.safetensors").unlink()
    shutil.rmtree(output / "checkpoint-6")
    assert train(recipe(tiny_model, **checks, **section), folder=tmp_path).resumed_from == 4
    assert apart(tmp_path / "silent", output) == 0.0
    card = (output / "README.md").read_text()
    assert "| quantize | nf4 |" in card
    assert "had 4 bits per weight (nf4)" in card
    assert "bitsandbytes 0" in card
    # Loaded, the adapter is applied to whole weights.
    loaded = models.load_model(str(output))
    assert {weight.dtype.is_floating_point for weight in loaded.parameters()} == {True}


@slow
@pytest.mark.parametrize("zero", [0, 2])
def test_two_processes_train_like_one(tiny_model: Path, tmp_path: Path, zero: int) -> None:
    write(tmp_path, [pair(number) for number in range(17)])
    section = QLORA | {"optim": "sgd", "learning_rate": 0.1}
    train(recipe(tiny_model, output="one", **section), folder=tmp_path)
    train(recipe(tiny_model, output="two", processes=2, zero=zero, check_every=3, **section), folder=tmp_path)
    assert apart(tmp_path / "one", tmp_path / "two") < 1e-5


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize(
    ("section", "words", "cure"),
    [
        ({"quantize": "nf4"}, "requires `train.lora`", "train.lora"),
        ({"processes": 2, "zero": 3, **QLORA}, "divide the weights", "zero: 2"),
        ({"processes": 2, "fsdp": True, **QLORA}, "divide the weights", "zero: 2"),
    ],
)
def test_settings_that_exclude_quantize(
    tiny_model: Path, tmp_path: Path, section: dict[str, Any], words: str, cure: str, dry_run: bool
) -> None:
    write(tmp_path, [pair(number) for number in range(8)])
    with pytest.raises(RecipeError, match=words) as caught:
        train(recipe(tiny_model, **section), folder=tmp_path, dry_run=dry_run)
    assert caught.value.where == "train.quantize"
    assert cure in str(caught.value.cure)


def test_missing_bitsandbytes_is_an_error_except_in_a_dry_run(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.utils import import_utils

    monkeypatch.setattr(import_utils, "is_bitsandbytes_available", lambda: False)
    write(tmp_path, [pair(number) for number in range(8)])
    with pytest.raises(MissingExtra) as caught:
        train(recipe(tiny_model, **QLORA), folder=tmp_path)
    assert caught.value.cure == install_command("qlora")
    assert [path.name for path in tmp_path.iterdir()] == ["data.jsonl"]
    # Two layers: queries and output 32 * 32, keys and values 32 * 16, three of 32 * 64.
    estimate = train(recipe(tiny_model, **QLORA), folder=tmp_path, dry_run=True).estimate
    assert estimate is not None
    assert estimate.quantized == 2 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 64)
