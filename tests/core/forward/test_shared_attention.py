"""Rows with shared prefixes against two separate forward passes: log-probabilities and gradients."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from spotcli.core.forward import logps, shared_attention
from spotcli.core.forward.encoding import EncodedPair
from spotcli.core.forward.packing import pack
from spotcli.core.forward.token_marks import errors
from spotcli.core.loss import OBJECTIVES, Coefficients, LossInputs
from spotcli.errors import SpotError

Build = Callable[[], Any]


def pairs(start: tuple[int, ...] = ()) -> list[EncodedPair]:
    """Pairs with long and short tails, no common beginning, a tail of one token, y- as a prefix of y+, and no y-.

    Args:
        start: the common start of all prompts.
    """
    generator = torch.Generator().manual_seed(1)

    def draw(number: int) -> tuple[int, ...]:
        return tuple(torch.randint(0, 90, (number,), generator=generator).tolist())

    encoded = []
    for prompt, common, chosen, rejected in ((11, 17, 9, 13), (5, 0, 7, 3), (8, 21, 1, 1), (3, 4, 12, 1)):
        shared = draw(common)
        encoded.append(
            EncodedPair((*start, *draw(prompt)), (*shared, 91, *draw(chosen - 1)), (*shared, 92, *draw(rejected - 1)))
        )
    kept = EncodedPair((*start, *draw(6)), draw(14), ())
    return [*encoded[:2], kept, *encoded[2:], EncodedPair((*start, 1, 2, 3), (7, 8, 9, 10), (7, 8))]


def llama() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(**SIZES))


def qwen3() -> Any:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    return Qwen3ForCausalLM(Qwen3Config(**SIZES, head_dim=16))


SIZES: dict[str, Any] = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1,
}  # fmt: skip


def ready(build: Build, dtype: torch.dtype) -> Any:
    """Build a random model that computes in ``dtype`` everywhere.

    The RMSNorm of transformers computes in float32 for every dtype, which would hide the precision of float64.
    """
    torch.manual_seed(0)
    model = build().to(dtype).train()
    for module in list(model.modules()):
        for name, norm in list(module.named_children()):
            if type(norm).__name__.endswith("RMSNorm"):
                exact = torch.nn.RMSNorm(len(norm.weight), eps=norm.variance_epsilon, dtype=dtype)
                exact.weight = norm.weight
                setattr(module, name, exact)
    shared_attention.register()
    logps.install(model, chunk=7)
    return model


def separately(model: Any, rows: list[EncodedPair]) -> torch.Tensor:
    """Return logp of every answer, each from a separate forward pass."""
    answer_logps = []
    for side in ("chosen_ids", "rejected_ids"):
        for pair in rows:
            answer = getattr(pair, side)
            logits = model(input_ids=torch.tensor([pair.prompt_ids + answer])).logits[0, len(pair.prompt_ids) - 1 : -1]
            answer_logps.append(logits.log_softmax(-1).gather(1, torch.tensor(answer)[:, None]).sum())
    return torch.stack(answer_logps)


def together(model: Any, rows: list[EncodedPair], share: bool) -> torch.Tensor:
    """Return logp of every answer from one forward pass."""
    batch = pack(rows, share=share)
    return torch.cat(batch.sequence_logps(model(**batch.model_inputs())))


def gradients(model: Any, logps_B: torch.Tensor) -> dict[str, torch.Tensor]:
    half = len(logps_B) // 2
    loss = -F.logsigmoid(0.1 * logps_B[:half] + 8).mean() - F.logsigmoid(-0.1 * logps_B[half:] - 8).mean()
    model.zero_grad()
    torch.autograd.backward(loss)
    return {name: value.grad.clone() for name, value in model.named_parameters()}


@pytest.mark.parametrize("start", [(), tuple(range(20, 33))], ids=["", "common"])
@pytest.mark.parametrize("checkpointing", [False, True], ids=["", "checkpointing"])
@pytest.mark.parametrize("share", [True, False], ids=["shared", "plain"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)], ids=["f64", "f32"])
@pytest.mark.parametrize("build", [llama, qwen3])
def test_log_probabilities_and_gradients_equal_separate_passes(
    build: Build, dtype: torch.dtype, tolerance: float, share: bool, checkpointing: bool, start: tuple[int, ...]
) -> None:
    model, rows = ready(build, dtype), pairs(start)
    expected = separately(model, rows)
    expected_gradients = gradients(model, expected)
    if checkpointing:
        model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    if share:
        model.set_attn_implementation(shared_attention.NAME)
    result = together(model, rows, share)
    assert ((result - expected) / expected.abs().clamp(min=1)).abs().max() < tolerance
    for name, gradient in gradients(model, result).items():
        scale = expected_gradients[name].abs().max()
        assert (gradient - expected_gradients[name]).abs().max() < tolerance * scale, name


# Granite and Cohere scale their logits. The default configuration of Granite does not; that of Cohere scales by 1/16.
SPECIAL: dict[str, dict[str, Any]] = {"granite": {"logits_scaling": 8.0, "attention_multiplier": 0.5}}


@pytest.mark.parametrize("kind", sorted(shared_attention.KNOWN))
def test_every_known_architecture(kind: str) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    auto: Any = AutoModelForCausalLM
    model = auto.from_config(AutoConfig.for_model(kind, **SIZES, head_dim=8, **SPECIAL.get(kind, {})))
    assert shared_attention.unsupported(model.config) is None
    shared_attention.register()
    logps.install(model, chunk=7)
    rows = pairs(tuple(range(20, 33)))
    expected = separately(model, rows)
    expected_gradients = gradients(model, expected)
    model.set_attn_implementation(shared_attention.NAME)
    result = together(model, rows, share=True)
    assert ((result - expected) / expected.abs().clamp(min=1)).abs().max() < 1e-4
    for name, gradient in gradients(model, result).items():
        # The gradient of a bias of keys is only rounding noise, so it is compared on an absolute scale.
        scale = max(float(expected_gradients[name].abs().max()), 1e-3)
        assert (gradient - expected_gradients[name]).abs().max() < 1e-4 * scale, name


@pytest.mark.parametrize("first", [True, False], ids=["first", "edited"])
@pytest.mark.parametrize("share", [True, False], ids=["shared", "plain"])
def test_focal_loss_and_its_gradients_equal_separate_passes(share: bool, first: bool) -> None:
    model = ready(llama, torch.float64)
    # Also two edits in one pair, and a pair whose y+ only inserts.
    rows = [*pairs(), EncodedPair((4, 5), (6, 7, 8, 9, 10), (6, 1, 8, 2, 10)), EncodedPair((4, 5), (6, 3, 7), (6, 7))]
    marks = [errors(pair, first=first) for pair in rows]
    error_B = torch.tensor([float(any(marks_R)) for marks_R in marks], dtype=torch.float64)
    paired_B = torch.tensor([float(bool(pair.rejected_ids)) for pair in rows], dtype=torch.float64)

    def loss(logps_B: torch.Tensor, errors_B: torch.Tensor) -> torch.Tensor:
        # Reference values that differ from the policy's, as after some steps; 0 where there is nothing.
        chosen_B, rejected_B = logps_B.chunk(2)
        before = [values_B.detach() * 0.99 for values_B in (chosen_B, rejected_B, errors_B)]
        inputs = LossInputs(
            chosen_B, rejected_B, before[0], before[1], paired_B=paired_B, policy_error_logps_B=errors_B,
            reference_error_logps_B=before[2], error_B=error_B,
        )  # fmt: skip
        return OBJECTIVES["spot-focal"](inputs, Coefficients(beta=0.5, shift=0.1, focal_weight=2.0)).loss

    def of(value: torch.Tensor) -> dict[str, torch.Tensor]:
        model.zero_grad()
        torch.autograd.backward(value)
        return {name: weight.grad.clone() for name, weight in model.named_parameters()}

    alone = []
    for pair, marks_R in zip(rows, marks, strict=True):
        ids = torch.tensor([pair.prompt_ids + pair.rejected_ids])
        logits = model(input_ids=ids).logits[0, len(pair.prompt_ids) - 1 : -1].log_softmax(-1)
        token_logps = logits.gather(1, torch.tensor(pair.rejected_ids, dtype=torch.long)[:, None])[:, 0]
        alone.append((token_logps * torch.tensor(marks_R, dtype=torch.float64)).sum())
    expected = loss(separately(model, rows), torch.stack(alone))
    expected_gradients = of(expected)
    if share:
        model.set_attn_implementation(shared_attention.NAME)
    batch = pack(rows, share=share)
    logps_N = model(**batch.model_inputs())
    errors_R = torch.tensor([float(mark) for marks_R in marks for mark in marks_R], dtype=torch.float64)
    result = loss(torch.cat(batch.sequence_logps(logps_N)), batch.error_logps(logps_N, errors_R))
    assert result.item() == pytest.approx(expected.item(), rel=1e-9)
    for name, gradient in of(result).items():
        assert (gradient - expected_gradients[name]).abs().max() < 1e-9, name


def varlen_attn(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cu_seq_q: torch.Tensor,
    cu_seq_k: torch.Tensor,
    max_q: int,
    max_k: int,
    *,
    scale: float | None,
    window_size: tuple[int, int],
    enable_gqa: bool,
) -> torch.Tensor:
    """Compute what the documentation of torch's kernel promises: [tokens, heads, size], causal at the lower right."""
    assert window_size == (-1, 0)
    assert cu_seq_q.dtype == cu_seq_k.dtype == torch.int32
    assert [int(bound) for bound in (cu_seq_q[0], cu_seq_q[-1], cu_seq_k[-1])] == [0, len(query), len(key)]
    assert (max_q, max_k) == (int(cu_seq_q.diff().max()), int(cu_seq_k.diff().max()))
    if enable_gqa:
        key, value = (tensor.repeat_interleave(query.shape[1] // key.shape[1], 1) for tensor in (key, value))
    outputs = []
    for (first, last), (low, high) in zip(pairwise(cu_seq_q.tolist()), pairwise(cu_seq_k.tolist()), strict=True):
        scores = torch.einsum("qhd,khd->hqk", query[first:last], key[low:high]) * (scale or query.shape[-1] ** -0.5)
        hidden = torch.ones(last - first, high - low, dtype=torch.bool).triu(high - low - (last - first) + 1)
        outputs.append(torch.einsum("hqk,khd->qhd", scores.masked_fill(hidden, -math.inf).softmax(-1), value[low:high]))
    return torch.cat(outputs)


@pytest.mark.parametrize("start", [(), tuple(range(20, 33))], ids=["", "common"])
@pytest.mark.parametrize("rejected", [True, False], ids=["", "chosen only"])
@pytest.mark.parametrize(("build", "told"), [(llama, True), (qwen3, True), (qwen3, False)])
def test_one_call_per_layer_gives_the_same_numbers(
    build: Build, told: bool, rejected: bool, start: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch 2.12 is told that there are fewer key heads; the kernel of torch 2.11 has no such argument."""
    model, rows = ready(build, torch.float64), pairs(start)
    model.set_attn_implementation(shared_attention.NAME)
    batch = pack(rows, share=True, rejected=rejected)

    def numbers() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        answer_logps = torch.cat(batch.sequence_logps(model(**batch.model_inputs())))
        return answer_logps.detach(), gradients(model, answer_logps)

    expected, expected_gradients = numbers()
    calls = 0

    @wraps(varlen_attn)
    def kernel(*args: Any, **kwargs: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return varlen_attn(*args, **kwargs)

    def older(*args: Any, scale: float | None, window_size: tuple[int, int]) -> torch.Tensor:
        return kernel(*args, scale=scale, window_size=window_size, enable_gqa=True)

    monkeypatch.setattr(shared_attention, "_varlen", lambda device, dtype: kernel if told else older)
    result, result_gradients = numbers()
    assert calls == 3  # layers
    assert torch.allclose(result, expected, rtol=1e-9)
    for name, gradient in result_gradients.items():
        assert torch.allclose(gradient, expected_gradients[name], rtol=1e-7, atol=1e-12), name


def test_torch_chooses_no_cudnn_attention() -> None:
    enabled: Any = torch.backends.cuda.cudnn_sdp_enabled  # it has no annotations
    before = enabled()
    try:
        torch.backends.cuda.enable_cudnn_sdp(True)
        shared_attention.pin_flash()
        assert not enabled()
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)


def test_without_the_rejected_answers() -> None:
    model = ready(llama, torch.float64)
    expected = separately(model, pairs())[: len(pairs())]
    model.set_attn_implementation(shared_attention.NAME)
    batch = pack(pairs(), share=True, rejected=False)
    chosen_B, rejected_B = batch.sequence_logps(model(**batch.model_inputs()))
    assert torch.allclose(chosen_B, expected, rtol=1e-9)
    assert batch.ids_RL.shape[1] == sum(len(pair.prompt_ids) + len(pair.chosen_ids) for pair in pairs())
    assert not rejected_B.any()


def test_the_tails_do_not_attend_to_each_other() -> None:
    model = ready(llama, torch.float64)
    model.set_attn_implementation(shared_attention.NAME)

    def rejected_logps(chosen: tuple[int, ...]) -> torch.Tensor:
        batch = pack([EncodedPair((1, 2), chosen, (3, 6, 7))], share=True)
        return batch.sequence_logps(model(**batch.model_inputs()))[1]

    assert torch.allclose(rejected_logps((3, 40, 50)), rejected_logps((3, 4, 5)), rtol=1e-12)


@pytest.mark.parametrize("start", [(), tuple(range(20, 33))], ids=["", "common"])
def test_all_layers_share_one_mask_per_piece(start: tuple[int, ...]) -> None:
    model = ready(llama, torch.float32)
    model.set_attn_implementation(shared_attention.NAME)
    batch = pack(pairs(start), share=True)
    with torch.inference_mode():  # as for the reference: the cached masks must also work in training
        model(**batch.model_inputs())
    masks: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.is_floating_point() and bool(tensor.isneginf().any()):
            masks[tensor.data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logps_N = model(**batch.model_inputs())
    logps_N.sum().backward()
    # The rejected tails attend to their prefix; with a common start, prefix and chosen tail attend to the start.
    assert batch.spans is not None
    masked = sum(b > 1 for _, _, _, b in batch.spans)  # the mask of a single token hides nothing
    assert len(masks) == masked + (len(batch.spans) if start else 0) > 1


def test_a_row_without_spans_is_an_error() -> None:
    model = ready(llama, torch.float32)
    model.set_attn_implementation(shared_attention.NAME)
    with pytest.raises(SpotError, match="requires packed rows"):
        model(input_ids=torch.tensor([[1, 2, 3]]))


def test_unsupported_arguments_are_an_error() -> None:
    states = torch.zeros(1, 2, 3, 4)
    unsupported: tuple[dict[str, Any], ...] = (
        {"dropout": 0.1}, {"s_aux": states}, {"softcap": 1.0}, {"sliding_window": 2},
    )  # fmt: skip
    for arguments in unsupported:
        with pytest.raises(SpotError):
            shared_attention.pair_attention(None, states, states, states, None, pair_spans=((0, 1, 2, 0),), **arguments)
    with pytest.raises(SpotError):
        shared_attention.pair_attention(None, states, states, states, states, pair_spans=((0, 1, 2, 0),))


def test_which_models_can_share_prefixes() -> None:
    from transformers import AutoConfig, LlamaConfig, MistralConfig, Qwen3Config

    assert shared_attention.unsupported(LlamaConfig()) is None
    assert shared_attention.unsupported(Qwen3Config()) is None
    assert "gpt2" in str(shared_attention.unsupported(AutoConfig.for_model("gpt2")))
    assert "linear_attention" in str(
        shared_attention.unsupported(Qwen3Config(num_hidden_layers=1, layer_types=["linear_attention"]))
    )
    assert shared_attention.window(LlamaConfig()) is None
    assert shared_attention.window(Qwen3Config()) is None
    assert shared_attention.window(MistralConfig(sliding_window=128)) == 128
