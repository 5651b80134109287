"""Launches the processes of a run with accelerate, shows their metrics, and raises the first error.

    accelerate launch --config_file accelerate.json -m spotcli.stages.train RECIPE FOLDER

The configuration file sets everything; ``accelerate launch --cpu --num_processes 2`` would start one process.
DeepSpeed's settings are given once, by ``deepspeed_config_file``, and are ``auto`` where the Trainer sets them.

The processes write to a log, not to the terminal. This process reads metrics.jsonl to show their progress.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from spotcli import recipe_yaml
from spotcli.errors import SpotError
from spotcli.jsonl import read_json, write_json
from spotcli.locks import PARENT
from spotcli.recipe import Recipe
from spotcli.training.plan import TrainPlan
from spotcli.training.rank import PHASES, SCRATCH, first_error
from spotcli.training.settings import MEMORY_CURE

PORT = 29_500
"""Default port of the first machine."""

SOURCES = "sources.json"
"""File beside the recipe of the launched processes: where its values come from."""

_GRACE = 15.0
"""Seconds that processes get to end by themselves."""


def launch(
    plan: TrainPlan, *, metrics: Path, on_row: Callable[[dict[str, Any]], None], on_phase: Callable[[str], None]
) -> None:
    """Run the train stage in the processes of a plan and wait for them.

    Args:
        plan: the run.
        metrics: the run's metrics.jsonl.
        on_row: called with each new row of it.
        on_phase: called with what the main process starts to do.

    Raises:
        SpotError: a process failed; the first error, in its own class.
    """
    scratch = Path(tempfile.mkdtemp(prefix="spot-launch-"))
    log = scratch / "ranks.log"
    config = write_config(plan, scratch)
    (scratch / "recipe.yaml").write_text(recipe_yaml.dump(plan.recipe), encoding="utf-8")
    write_json(scratch / SOURCES, recipe_yaml.public_sources(plan.recipe))
    command = [
        sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config),
        "-m", "spotcli.stages.train", str(scratch / "recipe.yaml"), str(plan.folder),
    ]  # fmt: skip
    environment = os.environ | {SCRATCH: str(scratch), PARENT: str(os.getpid())}
    new_rows, phases = _follow(metrics), _new_lines(scratch / PHASES)
    with log.open("wb") as out:
        launcher = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
        )
    failed_at: float | None = None
    try:
        while launcher.poll() is None:
            for line in next(phases):
                on_phase(line)
            for row in next(new_rows):
                on_row(row)
            if failed_at is None and list(scratch.glob("rank-*.error")):
                failed_at = time.monotonic()
            # The other processes would wait for the failed one until their time-out of half an hour.
            if failed_at is not None and time.monotonic() - failed_at > _GRACE:
                break
            time.sleep(0.2)
        for row in next(new_rows):
            on_row(row)
    finally:
        _end(launcher, scratch)
        if isinstance(sys.exception(), KeyboardInterrupt):  # there is no error to look for in the log
            shutil.rmtree(scratch, ignore_errors=True)
    if launcher.returncode or failed_at is not None:
        raise _error_of(scratch, log)
    shutil.rmtree(scratch, ignore_errors=True)


def load_launched(path: Path) -> Recipe:
    """The recipe of a launched process, with the sources that its values have for the user."""
    recipe = recipe_yaml.load(path)
    recipe.sources.clear()
    recipe.sources.update(read_json(path.with_name(SOURCES)))
    return recipe


def write_config(plan: TrainPlan, folder: Path) -> Path:
    """Write accelerate's configuration, and DeepSpeed's beside it; the path of the first."""
    import torch

    section, sharding = plan.section, plan.sharding
    nodes = section.nodes or 1
    kinds = {"none": "MULTI_GPU", "zero2": "DEEPSPEED", "zero3": "DEEPSPEED", "fsdp": "FSDP"}
    config: dict[str, Any] = {
        "compute_environment": "LOCAL_MACHINE",
        "distributed_type": kinds[sharding],
        "use_cpu": not torch.cuda.is_available(),
        "num_processes": section.ranks,
        "num_machines": nodes,
        "machine_rank": section.node or 0 if nodes > 1 else 0,
    }
    if nodes > 1:
        host, _, port = (section.main_address or "").partition(":")
        config |= {"main_process_ip": host, "main_process_port": int(port or PORT), "same_network": True}
        config["rdzv_backend"] = "static"
    else:
        config["main_process_port"] = free_port()
    if sharding in ("zero2", "zero3"):
        deepspeed = folder / "deepspeed.json"
        deepspeed.write_text(json.dumps(deepspeed_config(section.zero, section.offload)), encoding="utf-8")
        config["deepspeed_config"] = {"deepspeed_config_file": str(deepspeed), "zero3_init_flag": False}
        if nodes > 1:
            config["deepspeed_config"]["deepspeed_multinode_launcher"] = "standard"
    else:
        config["mixed_precision"] = "no"
    if sharding == "fsdp":
        config["fsdp_config"] = fsdp_config(section.offload)
    path = folder / "accelerate.json"
    path.write_text(json.dumps(config, indent=2), encoding="utf-8")
    return path


def deepspeed_config(stage: int, offload: str = "none") -> dict[str, Any]:
    """DeepSpeed's settings; the Trainer fills in every ``auto``. Without ``gradient_clipping`` it would clip at 1.0."""
    zero: dict[str, Any] = {"stage": stage, "stage3_gather_16bit_weights_on_model_save": stage == 3}
    if offload != "none":
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": True}
    if offload == "all":
        zero["offload_param"] = {"device": "cpu", "pin_memory": True}
    return {
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        # DeepSpeed's own optimiser for CPUs must be compiled.
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": "auto"},
        "gradient_clipping": "auto",
        "gradient_accumulation_steps": "auto",
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
    }


