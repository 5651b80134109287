"""Two real processes on the CPU: the same weights as one, one clear error, nobody left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from spotcli.errors import SpotError
from spotcli.stages.launch import deepspeed_config
from spotcli.stages.train import train
from tests.stages.test_train import apart, metrics, pair, recipe, write

# Each start of two ranks takes seconds: the default tests take one of a kind, SPOT_SLOW=1 all.
slow = pytest.mark.skipif(not os.environ.get("SPOT_SLOW"), reason="SPOT_SLOW=1 runs it")

SGD = {"optim": "sgd", "learning_rate": 0.1}

# `spot train` in a process of its own.
RUN = """
import sys
from pathlib import Path
from spotcli.recipe import Recipe
from spotcli.stages.train import train
train(Recipe.model_validate_json(sys.argv[1]), folder=Path(sys.argv[2]))
"""


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.mark.parametrize("zero", [pytest.param(0, marks=slow), 2, pytest.param(3, marks=slow)])
def test_two_ranks_learn_what_one_process_learns(tiny_model: Path, tmp_path: Path, zero: int) -> None:
    # 17 pairs in steps of 8: in the last step of an epoch, one pair for two ranks, one of which idles.
    write(tmp_path, [pair(number) for number in range(17)])
    train(recipe(tiny_model, output="one", **SGD), folder=tmp_path)
    summary = train(recipe(tiny_model, output="two", processes=2, zero=zero, **SGD), folder=tmp_path)
    assert (summary.pairs, summary.batch_size, summary.steps) == (17, 8, 6)
    assert apart(tmp_path / "one", tmp_path / "two") < 2e-6
    assert apart(tmp_path / "one", tiny_model) > 1e-4
    one, two = metrics(tmp_path / "one"), metrics(tmp_path / "two")
    for name in ("loss", "shift", "grad_norm", "pairs"):
        assert [row[name] for row in two] == pytest.approx([row[name] for row in one], rel=1e-4, abs=1e-5), name
    assert (tmp_path / "reference.jsonl").read_text().count("\n") == 17


def test_the_error_of_the_rank_that_failed_first(tiny_model: Path, tmp_path: Path) -> None:
    rows = [pair(number) for number in range(8)]
    write(tmp_path, rows)
    train(recipe(tiny_model, output="one", num_train_epochs=1), folder=tmp_path)
    known = [json.loads(line) for line in (tmp_path / "reference.jsonl").read_text().splitlines()]
    write(tmp_path, [row | {"chosen": row["chosen"] - 1.0} for row in known], "reference.jsonl")
    with pytest.raises(SpotError, match="policy = reference demands") as caught:
        train(recipe(tiny_model, output="two", processes=2, zero=0), folder=tmp_path)
    assert "reference.jsonl" in str(caught.value.cure)


def ranks_of(parent: int) -> list[int]:
    """Processes that were launched for training by a process, however deep."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = (folder / "environ").read_bytes()
        except OSError:
            continue
        if f"SPOT_PARENT={parent}".encode() in environment.split(b"\0") and (folder / "cmdline").read_bytes():
            found.append(int(folder.name))
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("how", [signal.SIGINT, pytest.param(signal.SIGKILL, marks=slow)])
def test_nobody_is_left_behind(tiny_model: Path, tmp_path: Path, how: signal.Signals) -> None:
    write(tmp_path, [pair(number) for number in range(20)])
    settings = recipe(tiny_model, processes=2, zero=0, num_train_epochs=5000).model_dump_json()
    spot = subprocess.Popen(
        [sys.executable, "-c", RUN, settings, str(tmp_path)], stderr=subprocess.DEVNULL, start_new_session=True
    )
    metrics_file = tmp_path / "checkpoint" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (metrics_file.exists() and metrics_file.stat().st_size) and time.monotonic() < deadline:
        assert spot.poll() is None
        time.sleep(0.1)
    assert len(ranks_of(spot.pid)) >= 2
    os.kill(spot.pid, how)
    assert spot.wait(60) != 0
    deadline = time.monotonic() + 30
    while ranks_of(spot.pid) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert ranks_of(spot.pid) == []


def test_deepspeed_is_told_how_to_clip() -> None:
    assert deepspeed_config(2)["gradient_clipping"] == "auto"
    assert deepspeed_config(3)["zero_optimization"]["stage3_gather_16bit_weights_on_model_save"] is True
