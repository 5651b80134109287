"""What a run needs to know of its model before weights are loaded, from config.json and the adapter's files alone."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, get_type_hints

from spotcli.errors import MissingExtra, RecipeError
from spotcli.policies import models
from spotcli.policies.empty_model import TokenLimits, empty_model, token_limits
from spotcli.recipe import LoraSection, TrainSection, suggest
from spotcli.training import cluster

if TYPE_CHECKING:
    from torch import nn

_DROPOUTS = ("dropout", "pdrop", "jitter_noise", "layerdrop")
"""Parts of names of settings that make a forward pass random."""

_OTHER_HEADS = ("summary", "classifier")
"""Parts of names of settings that belong to other heads."""

_PEFT_OWNED = {
    "rank": "use r",
    "lora_r": "use r",
    "lora_alpha": "use alpha",
    "lora_dropout": "use dropout",
    "task_type": "the task is a causal language model",
    "peft_type": "the adapters are LoRA",
    "auto_mapping": "spot sets it",
    "base_model_name_or_path": "use `model` at the top of the recipe",
    "revision": "use `model` at the top of the recipe",
    "inference_mode": "adapters are trained",
}
"""Keys of peft's ``LoraConfig`` that a recipe cannot set, each with the reason or the setting to use."""


@dataclass(frozen=True)
class StartingModel(TokenLimits):
    """Facts about the model that is trained."""

    dropouts: dict[str, float] = field(default_factory=dict)
    """Settings of config.json that make a forward pass random; training switches them off."""
    unnamed_dtype: str | None = None
    """Number format of the weights, if config.json names none."""
    base: str | None = None
    """The base model, if the model is a LoRA adapter."""


def inspect_model(name: str, section: TrainSection) -> StartingModel:
    """Check that a model can be trained with the settings of a recipe.

    Args:
        name: the starting policy.
        section: the train section.

    Raises:
        UserError: the model is not found, is not a text-only language model, or has an output layer whose
            log-probabilities cannot be computed.
        RecipeError: an adapter would match no module, or differs from the one that the model is.
    """
    from spotcli.core.forward import logps

    base = models.base_of(name)
    model = empty_model(name)
    logps.check(model)
    if section.lora is not None:
        _check_lora(model, name, section, base)
    config = model.config.get_text_config()
    limits = token_limits(model)
    return StartingModel(
        vocabulary=limits.vocabulary,
        positions=limits.positions,
        dropouts={
            name: value
            for name, value in config.to_dict().items()
            if any(part in name for part in _DROPOUTS) and not any(part in name for part in _OTHER_HEADS)
            if isinstance(value, float) and value > 0
        },
        unnamed_dtype=_unnamed_dtype(name),
        base=base,
    )


def _unnamed_dtype(name: str) -> str | None:
    """The number format of a model's weights, if config.json names none."""
    config, _ = models.load_configs(name)
    named = getattr(config, "dtype", None)
    return None if named is not None else str(models.source_dtype(name)).removeprefix("torch.")


def switch_dropout_off(model: nn.Module) -> None:
    """Set every dropout and every other source of noise in a model to 0; with it, no two forward passes are equal."""
    import torch

    for module in model.modules():
        if isinstance(module, torch.nn.modules.dropout._DropoutNd):
            module.p = 0.0
        for name, value in [*vars(module).items()]:
            if isinstance(value, float) and any(part in name for part in _DROPOUTS):
                setattr(module, name, 0.0)


def lora_config(lora: LoraSection) -> Any:
    """peft's ``LoraConfig`` of a recipe.

    Raises:
        MissingExtra: peft is not installed.
        RecipeError: a key is unknown or cannot be set, or peft rejects a value.
    """
    try:
        from peft import LoraConfig
    except ImportError:
        raise MissingExtra("train", "LoRA") from None
    known = [*LoraConfig.__dataclass_fields__]
    for name in lora.peft_arguments:
        if name in _PEFT_OWNED:
            raise RecipeError(f"this key cannot be set: {_PEFT_OWNED[name]}", where=f"train.lora.{name}")
        if name not in known:
            allowed = sorted({*known, *LoraSection.model_fields} - {*_PEFT_OWNED})
            raise RecipeError("unknown key", where=f"train.lora.{name}", cure=suggest(name, allowed))
    kinds = get_type_hints(LoraConfig)
    for name, value in lora.peft_arguments.items():
        if kinds[name] is bool and not isinstance(value, bool):
            raise RecipeError(f"expected true or false, got {value!r}", where=f"train.lora.{name}")
    if lora.peft_arguments.get("init_lora_weights", True) not in (True, "gaussian", "orthogonal"):
        raise RecipeError(
            "this initialisation changes the weights of the frozen model",
            where="train.lora.init_lora_weights",
            cure="true or gaussian",
        )
    try:
        return LoraConfig(
            r=lora.r,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=lora.target_modules,
            task_type="CAUSAL_LM",
            **lora.peft_arguments,
        )
    except (ValueError, TypeError) as error:
        raise RecipeError(f"peft rejects the settings: {_line(error)}", where="train.lora") from None


