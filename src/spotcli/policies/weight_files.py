"""The weight files of a model, one tensor at a time: their tensors, their number format, and missing ones."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spotcli.console import warn
from spotcli.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""Floating-point types of safetensors by their names in torch."""


def check_tensors(model: Any, report: Mapping[str, Any], name: str) -> None:
    """Check that the files of a model have the tensors that its configuration describes.

    transformers fills missing tensors, and those of another shape, with random numbers.

    Args:
        model: the loaded model.
        report: transformers' report about the loading.
        name: the model's name.

    Raises:
        UserError: a tensor is missing, has another shape, or belongs to a layer that the configuration lacks.
    """
    cure = "check that config.json belongs to these weights, and that all files were copied or downloaded"
    if missing := sorted(report["missing_keys"]):
        raise UserError(f"the weights lack {_listed(missing)}", where=name, cure=cure)
    if mismatched := sorted(report["mismatched_keys"]):
        tensor, shape, expected = mismatched[0][:3]
        others = f" (and {len(mismatched) - 1} more)" if len(mismatched) > 1 else ""
        message = f"expected the shape {[*expected]}, got {[*shape]} for {tensor}{others}"
        raise UserError(message, where=name, cure=cure)
    # peft has the adapter's name in the names of its tensors; its files have not.
    kinds = {re.sub(r"\d+", "N", tensor).replace(".default", "") for tensor in model.state_dict()}
    unexpected = sorted(report["unexpected_keys"])
    if layers := [tensor for tensor in unexpected if re.sub(r"\d+", "N", tensor) in kinds]:
        message = f"the weights have more layers than the configuration: {_listed(layers)}"
        raise UserError(message, where=name, cure=cure)
    if unexpected:
        warn(f"{name}: the model does not use {_listed(unexpected)}")


def _listed(tensors: list[str]) -> str:
    """The names of tensors; the first three of many."""
    shown = ", ".join(tensors[:3])
    return f"{shown} and {len(tensors) - 3} more tensors" if len(tensors) > 3 else shown


def stored_dtype(folder: Path) -> str | None:
    """The torch name of the number format of the first floating-point tensor in a folder; None without safetensors."""
    from safetensors import safe_open

    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118  # it is not a dictionary
                if (dtype := _DTYPES.get(tensors.get_slice(name).get_dtype())) is not None:
                    return dtype
    return None


class WeightFiles:
    """The tensors of a model's files by name; empty if the model has no safetensors files on this machine.

    Args:
        model: a folder or a hub id, as ``models.resolve`` returns it. Nothing is downloaded.
    """

    def __init__(self, model: str) -> None:
        from safetensors import safe_open

        self._files: dict[str, Path] = {}
        folder = _folder(model)
        for path in sorted(folder.glob("model*.safetensors")) if folder is not None else ():
            with safe_open(path, framework="pt") as file:
                self._files |= dict.fromkeys(file.keys(), path)

    def names(self) -> list[str]:
        """The names of all tensors, in the order of the files."""
        return list(self._files)

    def size(self, name: str) -> int:
        """Number of weights in a tensor of ``names``; reads only the header of its file."""
        from safetensors import safe_open

        with safe_open(self._files[name], framework="pt") as file:
            return math.prod(file.get_slice(name).get_shape())

    def get(self, name: str, rows: int | None = None) -> Tensor | None:
        """A tensor on the CPU; None if no file has it.

        Args:
            name: as in the files, which is the name of the parameter for models that transformers does not convert.
            rows: read only the first rows.
        """
        from safetensors import safe_open

        if name not in self._files:
            return None
        with safe_open(self._files[name], framework="pt") as file:
            tensor: Tensor = file.get_tensor(name) if rows is None else file.get_slice(name)[:rows]
            return tensor


def _folder(model: str) -> Path | None:
    if Path(model).is_dir():
        return Path(model)
    from transformers.utils.hub import cached_file

    try:
        config = cached_file(model, "config.json", local_files_only=True)
    except OSError:
        return None
    return Path(config).parent if config else None
