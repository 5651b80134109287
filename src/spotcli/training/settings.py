"""What a recipe's train section means to transformers: defaults, keys that it cannot set, batches, precision."""

from __future__ import annotations

import importlib
import logging
import math
import os
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from spotcli import recipe as recipes
from spotcli.core.forward.encoding import EncodedPair
from spotcli.errors import MissingExtra, RecipeError
from spotcli.policies import models
from spotcli.policies.prompter import switch
from spotcli.recipe import Recipe, TrainSection

if TYPE_CHECKING:
    from spotcli.core.forward.batches import Layout

DEFAULTS: dict[str, Any] = {
    "learning_rate": 1e-6,
    "num_train_epochs": 2,
    "optim": "adamw_torch_fused",
    "adam_beta1": 0.9,
    "adam_beta2": 0.95,
    "weight_decay": 0.01,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.05,
    "max_grad_norm": 1.0,
    "logging_steps": 1,
    "report_to": "none",
    "log_level": "error",
    "save_total_limit": 2,
    "ddp_find_unused_parameters": False,
}
"""Of TrainingArguments, where a recipe says nothing; the method's own."""

_MICRO, _STEP = 4, 32

OWNED: dict[str, str] = {
    "output_dir": "the folder is train.output",
    "seed": "the seed is the recipe's own, at its top",
    "data_seed": "the seed is the recipe's own, at its top",
    "bf16": "the precision is train.dtype",
    "fp16": "the precision is train.dtype",
    "remove_unused_columns": "pairs are not columns",
    "label_names": "pairs have no labels",
    "resume_from_checkpoint": "resuming is what a rerun does; --fresh starts anew",
    "save_only_model": "without the optimiser's state a run could not resume",
    "ignore_data_skip": "a resumed run must not see the same pairs again",
    "restore_callback_states_from_checkpoint": "the reward shift is restored always",
    "enable_jit_checkpoint": "checkpoints are ours",
    "auto_find_batch_size": "the batch decides what is learned; choose per_device_train_batch_size",
    "train_sampling_strategy": "pairs of like size meet in a micro-batch already",
    "length_column_name": "pairs of like size meet in a micro-batch already",
    "dataloader_drop_last": "every pair is trained on",
    "average_tokens_across_devices": "losses are averaged over the whole step always",
    "label_smoothing_factor": "the loss is train.objective",
    "use_liger_kernel": "it would replace the head that the log-probabilities come from",
    "neftune_noise_alpha": "noise would make the policy another model than its reference",
    "deepspeed": "processes and train.zero say it",
    "fsdp": "processes and train.zero say it",
    "fsdp_config": "processes and train.zero say it",
    "accelerator_config": "the launch is ours",
    "parallelism_config": "the launch is ours",
    "local_rank": "the launch is ours",
    "eval_strategy": "evaluation is `spot eval`",
    "eval_on_start": "evaluation is `spot eval`",
    "do_eval": "evaluation is `spot eval`",
    "do_predict": "evaluation is `spot eval`",
    "load_best_model_at_end": "evaluation is `spot eval`",
    "metric_for_best_model": "evaluation is `spot eval`",
    "disable_tqdm": "the display is ours",
    "use_cache": "there is nothing to cache in training",
}
"""Keys of TrainingArguments that a recipe cannot set, and why."""

MEMORY_CURE = (
    "a smaller train.tokens_per_micro_batch (or per_device_train_batch_size: 1), gradient_checkpointing: true, zero: 3 "
    "on more processes, train.offload, or train.lora, and train.quantize: nf4 with it"
)
"""What to turn, in this order, where a device's memory is too small."""

# What may differ between the first start of a run and its continuation: it does not reach the weights.
FREE = (
    "save_",
    "logging_",
    "log_",
    "report_to",
    "run_name",
    "dataloader_",
    "push_to_hub",
    "hub_",
    "project",
    "trackio",
)


DIVIDED = ("zero3", "fsdp")
"""What leaves no process with whole weights between two steps."""


