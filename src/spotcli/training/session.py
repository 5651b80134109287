"""The model of a run: loaded and prepared for training, with adapters or without."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from spotcli.errors import RecipeError
from spotcli.policies import adapters, models
from spotcli.policies.chat_template import EndOfTurn
from spotcli.recipe import LoraSection
from spotcli.training import keys
from spotcli.training.plan import TrainPlan
from spotcli.training.saving import SavedConfig
from spotcli.training.starting_model import lora_config, switch_dropout_off

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
    if deepspeed:
        _compile_nothing()
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
    if plan.sharding == "fsdp":
        # Otherwise each process would keep the gradients of all weights until the last micro-batch of a step.
        values["accelerator_config"] = {"gradient_accumulation_kwargs": {"sync_each_batch": True}}
    try:
        arguments = TrainingArguments(**values)
    except (ValueError, TypeError, ImportError) as error:
        reason = " ".join(str(error).split())
        raise RecipeError(f"transformers rejects a training argument: {reason}", where="train") from None
    if not plan.ranks.launched:
        arguments._n_gpu = min(arguments.n_gpu, 1)  # one process uses one GPU
    keys.check_optimizer(arguments, plan.steps)
    return arguments


def _compile_nothing() -> None:
    """Keep DeepSpeed from compiling its collectives for CPUs, which gloo has too.

    That takes minutes, and a process that is killed meanwhile leaves a lock for which every later run waits forever.
    """
    import deepspeed.ops

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def load_model(plan: TrainPlan) -> PreparedModel:
    """The starting policy with the output layer, the rounding and the attention that training uses.

    An adapter is loaded with its base model. With LoRA it is trained on; otherwise it is merged.

    Raises:
        UserError: the model is not found, its files are damaged, or its log-probabilities cannot be computed.
    """
    import torch

    if torch.cuda.is_available() and plan.ranks.local_rank is not None:
        torch.cuda.set_device(plan.ranks.local_rank)
    precision, base = plan.precision, plan.start.base
    nf4 = precision.compute if plan.section.quantize else None
    model: Any = models.load_model(base or plan.model, precision.weights, nf4)
    source = models.source_dtype(base or plan.model)
    dtype = source if plan.section.save_dtype == "auto" else getattr(torch, plan.section.save_dtype)
    saved = SavedConfig(model.config._attn_implementation, model.config.use_cache, dtype)
    if base is not None and plan.section.lora is None:
        model = adapters.merged(model, plan.model).requires_grad_(True)
    return prepare_model(plan, model, saved)


def prepare_model(plan: TrainPlan, model: Any, saved: SavedConfig) -> PreparedModel:
    """A loaded model with the output layer, the rounding and the attention that training uses.

    Args:
        plan: the run.
        model: the policy, on its device.
        saved: the values of its configuration before training.
    """
    from spotcli.core.forward import compiled_norms, logps, rounded_operands, shared_attention
    from spotcli.core.forward.rounded_weights import RoundedWeights

    precision, base = plan.precision, plan.start.base
    shared_attention.pin_flash()
    switch_dropout_off(model)
    _stop_at(model, plan.data.end)
    logps.install(model)
    rounded_operands.install(model)
    if plan.section.compile_norms:
        compiled_norms.install(model)
    trains_rounded = precision.autocast and precision.weights == "float32" and plan.section.rounding == "stochastic"
    rounded = RoundedWeights(model, plan.recipe.seed, keep=not plan.divided) if trains_rounded else None
    if plan.share:
        shared_attention.register()
        model.set_attn_implementation(shared_attention.NAME)
    if base is not None and plan.section.lora is not None:
        model.enable_input_require_grads()
        model = adapters.attach(model, plan.model, trainable=True)
        _train_in_float32(model)
    return PreparedModel(model, saved, rounded)


def _stop_at(model: Any, end: EndOfTurn | None) -> None:
    """Have generation_config.json stop at the token that answers are trained to end with."""
    if end is None:
        return
    config = model.generation_config
    stops = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    if end.ids[-1] not in stops:
        config.eos_token_id = [*(token for token in stops if token is not None), end.ids[-1]]


def add_adapters(model: Any, lora: LoraSection, seed: int) -> Any:
    """The model wrapped by peft, with LoRA adapters to train and frozen weights; unchanged if it is wrapped already.

    Raises:
        MissingExtra: peft is not installed.
        RecipeError: peft rejects a setting.
    """
    config = lora_config(lora)
    import torch
    from peft import PeftModel, get_peft_model

    if isinstance(model, PeftModel):
        return model
    torch.manual_seed(seed)
    # The base is frozen: without this, no input of a checkpointed layer would require gradients.
    model.enable_input_require_grads()
    with warnings.catch_warnings():
        # peft reads a property of transformers under its deprecated name, and warns of what `starting_model` checks.
        warnings.simplefilter("ignore")
        adapted = get_peft_model(model, config)
    _train_in_float32(adapted)
    return adapted


def _train_in_float32(model: Any) -> None:
    """Have float32 copies of every weight that is trained: peft's ``modules_to_save`` have the base's precision."""
    for weight in model.parameters():
        if weight.requires_grad and weight.is_floating_point():
            weight.data = weight.data.float()
