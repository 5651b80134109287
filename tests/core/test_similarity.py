"""CHES worked out by hand."""

from __future__ import annotations

import pytest
import torch

from spotcli.core.similarity import ches


def test_ches_of_two_pairs_worked_out_by_hand() -> None:
    # Pair 0: states (1, 0) in the common beginning, (0, 2) of y+, (3, 0) and (0, 1) of y-.
    #   S+ = (1, 2), S- = (4, 1): <S+, S-> - |S+|^2 = (4 + 2) - (1 + 4) = 1
    #   M+ = (1/2, 1), M- = (4/3, 1/3): (2/3 + 1/3) - (1/4 + 1) = -1/4
    # Pair 1: (1, 1) of y+, (-1, 0) of y-: -1 - 2 = -3, with one token each.
    hidden = torch.tensor([[1.0, 0], [1, 1], [0, 2], [3, 0], [0, 1], [-1, 0]])
    pair = torch.tensor([0, 1, 0, 0, 0, 1])
    chosen = torch.tensor([True, True, True, False, False, False])
    rejected = torch.tensor([True, False, False, True, True, True])
    found = ches(hidden, pair, chosen, rejected, 2)
    assert found.ches_B.tolist() == [1.0, -3.0]
    assert found.normalized_B.tolist() == pytest.approx([-0.25, -3.0])


def test_equal_answers_have_the_value_0_in_low_precision_too() -> None:
    hidden = (1000 * torch.randn(40, 64, generator=torch.Generator().manual_seed(0))).bfloat16()
    both = torch.ones(40, dtype=torch.bool)
    found = ches(hidden, torch.zeros(40, dtype=torch.long), both, both, 1)
    assert (found.ches_B.item(), found.normalized_B.item()) == (0.0, 0.0)
