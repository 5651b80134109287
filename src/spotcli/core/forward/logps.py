"""Log-probabilities of given tokens without the [tokens, vocabulary] matrix of logits.

Shapes, as suffixes of names:

    N   scored positions: those whose next token belongs to an answer
    M   scored positions whose probabilities are kept for the backward pass; a whole number of chunks
    C   positions of one chunk
    H   hidden size
    V   vocabulary

Only scored positions are run through the head, one chunk at a time, with logits in float32 (float64 for a float64
model). The backward pass needs the probabilities of each chunk. The first ``KEEP`` bytes of them are kept, in the
precision of the model's products; for the other chunks the logits are computed again. Memory is therefore chunk * V
plus a constant instead of N * V. Autograd alone would need 2 * N * V, because it keeps the softmax and the logits.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import pairwise
from types import MethodType
from typing import Any

import torch
from torch import Tensor

from spotcli.core.forward.rounded_weights import OPERAND
from spotcli.errors import UserError

CHUNK = 128
"""Positions per chunk: about 75 MB of float32 logits with a vocabulary of 150,000. With 49,000, they stay below the
32 MB from which glibc maps fresh memory for each tensor."""

GPU_CHUNK = 1024
"""Positions per chunk on a GPU. Each chunk adds its part to the gradient of the head, which moves 10 GB at 8B sizes;
with few positions that would take longer than the products."""

KEEP = 256 << 20
"""Most bytes of probabilities that are kept for the backward pass. For short answers this is enough for all."""

_LOGIT_CHANGES = (
    "final_logit_softcapping",
    "logits_soft_cap",
    "output_multiplier_scale",
)
"""Settings of models that change their logits after the head; a head that is called separately does not apply them."""


class _TokenLogps(torch.autograd.Function):
    """log p(target | hidden) = logit[target] - logsumexp(logits), without keeping the logits for the backward pass."""

    @staticmethod
    def forward(
        ctx: Any, hidden_NH: Tensor, weight_VH: Tensor, bias_V: Tensor | None, targets_N: Tensor, chunk: int
    ) -> Tensor:
        low = _low_precision(hidden_NH)
        exact = torch.promote_types(hidden_NH.dtype, torch.float32)
        products = _compute_dtype(hidden_NH)
        logps_N = torch.empty(len(hidden_NH), dtype=exact, device=hidden_NH.device)
        totals_N = torch.empty_like(logps_N)
        head_VH = weight_VH.to(low or exact)
        kept = KEEP // (len(weight_VH) * (products or exact).itemsize) if any(ctx.needs_input_grad) else 0
        kept = len(hidden_NH) if kept >= len(hidden_NH) else kept // chunk * chunk
        others_MV = torch.empty(kept, len(weight_VH), dtype=products or exact, device=hidden_NH.device)
        for start in range(0, len(hidden_NH), chunk):
            part = slice(start, start + chunk)
            logits_CV = head_logits(hidden_NH[part], head_VH, bias_V, exact)
            target_C = logits_CV.gather(1, targets_N[part, None])[:, 0]
            most_C = logits_CV.amax(1)
            sum_C = logits_CV.sub_(most_C[:, None]).exp_().sum(1)
            totals_N[part] = most_C + sum_C.log()
            logps_N[part] = target_C - totals_N[part]
            if start < kept:
                others_MV[part] = logits_CV.div_(sum_C[:, None]).scatter_(1, targets_N[part, None], 0.0)
        ctx.save_for_backward(hidden_NH, weight_VH, bias_V, targets_N, totals_N, logps_N, others_MV)
        ctx.chunk, ctx.low, ctx.exact, ctx.products = chunk, low, exact, products
        return logps_N

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        (grad_N,) = grads
        hidden_NH, weight_VH, bias_V, targets_N, totals_N, logps_N, others_MV = ctx.saved_tensors
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        device = hidden_NH.device
        grad_hidden_NH = torch.empty_like(hidden_NH) if needs_hidden else None
        grad_weight_VH = grad_bias_V = None
        with torch.autocast(device.type, enabled=False):
            # Only logits need float32; gradients are rounded as in every other layer.
            factor_VH = weight_VH.to(ctx.products or ctx.exact)
            kept = len(others_MV)
            head_VH = weight_VH.to(ctx.low or ctx.exact) if kept < len(hidden_NH) else factor_VH
            bounds = [*([0] if kept else []), *range(kept, len(hidden_NH), ctx.chunk), len(hidden_NH)]
            for part in (slice(*bound) for bound in pairwise(bounds)):
                # d logp / d logit_v = [v is the target] - p_v. 1 - p of the target is computed separately, because it
                # would be 0 for a probable token if p were rounded first.
                grad_C = grad_N[part].to(ctx.exact)
                target_C = grad_C * -torch.expm1(logps_N[part])
                if part.stop <= kept:
                    others_CV = others_MV
                else:
                    exact_CV = (
                        head_logits(hidden_NH[part], head_VH, bias_V, ctx.exact).sub_(totals_N[part, None]).exp_()
                    )
                    others_CV = exact_CV.scatter_(1, targets_N[part, None], 0.0).to(factor_VH.dtype)
                if grad_hidden_NH is not None:
                    away_CH = torch.mm(others_CV, factor_VH).to(ctx.exact).mul_(grad_C[:, None])
                    to_CH = weight_VH[targets_N[part]].to(ctx.exact).mul_(target_C[:, None])
                    grad_hidden_NH[part] = to_CH.sub_(away_CH)
                if needs_weight:
                    hidden_CH = hidden_NH[part].to(ctx.exact)
                    factor_CH = (hidden_CH * -grad_C[:, None]).to(factor_VH.dtype)
                    out_dtype = {} if ctx.low is None else {"out_dtype": ctx.exact}
                    part_VH = torch.mm(others_CV.t(), factor_CH, **out_dtype).to(ctx.exact)
                    grad_weight_VH = part_VH if grad_weight_VH is None else grad_weight_VH.add_(part_VH)
                    grad_weight_VH.index_add_(0, targets_N[part], hidden_CH * target_C[:, None])
                if needs_bias:
                    part_V = torch.mv(others_CV.to(ctx.exact).t(), -grad_C).index_add_(0, targets_N[part], target_C)
                    grad_bias_V = part_V if grad_bias_V is None else grad_bias_V.add_(part_V)
        return (
            grad_hidden_NH,
            grad_weight_VH.to(weight_VH.dtype) if grad_weight_VH is not None else None,
            grad_bias_V.to(bias_V.dtype) if grad_bias_V is not None and bias_V is not None else None,
            None,
            None,
        )


def _low_precision(hidden_NH: Tensor) -> torch.dtype | None:
    """Return bf16 or fp16 if the device can multiply such operands into float32; None if operands are cast to float32.

    A CPU would round such a product to bf16, an error of about one nat on a long answer.
    """
    return _compute_dtype(hidden_NH) if hidden_NH.device.type == "cuda" else None


def _compute_dtype(hidden_NH: Tensor) -> torch.dtype | None:
    """Return bf16 or fp16 if the model computes in it, else None."""
    device = hidden_NH.device.type
    if torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return hidden_NH.dtype if hidden_NH.dtype in (torch.bfloat16, torch.float16) else None


def head_logits(hidden_CH: Tensor, head_VH: Tensor, bias_V: Tensor | None, exact: torch.dtype) -> Tensor:
    """Return the logits of a linear head, [C, V], in the precision ``exact``.

    Args:
        hidden_CH: hidden states.
        head_VH: the weight, in ``exact`` or in a lower precision whose products the device can sum up in ``exact``.
        bias_V: the bias, if the head has one.
        exact: float32 or float64.
    """
    with torch.autocast(hidden_CH.device.type, enabled=False):
        operand_CH = hidden_CH.to(head_VH.dtype)
        if head_VH.dtype == exact:
            product = _onednn_product() if _fits_onednn(operand_CH, head_VH) else None
            logits_CV = product(operand_CH, head_VH) if product else torch.mm(operand_CH, head_VH.t())
        else:
            logits_CV = torch.mm(operand_CH, head_VH.t(), out_dtype=exact)
        return logits_CV if bias_V is None else logits_CV.add_(bias_V.to(exact))


def _fits_onednn(operand_CH: Tensor, head_VH: Tensor) -> bool:
    """Whether oneDNN's product is defined here: for float32 on a CPU, without a gradient."""
    return (
        (operand_CH.device.type, operand_CH.dtype) == ("cpu", torch.float32)
        and not torch.is_grad_enabled()
        and operand_CH.is_contiguous()
        and head_VH.is_contiguous()
    )


