"""Attention in which two tails share one prefix, registered with transformers as ``spot_pairs``.

A row holds pairs [P A B]: the prefix P once, the chosen tail A, the rejected tail B (see ``core.packing``). P and A are
ordinary causal attention over [P A]. B attends to the keys of P and, causally, to its own; never to A.

Every Llama-like model of transformers 5 hands unknown keyword arguments of its forward down to the attention, so the
models run unmodified: ``model(..., pair_spans=...)``. No mask function is registered on purpose: transformers then
builds no mask, and would not know how. For the same reason this attention refuses rows without spans: padding would
be attended to without a word.

On a GPU that has it, one call of torch's varlen attention does a layer (written to its documentation, and not run on a
GPU yet: the tests put a kernel of the same contract in its place). Everywhere else it is one call for each piece.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from functools import cache, lru_cache, partial
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from spotcli.core.forward.packing import Span
from spotcli.errors import SpotError

NAME = "spot_pairs"

# Models that the tests run against two separate forward passes, numbers and gradients.
KNOWN = frozenset({
    "apertus", "arcee", "cohere2", "ernie4_5", "exaone4", "gemma3_text", "glm4", "granite", "hunyuan_v1_dense", "llama",
    "ministral", "ministral3", "mistral", "mixtral", "olmo2", "olmo3", "phi3", "qwen2", "qwen2_moe", "qwen3",
    "qwen3_moe", "smollm3",
})  # fmt: skip
_DROPOUTS = ("attention_dropout", "resid_pdrop", "embd_pdrop")
# Recurrent layers carry A's state into B, and no mask can stop them.
_LAYERS = frozenset({"full_attention", "sliding_attention"})


def unsupported(config: Any) -> str | None:
    """Why a model cannot share prefixes, as the end of a sentence; None where it can.

    Args:
        config: a transformers configuration.
    """
    config = config.get_text_config()
    if config.model_type not in KNOWN:
        return f"the architecture {config.model_type} has not been checked for it"
    strange = set(getattr(config, "layer_types", None) or ()) - _LAYERS
    if strange:
        return f"it has layers that are not attention ({', '.join(sorted(strange))})"
    if dropouts := [name for name in _DROPOUTS if getattr(config, name, None)]:
        return f"{dropouts[0]} is not 0, and shared tokens would share one draw"
    if any(getattr(config, name, None) for name in ("attn_logit_softcapping", "use_bidirectional_attention")):
        return "its attention is not plain causal attention"
    return None


def window(config: Any) -> int | None:
    """Tokens that the model's shortest sliding window sees; None where it has none."""
    config = config.get_text_config()
    layers = getattr(config, "layer_types", None)
    if layers is not None and "sliding_attention" not in layers:
        return None
    if getattr(config, "use_sliding_window", True) is False:
        return None
    size: int | None = getattr(config, "sliding_window", None)
    return size


def register() -> None:
    """Make ``model.set_attn_implementation(NAME)`` possible. Calling it again changes nothing."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, pair_attention)


def pair_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    pair_spans: tuple[Span, ...] | None = None,
    pair_common: int = 0,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """The attention of one layer over a packed row.

    Args:
        module: the layer; unused, part of transformers' interface.
        query: [1, query heads, tokens, head size]; positions are rotated in already.
        key: [1, key heads, tokens, head size].
        value: [1, key heads, tokens, head size].
        attention_mask: must be absent.
        pair_spans: where the pairs are; they cover the row from ``pair_common`` to its end.
        pair_common: tokens at the row's start that every pair continues.
        dropout: must be 0.
        scaling: of the logits; 1 / sqrt(head size) when absent.
        sliding_window: the layer's, which must hold each pair's longer side.
        others: what transformers also passes; whatever would change the attention must be None.

    Returns:
        [1, tokens, query heads, head size], and no weights.

    Raises:
        SpotError: something is asked for that this attention does not do.
    """
    odd = [name for name in ("s_aux", "softcap", "position_bias") if others.get(name) is not None]
    if odd or dropout or attention_mask is not None:
        raise SpotError(f"shared-prefix attention cannot do this: {odd or 'a mask or dropout'}")
    if pair_spans is None:
        raise SpotError("shared-prefix attention met a row that is not packed")
    if sliding_window is not None and any(pair_common + p + max(a, b) > sliding_window for _, p, a, b in pair_spans):
        raise SpotError(f"a pair is longer than the sliding window of {sliding_window} tokens")
    grouped = query.shape[1] != key.shape[1]
    # One split and no slices: the gradient of a slice is as long as the row, and there are several for each pair.
    sizes = [pair_common, *(size for _, *parts in pair_spans for size in parts)]
    if (kernel := _varlen(query.device, query.dtype)) is not None:
        sequences, *bounds = _sequences(tuple(sizes), query.device)
        keys, values = (
            torch.cat([pieces[at] for seen in sequences for at in seen], 2)[0].transpose(0, 1)
            for pieces in (torch.split(key, sizes, 2), torch.split(value, sizes, 2))
        )
        found = kernel(
            query[0].transpose(0, 1), keys, values, *bounds, scale=scaling, window_size=(-1, 0), enable_gqa=grouped
        )
        return found[None], None
    attend = partial(F.scaled_dot_product_attention, scale=scaling, enable_gqa=grouped)
    if query.device.type != "cpu":
        return _pieces(query, key, value, sizes, attend), None
    # torch's kernels for CPUs turn every block of bfloat16 into float32: short pieces take twice as long so.
    wanted = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else query.dtype
    exact = torch.promote_types(query.dtype, torch.float32)
    with torch.autocast("cpu", enabled=False):
        return _pieces(query.to(exact), key.to(exact), value.to(exact), sizes, attend).to(wanted), None


def _pieces(query: Tensor, key: Tensor, value: Tensor, sizes: list[int], attend: Callable[..., Tensor]) -> Tensor:
    """A call of the kernel for each piece: the common start, of each pair P with A, and B."""
    pieces = [torch.split(each, sizes, 2) for each in (query, key, value)]
    masks = iter(_masks(tuple(sizes), query.device, query.dtype))
    outputs = []
    if sizes[0]:
        query_C, key_C, value_C = (each[0] for each in pieces)
        outputs.append(attend(query_C, key_C, value_C, is_causal=True))
    for asking, before in _asked(sizes):
        query_Q = torch.cat([pieces[0][at] for at in asking], 2)
        key_S, value_S = (torch.cat([each[at] for at in before + asking], 2) for each in pieces[1:])
        if before:
            outputs.append(attend(query_Q, key_S, value_S, attn_mask=next(masks)))
        else:
            outputs.append(attend(query_Q, key_S, value_S, is_causal=True))
    return torch.cat(outputs, 2).transpose(1, 2).contiguous()


def _asked(sizes: Sequence[int]) -> Iterator[tuple[list[int], list[int]]]:
    """Of each pair who asks, and what is seen beside that: the common start; of B, also the pair's prefix."""
    for prefix in range(1, len(sizes), 3):
        chosen, rejected = prefix + 1, prefix + 2
        for asking, before in (([prefix, chosen], [0]), ([rejected], [0, prefix])):
            if any(sizes[at] for at in asking):
                yield asking, [at for at in before if sizes[at]]


