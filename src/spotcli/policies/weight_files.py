"""The weights in a model's safetensors files, one tensor at a time, without loading the model."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


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
