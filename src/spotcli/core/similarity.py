"""CHES: how similar the two answers of a pair are in the last hidden states of the policy (arXiv 2410.08847).

Shapes, as suffixes of names: N scored positions, B pairs, H hidden size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Ches:
    """The centered hidden embedding similarity of each pair, [B].

        ches        <S+, S-> - |S+|^2,   S the sum of the last hidden states that predict the tokens of an answer
        normalized  <M+, M-> - |M+|^2,   M their mean, so that answers of different lengths can be compared

    The states are those after the prompt and after each token but the last one. A larger value means that a step that
    makes y- less likely lowers y+ more ("likelihood displacement"). The value is 0 for two equal answers.
    """

    ches_B: Tensor
    normalized_B: Tensor


def ches(hidden_NH: Tensor, pair_N: Tensor, chosen_N: Tensor, rejected_N: Tensor, pairs: int) -> Ches:
    """Compute CHES from the scored positions of a micro-batch.

    Args:
        hidden_NH: last hidden states at the scored positions.
        pair_N: index of the pair of each position.
        chosen_N: whether a position predicts a token of y+.
        rejected_N: whether it predicts a token of y-; a position in the common beginning predicts both.
        pairs: number of pairs, B.
    """

    def moments(own_N: Tensor) -> tuple[Tensor, Tensor]:
        """Sum [B, H] and number [B, 1] of the states."""
        exact = torch.promote_types(hidden_NH.dtype, torch.float32)
        sums_BH = torch.zeros(pairs, hidden_NH.shape[1], dtype=exact, device=hidden_NH.device)
        sums_BH.index_add_(0, pair_N[own_N], hidden_NH[own_N].to(exact))
        return sums_BH.double(), pair_N[own_N].bincount(minlength=pairs).clamp(min=1)[:, None]

    (chosen_BH, chosen_B1), (rejected_BH, rejected_B1) = moments(chosen_N), moments(rejected_N)
    return Ches(_centered(chosen_BH, rejected_BH), _centered(chosen_BH / chosen_B1, rejected_BH / rejected_B1))


def _centered(chosen_BH: Tensor, rejected_BH: Tensor) -> Tensor:
    # One product of the difference: the two products alone are large and nearly equal where the answers are.
    product_B: Tensor = torch.linalg.vecdot(chosen_BH, rejected_BH - chosen_BH)
    return product_B
