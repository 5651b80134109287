"""Inputs that are rounded once: the same outputs, and fewer copies for the backward pass."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from spotcli.core.forward import rounded_operands
from spotcli.core.forward.shared_attention import KNOWN

IDS = torch.arange(24).view(2, 12)


def tiny(kind: str) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(
        kind, vocab_size=50, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, pad_token_id=1,
    )  # fmt: skip
    auto: Any = AutoModelForCausalLM
    return auto.from_config(config)


def run(model: Any) -> tuple[torch.Tensor, list[torch.Tensor], int]:
    """Return logits, gradients, and the bytes of bfloat16 that are kept for the backward pass, without weights."""
    weights = {id(weight) for weight in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.dtype == torch.bfloat16 and id(tensor) not in weights:
            kept[tensor.data_ptr()] = tensor
        return tensor

    with (
        torch.autocast("cpu", torch.bfloat16),
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
    ):
        logits = model(input_ids=IDS, use_cache=False).logits
    logits.float().square().mean().backward()
    return logits, [weight.grad for weight in model.parameters()], sum(tensor.nbytes for tensor in kept.values())


@pytest.mark.parametrize("kind", sorted(KNOWN))
def test_the_same_outputs(kind: str) -> None:
    plain, ours = tiny(kind), tiny(kind)
    rounded_operands.install(ours)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ours(input_ids=IDS).logits, plain(input_ids=IDS).logits)


@pytest.mark.parametrize("kind", ["llama", "qwen3", "mistral", "gemma3_text"])
def test_the_same_outputs_with_fewer_copies(kind: str) -> None:
    plain, ours = tiny(kind), tiny(kind)
    rounded_operands.install(ours)
    logits, gradients, bytes_plain = run(plain)
    rounded, rounded_gradients, bytes_rounded = run(ours)
    assert torch.equal(rounded, logits)
    for expected, gradient in zip(gradients, rounded_gradients, strict=True):
        # Three terms are added in bfloat16 (8 bits) instead of float32.
        assert torch.allclose(gradient, expected, rtol=0.02, atol=0.02 * float(expected.abs().max()))
    # Two copies fewer for queries, keys and values, one fewer for the gated block; a copy has 24 tokens * 16 * 2 bytes.
    assert bytes_plain - bytes_rounded == 2 * 3 * 24 * 16 * 2  # of two layers


def test_without_autocast_nothing_changes() -> None:
    plain, ours = tiny("llama"), tiny("llama")
    rounded_operands.install(ours)
    assert torch.equal(ours(input_ids=IDS).logits, plain(input_ids=IDS).logits)


def test_the_language_layers_of_a_vision_model() -> None:
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    text = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "head_dim": 8}
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "image_size": 28, "patch_size": 14}
    heads = {"num_attention_heads": 2}
    config = Gemma3Config(text_config=text | heads | {"num_key_value_heads": 1}, vision_config=vision | heads)
    model = Gemma3ForConditionalGeneration(config)
    rounded_operands.install(model)
    assert sum(len(part._forward_pre_hooks) for part in model.modules()) == 2 * 2  # parts of a layer * layers


def test_layers_of_unknown_models_are_unchanged() -> None:
    from transformers import OPTConfig, OPTForCausalLM

    model = OPTForCausalLM(
        OPTConfig(vocab_size=50, hidden_size=16, ffn_dim=24, num_hidden_layers=1, num_attention_heads=2)
    )
    rounded_operands.install(model)
    assert not any(part._forward_pre_hooks for part in model.modules())
