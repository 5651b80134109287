"""The GPUs of this machine, and how a model of some size is trained and sampled on them.

Memory is estimated from the number of weights alone, without importing torch: ``spot train --dry-run`` computes it from
the model's configuration and the pairs.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from spotcli.errors import SpotError
from spotcli.jsonl import read_json
from spotcli.policies.engine_choice import visible_gpus

GIB = 2**30
SMALL = 0.5
"""Billions of weights that a CPU trains in minutes."""
BATCH = 32
"""Pairs per training step, if the GPUs divide it."""


@dataclass(frozen=True)
class Hardware:
    """GPUs of one kind."""

    gpus: int = 0
    memory: float = 0.0
    """GiB per GPU; 0 if unknown."""
    assumed: bool = False
    """They are those of the template or of an option, and not seen on this machine."""

    def __str__(self) -> str:
        if not self.gpus:
            return "no GPU"
        memory = f" of {self.memory:.0f} GB" if self.memory else ""
        return f"{self.gpus} GPU{'s' if self.gpus > 1 else ''}{memory}"


@dataclass(frozen=True)
class Line:
    """A setting with its reason: a line of the recipe."""

    key: str
    value: str
    reason: str


def detect() -> Hardware:
    """Return the GPUs that this process may use, with the memory of the smallest one."""
    visible = visible_gpus()
    if not visible:
        return Hardware()
    try:
        command = ["nvidia-smi", "--query-gpu=index,uuid,memory.total", "--format=csv,noheader,nounits"]
        listed = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return Hardware(len(visible))
    rows = [[cell.strip() for cell in line.split(",")] for line in listed.splitlines() if line.count(",") == 2]
    sizes = [float(mib) / 1024 for *names, mib in rows if {*names} & {*visible} and mib.replace(".", "").isdigit()]
    return Hardware(len(visible), min(sizes, default=0.0))


def billions_of(model: str) -> float | None:
    """Return the weights of a model in billions, from its files or from its name (``Qwen3-8B``); None if unknown."""
    folder = Path(model).expanduser()
    if folder.is_dir():
        size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
        if size:
            return size / _bytes_per_weight(folder) / 1e9
    match = re.search(r"(?:(\d{1,3})x)?(\d{1,4}(?:\.\d{1,3})?)([bm])(?![a-z])", model.rpartition("/")[2].lower())
    if match is None:
        return None
    return int(match[1] or 1) * float(match[2]) / (1 if match[3] == "b" else 1000)


def _bytes_per_weight(folder: Path) -> int:
    try:
        config = read_json(folder / "config.json")
    except SpotError:
        return 2
    return 4 if "float32" in (config.get("dtype"), config.get("torch_dtype")) else 2


def full_memory(billions: float, gpus: int, sharding: str) -> float:
    """Estimated GiB per GPU to train all weights with checkpointed activations: ``none``, ``zero2`` or ``fsdp``."""
    per_weight = {"none": 18.0, "zero2": 2 + 18 / gpus, "fsdp": 16 / gpus}[sharding]
    buckets = 1.0 if sharding == "zero2" else 0.0
    return billions * 1e9 * per_weight / GIB + buckets + 2 + 1.2 * billions


def adapter_memory(billions: float, *, quantized: bool = False) -> float:
    """Estimated GiB per GPU to train LoRA adapters with checkpointed activations."""
    return billions * 1e9 * (0.8 if quantized else 2) / GIB + 2 + 0.6 * billions


def training_lines(hardware: Hardware, billions: float | None, *, prefer_lora: bool = False) -> list[Line]:
    """Return the settings of ``train`` that depend on the hardware, each with its reason.

    Args:
        hardware: the GPUs.
        billions: the weights of the model; None if unknown.
        prefer_lora: train adapters even if all weights fit.
    """
    gpus, memory = hardware.gpus, hardware.memory
    if not gpus and billions is not None and billions <= SMALL:
        return [Line("per_device_train_batch_size", "16", "pairs per micro-batch; the model is small")]
    steps = [
        Line("batch_size", str(-(-BATCH // max(gpus, 1)) * max(gpus, 1)), "pairs per training step, over all GPUs"),
        Line("per_device_train_batch_size", "1", "pairs per micro-batch: the smallest memory"),
        Line("gradient_checkpointing", "true", "activations are computed twice instead of kept"),
    ]
    processes = [Line("processes", str(gpus), "one per GPU")] if gpus > 1 else []
    if billions is not None and memory and not prefer_lora:
        for sharding in ("zero2", "fsdp") if gpus > 1 else ("none",):
            needed = full_memory(billions, gpus, sharding)
            if needed <= memory:
                return [
                    *_sharding(sharding, f"{needed:.0f} of {memory:.0f} GB per GPU"),
                    *processes,
                    *steps,
                    _rate(1e-6),
                ]
    return [*_adapters(hardware, billions), *processes, *steps, _rate(1e-5)]


def _sharding(sharding: str, memory: str) -> list[Line]:
    if sharding == "zero2":
        return [Line("zero", "2", f"all weights are trained; ZeRO-2 fits: about {memory}")]
    if sharding == "fsdp":
        return [Line("fsdp", "true", f"all weights are trained; ZeRO-2 does not fit, FSDP2 does: about {memory}")]
    return [Line("lora", "null", f"all weights are trained: about {memory}")]


def _adapters(hardware: Hardware, billions: float | None) -> list[Line]:
    """LoRA or QLoRA."""
    lora = "{r: 16, alpha: 32, target_modules: all-linear}"
    if billions is None or not hardware.memory:
        unknown = "the model's size" if billions is None else "the GPU's memory"
        return [Line("lora", lora, f"{unknown} is not known here, and adapters need the least memory")]
    plain, small = adapter_memory(billions), adapter_memory(billions, quantized=True)
    fits = plain <= hardware.memory
    needed = f"about {plain if fits else small:.0f} of {hardware.memory:.0f} GB"
    lines = [Line("lora", lora, f"adapters: {needed}" if fits else "adapters on quantized weights (QLoRA)")]
    if fits:
        return lines
    excess = "" if small <= hardware.memory else "; this exceeds the GPU: use a smaller model or a larger GPU"
    return [*lines, Line("quantize", "nf4", f"4 bits per weight: {needed}{excess}")]


def _rate(value: float) -> Line:
    reason = "as in the paper" if value < 1e-5 else "adapters need about ten times the rate of all weights"
    return Line("learning_rate", f"{value:.0e}".replace("e-0", "e-"), reason)


def engine_lines(hardware: Hardware, billions: float | None) -> list[Line]:
    """Return the settings of ``sample`` that depend on the hardware, each with its reason."""
    if hardware.assumed:
        return [Line("engine", "auto", "vLLM if it is installed and a GPU is visible, else transformers")]
    if not hardware.gpus:
        return [Line("engine", "transformers", "no GPU is visible")]
    if not find_spec("vllm"):
        reason = "vLLM is not installed here; it is many times faster (`python:` can name an interpreter that has it)"
        return [Line("engine", "transformers", reason)]
    lines = [Line("engine", "vllm", f"vLLM is installed and {hardware} visible")]
    weights = (billions or 0) * 2e9 / GIB
    if hardware.memory and weights > 0.8 * hardware.memory:
        needed = next((n for n in _divisors(hardware.gpus) if weights / n <= 0.8 * hardware.memory), hardware.gpus)
        lines.append(Line("tensor_parallel", str(needed), f"GPUs per engine: the weights are {weights:.0f} GB"))
    return lines


def _divisors(number: int) -> Sequence[int]:
    return [n for n in range(1, number + 1) if number % n == 0]
