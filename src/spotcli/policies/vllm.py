"""The vLLM policy: engines in worker processes, one a group of GPUs, in whatever environment has vLLM."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spotcli.errors import RecipeError, UserError
from spotcli.policies import Answer, Failure, Request, Sampling
from spotcli.policies.engine_choice import visible_gpus
from spotcli.policies.models import resolve
from spotcli.policies.prompter import Prompter
from spotcli.policies.worker_pool import Job, WorkerPool

if TYPE_CHECKING:
    from spotcli.recipe import SampleSection

WORKER = Path(__file__).with_name("vllm_worker.py")
# Keys of vLLM's own that the recipe says elsewhere, or that would let a model bring its own code or its own defaults.
OURS = {"model", "trust_remote_code", "generation_config", "tensor_parallel_size", "dtype"}


class VllmPolicy:
    """Workers that pull from one queue; prompts are rendered here, once, and go to them as token ids.

    Raises:
        UserError: the model, or the interpreter of ``sample.python``, is not there.
        RecipeError: an engine parameter that is not the user's to set here; fewer GPUs than one worker needs.
    """

    engine = "vllm"
    trials_together = True

    def __init__(self, model: str, sampling: Sampling, settings: SampleSection, *, log: Path) -> None:
        if taken := OURS & settings.vllm.keys():
            raise RecipeError(
                f"'{sorted(taken)[0]}' cannot be set here", where="sample.vllm", cure="it has a key of its own"
            )
        self.prompter = Prompter(model, settings.chat_template_kwargs, settings.thinking)
        self.sampling = sampling
        python = shutil.which(settings.python or sys.executable)
        if python is None:
            raise UserError(
                "there is no such interpreter", where=f"sample.python: {settings.python}", cure="name a python3"
            )
        location = resolve(model)
        if Path(location, "adapter_config.json").is_file():
            raise UserError(
                "this is an adapter without its model, which vLLM does not load from here",
                where=model,
                cure="merge it into its base model, or take --engine transformers",
            )
        config = {
            "model": location,
            "engine": {"tensor_parallel_size": settings.tensor_parallel, "dtype": settings.dtype} | settings.vllm,
            "sampling": {
                "temperature": sampling.temperature,
                "top_p": sampling.top_p,
                "top_k": sampling.top_k,
                "max_tokens": sampling.max_new_tokens,
                "stop_token_ids": sorted(self.prompter.ends),
            },
        }
        # Where this interpreter finds its packages is no business of another one.
        foreign = {"PYTHONPATH", "PYTHONHOME"} if settings.python else set()
        env = {name: value for name, value in os.environ.items() if name not in foreign}
        self._jobs = [
            Job([python, "-P", str(WORKER)], env | device, config, log.with_suffix(f".worker-{number}.log"))
            for number, device in enumerate(_devices(settings))
        ]
        self._pool: WorkerPool | None = None
        self._stopped = False
        self._smooth = False

    def facts(self, first: Request) -> dict[str, Any]:
        job = self._jobs[0]
        return {
            "workers": len(self._jobs),
            "interpreter": job.command[0],
            "effective": job.config["sampling"] | (self._pool.ready if self._pool else {}),
            **self.prompter.facts(first.messages),
        }

    def answers(
        self, requests: Iterable[Request], total: int, done: Callable[[Request], bool]
    ) -> Iterator[list[Answer | Failure]]:
        """Answer as fast as the workers pull; each request in the queue is rendered when a worker takes it."""
        asked: dict[int, tuple[Request, int]] = {}

        def items() -> Iterator[dict[str, Any]]:
            for number, request in enumerate(request for request in requests if not done(request)):
                ids = self.prompter.ids(request.messages)
                asked[number] = request, len(ids)
                yield {"n": number, "ids": ids, "seed": request.seed}

        for job in self._jobs:
            job.log.unlink(missing_ok=True)
        self._pool = WorkerPool(self._jobs, items(), total)
        if self._stopped:
            return
        failed = False
        for rows in self._pool.results():
            failed |= any("failed" in row for row in rows)
            yield [self._read(row, *asked.pop(row["n"])) for row in rows]
        self._smooth = not failed and not self._stopped and not self._pool.deaths

    def _read(self, row: dict[str, Any], request: Request, prompt: int) -> Answer | Failure:
        if "failed" in row:
            return Failure(request, row["failed"])
        assert self._pool
        limit = min(self.sampling.max_new_tokens, self._pool.ready["context"] - prompt)
        return Answer(request, row["text"], row["finish"], row["ids"], len(row["ids"]), limit)

    def stop(self) -> None:
        self._stopped = True
        if self._pool:
            self._pool.stop()

    def close(self) -> None:
        if self._pool:
            self._pool.close()
        if self._smooth:  # a log is of use only where something went wrong
            for job in self._jobs:
                job.log.unlink(missing_ok=True)


def _devices(settings: SampleSection) -> list[dict[str, str]]:
    """Environment variables that give each worker its own devices.

    Raises:
        RecipeError: fewer GPUs than one worker needs, or than the workers need.
    """
    gpus, width = visible_gpus(), settings.tensor_parallel
    if gpus:
        workers = settings.workers or len(gpus) // width
        if workers * width > len(gpus) or not workers:
            raise RecipeError(
                f"{workers or 1} workers of {width} GPUs need {(workers or 1) * width}, and {len(gpus)} are visible",
                where="sample.tensor_parallel",
                cure="lower sample.workers or sample.tensor_parallel",
            )
        return [{"CUDA_VISIBLE_DEVICES": ",".join(gpus[at * width : (at + 1) * width])} for at in range(workers)]
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    workers = settings.workers or 1
    if "VLLM_CPU_OMP_THREADS_BIND" in os.environ or workers * width > len(cores):
        return [{} for _ in range(workers)]
    # Engines on the same cores slow each other many times over; each rank of each worker gets its own.
    each = len(cores) // (workers * width)
    parts = [",".join(map(str, cores[at * each : (at + 1) * each])) for at in range(workers * width)]
    return [{"VLLM_CPU_OMP_THREADS_BIND": "|".join(parts[at * width : (at + 1) * width])} for at in range(workers)]
