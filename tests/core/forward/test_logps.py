"""Log-probabilities computed in chunks against plain log-softmax."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from spotcli.core.forward import logps
from spotcli.errors import UserError


def tiny(dtype: torch.dtype = torch.float32, **settings: Any) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, bos_token_id=0, eos_token_id=1, pad_token_id=1, **settings,
    )  # fmt: skip
    model: Any = LlamaForCausalLM(config)
    return model.to(dtype)


# A row of probabilities has 11 * 8 = 88 bytes: KEEP holds none, two and all of the seven rows, in whole chunks.
@pytest.mark.parametrize("keep", [0, 200, 10_000])
@pytest.mark.parametrize("chunk", [1, 2, 7, 100])
def test_values_and_gradients_equal_log_softmax(chunk: int, keep: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logps, "KEEP", keep)
    generator = torch.Generator().manual_seed(0)
    hidden_NH = torch.randn(7, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    weight_VH = torch.randn(11, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    bias_V = torch.randn(11, generator=generator, dtype=torch.float64, requires_grad=True)
    targets_N = torch.tensor([0, 10, 3, 3, 7, 1, 0])
    weights_N = torch.randn(7, generator=generator, dtype=torch.float64)
    given = (hidden_NH, weight_VH, bias_V)
    plain = torch.log_softmax(hidden_NH @ weight_VH.T + bias_V, -1)[torch.arange(7), targets_N]
    ours = logps.token_logps(hidden_NH, weight_VH, targets_N, bias_V=bias_V, chunk=chunk)
    assert torch.allclose(ours, plain, rtol=0, atol=1e-13)
    for expected, gradient in zip(
        torch.autograd.grad(plain @ weights_N, given), torch.autograd.grad(ours @ weights_N, given), strict=True
    ):
        assert torch.allclose(gradient, expected, rtol=0, atol=1e-13)


def test_a_number_computed_by_hand() -> None:
    # logits (ln 1, ln 3): probabilities 1/4, 3/4; d log p_1 / d hidden = w_1 - sum(p w) = 1.098612 * (1 - 3/4)
    hidden_NH = torch.ones(1, 1, requires_grad=True)
    weight_VH = torch.tensor([[0.0], [3.0]]).log1p() * torch.tensor([[0.0], [1.0986123 / 1.3862944]])
    result = logps.token_logps(hidden_NH, weight_VH, torch.tensor([1]))
    assert result.item() == pytest.approx(-0.287682, abs=1e-6)
    torch.autograd.backward(result.sum())
    assert hidden_NH.grad is not None
    assert hidden_NH.grad.item() == pytest.approx(0.274653, abs=1e-6)


def test_logits_exist_for_one_chunk_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = []
    plain = logps.head_logits

    def watch(*arguments: Any) -> torch.Tensor:
        logits_CV: torch.Tensor = plain(*arguments)
        shapes.append(tuple(logits_CV.shape))
        return logits_CV

    monkeypatch.setattr(logps, "head_logits", watch)
    weight_VH = torch.randn(9, 4, requires_grad=True)
    # A row has 9 * 4 = 36 bytes: KEEP holds none, one chunk and half of the next, all.
    for keep, recomputed in ((0, [(4, 9), (4, 9), (2, 9)]), (6 * 36, [(4, 9), (2, 9)]), (10 * 36, [])):
        monkeypatch.setattr(logps, "KEEP", keep)
        logps_N = logps.token_logps(torch.randn(10, 4), weight_VH, torch.zeros(10, dtype=torch.long), chunk=4)
        torch.autograd.backward(logps_N.sum())
        assert shapes == [(4, 9), (4, 9), (2, 9), *recomputed]
        shapes.clear()


def test_a_probable_token_keeps_its_gradient_in_bfloat16() -> None:
    # Logits 8 and 0: 1 - p = 1 / (1 + e^8) = 0.000335; p itself is 1 in bfloat16, and 1 - 1 would be 0.
    hidden_NH = torch.tensor([[8.0]], dtype=torch.bfloat16, requires_grad=True)
    weight_VH = torch.tensor([[1.0], [0.0]], dtype=torch.bfloat16)
    torch.autograd.backward(logps.token_logps(hidden_NH, weight_VH, torch.tensor([0])).sum())
    assert hidden_NH.grad is not None
    assert hidden_NH.grad.item() == pytest.approx(0.000335, rel=0.01)


def test_without_gradients_no_probabilities_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logps, "KEEP", 10**9)
    sizes: list[Any] = []
    plain = torch.empty

    def watch(*size: int, **kwargs: Any) -> torch.Tensor:
        sizes.append(size)
        return plain(*size, **kwargs)

    monkeypatch.setattr(torch, "empty", watch)
    logps.token_logps(torch.randn(10, 4), torch.randn(9, 4), torch.zeros(10, dtype=torch.long))
    assert sizes == [(10,), (0, 9)]


def test_under_autocast_logits_are_in_float32() -> None:
    hidden_NH, weight_VH = torch.randn(6, 64), torch.randn(40, 64, requires_grad=True)
    targets_N = torch.arange(6)
    exact = logps.token_logps(hidden_NH, weight_VH, targets_N)
    with torch.autocast("cpu", torch.bfloat16):
        result = logps.token_logps(hidden_NH, weight_VH, targets_N)
        (gradient,) = torch.autograd.grad(result.sum(), weight_VH)
    assert result.dtype == torch.float32
    assert torch.equal(result, exact)
    # Both operands and the product are rounded to 8 binary digits, with a relative error of at most 2 ** -9 each.
    expected = torch.autograd.grad(exact.sum(), weight_VH)[0]
    assert (gradient - expected).norm() < 3 * 2**-9 * expected.norm()


@pytest.mark.parametrize("onednn", [True, False])
def test_logits_in_float32_are_exact_with_and_without_onednn(monkeypatch: pytest.MonkeyPatch, onednn: bool) -> None:
    if not onednn:
        monkeypatch.setattr(logps, "_onednn_product", lambda: None)
    hidden_CH, head_VH = torch.randn(5, 64), torch.randn(300, 64)
    with torch.no_grad():
        logits_CV = logps.head_logits(hidden_CH, head_VH, torch.ones(300), torch.float32)
    expected_CV = hidden_CH.double() @ head_VH.double().T + 1
    # A sum of 64 products of numbers around 1 has rounding errors of about 8 * 2 ** -24; bfloat16 would have 0.02.
    assert (logits_CV - expected_CV).abs().max() < 1e-5


def test_onednn_is_not_used_where_a_gradient_is_computed() -> None:
    head_VH = torch.randn(9, 4, requires_grad=True)
    logits_CV = logps.head_logits(torch.ones(2, 4), head_VH, None, torch.float32)
    (gradient_VH,) = torch.autograd.grad(logits_CV.sum(), head_VH)
    assert torch.equal(gradient_VH, torch.full((9, 4), 2.0))  # two rows of ones


def test_bfloat16_weights_give_float32_numbers() -> None:
    hidden_NH, weight_VH = torch.randn(6, 64).bfloat16(), torch.randn(40, 64).bfloat16().requires_grad_()
    result = logps.token_logps(hidden_NH, weight_VH, torch.arange(6))
    exact = logps.token_logps(hidden_NH.float(), weight_VH.detach().float(), torch.arange(6))
    assert result.dtype == torch.float32
    assert torch.equal(result, exact)
    torch.autograd.backward(result.sum())
    assert weight_VH.grad is not None
    assert weight_VH.grad.dtype == torch.bfloat16


@pytest.mark.parametrize("tied", [True, False])
def test_an_installed_model_scores_and_still_generates(tied: bool) -> None:
    model = tiny(torch.float64, tie_word_embeddings=tied)
    ids_RL = torch.tensor([[5, 6, 7, 8, 9], [9, 8, 7, 6, 5]])
    plain = torch.log_softmax(model(input_ids=ids_RL).logits, -1)
    before = model.generate(ids_RL, max_new_tokens=3, do_sample=False)
    logps.install(model, chunk=2)
    # Positions 1 and 3 of the first answer and 0 of the second; each predicts the next token.
    result = model(input_ids=ids_RL, rows_N=torch.tensor([1, 3, 5]), targets_N=torch.tensor([7, 9, 8]))
    expected = torch.stack([plain[0, 1, 7], plain[0, 3, 9], plain[1, 0, 8]])
    assert torch.allclose(result, expected, rtol=0, atol=1e-12)
    assert torch.equal(model.generate(ids_RL, max_new_tokens=3, do_sample=False), before)


def test_a_model_that_changes_its_logits_is_an_error() -> None:
    model = tiny()
    model.config.final_logit_softcapping = 30.0
    with pytest.raises(UserError, match="final_logit_softcapping"):
        logps.install(model)
