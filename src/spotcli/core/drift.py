"""Drift: how far a policy has moved from its base, where nothing was meant to change."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def token_kl(base_logits_TV: torch.Tensor, policy_logits_TV: torch.Tensor) -> torch.Tensor:
    """KL(base || policy) of the next-token distribution at each position, in nats.

    Over tokens that the base model itself sampled, its mean estimates the per-token divergence of whole answers, since
    KL(base || policy) of a sequence is the expected sum of these terms under the base model.

    Args:
        base_logits_TV: logits of the base model, a row a position.
        policy_logits_TV: the policy's on the same tokens.

    Returns:
        float32, shape [T], never below 0 but for rounding.
    """
    base_TV = base_logits_TV.float().log_softmax(-1)
    policy_TV = policy_logits_TV.float().log_softmax(-1)
    return (base_TV.exp() * (base_TV - policy_TV)).sum(-1)
