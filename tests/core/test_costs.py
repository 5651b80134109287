"""Costs against numbers computed by hand, and against what torch counts and keeps."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch

from spotcli.core import costs
from spotcli.core.costs import GIB, Device, Setup, Shape, Work, row_work
from spotcli.core.forward import logps, rounded_operands, shared_attention
from spotcli.core.forward.encoding import EncodedPair
from spotcli.core.forward.packing import pack
from spotcli.recipe import LoraSection
from spotcli.training.session import add_adapters

# Qwen3-8B, published sizes. One layer: queries 4096 * 4096, keys and values 4096 * 1024 each, output 4096 * 4096,
# feed-forward 3 * 4096 * 12288: 192,937,984 weights; 36 layers: 6,945,767,424. Embedding and head: 151936 *
# 4096 each. Norms: 2 * 4096 and 2 * 128 per layer and 4096 at the end.
QWEN3_8B = Shape(
    parameters=6_945_767_424 + 2 * 622_329_856 + 36 * (2 * 4096 + 2 * 128) + 4096,
    body=6_945_767_424,
    layers=36,
    hidden=4096,
    width=4096,
    key_width=1024,
    mlp=12288,
    vocabulary=151936,
    head_norms=True,
)
TINY = Shape(parameters=1200, body=1000, layers=2, hidden=4, width=8, key_width=4, mlp=16, vocabulary=50)


def test_operations_computed_by_hand() -> None:
    # 10 tokens, 6 scored, 40 pairs of positions.
    work = Work(tokens=10, scored=6, attended=40)
    # 2 * 1000 * 10;  4 * 8 * 2 layers * 40;  2 * 4 * 50 * 6
    assert costs.forward(TINY, work) == {"layers": 20_000, "attention": 2_560, "head": 2_400}
    assert costs.training(TINY, work, checkpointing=False) == {
        "layers": 60_000, "attention": 7_680, "head": 7_200, "recompute": 2_400,
    }  # fmt: skip
    # Recomputed: head 2400, layers 20000 and attention 2560, without the last products 2 * 2 * 4 * 16 * 10.
    assert costs.training(TINY, work, checkpointing=True)["recompute"] == 2_400 + 20_000 + 2_560 - 2_560


def test_frozen_weights_have_no_gradients() -> None:
    work = Work(tokens=10, scored=6, attended=40)
    lora = Shape(**(vars(TINY) | {"adapters": 100}))
    assert lora.trained == 100
    # Layers: forward and input gradients 2 * 2 * (1000 + 100) * 10, weight gradients of the adapters 2 * 100 * 10.
    operations = costs.training(lora, work, checkpointing=False)
    assert (operations["layers"], operations["head"]) == (44_000 + 2_000, 4_800)


def test_minutes_computed_by_hand() -> None:
    # 1.2e17 operations at 10 * 1e12 * 0.5 per second on each of 4 devices: 6000 seconds.
    assert costs.minutes(1.2e17, device=Device(10, 80), devices=4, utilisation=0.5) == pytest.approx(100)


def test_memory_of_an_8b_model_on_8_devices_computed_by_hand() -> None:
    work = Work(tokens=8192, scored=6000, attended=8192 * 8193 // 2)
    memory = costs.memory(
        QWEN3_8B, work,
        Setup(ranks=8, sharding="zero2", checkpointing=True, weight_bytes=2, compute_bytes=2, autocast=False),
    )  # fmt: skip
    n = QWEN3_8B.parameters
    assert n == 8_190_735_360
    assert memory["weights"] * GIB == 2 * n
    assert memory["gradients"] * GIB == 6 * n / 8 + 2 * costs.BUCKET
    assert memory["optimizer"] * GIB == 12 * n / 8
    # Between layers 36 * 8192 * 4096 * 2. In one layer, per token: norms 2 * 6 * 4096, attention
    # 2 * (3 * 5120 + 1024 + 8192), norms of heads 6 * 5120, feed-forward 8 * 12288, together
    # 49,152 + 49,152 + 30,720 + 98,304. Last norm 6 * 4096.
    assert memory["activations"] * GIB == 8192 * (36 * 4096 * 2 + 227_328 + 24_576)
    # Logits 2 * 4 * 256 * 151936, 256 MiB of kept probabilities (2 * 6000 * 151936 would be more), two parts of the
    # gradient of the head in float32, scored states 2 * 4 * 6000 * 4096.
    assert memory["head"] * GIB == 8 * 256 * 151936 + 2**28 + 8 * 622_329_856 + 8 * 6000 * 4096
    # 15.3 weights, 6.6 gradients, 11.4 optimizer, 4.2 activations, 5.4 head, 2 reserve.
    assert sum(memory.values()) == pytest.approx(44.9, abs=0.1)
    # ZeRO-3 also shards the weights. Plain data parallelism in float32 shards nothing and is far too large.
    zero3 = costs.memory(QWEN3_8B, work, Setup(ranks=8, sharding="zero3", weight_bytes=2, autocast=False))
    assert zero3["weights"] < memory["weights"] / 2
    assert sum(costs.memory(QWEN3_8B, work, Setup(checkpointing=True)).values()) > 100


def test_memory_of_fsdp_computed_by_hand() -> None:
    work = Work(tokens=8192, scored=6000, attended=8192 * 8193 // 2)
    setup = Setup(ranks=8, sharding="fsdp", checkpointing=True)  # float32 weights, bfloat16 products
    memory, n = costs.memory(QWEN3_8B, work, setup), QWEN3_8B.parameters
    layer = 6_945_767_424 / 36
    # An eighth of the weights; two whole layers and the head in float32, and one layer rounded to bfloat16.
    assert memory["weights"] * GIB == pytest.approx(4 * n / 8 + 4 * (2 * layer + 622_329_856) + 2 * layer)
    assert (memory["gradients"] * GIB, memory["optimizer"] * GIB) == (4 * n / 8, 8 * n / 8)
    # Before they are divided, each device has them whole: 30.5 GiB, and little else.
    assert 30.5 + costs.RESERVE < costs.loading_memory(QWEN3_8B, work, setup) < 38


def test_checkpoints_computed_by_hand() -> None:
    # Bytes per weight: float32 weights and two moments. DeepSpeed has its own copies too.
    n = QWEN3_8B.parameters
    assert (
        costs.checkpoint_bytes(QWEN3_8B, Setup()) == costs.checkpoint_bytes(QWEN3_8B, Setup(sharding="fsdp")) == 12 * n
    )
    assert costs.checkpoint_bytes(QWEN3_8B, Setup(sharding="zero2", weight_bytes=2)) == 16 * n
    assert costs.checkpoint_bytes(QWEN3_8B, Setup(sharding="zero3", weight_bytes=2)) == 14 * n
    assert costs.checkpoint_bytes(replace(QWEN3_8B, adapters=1000), Setup()) == 12_000


def rows(start: tuple[int, ...] = (1, 2, 3)) -> list[EncodedPair]:
    generator = torch.Generator().manual_seed(1)

    def draw(number: int) -> tuple[int, ...]:
        return tuple(torch.randint(0, 990, (number,), generator=generator).tolist())

    pairs = []
    for prompt, common, chosen, rejected in ((30, 40, 60, 70), (25, 5, 90, 30), (30, 100, 3, 4)):
        shared = draw(common)
        prompt_ids = (*start, *draw(prompt))
        pairs.append(EncodedPair(prompt_ids, (*shared, 991, *draw(chosen)), (*shared, 992, *draw(rejected))))
    return pairs


@pytest.mark.parametrize("rejected", [True, False])
@pytest.mark.parametrize("share", [True, False])
def test_row_work_equals_the_packed_row(share: bool, rejected: bool) -> None:
    batch = pack(rows(), share=share, rejected=rejected)
    work = row_work(rows(), share=share, rejected=rejected)
    assert work.tokens == batch.ids_RL.numel()
    if share:
        assert work.scored == len(batch.targets_N)
        # Each position attends to all positions before it in its own answer, and to itself.
        assert work.attended == int((batch.positions_RL + 1).sum())
    else:
        assert work.attended == len(batch.ids_RL) * sum(range(1, batch.ids_RL.shape[1] + 1))


def test_costs_load_without_torch() -> None:
    code = "import sys, spotcli.core.costs; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


SIZES: dict[str, Any] = {
    "vocab_size": 1000, "hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": 4,
    "num_attention_heads": 8, "num_key_value_heads": 2,
}  # fmt: skip


def llama() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(**SIZES))


def qwen3() -> Any:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    return Qwen3ForCausalLM(Qwen3Config(**SIZES, head_dim=32))


def shape_of(model: Any) -> Shape:
    config, head = model.config, model.lm_head
    return Shape(
        parameters=sum(weight.numel() for weight in model.parameters()),
        body=sum(
            module.weight.numel()
            for module in model.modules()
            if isinstance(module, torch.nn.Linear) and module is not head
        ),
        layers=4, hidden=128, width=8 * config.head_dim, key_width=2 * config.head_dim, mlp=352, vocabulary=1000,
        head_norms=config.model_type == "qwen3",
    )  # fmt: skip


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("build", [llama, qwen3])
def test_operations_equal_what_torch_counts(
    build: Callable[[], Any], checkpointing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    monkeypatch.setattr(logps, "KEEP", 0)
    monkeypatch.setattr(logps, "_onednn_product", lambda: None)  # torch does not count it
    model = build().train()
    if checkpointing:
        model.activation_checkpointing_enable()
    logps.install(model)
    shared_attention.register()
    model.set_attn_implementation(shared_attention.NAME)
    with FlopCounterMode(display=False) as counter:
        model(**pack(rows(), share=True).model_inputs()).sum().backward()
    shape, work = shape_of(model), row_work(rows(), share=True)
    once, total = costs.forward(shape, work), costs.training(shape, work, checkpointing=checkpointing)
    # Torch does not count attention on a CPU.
    uncounted = once["attention"] * (4 if checkpointing else 3)
    assert sum(total.values()) - uncounted == pytest.approx(counter.get_total_flops(), rel=0.001)


def kept_bytes(model: Any, low: bool, monkeypatch: pytest.MonkeyPatch) -> int:
    """Return the bytes that autograd keeps of the forward pass through the layers, without weights."""
    monkeypatch.setattr(logps, "KEEP", 0)
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    kept: dict[int, tuple[int, torch.Tensor]] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    context = torch.autocast("cpu", torch.bfloat16) if low else nullcontext()
    # Without a common start, because a CPU also keeps its masks (once for all layers) and a GPU does not.
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), context:
        model(**pack(rows(()), share=True).model_inputs())
    return sum(size for size, _ in kept.values())


def on_cpu(shape: Shape, low: bool) -> int:
    """Return what only a CPU keeps: 2 more bytes per query, key, value and attention output, which are in float32."""
    tokens = row_work(rows(()), share=True).tokens
    return 2 * tokens * shape.layers * (2 * shape.width + 2 * shape.key_width) if low else 0


@pytest.mark.parametrize("low", [False, True])
@pytest.mark.parametrize("build", [llama, qwen3])
def test_activations_equal_what_torch_keeps(
    build: Callable[[], Any], low: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model = build().train()
    logps.install(model)
    rounded_operands.install(model)
    shared_attention.register()
    model.set_attn_implementation(shared_attention.NAME)
    shape = shape_of(model)
    setup = Setup(compute_bytes=2 if low else 4, autocast=low)
    casts = 2 * shape.body if low else 0
    measured = kept_bytes(model, low, monkeypatch) - casts - on_cpu(shape, low)
    assert costs.activations(shape, row_work(rows(()), share=True), setup) == pytest.approx(measured, rel=0.1)


@pytest.mark.parametrize("low", [False, True])
@pytest.mark.parametrize("build", [llama, qwen3])
def test_activations_with_adapters_are_near_what_torch_keeps(
    build: Callable[[], Any], low: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model = build().train()
    shape = shape_of(model)
    if low:
        model.bfloat16()
    logps.install(model)
    shared_attention.register()
    model.set_attn_implementation(shared_attention.NAME)
    wrapped = add_adapters(model, LoraSection(r=4), seed=0)
    shape = replace(shape, adapters=sum(weight.numel() for weight in wrapped.parameters() if weight.requires_grad))
    setup = Setup(weight_bytes=2 if low else 4, compute_bytes=2 if low else 4, autocast=low)
    measured = kept_bytes(wrapped, low, monkeypatch) - on_cpu(shape, low)
    # An estimate that is too high is safer than one that is too low.
    assert 0.9 < costs.activations(shape, row_work(rows(()), share=True), setup) / measured < 1.2
