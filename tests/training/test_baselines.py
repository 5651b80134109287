"""Every baseline of the paper trains on files that `spot rectify` makes from the same samples."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from spotcli import recipe_yaml
from spotcli.errors import DataError
from spotcli.recipe import Recipe
from spotcli.stages.rectify import rectify
from spotcli.stages.train import train
from spotcli.training.batch_plan import BatchSize, batch_size
from spotcli.training.cluster import sharding
from spotcli.training.dry_run import setup_of
from spotcli.training.keys import argument
from tests.conftest import ROOT, write_rows
from tests.fake_provider import FakeProvider

FOLDER = ROOT / "recipes"
RECIPES = sorted(FOLDER.glob("*.yaml"))

# Two wrong answers and one right one.
SAMPLES: list[dict[str, Any]] = [
    {"id": "row-a", "prompt": "row-a: 12 + 30 - 7", "answer": "35", "verdict": "wrong",
     "response": "12 + 30 = 43\n43 - 7 = 36\nThe answer is \\boxed{36}."},
    {"id": "row-b", "prompt": "row-b: 5 + 6 - 1", "answer": "10", "verdict": "wrong",
     "response": "5 + 6 = 12\n12 - 1 = 11\nThe answer is \\boxed{11}."},
    {"id": "row-c", "prompt": "row-c: 2 + 2 - 1", "answer": "3", "verdict": "right",
     "response": "2 + 2 = 4\n4 - 1 = 3\nThe answer is \\boxed{3}."},
]  # fmt: skip
OWN = {"row-a": "Taking all together, \\boxed{35}.", "row-b": "Taking all together, \\boxed{10}."}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with surgery.jsonl, direct.jsonl and self.jsonl."""
    folder = tmp_path_factory.mktemp("baselines")
    write_rows(folder / "samples.jsonl", SAMPLES)
    solutions = {name: [{"text": f"<answer-{{fence}}>\n{text}\n</answer-{{fence}}>"}] for name, text in OWN.items()}
    with FakeProvider(solutions, key="sk-baselines-0123456789") as provider, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_API_KEY", "sk-baselines-0123456789")
        patch.setenv("NO_PROXY", "127.0.0.1")
        for mode, oracle in (("surgery", "symbolic"), ("direct", "gpt-4o"), ("self", None)):
            section = {"mode": mode, "oracle": oracle, "output": f"{mode}.jsonl", "base_url": provider.base_url}
            rectify(Recipe.model_validate({"rectify": section}), folder=folder)
    return folder


def chosen(folder: Path, mode: str) -> list[str]:
    return [json.loads(line)["chosen"] for line in (folder / f"{mode}.jsonl").read_text().splitlines()]


def test_each_mode_writes_its_own_chosen_answers(made: Path) -> None:
    assert chosen(made, "direct") == list(OWN.values())
    assert chosen(made, "self") == [SAMPLES[2]["response"]]
    assert chosen(made, "surgery") == [
        "12 + 30 = 42\n42 - 7 = 35\nThe answer is \\boxed{35}.",
        "5 + 6 = 11\n11 - 1 = 10\nThe answer is \\boxed{10}.",
    ]


LN2 = math.log(2)
# The baselines of the paper: mode of `spot rectify`, objective, pairs, and the first loss where it is known.
BASELINES = {
    "SFT": ("direct", "sft", 2, None),
    "RFT": ("self", "sft", 1, None),
    "SFT+": ("surgery", "sft", 2, None),
    "DFT": ("surgery", "dft", 2, None),
    "Reward-SFT": ("surgery", "reward-sft", 2, LN2),
    "DPO": ("surgery", "dpo", 2, LN2),
    "SPoT-BCE": ("surgery", "spot-bce", 2, 2 * LN2),
    "SPoT-BCO": ("surgery", "spot-bco", 2, 2 * LN2),
}


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("file", RECIPES, ids=lambda path: path.stem)
def test_every_baseline_trains_with_every_recipe(
    made: Path, tiny_model: Path, tmp_path: Path, file: Path, name: str
) -> None:
    from safetensors.torch import load_file

    mode, objective, pairs, first_loss = BASELINES[name]
    given = [f"train.objective={objective}", f"train.data={made / mode}.jsonl", f"model={tiny_model}"]
    # Compiling for a processor needs a C++ compiler; tests/core/forward/test_compiled_norms.py compiles.
    given += ["train.processes=1", "train.dtype=float32", "train.compile_norms=false"]
    recipe = recipe_yaml.load(file, given)
    planned = train(recipe, folder=tmp_path, dry_run=True)
    assert (planned.objective, planned.pairs, planned.dropped, planned.steps) == (objective, pairs, {}, 2)
    assert not (tmp_path / "checkpoint").exists()
    # A run takes a second: one recipe trains all baselines, the other recipes only their own objective.
    if file.stem != "qwen3-8b" and objective != recipe_yaml.load(file).train.objective:
        return
    summary = train(recipe, folder=tmp_path)
    assert summary.pairs == pairs
    if first_loss is None:
        # Nats per token of an untrained model, a little more than ln 258; DFT multiplies this by a probability.
        assert summary.first_loss is not None
        assert 0 < summary.first_loss < 8
    else:
        assert summary.first_loss == pytest.approx(first_loss, abs=1e-4)
    # The learning rate of the first step is 0 (warm-up); the second step changes every weight.
    checkpoint = tmp_path / "checkpoint"
    if recipe.train.lora is None:
        before, after = (load_file(folder / "model.safetensors") for folder in (tiny_model, checkpoint))
        assert before.keys() == after.keys()
        assert all((before[part] != after[part]).any() for part in before)
    else:
        adapter = load_file(checkpoint / "adapter_model.safetensors")
        assert any(part.any() for part_name, part in adapter.items() if "lora_B" in part_name)


