"""Drift: the divergence of a trained policy from its base policy, on prompts that training should not affect."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def token_kl(base_logits_TV: torch.Tensor, policy_logits_TV: torch.Tensor) -> torch.Tensor:
    """Return KL(base || policy) of the next-token distribution at each position, in nats.

    KL(base || policy) of a whole answer is the expected sum of these terms under the base model. So on answers that
    the base model sampled, their mean estimates the divergence per token.

    Args:
        base_logits_TV: logits of the base model, [positions, vocabulary].
        policy_logits_TV: logits of the policy on the same tokens, [positions, vocabulary].

    Returns:
        float32, [positions]; at least 0, except for rounding.
    """
    base_TV = base_logits_TV.float().log_softmax(-1)
    policy_TV = policy_logits_TV.float().log_softmax(-1)
    return (base_TV.exp() * (base_TV - policy_TV)).sum(-1)
