"""What saving leaves of the training: scores of the saved weights on a sample of pairs, and shares of the update."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from spotcli.core.forward.encoding import EncodedPair

SAMPLE = 16
"""Pairs that are scored before and after saving."""


def sample_pairs(pairs: Sequence[EncodedPair], seed: int) -> list[EncodedPair]:
    """The pairs that are scored."""
    return random.Random(seed).sample(list(pairs), min(SAMPLE, len(pairs)))


def mean_margin(model: Any, pairs: Sequence[EncodedPair], *, share: bool, rejected: bool) -> float:
    """The mean of log pi(y+ | x) - log pi(y- | x) over some pairs, in nats, in the precision of the model's weights.

    Args:
        model: prepared by ``core.forward.logps.install``.
        pairs: one forward pass each.
        share: whether common prefixes are computed once.
        rejected: False leaves out log pi(y- | x), for objectives that do not use it.
    """
    import torch

    from spotcli.core.forward.packing import pack

    device = next(model.parameters()).device
    total = 0.0
    with torch.no_grad():
        for pair in pairs:
            batch = pack([pair], share=share, rejected=rejected).to(device)
            chosen_B, rejected_B = batch.sequence_logps(model(**batch.model_inputs()))
            total += float(chosen_B[0]) - (float(rejected_B[0]) if rejected else 0.0)
    return total / len(pairs)
