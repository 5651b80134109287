"""Training in several processes: write accelerate's configuration, start the ranks, show the first error, leave nobody.

    accelerate launch --config_file accelerate.yaml -m spotcli.stages.train RECIPE FOLDER

The configuration file decides everything (``accelerate launch --cpu --num_processes 2`` would start one process), and
DeepSpeed's own settings are given once, by ``deepspeed_config_file``; what the Trainer knows better is ``auto`` there.

The ranks write to a log, not to the terminal: what is shown comes from metrics.jsonl, which this process reads along.
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
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from spotcli import errors, recipe_yaml
from spotcli.errors import SpotError
from spotcli.recipe import Recipe
from spotcli.training import settings

_RANKS = "SPOT_RANKS"
"""Environment variable of the ranks: the folder where each leaves its process id and its error."""
_PARENT = "SPOT_PARENT"
"""Environment variable of the ranks: the process to end with."""

PORT = 29_500
"""Of the first machine, where several train together and nobody says another."""

_GRACE = 15.0
"""Seconds that ranks have to end by themselves."""


def launch(recipe: Recipe, *, folder: Path, metrics: Path, on_row: Callable[[dict[str, Any]], None]) -> None:
    """Run ``spotcli.stages.train`` in ``recipe.train.processes`` processes and wait for them.

    Args:
        recipe: the whole recipe.
        folder: the run's.
        metrics: the file whose new rows are shown.
        on_row: told each new row of it.

    Raises:
        SpotError: a rank failed; the error of the one that failed first, of its own class.
    """
    scratch = Path(tempfile.mkdtemp(prefix="spot-launch-"))
    log = scratch / "ranks.log"
    config = _write_config(recipe, scratch)
    (scratch / "recipe.yaml").write_text(recipe_yaml.dump(recipe), encoding="utf-8")
    command = [
        sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config),
        "-m", "spotcli.stages.train", str(scratch / "recipe.yaml"), str(folder),
    ]  # fmt: skip
    environment = os.environ | {_RANKS: str(scratch), _PARENT: str(os.getpid())}
    new_rows = _follow(metrics)
    with log.open("wb") as out:
        ranks = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
        )
    failed_at: float | None = None
    try:
        while ranks.poll() is None:
            for row in next(new_rows):
                on_row(row)
            if failed_at is None and list(scratch.glob("rank-*.error")):
                failed_at = time.monotonic()
            # Ranks that wait for one that has failed would wait until their time-out, half an hour.
            if failed_at is not None and time.monotonic() - failed_at > _GRACE:
                break
            time.sleep(0.2)
        for row in next(new_rows):
            on_row(row)
    finally:
        _end(ranks, scratch)
    if ranks.returncode or failed_at is not None:
        raise _first_error(scratch, log)
    shutil.rmtree(scratch, ignore_errors=True)


def _write_config(recipe: Recipe, scratch: Path) -> Path:
    """accelerate's configuration as a file; JSON, which is YAML too."""
    import torch

    section = recipe.train
    nodes, sharding = section.nodes or 1, settings.sharding(section)
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
        config["main_process_port"] = _free_port()
    if sharding in ("zero2", "zero3"):
        deepspeed = scratch / "deepspeed.json"
        deepspeed.write_text(json.dumps(deepspeed_config(section.zero, section.offload)), encoding="utf-8")
        config["deepspeed_config"] = {"deepspeed_config_file": str(deepspeed), "zero3_init_flag": False}
        if nodes > 1:
            config["deepspeed_config"]["deepspeed_multinode_launcher"] = "standard"
    else:
        config["mixed_precision"] = "no"
    if sharding == "fsdp":
        config["fsdp_config"] = fsdp_config(section.offload)
    path = scratch / "accelerate.json"
    path.write_text(json.dumps(config, indent=2), encoding="utf-8")
    return path


def deepspeed_config(stage: int, offload: str = "none") -> dict[str, Any]:
    """DeepSpeed's settings. It would clip gradients at 1.0 unless told; the Trainer fills in every ``auto``."""
    zero: dict[str, Any] = {"stage": stage, "stage3_gather_16bit_weights_on_model_save": stage == 3}
    if offload != "none":
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": True}
    if offload == "all":
        zero["offload_param"] = {"device": "cpu", "pin_memory": True}
    return {
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        # DeepSpeed's own optimiser for a CPU would have to be compiled.
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": "auto"},
        "gradient_clipping": "auto",
        "gradient_accumulation_steps": "auto",
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
    }


def fsdp_config(offload: str = "none") -> dict[str, Any]:
    """accelerate's settings of FSDP2: each decoder layer is a unit."""
    return {
        "fsdp_version": 2,
        "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
        "fsdp_reshard_after_forward": True,
        "fsdp_state_dict_type": "SHARDED_STATE_DICT",
        "fsdp_cpu_ram_efficient_loading": False,
        "fsdp_offload_params": offload == "all",
        "fsdp_activation_checkpointing": False,
    }


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
    return port