@lru_cache(maxsize=1)  # one for all layers of a micro-batch: each would keep its own for the backward pass
def _masks(sizes: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> list[Any]:
    """Of whoever sees more than those who ask, in the order of ``_asked``."""
    shapes = [
        (sum(sizes[at] for at in asking), sum(sizes[at] for at in before + asking))
        for asking, before in _asked(sizes)
        if before
    ]
    with torch.inference_mode(False):
        return [_lower_right(queries, keys, device, dtype) for queries, keys in shapes]


@cache
def _varlen(device: torch.device, dtype: torch.dtype) -> Callable[..., Any] | None:
    """torch's varlen attention, where the device computes it in this precision; None elsewhere."""
    if device.type != "cuda" or dtype not in (torch.bfloat16, torch.float16):
        return None
    if torch.cuda.get_device_capability(device) < (8, 0):
        return None
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    # The first versions had another way to ask for causal attention.
    wanted = {"window_size", "enable_gqa", "scale"}
    return varlen_attn if wanted <= inspect.signature(varlen_attn).parameters.keys() else None


@lru_cache(maxsize=8)  # all layers of a micro-batch ask for the same
def _sequences(sizes: tuple[int, ...], device: torch.device) -> tuple[list[tuple[int, ...]], Tensor, Tensor, int, int]:
    """A packed row as sequences, whose queries see all keys before their last ones (causal at the lower right).

    Args:
        sizes: tokens of the common start, then of P, A and B of each pair.
        device: of the bounds.

    Returns:
        Of each sequence the pieces whose keys it sees; the bounds of queries and of keys, [sequences + 1]; the longest
        of each. In the row's order: the common start, then of each pair P with A, and B.
    """
    asking = [(0,), *(part for at in range(1, len(sizes), 3) for part in ((at, at + 1), (at + 2,)))]
    before = [(), *(part for at in range(1, len(sizes), 3) for part in ((0,), (0, at)))]
    queries = [sum(sizes[at] for at in part) for part in asking]
    there = [at for at, number in enumerate(queries) if number]
    seen = [before[at] + asking[at] for at in there]
    keys = [sum(sizes[at] for at in part) for part in seen]
    bounds = [
        torch.tensor([0, *accumulate(numbers)], dtype=torch.int32, device=device)
        for numbers in ([queries[at] for at in there], keys)
    ]
    return seen, bounds[0], bounds[1], max(queries), max(keys)


def _lower_right(queries: int, keys: int, device: torch.device, dtype: torch.dtype) -> Any:
    """Causal among the last ``queries`` keys, and all earlier ones seen; ``is_causal`` would align at the top left."""
    if device.type == "cuda":
        from torch.nn.attention.bias import causal_lower_right

        return causal_lower_right(queries, keys)
    # To be added to the logits: of a mask in booleans, each call would make and keep this.
    return torch.full((queries, keys), -torch.inf, dtype=dtype, device=device).triu(keys - queries + 1)
