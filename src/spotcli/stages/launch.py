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

from spotcli import errors
from spotcli import recipe as recipes
from spotcli.errors import SpotError
from spotcli.recipe import Recipe

_RANKS = "SPOT_RANKS"
"""Environment variable of the ranks: the folder where each leaves its process id and its error."""
_PARENT = "SPOT_PARENT"
"""Environment variable of the ranks: the process to end with."""

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
    (scratch / "recipe.yaml").write_text(recipes.dump(recipe), encoding="utf-8")
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
    config: dict[str, Any] = {
        "compute_environment": "LOCAL_MACHINE",
        "distributed_type": "DEEPSPEED" if section.zero else "MULTI_GPU",
        "use_cpu": not torch.cuda.is_available(),
        "num_processes": section.processes,
        "num_machines": 1,
        "machine_rank": 0,
        "main_process_port": _free_port(),
    }
    if section.zero:
        deepspeed = scratch / "deepspeed.json"
        deepspeed.write_text(json.dumps(deepspeed_config(section.zero)), encoding="utf-8")
        config["deepspeed_config"] = {"deepspeed_config_file": str(deepspeed), "zero3_init_flag": False}
    else:
        config["mixed_precision"] = "no"
    path = scratch / "accelerate.json"
    path.write_text(json.dumps(config, indent=2), encoding="utf-8")
    return path


def deepspeed_config(stage: int) -> dict[str, Any]:
    """DeepSpeed's settings. It would clip gradients at 1.0 unless told; the Trainer fills in every ``auto``."""
    return {
        "zero_optimization": {"stage": stage, "stage3_gather_16bit_weights_on_model_save": stage == 3},
        "zero_allow_untested_optimizer": True,
        "bf16": {"enabled": "auto"},
        "gradient_clipping": "auto",
        "gradient_accumulation_steps": "auto",
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
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
        return SpotError(f"training ended without a word of its ranks{why}", cure=f"the whole of it is in {log}")
    first = found[0]
    kind = getattr(errors, first["kind"], SpotError)
    error = SpotError(first["message"], where=first["where"], cure=first["cure"] or f"the whole of it is in {log}")
    if isinstance(kind, type) and issubclass(kind, SpotError):
        error.__class__ = kind
    return error


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
        report = {
            "at": time.time(),
            "kind": type(error).__name__ if ours else "SpotError",
            "message": message,
            "where": error.where if isinstance(error, SpotError) else None,
            "cure": error.cure if isinstance(error, SpotError) else None,
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
