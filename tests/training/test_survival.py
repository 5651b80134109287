"""What the format of the saved file leaves of the training, with a tiny model whose weights are bfloat16 numbers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from spotcli.errors import SpotError
from spotcli.policies.weight_files import WeightFiles
from spotcli.stages.train import TrainSummary, train
from spotcli.training.summary import Survival
from spotcli.training.survival import SavingLoss, show_survival
from tests.stages.test_train import pair, recipe, weights, write

RATE = 1e-5
"""In two steps a weight moves by at most 2e-5; half the spacing of bfloat16 numbers around 0.02 is 6e-5."""


@pytest.fixture(scope="module")
def low_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with bfloat16 weights."""
    from transformers import LlamaForCausalLM

    folder = tmp_path_factory.mktemp("low") / "model"
    shutil.copytree(tiny_model, folder)
    LlamaForCausalLM.from_pretrained(folder).bfloat16().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def runs(low_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, TrainSummary]]:
    """The same training, saved in three ways."""
    folder = tmp_path_factory.mktemp("saved")
    write(folder, [pair(number) for number in range(8)])
    ways: dict[str, dict[str, Any]] = {
        "exact": {"save_dtype": "float32"}, "nearest": {"rounding": "nearest"}, "stochastic": {},
    }  # fmt: skip
    return folder, {
        name: train(recipe(low_model, output=name, learning_rate=RATE, **way), folder=folder)
        for name, way in ways.items()
    }


def survival(runs: tuple[Path, dict[str, TrainSummary]], name: str) -> Survival:
    found = runs[1][name].saved
    assert found is not None
    return found


def test_float32_keeps_everything(runs: tuple[Path, dict[str, TrainSummary]]) -> None:
    exact = survival(runs, "exact")
    assert (exact.dtype, exact.rounding) == ("float32", "none")
    assert exact.update == pytest.approx(1.0)
    assert exact.margin == pytest.approx(1.0, abs=1e-3)
    assert exact.moved == exact.moved_in_training > 0.9
    assert all(str(weight.dtype) == "torch.float32" for weight in weights(runs[0] / "exact").values())
    assert json.loads((runs[0] / "exact" / "config.json").read_text())["dtype"] == "float32"


def test_rounding_to_nearest_loses_small_updates_with_a_warning(
    runs: tuple[Path, dict[str, TrainSummary]], capsys: pytest.CaptureFixture[str]
) -> None:
    nearest = survival(runs, "nearest")
    assert nearest.rounding == "nearest"
    assert nearest.update < 0.5
    assert nearest.margin is not None
    assert nearest.margin < 0.5
    assert nearest.moved < 0.2 < nearest.moved_in_training
    show_survival(nearest, RATE)
    warning = " ".join(capsys.readouterr().err.split())
    assert "saving in bfloat16 lost" in warning
    assert "set train.rounding to stochastic, or train.save_dtype to float32" in warning


def test_stochastic_rounding_keeps_them(runs: tuple[Path, dict[str, TrainSummary]]) -> None:
    folder, _ = runs
    stochastic = survival(runs, "stochastic")
    assert (stochastic.dtype, stochastic.rounding) == ("bfloat16", "stochastic")
    # The choices of 30,000 weights average out.
    assert stochastic.update == pytest.approx(1.0, abs=0.15)
    nearest = survival(runs, "nearest")
    assert stochastic.margin is not None
    assert nearest.margin is not None
    assert stochastic.margin > nearest.margin
    assert all(str(weight.dtype) == "torch.bfloat16" for weight in weights(folder / "stochastic").values())
    meta = json.loads((folder / "stochastic" / "spot-train.json").read_text())
    assert meta["summary"]["saved"]["update"] == stochastic.update
    card = (folder / "stochastic" / "README.md").read_text()
    assert f"The file has {stochastic.update:.0%} of the update" in card


@pytest.fixture(scope="module")
def products(low_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, TrainSummary]:
    """Eight steps at a small learning rate: with float32 products, and with bfloat16 ones of both roundings."""
    folder = tmp_path_factory.mktemp("products")
    write(folder, [pair(number) for number in range(16)])
    ways: dict[str, dict[str, Any]] = {
        "float32": {"dtype": "float32"}, "nearest": {"rounding": "nearest"}, "stochastic": {},
    }  # fmt: skip
    return {
        name: train(
            recipe(
                low_model, **({"output": name, "learning_rate": RATE, "num_train_epochs": 4, "dtype": "bfloat16"} | way)
            ),
            folder=folder,
        )
        for name, way in ways.items()
    }


def test_training_sees_small_updates_with_stochastic_rounding(products: dict[str, TrainSummary]) -> None:
    saved = {name: summary.saved for name, summary in products.items()}
    assert all(saved.values())
    seen = {name: survival.seen for name, survival in saved.items() if survival is not None}
    assert seen["float32"] == pytest.approx(1.0)
    assert seen["stochastic"] == pytest.approx(1.0)
    # On a CPU the products of the embeddings, a third of this model's weights, have float32 operands.
    assert seen["nearest"] < 0.9
    margins = {name: summary.final["margin"] for name, summary in products.items()}
    # The reported margin is that of the weights that the products used.
    assert abs(margins["stochastic"] - margins["float32"]) < abs(margins["nearest"] - margins["float32"])


