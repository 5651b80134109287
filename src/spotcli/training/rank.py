"""One process of a run: its place among the others, and how a launched process reports its error and ends."""

from __future__ import annotations

import json
import os
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn, TypeVar

from spotcli import errors
from spotcli.console import say
from spotcli.errors import SpotError
from spotcli.locks import PARENT
from spotcli.training.settings import MEMORY_CURE

Item = TypeVar("Item")

PHASES = "phases.log"
"""The file in the scratch folder with what the main process is doing, one line each."""

SCRATCH = "SPOT_RANKS"
"""Environment variable of a launched process: the folder for its process id and its error."""


@dataclass(frozen=True)
class Ranks:
    """The place of this process among the processes that train together."""

    rank: int = 0
    world_size: int = 1
    local_rank: int | None = None
    """Number of this process on its machine."""
    launched: bool = False
    """Whether a launcher started this process."""

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Ranks:
        """From the environment variables that accelerate sets."""
        local_rank = environment.get("LOCAL_RANK")
        return cls(
            rank=int(environment.get("RANK", "0")),
            world_size=int(environment.get("WORLD_SIZE", "1")),
            local_rank=int(local_rank) if local_rank is not None else None,
            launched="RANK" in environment,
        )

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files and shows the messages."""
        return self.rank == 0

    def part(self, items: Sequence[Item]) -> Sequence[Item]:
        """This process's part of some work."""
        return items[self.rank :: self.world_size]


@dataclass(frozen=True)
class RankError:
    """The error of one launched process, as a file in the scratch folder."""

    at: float
    """Seconds since the epoch."""
    kind: str
    """The name of its class in ``spotcli.errors``."""
    message: str
    where: str | None
    cure: str | None

    @classmethod
    def of(cls, error: Exception, rank: int) -> RankError:
        if isinstance(error, SpotError):
            return cls(time.time(), type(error).__name__, error.message, error.where, error.cure)
        message = f"rank {rank}: {type(error).__name__}: {error}"
        return cls(time.time(), "SpotError", message, None, cure_of(error))

    def write(self, folder: Path, rank: int) -> None:
        scratch = folder / f".rank-{rank}"
        scratch.write_text(json.dumps(asdict(self)))
        scratch.rename(folder / f"rank-{rank}.error")

    def as_error(self, cure: str) -> SpotError:
        """The error in its own class.

        Args:
            cure: the cure where the error has none.
        """
        error = SpotError(self.message, where=self.where, cure=self.cure or cure)
        kind = getattr(errors, self.kind, SpotError)
        if isinstance(kind, type) and issubclass(kind, SpotError):
            error.__class__ = kind
        return error


def phase(text: str) -> None:
    """Show what the main process starts to do; a launched process writes it for the process that shows the progress."""
    if os.environ.get("RANK", "0") != "0":
        return
    folder = os.environ.get(SCRATCH)
    if folder is None:
        say(text)
        return
    with (Path(folder) / PHASES).open("a", encoding="utf-8") as file:
        file.write(" ".join(text.split()) + "\n")


def first_error(folder: Path) -> RankError | None:
    """The error of the process that failed first; None if none wrote an error."""
    reported = [RankError(**json.loads(path.read_text())) for path in folder.glob("rank-*.error")]
    return min(reported, key=lambda error: error.at, default=None)


_CURES = (
    (r"out of memory|can't allocate memory|bad_alloc", MEMORY_CURE),
    (r"address already in use|EADDRINUSE", "another port in train.main_address=HOST:PORT; this one is in use"),
    (
        r"time-?d? ?out|Watchdog caught collective",
        "check that every machine can reach train.main_address and train.output",
    ),
    (r"No space left on device", "free disk space, or save less often: train.save_steps, save_total_limit: 1"),
)
"""Patterns of error messages of torch, NCCL, DeepSpeed and the system, each with its cure."""


def cure_of(error: BaseException) -> str | None:
    """The cure for an error of a library or the system; None for an unknown error."""
    return next((cure for words, cure in _CURES if re.search(words, str(error), re.IGNORECASE)), None)


def run_as_rank(work: Callable[[], object]) -> NoReturn:
    """Run the work of one launched process, and end the process.

    Its process id and its error are written to the folder of the launching process, and it ends when that one ends.
    """
    folder, rank = Path(os.environ[SCRATCH]), int(os.environ["RANK"])
    (folder / f"rank-{rank}.pid").write_text(str(os.getpid()))
    threading.Thread(target=_watch_parent, args=(int(os.environ[PARENT]), os.getppid()), daemon=True).start()
    try:
        work()
        _leave_group()
        sys.stderr.flush()
        os._exit(0)  # the threads of gloo and NCCL sometimes crash an interpreter that exits normally
    except Exception as error:
        traceback.print_exc()
        RankError.of(error, rank).write(folder, rank)
        sys.stderr.flush()
        os._exit(1)  # do not wait for processes that wait for this one


def _watch_parent(parent: int, launcher: int) -> None:
    """End this process when the launching process or accelerate's launcher ends."""
    while os.getppid() == launcher:
        try:
            os.kill(parent, 0)
        except ProcessLookupError:
            break
        time.sleep(0.2)
    os._exit(1)


def _leave_group() -> None:
    import torch.distributed as dist

    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()
