"""The precision of a run, and settings of libraries that must be made before they are loaded."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

from spotcli.errors import MissingExtra
from spotcli.policies import models
from spotcli.recipe import TrainSection
from spotcli.training.cluster import sharding

MEMORY_CURE = (
    "a smaller train.tokens_per_micro_batch (or per_device_train_batch_size: 1), gradient_checkpointing: true, zero: 3 "
    "on more processes, train.offload, train.lora, or train.lora with train.quantize: nf4"
)
"""Settings to change, in this order, if a device runs out of memory."""


@dataclass(frozen=True)
class Precision:
    """The precision of the policy and of its reference; called, the context of each forward pass."""

    weights: models.Dtype
    """Data type that the weights are loaded in."""
    compute: str
    """Data type of the matrix products."""
    autocast: bool
    """Whether operands are cast to ``compute`` during the forward pass."""

    @contextmanager
    def __call__(self) -> Iterator[None]:
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
        with torch.autocast(device, getattr(torch, self.compute)) if self.autocast else nullcontext():
            yield

    def __str__(self) -> str:
        return f"{self.weights}/{self.compute}/{'autocast' if self.autocast else 'plain'}"


def precision(section: TrainSection) -> Precision:
    """float32 weights with bfloat16 products; under DeepSpeed bfloat16 weights, of which it keeps float32 copies.

    With LoRA, the frozen base weights are bfloat16 and the adapters float32.
    """
    compute = str(models.torch_dtype(section.dtype)).removeprefix("torch.")
    if compute == "float32":
        return Precision("float32", "float32", autocast=False)
    if sharding(section).startswith("zero"):
        return Precision("bfloat16", compute, autocast=False)
    return Precision("bfloat16" if section.lora else "float32", compute, autocast=True)


def quiet_libraries() -> None:
    """Turn off messages of packages that accelerate and peft import if they are installed.

    Raises:
        MissingExtra: torch is not installed.
    """
    try:
        import torch
    except ImportError:
        raise MissingExtra("train", "training") from None
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # DeepSpeed would warn on stdout
    # peft warns at every checkpoint that it saves an output layer that has an adapter.
    warnings.filterwarnings("ignore", message="Setting `save_embedding_layers`")
    # bitsandbytes warns of a missing kernel for CPUs even if nothing is quantised.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
