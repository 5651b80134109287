"""LoRA adapters: on the output layer, with peft's other settings, as a start, merged, and evaluated."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from spotcli.errors import RecipeError, UserError
from spotcli.policies import models
from spotcli.policies.adapters import merge_adapter
from spotcli.recipe import Recipe
from spotcli.stages.sample import sample
from spotcli.stages.train import train
from tests.stages.test_train import metrics, pair, recipe, write
from tests.training.models_for_tests import save_model

PAIRS = [pair(number) for number in range(8)]
QUICK: dict[str, Any] = {"warmup_steps": 0, "batch_size": 4, "num_train_epochs": 2, "learning_rate": 1e-2}


def adapter(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(folder / "adapter_model.safetensors")


def logits(folder: Path) -> Any:
    import torch

    with torch.no_grad():
        return models.load_model(str(folder), "float32")(input_ids=torch.tensor([[5, 60, 70, 80, 90]])).logits


@pytest.fixture(scope="module")
def trained(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that trained an adapter."""
    folder = tmp_path_factory.mktemp("adapter")
    write(folder, PAIRS)
    train(recipe(tiny_model, lora={"r": 4, "alpha": 8}, **QUICK), folder=folder)
    return folder


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("section", [{"target_modules": ["lm_head"]}, {"target_modules": ["q_proj", "lm_head"]}])
def test_an_adapter_on_the_output_layer_is_trained(tmp_path: Path, tied: bool, section: dict[str, Any]) -> None:
    model = save_model(tmp_path / "model", tie_word_embeddings=tied)
    write(tmp_path, PAIRS)
    summary = train(recipe(model, objective="spot-bce", lora={"r": 4, **section}, **QUICK), folder=tmp_path)
    output = tmp_path / "checkpoint"
    assert summary.first_loss == pytest.approx(2 * math.log(2), abs=1e-5)
    assert summary.final["loss"] < 1.38
    assert all(row["grad_norm"] > 0 for row in metrics(output))
    changed = {name for name, weight in adapter(output).items() if "lora_B" in name and float(weight.abs().max()) > 0}
    assert any("lm_head" in name for name in changed)
    # Merged, the output layer has a weight of its own, and the logits are those of base and adapter.
    merged = merge_adapter(str(output), tmp_path / "merged")
    assert json.loads((tmp_path / "merged" / "config.json").read_text())["tie_word_embeddings"] is False
    assert float((logits(tmp_path / "merged") - logits(output)).abs().max()) < 1e-4
    assert float((logits(tmp_path / "merged") - logits(model)).abs().max()) > 1e-3
    assert merged.dtype == "float32"


def test_settings_of_peft_are_passed_on(tiny_model: Path, tmp_path: Path) -> None:
    write(tmp_path, PAIRS)
    lora = {"r": 4, "alpha": 8, "use_rslora": True, "modules_to_save": ["embed_tokens"], "target_modules": ["q_proj"]}
    train(recipe(tiny_model, lora=lora, dtype="bfloat16", **QUICK), folder=tmp_path)
    output = tmp_path / "checkpoint"
    saved = json.loads((output / "adapter_config.json").read_text())
    assert (saved["use_rslora"], saved["modules_to_save"]) == (True, ["embed_tokens"])
    weights = adapter(output)
    (whole,) = [weight for name, weight in weights.items() if "embed_tokens" in name]
    # The base is bfloat16; what is trained is float32.
    assert str(whole.dtype) == "torch.float32"
    base = models.load_model(str(tiny_model), "float32").get_input_embeddings().weight
    assert 1e-3 < float((whole - base).detach().abs().max()) < 1
    assert json.loads((output / "spot-train.json").read_text())["settings"]["lora"]["use_rslora"] is True


def test_a_trained_adapter_is_trained_on(trained: Path, tiny_model: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "checkpoint", tmp_path / "start")
    write(tmp_path, PAIRS)
    settings = recipe(tmp_path / "start", lora={"r": 4}, **QUICK)
    summary = train(settings, folder=tmp_path)
    output = tmp_path / "checkpoint"
    # The reference is the adapted model: the first rewards are 0, and the cached rows are not those of the base.
    assert summary.first_loss == pytest.approx(2 * math.log(2), abs=1e-5)
    before, after = adapter(tmp_path / "start"), adapter(output)
    assert before.keys() == after.keys()
    # One step with a learning rate of 0.01 moves a weight by 0.01; a new adapter would begin elsewhere.
    moved = max(float((after[name] - before[name]).abs().max()) for name in before)
    assert 0 < moved < 0.06
    assert json.loads((output / "adapter_config.json").read_text())["base_model_name_or_path"] == str(tiny_model)
    keys = [{json.loads(line)["key"] for line in (folder / "reference.jsonl").read_text().splitlines()}
            for folder in (trained, tmp_path)]  # fmt: skip
    assert not keys[0] & keys[1]
    with pytest.raises(RecipeError, match="the adapter was trained with 4, got 8") as caught:
        train(recipe(tmp_path / "start", lora={"r": 8}, output="other"), folder=tmp_path)
    assert caught.value.where == "train.lora.r"


