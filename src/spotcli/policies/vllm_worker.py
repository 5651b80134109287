"""One vLLM engine in a process of its own: requests come in on stdin, answers go out on stdout, a JSON object a line.

    PYTHON -P vllm_worker.py

Runs in whatever environment has vLLM, so it imports nothing else that is not in the standard library, and it is
launched by path. A small guard process stands around the engine: when the command that started us is gone, or the
engine is, it ends the whole process group, because an engine's own children do not notice that their parent died.

    in    {"model", "engine": {...}, "sampling": {...}}, then {"n", "ids", "seed"} ...
    out   {"ready": {"capacity", "context", "vllm"}}, then {"n", "text", "ids", "finish"} or {"n", "failed"} ...;
          {"alive": true} now and then
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
from typing import Any, TextIO

# Seconds that the engine has to end by itself before its group is killed.
GRACE = 5.0
# Seconds between two signs of life.
BEAT = 10.0


def main() -> None:
    engine = os.fork()
    if engine:
        guard(engine)
    # What vLLM and its children print belongs to the log; answers have a channel of their own.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    serve(answers)
    answers.close()


def guard(engine: int) -> None:
    """Wait until the engine ends or our starter's end of stdin is closed; then leave nothing of the group behind."""
    os.close(1)
    starter = select.poll()
    # No event is asked for: a hang-up is always told, and what is in the pipe is the engine's.
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
        # Everybody else of the group gets a moment; who is left is killed below.
        os.killpg(0, signal.SIGTERM)
        time.sleep(0.2)
    os.killpg(0, signal.SIGKILL)


def serve(answers: TextIO) -> None:
    """Answer until stdin ends."""
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")  # who samples what is nobody's business
    import vllm
    from vllm import LLM, SamplingParams
    from vllm.inputs import TokensPrompt

    config = json.loads(sys.stdin.readline())
    # Of the model's own defaults nothing is taken: what is asked for is what is done.
    llm = LLM(config["model"], trust_remote_code=False, generation_config="vllm", **config["engine"])
    engine = llm.llm_engine
    capacity = engine.vllm_config.scheduler_config.max_num_seqs
    context = llm.model_config.max_model_len
    send(answers, [{"ready": {"capacity": capacity, "context": context, "vllm": vllm.__version__}}])

    inbox: queue.SimpleQueue[str] = queue.SimpleQueue()

    def listen() -> None:
        for line in sys.stdin:
            inbox.put(line)
        inbox.put("")

    threading.Thread(target=listen, daemon=True).start()
    told = time.monotonic()
    while True:
        if time.monotonic() - told > BEAT:
            send(answers, [{"alive": True}])
            told = time.monotonic()
        while not inbox.empty() or not engine.has_unfinished_requests():
            try:
                line = inbox.get(timeout=BEAT)
            except queue.Empty:
                break
            if not line:
                return
            asked = json.loads(line)
            room = min(config["sampling"]["max_tokens"], context - len(asked["ids"]))
            if room <= 0:
                send(answers, [{"n": asked["n"], "failed": "the prompt fills the context"}])
                continue
            sampling = SamplingParams(**config["sampling"] | {"max_tokens": room}, seed=asked["seed"])
            try:
                engine.add_request(str(asked["n"]), TokensPrompt(prompt_token_ids=asked["ids"]), sampling)
            except ValueError as error:
                print(f"request {asked['n']}: {error}", file=sys.stderr, flush=True)
                send(answers, [{"n": asked["n"], "failed": "the engine refuses it"}])
        if engine.has_unfinished_requests():
            send(answers, [as_row(output) for output in engine.step() if output.finished])


def as_row(output: Any) -> dict[str, Any]:
    said = output.outputs[0]
    if said.finish_reason not in ("stop", "length"):
        return {"n": int(output.request_id), "failed": f"the engine says {said.finish_reason}"}
    ids = list(said.token_ids)
    return {"n": int(output.request_id), "text": said.text, "ids": ids, "finish": said.finish_reason}


def send(answers: TextIO, rows: list[dict[str, Any]]) -> None:
    if rows:
        answers.write("".join(f"{json.dumps(row)}\n" for row in rows))
        answers.flush()


if __name__ == "__main__":
    main()