def quiet_libraries() -> None:
    """Tell what accelerate and peft import wherever it is installed not to speak of what nobody asked it for."""
    try:
        import torch
    except ImportError:
        raise MissingExtra("train", "training") from None
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # DeepSpeed would warn on stdout
    # A kernel from the hub that would be faster on CPUs; it is missed whether or not anything is quantised.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)


def argument(section: TrainSection, name: str) -> Any:
    return section.training_arguments.get(name, DEFAULTS.get(name))


def check_keys(section: TrainSection) -> None:
    """Refuse what TrainingArguments does not know, and what a recipe cannot decide.

    Raises:
        RecipeError: with the nearest name, or with the reason.
        MissingExtra: transformers is not installed.
    """
    given = section.training_arguments
    if not given:
        return
    try:
        from transformers import TrainingArguments
    except ImportError:
        raise MissingExtra("train", "training") from None
    known = {each.name for each in fields(TrainingArguments)}
    _check_trackers(given.get("report_to"))
    for name in given:
        if name in OWNED:
            raise RecipeError(f"this key cannot be set: {OWNED[name]}", where=f"train.{name}")
        if name not in known:
            ours = list(TrainSection.model_fields)
            raise RecipeError(
                "unknown key", where=f"train.{name}", cure=recipes.suggest(name, sorted((known | {*ours}) - {*OWNED}))
            )


def check_quantize(section: TrainSection) -> None:
    """Refuse quantised weights where they cannot be trained beside.

    Raises:
        RecipeError: there are no adapters, or something would divide the weights.
    """
    if section.quantize is None:
        return
    if section.lora is None:
        raise RecipeError(
            "weights in 4 bits are not trained: adapters are", where="train.quantize", cure="train.lora: {r: 16}"
        )
    if sharding(section) in DIVIDED:
        raise RecipeError(
            "ZeRO-3 and FSDP would divide weights that are packed in 4 bits",
            where="train.quantize",
            cure="train.zero: 2, which leaves them whole on each device",
        )


def template_kwargs(recipe: Recipe, template: str) -> dict[str, Any]:
    """What the chat template is handed: as in sampling, unless the train section says otherwise.

    Raises:
        RecipeError: thinking is wanted, and the template has no switch for it.
    """
    sampling = recipe.sample
    return switch(template, sampling.thinking) | sampling.chat_template_kwargs | recipe.train.chat_template_kwargs


# What a tracker is called by transformers, and the package that it needs.
_TRACKERS = {"tensorboard": "tensorboard", "wandb": "wandb", "trackio": "trackio", "mlflow": "mlflow"}


def _check_trackers(wanted: Any) -> None:
    """Say before anything is loaded that a tracker is not installed, or does not know who we are.

    Raises:
        RecipeError: its package is missing, or its key.
    """
    for name in [wanted] if isinstance(wanted, str) else wanted or []:
        package = _TRACKERS.get(name)
        if package is not None and find_spec(package) is None:
            raise RecipeError(f"{name} is not installed", where="train.report_to", cure=f"pip install {package}")
        # Asked later, it would wait for somebody at the keyboard, or end the run.
        online = name == "wandb" and os.environ.get("WANDB_MODE", "online") == "online"
        if online and not importlib.import_module("wandb").login(prompt=False, verify=False):
            cure = "`wandb login`, or WANDB_MODE=offline in the environment"
            raise RecipeError("wandb has no API key", where="train.report_to", cure=cure)


def batch(section: TrainSection) -> tuple[int, int | None]:
    """Pairs of an optimiser step, and micro-batches of it on each process; None where ``fit`` decides them by tokens.

    Raises:
        RecipeError: the batch cannot be made of such micro-batches.
    """
    given, step = section.training_arguments, section.batch_size
    micro, accumulate = given.get("per_device_train_batch_size"), given.get("gradient_accumulation_steps")
    if section.tokens_per_micro_batch is not None and (micro or accumulate):
        raise RecipeError(
            "tokens decide how many pairs a micro-batch has, and a number is given too",
            where="train.tokens_per_micro_batch",
            cure="set train.batch_size alone beside it",
        )
    if section.tokens_per_micro_batch is not None:
        return step or _STEP, None
    if step is None and (micro or accumulate):
        return int(micro or _MICRO) * int(accumulate or 1) * section.ranks, int(accumulate or 1)
    step = step or _STEP
    each, rest = divmod(step, section.ranks)
    if micro is None:
        micro = each // accumulate if accumulate else math.gcd(each, _MICRO)
    if rest or not micro or each % micro or (accumulate and micro * accumulate != each):
        raise RecipeError(
            f"{step} pairs a step cannot be made of {section.ranks} process(es) with micro-batches of {micro}"
            + (f", {accumulate} of them" if accumulate else ""),
            where="train.batch_size",
            cure="batch_size = processes * per_device_train_batch_size * gradient_accumulation_steps",
        )
    return step, each // int(micro)


