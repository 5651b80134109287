"""Matrix products that see small updates: under autocast, weights are rounded stochastically, once per training step.

Autocast rounds float32 weights to the nearest bfloat16 numbers in each forward pass. At a small learning rate most
weights then look unchanged for many steps: the loss does not fall, the rewards do not move, the tether does not hold,
and the float32 weights run ahead of what training can see. With stochastic rounding the products follow the float32
weights on average, and the noise is that of any rounding.
"""

from __future__ import annotations

from functools import partial
from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spotcli.core.rounding import Rounding, rounded, weight_seed

OPERAND = "_spot_operand"
"""Attribute of a layer: the function of its weight and a data type that returns the rounded weight."""


class RoundedWeights:
    """The rounded weights of linear layers.

    Args:
        model: a model with float32 weights, not yet wrapped by DDP or FSDP. Its linear layers except the output layer
            use rounded weights under autocast; without autocast nothing changes.
        seed: of the random choices. All processes of a run need the same one.
        keep: whether the rounded weights are kept for all micro-batches of a step: 2 bytes per weight. If weights are
            divided among processes, False keeps them divided.
    """

    def __init__(self, model: Any, seed: int, *, keep: bool = True) -> None:
        self.seed, self.keep = seed, keep
        self.step = 0
        """Training steps so far; a weight is rounded once per step."""
        self._copies: dict[str, tuple[int, Tensor]] = {}
        head = model.get_output_embeddings()
        for path, layer in model.named_modules():
            if isinstance(layer, nn.Linear):
                setattr(layer, OPERAND, partial(self.operand, f"{path}.weight"))
                if layer is not head:  # ``logps`` calls the head
                    layer.forward = MethodType(_forward, layer)  # type: ignore[method-assign]

    def operand(self, name: str, weight: Tensor, dtype: torch.dtype) -> Tensor:
        """The rounded weight of a layer; its gradient reaches the float32 weight unchanged."""
        step, copy = self._copies.get(name, (-1, None))
        if copy is None or step != self.step:
            # The reference is computed at step 0, also for runs with another seed.
            rounding: Rounding = "stochastic" if self.step else "nearest"
            # A generation check runs in inference mode, whose tensors cannot be used by the training step that follows.
            with torch.inference_mode(False), torch.no_grad():
                # Written over the copy of the step before: fresh memory would have to be mapped in every step.
                fits = copy is not None and copy.dtype == dtype and copy.device == weight.device
                seed = weight_seed(self.seed, name, self.step)
                # Training itself stops at weights that are not finite.
                copy = rounded(weight, dtype, rounding, seed, check=False, out=copy if fits else None)
            if self.keep:
                self._copies[name] = self.step, copy
        operand: Tensor = _Straight.apply(weight, copy)  # type: ignore[no-untyped-call]
        return operand


class _Straight(torch.autograd.Function):
    """Returns the copy; its gradient is that of the original."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, copy: Tensor) -> Tensor:
        ctx.dtype = weight.dtype
        return copy.view_as(copy)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None]:
        return grads[0].to(ctx.dtype), None


def _forward(layer: Any, hidden: Tensor) -> Tensor:
    device = hidden.device.type
    if not torch.is_autocast_enabled(device):
        return F.linear(hidden, layer.weight, layer.bias)
    dtype = torch.get_autocast_dtype(device)
    return F.linear(hidden.to(dtype), getattr(layer, OPERAND)(layer.weight, dtype), layer.bias)