def _check_lora(model: Any, name: str, section: TrainSection, base: str | None) -> None:
    """Check the adapters on the empty model.

    Raises:
        RecipeError: a name matches no module, peft rejects a setting, or the settings differ from the adapter's own.
    """
    assert section.lora is not None
    config = lora_config(section.lora)
    if base is not None:
        _check_continued(name, section.lora)
        return
    paths = [path for path, _ in model.named_modules()]
    for key in ("target_modules", "modules_to_save"):
        names = getattr(config, key) or []
        for wanted in [] if isinstance(names, str) else sorted(names):
            if not any(path == wanted or path.endswith(f".{wanted}") for path in paths):
                kinds = sorted({path.rpartition(".")[2] for path in _linear(model)})
                cure = suggest(wanted, kinds)
                raise RecipeError(f"no module is named '{wanted}'", where=f"train.lora.{key}", cure=cure)
    import peft

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            adapted = peft.get_peft_model(model, config)
    except (ValueError, TypeError, KeyError, RuntimeError, NotImplementedError) as error:
        kinds = sorted({path.rpartition(".")[2] for path in _linear(model)})
        raise RecipeError(
            f"peft rejects the settings: {_line(error)}",
            where="train.lora",
            cure=f"modules of this model: {', '.join(kinds)}",
        ) from None
    _check_head(adapted, section)


def _check_head(adapted: Any, section: TrainSection) -> None:
    """Check that log-probabilities can be computed with the adapter on the output layer, if there is one.

    Raises:
        RecipeError: they cannot be.
    """
    from spotcli.core.forward import logps

    lora = section.lora
    assert lora is not None
    head = adapted.get_base_model().get_output_embeddings()
    reason = logps.unsupported_head(head)
    if reason is None and hasattr(head, "lora_A"):
        if lora.dropout:
            reason = "an adapter on the output layer requires dropout: 0"
        elif cluster.sharding(section) in cluster.DIVIDED:
            reason = "an adapter on the output layer does not work with ZeRO-3 or FSDP, which divide its weights"
    if reason is not None:
        raise RecipeError(reason, where="train.lora", cure="leave the output layer out of target_modules")


def _check_continued(name: str, lora: LoraSection) -> None:
    """Check that the settings that a recipe sets are those of the adapter that it continues.

    Raises:
        RecipeError: one differs.
    """
    import peft

    own = peft.PeftConfig.from_pretrained(models.resolve(name))
    values = {
        "r": "r", "alpha": "lora_alpha", "dropout": "lora_dropout", "target_modules": "target_modules",
    } | {key: key for key in lora.peft_arguments}  # fmt: skip
    for key in sorted(lora.model_fields_set | lora.peft_arguments.keys()):
        given, trained = getattr(lora, key), getattr(own, values[key], None)
        if key == "dropout" or given == "all-linear":
            continue  # it is not a property of the weights, or stands for a list of modules
        if _comparable(given) != _comparable(trained):
            raise RecipeError(
                f"the adapter was trained with {_shown(trained)}, got {_shown(given)}",
                where=f"train.lora.{key}",
                cure="remove the key, or merge the adapter (spot merge) and train a new one",
            )


def _comparable(value: Any) -> Any:
    return sorted(map(str, value)) if isinstance(value, list | set | tuple) else value


def _shown(value: Any) -> str:
    return ", ".join(sorted(map(str, value))) if isinstance(value, list | set | tuple) else str(value)


def _linear(model: Any) -> Iterable[str]:
    """The paths of the linear layers."""
    import torch

    return (path for path, module in model.named_modules() if isinstance(module, torch.nn.Linear))


def _line(error: BaseException) -> str:
    """The message of an error in one line."""
    return " ".join(str(error).split())[:300] or type(error).__name__
