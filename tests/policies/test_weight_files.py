"""The files of a model: tensors that are missing, of another shape, too many or damaged stop every stage."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spotcli.errors import UserError
from spotcli.policies import models
from spotcli.policies.weight_files import stored_dtype
from spotcli.stages.train import train
from tests.stages.test_train import pair, recipe, write

Weights = dict[str, Any]
QUERIES = "model.layers.1.self_attn.q_proj.weight"


def variant(source: Path, folder: Path, change: Callable[[Weights], object]) -> Path:
    """A copy of a model with other tensors in its file."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(source, folder)
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def add_a_layer(weights: Weights) -> None:
    weights |= {name.replace("layers.1.", "layers.2."): weight.clone() for name, weight in weights.items()}


HARMS: dict[str, tuple[Callable[[Weights], object], str]] = {
    "missing": (lambda weights: weights.pop(QUERIES), f"the weights lack {QUERIES}"),
    "shape": (
        lambda weights: weights.update({QUERIES: weights[QUERIES][:16].clone()}),
        r"expected the shape \[32, 32\], got \[16, 32\] for " + QUERIES,
    ),
    "more layers": (add_a_layer, r"more layers than the configuration: model\.layers\.2\."),
    "other names": (
        lambda weights: [weights.update({f"x.{name}": weights.pop(name)}) for name in list(weights)],
        "the weights lack .* more tensors",
    ),
}


@pytest.mark.parametrize("harm", HARMS)
def test_weights_that_do_not_belong_to_the_configuration_are_an_error(
    tiny_model: Path, tmp_path: Path, harm: str, capfd: pytest.CaptureFixture[str]
) -> None:
    change, message = HARMS[harm]
    folder = variant(tiny_model, tmp_path / "model", change)
    with pytest.raises(UserError, match=message) as caught:
        models.load_model(str(folder))
    assert caught.value.where == str(folder)
    assert "config.json belongs to these weights" in str(caught.value.cure)
    assert "LOAD REPORT" not in capfd.readouterr().err


def test_tensors_of_another_head_are_named_and_not_used(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    folder = variant(tiny_model, tmp_path / "model", lambda weights: weights.update({"v_head.bias": torch.zeros(1)}))
    models.load_model(str(folder))
    assert "the model does not use v_head.bias" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"\x08", None])
def test_a_truncated_file_is_an_error_in_one_line(tiny_model: Path, tmp_path: Path, content: bytes | None) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:5000] if content is None else content)
    with pytest.raises(UserError, match="failed to load the model: ") as caught:
        models.load_model(str(folder))
    assert caught.value.cure == "download or copy the weights again"
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_the_number_format_of_weights_whose_configuration_names_none(
    tiny_model: Path, tmp_path: Path, dtype: str
) -> None:
    import torch

    kind = getattr(torch, dtype)
    folder = variant(
        tiny_model,
        tmp_path / "model",
        lambda weights: weights.update({name: weight.to(kind) for name, weight in weights.items()}),
    )
    path = folder / "config.json"
    config = {name: value for name, value in json.loads(path.read_text()).items() if "dtype" not in name}
    path.write_text(json.dumps(config))
    assert stored_dtype(folder) == dtype
    assert models.source_dtype(str(folder)) == kind


def test_a_run_says_and_keeps_a_number_format_that_the_configuration_does_not_name(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    folder = variant(
        tiny_model,
        tmp_path / "model",
        lambda weights: weights.update({name: weight.bfloat16() for name, weight in weights.items()}),
    )
    path = folder / "config.json"
    config = {name: value for name, value in json.loads(path.read_text()).items() if "dtype" not in name}
    path.write_text(json.dumps(config))
    write(tmp_path, [pair(number) for number in range(4)])
    train(recipe(folder, num_train_epochs=1, objective="sft"), folder=tmp_path)
    assert "the weights are read as bfloat16 and saved so" in capsys.readouterr().err
    assert stored_dtype(tmp_path / "checkpoint") == "bfloat16"
    assert models.source_dtype(str(tmp_path / "checkpoint")) == torch.bfloat16