def _follow(metrics: Path) -> Iterator[list[dict[str, Any]]]:
    """The rows that were added since the last call; a resumed run may make the file shorter first."""
    last = _last_step(metrics)
    while True:
        rows = [row for row in _rows(metrics) if row["step"] > last]
        if rows:
            last = rows[-1]["step"]
        yield rows
        last = min(last, _last_step(metrics))


def _last_step(metrics: Path) -> int:
    return max((row["step"] for row in _rows(metrics)), default=0)


def _rows(metrics: Path) -> list[dict[str, Any]]:
    """The whole rows of the file; its last line may be in the making."""
    try:
        lines = metrics.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in lines]


def _end(ranks: subprocess.Popen[bytes], scratch: Path) -> None:
    """End the launcher and its ranks, which it starts in sessions of their own, in whatever state they are."""
    if ranks.poll() is None:
        os.killpg(ranks.pid, signal.SIGTERM)
        try:
            ranks.wait(_GRACE)
        except subprocess.TimeoutExpired:
            os.killpg(ranks.pid, signal.SIGKILL)
            ranks.wait()
    for path in scratch.glob("rank-*.pid"):
        try:
            os.kill(int(path.read_text()), signal.SIGKILL)
        except (ProcessLookupError, ValueError):
            continue


def _first_error(scratch: Path, log: Path) -> SpotError:
    found = sorted((json.loads(path.read_text()) for path in scratch.glob("rank-*.error")), key=lambda each: each["at"])
    if not found:
        ended = re.search(r"exitcode: (-?\d+)\) local_rank: (\d+)", log.read_text(errors="replace"))
        why = f": rank {ended[2]} ended with code {ended[1]}" if ended else ""
        if ended and ended[1] == "-9":
            why += ", which is what the system does when memory runs out"
            return SpotError(f"training ended without a word of its ranks{why}", cure=settings.MEMORY_CURE)
        return SpotError(f"training ended without a word of its ranks{why}", cure=f"the whole of it is in {log}")
    first = found[0]
    kind = getattr(errors, first["kind"], SpotError)
    error = SpotError(first["message"], where=first["where"], cure=first["cure"] or f"the whole of it is in {log}")
    if isinstance(kind, type) and issubclass(kind, SpotError):
        error.__class__ = kind
    return error


# What libraries say, and the knob that cures it.
_CURES = (
    (r"out of memory|can't allocate memory|bad_alloc", settings.MEMORY_CURE),
    (r"address already in use|EADDRINUSE", "another train.main_address=HOST:PORT; something listens on this one"),
    (r"time-?d? ?out|Watchdog caught collective", "see whether all machines reach train.main_address and train.output"),
    (r"No space left on device", "free space in the folder, or save less often: train.save_steps, save_total_limit: 1"),
)


def cure_of(error: BaseException) -> str | None:
    """The knob for an error of torch, NCCL, DeepSpeed or the system; None where we know none."""
    return next((cure for words, cure in _CURES if re.search(words, str(error), re.IGNORECASE)), None)


def as_rank(work: Callable[[], None]) -> NoReturn:
    """Do one rank's work: leave its process id and its error where the launching process looks, and end with it."""
    folder, rank = Path(os.environ[_RANKS]), os.environ["RANK"]
    (folder / f"rank-{rank}.pid").write_text(str(os.getpid()))
    threading.Thread(target=_watch_parent, args=(int(os.environ[_PARENT]), os.getppid()), daemon=True).start()
    try:
        work()
        _leave_group()
        sys.stderr.flush()
        os._exit(0)  # the threads of gloo and NCCL now and then crash an interpreter that ends in order
    except Exception as error:
        traceback.print_exc()
        ours = isinstance(error, SpotError)
        message = error.message if isinstance(error, SpotError) else f"rank {rank}: {type(error).__name__}: {error}"
        cure = error.cure if isinstance(error, SpotError) else cure_of(error)
        report = {
            "at": time.time(),
            "kind": type(error).__name__ if ours else "SpotError",
            "message": message,
            "where": error.where if isinstance(error, SpotError) else None,
            "cure": cure,
        }
        scratch = folder / f".rank-{rank}"
        scratch.write_text(json.dumps(report))
        scratch.rename(folder / f"rank-{rank}.error")
        sys.stderr.flush()
        os._exit(1)  # without waiting for ranks that wait for this one


def _watch_parent(parent: int, launcher: int) -> None:
    while os.getppid() == launcher:
        try:
            os.kill(parent, 0)
        except ProcessLookupError:
            break
        time.sleep(1)
    os._exit(1)


def _leave_group() -> None:
    import torch.distributed as dist

    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()
