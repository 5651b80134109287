"""Choose the engine that ``engine: auto`` stands for in a section of the recipe."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spotcli.recipe import EngineSection


@dataclass(frozen=True)
class EngineChoice:
    """An engine, and why it was chosen."""

    name: str
    reason: str


def choose_engine(settings: EngineSection, *, is_local: bool = False) -> EngineChoice:
    """The engine that the user set, else the fastest one available.

    Args:
        settings: a section of the recipe.
        is_local: the model is known to be in a local folder, so that an endpoint does not have it by this name.
    """
    key = settings.key
    if settings.engine != "auto":
        return EngineChoice(settings.engine, f"set by {key}.engine")
    if settings.base_url and not is_local:
        return EngineChoice("api", f"{key}.base_url is set")
    choice = _local_engine(settings)
    if settings.base_url:
        reason = f"the model is a local folder, so {key}.base_url is not used; {choice.reason}"
        return EngineChoice(choice.name, reason)
    return choice


def _local_engine(settings: EngineSection) -> EngineChoice:
    key = settings.key
    gpus = len(visible_gpus())
    visible = "1 GPU is visible" if gpus == 1 else f"{gpus} GPUs are visible"
    if not gpus:
        return EngineChoice("transformers", "no GPU is visible")
    if settings.python:
        return EngineChoice("vllm", f"{key}.python is set and {visible}")
    if find_spec("vllm"):
        return EngineChoice("vllm", f"vLLM is installed and {visible}")
    return EngineChoice(
        "transformers", f"{visible}, but vLLM is not installed ({key}.python can name an interpreter that has it)"
    )


def visible_gpus() -> list[str]:
    """Names of the GPUs that a process may use, in the form of ``CUDA_VISIBLE_DEVICES``.

    Without that variable, nvidia-smi lists them: importing torch for this would take seconds.
    """
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip() not in ("", "-1")]
    try:
        listed = subprocess.run(
            ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return listed.stdout.split()
