"""Drift: the KL divergence with hand-worked numbers, and from hidden states by chunks."""

from __future__ import annotations

from math import log

import pytest
import torch

from spotcli.core.drift import Head, head_of, hidden_kl, token_kl
from spotcli.core.forward import logps
from spotcli.errors import UserError


def test_the_divergence_of_two_tokens_is_worked_by_hand() -> None:
    # p = (1/2, 1/2), q = (1/4, 3/4): 1/2 log 2 + 1/2 log(2/3) = 1/2 log(4/3)
    # p = (1, 0), q = (1/2, 1/2): log 2
    # p = q: 0
    base = torch.tensor([[0.0, 0.0], [0.0, -1e4], [3.0, 1.0]])
    policy = torch.tensor([[0.0, log(3)], [7.0, 7.0], [5.0, 3.0]])
    assert token_kl(base, policy).tolist() == pytest.approx([0.5 * log(4 / 3), log(2), 0], abs=1e-6)
    assert base.tolist()[1] == [0.0, -1e4], "the logits are not overwritten"


def test_the_divergence_is_not_symmetric() -> None:
    even, uneven = torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, log(3)]])
    # 1/4 log(1/2) + 3/4 log(3/2)
    assert float(token_kl(uneven, even)) == pytest.approx(0.25 * log(0.5) + 0.75 * log(1.5))


@pytest.mark.parametrize("chunk", [1, 3, 7, 100])
@pytest.mark.parametrize(("scale", "cap"), [(1.0, None), (0.25, None), (1.0, 2.0)])
def test_hidden_states_give_the_divergence_of_the_logits(chunk: int, scale: float, cap: float | None) -> None:
    torch.manual_seed(0)
    weights, bias = [torch.randn(50, size) for size in (8, 12)], torch.randn(50)
    states = [torch.randn(7, size) for size in (8, 12)]
    logits = [(state @ weight.t() + bias) * scale for weight, state in zip(weights, states, strict=True)]
    if cap:
        logits = [cap * (part / cap).tanh() for part in logits]
    heads = [Head(weight, bias, scale, cap) for weight in weights]
    result = hidden_kl((heads[0], states[0]), (heads[1], states[1]), chunk=chunk)
    assert result.tolist() == pytest.approx(token_kl(*logits).tolist(), rel=1e-5, abs=1e-5)


def test_logits_are_never_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    plain = logps.head_logits

    def recorded(hidden_CH: torch.Tensor, *others: object) -> torch.Tensor:
        sizes.append(len(hidden_CH))
        return plain(hidden_CH, *others)  # type: ignore[arg-type]  # the other arguments pass through unchanged

    monkeypatch.setattr("spotcli.core.drift.head_logits", recorded)
    head = Head(torch.randn(20, 4))
    states = torch.randn(10, 4)
    assert hidden_kl((head, states), (head, states), chunk=4).tolist() == pytest.approx([0] * 10, abs=1e-6)
    assert sorted(sizes) == [2, 2, 4, 4, 4, 4]


def test_a_padded_vocabulary_is_cut_to_the_common_rows() -> None:
    torch.manual_seed(0)
    weight, states = torch.randn(9, 4), torch.randn(3, 4)
    padded = torch.cat([weight, torch.randn(5, 4)])
    assert hidden_kl((Head(padded), states), (Head(weight), states)).tolist() == pytest.approx([0] * 3, abs=1e-6)


def test_an_output_layer_that_is_not_linear_is_refused() -> None:
    class Config:
        model_type = "odd"

        def get_text_config(self) -> Config:
            return self

    class Model:
        config = Config()

        def get_output_embeddings(self) -> torch.nn.Module:
            return torch.nn.Identity()

    with pytest.raises(UserError, match="its output layer is not linear"):
        head_of(Model())
