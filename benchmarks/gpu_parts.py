"""The parts of benchmarks/gpu.py, in the order of their importance."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

import gpu_correct
import gpu_models
import gpu_speed
from gpu_models import EDITS, Edit, Machine

from spotcli.core.costs import DEVICES

LORA = {"r": 16, "alpha": 32}

SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "8B LoRA": ("8B", {"lora": LORA, "batch_size": 1, "per_device_train_batch_size": 1}),
    "1.7B": ("1.7B", {"batch_size": 2, "per_device_train_batch_size": 2}),
}
"""Sizes of the model and the train section, by the name of the shape in the tables."""


class Missing(Exception):
    """A package that a part needs is not installed."""


@dataclass(frozen=True)
class Part:
    """A group of measurements."""

    name: str
    seconds: float
    """Its share of the time on an H100 or H200; it is not started with less time left, and ended after three shares."""
    measure: Callable[[Machine], Iterator[dict[str, Any]]]
    """Yields one row after each measurement; a row has at least a ``name``."""
    needs: tuple[str, ...] = ()
    """Packages."""

    def rows(self, machine: Machine) -> Iterator[dict[str, Any]]:
        """The measurements.

        Raises:
            Missing: a package is not installed.
        """
        if missing := [name for name in self.needs if find_spec(name) is None]:
            raise Missing(f"{', '.join(missing)} is not installed")
        yield from self.measure(machine)


def about_machine(machine: Machine) -> Iterator[dict[str, Any]]:
    """Versions, the device, and the rates of a large matrix product and of a copy."""
    import accelerate
    import peft
    import torch
    import transformers

    row: dict[str, Any] = {
        "name": "machine", "torch": torch.__version__, "transformers": transformers.__version__,
        "accelerate": accelerate.__version__, "peft": peft.__version__, "tiny": machine.tiny,
        "device": torch.cuda.get_device_name() if machine.is_gpu else "cpu",
    }  # fmt: skip
    row |= {package: find_spec(package) is not None for package in ("trl", "liger_kernel", "bitsandbytes")}
    key = device_key(row["device"])
    row["peak_teraflops"] = DEVICES[key].teraflops if key else None
    size = 256 if machine.tiny else 8192
    with torch.device(machine.device):
        left, right = (torch.randn(size, size, dtype=torch.bfloat16) for _ in range(2))
    seconds = median_seconds(machine, lambda: torch.mm(left, right))
    row["matmul_teraflops"] = 2 * size**3 / seconds / 1e12
    source = left if machine.tiny else torch.empty(2**31, dtype=torch.uint8, device=machine.device)
    target = torch.empty_like(source)
    seconds = median_seconds(machine, lambda: target.copy_(source))
    row["copy_gigabytes"] = 2 * source.nbytes / seconds / 1e9
    yield row


def device_key(name: str) -> str | None:
    """The name in ``core.costs.DEVICES`` of a device that torch names, such as 'NVIDIA H200'."""
    words = name.lower().replace("-", " ").split()
    return next((key for key in DEVICES if key in words), None)


def median_seconds(machine: Machine, work: Callable[[], Any], repeats: int = 10) -> float:
    """The median time of some work, after three warm-up calls."""
    seconds = []
    for _ in range(3 + (2 if machine.tiny else repeats)):
        machine.wait()
        started = time.perf_counter()
        work()
        machine.wait()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[3:])


def architectures(machine: Machine) -> Iterator[dict[str, Any]]:
    """Every known architecture; on a tiny run two of them."""
    from spotcli.core.forward.shared_attention import KNOWN

    kinds = ["qwen3", *sorted(KNOWN - {"qwen3"})]
    for kind in ("qwen3", "qwen3_moe") if machine.tiny else kinds:
        row = gpu_correct.architecture(machine, kind, gpu_correct.SIZES, gpu_correct.short_pairs())
        yield {"name": kind, **row}
    long = gpu_models.surgical_pairs(machine, "middle", 2, 500)
    sizes = gpu_correct.SIZES if machine.tiny else gpu_correct.LONG
    yield {"name": "qwen3, long pairs", **gpu_correct.architecture(machine, "qwen3", sizes, long)}


def output_layer(machine: Machine) -> Iterator[dict[str, Any]]:
    yield {"name": "chunked output layer", **gpu_correct.output_layer(machine)}


def drift(machine: Machine) -> Iterator[dict[str, Any]]:
    yield {"name": "drift of a model of 8B", **gpu_correct.drift(machine)}


def whole_runs(machine: Machine) -> Iterator[dict[str, Any]]:
    """`spot train` with all weights, LoRA, and float32; on a tiny run LoRA only."""
    runs: dict[str, dict[str, Any]] = {"LoRA": {"lora": LORA}, "all weights": {}, "float32": {"dtype": "float32"}}
    for name, train in runs.items():
        if not machine.tiny or name == "LoRA":
            yield {"name": name, **gpu_correct.whole_run(machine, name, train)}


def qlora(machine: Machine) -> Iterator[dict[str, Any]]:
    train = {"lora": LORA, "quantize": "nf4"}
    yield {"name": "QLoRA", **gpu_correct.whole_run(machine, "QLoRA", train)}


def compare(machine: Machine, shape: str, edits: tuple[Edit, ...], sides: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """spot, spot without sharing, and TRL, on the same pairs. A side that runs out of memory is a row that says so.

    A tiny run has the first of several edits only.
    """
    size, train = SHAPES[shape]
    for edit in edits[:1] if machine.tiny else edits:
        steps = gpu_speed.WARM + (1 if machine.tiny else 6)
        count = steps * int(train["batch_size"])
        pairs = gpu_models.surgical_pairs(machine, edit, count, machine.shape(size)["vocab_size"])
        for side in sides:
            if side == "TRL":
                measure: Callable[[], dict[str, Any]] = partial(gpu_speed.train_trl, machine, size, pairs, train)
            else:
                measure = partial(gpu_speed.train_ours, machine, size, pairs, train, share=side == "spot")
            yield {"name": f"{shape}, {edit}, {side}", "shape": shape, "edit": edit, "side": side, **safely(measure)}


def safely(measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A measurement; lack of memory is a result too."""
    import torch

    try:
        return measure()
    except torch.OutOfMemoryError as error:
        return {"out_of_memory": str(error).splitlines()[0]}


