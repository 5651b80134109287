"""Shared-prefix rows against two separate forward passes, and the plan of an epoch."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from spotcli.core.forward import logps, shared_attention
from spotcli.core.forward.batches import Layout, TokenLimit, fit, micro_batches, plan_epoch
from spotcli.core.forward.encoding import EncodedPair, row_tokens
from spotcli.core.forward.packing import pack
from spotcli.errors import SpotError

Build = Callable[[], Any]


def pairs(start: tuple[int, ...] = ()) -> list[EncodedPair]:
    """Long and short tails, no common beginning, a tail of one token, and y- a strict beginning of y+.

    Args:
        start: what all prompts begin with.
    """
    generator = torch.Generator().manual_seed(1)

    def draw(number: int) -> tuple[int, ...]:
        return tuple(torch.randint(0, 90, (number,), generator=generator).tolist())

    found = []
    for prompt, common, chosen, rejected in ((11, 17, 9, 13), (5, 0, 7, 3), (8, 21, 1, 1), (3, 4, 12, 1)):
        shared = draw(common)
        found.append(
            EncodedPair((*start, *draw(prompt)), (*shared, 91, *draw(chosen - 1)), (*shared, 92, *draw(rejected - 1)))
        )
    return [*found, EncodedPair((*start, 1, 2, 3), (7, 8, 9, 10), (7, 8))]


def test_the_layout_of_one_pair() -> None:
    # prompt 1 2, common beginning 3, tails 4 5 and 6: one row, and the position of token 3 is scored for both tails.
    batch = pack([EncodedPair((1, 2), (3, 4, 5), (3, 6))], share=True)
    assert batch.ids_RL.tolist() == [[1, 2, 3, 4, 5, 6]]
    assert batch.positions_RL.tolist() == [[0, 1, 2, 3, 4, 3]]
    assert batch.spans == ((0, 3, 2, 1),)
    assert batch.rows_N.tolist() == [1, 2, 3, 2]
    assert batch.targets_N.tolist() == [3, 4, 5, 6]
    assert batch.chosen_N.tolist() == [True, True, True, False]
    assert batch.rejected_N.tolist() == [True, False, False, True]
    # logp(y+) = -1 -2 -4, logp(y-) = -1 -8
    chosen_B, rejected_B = batch.sequence_logps(torch.tensor([-1.0, -2.0, -4.0, -8.0]))
    assert (chosen_B.tolist(), rejected_B.tolist()) == ([-7.0], [-9.0])
    assert batch.chosen_token_logps(torch.tensor([-1.0, -2.0, -4.0, -8.0])).tolist() == [-1.0, -2.0, -4.0]


@pytest.mark.parametrize("share", [True, False])
def test_sums_over_kept_and_edited_tokens(share: bool) -> None:
    # y+ 3 4 5, y- 3 6 5: 3 and 5 are kept, 4 and 6 edited.
    batch = pack([EncodedPair((1, 2), (3, 4, 5), (3, 6, 5))], share=share)
    values = {True: [1.0, 2.0, 4.0, 8.0, 16.0], False: [1.0, 2.0, 4.0, 1.0, 8.0, 16.0]}
    logps_N = torch.tensor(values[share])
    assert batch.span_sums(logps_N).tolist() == [5.0, 2.0, 8.0]
    assert [each.tolist() for each in batch.edited_logps(logps_N)] == [[2.0], [8.0]]


def test_what_all_prompts_of_a_row_begin_with_stands_once() -> None:
    # Common start 1 2; the second prompt has nothing else but its last token, which stays with the pair.
    rows = [EncodedPair((1, 2, 3, 4), (5,), (6,)), EncodedPair((1, 2, 3), (7, 8), (7, 9))]
    batch = pack(rows, share=True)
    assert batch.ids_RL.tolist() == [[1, 2, 3, 4, 5, 6, 3, 7, 8, 9]]
    assert batch.positions_RL.tolist() == [[0, 1, 2, 3, 4, 4, 2, 3, 4, 4]]
    assert (batch.common, batch.spans) == (2, ((2, 2, 1, 1), (6, 2, 1, 1)))
    assert batch.rows_N.tolist() == [3, 3, 6, 7, 7]
    assert batch.targets_N.tolist() == [5, 6, 7, 8, 9]
    assert row_tokens(rows) == 10
    assert row_tokens(rows, rejected=False) == pack(rows, share=True, rejected=False).ids_RL.numel() == 8


def test_the_plain_layout_of_one_pair() -> None:
    batch = pack([EncodedPair((1, 2), (3, 4, 5), (3, 6))], share=False)
    assert batch.ids_RL.tolist() == [[1, 2, 3, 4, 5], [1, 2, 3, 6, 0]]
    assert batch.attention_mask_RL is not None
    assert batch.attention_mask_RL.tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]]
    assert batch.rows_N.tolist() == [1, 2, 3, 6, 7]
    assert batch.targets_N.tolist() == [3, 4, 5, 3, 6]
    alone = pack([EncodedPair((1, 2), (3, 4, 5), (3, 6))], share=False, rejected=False)
    assert alone.ids_RL.tolist() == [[1, 2, 3, 4, 5]]


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
    """A random model in which nothing is rounded to less than ``dtype``.

    transformers' RMSNorm computes in float32 whatever the model's type, which would hide float64's precision.
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
    """logp of every answer in a forward pass of its own."""
    found = []
    for side in ("chosen_ids", "rejected_ids"):
        for pair in rows:
            answer = getattr(pair, side)
            logits = model(input_ids=torch.tensor([pair.prompt_ids + answer])).logits[0, len(pair.prompt_ids) - 1 : -1]
            found.append(logits.log_softmax(-1).gather(1, torch.tensor(answer)[:, None]).sum())
    return torch.stack(found)


