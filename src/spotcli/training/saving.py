"""The trained model as files: rounded to the format of the file, in a form that transformers and vLLM load."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from spotcli.core import rounding
from spotcli.errors import SpotError
from spotcli.policies import models
from spotcli.training.plan import TrainPlan
from spotcli.training.summary import Survival
from spotcli.training.survival import SavingLoss, nearest_weights, show_survival

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import Trainer


@dataclass(frozen=True)
class SavedConfig:
    """Values of the model's configuration that training changes, and that saving restores."""

    attention: str
    use_cache: bool
    dtype: Any
    """The torch dtype of the saved weights: ``train.save_dtype``, by default that of the source's weights."""


@dataclass
class Saver:
    """Saves the model of a run in a form that transformers and vLLM load; with LoRA, the adapters alone.

    Weights of float32 are rounded to the format of the file as ``train.rounding`` says. A weight of which the forward
    pass used the nearest numbers is saved as these: its float32 value can be ahead of what training has seen.
    """

    plan: TrainPlan
    saved: SavedConfig
    nearest: frozenset[str]
    """Weights that training computed with as the nearest numbers, and that are saved so."""
    loss: SavingLoss | None
    """None where nothing is measured: adapters are saved as they were trained, and one process saves.

    Under FSDP every process measures, because all must take part in each forward pass.
    """

    @classmethod
    def of(cls, plan: TrainPlan, model: Any, saved: SavedConfig) -> Saver:
        """Before training: scores the starting policy, which ``core.forward.logps.install`` has prepared."""
        measures = plan.section.lora is None and (plan.ranks.is_main or plan.sharding == "fsdp")
        nearest = nearest_weights(model, plan)
        return cls(plan, saved, nearest, SavingLoss.of(plan, model, nearest) if measures else None)

    def save(self, trainer: Trainer) -> Survival | None:
        """Save the trained model, and show what survived rounding. Every process must call this.

        Returns:
            What survived, in the process that saves; None in the others, and where nothing is measured.

        Raises:
            SpotError: a weight is too large for the format.
        """
        plan, model = self.plan, cast("Any", trainer.model)
        if self.loss is not None:
            self.loss.score_trained(model)
        # Under ZeRO-3 and FSDP every process must take part in gathering the weights.
        state = trainer.accelerator.get_state_dict(trainer.model_wrapped) if plan.divided else None
        if plan.ranks.is_main:
            self._write(trainer, state)
        else:
            deque(_masters(model, plan), maxlen=0)
        return self._survival(trainer, state)

    def _write(self, trainer: Trainer, state: dict[str, Tensor] | None) -> None:
        """Round the weights and write the files."""
        from transformers.utils import logging

        plan, model = self.plan, cast("Any", trainer.model)
        bare = bare_model(model)
        bare.set_attn_implementation(self.saved.attention)
        bare.config.use_cache = self.saved.use_cache
        if bare is model:
            self._round(model, state, trainer.state.global_step)
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        # transformers removes what it has written from the dictionary.
        model.save_pretrained(plan.output, state_dict=None if state is None else dict(state))
        models.load_tokenizer(plan.model).save_pretrained(plan.output)

    def _round(self, model: Any, state: dict[str, Tensor] | None, step: int) -> None:
        """Round the gathered weights, or those of the model, in place."""
        for name, master in _masters(model, self.plan):
            if state is None:
                weight = model.get_parameter(name)
                weight.data = self._rounded(name, weight.detach(), master, step)
            elif name in state:
                state[name] = self._rounded(name, state[name], master, step)
        if state is None:
            in_file = model.state_dict().keys()
            for name, buffer in model.named_buffers():
                # The others, such as rotary frequencies, are computed in float32 by every program that loads the file.
                if name in in_file and buffer.is_floating_point():
                    buffer.data = buffer.to(self.saved.dtype)
        else:
            for name in model.all_tied_weights_keys:
                state.pop(name, None)

    def _rounded(self, name: str, weight: Tensor, master: Tensor | None, step: int) -> Tensor:
        """A weight in the format of the file: what the next training step would compute with."""
        plan, dtype = self.plan, self.saved.dtype
        try:
            seed = rounding.weight_seed(plan.recipe.seed, name, step)
            how: rounding.Rounding = "nearest" if name in self.nearest else plan.section.rounding
            rounded = rounding.rounded(weight, dtype, how, seed)
        except OverflowError as error:
            raise SpotError(f"{name}: {error}", cure="set train.save_dtype to bfloat16 or float32") from None
        if self.loss is not None:
            self.loss.add(name, weight, rounded, master)
        return rounded

    def _survival(self, trainer: Trainer, state: dict[str, Tensor] | None) -> Survival | None:
        """Score the weights of the file, and show what survived.

        Args:
            trainer: its model has the weights of the file, or those of training where ``state`` is not None.
            state: the weights of the file where no process has whole weights, in the process that saves.
        """
        if self.loss is None:
            return None
        plan, model = self.plan, cast("Any", trainer.model)
        zero = plan.sharding.startswith("zero")
        if plan.share:
            from spotcli.core.forward import shared_attention

            model.set_attn_implementation(shared_attention.NAME)
        if plan.sharding == "fsdp":
            _put_back(model, state or {})
        elif not zero:
            model.float()
        self.loss.score_saved(model)
        if not plan.ranks.is_main:
            return None
        survival = self.loss.result(self.saved.dtype)
        if survival is not None:
            show_survival(survival, trainer.args.learning_rate, zero=zero)
        return survival


def _put_back(model: Any, state: dict[str, Any]) -> None:
    """Replace FSDP's float32 shards by the weights of the file. Every process must call this.

    Whole weights are on each device one at a time. Loading the file beside the shards would need 4 bytes per weight of
    one device.

    Args:
        model: divided by FSDP2.
        state: the weights of the file, in the main process.
    """
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

    # The file has tied weights once.
    tied = {name: state[source] for name, source in model.all_tied_weights_keys.items() if source in state}
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    set_model_state_dict(model, state | tied, options=options)


def _masters(model: Any, plan: TrainPlan) -> Iterator[tuple[str, Any]]:
    """The name of each parameter, with DeepSpeed's float32 copy if there is one; every process must go through all."""
    if not plan.sharding.startswith("zero"):
        yield from ((name, None) for name, _ in model.named_parameters())
        return
    from deepspeed.utils import safe_get_full_fp32_param

    for name, weight in model.named_parameters():
        yield name, safe_get_full_fp32_param(weight)


def bare_model(model: Any) -> Any:
    """The model without peft's wrapper."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model