OPTIONS: dict[str, tuple[dict[str, Any], gpu_speed.Change | None, str | None]] = {
    "as recommended": ({}, None, None),
    "gradient checkpointing": ({"gradient_checkpointing": True}, None, None),
    "Liger's norm, rotary and feed-forward": ({}, gpu_speed.liger_parts, "liger_kernel"),
    "compile_norms": ({}, gpu_speed.compiled_norms_of, None),
    "AdamW not fused": ({"optim": "adamw_torch"}, None, None),
    "rounding to nearest": ({"rounding": "nearest"}, None, None),
}
"""Variants of a run: train section, change of the model, package."""


def options(machine: Machine, shape: str, names: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """Variants of one shape on late edits. A variant that fails is a row with its error."""
    size, train = SHAPES[shape]
    count = (gpu_speed.WARM + (1 if machine.tiny else 4)) * int(train["batch_size"])
    pairs = gpu_models.surgical_pairs(machine, "late", count, machine.shape(size)["vocab_size"])
    for name in names[-3:] if machine.tiny else names:
        more, change, package = OPTIONS[name]
        row = {"name": f"{shape}, {name}", "shape": shape, "option": name}
        if package is not None and (find_spec(package) is None or not machine.is_gpu):
            yield row | {"skipped": f"requires {package} and a GPU"}
            continue
        with gpu_speed.restored_qwen3():
            yield row | safely(partial(gpu_speed.train_ours, machine, size, pairs, {**train, **more}, change=change))


def attention(machine: Machine) -> Iterator[dict[str, Any]]:
    """One layer of attention at 8B sizes, forward and backward: varlen with flash, pieces with flash and with cuDNN."""
    import torch

    from spotcli.core.forward import shared_attention
    from spotcli.core.forward.packing import pack

    sizes = machine.shape("8B")
    pairs = gpu_models.surgical_pairs(machine, "late", 2, 500)
    batch = pack(pairs, share=True)
    tokens, size = batch.ids_RL.shape[1], sizes["head_dim"]
    with torch.device(machine.device):
        query, key, value = (
            torch.randn(1, heads, tokens, size, dtype=torch.bfloat16, requires_grad=True)
            for heads in (sizes["num_attention_heads"], sizes["num_key_value_heads"], sizes["num_key_value_heads"])
        )
    kernel = shared_attention._varlen

    def work() -> None:
        output, _ = shared_attention.pair_attention(
            None, query, key, value, None, pair_spans=batch.spans, pair_common=batch.common
        )
        torch.autograd.backward(output.float().sum())

    for name, varlen, cudnn in (("varlen", True, False), ("pieces", False, False), ("pieces, cuDNN", False, True)):
        if varlen and kernel(query.device, query.dtype) is None:
            yield {"name": f"attention, {name}", "skipped": "torch has no varlen attention for this device"}
            continue
        shared_attention._varlen = kernel if varlen else lambda device, dtype: None  # type: ignore[assignment]
        torch.backends.cuda.enable_cudnn_sdp(cudnn)
        try:
            yield {"name": f"attention, {name}", "milliseconds": 1000 * median_seconds(machine, work)}
        finally:
            shared_attention._varlen = kernel
            shared_attention.pin_flash()


LATE: tuple[Edit, ...] = ("late",)
OTHERS: tuple[Edit, ...] = tuple(edit for edit in EDITS if edit != "late")
ALL = ("spot", "not shared", "TRL")

PARTS = (
    Part("machine", 10, about_machine),
    Part("architectures", 70, architectures),
    Part("speed, 8B LoRA, late", 45, partial(compare, shape="8B LoRA", edits=LATE, sides=ALL[:2])),
    Part("speed, 1.7B, late", 35, partial(compare, shape="1.7B", edits=LATE, sides=ALL[:2])),
    Part("TRL, late", 50, lambda machine: trl(machine, LATE), ("trl", "datasets")),
    Part("whole runs", 45, whole_runs),
    Part("output layer", 10, output_layer),
    Part("drift", 20, drift),
    Part("options, 8B LoRA", 60, partial(options, shape="8B LoRA", names=tuple(OPTIONS)[:4])),
    Part("options, 1.7B", 45, partial(options, shape="1.7B", names=("as recommended", *tuple(OPTIONS)[4:]))),
    Part("attention", 10, attention),
    Part("QLoRA", 20, qlora, ("bitsandbytes",)),
    Part("speed, 1.7B, early and middle", 40, partial(compare, shape="1.7B", edits=OTHERS, sides=ALL[:2])),
    Part("speed, 8B LoRA, early and middle", 50, partial(compare, shape="8B LoRA", edits=OTHERS, sides=ALL[:2])),
    Part("TRL, early and middle", 60, lambda machine: trl(machine, OTHERS), ("trl", "datasets")),
)


def trl(machine: Machine, edits: tuple[Edit, ...]) -> Iterator[dict[str, Any]]:
    """TRL's DPOTrainer on both shapes."""
    for shape in SHAPES:
        yield from compare(machine, shape, edits, ("TRL",))