def test_weights_that_training_saw_rounded_to_nearest_are_saved_so(products: dict[str, TrainSummary]) -> None:
    """Otherwise the file would have updates that the loss has never felt."""
    from safetensors.torch import load_file

    trained = load_file(Path(products["nearest"].checkpoint) / "model.safetensors")
    assert products["nearest"].saved is not None
    assert products["nearest"].saved.update == pytest.approx(products["nearest"].saved.seen, abs=0.2)
    assert all(str(weight.dtype) == "torch.bfloat16" for weight in trained.values())


def test_only_weights_are_rounded_when_the_file_is_scored(
    low_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rotary frequencies are not in the file: whoever loads it computes them in float32."""
    import torch

    from spotcli.training import survival

    buffers = []
    mean_margin = survival.mean_margin

    def score(model: Any, *args: Any, **kwargs: Any) -> float:
        buffers.append({name: buffer.clone() for name, buffer in model.named_buffers()})
        return mean_margin(model, *args, **kwargs)

    monkeypatch.setattr(survival, "mean_margin", score)
    write(tmp_path, [pair(number) for number in range(8)])
    train(recipe(low_model, learning_rate=RATE, num_train_epochs=1), folder=tmp_path)
    start, trained, saved = buffers
    assert any("inv_freq" in name for name in start)
    for name, buffer in start.items():
        assert torch.equal(buffer, trained[name]), name
        assert torch.equal(buffer, saved[name]), name


def test_what_training_did_not_see_is_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    survival = Survival("bfloat16", "none", update=1.0, cosine=1.0, moved=0.1, moved_in_training=0.9, seen=0.2)
    show_survival(survival, 1e-6, zero=True)
    warning = " ".join(capsys.readouterr().err.split())
    assert "training computed with 20% of the update" in warning
    assert "set train.fsdp, or train.zero to 0" in warning
    show_survival(survival, 1e-6)
    assert "set train.rounding to stochastic, or train.dtype to float32" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("weights", "saved", "rounding"),
    [
        ("bfloat16", torch.bfloat16, "none"),
        ("bfloat16", torch.float32, "none"),
        ("float32", torch.bfloat16, "stochastic"),
        ("float32", torch.float32, "none"),
    ],
)
def test_how_the_weights_of_deepspeed_are_rounded(weights: str, saved: torch.dtype, rounding: str) -> None:
    plan: Any = SimpleNamespace(
        sharding="zero2", precision=SimpleNamespace(weights=weights), section=SimpleNamespace(rounding="stochastic")
    )
    files: Any = {"w": torch.zeros(2)}
    loss = SavingLoss(plan, files, frozenset(), torch.device("cpu"), starting_margin=None)
    loss.add("w", torch.ones(2), torch.ones(2))
    survival = loss.result(saved)
    assert survival is not None
    assert survival.rounding == rounding


def test_saved_files_of_one_seed_are_equal(
    runs: tuple[Path, dict[str, TrainSummary]], low_model: Path, tmp_path: Path
) -> None:
    folder, _ = runs
    shutil.copy(folder / "data.jsonl", tmp_path)
    again = train(recipe(low_model, output="again", learning_rate=RATE), folder=tmp_path)
    files = [Path(again.checkpoint) / "model.safetensors", folder / "stochastic" / "model.safetensors"]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_weights_that_exceed_the_format_are_an_error(low_model: Path, tmp_path: Path) -> None:
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(low_model)
    model.model.layers[0].mlp.down_proj.weight.data[0, 0] = 1e6  # 999,424 in bfloat16
    model.save_pretrained(tmp_path / "large")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if (low_model / name).exists():
            shutil.copy(low_model / name, tmp_path / "large")
    write(tmp_path, [pair(number) for number in range(8)])
    section = {"objective": "sft", "learning_rate": 1e-9, "num_train_epochs": 1, "save_dtype": "float16"}
    with pytest.raises(SpotError, match=r"down_proj\.weight: 9\.994e\+05 exceeds the largest torch\.float16") as error:
        train(recipe(tmp_path / "large", **section), folder=tmp_path)
    assert error.value.cure == "set train.save_dtype to bfloat16 or float32"


def test_tensors_of_a_models_files(low_model: Path, tmp_path: Path) -> None:
    files = WeightFiles(str(low_model))
    assert "model.embed_tokens.weight" in files.names()
    whole, part = files.get("model.norm.weight"), files.get("model.norm.weight", rows=4)
    assert whole is not None
    assert part is not None
    assert whole.shape == (32,)
    assert part.tolist() == whole[:4].tolist()
    assert files.get("unknown") is None
    assert WeightFiles(str(tmp_path)).names() == []
