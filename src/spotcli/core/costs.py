"""What a training run costs, worked out from sizes alone: operations, memory a device, time.

    forward     2 operations a weight and token, 4 * width a query-key pair and layer, the head on scored positions
    backward    twice that: gradients of inputs and of weights; a frozen weight has none of its own
    recompute   the layers once more with checkpointed activations, the head once more (see ``core.logps``; at most: of
                short answers what it found is kept)

Only useful work is counted: of causal attention the half below the diagonal, of a shared beginning one run. Memory is
what stands at the worst moment, at the end of a forward pass or in an optimiser step; the allocator's own waste and the
buffers of communication libraries come on top (``RESERVE``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

GIB = 2**30
RESERVE = 2.0
"""GiB of a device that are nobody's: the driver's context, communication buffers, fragments."""
BUCKET = 500_000_000
"""Gradients that DeepSpeed reduces at once."""
NF4 = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Bytes of a weight in 4 bits: 64 share a scale of 8 bits, and 256 such scales one of 32."""


@dataclass(frozen=True)
class Device:
    """A GPU, by its data sheet."""

    teraflops: float
    """Peak of dense bfloat16 products."""
    memory: float
    """GiB."""


DEVICES: Mapping[str, Device] = MappingProxyType(
    {
        "b200": Device(2250, 180),
        "h200": Device(989, 141),
        "h100": Device(989, 80),
        "h800": Device(989, 80),
        "h20": Device(148, 96),
        "a100": Device(312, 80),
        "a100-40g": Device(312, 40),
        "a800": Device(312, 80),
        "l40s": Device(362, 48),
        "a6000": Device(155, 48),
        "rtx5090": Device(210, 32),
        "rtx4090": Device(165, 24),
        "rtx3090": Device(71, 24),
        "l4": Device(121, 24),
    }
)


@dataclass(frozen=True)
class Shape:
    """A model as far as its costs go."""

    parameters: int
    """All, embeddings included; a tied head counts once."""
    body: int
    """Weights that every token is multiplied with, the head not among them; of experts those that are active."""
    layers: int
    hidden: int
    width: int
    """Query heads * head size."""
    key_width: int
    """Key heads * head size."""
    mlp: int
    """Inner size of the feed-forward part; of experts that of the active ones together."""
    vocabulary: int
    head_norms: bool = False
    """Queries and keys are normalised, head by head."""
    adapters: int = 0
    """Weights of LoRA adapters; then nothing else is trained."""
    quantized: int = 0
    """Of ``parameters``: those that are kept in 4 bits."""

    @property
    def trained(self) -> int:
        return self.adapters or self.parameters

    @property
    def head(self) -> int:
        return self.hidden * self.vocabulary


@dataclass(frozen=True)
class Work:
    """What is run: a micro-batch, or the sum of many."""

    tokens: int
    """Positions of the rows, padding included."""
    scored: int
    """Positions that go through the head."""
    attended: int
    """Pairs of a position and one that it sees, itself included."""

    def __add__(self, other: Work) -> Work:
        return Work(self.tokens + other.tokens, self.scored + other.scored, self.attended + other.attended)


@dataclass(frozen=True)
class Setup:
    """How the model is trained."""

    ranks: int = 1
    sharding: Literal["none", "zero2", "zero3", "fsdp"] = "none"
    offload: Literal["none", "optimizer", "all"] = "none"
    """``all``: weights too."""
    checkpointing: bool = False
    weight_bytes: float = 4
    """Of a weight as it is loaded, where it is not quantised."""
    compute_bytes: int = 2
    """Of an operand of the matrix products."""
    autocast: bool = True
    """Weights that are more exact than operands are turned into them on the way, which takes a copy."""
    chunk: int = 256
    """Positions whose logits exist at once."""
    keep: int = 256 << 20
    """Bytes of probabilities that wait for the backward pass, at most."""

    @property
    def casts(self) -> bool:
        """Weights are copied into operands, and states between the layers stay as exact as the weights."""
        return self.autocast and self.weight_bytes > self.compute_bytes


def forward(shape: Shape, work: Work) -> dict[str, int]:
    """Operations of one forward pass, by part."""
    return {
        "layers": 2 * (shape.body + shape.adapters) * work.tokens,
        "attention": 4 * shape.width * shape.layers * work.attended,
        "head": 2 * shape.head * work.scored,
    }


