"""The keys of transformers' ``TrainingArguments`` in a recipe: defaults, keys that a recipe cannot set, checks."""

from __future__ import annotations

import importlib
import json
import math
import os
from collections.abc import Sequence
from dataclasses import fields
from enum import EnumType
from importlib.util import find_spec
from typing import Any, get_args, get_type_hints

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
    # The filter would wait for the GPU after each micro-batch; `training.finite` checks the loss once per step.
    "logging_nan_inf_filter": False,
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
_COMPILE = (
    "every micro-batch has another shape, and each would be compiled, which takes longer than training; "
    "train.compile_norms compiles the parts without such shapes"
)
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
    "torch_compile": _COMPILE,
    "torch_compile_backend": _COMPILE,
    "torch_compile_mode": _COMPILE,
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
    """Check the names and values of the training arguments that a recipe sets, and the trackers.

    Raises:
        RecipeError: an unknown key (with the nearest name), a key that a recipe cannot set, an invalid value, or an
            unusable tracker.
        MissingExtra: transformers is not installed.
    """
    if not given:
        return
    try:
        from transformers import TrainingArguments
    except ImportError:
        raise MissingExtra("train", "training") from None
    kinds = get_type_hints(TrainingArguments)
    known = {field.name for field in fields(TrainingArguments)}
    for name, value in given.items():
        if name in OWNED:
            raise RecipeError(f"this key cannot be set: {OWNED[name]}", where=f"train.{name}")
        if name not in known:
            allowed = sorted((known | {*TrainSection.model_fields}) - {*OWNED})
            raise RecipeError("unknown key", where=f"train.{name}", cure=recipes.suggest(name, allowed))
        _check_value(name, value, kinds[name])
    _check_trackers(given.get("report_to"))
    if given.get("push_to_hub"):
        _check_hub(given.get("hub_token"))


_POSITIVE = {
    "learning_rate", "num_train_epochs", "adam_epsilon", "logging_steps", "save_steps", "save_total_limit",
    "per_device_train_batch_size", "gradient_accumulation_steps",
}  # fmt: skip
"""Training arguments that must be greater than 0."""

_NOT_NEGATIVE = {"weight_decay", "max_grad_norm", "warmup_steps", "dataloader_num_workers"}

_BELOW_ONE = {"adam_beta1", "adam_beta2"}

_CHOICES = {
    "save_strategy": ("no", "steps", "epoch"),
    "logging_strategy": ("no", "steps", "epoch"),
}
"""Values of training arguments that work; others of transformers require an evaluation during training."""


def _check_value(name: str, value: Any, kind: Any) -> None:
    """Check the type and the range of a training argument.

    Args:
        name: the argument.
        value: the recipe's value.
        kind: its type in transformers.

    Raises:
        RecipeError: it is invalid.
    """
    where = f"train.{name}"
    options = {*(get_args(kind) or (kind,))}
    if value is None and type(None) in options:
        return
    options -= {type(None)}
    if isinstance(value, bool) and bool not in options and options & {int, float}:
        raise RecipeError(f"expected a number, got {json.dumps(value)}", where=where)
    if options & {int, float} and not options & {str, bool, dict}:
        _check_number(name, value, whole=float not in options)
    if options == {bool} and not isinstance(value, bool):
        raise RecipeError(f"expected true or false, got {value!r}", where=where)
    enums: list[Any] = [option for option in options if isinstance(option, EnumType)]
    choices: Sequence[str] = _CHOICES.get(name) or [str(item.value) for kind in enums[:1] for item in kind]
    if choices and str(getattr(value, "value", value)) not in choices:
        value = "no" if value is False else value
        if value not in choices:
            cure = recipes.suggest(str(value), [*choices]).replace("known keys", "choose one of")
            raise RecipeError(f"unknown value {value!r}", where=where, cure=cure)


