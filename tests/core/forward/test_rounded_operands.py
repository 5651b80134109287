"""Operands that are rounded once: the same outputs, and less that is kept for the backward pass."""

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
    return AutoModelForCausalLM.from_config(config)


def run(model: Any) -> tuple[torch.Tensor, list[torch.Tensor], int]:
    """Logits, gradients, and bytes of bfloat16 that wait for the backward pass, weights not among them."""
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
    return logits, [weight.grad for weight in model.parameters()], sum(each.nbytes for each in kept.values())


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
    found, found_gradients, bytes_ours = run(ours)
    assert torch.equal(found, logits)
    for expected, gradient in zip(gradients, found_gradients, strict=True):
        # Three bfloat16 terms (8 bits) are added in bfloat16 instead of float32.
        assert torch.allclose(gradient, expected, rtol=0.02, atol=0.02 * float(expected.abs().max()))
    # Two copies less for queries, keys and values, one for the gated part; a copy is 24 tokens * 16 * 2 bytes.
    assert bytes_plain - bytes_ours == 2 * 3 * 24 * 16 * 2  # of two layers


def test_without_autocast_nothing_changes() -> None:
    plain, ours = tiny("llama"), tiny("llama")
    rounded_operands.install(ours)
    assert torch.equal(ours(input_ids=IDS).logits, plain(input_ids=IDS).logits)


def test_the_language_part_of_a_model_that_sees() -> None:
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    text = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "head_dim": 8}
    seen = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "image_size": 28, "patch_size": 14}
    heads = {"num_attention_heads": 2}
    config = Gemma3Config(text_config=text | heads | {"num_key_value_heads": 1}, vision_config=seen | heads)
    model = Gemma3ForConditionalGeneration(config)
    rounded_operands.install(model)
    assert sum(len(part._forward_pre_hooks) for part in model.modules()) == 2 * 2  # parts of a layer * layers


def test_layers_that_were_not_looked_at_are_left_alone() -> None:
    from transformers import OPTConfig, OPTForCausalLM

    model = OPTForCausalLM(
        OPTConfig(vocab_size=50, hidden_size=16, ffn_dim=24, num_hidden_layers=1, num_attention_heads=2)
    )
    rounded_operands.install(model)
    assert not any(part._forward_pre_hooks for part in model.modules())