def layout(recipe: Recipe, pairs: Sequence[EncodedPair], *, share: bool) -> Layout:
    """How each optimiser step is cut.

    Raises:
        RecipeError: the batch cannot be made of such micro-batches, or a pair is larger than a micro-batch may be.
    """
    from spotcli.core.forward.batches import Layout, TokenLimit, fit, sizes

    section = recipe.train
    step, accumulate = batch(section)
    if accumulate is not None:
        return Layout(step, accumulate, section.ranks, padded=not share)
    budget, tokens = section.tokens_per_micro_batch or 0, sizes(pairs, share=share)
    if max(tokens) > budget:
        raise RecipeError(
            f"a pair has {max(tokens)} tokens, more than a micro-batch may have ({budget})",
            where="train.tokens_per_micro_batch",
            cure=f"{max(tokens)} or more, or leave longer pairs out by a smaller train.max_length",
        )
    epochs = math.ceil(steps(section, len(pairs)) / math.ceil(len(pairs) / step))
    limit = TokenLimit(budget, padded=not share)
    return fit(tokens, step=step, ranks=section.ranks, limit=limit, seed=recipe.seed, epochs=epochs)


def steps(section: TrainSection, pairs: int) -> int:
    """Optimiser steps of the whole run."""
    most = int(argument(section, "max_steps") or -1)
    if most > 0:
        return most
    return math.ceil(float(argument(section, "num_train_epochs")) * math.ceil(pairs / batch(section)[0]))


def sharding(section: TrainSection) -> Literal["none", "zero2", "zero3", "fsdp"]:
    """What divides the work's memory among the processes; one process alone is plain, unless it offloads."""
    if section.ranks == 1 and section.offload == "none":
        return "none"
    if section.fsdp:
        return "fsdp"
    return {0: "none", 2: "zero2", 3: "zero3"}[section.zero]  # type: ignore[return-value]


def check_launch(section: TrainSection) -> None:
    """Refuse what cannot be launched.

    Raises:
        RecipeError: offloading without what could offload; a machine of several that has no number.
        MissingExtra: bitsandbytes is not installed, or too old for transformers.
    """
    if section.quantize is not None:
        from transformers.utils.import_utils import is_bitsandbytes_available

        if not is_bitsandbytes_available():
            raise MissingExtra("qlora", "train.quantize")
    if section.offload != "none" and not section.fsdp and section.zero == 0:
        raise RecipeError("plain data parallel cannot offload", where="train.offload", cure="train.zero: 2 or 3")
    if section.offload == "all" and not section.fsdp and section.zero != 3:
        raise RecipeError("weights are offloaded by ZeRO-3 or FSDP", where="train.offload", cure="train.zero: 3")
    if section.fsdp and section.offload == "optimizer":
        raise RecipeError("FSDP offloads weights and optimiser together", where="train.offload", cure="offload: all")
    if (section.nodes or 1) > 1 and (section.node is None or section.main_address is None):
        raise RecipeError(
            f"{section.nodes} machines train together, and it is not said which one this is or where the first is",
            where="train.nodes",
            cure="-s train.node=0 (1, ...) -s train.main_address=HOST on each, or start it by Slurm's srun",
        )
    if (section.nodes or 1) > 1 and not 0 <= (section.node or 0) < (section.nodes or 1):
        raise RecipeError("machines are numbered from 0", where="train.node", cure=f"0 to {(section.nodes or 1) - 1}")


