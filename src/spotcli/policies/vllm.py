"""The vLLM engine: worker processes, one per group of GPUs, in any environment that has vLLM."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spotcli.errors import RecipeError, UserError, install_command
from spotcli.jsonl import read_json
from spotcli.policies import Answer, EngineFacts, Failure, Request, Sampling
from spotcli.policies.engine_choice import visible_gpus
from spotcli.policies.models import base_of, resolve
from spotcli.policies.prompter import Prompter
from spotcli.policies.vllm_worker import WorkerConfig, WorkerFailure, WorkerRequest
from spotcli.policies.worker_pool import WorkerJob, WorkerPool, WorkerResult

if TYPE_CHECKING:
    from spotcli.recipe import EngineSection
    from spotcli.records import FinishReason

WORKER = Path(__file__).with_name("vllm_worker.py")
"""The script of a worker."""
RESERVED = {"model", "trust_remote_code", "generation_config", "tensor_parallel_size", "dtype"}
"""Parameters of ``vllm.LLM`` with a recipe key of their own, or that would let a model run its own code or use its own
sampling defaults."""

NOT_IN_VLLM = ("modules_to_save", "use_dora", "lora_bias", "alora_invocation_tokens", "layer_replication")
"""Keys of an adapter's configuration that vLLM 0.32 refuses if they are set."""
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Values of vLLM's ``max_lora_rank``."""


@dataclass(frozen=True, kw_only=True)
class VllmFacts(EngineFacts):
    workers: int
    interpreter: str
    effective: dict[str, Any]
    """Sampling parameters as vLLM gets them, and what a started engine reported of itself."""


def _interpreter(settings: EngineSection) -> tuple[str, dict[str, str]]:
    """The Python of the workers, and its environment.

    Raises:
        UserError: the interpreter of ``python`` is not found.
    """
    python = shutil.which(os.path.expanduser(settings.python or sys.executable))
    if python is None:
        raise UserError(
            "interpreter not found", where=f"{settings.key}.python: {settings.python}", cure="use the path of a python3"
        )
    # Another interpreter must not search for packages in the paths of this one.
    own = {"PYTHONPATH", "PYTHONHOME"} if settings.python else set()
    return python, {name: value for name, value in os.environ.items() if name not in own}


def check_installed(settings: EngineSection) -> None:
    """Check that the workers' Python has vLLM, without importing it.

    Raises:
        UserError: the interpreter is not found, or it has no vLLM.
    """
    python, env = _interpreter(settings)
    probe = "import importlib.util, sys; sys.exit(importlib.util.find_spec('vllm') is None)"
    if subprocess.run([python, "-P", "-c", probe], env=env, capture_output=True, check=False).returncode:
        where = f"{settings.key}.python: {settings.python}" if settings.python else f"{settings.key}.engine"
        command = install_command("vllm") if not settings.python else f"{python} -m pip install vllm"
        cure = f"{command}, or set {settings.key}.python to an interpreter that has it"
        raise UserError("the vllm engine requires vLLM, which is not installed", where=where, cure=cure)


def adapter_parameters(folder: str) -> dict[str, Any]:
    """Parameters of ``vllm.LLM`` for a LoRA adapter.

    Raises:
        UserError: vLLM does not support adapters of this kind.
    """
    config = read_json(Path(folder) / "adapter_config.json")
    unsupported = [name for name in NOT_IN_VLLM if config.get(name)]
    ranks = [config.get("r"), *dict(config.get("rank_pattern") or {}).values()]
    rank = max((rank for rank in ranks if isinstance(rank, int)), default=0)
    if not 0 < rank <= RANKS[-1]:
        unsupported.append(f"r: {rank}")
    if unsupported:
        raise UserError(
            f"vLLM does not support this adapter ({', '.join(unsupported)})",
            where=folder,
            cure="merge it into its base model with `spot merge`, or use --engine transformers",
        )
    return {"enable_lora": True, "max_lora_rank": next(limit for limit in RANKS if limit >= rank)}