def _check_number(name: str, value: Any, *, whole: bool) -> None:
    """Check a training argument that is a number.

    Raises:
        RecipeError: it is not a number, not finite, or out of range.
    """
    where = f"train.{name}"
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise RecipeError(f"expected a number, got {value!r}", where=where, cure=_EXAMPLES.get(name))
    if whole and not float(value).is_integer():
        raise RecipeError(f"expected a whole number, got {value!r}", where=where)
    if name in _POSITIVE and value <= 0:
        raise RecipeError(f"expected a number greater than 0, got {value!r}", where=where, cure=_EXAMPLES.get(name))
    if name == "max_steps" and value != -1 and value <= 0:
        raise RecipeError(f"expected a number greater than 0, or -1, got {value!r}", where=where)
    if name in _NOT_NEGATIVE and value < 0:
        raise RecipeError(f"expected 0 or more, got {value!r}", where=where)
    if name in _BELOW_ONE and not 0 <= value < 1:
        raise RecipeError(f"expected at least 0 and less than 1, got {value!r}", where=where)


_EXAMPLES = {"learning_rate": "such as 1e-6", "num_train_epochs": "such as 2"}
"""Examples of values."""


def _check_hub(token: str | None) -> None:
    """Check that the hub can be reached, and accepts the token.

    Raises:
        RecipeError: it cannot be, or refuses it.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        HfApi().whoami(token=token)
    except (OSError, HfHubHTTPError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise RecipeError(
            f"the hub cannot be used: {reason}", where="train.push_to_hub", cure="hf auth login"
        ) from None


def check_optimizer(arguments: Any, steps: int) -> None:
    """Check the optimiser and the schedule of the learning rate on a model of one weight.

    Args:
        arguments: transformers' ``TrainingArguments``.
        steps: training steps of the run.

    Raises:
        RecipeError: the package of the optimiser is missing, or a setting is invalid.
    """
    import torch
    from transformers import Trainer, get_scheduler

    model: Any = torch.nn.Linear(1, 1)
    place = "train.optim"
    try:
        kind, options = Trainer.get_optimizer_cls_and_kwargs(arguments, model)
        options = {name: value for name, value in options.items() if name not in ("model", "params")}
        optimizer = kind(model.parameters(), **options)
        place = "train.lr_scheduler_type"
        get_scheduler(
            arguments.lr_scheduler_type,
            optimizer,
            num_warmup_steps=arguments.get_warmup_steps(steps),
            num_training_steps=steps,
            scheduler_specific_kwargs=arguments.lr_scheduler_kwargs or {},
        )
    except (ValueError, TypeError, ImportError, KeyError) as error:
        reason = " ".join(str(error).split())[:300]
        raise RecipeError(f"transformers rejects the settings: {reason}", where=place) from None


def _check_trackers(report_to: Any) -> None:
    """Check that the trackers of ``report_to`` can be used.

    Raises:
        RecipeError: a tracker is unknown, its package is not installed, or wandb has no API key.
    """
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    given = [report_to] if isinstance(report_to, str) else report_to or []
    for name in given if isinstance(given, list) else [given]:
        if name in ("none", "all"):
            continue
        if name not in INTEGRATION_TO_CALLBACK:
            cure = recipes.suggest(str(name), ["none", *_TRACKERS]).replace("known keys", "choose from")
            raise RecipeError(f"unknown tracker {name!r}", where="train.report_to", cure=cure)
        package = _TRACKERS.get(str(name), str(name))
        if find_spec(package) is None:
            raise RecipeError(f"{name} is not installed", where="train.report_to", cure=f"pip install {package}")
        # Without this check, wandb would ask for the key at the terminal after the model is loaded, or stop the run.
        online = name == "wandb" and os.environ.get("WANDB_MODE", "online") == "online"
        if online and not importlib.import_module("wandb").login(prompt=False, verify=False):
            cure = "run `wandb login`, or set WANDB_MODE=offline"
            raise RecipeError("wandb has no API key", where="train.report_to", cure=cure)
