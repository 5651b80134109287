"""Which engine ``auto`` picks, and the GPUs that are there."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from spotcli.policies import engine_choice
from spotcli.policies.engine_choice import choose, visible_gpus
from spotcli.recipe import SampleSection

NAME_IT = "sample.python can name where it is"


@pytest.mark.parametrize(
    ("keys", "gpus", "installed", "engine", "why"),
    [
        ({}, 0, False, "transformers", "no GPU is visible"),
        ({}, 0, True, "transformers", "no GPU is visible"),
        ({}, 2, True, "vllm", "it is installed, and 2 GPUs are visible"),
        ({}, 1, False, "transformers", f"1 GPU is visible, but vLLM is not installed ({NAME_IT})"),
        ({"python": "/vllm/bin/python"}, 1, False, "vllm", "sample.python names its interpreter, and 1 GPU is visible"),
        ({"python": "/vllm/bin/python"}, 0, True, "transformers", "no GPU is visible"),
        ({"base_url": "http://gpu-box:8000/v1"}, 8, True, "api", "sample.base_url names an endpoint"),
        ({"engine": "vllm"}, 0, False, "vllm", "as asked"),
        ({"engine": "transformers", "base_url": "http://gpu-box:8000/v1"}, 8, True, "transformers", "as asked"),
    ],
)  # fmt: skip
def test_auto_picks_by_what_is_there_and_says_why(
    keys: dict[str, Any], gpus: int, installed: bool, engine: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_choice, "visible_gpus", lambda: [str(number) for number in range(gpus)])
    monkeypatch.setattr(engine_choice, "find_spec", lambda name: object() if installed else None)
    assert choose(SampleSection(**keys)) == (engine, why)


@pytest.mark.parametrize(
    ("named", "gpus"),
    [("", []), ("-1", []), ("0", ["0"]), ("2, 5", ["2", "5"]), ("GPU-8f3a,MIG-1", ["GPU-8f3a", "MIG-1"])],
)
def test_named_gpus_are_the_visible_ones(named: str, gpus: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert visible_gpus() == gpus


@pytest.mark.parametrize(("code", "gpus"), [("print('0\\n1')", ["0", "1"]), ("raise SystemExit(9)", [])])
def test_else_the_drivers_own_tool_is_asked(
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