@cache
def _onednn_product() -> Callable[[Tensor, Tensor], Tensor] | None:
    """Return oneDNN's product of hidden states and the transposed head; None if this torch or processor lacks it.

    torch multiplies float32 matrices with MKL. On an AMD processor with AVX-512, oneDNN was twice as fast.
    """
    available = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if not available or torch.backends.cpu.get_cpu_capability() != "AVX512":
        return None
    operation = getattr(torch.ops.mkldnn, "_linear_pointwise", None)  # not public; torch.compile calls it
    if operation is None:
        return None
    return lambda operand_CH, head_VH: operation(operand_CH, head_VH, None, "none", [], "")


def token_logps(
    hidden_NH: Tensor, weight_VH: Tensor, targets_N: Tensor, *, bias_V: Tensor | None = None, chunk: int = CHUNK
) -> Tensor:
    """Return log p(targets[n] | hidden[n]) under a linear head, [N], in nats, float32 (float64 for float64 input).

    Args:
        hidden_NH: the last hidden states of the model at the scored positions.
        weight_VH: the weight of the head.
        targets_N: token ids.
        bias_V: the bias of the head, if it has one.
        chunk: positions whose logits are in memory at once.
    """
    logps_N: Tensor = _TokenLogps.apply(hidden_NH, weight_VH, bias_V, targets_N, chunk)  # type: ignore[no-untyped-call]
    return logps_N


