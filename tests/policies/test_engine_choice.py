"""The engine that ``auto`` chooses, and the visible GPUs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from spotcli.policies import engine_choice
from spotcli.policies.engine_choice import EngineChoice, choose_engine, visible_gpus
from spotcli.recipe import SampleSection

NAME_IT = "sample.python can name an interpreter that has it"


@pytest.mark.parametrize(
    ("keys", "gpus", "installed", "engine", "reason"),
    [
        ({}, 0, False, "transformers", "no GPU is visible"),
        ({}, 0, True, "transformers", "no GPU is visible"),
        ({}, 2, True, "vllm", "vLLM is installed and 2 GPUs are visible"),
        ({}, 1, False, "transformers", f"1 GPU is visible, but vLLM is not installed ({NAME_IT})"),
        ({"python": "/vllm/bin/python"}, 1, False, "vllm", "sample.python is set and 1 GPU is visible"),
        ({"python": "/vllm/bin/python"}, 0, True, "transformers", "no GPU is visible"),
        ({"base_url": "http://gpu-box:8000/v1"}, 8, True, "api", "sample.base_url is set"),
        ({"engine": "vllm"}, 0, False, "vllm", "set by sample.engine"),
        ({"engine": "transformers", "base_url": "http://gpu:80/v1"}, 8, True, "transformers", "set by sample.engine"),
    ],
)  # fmt: skip
def test_auto_chooses_an_engine_and_gives_the_reason(
    keys: dict[str, Any], gpus: int, installed: bool, engine: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_choice, "visible_gpus", lambda: [str(number) for number in range(gpus)])
    monkeypatch.setattr(engine_choice, "find_spec", lambda name: object() if installed else None)
    assert choose_engine(SampleSection(**keys)) == EngineChoice(engine, reason)


@pytest.mark.parametrize(
    ("named", "gpus"),
    [("", []), ("-1", []), ("0", ["0"]), ("2, 5", ["2", "5"]), ("GPU-8f3a,MIG-1", ["GPU-8f3a", "MIG-1"])],
)
def test_the_environment_names_the_visible_gpus(named: str, gpus: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert visible_gpus() == gpus


@pytest.mark.parametrize(("code", "gpus"), [("print('0\\n1')", ["0", "1"]), ("raise SystemExit(9)", [])])
def test_otherwise_nvidia_smi_lists_the_gpus(
    code: str, gpus: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!{sys.executable}\n{code}\n")
    tool.chmod(0o755)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert visible_gpus() == gpus
    tool.unlink()
    assert visible_gpus() == []
