"""What ``spot train --dry-run`` says: operations, memory a device, minutes. No weights are loaded or made.

The sizes come from config.json: transformers builds the model on the ``meta`` device, which holds shapes and
no numbers. How the numbers follow from the sizes stands in ``core.plan``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from spotcli.console import say, warn
from spotcli.core import costs
from spotcli.core.costs import DEVICES, Setup, Shape, Work, row_work
from spotcli.core.forward.encoding import EncodedPair
from spotcli.errors import RecipeError
from spotcli.policies import models
from spotcli.recipe import Recipe, TrainSection, suggest
from spotcli.training import settings

if TYPE_CHECKING:
    from spotcli.core.forward.batches import Layout


@dataclass(frozen=True)
class Estimate:
    """A run's costs on devices that need not be here."""

    parameters: int
    trained: int
    quantized: int
    """Parameters that are kept in 4 bits."""
    operations: dict[str, float]
    """Floating-point operations of the whole run, by part; ``reference`` is its one forward pass."""
    device: str
    devices: int
    utilisation: float
    minutes: float
    """Training and reference; loading, saving and checks not counted."""
    memory: dict[str, float]
    """GiB of one device, by what they hold."""
    memory_total: float
    memory_there: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def estimate(
    recipe: Recipe, pairs: Sequence[EncodedPair], layout: Layout, *, share: bool, device: str, utilisation: float
) -> Estimate:
    """The costs of training on the pairs.

    Args:
        recipe: the whole recipe.
        pairs: what is trained on.
        layout: how a step is cut.
        share: prefixes are run once.
        device: a name of ``core.costs.DEVICES``.
        utilisation: the share of the device's peak that is reached.

    Raises:
        RecipeError: there is no such device.
        UserError: the model's configuration is out of reach.
    """
    from spotcli.core.forward.batches import plan_epoch, sizes
    from spotcli.core.loss import OBJECTIVES

    section = recipe.train
    if device not in DEVICES:
        raise RecipeError(
            f"there is no device '{device}' in the table", where="--device", cure=suggest(device, [*DEVICES])
        )
    shape = shape_of(recipe)
    objective = OBJECTIVES[section.objective]
    turns = plan_epoch(sizes(pairs, share=share), layout=layout, seed=recipe.seed, epoch=0)
    rows = [
        row_work([pairs[at] for at in batch.members], share=share, rejected=objective.rejected)
        for turn in turns
        for batch in turn
    ]
    epoch = sum(rows, Work(0, 0, 0))
    setup = setup_of(section)
    once = costs.training(shape, epoch, checkpointing=setup.checkpointing)
    epochs = settings.steps(section, len(pairs)) / math.ceil(len(pairs) / layout.step)
    operations = {name: float(value * epochs) for name, value in once.items()}
    if objective.reference:
        operations["reference"] = float(sum(costs.forward(shape, epoch).values()))
    largest = max(rows, key=lambda row: costs.activations(shape, row, setup))
    memory = costs.memory(shape, largest, setup)
    return Estimate(
        parameters=shape.parameters,
        trained=shape.trained,
        quantized=shape.quantized,
        operations=operations,
        device=device,
        devices=layout.ranks,
        utilisation=utilisation,
        minutes=costs.minutes(
            sum(operations.values()), device=DEVICES[device], devices=layout.ranks, utilisation=utilisation
        ),
        memory=memory,
        memory_total=sum(memory.values()),
        memory_there=DEVICES[device].memory,
    )


def shape_of(recipe: Recipe) -> Shape:
    """The sizes of the recipe's model."""
    import torch
    from transformers import AutoModelForCausalLM

    config, _ = models.load_configs(recipe.model or "")
    empty: Any = AutoModelForCausalLM.from_config
    with torch.device("meta"):
        model = empty(config, trust_remote_code=False)
    text = config.get_text_config()
    head = model.get_output_embeddings()
    linear = [each for each in model.modules() if isinstance(each, torch.nn.Linear) and each is not head]
    # Experts are kept as one parameter with an axis of its own.
    experts = sum(each.numel() for each in model.parameters() if each.ndim == 3)
    there = getattr(text, "num_experts", None) or getattr(text, "num_local_experts", None) or 1
    active = getattr(text, "num_experts_per_tok", None) or there
    heads = text.num_attention_heads
    size = getattr(text, "head_dim", None) or text.hidden_size // heads
    lora = recipe.train.lora
    products = sum(each.weight.numel() for each in linear)
    return Shape(
        parameters=sum(each.numel() for each in model.parameters()),
        body=products + experts * active // there,
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        width=heads * size,
        key_width=(getattr(text, "num_key_value_heads", None) or heads) * size,
        mlp=(text.moe_intermediate_size * active if experts else text.intermediate_size),
        vocabulary=text.vocab_size,
        head_norms=any(name.endswith("q_norm") for name, _ in model.named_modules()),
        adapters=_adapters(recipe, model, head) if lora is not None else 0,
        # bitsandbytes knows linear layers alone: experts, embeddings and head stay as they are.
        quantized=products if recipe.train.quantize else 0,
    )


def _adapters(recipe: Recipe, model: Any, head: Any) -> int:
    """Weights of the LoRA adapters: r * (inputs + outputs) of each module that gets one."""
    import torch

    lora = recipe.train.lora
    assert lora is not None
    wanted = lora.target_modules
    return sum(
        lora.r * (module.in_features + module.out_features)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
        and module is not head
        and (wanted == "all-linear" or name.rpartition(".")[2] in ([wanted] if isinstance(wanted, str) else wanted))
    )


def setup_of(section: TrainSection) -> Setup:
    """How the recipe trains, on GPUs that compute in bfloat16 unless it says float32."""
    from spotcli.core.forward.logps import CHUNK, KEEP

    exact = section.dtype == "float32"
    sharding = settings.sharding(section)
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
        chunk=CHUNK,
        keep=KEEP,
    )


def describe(found: Estimate) -> None:
    """The estimate in words, and a warning where it does not fit."""
    total = sum(found.operations.values())
    say(
        f"{found.parameters / 1e9:.2f} billion parameters"
        + (f", {found.quantized / 1e9:.2f} of them in 4 bits" if found.quantized else "")
        + (f", {found.trained / 1e6:.1f} million trained" if found.trained < found.parameters else "")
        + f"; {total:.2e} operations: "
        + ", ".join(f"{name} {value / total:.0%}" for name, value in found.operations.items())
    )
    say(
        f"{found.minutes:.1f} minutes on {found.devices} x {found.device} at {found.utilisation:.0%} of their peak"
        " (--device, --mfu)"
    )
    say(
        f"{found.memory_total:.1f} GiB of {found.memory_there:g} a device: "
        + ", ".join(f"{name} {value:.1f}" for name, value in found.memory.items())
    )
    if found.memory_total > found.memory_there:
        warn("this does not fit: " + settings.MEMORY_CURE)
