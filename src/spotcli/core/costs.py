"""The costs of a training run, computed from sizes alone: operations, memory per device, time.

    forward     2 operations per weight and token, 4 * width per query-key pair and layer, the head on scored positions
    backward    twice the forward pass: gradients of inputs and of weights; frozen weights have no gradient
    recompute   the layers once more if activations are checkpointed, and the head once more; an upper bound for the
                head, because the probabilities of short answers are kept (see ``core.forward.logps``)

Only useful work is counted: the half of causal attention below the diagonal, and a shared prefix once. Memory is the
peak, at the end of a forward pass or in an optimizer step. ``RESERVE`` adds the allocator's fragmentation and the
buffers of communication libraries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

from spotcli.core.forward.encoding import EncodedPair, common_start, row_tokens

GIB = 2**30
"""Bytes per GiB."""

RESERVE = 2.0
"""GiB per device for the driver's context, communication buffers and fragmentation."""

DISK_RATE = 1e9
"""Bytes per second that are read from or written to a disk; a rough number, shared file systems differ much."""

CACHED_PAIR = 200
"""Bytes of a pair in the reference's cache."""

BUCKET = 500_000_000
"""Gradients that DeepSpeed reduces at once."""

NF4 = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Bytes per weight in 4 bits: 64 weights share a scale of 8 bits, and 256 scales share a scale of 32 bits."""


@dataclass(frozen=True)
class Device:
    """A GPU, with the numbers of its data sheet."""

    teraflops: float
    """Peak rate of dense bfloat16 matrix products, in 10^12 operations per second."""
    memory: float
    """Memory in GiB."""


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
"""The devices of ``spot train --dry-run``, by name."""


@dataclass(frozen=True)
class Shape:
    """The sizes of a model that determine its costs."""

    parameters: int
    """All parameters, embeddings included; a tied head counts once."""
    body: int
    """Weights that every token is multiplied with, without the head; only the active experts count."""
    layers: int
    hidden: int
    width: int
    """Query heads * head size."""
    key_width: int
    """Key heads * head size."""
    mlp: int
    """Inner size of the feed-forward block; for experts, the sum over the active ones."""
    vocabulary: int
    head_norms: bool = False
    """Queries and keys are normalized in each head."""
    adapters: int = 0
    """Weights of LoRA adapters. If there are any, only they are trained."""
    quantized: int = 0
    """How many of ``parameters`` are stored in 4 bits per weight."""

    @property
    def trained(self) -> int:
        """Weights that are trained."""
        return self.adapters or self.parameters

    @property
    def head(self) -> int:
        """Weights of the head."""
        return self.hidden * self.vocabulary


@dataclass(frozen=True)
class Work:
    """The size of a forward pass: one micro-batch, or the sum of several."""

    tokens: int
    """Positions of all rows, padding included."""
    scored: int
    """Positions that are run through the head."""
    attended: int
    """Query-key pairs: for each position, the positions that it attends to, itself included."""

    def __add__(self, other: Work) -> Work:
        return Work(self.tokens + other.tokens, self.scored + other.scored, self.attended + other.attended)


@dataclass(frozen=True)
class Setup:
    """The settings of a training run that determine its costs."""

    ranks: int = 1
    sharding: Literal["none", "zero2", "zero3", "fsdp"] = "none"
    offload: Literal["none", "optimizer", "all"] = "none"
    """What is kept in the memory of the host; ``all`` is the optimizer and the weights."""
    checkpointing: bool = False
    weight_bytes: float = 4
    """Bytes per loaded weight that is not quantized."""
    compute_bytes: int = 2
    """Bytes per operand of the matrix products."""
    autocast: bool = True
    """Weights with more bytes than operands are cast for each product, which takes a copy."""
    chunk: int = 256
    """Positions whose logits are in memory at once."""
    keep: int = 256 << 20
    """Most bytes of probabilities that are kept for the backward pass."""

    @property
    def casts(self) -> bool:
        """Weights are copied into operands, and states between the layers have the precision of the weights."""
        return self.autocast and self.weight_bytes > self.compute_bytes


def row_work(pairs: Sequence[EncodedPair], *, share: bool, rejected: bool = True) -> Work:
    """Return the work of a forward pass over the pairs as ``packing.pack`` lays them out.

    Args:
        pairs: at least one.
        share: the shared layout, else the plain one.
        rejected: run the rejected answers too.
    """
    prompts = [len(pair.prompt_ids) for pair in pairs]
    chosen = [len(pair.chosen_ids) for pair in pairs]
    wrong = [len(pair.rejected_ids) if rejected else 0 for pair in pairs]
    shared = [pair.shared if rejected and share else 0 for pair in pairs]
    scored = sum(chosen) + sum(wrong) - sum(shared)
    if not share:
        rows = len(pairs) + sum(1 for tokens in wrong if tokens)
        length = max(prompt + max(answers) for prompt, *answers in zip(prompts, chosen, wrong, strict=True))
        return Work(rows * length, scored, rows * _causal_pairs(length))
    common = common_start(pairs)
    attended = _causal_pairs(common)
    for prompt, right, other, prefix in zip(prompts, chosen, wrong, shared, strict=True):
        # The chosen answer after the common start, and the tail of the rejected one after start and prefix.
        attended += _causal_pairs(prompt + right) - _causal_pairs(common)
        attended += _causal_pairs(prompt + other) - _causal_pairs(prompt + prefix) if other else 0
    return Work(row_tokens(pairs, rejected=rejected), scored, attended)


def _causal_pairs(length: int) -> int:
    """Return the query-key pairs of a causal row."""
    return length * (length + 1) // 2


def forward(shape: Shape, work: Work) -> dict[str, int]:
    """Return the operations of one forward pass, by part."""
    return {
        "layers": 2 * (shape.body + shape.adapters) * work.tokens,
        "attention": 4 * shape.width * shape.layers * work.attended,
        "head": 2 * shape.head * work.scored,
    }


def training(shape: Shape, work: Work, *, checkpointing: bool) -> dict[str, int]:
    """Return the operations of forward and backward pass, by part; ``recompute`` is what is computed a second time."""
    once = forward(shape, work)
    frozen = bool(shape.adapters)
    adapters = 2 * shape.adapters * work.tokens
    # Recomputing a layer stops before its last product, which the backward pass does not need.
    again = once["layers"] + once["attention"] - 2 * shape.layers * shape.hidden * shape.mlp * work.tokens
    return {
        "layers": once["layers"] * (2 if frozen else 3) + (adapters if frozen else 0),
        "attention": once["attention"] * 3,
        "head": once["head"] * (2 if frozen else 3),
        "recompute": once["head"] + (again if checkpointing else 0),
    }


def minutes(operations: float, *, device: Device, devices: int, utilisation: float) -> float:
    """Return the minutes that the operations take if the devices reach the share ``utilisation`` of their peak."""
    return operations / (devices * device.teraflops * 1e12 * utilisation) / 60


def memory(shape: Shape, work: Work, setup: Setup) -> dict[str, float]:
    """Return the GiB of one device at the peak, by use.

    Args:
        shape: the model.
        work: the largest micro-batch.
        setup: the settings of the run.
    """
    shards = setup.ranks if setup.sharding != "none" else 1
    whole = setup.ranks if setup.sharding in ("zero3", "fsdp") else 1
    deepspeed = setup.sharding in ("zero2", "zero3")
    base = (shape.parameters - shape.quantized) * setup.weight_bytes + shape.quantized * NF4
    weights = (base + 4 * shape.adapters) / whole if setup.offload != "all" else 0.0
    if setup.casts:
        weights += setup.compute_bytes * shape.body / (1 if whole == 1 else shape.layers)
    if whole > 1:
        # Two layers at a time and the head are unsharded on every device.
        weights += setup.weight_bytes * (2 * shape.body / shape.layers + shape.head)
    if shape.quantized:
        weights += setup.compute_bytes * shape.hidden * shape.mlp  # one matrix at a time, dequantized
    # DeepSpeed keeps a share of the bfloat16 gradients, a float32 copy of it before a step, and a bucket.
    gradients = (
        (2 + 4) * shape.trained / shards + 2 * min(BUCKET, shape.trained) if deepspeed else 4 * shape.trained / shards
    )
    # Two moments in float32; DeepSpeed also keeps float32 copies of bfloat16 weights.
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


def loading_memory(shape: Shape, work: Work, setup: Setup) -> float:
    """Return the GiB of one device while it has the whole weights: when they are loaded, and for the reference.

    Args:
        shape: the model.
        work: the largest micro-batch.
        setup: the settings of the run.
    """
    weights = (shape.parameters - shape.quantized) * setup.weight_bytes + shape.quantized * NF4
    if setup.casts:
        weights += setup.compute_bytes * (shape.body / shape.layers + shape.head)
    layer = activations(shape, work, replace(setup, checkpointing=True)) / (shape.layers + 1)
    logits = 4 * min(setup.chunk, work.scored) * shape.vocabulary
    return (weights + layer + logits + 4 * work.scored * shape.hidden) / GIB + RESERVE


def checkpoint_bytes(shape: Shape, setup: Setup) -> float:
    """Return the bytes of a checkpoint: weights, and what the optimizer needs to resume.

    Plain and FSDP: the trained weights and two moments in float32. DeepSpeed: float32 copies and moments, the weights
    for transformers, and with ZeRO-2 once more its own.
    """
    copies = {"zero2": 2, "zero3": 1}.get(setup.sharding)
    if copies is None:
        return shape.trained * (4 + 8)
    return shape.trained * (4 + 8 + copies * min(4, setup.weight_bytes))


def activations(shape: Shape, work: Work, setup: Setup) -> float:
    """Return the bytes that the layers keep for the backward pass."""
    # States between the layers have the precision of the weights; under autocast the products round them.
    state = 4 if setup.casts else setup.compute_bytes
    part = setup.compute_bytes
    # Two norms in float32, with their results; under autocast also the rounded results (``rounded_operands``).
    norms = 2 * (4 + state) * shape.hidden + (2 * part * shape.hidden if setup.casts else 0)
    # Queries and keys before and after rotation; queries, keys and values gathered by pair; the result twice.
    attention = part * (3 * (shape.width + shape.key_width) + shape.key_width + 2 * shape.width)
    if shape.head_norms:
        # The input of the norm and, for the gradient of its weight, also the result.
        attention += (4 + (0 if shape.adapters else part)) * (shape.width + shape.key_width)
    mlp = 4 * part * shape.mlp
    layer = work.tokens * (norms + attention + mlp)
    last = work.tokens * (4 + state) * shape.hidden
    if setup.checkpointing:
        return shape.layers * work.tokens * shape.hidden * state + layer + last
    return shape.layers * layer + last


def _head(shape: Shape, work: Work, setup: Setup) -> float:
    """Return the bytes of the head: logits of a chunk (twice), kept probabilities, cast weight, gradient, states."""
    logits = 2 * 4 * min(setup.chunk, work.scored) * shape.vocabulary
    logits += min(setup.keep, setup.compute_bytes * work.scored * shape.vocabulary)
    operand = shape.head * setup.compute_bytes if setup.casts else 0
    # Two float32 parts are added up, unless all probabilities are kept and there is one part.
    parts = 2 if setup.keep < setup.compute_bytes * work.scored * shape.vocabulary else 1
    gradient = 0 if shape.adapters else shape.head * max(4 * parts, 4 + min(4, setup.weight_bytes))
    return logits + operand + gradient + 2 * 4 * work.scored * shape.hidden
