"""LoRA adapters: attached to their base model, merged into it, and saved as a whole model.

    spot merge checkpoint -o merged

A merged model needs no peft: vLLM and every other engine load it. The weights are added in float32 and then rounded
stochastically to the number format of the base model, or to ``--dtype``: most changes by an adapter are smaller than
the spacing of bfloat16 numbers, and rounding to nearest would remove them.
"""

from __future__ import annotations

import shutil
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from spotcli.console import say
from spotcli.core import rounding
from spotcli.errors import MissingExtra, UserError
from spotcli.jsonl import write_json
from spotcli.policies import models
from spotcli.policies.fingerprint import SCORES, fingerprint
from spotcli.policies.models import Dtype
from spotcli.policies.weight_files import check_tensors

META = "spot-merge.json"
"""The file beside a merged model that names what it was merged from."""


@dataclass(frozen=True)
class MergeSummary:
    """The result of ``spot merge``."""

    path: str
    adapter: str
    base: str
    dtype: str
    """Number format of the merged weights."""
    adapter_weights: str
    """Fingerprint of the adapter."""
    base_weights: str
    """Fingerprint of the base model."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def attach(model: Any, name: str, *, trainable: bool = False) -> Any:
    """A base model with an adapter, as peft's model.

    Args:
        model: the base model.
        name: the folder of the adapter.
        trainable: whether the adapter is trained on.

    Raises:
        MissingExtra: peft is not installed.
        UserError: the adapter's files are damaged, or do not match the base model.
    """
    try:
        from peft import PeftModel, set_peft_model_state_dict
        from peft.utils.save_and_load import load_peft_weights
    except ImportError:
        raise MissingExtra("train", "LoRA") from None
    from peft import PeftConfig, get_peft_model

    def attached(path: str) -> Any:
        config = PeftConfig.from_pretrained(path)
        config.inference_mode = not trainable
        adapted: Any = get_peft_model(model, config)
        assert isinstance(adapted, PeftModel)
        weights = load_peft_weights(path, device="cpu")
        result: Any = set_peft_model_state_dict(adapted, weights)
        missing = [key for key in result.missing_keys if "lora_" in key or "modules_to_save" in key]
        report = {"missing_keys": missing, "mismatched_keys": [], "unexpected_keys": result.unexpected_keys}
        check_tensors(adapted, report, name)
        return adapted

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return models.checked(name, attached)


def merged(model: Any, name: str) -> Any:
    """A base model with an adapter merged into its weights.

    Args:
        model: the base model, in the precision to compute in.
        name: the folder of the adapter.

    Raises:
        MissingExtra: peft is not installed.
        UserError: the adapter's files are damaged, do not match the base model, or have weights that are not finite.
    """
    adapted = attach(model, name)
    head = adapted.get_base_model().get_output_embeddings()
    embedding = adapted.get_base_model().get_input_embeddings()
    if any(hasattr(layer, "base_layer") or hasattr(layer, "modules_to_save") for layer in (head, embedding)):
        _untie(adapted.get_base_model())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return adapted.merge_and_unload(safe_merge=True)
        except ValueError as error:
            raise UserError(f"failed to merge the adapter: {error}", where=name) from None


def _untie(model: Any) -> None:
    """Give the output layer its own weight, if it shares that of the embedding, so that an adapter changes only one."""
    import torch

    head = model.get_output_embeddings()
    plain = getattr(head, "base_layer", None) or getattr(head, "original_module", None) or head
    embedding = model.get_input_embeddings()
    plain_embedding = getattr(embedding, "base_layer", None) or getattr(embedding, "original_module", None) or embedding
    if plain.weight is plain_embedding.weight:
        plain.weight = torch.nn.Parameter(plain.weight.detach().clone())
    model.config.get_text_config().tie_word_embeddings = False
    model.config.tie_word_embeddings = False


def _rounded(model: Any, kind: Any, name: str) -> Any:
    """The model with its weights in another number format, rounded stochastically; the same in every run.

    Raises:
        UserError: a weight is too large for the format.
    """
    for path, weight in model.named_parameters():
        try:
            weight.data = rounding.rounded(weight.detach(), kind, "stochastic", rounding.weight_seed(0, path, 0))
        except OverflowError as error:
            raise UserError(f"{path}: {error}", where=name, cure="use --dtype bfloat16 or float32") from None
    return model.to(kind)  # buffers


def merge_adapter(name: str, output: Path, *, dtype: Dtype = "auto") -> MergeSummary:
    """Merge an adapter into its base model and save the whole model.

    Args:
        name: the folder of the adapter.
        output: a new folder.
        dtype: number format of the saved weights; ``auto`` is that of the base model.

    Raises:
        UserError: the model is no adapter, the folder is not empty, a model is not found or damaged, or a weight is too
            large for the format.
    """
    import torch

    base = models.base_of(name)
    if base is None:
        raise UserError("expected the folder of a LoRA adapter, got a whole model", where=name)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError("the folder is not empty", where=str(output), cure="write to another folder with -o")
    kind = models.source_dtype(base) if dtype == "auto" else models.torch_dtype(dtype)
    rounds = kind.itemsize < torch.float32.itemsize
    how = f"; weights are rounded stochastically to {str(kind).removeprefix('torch.')}" if rounds else ""
    say(f"merging {name} into {base}{how}")
    model = _rounded(merged(models.load_model(base, "float32"), name), kind, name)
    if infinite := [key for key, weight in model.state_dict().items() if not torch.isfinite(weight).all()]:
        raise UserError(f"the merged model has weights that are not finite: {', '.join(infinite[:3])}", where=name)
    summary = MergeSummary(
        path=str(output),
        adapter=name,
        base=base,
        dtype=str(kind).removeprefix("torch."),
        adapter_weights=fingerprint(models.resolve(name), SCORES),
        base_weights=fingerprint(models.resolve(base), SCORES),
    )
    scratch = output.with_name(f".{output.name}.merging")
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        scratch.mkdir(parents=True)
        model.save_pretrained(scratch)
        models.load_tokenizer(name).save_pretrained(scratch)
        write_json(scratch / META, summary.as_dict())
        if output.exists():
            output.rmdir()
        scratch.rename(output)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return summary
