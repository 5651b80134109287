"""Last hidden states of a model on given answers, kept on disk, so that two models need not be in memory together.

The distribution over the next token follows from the last hidden state and the head. A state of Qwen3-8B in bfloat16
has 8 kB, the logits of one position 600 kB.
"""

from __future__ import annotations

import gc
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spotcli import files
from spotcli.errors import UserError
from spotcli.policies.models import Dtype

if TYPE_CHECKING:
    import torch

    from spotcli.core.drift import Head
    from spotcli.policies.transformers import TransformersPolicy

DIFFERENCE = 0.01
"""Nats by which the next-token distribution that the head gives may differ from the model's own: much more than
rounding in bfloat16, much less than what a change of the logits after the head makes."""


def number_format(wanted: Dtype) -> Dtype:
    """The number format of both models: the wanted one, by default bfloat16 on a GPU and float32 on the CPU."""
    import torch

    if wanted != "auto":
        return wanted
    return "bfloat16" if torch.cuda.is_available() else "float32"


def answer_states(policy: TransformersPolicy, prompt: Sequence[int], answer: Sequence[int]) -> torch.Tensor:
    """Last hidden states that predict each token of an answer, without gradients.

    Args:
        policy: the model.
        prompt: token ids of the prompt, at least one.
        answer: token ids of the answer.

    Returns:
        Shape [N, H]: tokens of the answer, hidden size.
    """
    import torch

    ids = torch.tensor([[*prompt, *answer]], device=policy.model.device)
    model: Any = policy.model
    with torch.inference_mode():
        states: torch.Tensor = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    return states[0, len(prompt) - 1 : -1]


def checked_head(policy: TransformersPolicy, prompt: Sequence[int]) -> Head:
    """The head of a model, after a comparison with the model's own logits after a prompt.

    Raises:
        UserError: the output layer is not linear, or the model changes its logits after it.
    """
    import torch

    from spotcli.core.drift import head_of, token_kl

    model: Any = policy.model
    with torch.inference_mode():
        head = head_of(model)
        ids = torch.tensor([[*prompt]], device=model.device)
        own_1V = model(input_ids=ids, use_cache=False, logits_to_keep=1).logits[0]
        head_1V = head.logits(answer_states(policy, prompt, prompt[:1])[:1])
        difference = float(token_kl(own_1V, head_1V).abs().max())
    if not difference < DIFFERENCE:
        raise UserError(
            f"cannot compute the drift of a {model.config.model_type} model: it changes its logits after the output "
            "layer",
            cure="leave it out with -s eval.drift=false",
        )
    return head


def free_memory() -> None:
    """Return the memory of a model that is no longer referenced to the device."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class HiddenStates:
    """A folder of safetensors files: one per answer, with its token ids and states, and one with the head.

    A file is renamed into place when it is complete, so that a run that was killed goes on with the files that exist.

    Args:
        folder: created with the first file.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __contains__(self, key: str) -> bool:
        return self._path(key).is_file()

    def write(self, key: str, answer: Sequence[int], states_NH: torch.Tensor) -> None:
        import torch

        self._save(key, {"ids_N": torch.tensor(answer), "states_NH": states_NH.cpu().contiguous()})

    def read(self, key: str) -> tuple[list[int], torch.Tensor]:
        """Token ids and states [N, H] of an answer."""
        from safetensors.torch import load_file

        tensors = load_file(self._path(key))
        return tensors["ids_N"].tolist(), tensors["states_NH"]

    def write_head(self, key: str, head: Head) -> None:
        import torch

        bias = {} if head.bias_V is None else {"bias_V": head.bias_V}
        numbers = torch.tensor([head.scale, head.cap or 0.0], dtype=torch.float64)
        self._save(key, {"weight_VH": head.weight_VH, "numbers": numbers, **bias})

    def read_head(self, key: str, device: Any) -> Head:
        from safetensors.torch import load_file

        from spotcli.core.drift import Head

        tensors = load_file(self._path(key), device=str(device))
        scale, cap = tensors["numbers"].tolist()
        return Head(tensors["weight_VH"], tensors.get("bias_V"), scale, cap or None)

    def remove(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.safetensors"

    def _save(self, key: str, tensors: dict[str, torch.Tensor]) -> None:
        from safetensors.torch import save_file

        path = self._path(key)
        scratch = path.with_suffix(".new")
        files.make_parent(path)
        with files.naming(scratch):
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, scratch)
        scratch.replace(path)