def test_all_weights_are_trained_from_a_merged_adapter(trained: Path, tmp_path: Path) -> None:
    write(tmp_path, PAIRS)
    summary = train(recipe(trained / "checkpoint", **QUICK), folder=tmp_path)
    assert summary.first_loss == pytest.approx(2 * math.log(2), abs=1e-5)
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {
        path.name for path in (tmp_path / "checkpoint").iterdir()
    }
    assert float((logits(tmp_path / "checkpoint") - logits(trained / "checkpoint")).abs().max()) > 1e-3


def test_the_command_merges_and_both_models_answer_alike(trained: Path, tmp_path: Path) -> None:
    adapted = trained / "checkpoint"
    command = [sys.executable, "-m", "spotcli", "merge", str(adapted), "-o", "merged", "--json"]
    env = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    merged = tmp_path / "merged"
    assert json.loads((merged / "spot-merge.json").read_text()) == json.loads(done.stdout)
    assert float((logits(merged) - logits(adapted)).abs().max()) < 1e-4
    with pytest.raises(UserError, match="the folder is not empty"):
        merge_adapter(str(adapted), merged)
    # The stages also answer with the adapter itself.
    write(tmp_path, [{"prompt": row["prompt"], "answer": "1"} for row in PAIRS[:3]], "problems.jsonl")
    section = {"engine": "transformers", "temperature": 0, "max_new_tokens": 8, "dtype": "float32"}
    answers: list[list[str]] = []
    for folder in (merged, adapted):
        output = f"{folder.name}.jsonl"
        values = {"model": str(folder), "sample": {**section, "output": output}}
        sample(Recipe.model_validate(values), folder=tmp_path)
        answers.append([json.loads(line)["response"] for line in (tmp_path / output).read_text().splitlines()])
    assert answers[0] == answers[1]


def test_changes_below_the_spacing_of_bfloat16_are_kept_by_a_merge(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    # The base is bfloat16, and the changes are a thousandth of those that training made.
    adapted, base = tmp_path / "adapter", tmp_path / "base"
    shutil.copytree(trained / "checkpoint", adapted)
    small = {name: weight * (0.001 if "lora_B" in name else 1) for name, weight in adapter(adapted).items()}
    save_file(small, adapted / "adapter_model.safetensors", metadata={"format": "pt"})
    settings = json.loads((adapted / "adapter_config.json").read_text())
    models.load_model(settings["base_model_name_or_path"], "bfloat16").save_pretrained(base)
    shutil.copy(Path(settings["base_model_name_or_path"]) / "tokenizer.json", base)
    settings["base_model_name_or_path"] = str(base)
    (adapted / "adapter_config.json").write_text(json.dumps(settings))

    def weights(folder: Path) -> dict[str, Any]:
        return load_file(folder / "model.safetensors")

    summary = merge_adapter(str(adapted), tmp_path / "merged")
    assert summary.dtype == "bfloat16"
    assert "weights are rounded stochastically to bfloat16" in capsys.readouterr().err
    merge_adapter(str(adapted), tmp_path / "exact", dtype="float32")
    before, merged, exact = weights(base), weights(tmp_path / "merged"), weights(tmp_path / "exact")
    along = {"merged": 0.0, "nearest": 0.0, "exact": 0.0}
    for name, start in before.items():
        change = exact[name].double() - start.double()
        along["exact"] += float((change * change).sum())
        along["merged"] += float((change * (merged[name].double() - start.double())).sum())
        along["nearest"] += float((change * (exact[name].bfloat16().double() - start.double())).sum())
        if not change.any():
            assert torch.equal(merged[name], start)
    assert along["merged"] / along["exact"] == pytest.approx(1, abs=0.2)
    assert along["nearest"] < 0.5 * along["exact"]
    merge_adapter(str(adapted), tmp_path / "again")
    assert all(torch.equal(weight, merged[name]) for name, weight in weights(tmp_path / "again").items())


def harmed(trained: Path, folder: Path, harm: str) -> Path:
    """A copy of an adapter with damaged files."""
    import torch
    from safetensors.torch import save_file

    shutil.copytree(trained / "checkpoint", folder)
    weights = adapter(folder)
    first = sorted(weights)[0]
    if harm == "missing":
        del weights[first]
    elif harm == "shape":
        weights[first] = torch.zeros(2, 2)
    elif harm == "more layers":
        weights[first.replace("layers.0", "layers.9")] = weights[first].clone()
    elif harm == "NaN":
        weights[first].fill_(math.nan)
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    if harm == "no base":
        path = folder / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": "/no/such/model"}))
    return folder


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        ("missing", r"the weights lack .*lora_A"),
        ("shape", "size mismatch"),
        ("more layers", "more layers than the configuration"),
        ("NaN", "not finite|failed to merge"),
        ("no base", "the adapter's base model is missing: /no/such/model"),
    ],
)
@pytest.mark.parametrize("lora", [True, False])
def test_a_damaged_adapter_is_an_error(trained: Path, tmp_path: Path, harm: str, message: str, lora: bool) -> None:
    start = harmed(trained, tmp_path / "start", harm)
    write(tmp_path, PAIRS)
    section: dict[str, Any] = {"lora": {"r": 4}} if lora else {}
    with pytest.raises(UserError, match=message) as caught:
        train(recipe(start, **section, **QUICK), folder=tmp_path)
    assert caught.value.where == str(start)
    assert "\n" not in caught.value.message


def test_only_adapters_can_be_merged(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected the folder of a LoRA adapter"):
        merge_adapter(str(tiny_model), tmp_path / "merged")
