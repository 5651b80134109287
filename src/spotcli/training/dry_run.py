"""``spot train --dry-run``: operations, memory and minutes of a run, without loading weights.

The sizes come from config.json: transformers builds the model on the ``meta`` device, which has shapes but no numbers.
``core.costs`` has the formulas.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from spotcli.console import say, warn
from spotcli.core import costs
from spotcli.core.costs import DEVICES, Setup, Shape, Work, row_work
from spotcli.errors import RecipeError
from spotcli.policies import models
from spotcli.policies.empty_model import empty_model
from spotcli.policies.weight_files import WeightFiles
from spotcli.recipe import LoraSection, TrainSection, suggest
from spotcli.training import keys
from spotcli.training.cluster import Sharding
from spotcli.training.plan import TrainPlan
from spotcli.training.settings import MEMORY_CURE
from spotcli.training.summary import CostEstimate, UpdateEstimate

ROWS = 64
"""Rows of each matrix whose weights are compared with the updates."""


def estimate_cost(plan: TrainPlan, *, device: str, utilisation: float) -> CostEstimate:
    """The estimated cost of a run.

    Args:
        plan: the run.
        device: a name in ``core.costs.DEVICES``.
        utilisation: the share of the device's peak that is reached.

    Raises:
        RecipeError: the device is unknown.
        UserError: the model's configuration cannot be loaded.
    """
    if device not in DEVICES:
        raise RecipeError(f"unknown device '{device}'", where="--device", cure=suggest(device, [*DEVICES]))
    shape = shape_of(plan.model, plan.section)
    setup = setup_of(plan.section, plan.sharding)
    batches = _work(plan)
    epoch = sum(batches, Work(0, 0, 0))
    epochs = plan.steps / math.ceil(plan.rows_per_epoch / plan.layout.step)
    per_epoch = costs.training(shape, epoch, checkpointing=setup.checkpointing)
    operations = {name: float(value * epochs) for name, value in per_epoch.items()}
    if plan.needs_reference:
        operations["reference"] = float(sum(costs.forward(shape, epoch).values()))
    largest = max(batches, key=lambda work: costs.activations(shape, work, setup))
    memory = costs.memory(shape, largest, setup)
    files = _files(plan, shape, setup)
    return CostEstimate(
        parameters=shape.parameters,
        trained=shape.trained,
        quantized=shape.quantized,
        operations=operations,
        device=device,
        devices=plan.layout.ranks,
        utilisation=utilisation,
        minutes=costs.minutes(
            sum(operations.values()), device=DEVICES[device], devices=plan.layout.ranks, utilisation=utilisation
        ),
        memory=memory,
        memory_total=sum(memory.values()),
        memory_available=DEVICES[device].memory,
        memory_loading=costs.loading_memory(shape, largest, setup),
        disk=files.disk,
        loading_seconds=files.loading / costs.DISK_RATE,
        saving_seconds=files.saving / costs.DISK_RATE,
        updates=estimate_updates(plan) if plan.section.lora is None else None,
    )


@dataclass(frozen=True)
class _Files:
    """What a run reads and writes."""

    disk: dict[str, float]
    """GiB that exist when the model is saved, by content."""
    loading: float
    """Bytes that are read."""
    saving: float
    """Bytes that are written in the whole run."""


def _files(plan: TrainPlan, shape: Shape, setup: Setup) -> _Files:
    """The files of a run; one checkpoint more than the limit exists until the new one is whole."""
    one, section = costs.checkpoint_bytes(shape, setup), plan.section
    saves = _saves(section, plan.steps, math.ceil(len(plan.pairs) / plan.layout.step))
    limit = keys.argument(section, "save_total_limit")
    kept = min(saves, int(limit) + 1) if limit else saves
    config, _ = models.load_configs(plan.model)
    stored = int(getattr(getattr(config, "dtype", None), "itemsize", 2))
    saved = stored if section.save_dtype == "auto" else int(models.torch_dtype(section.save_dtype).itemsize)
    model = 4 * shape.adapters if shape.adapters else saved * shape.parameters
    parts = {"checkpoints": kept * one, "model": model}
    if plan.objective.reference:
        parts["reference"] = costs.CACHED_PAIR * len(plan.pairs)
    disk = {name: value / costs.GIB for name, value in parts.items()}
    return _Files(disk, loading=stored * shape.parameters, saving=saves * one + model)


def _saves(section: TrainSection, steps: int, per_epoch: int) -> int:
    """How many checkpoints a run writes; the model alone follows the last step, unless checkpoints are kept."""
    arguments = section.training_arguments
    strategy = str(arguments.get("save_strategy", "steps"))
    if strategy == "no":
        return 0
    every = float(arguments.get("save_steps", max(1, math.ceil(steps / 4))))
    whole = per_epoch if strategy == "epoch" else math.ceil(every * steps) if every < 1 else int(every)
    last = steps if keys.keeps_checkpoints(section) else steps - 1
    return last // whole


def estimate_updates(plan: TrainPlan) -> UpdateEstimate | None:
    """Compare the largest possible updates with bfloat16's spacing; None without weights on this machine.

    Args:
        plan: the run. At most ``ROWS`` rows of each matrix of its model are read.
    """
    import torch

    from spotcli.core.rounding import half_spacings

    rates = _learning_rates(plan)
    step, run = max(rates), sum(rates)
    files = WeightFiles(models.resolve(plan.model))
    weights = above_step = above_run = 0.0
    for name in files.names():
        whole, part = files.size(name), files.get(name, rows=ROWS)
        if part is None or not part.is_floating_point() or not part.numel():
            continue
        halves = half_spacings(part, torch.bfloat16)
        weights += whole
        above_step += whole * float((halves < step).float().mean())
        above_run += whole * float((halves < run).float().mean())
    return UpdateEstimate(step, run, above_step / weights, above_run / weights) if weights else None


def _learning_rates(plan: TrainPlan) -> list[float]:
    """The learning rate of each training step."""
    import torch
    from transformers import get_scheduler

    warmup = float(keys.argument(plan.section, "warmup_steps"))
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=float(keys.argument(plan.section, "learning_rate")))
    scheduler = get_scheduler(
        keys.argument(plan.section, "lr_scheduler_type"),
        optimizer,
        num_warmup_steps=math.ceil(warmup * plan.steps) if warmup < 1 else int(warmup),
        num_training_steps=plan.steps,
        scheduler_specific_kwargs=plan.section.training_arguments.get("lr_scheduler_kwargs"),
    )
    rates = []
    for _ in range(plan.steps):
        rates.append(float(scheduler.get_last_lr()[0]))
        optimizer.step()
        scheduler.step()
    return rates


def _work(plan: TrainPlan) -> list[Work]:
    """The work of each micro-batch of the first epoch."""
    pairs, rejected = plan.pairs, plan.objective.rejected
    return [
        row_work([pairs[index] for index in batch.members], share=plan.share, rejected=rejected)
        for turn in plan.epoch(0)
        for batch in turn
    ]


def shape_of(name: str, section: TrainSection) -> Shape:
    """The sizes of a model, with the adapters and the quantisation of the train section."""
    import torch

    model = empty_model(name)
    text = model.config.get_text_config()
    head = model.get_output_embeddings()
    linear = {
        path: module
        for path, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    }
    # The experts of a layer are one parameter with three axes.
    expert_weights = sum(weight.numel() for weight in model.parameters() if weight.ndim == 3)
    experts = getattr(text, "num_experts", None) or getattr(text, "num_local_experts", None) or 1
    active = getattr(text, "num_experts_per_tok", None) or experts
    heads = text.num_attention_heads
    head_size = getattr(text, "head_dim", None) or text.hidden_size // heads
    products = sum(module.weight.numel() for module in linear.values())
    return Shape(
        parameters=sum(weight.numel() for weight in model.parameters()),
        body=products + expert_weights * active // experts,
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        width=heads * head_size,
        key_width=(getattr(text, "num_key_value_heads", None) or heads) * head_size,
        mlp=(text.moe_intermediate_size * active if expert_weights else text.intermediate_size),
        vocabulary=text.vocab_size,
        head_norms=any(path.endswith("q_norm") for path, _ in model.named_modules()),
        adapters=_adapters(section.lora, linear) if section.lora is not None else 0,
        # bitsandbytes quantises linear layers only, not experts, embeddings and output layer.
        quantized=products if section.quantize else 0,
    )


def _adapters(lora: LoraSection, linear: dict[str, Any]) -> int:
    """Weights of the LoRA adapters: r * (inputs + outputs) of each module that gets one.

    Args:
        lora: the rank and the names of the modules.
        linear: the model's linear layers, by their paths.
    """
    targets = [lora.target_modules] if isinstance(lora.target_modules, str) else lora.target_modules
    return sum(
        lora.r * (module.in_features + module.out_features)
        for path, module in linear.items()
        if targets == ["all-linear"] or path.rpartition(".")[2] in targets
    )


def setup_of(section: TrainSection, sharding: Sharding) -> Setup:
    """How a recipe trains on GPUs, which compute in bfloat16 unless ``train.dtype`` is float32."""
    from spotcli.core.forward.logps import GPU_CHUNK, KEEP

    exact = section.dtype == "float32"
    deepspeed = sharding.startswith("zero")
    low = not exact and (deepspeed or section.lora is not None)
    arguments = section.training_arguments
    return Setup(
        ranks=section.ranks,
        sharding=sharding,
        offload=section.offload,
        checkpointing=bool(arguments.get("gradient_checkpointing") or arguments.get("activation_checkpointing")),
        weight_bytes=2 if low else 4,
        compute_bytes=4 if exact else 2,
        autocast=not exact and not deepspeed,
        chunk=GPU_CHUNK,
        keep=KEEP,
    )


def show_estimate(estimate: CostEstimate) -> None:
    """Show an estimate, and a warning if it exceeds the device's memory."""
    total = sum(estimate.operations.values())
    say(
        f"{estimate.parameters / 1e9:.2f} billion parameters"
        + (f", {estimate.quantized / 1e9:.2f} billion with 4 bits per weight" if estimate.quantized else "")
        + (f", {estimate.trained / 1e6:.1f} million trained" if estimate.trained < estimate.parameters else "")
        + f"; {total:.2e} operations: "
        + ", ".join(f"{name} {value / total:.0%}" for name, value in estimate.operations.items())
    )
    say(
        f"{estimate.minutes:.1f} minutes on {estimate.devices} x {estimate.device} at {estimate.utilisation:.0%} of "
        "peak (--device, --mfu)"
    )
    say(
        f"{estimate.memory_total:.1f} of {estimate.memory_available:g} GiB per device: "
        + ", ".join(f"{name} {value:.1f}" for name, value in estimate.memory.items())
    )
    say(
        f"{estimate.memory_loading:.1f} GiB per device while each has the whole weights (loading, reference); about "
        f"{_duration(estimate.loading_seconds)} of loading and {_duration(estimate.saving_seconds)} of saving at "
        f"{costs.DISK_RATE / 1e9:g} GB/s, which differs much between disks"
    )
    say(
        f"{sum(estimate.disk.values()):.1f} GiB on disk: "
        + ", ".join(f"{name} {value:.1f}" for name, value in estimate.disk.items())
    )
    if (updates := estimate.updates) is not None:
        say(
            f"a training step moves a weight by at most about {updates.step:.2g}, the whole run by {updates.run:.2g}; "
            f"rounding to the nearest bfloat16 would keep that for {updates.step_share:.1%} and "
            f"{updates.run_share:.1%} of the weights"
        )
    if max(estimate.memory_total, estimate.memory_loading) > estimate.memory_available:
        warn(f"estimated memory exceeds the device; try {MEMORY_CURE}")


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds >= 90 else f"{max(1, seconds):.0f} s"
