"""Drift: the divergence of a trained policy from its base policy, on answers that training should not change.

Shapes, as suffixes of names:

    N   positions of an answer: each token is predicted from the state before it
    C   positions of one chunk
    H   hidden size
    V   vocabulary

The divergence needs both distributions over the whole vocabulary. As the last hidden states determine them, the states
of one model [N, H] are kept while the other model runs, instead of its logits [N, V]: a 37th of the size for Qwen3-8B.
Memory is 3 * C * V float32 numbers, about 470 MB with ``CHUNK`` positions and a vocabulary of 152,000, plus both heads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from spotcli.core.forward.logps import head_logits
from spotcli.errors import UserError

CHUNK = 256
"""Positions whose logits are in memory at once."""


@dataclass(frozen=True)
class Head:
    """The output layer of a model, from the last hidden state to logits."""

    weight_VH: Tensor
    bias_V: Tensor | None = None
    scale: float = 1.0
    """Factor of the logits, as in Cohere and Granite models."""
    cap: float | None = None
    """Limit of the logits, cap * tanh(logits / cap), as in Gemma 2."""

    def logits(self, hidden_CH: Tensor) -> Tensor:
        """Logits in float32, [C, V]."""
        # On the CPU, a product in bfloat16 would be rounded to bfloat16.
        low = hidden_CH.is_cuda and hidden_CH.dtype == self.weight_VH.dtype
        weight_VH = self.weight_VH if low else self.weight_VH.float()
        logits_CV = head_logits(hidden_CH, weight_VH, self.bias_V, torch.float32)
        if self.scale != 1:
            logits_CV.mul_(self.scale)
        return logits_CV if self.cap is None else logits_CV.div_(self.cap).tanh_().mul_(self.cap)

    def first(self, rows: int) -> Head:
        """The head without the rows after the first ones: models pad their vocabulary differently."""
        bias_V = None if self.bias_V is None else self.bias_V[:rows]
        return Head(self.weight_VH[:rows], bias_V, self.scale, self.cap)


def head_of(model: Any) -> Head:
    """The head of a causal language model, with the LoRA adapter that is attached to it.

    Raises:
        UserError: the output layer is of another kind than a linear layer.
    """
    layer = model.get_output_embeddings()
    if hasattr(layer, "modules_to_save"):
        layer = layer.modules_to_save[layer.active_adapters[0]]
    change_VH: Any = None
    if hasattr(layer, "lora_A"):
        change_VH = sum(layer.get_delta_weight(name) for name in layer.active_adapters)
        layer = layer.get_base_layer()
    config = model.config.get_text_config()
    if not isinstance(layer, torch.nn.Linear):
        raise UserError(
            f"cannot compute the drift of a {config.model_type} model: its output layer is not linear",
            cure="leave it out with -s eval.drift=false",
        )
    scale = (getattr(config, "logit_scale", None) or 1.0) / (getattr(config, "logits_scaling", None) or 1.0)
    cap = getattr(config, "final_logit_softcapping", None)
    weight_VH = layer.weight.detach()
    if change_VH is not None:
        weight_VH = weight_VH + change_VH.detach()
    return Head(weight_VH, None if layer.bias is None else layer.bias.detach(), scale, cap)


def token_kl(base_logits_CV: Tensor, policy_logits_CV: Tensor) -> Tensor:
    """Return KL(base || policy) of the next-token distribution at each position, in nats, from logits.

        KL(base || policy) = sum over v of p(v) * (log p(v) - log q(v)),   p of the base model, q of the policy

    (Kullback and Leibler, "On information and sufficiency", 1951.) By the chain rule, KL(base || policy) of a whole
    answer is the expected sum of these terms under the base model. So on answers that the base model sampled, their
    mean estimates the divergence per token, with less variance than the log-ratio of the sampled tokens alone.

    Args:
        base_logits_CV: logits of the base model.
        policy_logits_CV: logits of the policy on the same tokens.

    Returns:
        float32, [C]; at least 0, except for rounding.
    """
    return _kl_in_place(base_logits_CV.to(torch.float32, copy=True), policy_logits_CV.to(torch.float32, copy=True))


def _kl_in_place(base_CV: Tensor, policy_CV: Tensor) -> Tensor:
    """``token_kl`` of float32 logits, which are overwritten."""
    base_CV -= base_CV.logsumexp(-1, keepdim=True)
    policy_CV -= policy_CV.logsumexp(-1, keepdim=True)
    torch.sub(base_CV, policy_CV, out=policy_CV)
    kl_C: Tensor = torch.linalg.vecdot(base_CV.exp_(), policy_CV)
    return kl_C


def hidden_kl(base: tuple[Head, Tensor], policy: tuple[Head, Tensor], *, chunk: int = CHUNK) -> Tensor:
    """Return ``token_kl`` of two models at each position, from their heads and last hidden states.

    Args:
        base: head and hidden states [N, H] of the base model.
        policy: head and hidden states [N, H'] of the policy, on the same tokens.
        chunk: positions whose logits are in memory at once.

    Returns:
        float32, [N].
    """
    (base_head, base_NH), (head, policy_NH) = base, policy
    rows = min(len(base_head.weight_VH), len(head.weight_VH))
    base_head, head = base_head.first(rows), head.first(rows)
    return torch.cat(
        [
            _kl_in_place(
                base_head.logits(base_NH[start : start + chunk]), head.logits(policy_NH[start : start + chunk])
            )
            for start in range(0, len(base_NH), chunk)
        ]
    )