class VllmPolicy:
    """Workers that pull from one queue; prompts are rendered here, once, and sent to them as token ids.

    Raises:
        UserError: the model or the interpreter of ``python`` is not found; vLLM cannot load the adapter.
        RecipeError: a reserved key in ``vllm``; fewer GPUs than the workers need.
    """

    engine = "vllm"
    background = True
    trials_together = True

    def __init__(self, model: str, sampling: Sampling, settings: EngineSection, *, log: Path) -> None:
        if reserved := sorted(RESERVED & settings.vllm.keys()):
            raise RecipeError(
                f"'{reserved[0]}' cannot be set here",
                where=f"{settings.key}.vllm",
                cure=f"remove it; `{settings.key}` has a key for it",
            )
        self.prompter = Prompter(model, settings.chat_template_kwargs, settings.thinking)
        self.sampling = sampling
        python, env = _interpreter(settings)
        base = base_of(model)
        adapter = resolve(model) if base else None
        sampling = sampling.without_gaps()
        engine = {"tensor_parallel_size": settings.tensor_parallel, "dtype": settings.dtype}
        config = WorkerConfig(
            model=resolve(base or model),
            engine=engine | (adapter_parameters(adapter) if adapter else {}) | settings.vllm,
            sampling={
                "temperature": sampling.temperature,
                "top_p": sampling.top_p,
                "top_k": sampling.top_k,
                "max_tokens": sampling.max_new_tokens,
                "stop_token_ids": sorted(self.prompter.ends),
            },
            adapter=adapter,
        )
        self._jobs = [
            WorkerJob(
                [python, "-P", str(WORKER)],
                env | devices,
                config,
                log.with_suffix(f".worker-{number}.log"),
                f"{settings.key}.python",
            )
            for number, devices in enumerate(_devices(settings))
        ]
        self._pool: WorkerPool | None = None
        self._stopped = False
        self._logs_needed = True

    def facts(self, first: Request) -> VllmFacts:
        ready = self._pool.ready if self._pool else None
        return VllmFacts(
            workers=len(self._jobs),
            interpreter=self._jobs[0].command[0],
            effective=self._jobs[0].config.sampling | (vars(ready) if ready else {}),
            prompts=self.prompter.facts(first.messages, first.tools),
        )

    def answers(
        self, requests: Iterable[Request], total: int, done: Callable[[Request], bool]
    ) -> Iterator[list[Answer | Failure]]:
        """Answer as fast as the workers pull; a request is rendered when a worker takes it."""
        pending: dict[int, tuple[Request, int]] = {}

        def rendered() -> Iterator[WorkerRequest]:
            for number, request in enumerate(request for request in requests if not done(request)):
                ids = self.prompter.prompt(request)
                pending[number] = request, len(ids)
                yield WorkerRequest(number, ids, request.seed, request.max_new_tokens)

        for job in self._jobs:
            job.log.unlink(missing_ok=True)
        self._pool = WorkerPool(self._jobs, rendered(), total)
        if self._stopped:
            return
        failed = False
        for results in self._pool.results():
            failed |= any(isinstance(result, WorkerFailure) for result in results)
            yield [self._read(result, *pending.pop(result.number)) for result in results]
        self._logs_needed = failed or self._stopped or self._pool.crashes > 0

    def _read(self, result: WorkerResult, request: Request, prompt_tokens: int) -> Answer | Failure:
        if isinstance(result, WorkerFailure):
            return Failure(request, result.reason)
        assert self._pool
        assert self._pool.ready
        limit = min(request.limit(self.sampling), self._pool.ready.context - prompt_tokens)
        finish_reason: FinishReason = "length" if result.finish_reason == "length" else "stop"
        return Answer(request, result.text, finish_reason, result.token_ids, len(result.token_ids), limit)

    def stop(self) -> None:
        self._stopped = True
        if self._pool:
            self._pool.stop()

    def close(self) -> None:
        if self._pool:
            self._pool.close()
        if not self._logs_needed:
            for job in self._jobs:
                job.log.unlink(missing_ok=True)


def _devices(settings: EngineSection) -> list[dict[str, str]]:
    """Environment variables that give each worker its own GPUs or CPU cores.

    Raises:
        RecipeError: fewer GPUs than one worker needs, or than the workers need.
    """
    gpus, width = visible_gpus(), settings.tensor_parallel
    if gpus:
        workers = settings.workers or len(gpus) // width
        if workers * width > len(gpus) or not workers:
            raise RecipeError(
                f"{workers or 1} workers of {width} GPUs need {(workers or 1) * width}, but {len(gpus)} are visible",
                where=f"{settings.key}.tensor_parallel",
                cure=f"lower {settings.key}.workers or {settings.key}.tensor_parallel",
            )
        groups = [gpus[worker * width : (worker + 1) * width] for worker in range(workers)]
        return [{"CUDA_VISIBLE_DEVICES": ",".join(group)} for group in groups]
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    workers = settings.workers or 1
    if "VLLM_CPU_OMP_THREADS_BIND" in os.environ or workers * width > len(cores):
        return [{} for _ in range(workers)]
    # Engines on the same cores slow each other down many times over, so each rank of each worker gets its own.
    share = len(cores) // (workers * width)
    ranks = [",".join(map(str, cores[rank * share : (rank + 1) * share])) for rank in range(workers * width)]
    bindings = ["|".join(ranks[worker * width : (worker + 1) * width]) for worker in range(workers)]
    return [{"VLLM_CPU_OMP_THREADS_BIND": binding} for binding in bindings]
