"""The estimates of `spot train --dry-run`, compared with real runs: memory and seconds, on the CPU.

    python benchmarks/estimate.py                     every setting, each in its own process
    python benchmarks/estimate.py --only lora         settings with "lora" in their name

SmolLM2-135M trains on pairs of long sums: two steps of two pairs, one pair per micro-batch. Memory is the largest
resident set during loading, reference, training steps and saving, minus the resident set before loading. The estimate
is the dry run's, without its reserve for the driver of a GPU. ``MALLOC_MMAP_THRESHOLD_`` makes malloc return freed
blocks to the system at once; otherwise free heap memory would be counted.

Seconds are those of the second step. The column ``at peak`` has the seconds of the same operations at the rate of this
machine's matrix products of the model's sizes, and ``reached`` the quotient.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

MODEL = "builtin:smollm2-135m"
STEPS = 2
LORA = {"r": 16, "alpha": 32}
SETTINGS: dict[str, dict[str, Any]] = {
    f"{dtype}{', lora' if lora else ''}{', checkpointing' if checkpointing else ''}": {
        "dtype": dtype,
        **({"lora": LORA} if lora else {}),
        **({"gradient_checkpointing": True} if checkpointing else {}),
    }
    for dtype in ("float32", "bfloat16")
    for lora in (False, True)
    for checkpointing in (False, True)
}
SETTINGS["float32, not shared"] = {"dtype": "float32", "share_prefix": False}


def pairs(number: int) -> list[dict[str, Any]]:
    """Long sums, with an error in the middle of the rejected answer."""
    chance = random.Random(0)
    rows = []
    for index in range(number):
        numbers = [chance.randint(10, 99) for _ in range(24)]
        lines = {"chosen": "", "rejected": ""}
        for side in lines:
            total = numbers[0]
            for place, summand in enumerate(numbers[1:]):
                result = total + summand + (side == "rejected" and place == 14)
                lines[side] += f"{total} + {summand} = {result}\n"
                total = result
            lines[side] += f"The answer is \\boxed{{{total}}}."
        rows.append({"id": f"sum-{index}", "prompt": " + ".join(map(str, numbers)), **lines})
    return rows


def rate(dtype: str) -> float:
    """Operations per second of the product of a micro-batch with a feed-forward weight."""
    import torch

    kind = getattr(torch, dtype)
    left, right = torch.randn(2048, 576, dtype=kind), torch.randn(1536, 576, dtype=kind)
    best = float("inf")
    for _ in range(20):
        started = time.perf_counter()
        torch.nn.functional.linear(left, right)
        best = min(best, time.perf_counter() - started)
    return 2 * left.numel() * len(right) / best


def status(name: str) -> int:
    """A field of /proc/self/status, in bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


def child(settings: dict[str, Any], folder: Path) -> None:
    """Measure one setting, and print the numbers as the last line of stdout."""
    from spotcli.core.forward import logps
    from spotcli.policies import models
    from spotcli.recipe import Recipe
    from spotcli.stages.train import train

    logps.GPU_CHUNK = logps.CHUNK  # the dry run estimates for GPUs
    section = {"batch_size": 2, "per_device_train_batch_size": 1, "max_steps": STEPS, "warmup_steps": 0, **settings}
    recipe = Recipe.model_validate({"model": MODEL, "train": section})
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs(2)))
    planned = train(recipe, folder=folder, dry_run=True)
    assert planned.estimate is not None
    speed = rate(settings["dtype"])
    before, load = 0, models.load_model

    def measured_load(*given: Any, **options: Any) -> Any:
        nonlocal before
        before = status("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
        return load(*given, **options)

    models.load_model = measured_load
    train(recipe, folder=folder)
    rows = [json.loads(line) for line in (folder / "checkpoint" / "metrics.jsonl").read_text().splitlines()]
    seconds = sum(row["seconds"] for row in rows[1:])
    operations = sum(value for name, value in planned.estimate.operations.items() if name != "reference")
    numbers = {
        "measured": (status("VmHWM") - before) / 2**30,
        "parts": {name: value for name, value in planned.estimate.memory.items() if name != "reserve"},
        "seconds": seconds,
        "planned": operations * (STEPS - 1) / STEPS / speed,
        "gigaflops": speed / 1e9,
    }
    print(json.dumps(numbers))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="run only settings with this in their name")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--parts", action="store_true", help="also show the parts of the estimate")
    options = parser.parse_args()
    if options.child:
        child(json.loads(options.child), Path.cwd())
        return
    env = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "HF_HUB_OFFLINE": "1"}
    print(f"{'':32}{'GiB':>6}{'estimate':>10}{'/ measured':>12}{'seconds':>10}{'at peak':>9}{'reached':>9}")
    for name, settings in SETTINGS.items():
        if options.only not in name:
            continue
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, str(Path(__file__).absolute()), "--child", json.dumps(settings)]
            stdout = subprocess.run(command, cwd=folder, env=env, stdout=subprocess.PIPE, text=True, check=True).stdout
        numbers = json.loads(stdout.splitlines()[-1])
        estimate = sum(numbers["parts"].values())
        print(
            f"{name:32}{numbers['measured']:>6.2f}{estimate:>10.2f}{estimate / numbers['measured']:>12.2f}"
            f"{numbers['seconds']:>10.1f}{numbers['planned']:>9.1f}{numbers['planned'] / numbers['seconds']:>9.0%}",
            flush=True,
        )
        if options.parts:
            print("    " + ", ".join(f"{part} {value:.2f}" for part, value in numbers["parts"].items()))


if __name__ == "__main__":
    main()
