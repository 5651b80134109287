"""A fake vLLM for worker processes: the same calls, and real processes to kill, without a model.

A prompt ``[length, ...]`` gets ``length`` tokens, one per step; a rendered prompt, which starts with the token 0, gets
1 to 30. The text is the id of the engine's process, and the ranks of a LoRA adapter. A prompt may also contain POISON,
HANG or REFUSED. As in vLLM, a child process does the work and does not notice when its parent dies.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

__version__ = "0.0-fake"

POISON, HANG, REFUSED = 666, 667, 668
CORE = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(3600)"


class SamplingParams:
    def __init__(
        self, *, max_tokens: int, seed: int, temperature: float, top_p: float, top_k: int, stop_token_ids: Any
    ) -> None:
        self.max_tokens = max_tokens


class LLM:
    """``start`` is what its start does: ``fails`` or ``hangs``; it succeeds by default."""

    def __init__(
        self,
        model: str,
        *,
        trust_remote_code: bool,
        generation_config: str,
        tensor_parallel_size: int = 1,
        dtype: str = "auto",
        max_num_seqs: int = 4,
        max_model_len: int = 2000,
        pace: float = 0.001,
        start: str = "",
        enable_lora: bool = False,
        max_lora_rank: int = 16,
    ) -> None:
        assert not trust_remote_code
        assert generation_config == "vllm"
        if start == "fails":
            raise RuntimeError("out of device memory")
        if start == "hangs":
            time.sleep(3600)
        self.core = subprocess.Popen([sys.executable, "-c", CORE])
        self.pace = pace
        self.max_lora_rank = max_lora_rank if enable_lora else 0
        self.model_config = SimpleNamespace(max_model_len=max_model_len)
        self.vllm_config = SimpleNamespace(scheduler_config=SimpleNamespace(max_num_seqs=max_num_seqs))
        self.llm_engine = self
        self.adapter = ""
        self.open: dict[str, list[Any]] = {}

    def add_request(
        self, name: str, prompt: dict[str, list[int]], sampling: SamplingParams, lora_request: Any = None
    ) -> None:
        if lora_request is not None:
            adapter = json.loads((Path(lora_request.lora_path) / "adapter_config.json").read_text())
            assert lora_request.lora_int_id > 0
            assert adapter["r"] <= self.max_lora_rank
            self.adapter = f" with rank {adapter['r']} of at most {self.max_lora_rank}"
        ids = prompt["prompt_token_ids"]
        if REFUSED in ids:
            raise ValueError("Token id 668 is out of vocabulary")
        wanted = ids[0] or 1 + sum(ids) % 30
        self.open[name] = [ids, wanted, min(wanted, sampling.max_tokens), 0]

    def has_unfinished_requests(self) -> bool:
        return bool(self.open)

    def step(self) -> list[Any]:
        time.sleep(self.pace)
        if self.core.poll() is not None:
            raise RuntimeError("the core is dead")
        outputs = []
        for name in list(self.open)[: self.vllm_config.scheduler_config.max_num_seqs]:
            ids, wanted, length, said = self.open[name]
            if POISON in ids:
                os.kill(os.getpid(), signal.SIGKILL)
            if HANG in ids:
                time.sleep(3600)
            self.open[name][3] += 1
            if said + 1 == length:
                del self.open[name]
                finish = "stop" if length == wanted else "length"
                answer = SimpleNamespace(
                    finish_reason=finish, text=f"{os.getpid()}{self.adapter}", token_ids=[7] * length
                )
                outputs.append(SimpleNamespace(request_id=name, finished=True, outputs=[answer]))
        return outputs
