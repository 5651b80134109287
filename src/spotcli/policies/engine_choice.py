"""Which engine answers, and on what: the choice that ``auto`` makes, said in words."""

from __future__ import annotations

import os
import subprocess
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spotcli.recipe import SampleSection


def visible_gpus() -> list[str]:
    """Names of the GPUs that a process of ours may use, as ``CUDA_VISIBLE_DEVICES`` takes them.

    Asked of the driver's own tool: importing torch for it would take seconds.
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


def choose(settings: SampleSection) -> tuple[str, str]:
    """The engine and why it was taken; what the user named is taken as it is."""
    if settings.engine != "auto":
        return settings.engine, "as asked"
    if settings.base_url:
        return "api", "sample.base_url names an endpoint"
    gpus = len(visible_gpus())
    if settings.python and gpus:
        return "vllm", f"sample.python names its interpreter, and {_gpus(gpus)} visible"
    if find_spec("vllm") and gpus:
        return "vllm", f"it is installed, and {_gpus(gpus)} visible"
    if gpus:
        return "transformers", f"{_gpus(gpus)} visible, but vLLM is not installed (sample.python can name where it is)"
    return "transformers", "no GPU is visible"


def _gpus(number: int) -> str:
    return "1 GPU is" if number == 1 else f"{number} GPUs are"
