"""TODO."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from spotcli.policies import Policy, Sampling

if TYPE_CHECKING:
    from spotcli.recipe import SampleSection


def load_policy(engine: str, model: str, sampling: Sampling, settings: SampleSection, *, log: Path) -> Policy:
    """The policy that an engine's name stands for.

    Args:
        log: the output that the answers go to; a worker's log stands beside it.

    Raises:
        UserError: the engine is not there, or the model is not.
    """
    match engine:
        case "vllm":
            from spotcli.policies.vllm import VllmPolicy

            return VllmPolicy(model, sampling, settings, log=log)
        case "api":
            from spotcli.policies.api import ApiPolicy

            return ApiPolicy(model, sampling, settings)
        case _:
            from spotcli.policies.transformers import TransformersPolicy

            return TransformersPolicy(
                model,
                sampling,
                batch_size=settings.batch_size,
                dtype=settings.dtype,
                chat_template_kwargs=settings.chat_template_kwargs,
                thinking=settings.thinking,
            )
