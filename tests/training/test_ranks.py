"""Two real processes on the CPU: the same weights as one process, one clear error, no process left over."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from spotcli.core.forward.batches import Layout
from spotcli.core.forward.encoding import Encoded, EncodedPair
from spotcli.errors import RecipeError, SpotError
from spotcli.recipe import TrainSection
from spotcli.stages.train import train
from spotcli.training.cluster import first_host, with_slurm
from spotcli.training.data import PrefixSharing, TrainingData
from spotcli.training.launcher import deepspeed_config, free_port, write_config
from spotcli.training.plan import TrainPlan
from spotcli.training.rank import Ranks, cure_of
from spotcli.training.session import training_arguments
from spotcli.training.starting_model import StartingModel
from tests.stages.test_train import apart, kept, metrics, pair, recipe, write

# Starting two processes takes seconds: by default one test of each kind runs, with SPOT_SLOW=1 all.
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


KINDS: dict[str, dict[str, Any]] = {
    "plain": {"zero": 0},
    "zero2": {"zero": 2},
    "zero3": {"zero": 3},
    "zero3-offload": {"zero": 3, "offload": "all"},
    "fsdp": {"fsdp": True},
    "fsdp-compiled": {"fsdp": True, "compile_norms": True},
}


@pytest.mark.parametrize("kind", [kind if kind == "zero2" else pytest.param(kind, marks=slow) for kind in KINDS])
def test_two_processes_train_like_one(
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "compiled"))
    # 17 pairs in steps of 8: the last step of an epoch has one pair, so one of the two processes idles.
    write(tmp_path, [pair(number) for number in range(17)])
    train(recipe(tiny_model, output="one", **SGD), folder=tmp_path)
    # The processes compute the reference again.
    (tmp_path / "reference.jsonl").unlink()
    checks = {"check_every": 4, "check_problems": 3}
    summary = train(recipe(tiny_model, output="two", processes=2, **checks, **KINDS[kind], **SGD), folder=tmp_path)
    assert (summary.pairs, summary.batch_size, summary.steps) == (17, 8, 6)
    assert apart(tmp_path / "one", tmp_path / "two") < 2e-6
    assert apart(tmp_path / "one", tiny_model) > 1e-4
    one, two = metrics(tmp_path / "one"), metrics(tmp_path / "two")
    for name in ("loss", "shift", "grad_norm", "pairs"):
        assert [row[name] for row in two] == pytest.approx([row[name] for row in one], rel=1e-4, abs=1e-5), name
    assert (tmp_path / "reference.jsonl").read_text().count("\n") == 17
    # Three problems, whose answers a random model never ends; no checks if the weights are divided.
    whole = kind in ("plain", "zero2")
    assert [row.get("check_truncated") for row in two] == [
        None,
        None,
        None,
        3 if whole else None,
        None,
        3 if whole else None,
    ]
    messages = shown(capsys)
    assert ("generation checks are off" in messages) is not whole
    # Once for each run: the output of the two processes is in a log, so the command shows it.
    assert messages.count("saved in float32, without rounding: the file has 100% of the update") == 2
    # A process that is killed while it compiles leaves a lock for which later runs would wait.
    assert not (tmp_path / "compiled").exists()
    # The sources of the values are the user's, not the files of the launch.
    assert "spot-launch" not in (tmp_path / "two" / "recipe.yaml").read_text()


@slow
@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_train_surgical_objectives_like_one(tiny_model: Path, tmp_path: Path, kind: str) -> None:
    # 11 pairs and 6 rows without y-, in steps of 8: one of the two processes idles in the last step of an epoch.
    write(tmp_path, [*(pair(number) for number in range(11)), *(kept(number) for number in range(6))])
    for name, section in (
        ("focal", {"objective": "spot-focal", "kept_kl": 1.0}),
        ("sft", {"objective": "sft", "kept_weight": 0.2, "suffix_weight": 0.0}),
    ):
        train(recipe(tiny_model, output=f"{name}-1", **section, **SGD), folder=tmp_path)
        (tmp_path / "reference.jsonl").unlink(missing_ok=True)
        train(recipe(tiny_model, output=f"{name}-2", processes=2, **section, **KINDS[kind], **SGD), folder=tmp_path)
        assert apart(tmp_path / f"{name}-1", tmp_path / f"{name}-2") < 2e-6
        assert apart(tmp_path / f"{name}-1", tiny_model) > 1e-4
        one, two = metrics(tmp_path / f"{name}-1"), metrics(tmp_path / f"{name}-2")
        # A step without pairs, or without rows of the other kind, lacks their rewards.
        for column in ("loss", "shift", "pairs", "rewards_kept", "rewards_error", "kl_kept"):
            expected, values = ([row.get(column, 0.0) for row in rows] for rows in (one, two))
            assert values == pytest.approx(expected, rel=1e-4, abs=1e-5), column


@pytest.fixture(scope="module")
def one_process(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of one process, 48 pairs in 6 steps of 1 x 16; the other layouts train like it."""
    folder = tmp_path_factory.mktemp("layouts")
    write(folder, [pair(number) for number in range(48)])
    train(recipe(tiny_model, output="1x16", **layout_of(16, 1)), folder=folder)
    assert apart(folder / "1x16", tiny_model) > 1e-3
    return folder


