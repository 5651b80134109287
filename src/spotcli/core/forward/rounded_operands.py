"""One rounded input for all matrix products that share it, under autocast.

Autocast rounds the input of each product separately. Queries, keys and values then have three equal copies of the
normalized input, a gated feed-forward block has two, and the backward pass keeps them all. If the input is rounded
before, there is one copy.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from spotcli.core.forward.shared_attention import KNOWN


def install(model: Any) -> None:
    """Round the inputs of attention and feed-forward blocks once. Without autocast nothing changes.

    The outputs do not change. The gradients of the products are added at the input in the rounded precision.

    Args:
        model: a transformers causal language model; unchanged if its type is not in ``shared_attention.KNOWN``.
    """
    if model.config.get_text_config().model_type not in KNOWN:
        return
    for layer in model.get_decoder().layers:
        for part in (layer.self_attn, layer.mlp):
            # In a mixture of experts, the sum of the expert outputs would be rounded too.
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
