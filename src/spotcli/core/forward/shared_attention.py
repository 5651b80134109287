"""Attention in which two tails share one prefix, registered with transformers as ``spot_pairs``.

A row contains pairs [P A B]: the prefix P once, the chosen tail A, the rejected tail B (see ``packing``). P and A have
ordinary causal attention over [P A]. B attends to the keys of P and, causally, to its own keys, but not to A.

The Llama-like models of transformers 5 pass unknown keyword arguments of ``forward`` to the attention, so models run
unmodified: ``model(..., pair_spans=...)``. This module registers no mask function, so transformers builds no mask. It
therefore rejects rows without spans: their padding would be attended to.

A GPU with torch's varlen attention runs one call per layer, with flash attention (``pin_flash``). This path follows the
documentation of torch and has not run on a GPU yet; the tests replace the kernel by one with the same contract. Other
devices, and float32 on a GPU, run one call per piece of the row. The pieces are the common start, then P, A and B of
each pair.

Shapes, as suffixes of names: C the common start, Q queries of one call, S keys that they attend to.
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

from spotcli.core.forward.packing import Span, upload
from spotcli.errors import SpotError

NAME = "spot_pairs"
"""The name under which transformers knows this attention."""

KNOWN = frozenset({
    "apertus", "arcee", "cohere2", "ernie4_5", "exaone4", "gemma3_text", "glm4", "granite", "hunyuan_v1_dense", "llama",
    "ministral", "ministral3", "mistral", "mixtral", "olmo2", "olmo3", "phi3", "qwen2", "qwen2_moe", "qwen3",
    "qwen3_moe", "smollm3",
})  # fmt: skip
"""Model types whose outputs and gradients the tests compare with two separate forward passes."""

_LAYERS = frozenset({"full_attention", "sliding_attention"})
"""Layer types that can share a prefix. Recurrent layers would carry the state of A into B."""


def unsupported(config: Any) -> str | None:
    """Return the reason why a model cannot share prefixes, as a clause; None if it can.

    Args:
        config: a transformers configuration.
    """
    config = config.get_text_config()
    if config.model_type not in KNOWN:
        return f"the architecture {config.model_type} is not tested with shared prefixes"
    if others := set(getattr(config, "layer_types", None) or ()) - _LAYERS:
        return f"the model has layers without attention ({', '.join(sorted(others))})"
    if any(getattr(config, name, None) for name in ("attn_logit_softcapping", "use_bidirectional_attention")):
        return "the attention of the model is not plain causal attention"
    return None


def window(config: Any) -> int | None:
    """Return the tokens of the model's sliding window; None if it has no sliding window."""
    config = config.get_text_config()
    layers = getattr(config, "layer_types", None)
    if layers is not None and "sliding_attention" not in layers:
        return None
    if getattr(config, "use_sliding_window", True) is False:
        return None
    size: int | None = getattr(config, "sliding_window", None)
    return size


