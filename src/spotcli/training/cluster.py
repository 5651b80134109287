"""Several processes and machines: Slurm, how memory is divided among processes, checks before a launch."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from typing import Literal

from spotcli.errors import MissingExtra, RecipeError, require
from spotcli.recipe import TrainSection

Sharding = Literal["none", "zero2", "zero3", "fsdp"]

DIVIDED = ("zero3", "fsdp")
"""Kinds of sharding that leave no process with whole weights between two training steps."""


def sharding(section: TrainSection) -> Sharding:
    """What divides memory among the processes; ``none`` for one process, unless it offloads."""
    if section.ranks == 1 and section.offload == "none":
        return "none"
    if section.fsdp:
        return "fsdp"
    return {0: "none", 2: "zero2", 3: "zero3"}[section.zero]  # type: ignore[return-value]


def with_slurm(section: TrainSection, environment: Mapping[str, str]) -> TrainSection:
    """The section with the number of machines, this machine's number and the first machine's address from Slurm.

    Settings of the recipe take precedence. Without Slurm, or on one machine, the section is returned unchanged.

    Raises:
        RecipeError: Slurm's list of machines cannot be parsed.
    """
    nodes = int(environment.get("SLURM_NNODES", "1"))
    if section.nodes is not None or nodes == 1:
        return section
    port = 20_000 + int(environment.get("SLURM_JOB_ID", "0")) % 20_000
    update = {
        "nodes": nodes,
        "node": section.node if section.node is not None else int(environment["SLURM_NODEID"]),
        "main_address": section.main_address or f"{first_host(environment['SLURM_JOB_NODELIST'])}:{port}",
    }
    return section.model_copy(update=update)


def first_host(machines: str) -> str:
    """The first name of Slurm's list of machines, such as ``gpu[03-05,9],login1``.

    Raises:
        RecipeError: the list has another form, and ``scontrol`` failed to expand it.
    """
    # A name with at most one bracket of numbers.
    simple = re.match(r"([\w.-]+)(?:\[(\d+)[\d,-]*\]([\w.-]*))?(?:,|$)", machines)
    if simple:
        return "".join(part or "" for part in simple.groups())
    try:
        command = ["scontrol", "show", "hostnames", "--", machines]
        expanded = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
        return expanded.stdout.split()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        raise RecipeError(
            f"failed to parse Slurm's list of machines: {machines!r}",
            where="SLURM_JOB_NODELIST",
            cure="-s train.main_address=HOST",
        ) from None


def check_quantize(section: TrainSection) -> None:
    """Check that quantised weights go with the other settings.

    Raises:
        RecipeError: LoRA is off, or the weights would be divided among processes.
    """
    if section.quantize is None:
        return
    if section.lora is None:
        raise RecipeError(
            "`train.quantize` requires `train.lora`", where="train.quantize", cure="set train.lora: {r: 16}"
        )
    if sharding(section) in DIVIDED:
        raise RecipeError(
            "`train.quantize` does not work with ZeRO-3 or FSDP, which divide the weights",
            where="train.quantize",
            cure="train.zero: 2, which leaves whole weights on each device",
        )


def check_launch(section: TrainSection) -> None:
    """Check that the processes of a run can be launched.

    Raises:
        RecipeError: offloading that the kind of sharding does not support; several machines without number or address.
        MissingExtra: a package that the recipe needs is missing, or bitsandbytes is too old for transformers.
    """
    require("train", "training", "transformers", "accelerate")
    if section.lora is not None:
        require("train", "train.lora", "peft")
    if sharding(section).startswith("zero"):
        require("train", "ZeRO", "deepspeed")
    if section.quantize is not None:
        from transformers.utils.import_utils import is_bitsandbytes_available

        if not is_bitsandbytes_available():
            raise MissingExtra("qlora", "train.quantize")
    if section.offload != "none" and not section.fsdp and section.zero == 0:
        raise RecipeError(
            "`train.offload` requires ZeRO or FSDP, got train.zero: 0", where="train.offload", cure="train.zero: 2 or 3"
        )
    if section.offload == "all" and not section.fsdp and section.zero != 3:
        raise RecipeError(
            f"offload: all requires ZeRO-3 or FSDP, got train.zero: {section.zero}",
            where="train.offload",
            cure="train.zero: 3, or offload: optimizer",
        )
    if section.fsdp and section.offload == "optimizer":
        raise RecipeError(
            "FSDP offloads weights and optimiser together, got offload: optimizer",
            where="train.offload",
            cure="offload: all",
        )
    nodes = section.nodes or 1
    if nodes > 1 and (section.node is None or section.main_address is None):
        missing = "train.node" if section.node is None else "train.main_address"
        raise RecipeError(
            f"{missing} is missing: {nodes} machines need the number of this machine and the address of the first",
            where="train.nodes",
            cure="-s train.node=0 (1, ...) -s train.main_address=HOST on each machine, or start with Slurm's srun",
        )
    if nodes > 1 and not 0 <= (section.node or 0) < nodes:
        raise RecipeError(
            f"expected 0 to {nodes - 1}, got {section.node}", where="train.node", cure="number the machines from 0"
        )