# The paper's settings (arXiv 2603.01683, experimental setup), common to its two models unless a parameter below.
@pytest.mark.parametrize(
    ("file", "model", "rate", "baseline_rate"),
    [
        # Learning rates: SPoT 1e-6 and the SFT family 5e-6; SPoT 2e-7 and the SFT family 1e-6.
        ("qwen3-8b.yaml", "Qwen/Qwen3-8B", 1e-6, "5e-6"),
        ("llama-3.1-8b-instruct.yaml", "meta-llama/Llama-3.1-8B-Instruct", 2e-7, "1e-6"),
    ],
)
def test_recipes_have_the_settings_of_the_paper(file: str, model: str, rate: float, baseline_rate: str) -> None:
    recipe = recipe_yaml.load(FOLDER / file)
    sampling, section, scored = recipe.sample, recipe.train, recipe.eval
    assert recipe.model == model
    # Error elicitation: one response per problem of DAPO-Math-17k, temperature 0.7, top-p 0.8, 32,768 new tokens.
    assert sampling.problems.endswith("DAPO-Math-17k")
    assert (sampling.trials, sampling.temperature, sampling.top_p, sampling.top_k) == (1, 0.7, 0.8, 0)
    assert sampling.max_new_tokens == 32_768
    # The oracle, and the proximity filter: R_LCS at most 0.6.
    assert (recipe.rectify.oracle, recipe.rectify.gamma) == ("gemini/gemini-2.5-pro", 0.6)
    # beta 0.1; 2 epochs; batch 32 over 8 GPUs; context 8,192; the shift is an exponential moving average.
    assert (section.objective, section.beta, section.shift, section.max_length) == ("spot-bco", 0.1, "ema", 8192)
    assert (section.ranks, batch_size(section)) == (8, BatchSize(32, 4))
    # AdamW (0.9, 0.95), weight decay 0.01; cosine, 5 % warm-up; full fine-tuning with gradient checkpointing.
    expected = {
        "learning_rate": rate, "num_train_epochs": 2, "adam_beta1": 0.9, "adam_beta2": 0.95, "weight_decay": 0.01,
        "lr_scheduler_type": "cosine", "warmup_steps": 0.05, "optim": "adamw_torch_fused",
    }  # fmt: skip
    assert {name: argument(section, name) for name in expected} == expected
    assert section.lora is None
    # bfloat16 under ZeRO-2.
    setup = setup_of(section, sharding(section))
    assert (setup.sharding, setup.checkpointing, setup.compute_bytes, setup.weight_bytes) == ("zero2", True, 2, 2)
    assert f"# {baseline_rate} for sft and dft" in (FOLDER / file).read_text()
    # Qwen3 does not think in sampling, training and evaluation.
    thinking = {"enable_thinking": False} if "Qwen" in model else {}
    assert sampling.chat_template_kwargs == section.chat_template_kwargs == scored.chat_template_kwargs == thinking
    # Evaluation: temperature 0.7, top-p 0.8, top-k 20, 32,768 new tokens.
    assert (scored.temperature, scored.top_p, scored.top_k, scored.max_new_tokens) == (0.7, 0.8, 20, 32_768)


def test_spot_bco_rejects_rows_without_a_rejected_answer(made: Path, tiny_model: Path, tmp_path: Path) -> None:
    section = {"data": str(made / "self.jsonl"), "objective": "spot-bco"}
    with pytest.raises(DataError, match="rejected"):
        train(Recipe.model_validate({"model": str(tiny_model), "train": section}), folder=tmp_path, dry_run=True)