def register() -> None:
    """Enable ``model.set_attn_implementation(NAME)``. Further calls change nothing."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, pair_attention)


def pin_flash() -> None:
    """Keep torch from choosing cuDNN's attention, for this process. Without a GPU nothing changes.

    cuDNN builds a plan for each new shape, and every micro-batch has another one. torch's varlen attention also follows
    this switch in the versions that can run it with cuDNN; on a GH200, a user measured a fifth of the speed of flash
    attention there (pytorch/pytorch#187770).
    """
    torch.backends.cuda.enable_cudnn_sdp(False)


def pair_attention(  # noqa: PLR0913  # transformers calls it with these arguments
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
    """Compute the attention of one layer over a packed row.

    Args:
        module: the layer; unused, part of the interface of transformers.
        query: [1, query heads, tokens, head size], after the rotary embedding.
        key: [1, key heads, tokens, head size].
        value: [1, key heads, tokens, head size].
        attention_mask: must be None.
        pair_spans: the spans of the pairs; they cover the row from ``pair_common`` to its end.
        pair_common: tokens at the start of the row that every pair continues.
        dropout: must be 0.
        scaling: factor on the logits; default 1 / sqrt(head size).
        sliding_window: window of the layer, in tokens; each pair with its longer tail must fit into it.
        others: further arguments of transformers; those that would change the attention must be None.

    Returns:
        The output, [1, tokens, query heads, head size], and None for the attention weights.

    Raises:
        SpotError: the row is not packed, a pair is longer than the window, or an argument is not supported.
    """
    unsupported_arguments = [name for name in ("s_aux", "softcap", "position_bias") if others.get(name) is not None]
    if unsupported_arguments or dropout or attention_mask is not None:
        names = ", ".join(unsupported_arguments) or "a mask or dropout"
        raise SpotError(f"shared-prefix attention does not support {names}")
    if pair_spans is None:
        raise SpotError("shared-prefix attention requires packed rows: pair_spans is missing")
    if sliding_window is not None and any(pair_common + p + max(a, b) > sliding_window for _, p, a, b in pair_spans):
        raise SpotError(f"a pair is longer than the sliding window of {sliding_window} tokens")
    grouped = query.shape[1] != key.shape[1]
    device = query.device.type
    # Under autocast, rotation returns float32 queries and keys beside values in low precision.
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else query.dtype
    # Split once instead of slicing: the gradient of a slice is as long as the row, and each pair has several slices.
    sizes = [pair_common, *(size for _, *parts in pair_spans for size in parts)]
    # The CPU kernels of torch cast every block of bfloat16 to float32, which doubles the time of short pieces.
    inner = torch.promote_types(query.dtype, torch.float32) if device == "cpu" else dtype
    query, key, value = query.to(inner), key.to(inner), value.to(inner)
    if (kernel := _varlen(query.device, inner)) is not None:
        sequences, *bounds = _sequences(tuple(sizes), query.device)
        keys, values = (
            torch.cat([pieces[index] for sequence in sequences for index in sequence], 2)[0].transpose(0, 1)
            for pieces in (torch.split(key, sizes, 2), torch.split(value, sizes, 2))
        )
        groups = {"enable_gqa": grouped} if grouped and _takes_groups(kernel) else {}
        output = kernel(query[0].transpose(0, 1), keys, values, *bounds, scale=scaling, window_size=(-1, 0), **groups)
        return output[None], None
    if grouped and device != "cpu":
        # With fewer key heads, only the kernel that writes all scores to memory computes float32.
        key, value = (tensor.repeat_interleave(query.shape[1] // key.shape[1], 1) for tensor in (key, value))
        grouped = False
    attend = partial(F.scaled_dot_product_attention, scale=scaling, enable_gqa=grouped)
    with torch.autocast(device, enabled=False):
        return _pieces(query, key, value, sizes, attend).to(dtype), None


def _pieces(query: Tensor, key: Tensor, value: Tensor, sizes: list[int], attend: Callable[..., Tensor]) -> Tensor:
    """Call the kernel for the common start, then for P with A and for B of each pair."""
    keys, values = (torch.split(tensor, sizes, 2) for tensor in (key, value))
    masks = iter(_masks(tuple(sizes), query.device, query.dtype))
    calls = [([0], []), *_calls(sizes)] if sizes[0] else [*_calls(sizes)]
    # The queries of a call are neighbours in the row, and need not be joined.
    queries = torch.split(query, [sum(sizes[index] for index in asking) for asking, _ in calls], 2)
    outputs = []
    for query_Q, (asking, before) in zip(queries, calls, strict=True):
        key_S, value_S = (_joined([parts[index] for index in before + asking]) for parts in (keys, values))
        mask = next(masks) if before else None
        outputs.append(attend(query_Q, key_S, value_S, attn_mask=mask, is_causal=mask is None))
    return torch.cat(outputs, 2).transpose(1, 2).contiguous()


def _joined(pieces: list[Tensor]) -> Tensor:
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, 2)


def _calls(sizes: Sequence[int]) -> Iterator[tuple[list[int], list[int]]]:
    """Yield for each call the indices of the pieces that have the queries, and of the pieces before them.

    Before P and A is the common start; before B are the common start and P. Empty pieces are left out of the latter.
    """
    for prefix in range(1, len(sizes), 3):
        chosen, rejected = prefix + 1, prefix + 2
        for asking, before in (([prefix, chosen], [0]), ([rejected], [0, prefix])):
            if any(sizes[index] for index in asking):
                yield asking, [index for index in before if sizes[index]]


@lru_cache(maxsize=1)  # shared by all layers of a micro-batch; otherwise each would keep its own for the backward pass
def _masks(sizes: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> list[Any]:
    """Return the mask of each call that has pieces before its queries, in the order of ``_calls``."""
    shapes = [
        (sum(sizes[index] for index in asking), sum(sizes[index] for index in before + asking))
        for asking, before in _calls(sizes)
        if before
    ]
    with torch.inference_mode(False):
        return [_lower_right(queries, keys, device, dtype) for queries, keys in shapes]


@cache
def _varlen(device: torch.device, dtype: torch.dtype) -> Callable[..., Any] | None:
    """Return torch's varlen attention if the device supports it in this precision, else None."""
    if device.type != "cuda" or dtype not in (torch.bfloat16, torch.float16):
        return None
    if torch.cuda.get_device_capability(device) < (8, 0):
        return None
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    # The first versions have another argument for causal attention.
    required = {"window_size", "scale"}
    return varlen_attn if required <= inspect.signature(varlen_attn).parameters.keys() else None


@cache
def _takes_groups(kernel: Callable[..., Any]) -> bool:
    """Whether the kernel must be told that there are fewer key heads than query heads; that of torch 2.11 need not."""
    return "enable_gqa" in inspect.signature(kernel).parameters


@lru_cache(maxsize=8)  # all layers of a micro-batch have the same sizes
def _sequences(sizes: tuple[int, ...], device: torch.device) -> tuple[list[tuple[int, ...]], Tensor, Tensor, int, int]:
    """Describe a packed row as sequences for varlen attention, causal at the lower right.

    The sequences are, in the order of the row: the common start, then P with A and B of each pair.

    Args:
        sizes: tokens of the common start, then of P, A and B of each pair.
        device: device of the bounds.

    Returns:
        The indices of the pieces whose keys each sequence attends to; the bounds of queries and of keys, each
        [sequences + 1]; the longest sequence of queries and of keys.
    """
    asking = [(0,), *(part for prefix in range(1, len(sizes), 3) for part in ((prefix, prefix + 1), (prefix + 2,)))]
    before = [(), *(part for prefix in range(1, len(sizes), 3) for part in ((0,), (0, prefix)))]
    queries = [sum(sizes[index] for index in part) for part in asking]
    occupied = [index for index, tokens in enumerate(queries) if tokens]
    attended = [before[index] + asking[index] for index in occupied]
    keys = [sum(sizes[index] for index in part) for part in attended]
    with torch.inference_mode(False):  # training uses them too
        bounds = [
            upload(torch.tensor([0, *accumulate(lengths)], dtype=torch.int32), device)
            for lengths in ([queries[index] for index in occupied], keys)
        ]
    return attended, bounds[0], bounds[1], max(queries), max(keys)


def _lower_right(queries: int, keys: int, device: torch.device, dtype: torch.dtype) -> Any:
    """Return a mask that is causal at the lower right: queries attend to all earlier keys and causally to their own.

    ``is_causal`` of torch would align at the upper left.
    """
    if device.type == "cuda":
        from torch.nn.attention.bias import causal_lower_right

        return causal_lower_right(queries, keys)
    # An additive mask, because each call would convert a boolean mask and keep the result.
    return torch.full((queries, keys), -torch.inf, dtype=dtype, device=device).triu(keys - queries + 1)