def together(model: Any, rows: list[EncodedPair], share: bool) -> torch.Tensor:
    batch = pack(rows, share=share)
    return torch.cat(batch.sequence_logps(model(**batch.model_inputs())))


def gradients(model: Any, logps_B: torch.Tensor) -> dict[str, torch.Tensor]:
    half = len(logps_B) // 2
    loss = -F.logsigmoid(0.1 * logps_B[:half] + 8).mean() - F.logsigmoid(-0.1 * logps_B[half:] - 8).mean()
    model.zero_grad()
    loss.backward()
    return {name: value.grad.clone() for name, value in model.named_parameters()}


@pytest.mark.parametrize("start", [(), tuple(range(20, 33))], ids=["", "common"])
@pytest.mark.parametrize("checkpointing", [False, True], ids=["", "checkpointing"])
@pytest.mark.parametrize("share", [True, False], ids=["shared", "plain"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)], ids=["f64", "f32"])
@pytest.mark.parametrize("build", [llama, qwen3])
def test_the_numbers_of_two_separate_passes(
    build: Build, dtype: torch.dtype, tolerance: float, share: bool, checkpointing: bool, start: tuple[int, ...]
) -> None:
    model, rows = ready(build, dtype), pairs(start)
    expected = separately(model, rows)
    expected_gradients = gradients(model, expected)
    if checkpointing:
        model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    if share:
        model.set_attn_implementation(shared_attention.NAME)
    found = together(model, rows, share)
    assert ((found - expected) / expected).abs().max() < tolerance
    for name, gradient in gradients(model, found).items():
        scale = expected_gradients[name].abs().max()
        assert (gradient - expected_gradients[name]).abs().max() < tolerance * scale, name


# Granite and Cohere scale their logits; by these configurations Granite does not, and Cohere by 1 / 16.
SPECIAL: dict[str, dict[str, Any]] = {"granite": {"logits_scaling": 8.0, "attention_multiplier": 0.5}}


