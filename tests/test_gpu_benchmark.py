"""benchmarks/gpu.py on the CPU: every part with small models, its tables, and a run that is cut short."""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gpu
import gpu_parts
import gpu_report
import pytest

Row = dict[str, Any]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[gpu.Results]:
    """The results of `gpu.py --device cpu --tiny`, without its second process."""
    folder = tmp_path_factory.mktemp("gpu")
    results = gpu.Results(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        patch.setattr(gc, "collect", lambda *given: 0)  # accelerate calls it after each training
        machine = gpu.machine_of(argparse.Namespace(device="cpu", tiny=True, folder=folder))
        gpu.work(results, machine, [part.name for part in gpu_parts.PARTS], time.time() + 3600)
        yield results


pytestmark = pytest.mark.filterwarnings("ignore")  # transformers and TRL deprecate each other's names


def test_every_part_runs(tiny: gpu.Results) -> None:
    ends = {row["part"]: row for row in tiny.rows() if row.get("status") in ("done", "failed", "not run")}
    assert [*ends] == [part.name for part in gpu_parts.PARTS]
    assert {name: row.get("reason") for name, row in ends.items() if row["status"] != "done"} == {}
    assert gpu.exit_code(tiny.rows()) == 0


def test_speed_is_measured_on_the_same_pairs(tiny: gpu.Results) -> None:
    rows = {row["name"]: row for row in tiny.rows() if "pairs_per_second" in row}
    shared, plain = rows["8B LoRA, late, spot"], rows["8B LoRA, late, not shared"]
    assert rows["8B LoRA, late, TRL"]["pairs_per_second"] > 0
    # Policy = reference: 2 log 2, in both layouts.
    assert shared["first_loss"] == pytest.approx(1.386294, abs=1e-3) == pytest.approx(plain["first_loss"], abs=1e-3)
    # A late edit: nearly half of the tokens are not computed again.
    assert 0.5 < shared["operations"] / plain["operations"] < 0.7
    assert shared["estimate_gib"] < plain["estimate_gib"]


def test_a_cpu_measures_no_goal(tiny: gpu.Results) -> None:
    report = json.loads((tiny.folder / "gpu.json").read_text())
    assert [goal["result"] for goal in report["goals"]] == ["not measured"] * 4
    text = (tiny.folder / "gpu.md").read_text()
    assert "say nothing about speed" in text
    for row in tiny.rows():
        assert str(row.get("side", row.get("option", ""))) in text


def speed_row(name: str, pairs: float, **more: Any) -> Row:
    shape, edit, side = name.split(", ")
    return {"part": "speed", "name": name, "shape": shape, "edit": edit, "side": side, "seconds": 2.0,
            "pairs_per_second": pairs, "tokens_per_second": 1.0, "peak_gib": None, **more}  # fmt: skip


def test_goals_by_hand(tmp_path: Path) -> None:
    rows: list[Row] = [
        {"part": "machine", "name": "machine", "device": "NVIDIA H200", "tiny": False, "peak_teraflops": 989.0,
         "torch": "2", "transformers": "5", "accelerate": "1", "peft": "0", "matmul_teraflops": 780.0,
         "copy_gigabytes": 4300.0},
        # 989e12 * 0.5 * 2 seconds: half of the peak.
        speed_row("8B LoRA, late, spot", 6.2, operations=989e12, peak_gib=55.0, estimate_gib=50.0),
        speed_row("8B LoRA, late, not shared", 3.1, operations=1.5e15, peak_gib=60.0, estimate_gib=60.0),
        speed_row("8B LoRA, late, TRL", 2.0),
        speed_row("1.7B, late, spot", 9.0, operations=1e15, peak_gib=36.0, estimate_gib=40.0),
        speed_row("1.7B, late, not shared", 10.0, operations=1e15),
        {"part": "speed", "name": "1.7B, late, TRL", "shape": "1.7B", "edit": "late", "side": "TRL",
         "out_of_memory": "CUDA out of memory | tried"},
    ]  # fmt: skip
    goals = gpu_report.goals(rows)
    values = [goal["value"] for goal in goals]
    # 6.2 / 2; 9 / 10 is the smallest; 0.5; 36 / 40 is as far from 1 as 55 / 50.
    assert values == [pytest.approx(3.1), pytest.approx(0.9), pytest.approx(0.5), pytest.approx(1.1)]
    assert [goal["result"] for goal in goals] == ["reached", "missed", "reached", "reached"]
    gpu_report.write(tmp_path, rows)
    assert "| 1.7B | late | TRL | out of memory |" in (tmp_path / "gpu.md").read_text()


CHILD = """
import sys, time
sys.path[:0] = [{benchmarks!r}]
import gpu
from pathlib import Path
results = gpu.Results(Path({folder!r}))
for name in sys.argv[1:]:
    results.add(dict(part=name, status="started", at=time.time(), limit=0.5 if name == "hangs" else 60))
    results.add(dict(part=name, name=name + " measured"))
    if name == "crashes":
        import os; os.abort()
    if name == "hangs":
        time.sleep(60)
    results.add(dict(part=name, status="done"))
"""


def test_a_part_that_crashes_or_hangs_does_not_stop_the_others(tmp_path: Path) -> None:
    results = gpu.Results(tmp_path)
    source = CHILD.format(benchmarks=str(Path(gpu.__file__).parent), folder=str(tmp_path))

    def command(names: Sequence[str]) -> list[str]:
        return [sys.executable, "-c", source, *names]

    gpu.supervise(results, ["first", "crashes", "hangs", "last"], time.time() + 60, command)
    ends = [row for row in results.rows() if row.get("status") in ("done", "failed", "not run")]
    assert [(row["part"], row["status"], row.get("reason")) for row in ends] == [
        ("first", "done", None), ("crashes", "failed", "the process ended with exit code -6"),
        ("hangs", "failed", "it took too long"), ("last", "done", None),
    ]  # fmt: skip
    # What they measured before is kept.
    assert {row["name"] for row in results.rows() if "name" in row} == {
        f"{name} measured" for name in ("first", "crashes", "hangs", "last")
    }
    assert gpu.exit_code(results.rows()) == 1


def test_without_time_parts_are_not_started(tmp_path: Path) -> None:
    results = gpu.Results(tmp_path)
    gpu.supervise(results, ["machine"], time.time() - 1, lambda names: [sys.executable, "-c", "1"])
    machine: Any = object()
    gpu.work(results, machine, ["architectures"], time.time() + 5)
    assert [(row["part"], row["reason"]) for row in results.rows()] == [
        ("machine", "the time was over"), ("architectures", "the time was over"),
    ]  # fmt: skip
    assert gpu.exit_code(results.rows()) == 3


def test_devices_by_the_names_that_torch_gives() -> None:
    assert gpu_parts.device_key("NVIDIA H200") == "h200"
    assert gpu_parts.device_key("NVIDIA H100 80GB HBM3") == "h100"
    assert gpu_parts.device_key("NVIDIA A100-SXM4-80GB") == "a100"
    assert gpu_parts.device_key("cpu") is None