def layout_of(micro: int, accumulate: int, **section: Any) -> dict[str, Any]:
    batch = {"per_device_train_batch_size": micro, "gradient_accumulation_steps": accumulate}
    return {"batch_size": 16, "shift": "running", **batch, **SGD, **section}


LAYOUTS: dict[str, dict[str, Any]] = {
    "4x4": layout_of(4, 4),
    "16x1": layout_of(1, 16),
    "2-ranks": layout_of(4, 2, processes=2, zero=0),
    "2-ranks-zero2": layout_of(4, 2, processes=2, zero=2),
    "2-ranks-zero3": layout_of(4, 2, processes=2, zero=3),
}


@pytest.mark.parametrize("name", [name if "ranks" not in name else pytest.param(name, marks=slow) for name in LAYOUTS])
def test_the_layout_does_not_change_the_weights(one_process: Path, tiny_model: Path, name: str) -> None:
    summary = train(recipe(tiny_model, output=name, **LAYOUTS[name]), folder=one_process)
    assert (summary.pairs, summary.batch_size, summary.steps) == (48, 16, 6)
    # In float32. The weights change by at most 0.05, so a pair counted twice or a missing average would show.
    assert apart(one_process / "1x16", one_process / name) < 2e-6
    one, other = metrics(one_process / "1x16"), metrics(one_process / name)
    for column in ("loss", "shift", "grad_norm", "pairs", "rewards_chosen", "rewards_rejected"):
        assert [row[column] for row in other] == pytest.approx([row[column] for row in one], rel=1e-4, abs=1e-5), column


