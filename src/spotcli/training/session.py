"""The model of a run: loaded and prepared for training, with adapters or without."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from spotcli.errors import MissingExtra, RecipeError
from spotcli.policies import models
from spotcli.recipe import LoraSection
from spotcli.training import keys
from spotcli.training.plan import TrainPlan
from spotcli.training.saving import SavedConfig

if TYPE_CHECKING:
    from spotcli.core.forward.rounded_weights import RoundedWeights


@dataclass(frozen=True)
class PreparedModel:
    """The starting policy, prepared to compute log-probabilities."""

    model: Any
    saved: SavedConfig
    rounded: RoundedWeights | None
    """None where the products use the weights as they are, or their nearest numbers."""


def training_arguments(plan: TrainPlan) -> Any:
    """transformers' ``TrainingArguments`` of a run. Under DeepSpeed, they must exist before the model is loaded.

    Raises:
        RecipeError: transformers rejects a value.
    """
    import torch
    from transformers import TrainingArguments

    values: dict[str, Any] = {"save_strategy": "steps", "save_steps": max(1, math.ceil(plan.steps / 4))}
    values |= keys.DEFAULTS | plan.section.training_arguments
    # Newer versions of transformers renamed these and warn about the old names.
    known = {field.name for field in fields(TrainingArguments)}
    for old in ("gradient_checkpointing", "gradient_checkpointing_kwargs"):
        new = old.replace("gradient", "activation")
        if old in values and new in known:
            values[new] = values.pop(old)
    deepspeed = plan.sharding.startswith("zero")
    values |= {
        "output_dir": str(plan.output),
        "per_device_train_batch_size": plan.layout.micro,
        "gradient_accumulation_steps": plan.layout.accumulate,
        "seed": plan.recipe.seed,
        "remove_unused_columns": False,
        "label_names": [],
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "use_cpu": not torch.cuda.is_available(),
        "bf16": deepspeed and plan.precision.compute == "bfloat16",
    }
    try:
        arguments = TrainingArguments(**values)
    except (ValueError, TypeError) as error:
        raise RecipeError(f"transformers rejects a training argument: {error}", where="train") from None
    if not plan.ranks.launched:
        arguments._n_gpu = min(arguments.n_gpu, 1)  # one process uses one GPU
    return arguments


def load_model(plan: TrainPlan) -> PreparedModel:
    """The starting policy with the output layer, the rounding and the attention that training uses.

    Raises:
        UserError: the model is not found, or its log-probabilities cannot be computed.
    """
    import torch
    from transformers import AutoConfig

    from spotcli.core.forward import logps, rounded_operands, shared_attention
    from spotcli.core.forward.rounded_weights import RoundedWeights

    if torch.cuda.is_available() and plan.ranks.local_rank is not None:
        torch.cuda.set_device(plan.ranks.local_rank)
    precision = plan.precision
    nf4 = precision.compute if plan.section.quantize else None
    model: Any = models.load_model(plan.model, precision.weights, nf4)
    source = AutoConfig.from_pretrained(models.resolve(plan.model), trust_remote_code=False).dtype or torch.float32
    dtype = source if plan.section.save_dtype == "auto" else getattr(torch, plan.section.save_dtype)
    saved = SavedConfig(model.config._attn_implementation, model.config.use_cache, dtype)
    logps.install(model)
    rounded_operands.install(model)
    trains_rounded = precision.autocast and precision.weights == "float32" and plan.section.rounding == "stochastic"
    rounded = RoundedWeights(model, plan.recipe.seed, keep=not plan.divided) if trains_rounded else None
    if plan.share:
        shared_attention.register()
        model.set_attn_implementation(shared_attention.NAME)
    return PreparedModel(model, saved, rounded)


def add_adapters(model: Any, lora: LoraSection, seed: int) -> Any:
    """The model wrapped by peft, with LoRA adapters to train and frozen weights.

    Raises:
        MissingExtra: peft is not installed.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        raise MissingExtra("train", "LoRA") from None
    import torch

    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        task_type="CAUSAL_LM",
    )
    torch.manual_seed(seed)
    # The base is frozen: without this, no input of a checkpointed layer would require gradients.
    model.enable_input_require_grads()
    with warnings.catch_warnings():
        # peft reads a property of transformers under its deprecated name.
        warnings.simplefilter("ignore", FutureWarning)
        return get_peft_model(model, config)
