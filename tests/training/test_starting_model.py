"""What is checked before weights are loaded: the architecture, dropout, adapters, and the values of settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from spotcli import recipe_yaml
from spotcli.errors import RecipeError, UserError
from spotcli.policies import models
from spotcli.stages.train import train
from tests.stages.test_train import pair, recipe, write
from tests.training.models_for_tests import CHATML, SPECIALS, save_configs, save_model, tokenizer

PAIRS = [pair(number) for number in range(8)]

VALUES = [
    ({"learning_rate": "fast"}, "train.learning_rate", "expected a number, got 'fast'"),
    ({"learning_rate": -1e-3}, "train.learning_rate", "greater than 0"),
    ({"learning_rate": True}, "train.learning_rate", "expected a number, got true"),
    ({"num_train_epochs": 0}, "train.num_train_epochs", "greater than 0"),
    ({"num_train_epochs": "two"}, "train.num_train_epochs", "expected a number"),
    ({"num_train_epochs": float("inf")}, "train.num_train_epochs", "expected a number"),
    ({"max_grad_norm": float("nan")}, "train.max_grad_norm", "expected a number"),
    ({"warmup_steps": -1}, "train.warmup_steps", "0 or more"),
    ({"adam_beta2": 1.5}, "train.adam_beta2", "less than 1"),
    ({"gradient_accumulation_steps": 1.5}, "train.gradient_accumulation_steps", "whole number"),
    ({"save_strategy": "best"}, "train.save_strategy", "unknown value 'best'"),
    ({"optim": "adam9"}, "train.optim", "unknown value"),
    ({"optim": "galore_adamw"}, "train.optim", "transformers rejects"),
    ({"lr_scheduler_type": "cosin"}, "train.lr_scheduler_type", "unknown value 'cosin'"),
    ({"lr_scheduler_kwargs": {"foo": 1}}, "train.lr_scheduler_type", "transformers rejects"),
    ({"report_to": "foo"}, "train.report_to", "unknown tracker 'foo'"),
    ({"torch_compile": True}, "train.torch_compile", "every micro-batch has another shape"),
    ({"lora": {"target_modules": ["q_projj"]}}, "train.lora.target_modules", "no module is named 'q_projj'"),
    ({"lora": {"target_modules": ["q_proj", "lm_hed"]}}, "train.lora.target_modules", "no module is named 'lm_hed'"),
    ({"lora": {"modules_to_save": ["embed"]}}, "train.lora.modules_to_save", "no module is named 'embed'"),
    ({"lora": {"target_modules": "nothing.*"}}, "train.lora", "peft rejects"),
    ({"lora": {"rank": 4}}, "train.lora.rank", "use r"),
    ({"lora": {"use_rsloraa": True}}, "train.lora.use_rsloraa", "unknown key"),
    ({"lora": {"task_type": "X"}}, "train.lora.task_type", "cannot be set"),
    ({"lora": {"init_lora_weights": "pissa"}}, "train.lora.init_lora_weights", "changes the weights"),
    ({"lora": {"target_modules": ["lm_head"], "dropout": 0.1}}, "train.lora", "requires dropout: 0"),
    ({"lora": {"target_modules": ["lm_head"], "use_dora": True}}, "train.lora", "must be plain LoRA"),
    ({"lora": {"target_modules": ["lm_head"]}, "processes": 2, "zero": 3}, "train.lora", "ZeRO-3"),
]  # fmt: skip


def test_a_bare_no_of_yaml_is_the_word(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("train:\n  save_strategy: no\n")
    assert recipe_yaml.load(tmp_path / "recipe.yaml").train.training_arguments == {"save_strategy": "no"}


@pytest.mark.parametrize(("section", "where", "words"), VALUES)
def test_a_value_that_cannot_work_is_an_error_before_weights_are_loaded(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, section: dict[str, Any], where: str, words: str
) -> None:
    write(tmp_path, PAIRS)
    monkeypatch.setattr(models, "load_model", lambda *given: pytest.fail("weights were loaded"))
    with pytest.raises(RecipeError, match=words) as caught:
        train(recipe(tiny_model, **section), folder=tmp_path)
    assert caught.value.where == where
    assert "\n" not in caught.value.message


def test_an_error_about_a_setting_names_the_line_of_the_recipe(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, PAIRS)
    path = tmp_path / "r.yaml"
    path.write_text(f"model: {tiny_model}\ntrain:\n  lora:\n    r: 4\n    rsloraa: true\n  learning_rate: 1e-3\n")
    with pytest.raises(RecipeError) as caught:
        train(recipe_yaml.load(path), folder=tmp_path)
    assert caught.value.where == f"{path}:5: train.lora.rsloraa"
    with pytest.raises(RecipeError) as caught:
        train(recipe_yaml.load(path, ["train.learning_rate=fast", "train.lora=null"]), folder=tmp_path)
    assert caught.value.where == "-s train.learning_rate=fast"


def changed(folder: Path, name: str, **values: Any) -> Path:
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    return folder


def vision_model(folder: Path) -> Path:
    from transformers import AutoConfig

    AutoConfig.for_model("qwen2_5_vl").save_pretrained(folder)
    tokenizer(SPECIALS, "<|im_end|>", CHATML).save_pretrained(folder)
    return folder


MODELS = {
    "reads images": (vision_model, "qwen2_5_vl is not a language model that reads text alone", "a Llama"),
    "reads images, and transformers counts it among the language models": (
        lambda folder: save_configs(folder, "gemma3", tokenizer(SPECIALS, "<|im_end|>", CHATML)),
        "gemma3 is not a language model that reads text alone", "save the language model alone",
    ),
    "unknown architecture": (
        lambda folder: changed(save_configs(folder, "llama", tokenizer(SPECIALS, "<|im_end|>", CHATML)), "config.json",
                               model_type="foo"),
        "model type `foo`", "update transformers",
    ),
    "own code": (
        lambda folder: changed(save_configs(folder, "llama", tokenizer(SPECIALS, "<|im_end|>", CHATML)), "config.json",
                               model_type="foo", auto_map={"AutoConfig": "c.C", "AutoModelForCausalLM": "c.M"}),
        "custom code", "spot runs no code of a model",
    ),
    "logits changed after the head": (
        lambda folder: save_configs(folder, "gemma2", tokenizer(SPECIALS, "<|im_end|>", CHATML), head_dim=8),
        "final_logit_softcapping", "a Llama",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_a_model_that_cannot_be_trained_is_an_error_before_weights_are_loaded(tmp_path: Path, name: str) -> None:
    build, message, cure = MODELS[name]
    # There are no weights in the folder.
    model = build(tmp_path / "model")
    write(tmp_path, PAIRS)
    with pytest.raises(UserError, match=message) as caught:
        train(recipe(model), folder=tmp_path)
    assert cure in str(caught.value.cure)
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("kind", "sizes", "shown"),
    [
        ("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512}, "attn_pdrop 0.1"),
        ("llama", {"attention_dropout": 0.2}, "attention_dropout 0.2"),
        ("mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2, "router_jitter_noise": 0.1},
         "router_jitter_noise 0.1"),
    ],
)  # fmt: skip
def test_dropout_is_switched_off_and_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, sizes: dict[str, Any], shown: str
) -> None:
    model = save_model(tmp_path / "model", kind, **sizes)
    write(tmp_path, PAIRS)
    # With dropout, the first loss would differ from the expected one.
    summary = train(recipe(model, num_train_epochs=1, objective="spot-bce"), folder=tmp_path)
    assert summary.first_loss == pytest.approx(1.386294, abs=1e-5)
    assert "dropout is switched off while training (" in (text := capsys.readouterr().err)
    assert shown in text
    # The saved configuration keeps it.
    before, after = (json.loads((folder / "config.json").read_text()) for folder in (model, tmp_path / "checkpoint"))
    assert {name: after[name] for name in before} == before


def test_pairs_longer_than_the_positions_of_a_model_are_left_out(tmp_path: Path) -> None:
    sizes: dict[str, Any] = {"n_embd": 32, "n_layer": 1, "n_head": 4, "max_position_embeddings": 90}
    model = save_model(tmp_path / "model", "gpt2", **sizes)
    write(tmp_path, [pair(2), pair(3, rejected="x" * 80), pair(4)])
    summary = train(recipe(model, num_train_epochs=1, objective="sft"), folder=tmp_path)
    assert summary.dropped == {"longer than max_length": 1}


def test_a_run_without_shared_prefixes_claims_no_saving(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, PAIRS)
    for share, claimed in ((True, True), (False, False)):
        train(recipe(tiny_model, share_prefix=share), folder=tmp_path, dry_run=True)
        assert ("counted once" in capsys.readouterr().err) == claimed
