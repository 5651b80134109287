"""The keys of transformers' ``TrainingArguments`` in a recipe: defaults, keys that a recipe cannot set, checks."""

from __future__ import annotations

import importlib
import os
from dataclasses import fields
from importlib.util import find_spec
from typing import Any

from spotcli import recipe as recipes
from spotcli.errors import MissingExtra, RecipeError
from spotcli.recipe import TrainSection

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
"""Values of training arguments that the recipe does not set; most are the settings of arXiv 2603.01683."""

_SEED = "use `seed` at the top of the recipe"
_DTYPE = "use train.dtype"
_SHARDING = "use train.processes with train.zero or train.fsdp"
_LAUNCH = "spot launches the processes itself; use train.processes and train.nodes"
_EVAL = "use `spot eval`"
_SIZES = "micro-batches already group pairs of similar length"

OWNED: dict[str, str] = {
    "output_dir": "use train.output",
    "hub_token": "recipes are written to files, which must not contain keys; set HF_TOKEN in the environment",
    "seed": _SEED,
    "data_seed": _SEED,
    "bf16": _DTYPE,
    "fp16": _DTYPE,
    "remove_unused_columns": "pairs have no columns",
    "label_names": "pairs have no labels",
    "resume_from_checkpoint": "a rerun resumes by itself; --fresh restarts",
    "save_only_model": "a run cannot resume without the optimiser state",
    "ignore_data_skip": "a resumed run must not train on the same pairs again",
    "restore_callback_states_from_checkpoint": "the reward shift is always restored",
    "enable_jit_checkpoint": "spot writes the checkpoints itself",
    "auto_find_batch_size": "the batch size changes the result; set per_device_train_batch_size",
    "train_sampling_strategy": _SIZES,
    "length_column_name": _SIZES,
    "dataloader_drop_last": "every pair is trained on",
    "average_tokens_across_devices": "the loss is always averaged over the whole training step",
    "label_smoothing_factor": "the loss is set by train.objective",
    "use_liger_kernel": "it replaces the output layer that computes the log-probabilities",
    "neftune_noise_alpha": "noise would make the policy differ from its reference",
    "deepspeed": _SHARDING,
    "fsdp": _SHARDING,
    "fsdp_config": _SHARDING,
    "accelerator_config": _LAUNCH,
    "parallelism_config": _LAUNCH,
    "local_rank": _LAUNCH,
    "eval_strategy": _EVAL,
    "eval_on_start": _EVAL,
    "do_eval": _EVAL,
    "do_predict": _EVAL,
    "load_best_model_at_end": _EVAL,
    "metric_for_best_model": _EVAL,
    "disable_tqdm": "spot shows its own progress",
    "use_cache": "training does not use a key-value cache",
}
"""Training arguments that a recipe cannot set, each with the reason or the setting to use."""

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
"""Prefixes of training arguments that do not change the weights, so they may differ when a run resumes."""

_TRACKERS = {"tensorboard": "tensorboard", "wandb": "wandb", "trackio": "trackio", "mlflow": "mlflow"}
"""Names of trackers in transformers, each with the package that it requires."""


def argument(section: TrainSection, name: str) -> Any:
    """The value of a training argument: the recipe's, else the default; None if neither sets it."""
    return section.training_arguments.get(name, DEFAULTS.get(name))


def keeps_checkpoints(section: TrainSection) -> bool:
    """Whether checkpoints stay after the run. Without a ``save_`` key they only serve to resume, and are deleted."""
    return any(name in section.training_arguments for name in ("save_strategy", "save_steps", "save_total_limit"))


def check_keys(given: dict[str, Any]) -> None:
    """Check the names of the training arguments that a recipe sets, and the trackers.

    Raises:
        RecipeError: an unknown key (with the nearest name), a key that a recipe cannot set, or an unusable tracker.
        MissingExtra: transformers is not installed.
    """
    if not given:
        return
    try:
        from transformers import TrainingArguments
    except ImportError:
        raise MissingExtra("train", "training") from None
    known = {field.name for field in fields(TrainingArguments)}
    _check_trackers(given.get("report_to"))
    for name in given:
        if name in OWNED:
            raise RecipeError(f"this key cannot be set: {OWNED[name]}", where=f"train.{name}")
        if name not in known:
            allowed = sorted((known | {*TrainSection.model_fields}) - {*OWNED})
            raise RecipeError("unknown key", where=f"train.{name}", cure=recipes.suggest(name, allowed))


def _check_trackers(report_to: str | list[str] | None) -> None:
    """Check that the trackers of ``report_to`` can be used.

    Raises:
        RecipeError: the package of a tracker is not installed, or wandb has no API key.
    """
    for name in [report_to] if isinstance(report_to, str) else report_to or []:
        package = _TRACKERS.get(name)
        if package is not None and find_spec(package) is None:
            raise RecipeError(f"{name} is not installed", where="train.report_to", cure=f"pip install {package}")
        # Without this check, wandb would ask for the key at the terminal after the model is loaded, or stop the run.
        online = name == "wandb" and os.environ.get("WANDB_MODE", "online") == "online"
        if online and not importlib.import_module("wandb").login(prompt=False, verify=False):
            cure = "run `wandb login`, or set WANDB_MODE=offline"
            raise RecipeError("wandb has no API key", where="train.report_to", cure=cure)
