"""Models, pairs and plans of benchmarks/gpu.py: random weights from configurations, and no files but config.json."""

from __future__ import annotations

import gc
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from spotcli.core.forward.encoding import Encoded, EncodedPair
from spotcli.policies import models
from spotcli.recipe import Recipe
from spotcli.training import session
from spotcli.training.batch_plan import plan_layout
from spotcli.training.data import PrefixSharing, TrainingData
from spotcli.training.plan import TrainPlan
from spotcli.training.rank import Ranks
from spotcli.training.saving import SavedConfig
from spotcli.training.session import PreparedModel
from spotcli.training.starting_model import StartingModel

Edit = Literal["early", "middle", "late"]

EDITS: dict[Edit, float] = {"early": 0.15, "middle": 0.5, "late": 0.85}
"""Where the first edit of an answer is, as a share of its length."""

QWEN3: dict[str, dict[str, Any]] = {
    "1.7B": {
        "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28, "num_attention_heads": 16,
        "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936, "tie_word_embeddings": True,
    },
    "8B": {
        "hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36, "num_attention_heads": 32,
        "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936, "tie_word_embeddings": False,
    },
    "tiny": {
        "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 512, "tie_word_embeddings": True,
    },
}  # fmt: skip
"""Published sizes of Qwen3 models, and a tiny one."""


@dataclass(frozen=True)
class Machine:
    """Where the measurements run."""

    device: str
    """``cuda`` or ``cpu``."""
    tiny: bool
    """Small models and short pairs, for a CPU."""
    scratch: Path
    """A folder for configurations and outputs."""

    @property
    def is_gpu(self) -> bool:
        return self.device == "cuda"

    def shape(self, name: str) -> dict[str, Any]:
        """The sizes of a Qwen3 model; those of the tiny one on a tiny run."""
        return QWEN3["tiny" if self.tiny else name]

    def wait(self) -> None:
        """Wait until the GPU has finished its work."""
        import torch

        if self.is_gpu:
            torch.cuda.synchronize()

    def clear(self) -> None:
        """Return the memory of deleted models, and count the peak from here."""
        import torch

        if self.is_gpu:
            gc.collect()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def peak_gib(self) -> float | None:
        """The largest allocated memory since ``clear``, in GiB; None on a CPU."""
        import torch

        return torch.cuda.max_memory_allocated() / 2**30 if self.is_gpu else None


def surgical_pairs(machine: Machine, edit: Edit, count: int, vocabulary: int, seed: int = 0) -> list[EncodedPair]:
    """Pairs whose answers differ in one or two short places, the first one at a share of the answer.

    Answers have 1,500 to 4,000 random tokens, prompts 100 to 200; a tiny run has shorter ones.
    """
    chance = random.Random(f"{edit} {seed}")
    low, high = (40, 80) if machine.tiny else (1500, 4000)

    def draw(number: int) -> list[int]:
        return [chance.randrange(3, vocabulary) for _ in range(number)]

    pairs = []
    for _ in range(count):
        length = chance.randint(low, high)
        rejected, first = draw(length), int(EDITS[edit] * length)
        width = max(1, min(12, length // 20))
        chosen = [*rejected]
        chosen[first : first + width] = draw(width + chance.randint(-width // 2, width // 2))
        chosen[first] = (rejected[first] + 1) % vocabulary  # the first edited token always differs
        prompt = draw(chance.randint(100, 200) // (10 if machine.tiny else 1))
        pairs.append(EncodedPair(tuple(prompt), (*chosen, 2), (*rejected, 2)))
    return pairs


def save_config(folder: Path, kind: str, sizes: dict[str, Any]) -> Any:
    """Write config.json of a model without weights; the configuration."""
    from transformers import AutoConfig

    config = AutoConfig.for_model(kind, **sizes, bos_token_id=0, eos_token_id=1, pad_token_id=1)
    config.save_pretrained(folder)
    return config


def make_plan(
    machine: Machine, name: str, pairs: Sequence[EncodedPair], train: dict[str, Any], *, share: bool = True
) -> TrainPlan:
    """The plan of a run on given pairs, for a Qwen3 model of which only config.json exists."""
    folder = machine.scratch / f"qwen3-{name}{'-tiny' if machine.tiny else ''}"
    save_config(folder, "qwen3", machine.shape(name))
    settings = {"output": "run", "save_strategy": "no", "warmup_steps": 0, "num_train_epochs": 1, **train}
    recipe = Recipe.model_validate({"model": str(folder), "train": settings})
    data = TrainingData(Encoded([*pairs], read=len(pairs)))
    layout = plan_layout(recipe.train, data.pairs, share=share, seed=recipe.seed)
    return TrainPlan(
        recipe, machine.scratch, StartingModel(), data, PrefixSharing(share), layout, Ranks()
    )  # fmt: skip


def random_model(machine: Machine, config: Any, dtype: str) -> Any:
    """A model with random weights, made on the device."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    load: Any = AutoModelForCausalLM  # from_config has no annotations
    with torch.device(machine.device):
        return load.from_config(config, dtype=models.torch_dtype(dtype))  # type: ignore[arg-type]


def prepare(machine: Machine, plan: TrainPlan) -> PreparedModel:
    """The model of a plan, as ``spot train`` prepares a loaded one; without adapters."""
    import torch
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(plan.model)
    model = random_model(machine, config, plan.precision.weights)
    saved = SavedConfig(config._attn_implementation, True, torch.bfloat16)
    return session.prepare_model(plan, model, saved)


def with_adapters(plan: TrainPlan, prepared: PreparedModel) -> PreparedModel:
    """The model with LoRA adapters, if the plan has any."""
    if plan.section.lora is None:
        return prepared
    return replace(prepared, model=session.add_adapters(prepared.model, plan.section.lora, plan.recipe.seed))
