"""Choose the engine that ``sample.engine: auto`` stands for."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spotcli.recipe import SampleSection


@dataclass(frozen=True)
class EngineChoice:
    """An engine, and why it was chosen."""

    name: str
    reason: str


def choose_engine(settings: SampleSection) -> EngineChoice:
    """The engine that the user set, else the fastest one available."""
    if settings.engine != "auto":
        return EngineChoice(settings.engine, "set by sample.engine")
    if settings.base_url:
        return EngineChoice("api", "sample.base_url is set")
    gpus = len(visible_gpus())
    visible = "1 GPU is visible" if gpus == 1 else f"{gpus} GPUs are visible"
    if not gpus:
        return EngineChoice("transformers", "no GPU is visible")
    if settings.python:
        return EngineChoice("vllm", f"sample.python is set and {visible}")
    if find_spec("vllm"):
        return EngineChoice("vllm", f"vLLM is installed and {visible}")
    return EngineChoice(
        "transformers", f"{visible}, but vLLM is not installed (sample.python can name an interpreter that has it)"
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
