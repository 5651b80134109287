"""Stochastically rounded operands: products follow small updates on average, and gradients reach the weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from spotcli.core.forward.rounded_weights import RoundedWeights


class Model(nn.Module):
    """One linear layer and a head, as ``get_output_embeddings`` of transformers returns it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(64, 32), nn.Linear(32, 8, bias=False)
        for weight in self.parameters():
            weight.data = weight.data.bfloat16().float()

    def get_output_embeddings(self) -> nn.Module:
        return self.head

    def forward(self, hidden: torch.Tensor) -> Any:
        return self.layer(hidden)


@pytest.fixture
def model() -> Model:
    torch.manual_seed(0)
    return Model()


def products(model: Model, hidden: torch.Tensor) -> torch.Tensor:
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        result: torch.Tensor = model(hidden)
    return result.float()


def test_weights_of_the_starting_policy_are_computed_with_as_before(model: Model) -> None:
    hidden = torch.randn(5, 64)
    before = products(model, hidden)
    weights = RoundedWeights(model, seed=0)
    for step in (0, 7):
        weights.step = step
        assert torch.equal(products(model, hidden), before)


def test_products_follow_an_update_that_rounding_to_nearest_hides(model: Model) -> None:
    """Each weight grows by a part of its spacing, and the sum of the rounded weights by that of the weights."""
    hidden, layer = torch.ones(1, 64), model.layer
    start = products(model, hidden)
    layer.weight.data += layer.weight.data.abs().clamp_min(1e-3) * 2.0**-12
    grown = float((layer.weight.data - layer.weight.data.bfloat16().float()).sum())
    assert torch.equal(products(model, hidden), start)  # autocast alone does not see it
    weights = RoundedWeights(model, seed=0)
    seen = 0.0
    for step in range(1, 201):
        weights.step = step
        operand = weights.operand("layer.weight", layer.weight, torch.bfloat16)
        seen += float((operand.detach().float() - layer.weight.data.bfloat16().float()).sum()) / 200
    assert seen == pytest.approx(grown, rel=0.1)


def test_a_weight_is_rounded_once_per_step(model: Model) -> None:
    model.layer.weight.data *= 1 + 2.0**-10
    weights = RoundedWeights(model, seed=0)

    def operand(step: int) -> torch.Tensor:
        weights.step = step
        copy = weights.operand("layer.weight", model.layer.weight, torch.bfloat16).detach()
        places.add(copy.data_ptr())
        return copy.clone()

    places: set[int] = set()
    first = operand(1)
    assert torch.equal(first, operand(1))
    assert not torch.equal(first, operand(2))
    assert torch.equal(first, operand(1))  # a resumed run rounds as the interrupted one did
    assert len(places) == 1  # fresh memory would have to be mapped in every step


def test_gradients_are_those_of_autocast(model: Model) -> None:
    hidden = torch.randn(5, 64)
    gradients = []
    for install in (False, True):
        if install:
            RoundedWeights(model, seed=0)
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(hidden).float().square().sum()
        loss.backward()
        assert model.layer.weight.grad is not None
        assert model.layer.weight.grad.dtype == torch.float32
        gradients.append(model.layer.weight.grad.clone())
    assert torch.equal(*gradients)


def test_without_autocast_nothing_changes(model: Model) -> None:
    hidden = torch.randn(5, 64)
    before = model(hidden)
    RoundedWeights(model, seed=0).step = 3
    model.layer.weight.data *= 1.0
    assert torch.equal(model(hidden), before)