def training(shape: Shape, work: Work, *, checkpointing: bool) -> dict[str, int]:
    """Operations of forward and backward pass, by part; ``recompute`` is what is done a second time."""
    once = forward(shape, work)
    frozen = bool(shape.adapters)
    adapters = 2 * shape.adapters * work.tokens
    # A layer's last product is not needed again: recomputing stops before it.
    again = once["layers"] + once["attention"] - 2 * shape.layers * shape.hidden * shape.mlp * work.tokens
    return {
        "layers": once["layers"] * (2 if frozen else 3) + (adapters if frozen else 0),
        "attention": once["attention"] * 3,
        "head": once["head"] * (2 if frozen else 3),
        "recompute": once["head"] + (again if checkpointing else 0),
    }


def minutes(operations: float, *, device: Device, devices: int, utilisation: float) -> float:
    """Minutes that the operations take where ``utilisation`` of the devices' peak is reached."""
    return operations / (devices * device.teraflops * 1e12 * utilisation) / 60


def memory(shape: Shape, work: Work, setup: Setup) -> dict[str, float]:
    """GiB of one device, by what they hold.

    Args:
        shape: the model.
        work: its largest micro-batch.
        setup: how it is trained.
    """
    shards = setup.ranks if setup.sharding != "none" else 1
    whole = setup.ranks if setup.sharding in ("zero3", "fsdp") else 1
    deepspeed = setup.sharding in ("zero2", "zero3")
    base = (shape.parameters - shape.quantized) * setup.weight_bytes + shape.quantized * NF4
    weights = (base + 4 * shape.adapters) / whole if setup.offload != "all" else 0.0
    if setup.casts:
        weights += setup.compute_bytes * shape.body / (1 if whole == 1 else shape.layers)
    elif whole > 1:
        # Two layers at a time, and the embeddings, are whole on every device.
        weights += setup.weight_bytes * (2 * shape.body / shape.layers + shape.head)
    if shape.quantized:
        weights += setup.compute_bytes * shape.hidden * shape.mlp  # one matrix at a time, unpacked for its product
    # Besides its share of bfloat16 gradients, DeepSpeed turns it into float32 before a step, and fills a bucket.
    gradients = (
        (2 + 4) * shape.trained / shards + 2 * min(BUCKET, shape.trained) if deepspeed else 4 * shape.trained / shards
    )
    # Two moments in float32; of bfloat16 weights, DeepSpeed keeps float32 copies.
    optimizer = (12 if deepspeed and setup.weight_bytes < 4 else 8) * shape.trained / shards
    if setup.offload != "none":
        optimizer = 0.0
        gradients = 2 * min(2 * BUCKET, shape.trained) if deepspeed else gradients
    parts = {
        "weights": weights,
        "gradients": gradients,
        "optimizer": optimizer,
        "activations": activations(shape, work, setup),
        "head": _head(shape, work, setup),
    }
    return {name: value / GIB for name, value in parts.items()} | {"reserve": RESERVE}


def activations(shape: Shape, work: Work, setup: Setup) -> float:
    """Bytes that the layers keep for the backward pass."""
    # Between the layers, states are as exact as the weights; under autocast the products round them.
    state = 4 if setup.casts else setup.compute_bytes
    part = setup.compute_bytes
    # Two norms in float32, with their results; under autocast also these as operands (see ``core.operands``).
    norms = 2 * (4 + state) * shape.hidden + (2 * part * shape.hidden if setup.casts else 0)
    # Queries and keys before and after they are rotated, and gathered by pair with the values; the result twice.
    attention = part * (3 * (shape.width + shape.key_width) + shape.key_width + 2 * shape.width)
    if shape.head_norms:
        # What is normalised, and for the gradient of the norm's weight also the result.
        attention += (4 + (0 if shape.adapters else part)) * (shape.width + shape.key_width)
    mlp = 4 * part * shape.mlp
    layer = work.tokens * (norms + attention + mlp)
    last = work.tokens * (4 + state) * shape.hidden
    if setup.checkpointing:
        return shape.layers * work.tokens * shape.hidden * state + layer + last
    return shape.layers * layer + last


def _head(shape: Shape, work: Work, setup: Setup) -> float:
    """Bytes around the head: a chunk of logits twice and what is kept, the weight as operand, its gradient, states."""
    logits = 2 * 4 * min(setup.chunk, work.scored) * shape.vocabulary
    logits += min(setup.keep, setup.compute_bytes * work.scored * shape.vocabulary)
    operand = shape.head * setup.compute_bytes if setup.casts else 0
    gradient = 0 if shape.adapters else shape.head * (4 + min(4, setup.weight_bytes))
    return logits + operand + gradient + 2 * 4 * work.scored * shape.hidden