@pytest.mark.parametrize("kind", sorted(shared_attention.KNOWN))
def test_every_known_architecture(kind: str) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **SIZES, head_dim=8, **SPECIAL.get(kind, {})))
    assert shared_attention.unsupported(model.config) is None
    shared_attention.register()
    logps.install(model, chunk=7)
    rows = pairs(tuple(range(20, 33)))
    expected = separately(model, rows)
    expected_gradients = gradients(model, expected)
    model.set_attn_implementation(shared_attention.NAME)
    found = together(model, rows, share=True)
    assert ((found - expected) / expected).abs().max() < 1e-4
    for name, gradient in gradients(model, found).items():
        # Below the largest gradient's last digits is noise: a bias of keys has none but that.
        scale = max(float(expected_gradients[name].abs().max()), 1e-3)
        assert (gradient - expected_gradients[name]).abs().max() < 1e-4 * scale, name


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
    """torch's kernel by its documentation, sequence by sequence: [tokens, heads, size], causal at the lower right."""
    assert window_size == (-1, 0)
    assert cu_seq_q.dtype == cu_seq_k.dtype == torch.int32
    assert (cu_seq_q[0], cu_seq_q[-1], cu_seq_k[-1]) == (0, len(query), len(key))
    assert (max_q, max_k) == (cu_seq_q.diff().max(), cu_seq_k.diff().max())
    if enable_gqa:
        key, value = (each.repeat_interleave(query.shape[1] // key.shape[1], 1) for each in (key, value))
    found = []
    for (first, last), (low, high) in zip(pairwise(cu_seq_q.tolist()), pairwise(cu_seq_k.tolist()), strict=True):
        scores = torch.einsum("qhd,khd->hqk", query[first:last], key[low:high]) * (scale or query.shape[-1] ** -0.5)
        hidden = torch.ones(last - first, high - low, dtype=torch.bool).triu(high - low - (last - first) + 1)
        found.append(torch.einsum("hqk,khd->qhd", scores.masked_fill(hidden, -math.inf).softmax(-1), value[low:high]))
    return torch.cat(found)


@pytest.mark.parametrize("start", [(), tuple(range(20, 33))], ids=["", "common"])
@pytest.mark.parametrize("rejected", [True, False], ids=["", "chosen only"])
@pytest.mark.parametrize("build", [llama, qwen3])
def test_one_call_a_layer_gives_the_same_numbers(
    build: Build, rejected: bool, start: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, rows = ready(build, torch.float64), pairs(start)
    model.set_attn_implementation(shared_attention.NAME)
    batch = pack(rows, share=True, rejected=rejected)

    def numbers() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        found = torch.cat(batch.sequence_logps(model(**batch.model_inputs())))
        return found.detach(), gradients(model, found)

    expected, expected_gradients = numbers()
    calls = 0

    def kernel(*args: Any, **more: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return varlen_attn(*args, **more)

    monkeypatch.setattr(shared_attention, "_varlen", lambda device, dtype: kernel)
    found, found_gradients = numbers()
    assert calls == 3  # layers
    assert torch.allclose(found, expected, rtol=1e-9)
    for name, gradient in found_gradients.items():
        assert torch.allclose(gradient, expected_gradients[name], rtol=1e-7, atol=1e-12), name


def test_without_the_rejected_answers() -> None:
    model = ready(llama, torch.float64)
    expected = separately(model, pairs())[: len(pairs())]
    model.set_attn_implementation(shared_attention.NAME)
    batch = pack(pairs(), share=True, rejected=False)
    chosen_B, rejected_B = batch.sequence_logps(model(**batch.model_inputs()))
    assert torch.allclose(chosen_B, expected, rtol=1e-9)
    assert batch.ids_RL.shape[1] == sum(len(pair.prompt_ids) + len(pair.chosen_ids) for pair in pairs())
    assert not rejected_B.any()


def test_the_tails_do_not_see_each_other() -> None:
    model = ready(llama, torch.float64)
    model.set_attn_implementation(shared_attention.NAME)
    one, two = EncodedPair((1, 2), (3, 4, 5), (3, 6, 7)), EncodedPair((1, 2), (3, 40, 50), (3, 6, 7))
    rejected = [batch.sequence_logps(model(**batch.model_inputs()))[1] for batch in (pack([one], share=True),)]
    other = pack([two], share=True)
    assert torch.allclose(other.sequence_logps(model(**other.model_inputs()))[1], rejected[0], rtol=1e-12)


@pytest.mark.parametrize("start", [(), tuple(range(20, 33))], ids=["", "common"])
def test_all_layers_keep_one_mask_a_piece(start: tuple[int, ...]) -> None:
    model = ready(llama, torch.float32)
    model.set_attn_implementation(shared_attention.NAME)
    batch = pack(pairs(start), share=True)
    with torch.inference_mode():  # as the reference is computed: what it leaves must do for training
        model(**batch.model_inputs())
    masks: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.is_floating_point() and bool(tensor.isneginf().any()):
            masks[tensor.data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logps_N = model(**batch.model_inputs())
    logps_N.sum().backward()
    # The rejected tails see their prefix besides; behind a common start, prefix and chosen answer see that.
    assert batch.spans is not None
    hiding = sum(b > 1 for _, _, _, b in batch.spans)  # the mask of one token hides nothing
    assert len(masks) == hiding + (len(batch.spans) if start else 0) > 1


def test_a_row_without_spans_is_refused() -> None:
    model = ready(llama, torch.float32)
    model.set_attn_implementation(shared_attention.NAME)
    with pytest.raises(SpotError, match="requires packed rows"):
        model(input_ids=torch.tensor([[1, 2, 3]]))


def test_what_the_attention_cannot_do_is_refused() -> None:
    some = torch.zeros(1, 2, 3, 4)
    for wrong in ({"dropout": 0.1}, {"s_aux": some}, {"softcap": 1.0}, {"sliding_window": 2}):
        with pytest.raises(SpotError):
            shared_attention.pair_attention(None, some, some, some, None, pair_spans=((0, 1, 2, 0),), **wrong)
    with pytest.raises(SpotError):
        shared_attention.pair_attention(None, some, some, some, some, pair_spans=((0, 1, 2, 0),))


def test_which_models_can() -> None:
    from transformers import AutoConfig, LlamaConfig, MistralConfig, Qwen3Config

    assert shared_attention.unsupported(LlamaConfig()) is None
    assert shared_attention.unsupported(Qwen3Config()) is None
    assert "attention_dropout" in str(shared_attention.unsupported(LlamaConfig(attention_dropout=0.1)))
    assert "gpt2" in str(shared_attention.unsupported(AutoConfig.for_model("gpt2")))
    assert "linear_attention" in str(
        shared_attention.unsupported(Qwen3Config(num_hidden_layers=1, layer_types=["linear_attention"]))
    )
    assert shared_attention.window(LlamaConfig()) is None
    assert shared_attention.window(Qwen3Config()) is None
    assert shared_attention.window(MistralConfig(sliding_window=128)) == 128


SIZES_OF_PAIRS = st.lists(st.integers(1, 50), min_size=1, max_size=60)


def laid(micro: int, accumulate: int, ranks: int) -> Layout:
    return Layout(micro * accumulate * ranks, accumulate, ranks)


@given(SIZES_OF_PAIRS, st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.integers(0, 3))
def test_a_plan_takes_every_pair_once(sizes: list[int], micro: int, accumulate: int, ranks: int, epoch: int) -> None:
    layout = laid(micro, accumulate, ranks)
    assert layout.micro == micro
    plan = list(plan_epoch(sizes, layout=layout, seed=5, epoch=epoch))
    taken = [index for turn in plan for batch in turn if not batch.idle for index in batch.members]
    assert sorted(taken) == list(range(len(sizes)))
    assert len(plan) == layout.rounds_in_epoch(len(sizes))
    for turn in plan:
        assert len(turn) == ranks
        assert all(1 <= len(batch.members) <= micro for batch in turn)


@given(SIZES_OF_PAIRS, st.integers(1, 20), st.integers(1, 3), st.integers(50, 200), st.booleans(), st.integers(1, 3))
def test_no_micro_batch_has_more_tokens_than_its_budget(
    sizes: list[int], step: int, ranks: int, tokens: int, padded: bool, epochs: int
) -> None:
    layout = fit(sizes, step=step, ranks=ranks, limit=TokenLimit(tokens, padded=padded), seed=5, epochs=epochs)
    for epoch in range(epochs):
        plan = list(plan_epoch(sizes, layout=layout, seed=5, epoch=epoch))
        assert len(plan) == layout.rounds_in_epoch(len(sizes))
        rows = [[sizes[at] for at in batch.members] for turn in plan for batch in turn if not batch.idle]
        assert max(len(row) * max(row) if padded else sum(row) for row in rows) <= tokens
        taken = [index for turn in plan for batch in turn if not batch.idle for index in batch.members]
        assert sorted(taken) == list(range(len(sizes)))
        assert steps(sizes, layout, epoch) == steps(sizes, Layout(step, step), epoch)


def test_a_budget_by_hand() -> None:
    # One step of all pairs, the longest first: 50 | 30 20 | 20 10 10 by 60 tokens; two micro-batches would not hold
    # it. Of the three the largest can be as small as 50.
    sizes = [10, 20, 30, 10, 50, 20]
    layout = fit(sizes, step=6, ranks=1, limit=TokenLimit(60, padded=False), seed=0, epochs=1)
    assert (layout.accumulate, layout.micro, layout.rounds_in_epoch(6)) == (3, 2, 3)
    plan = [batch.members for (batch,) in plan_epoch(sizes, layout=layout, seed=0, epoch=0)]
    assert plan == [(4,), (2, 1), (5, 0, 3)]
    # Padded to the longest, 30 20 has 60 tokens and 20 10 10 has 60.
    assert fit(sizes, step=6, ranks=1, limit=TokenLimit(60, padded=True), seed=0, epochs=1).accumulate == 3
    assert fit(sizes, step=6, ranks=1, limit=TokenLimit(59, padded=True), seed=0, epochs=1).accumulate == 4
    # Four ranks run one round, for which the heaviest micro-batch that can be is cut in two: 30 and 20.
    four = fit(sizes, step=6, ranks=4, limit=TokenLimit(60, padded=False), seed=0, epochs=1)
    (turn,) = plan_epoch(sizes, layout=four, seed=0, epoch=0)
    assert [batch.members for batch in turn] == [(4,), (2,), (1,), (5, 0, 3)]
    # Without a plan's fixed number, as for the reference.
    assert micro_batches([4, 2, 1, 5, 0, 3], sizes, layout) == [[4], [2, 1], [5, 0, 3]]
    assert micro_batches([4, 2, 1], sizes, Layout(4, 2)) == [[4, 2], [1]]


def steps(sizes: list[int], layout: Layout, epoch: int = 1) -> list[set[int]]:
    plan = list(plan_epoch(sizes, layout=layout, seed=5, epoch=epoch))
    return [
        {index for turn in plan[at : at + layout.accumulate] for batch in turn if not batch.idle
         for index in batch.members}
        for at in range(0, len(plan), layout.accumulate)
    ]  # fmt: skip


@given(SIZES_OF_PAIRS)
def test_the_same_pairs_meet_in_a_step_however_it_is_laid_out(sizes: list[int]) -> None:
    whole = steps(sizes, laid(12, 1, 1))
    assert steps(sizes, laid(3, 4, 1)) == steps(sizes, laid(3, 2, 2)) == steps(sizes, laid(1, 4, 3)) == whole


def test_epochs_and_seeds_differ() -> None:
    def order(seed: int, epoch: int) -> list[tuple[int, ...]]:
        plan = plan_epoch([1] * 40, layout=Layout(1, 1), seed=seed, epoch=epoch)
        return [turn[0].members for turn in plan]

    assert order(0, 0) == order(0, 0)
    assert len({tuple(order(0, 0)), tuple(order(0, 1)), tuple(order(1, 0))}) == 3
