"""What a model's shapes tell: transformers builds it on the ``meta`` device, which has shapes but no numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from spotcli.errors import UserError
from spotcli.policies import models


@dataclass(frozen=True)
class TokenLimits:
    """What a model accepts."""

    vocabulary: int | None = None
    """Rows of the embedding; None if unknown."""
    positions: int | None = None
    """Positions that the model has embeddings for; None if it computes them."""


def empty_model(name: str) -> Any:
    """A model with shapes but without weights, on the ``meta`` device.

    Raises:
        UserError: the model is not found, or is not a text-only language model.
    """
    import torch
    from transformers import AutoModelForCausalLM

    config, _ = models.load_configs(name)
    build: Any = AutoModelForCausalLM.from_config
    text_only = UserError(
        f"{config.model_type} is not a language model that reads text alone",
        where=name,
        cure="use a model for text, such as a Llama, Qwen, Mistral or SmolLM model, or save the language model alone",
    )
    if config.get_text_config() is not config:
        raise text_only  # the language model is a part beside one for images or sound
    try:
        with torch.device("meta"):
            return build(config, trust_remote_code=False)
    except ValueError:
        raise text_only from None


def token_limits(model: Any) -> TokenLimits:
    """The vocabulary and the learned positions of a model; models with rotary embeddings compute positions."""
    import torch

    embedding = model.get_input_embeddings()
    sizes = [
        module.num_embeddings
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Embedding)
        and module is not embedding
        and any(part in name.rpartition(".")[2] for part in ("wpe", "position"))
    ]
    return TokenLimits(embedding.weight.shape[0], min(sizes, default=None))
