"""Compiled norms: the same numbers, and one compilation for rows of any length."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from spotcli.core.forward import compiled_norms, logps, shared_attention
from spotcli.core.forward.encoding import EncodedPair
from spotcli.core.forward.packing import pack


@pytest.mark.filterwarnings("ignore")  # torch.compile imports modules that torch itself has deprecated
def test_norms_are_compiled_once_for_all_lengths() -> None:
    from torch._dynamo.testing import CompileCounterWithBackend
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    model: Any = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, head_dim=8,
        )
    )  # fmt: skip
    shared_attention.register()
    logps.install(model, chunk=7)
    model.set_attn_implementation(shared_attention.NAME)
    batches = [
        pack([EncodedPair((1, 2), (3,) * length, (3,) * (length - 1) + (4, 5))], share=True) for length in range(3, 9)
    ]

    def numbers() -> list[torch.Tensor]:
        results = []
        for batch in batches:
            model.zero_grad()
            logps_N = model(**batch.model_inputs())
            torch.autograd.backward(logps_N.sum())
            results += [logps_N.detach(), model.model.layers[0].input_layernorm.weight.grad.clone()]
        return results

    expected, names = numbers(), [*model.state_dict()]
    counter: Any = CompileCounterWithBackend("aot_eager")
    assert compiled_norms.install(model, backend=counter) == 2 * 4 + 1
    for result, value in zip(numbers(), expected, strict=True):
        assert torch.allclose(result, value, rtol=1e-5, atol=1e-6)
    # Norms of layers and norms of heads have different shapes.
    assert 1 <= counter.frame_count <= 4
    assert [*model.state_dict()] == names