def fsdp_config(offload: str = "none") -> dict[str, Any]:
    """accelerate's settings of FSDP2; each decoder layer is wrapped by itself."""
    return {
        "fsdp_version": 2,
        "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
        "fsdp_reshard_after_forward": True,
        "fsdp_state_dict_type": "SHARDED_STATE_DICT",
        "fsdp_cpu_ram_efficient_loading": False,
        "fsdp_offload_params": offload == "all",
        "fsdp_activation_checkpointing": False,
    }


def free_port() -> int:
    """A port of this machine that is not in use."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _follow(metrics: Path) -> Iterator[list[dict[str, Any]]]:
    """At each step, the rows added since the previous one. A resumed run may shorten the file first."""
    last = _last_step(metrics)
    while True:
        rows = [row for row in _rows(metrics) if row["step"] > last]
        if rows:
            last = rows[-1]["step"]
        yield rows
        last = min(last, _last_step(metrics))


def _new_lines(path: Path) -> Iterator[list[str]]:
    """At each step, the whole lines that were added to a file since the previous one."""
    shown = 0
    while True:
        lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
        yield lines[shown:]
        shown = len(lines)


def _last_step(metrics: Path) -> int:
    return max((row["step"] for row in _rows(metrics)), default=0)


def _rows(metrics: Path) -> list[dict[str, Any]]:
    """The whole rows of the file; its last line may be incomplete, and the first process reports a damaged one."""
    try:
        lines = metrics.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    rows = []
    for line in lines:
        with suppress(ValueError):
            row = json.loads(line)
            if isinstance(row, dict) and isinstance(row.get("step"), int):
                rows.append(row)
    return rows


def _end(launcher: subprocess.Popen[bytes], scratch: Path) -> None:
    """End accelerate's launcher and the processes that it started, which have sessions of their own."""
    if launcher.poll() is None:
        os.killpg(launcher.pid, signal.SIGTERM)
        _kill_ranks(scratch)  # the launcher would give them half a minute; what they need is in the checkpoints
        try:
            launcher.wait(_GRACE)
        except subprocess.TimeoutExpired:
            os.killpg(launcher.pid, signal.SIGKILL)
            launcher.wait()
    _kill_ranks(scratch)


def _kill_ranks(scratch: Path) -> None:
    for path in scratch.glob("rank-*.pid"):
        try:
            os.kill(int(path.read_text()), signal.SIGKILL)
        except (ProcessLookupError, ValueError):
            continue


def _error_of(scratch: Path, log: Path) -> SpotError:
    """The error to raise for a failed launch."""
    log_cure = f"see the log of all processes: {log}"
    if (error := first_error(scratch)) is not None:
        return error.as_error(log_cure)
    message = "training stopped and no process reported an error"
    ended = re.search(r"exitcode: (-?\d+)\) local_rank: (\d+)", log.read_text(errors="replace"))
    if ended is None:
        return SpotError(message, cure=log_cure)
    message += f": rank {ended[2]} ended with exit code {ended[1]}"
    if ended[1] == "-9":
        return SpotError(f"{message}; the system kills a process when memory runs out", cure=MEMORY_CURE)
    return SpotError(message, cure=log_cure)