def placed(section: TrainSection, environment: Mapping[str, str]) -> TrainSection:
    """The section with what Slurm knows: how many machines, which one this is, where the first one is.

    Raises:
        RecipeError: Slurm's list of machines cannot be read.
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
    """The first of Slurm's list of machines, such as ``gpu[03-05,9],login1``.

    Raises:
        RecipeError: the list has another form, and there is no ``scontrol`` to ask.
    """
    # A name, with at most one bracket of numbers in it.
    simple = re.match(r"([\w.-]+)(?:\[(\d+)[\d,-]*\]([\w.-]*))?(?:,|$)", machines)
    if simple:
        return "".join(part or "" for part in simple.groups())
    try:
        shown = subprocess.run(
            ["scontrol", "show", "hostnames", "--", machines], capture_output=True, text=True, timeout=30, check=True
        )
        return shown.stdout.split()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        raise RecipeError(
            f"Slurm's list of machines cannot be read: {machines!r}",
            where="SLURM_JOB_NODELIST",
            cure="-s train.main_address=HOST",
        ) from None


@dataclass(frozen=True)
class Precision:
    """How the policy and its reference compute."""

    weights: models.Dtype
    """What they are loaded as."""
    compute: str
    """What matrix products are computed in."""
    autocast: bool

    @contextmanager
    def __call__(self) -> Iterator[None]:
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
        with torch.autocast(device, getattr(torch, self.compute)) if self.autocast else nullcontext():
            yield

    def __str__(self) -> str:
        return f"{self.weights}/{self.compute}/{'autocast' if self.autocast else 'plain'}"


def precision(section: TrainSection) -> Precision:
    """float32 weights with bfloat16 products; under DeepSpeed bfloat16 weights, of which it keeps copies in float32.

    LoRA's base weights never move, so bfloat16 is enough for them; its adapters are float32.
    """
    compute = str(models.torch_dtype(section.dtype)).removeprefix("torch.")
    if compute == "float32":
        return Precision("float32", "float32", autocast=False)
    if sharding(section).startswith("zero"):
        return Precision("bfloat16", compute, autocast=False)
    return Precision("bfloat16" if section.lora else "float32", compute, autocast=True)


def keeps_checkpoints(section: TrainSection) -> bool:
    """Checkpoints that nobody asked for serve resuming only, and go when the model is saved."""
    return any(name in section.training_arguments for name in ("save_strategy", "save_steps", "save_total_limit"))


def arguments(recipe: Recipe, output: Path, layout: Layout, steps: int) -> Any:
    """transformers' TrainingArguments of a run.

    Args:
        output: the folder of the trained model.
        layout: how a step is cut.
        steps: of the whole run.

    Raises:
        RecipeError: transformers does not take a value.
    """
    import torch
    from transformers import TrainingArguments

    section = recipe.train
    values: dict[str, Any] = {"save_strategy": "steps", "save_steps": max(1, math.ceil(steps / 4))} | DEFAULTS
    values |= section.training_arguments
    # Newer transformers have another name for it and warn of the old one.
    known = {each.name for each in fields(TrainingArguments)}
    for old in ("gradient_checkpointing", "gradient_checkpointing_kwargs"):
        new = old.replace("gradient", "activation")
        if old in values and new in known:
            values[new] = values.pop(old)
    deepspeed = sharding(section).startswith("zero")
    values |= {
        "output_dir": str(output),
        "per_device_train_batch_size": layout.micro,
        "gradient_accumulation_steps": layout.accumulate,
        "seed": recipe.seed,
        "remove_unused_columns": False,
        "label_names": [],
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "use_cpu": not torch.cuda.is_available(),
        "bf16": deepspeed and precision(section).compute == "bfloat16",
    }
    try:
        given = TrainingArguments(**values)
    except (ValueError, TypeError) as error:
        raise RecipeError(f"transformers refuses a training argument: {error}", where="train") from None
    if "RANK" not in os.environ:
        given._n_gpu = min(given.n_gpu, 1)  # several GPUs are for several processes
    return given