def test_error_of_the_first_failed_process_is_raised(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [pair(number) for number in range(8)]
    write(tmp_path, rows)
    train(recipe(tiny_model, output="one", num_train_epochs=1), folder=tmp_path)
    known = [json.loads(line) for line in (tmp_path / "reference.jsonl").read_text().splitlines()]
    write(tmp_path, [row | {"chosen": row["chosen"] - 1.0} for row in known], "reference.jsonl")
    with pytest.raises(SpotError, match="policy equals reference") as caught:
        train(recipe(tiny_model, output="two", processes=2, zero=0), folder=tmp_path)
    assert "reference.jsonl" in str(caught.value.cure)
    # Before the first step, the launching process shows what the main process does.
    shown = capsys.readouterr().err.partition("2 processes, plain data parallel")[2].splitlines()
    assert shown[1:] == [f"loading {tiny_model}", "computing the reference of 8 pairs", "training"]


def shown(capsys: pytest.CaptureFixture[str]) -> str:
    """What was shown since the last call, in one line."""
    return " ".join(capsys.readouterr().err.split())


def ranks_of(parent: int) -> list[int]:
    """Ids of the training processes that a process launched, directly or not."""
    ids = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = (folder / "environ").read_bytes()
        except OSError:
            continue
        if f"SPOT_PARENT={parent}".encode() in environment.split(b"\0") and (folder / "cmdline").read_bytes():
            ids.append(int(folder.name))
    return ids


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("how", [signal.SIGINT, pytest.param(signal.SIGKILL, marks=slow)])
def test_no_process_is_left_over(tiny_model: Path, tmp_path: Path, how: signal.Signals) -> None:
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


@slow
@pytest.mark.parametrize("kind", ["zero2", "zero3", "fsdp"])
def test_two_killed_processes_resume_to_the_same_weights(tiny_model: Path, tmp_path: Path, kind: str) -> None:
    write(tmp_path, [pair(number) for number in range(20)])
    # 90 steps in float32, with the state of AdamW and of the running shift.
    settings = {"processes": 2, "num_train_epochs": 30, "save_steps": 20, "shift": "running", **KINDS[kind]}
    train(recipe(tiny_model, output="whole", **settings), folder=tmp_path)
    given = recipe(tiny_model, output="killed", **settings).model_dump_json()
    spot = subprocess.Popen(
        [sys.executable, "-c", RUN, given, str(tmp_path)], stderr=subprocess.DEVNULL, start_new_session=True
    )
    killed = tmp_path / "killed"
    deadline = time.monotonic() + 200
    while not (killed / "checkpoint-20" / "spot-state.json").exists() and time.monotonic() < deadline:
        assert spot.poll() is None
        time.sleep(0.02)
    # On CPUs accelerate would train with DDP instead of FSDP2.
    assert (killed / "checkpoint-20" / "pytorch_model_fsdp_0").exists() is (kind == "fsdp")
    for rank in ranks_of(spot.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(rank, signal.SIGKILL)
    spot.kill()
    spot.wait()
    assert not (killed / "model.safetensors").exists(), "the run was over before it was killed"
    summary = train(recipe(tiny_model, output="killed", **settings), folder=tmp_path)
    assert summary.resumed_from is not None
    assert summary.resumed_from >= 20
    assert apart(tmp_path / "whole", killed) == 0.0
    whole, again = metrics(tmp_path / "whole"), metrics(killed)
    for name in ("step", "loss", "shift"):
        assert [row[name] for row in again] == [row[name] for row in whole], name


@slow
@pytest.mark.parametrize("kind", ["zero3", "fsdp"])
def test_untied_output_layer_is_saved(tiny_model: Path, tmp_path: Path, kind: str) -> None:
    import torch
    from transformers import LlamaForCausalLM

    untied = tmp_path / "untied"
    shutil.copytree(tiny_model, untied)
    model = LlamaForCausalLM.from_pretrained(tiny_model)
    model.config.tie_word_embeddings = False
    LlamaForCausalLM(model.config).save_pretrained(untied)
    write(tmp_path, [pair(number) for number in range(17)])
    train(recipe(untied, output="one", **SGD), folder=tmp_path)
    train(recipe(untied, output="two", processes=2, **KINDS[kind], **SGD), folder=tmp_path)
    assert apart(tmp_path / "one", tmp_path / "two") < 2e-6
    head = LlamaForCausalLM.from_pretrained(tmp_path / "two").lm_head.weight
    assert not torch.equal(head, LlamaForCausalLM.from_pretrained(untied).lm_head.weight)


SURVIVALS: dict[str, dict[str, Any]] = {
    "fsdp": {"rounding": "nearest"},
    "fsdp-compiled": {"rounding": "stochastic", "compile_norms": True},
    "fsdp-offload": {"rounding": "nearest", "offload": "all"},
    "fsdp-untied-sft": {"rounding": "nearest", "objective": "sft"},
}


def bfloat16_model(tiny_model: Path, folder: Path, *, tied: bool = True) -> Path:
    """A model of the same size with bfloat16 weights, with a separate output layer if not ``tied``."""
    import torch
    from transformers import LlamaForCausalLM

    shutil.copytree(tiny_model, folder)
    model = LlamaForCausalLM.from_pretrained(tiny_model)
    model.config.tie_word_embeddings = tied
    torch.manual_seed(0)
    LlamaForCausalLM(model.config).bfloat16().save_pretrained(folder)
    return folder


@slow
@pytest.mark.parametrize("kind", SURVIVALS)
def test_what_survives_saving_is_measured_like_in_one_process(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    model = bfloat16_model(tiny_model, tmp_path / "model", tied="untied" not in kind)
    write(tmp_path, [pair(number) for number in range(17)])
    # AdamW moves a weight by at most 6e-5 in six steps; half the spacing of bfloat16 numbers around 0.02 is 6e-5.
    section = {"learning_rate": 1e-5, **SURVIVALS[kind]}
    alone = {name: value for name, value in section.items() if name not in ("offload", "compile_norms")}
    one = train(recipe(model, output="one", **alone), folder=tmp_path).saved
    capsys.readouterr()
    two = train(recipe(model, output="two", processes=2, fsdp=True, **section), folder=tmp_path).saved
    assert one is not None
    assert two is not None
    assert one.margin is not None
    assert one.margin_change is not None
    assert abs(one.margin_change) > 0.01
    # Two processes add the same gradients in another order. One unit of float32 at the 30 nats of a log-probability is
    # 2e-6, or 5e-5 of a change of 0.04 nats; compiled norms add a few units. A share differs by less than ten of them.
    assert two.margin_change == pytest.approx(one.margin_change, rel=5e-4)
    assert two.margin == pytest.approx(one.margin, abs=5e-4)
    assert two.update == pytest.approx(one.update, abs=1e-4)
    assert (two.pairs, two.dtype, two.rounding) == (16, "bfloat16", section["rounding"])
    assert f"the file has {two.update:.0%} of the update and {two.margin:.0%} of" in shown(capsys)


@slow
def test_fsdp_ends_if_the_weights_exceed_the_format_of_the_file(tiny_model: Path, tmp_path: Path) -> None:
    """The other process waits for the saved weights."""
    from transformers import LlamaForCausalLM

    large = tmp_path / "large"
    shutil.copytree(tiny_model, large)
    model = LlamaForCausalLM.from_pretrained(tiny_model)
    model.model.layers[0].mlp.down_proj.weight.data[0, 0] = 1e6
    model.save_pretrained(large)
    write(tmp_path, [pair(number) for number in range(8)])
    section = {"objective": "sft", "learning_rate": 1e-9, "num_train_epochs": 1, "save_dtype": "float16"}
    with pytest.raises(SpotError, match=r"exceeds the largest torch\.float16") as error:
        train(recipe(large, processes=2, fsdp=True, **section), folder=tmp_path)
    assert error.value.cure == "set train.save_dtype to bfloat16 or float32"


@slow
def test_two_machines_train_together(tiny_model: Path, tmp_path: Path) -> None:
    # Both on this machine: each starts one process, and they connect to one address.
    write(tmp_path, [pair(number) for number in range(17)])
    train(recipe(tiny_model, output="one", **SGD), folder=tmp_path)
    address = f"127.0.0.1:{free_port()}"
    machines = []
    for node in (0, 1):
        given = recipe(tiny_model, output="two", nodes=2, node=node, main_address=address, **SGD).model_dump_json()
        command = [sys.executable, "-c", RUN, given, str(tmp_path)]
        machines.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
    for machine in machines:
        _, stderr = machine.communicate(timeout=200)
        assert machine.returncode == 0, stderr
    assert apart(tmp_path / "one", tmp_path / "two") < 2e-6


def config(tmp_path: Path, **section: Any) -> dict[str, Any]:
    settings = recipe(Path("model"), **section)
    layout = Layout(settings.train.ranks, 1, settings.train.ranks)
    plan = TrainPlan(settings, tmp_path, StartingModel(), TrainingData(Encoded()), PrefixSharing(True), layout, Ranks())
    written: dict[str, Any] = json.loads(write_config(plan, tmp_path).read_text())
    return written


def test_fsdp_divides_the_gradients_after_each_micro_batch(tmp_path: Path) -> None:
    """Otherwise each process would keep the gradients of all weights until the last micro-batch of a step."""
    for section, reduced in (({"fsdp": True}, True), ({"zero": 0}, None)):
        settings = recipe(Path("model"), processes=2, **section)
        layout = Layout(8, accumulate=2, ranks=2)
        data = TrainingData(Encoded([EncodedPair((1,), (2,), (3,))] * 8))
        plan = TrainPlan(settings, tmp_path, StartingModel(), data, PrefixSharing(True), layout, Ranks())
        given = training_arguments(plan).accelerator_config.gradient_accumulation_kwargs or {}
        assert given.get("sync_each_batch") is reduced


def test_accelerate_configuration(tmp_path: Path) -> None:
    plain = config(tmp_path, processes=4, zero=0)
    assert (plain["distributed_type"], plain["num_processes"], plain["num_machines"]) == ("MULTI_GPU", 4, 1)
    second = config(tmp_path, processes=8, nodes=2, node=1, main_address="gpu03:4000")
    assert (second["distributed_type"], second["num_processes"], second["num_machines"]) == ("DEEPSPEED", 16, 2)
    assert (second["machine_rank"], second["main_process_ip"], second["main_process_port"]) == (1, "gpu03", 4000)
    written = json.loads(Path(second["deepspeed_config"]["deepspeed_config_file"]).read_text())
    assert written["zero_optimization"]["stage"] == 2
    assert "offload_optimizer" not in written["zero_optimization"]
    fsdp = config(tmp_path, processes=2, fsdp=True, offload="all")
    assert (fsdp["distributed_type"], fsdp["fsdp_config"]["fsdp_version"]) == ("FSDP", 2)
    assert fsdp["fsdp_config"]["fsdp_offload_params"] is True


def test_deepspeed_configuration() -> None:
    assert deepspeed_config(2)["gradient_clipping"] == "auto"
    assert deepspeed_config(3)["zero_optimization"]["stage3_gather_16bit_weights_on_model_save"] is True
    zero = deepspeed_config(3, "all")["zero_optimization"]
    assert (zero["offload_optimizer"]["device"], zero["offload_param"]["device"]) == ("cpu", "cpu")
    assert "offload_param" not in deepspeed_config(3, "optimizer")["zero_optimization"]


SLURM = {"SLURM_NNODES": "2", "SLURM_NODEID": "1", "SLURM_JOB_NODELIST": "gpu[03-05],x", "SLURM_JOB_ID": "41234"}


def test_machines_from_slurm() -> None:
    section = with_slurm(TrainSection(processes=8), SLURM)
    # 20000 + 41234 % 20000
    assert (section.nodes, section.node, section.main_address, section.ranks) == (2, 1, "gpu03:21234", 16)
    section = with_slurm(TrainSection(nodes=3, node=2, main_address="here"), SLURM)
    assert (section.nodes, section.node, section.main_address) == (3, 2, "here")
    assert with_slurm(TrainSection(), {"SLURM_NNODES": "1"}).nodes is None


@pytest.mark.parametrize(
    ("machines", "first"),
    [
        ("gpu03", "gpu03"), ("gpu[03-05,9],login1", "gpu03"), ("a.b-1,c", "a.b-1"), ("n[7]", "n7"),
        ("rack1-n[004,006]-ib", "rack1-n004-ib"),
    ],
)  # fmt: skip
def test_first_host_of_slurms_list(machines: str, first: str) -> None:
    assert first_host(machines) == first


def test_scontrol_expands_other_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machines = "rack[1-2]n[1-4]"
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RecipeError, match="failed to parse") as caught:
        first_host(machines)
    assert "main_address" in str(caught.value.cure)
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(f'#!/bin/sh\n[ "$4" = "{machines}" ] && echo rack1n1 && echo rack1n2\n')
    scontrol.chmod(0o755)
    assert first_host(machines) == "rack1n1"


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"nodes": 2}, "train.node is missing"),
        ({"nodes": 2, "node": 2, "main_address": "x"}, "expected 0 to 1, got 2"),
        ({"processes": 2, "zero": 0, "offload": "optimizer"}, "requires ZeRO or FSDP"),
        ({"processes": 2, "zero": 2, "offload": "all"}, "requires ZeRO-3 or FSDP"),
        ({"processes": 2, "fsdp": True, "offload": "optimizer"}, "together"),
    ],
)
def test_settings_that_cannot_be_launched(
    tiny_model: Path, tmp_path: Path, section: dict[str, Any], words: str
) -> None:
    write(tmp_path, [pair(number) for number in range(8)])
    with pytest.raises(RecipeError, match=words):
        train(recipe(tiny_model, **section), folder=tmp_path)


@pytest.mark.parametrize(
    ("message", "cure"),
    [
        ("CUDA out of memory. Tried to allocate 2.00 GiB", "tokens_per_micro_batch"),
        ("The server socket has failed to listen: EADDRINUSE", "main_address"),
        ("[Errno 28] No space left on device", "save_total_limit"),
    ],
)
def test_errors_of_libraries_have_a_cure(message: str, cure: str) -> None:
    assert cure in str(cure_of(RuntimeError(message)))
    assert cure_of(RuntimeError("shape mismatch")) is None


def test_out_of_memory_has_a_cure(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from spotcli.training.trainer import PairTrainer

    def full(self: PairTrainer, checkpoint: Path | None) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has ...")

    monkeypatch.setattr(PairTrainer, "resume", full)
    write(tmp_path, [pair(number) for number in range(8)])
    with pytest.raises(SpotError, match=r"out of memory: CUDA out of memory\. Tried to allocate 2\.00 GiB\.") as caught:
        train(recipe(tiny_model), folder=tmp_path)
    assert "tokens_per_micro_batch" in str(caught.value.cure)
