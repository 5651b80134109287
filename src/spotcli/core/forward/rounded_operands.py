"""One operand where products share their input, under autocast.

Autocast rounds the input of every product by itself: queries, keys and values get three equal copies of what the norm
gave, a gated feed-forward part two, and the backward pass keeps all of them. Rounded before, it is one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from spotcli.core.forward.shared_attention import KNOWN


def install(model: Any) -> None:
    """Round what goes into attention and feed-forward parts once; without autocast, nothing changes.

    The outputs are those of before. The gradients that meet at the input are added in the operands' precision.

    Args:
        model: a transformers causal language model. One whose layers were not looked at is left alone.
    """
    if model.config.get_text_config().model_type not in KNOWN:
        return
    for layer in model.get_decoder().layers:
        for part in (layer.self_attn, layer.mlp):
            # Of a mixture of experts, what adds up the experts' results would be rounded too.
            if sum(isinstance(product, nn.Linear) for product in part.children()) > 1:
                part.register_forward_pre_hook(_round, with_kwargs=True)


def _round(part: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if args:
        return (_operand(args[0]), *args[1:]), kwargs
    return args, kwargs | {"hidden_states": _operand(kwargs["hidden_states"])}


def _operand(hidden: Tensor) -> Tensor:
    device = hidden.device.type
    if not torch.is_autocast_enabled(device):
        return hidden
    return hidden.to(torch.get_autocast_dtype(device))
