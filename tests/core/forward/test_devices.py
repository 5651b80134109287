"""The forward and backward pass on another device than the CPU, without a GPU.

Tensors on torch's ``meta`` device have shapes but no numbers, and mixing them with CPU tensors is an error, as on a
GPU. They cannot show values or speed; benchmarks/gpu.py measures these.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from spotcli.core.forward import logps, rounded_operands, shared_attention
from spotcli.core.forward.encoding import EncodedPair
from spotcli.core.forward.packing import Batch, pack
from spotcli.core.forward.rounded_weights import RoundedWeights
from spotcli.core.loss import OBJECTIVES, Coefficients, LossInputs
from spotcli.training.step_metrics import Totals

PAIRS = [
    EncodedPair((1, 2, 3), (4, 5, 6), (4, 7, 8, 9)), EncodedPair((1, 2, 5, 6), (4, 5), (9, 7)),
    EncodedPair((1, 2, 3), (7, 8, 9, 10), (7, 8)),
]  # fmt: skip

WAITING = ("_local_scalar_dense", "nonzero", "is_nonzero", "_to_copy.cpu")
"""Operations for which the program waits until a GPU has finished."""


class Kernel:
    """Stands for torch's varlen attention, as torch 2.11 has it (without ``enable_gqa``); records its arguments."""

    def __init__(self) -> None:
        self.calls: list[tuple[torch.Tensor, ...]] = []

    def __call__(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, cu_seq_q: torch.Tensor,
        cu_seq_k: torch.Tensor, max_q: int, max_k: int, *, scale: float | None, window_size: tuple[int, int],
    ) -> torch.Tensor:  # fmt: skip
        self.calls.append((query, key, value, cu_seq_q, cu_seq_k))
        # The same gradients as attention has: all three inputs need one, in their own shapes.
        return query + key.sum() + value.sum()


class Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's class has no annotations
    """Records the names of all operations."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's class has no annotations
        self.names: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        copies = name == "_to_copy" and (kwargs or {}).get("device") == torch.device("cpu")
        self.names.append(f"{name}.cpu" if copies else name)
        return function(*args, **(kwargs or {}))


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    """Make ``meta`` a device with autocast to bfloat16 and varlen attention, as a GPU is."""
    kernel, enabled = Kernel(), torch.is_autocast_enabled

    def varlen(device: torch.device, dtype: torch.dtype) -> Any:
        return kernel if dtype == torch.bfloat16 else None

    monkeypatch.setattr(shared_attention, "_varlen", varlen)
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: device == "meta" or enabled(device))
    monkeypatch.setattr(torch, "get_autocast_dtype", lambda device: torch.bfloat16)
    monkeypatch.setattr(torch, "autocast", lambda *args, **options: nullcontext())
    return kernel


def model() -> Any:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    with torch.device("meta"):
        built: Any = Qwen3ForCausalLM(
            Qwen3Config(
                vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
                num_key_value_heads=2, head_dim=8,
            )
        )  # fmt: skip
    shared_attention.register()
    logps.install(built, chunk=4)
    rounded_operands.install(built)
    RoundedWeights(built, 0).step = 1
    built.set_attn_implementation(shared_attention.NAME)
    return built


def step(policy: Any, batch: Batch) -> Totals:
    """One micro-batch as ``training.trainer`` runs it."""
    objective = OBJECTIVES["spot-bco"]
    logps_N = policy(**batch.model_inputs())
    chosen_B, rejected_B = batch.sequence_logps(logps_N)
    zeros_B = torch.zeros_like(chosen_B)
    inputs = LossInputs(
        policy_chosen_logps_B=chosen_B,
        policy_rejected_logps_B=rejected_B,
        reference_chosen_logps_B=zeros_B,
        reference_rejected_logps_B=zeros_B,
        chosen_token_logps_T=batch.chosen_token_logps(logps_N),
    )
    outputs = objective(inputs, Coefficients(beta=0.1))
    torch.autograd.backward(outputs.loss)
    sums: dict[str, Any] = {"loss": outputs.loss.detach(), "tokens_run": batch.ids_RL.numel()}
    return Totals.of(sums | {name: value_B.sum() for name, value_B in outputs.metrics.items()}, logps_N.device)


def test_a_step_stays_on_its_device_and_never_waits(kernel: Kernel) -> None:
    policy, batch = model(), pack(PAIRS, share=True).to("meta")
    with Operations() as operations:
        totals = step(policy, batch)
    assert totals.values_K.device.type == "meta"
    assert {weight.grad.device.type for weight in policy.parameters()} == {"meta"}
    assert [name for name in operations.names if name in WAITING] == []


def test_varlen_attention_gets_one_low_precision(kernel: Kernel) -> None:
    # With float32 weights, rotation returns float32 queries and keys beside bfloat16 values.
    step(model(), pack(PAIRS, share=True).to("meta"))
    assert len(kernel.calls) == 2  # layers
    for query, key, value, cu_seq_q, cu_seq_k in kernel.calls:
        assert query.dtype == key.dtype == value.dtype == torch.bfloat16
        assert cu_seq_q.dtype == cu_seq_k.dtype == torch.int32
        assert cu_seq_q.device == cu_seq_k.device == query.device


def test_bounds_that_a_reference_made_work_in_training() -> None:
    shared_attention._sequences.cache_clear()
    with torch.inference_mode():
        bounds = shared_attention._sequences((0, 3, 2, 2), torch.device("cpu"))
    assert not any(bound.is_inference() for bound in bounds if isinstance(bound, torch.Tensor))
