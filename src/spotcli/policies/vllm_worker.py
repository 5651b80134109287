"""One vLLM engine in a process of its own: requests on stdin, answers on stdout, one JSON object per line.

    PYTHON -P vllm_worker.py

The script runs in any environment that has vLLM, so it imports nothing else outside the standard library and is started
by its path. A small guard process surrounds the engine: when the command that started it is gone, or the engine is, the
guard ends the whole process group, because an engine's child processes do not notice that their parent died.

    in    a ``WorkerConfig``, then ``WorkerRequest`` ...
    out   {"ready": ``EngineReady``}, then ``WorkerAnswer`` or ``WorkerFailure`` ...; {"alive": true} from time to time
"""

from __future__ import annotations

import json
import os
import queue
import select
import signal
import sys
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TextIO

GRACE = 5.0
"""Seconds that the engine has to end by itself before its process group is killed."""
BEAT = 10.0
"""Seconds between two signs of life."""


@dataclass(frozen=True)
class WorkerConfig:
    """How the engine is started, and how it samples."""

    model: str
    engine: dict[str, Any]
    """Parameters of ``vllm.LLM``."""
    sampling: dict[str, Any]
    """Parameters of ``vllm.SamplingParams``; ``max_tokens`` is the limit where the context leaves as much."""
    adapter: str | None = None
    """The folder of a LoRA adapter for ``model``."""


@dataclass(frozen=True)
class EngineReady:
    """What the worker reports once its engine has started."""

    capacity: int
    """Requests that the engine runs at once."""
    context: int
    """Tokens that prompt and answer may have together."""
    vllm: str
    """Its version."""


@dataclass(frozen=True)
class WorkerRequest:
    """A prompt to answer."""

    number: int
    prompt_ids: list[int]
    seed: int
    max_tokens: int | None = None
    """The limit of this answer, if it is lower than that of all answers."""


@dataclass(frozen=True)
class WorkerAnswer:
    """A generated answer."""

    number: int
    """Of the request."""
    text: str
    token_ids: list[int]
    finish_reason: str
    """``stop`` or ``length``."""


@dataclass(frozen=True)
class WorkerFailure:
    """A request that gets no answer."""

    number: int
    """Of the request."""
    reason: str


def main() -> None:
    engine = os.fork()
    if engine:
        guard(engine)
    # Whatever vLLM and its child processes print goes to the log; answers have their own channel.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    serve(answers)
    answers.close()


def guard(engine: int) -> None:
    """Wait until the engine ends or the other end of stdin is closed; then end every process of the group."""
    os.close(1)
    starter = select.poll()
    # No event is requested: a hang-up is always reported, and the data in the pipe are for the engine.
    starter.register(0, 0)
    deadline = None
    while True:
        ended, status = os.waitpid(engine, os.WNOHANG)
        if ended:
            break
        if deadline is None and starter.poll(500):
            deadline = time.monotonic() + GRACE
        elif deadline is not None:
            if time.monotonic() > deadline:
                break
            time.sleep(0.05)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if ended and os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0:
        # The other processes of the group get a moment to end; the rest is killed below.
        os.killpg(0, signal.SIGTERM)
        time.sleep(0.2)
    os.killpg(0, signal.SIGKILL)


def serve(answers: TextIO) -> None:
    """Answer until stdin ends."""
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")  # users have not agreed to report what they sample
    import vllm
    from vllm import LLM, SamplingParams
    from vllm.inputs import TokensPrompt

    config = WorkerConfig(**json.loads(sys.stdin.readline()))
    # generation_config="vllm" ignores the model's own sampling defaults.
    llm = LLM(config.model, trust_remote_code=False, generation_config="vllm", **config.engine)
    engine = llm.llm_engine
    lora = adapter_arguments(config.adapter)
    context = llm.model_config.max_model_len
    ready = EngineReady(engine.vllm_config.scheduler_config.max_num_seqs, context, vllm.__version__)
    send(answers, [{"ready": vars(ready)}])

    inbox: queue.SimpleQueue[str] = queue.SimpleQueue()

    def listen() -> None:
        for line in sys.stdin:
            inbox.put(line)
        inbox.put("")

    threading.Thread(target=listen, daemon=True).start()
    beat = time.monotonic()
    while True:
        if time.monotonic() - beat > BEAT:
            send(answers, [{"alive": True}])
            beat = time.monotonic()
        while not inbox.empty() or not engine.has_unfinished_requests():
            try:
                line = inbox.get(timeout=BEAT)
            except queue.Empty:
                break
            if not line:
                return
            request = WorkerRequest(**json.loads(line))
            wanted = config.sampling["max_tokens"]
            room = min(wanted, request.max_tokens or wanted, context - len(request.prompt_ids))
            if room <= 0:
                send(answers, [vars(WorkerFailure(request.number, "the prompt fills the context"))])
                continue
            sampling = SamplingParams(**config.sampling | {"max_tokens": room}, seed=request.seed)
            try:
                prompt = TokensPrompt(prompt_token_ids=request.prompt_ids)
                engine.add_request(str(request.number), prompt, sampling, **lora)
            except ValueError as error:
                print(f"request {request.number}: {error}", file=sys.stderr, flush=True)
                send(answers, [vars(WorkerFailure(request.number, "rejected by the engine"))])
        if engine.has_unfinished_requests():
            send(answers, [vars(result_of(output)) for output in engine.step() if output.finished])


def adapter_arguments(folder: str | None) -> dict[str, Any]:
    """Arguments of each request for a LoRA adapter; none without one."""
    if folder is None:
        return {}
    from vllm.lora.request import LoRARequest

    return {"lora_request": LoRARequest("adapter", 1, folder)}


def result_of(output: Any) -> WorkerAnswer | WorkerFailure:
    """The result of one of vLLM's ``RequestOutput``."""
    number, completion = int(output.request_id), output.outputs[0]
    if completion.finish_reason not in ("stop", "length"):
        return WorkerFailure(number, f"finish reason {completion.finish_reason}")
    return WorkerAnswer(number, completion.text, list(completion.token_ids), completion.finish_reason)


def send(answers: TextIO, rows: Iterable[dict[str, Any]]) -> None:
    """Write rows at once; nothing where ``rows`` is empty."""
    if lines := "".join(f"{json.dumps(row)}\n" for row in rows):
        answers.write(lines)
        answers.flush()


if __name__ == "__main__":
    main()
