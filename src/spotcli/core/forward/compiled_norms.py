"""Norms as one kernel each, by torch.compile.

The norms of transformers are five or six operations on float32 copies of the states, each of which reads and writes
whole tensors. A norm has no size that changes but the number of tokens, so it is compiled once for all micro-batches; a
whole layer would be compiled again for each new row of pairs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def install(model: Any, *, backend: str | Callable[..., Any] = "inductor") -> int:
    """Compile the norms of a model in place; names and weights stay as they are.

    Args:
        model: a transformers causal language model, not yet wrapped by peft, DDP or FSDP.
        backend: of torch.compile.

    Returns:
        The number of norms.
    """
    norms = [module for module in model.modules() if type(module).__name__.endswith(("RMSNorm", "LayerNorm"))]
    for norm in norms:
        norm.compile(dynamic=True, backend=backend)
    return len(norms)