def check(model: Any) -> None:
    """Check that the log-probabilities of a causal language model can be computed from its output layer alone.

    Args:
        model: a transformers causal language model; its weights are not read.

    Raises:
        UserError: the model changes its logits after the output layer, or has no linear output layer.
    """
    config = model.config.get_text_config()
    changed = [name for name in _LOGIT_CHANGES if getattr(config, name, None) not in (None, 1, 1.0)]
    head = model.get_output_embeddings()
    if changed or not isinstance(head, torch.nn.Linear) or model.base_model is model:
        why = f"the model sets {', '.join(changed)}" if changed else "the head is not a linear layer"
        raise UserError(
            f"cannot compute log-probabilities of a {config.model_type} model from its head alone: {why}",
            cure="use a Llama, Qwen, Mistral or SmolLM model",
        )


def unsupported_head(head: Any) -> str | None:
    """Return why log-probabilities cannot be computed with peft's wrapper of an output layer; None if they can.

    Args:
        head: the output layer after peft has added its adapters.
    """
    if hasattr(head, "lora_A"):
        variants = [*getattr(head, "lora_variant", {}).values()]
        bias = any(getattr(head, "lora_bias", {}).values())
        return "the adapter of the output layer must be plain LoRA" if variants or bias else None
    if isinstance(head, torch.nn.Linear) or hasattr(head, "modules_to_save"):
        return None
    return f"the output layer cannot be a {type(head).__name__}"


def install(model: Any, *, chunk: int | None = None) -> None:
    """Add scoring to a causal language model: ``model(..., rows_N=..., targets_N=...) -> logps_N``.

    ``rows_N`` are positions in the flattened [batch * length] input. The result is the log-probability of
    ``targets_N``, the tokens after these positions. Without ``rows_N`` the model behaves as before. Adapters that peft
    adds to the output layer later count.

    Scoring runs inside ``lm_head.forward``, because under ZeRO-3 the weight of the head is only gathered there.

    Args:
        model: a transformers causal language model, not yet wrapped by peft, DDP or DeepSpeed.
        chunk: positions whose logits are in memory at once; by default ``CHUNK`` or, on a GPU, ``GPU_CHUNK``.

    Raises:
        UserError: the model changes its logits after the head, or has no linear head.
    """
    check(model)
    config = model.config.get_text_config()
    head = model.get_output_embeddings()
    # Cohere models multiply their logits by a number; Granite models divide them.
    scale = (getattr(config, "logit_scale", None) or 1.0) / (getattr(config, "logits_scaling", None) or 1.0)
    plain_model = model.forward

    def head_forward(
        self: Any, hidden: Tensor, targets_N: Tensor | None = None, change_VH: Tensor | None = None
    ) -> Any:
        if targets_N is None:
            return type(self).forward(self, hidden)
        bias_V = self.bias
        weight_VH = self.weight if change_VH is None else self.weight + change_VH
        if scale != 1:
            hidden, bias_V = hidden * scale, None if bias_V is None else bias_V * scale
        low = _low_precision(hidden)
        if low is not None and (operand := getattr(self, OPERAND, None)) is not None:
            weight_VH = operand(weight_VH, low)
        size = chunk or (GPU_CHUNK if hidden.device.type == "cuda" else CHUNK)
        return token_logps(hidden, weight_VH, targets_N, bias_V=bias_V, chunk=size)

    def model_forward(
        self: Any, *args: Any, rows_N: Tensor | None = None, targets_N: Tensor | None = None, **kwargs: Any
    ) -> Any:
        if rows_N is None:
            return plain_model(*args, **kwargs)
        hidden = self.base_model(*args, use_cache=False, **kwargs).last_hidden_state
        scored_NH = hidden.flatten(0, 1).index_select(0, rows_N)
        current = self.get_output_embeddings()
        if hasattr(current, "lora_A"):
            # peft's wrapper adds the adapter's output to that of the layer, which is a log-probability here.
            change_VH = sum(current.get_delta_weight(name) for name in current.active_adapters)
            change_VH = None if current.disable_adapters else change_VH
            return current.get_base_layer()(scored_NH, targets_N=targets_N, change_VH=change_VH)
        return current(scored_NH, targets_N=targets_N)

    head.forward = MethodType(head_forward, head)
    model.forward = MethodType(model_forward, model)
