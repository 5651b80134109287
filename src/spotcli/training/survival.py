"""What saving leaves of the training: the shares of the update and of its effect on pairs that survive rounding.

The trained weights are float32 numbers, and the file has a format with fewer bits. The same pairs are scored with the
starting weights, with the trained ones and with those of the file, all with float32 products, so that only the
rounding of the weights differs. Under FSDP all processes score the same pairs, because each forward pass gathers the
weights from all of them. Under DeepSpeed the weights are bfloat16 during training too, and nothing is rounded when they
are saved.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from spotcli.console import say, warn
from spotcli.core.forward.encoding import EncodedPair
from spotcli.core.rounding import UpdateSums, update_sums
from spotcli.policies import models
from spotcli.policies.weight_files import WeightFiles
from spotcli.training.plan import TrainPlan
from spotcli.training.summary import Survival

if TYPE_CHECKING:
    from torch import Tensor

SAMPLE = 16
"""Pairs that are scored."""

ENOUGH = 0.9
"""A smaller surviving share is a warning."""

SMALLEST_CHANGE = 1e-3
"""Nats; the share of a smaller change of the margin is noise."""


@dataclass
class SavingLoss:
    """Measures what saving loses. It is created before training, in the process that saves.

    Under FSDP every process has one and scores with it; weights are added in the process that saves.
    """

    plan: TrainPlan
    start: WeightFiles
    nearest: frozenset[str]
    """``nearest_weights`` of the run."""
    device: Any
    """Where the forward passes run; under FSDP with offloading the weights are elsewhere."""
    starting_margin: float | None
    """None where the margin is not measured: DeepSpeed's bfloat16 weights are saved as they are."""
    trained_margin: float | None = None
    saved_margin: float | None = None
    rounded: UpdateSums = field(default_factory=UpdateSums)
    seen: UpdateSums = field(default_factory=UpdateSums)

    @classmethod
    def of(cls, plan: TrainPlan, model: Any, nearest: frozenset[str]) -> SavingLoss:
        """Score the starting policy.

        Args:
            plan: the run.
            model: the starting policy, prepared by ``core.forward.logps.install``.
            nearest: ``nearest_weights`` of the run.
        """
        files, device = WeightFiles(models.resolve(plan.model)), next(model.parameters()).device
        loss = cls(plan, files, nearest, device, starting_margin=None)
        if not plan.sharding.startswith("zero"):
            loss.starting_margin = loss._margin(model)
        return loss

    def score_trained(self, model: Any) -> None:
        """Score the trained weights before they are rounded. Under FSDP every process must call this."""
        if self.starting_margin is not None:
            self.trained_margin = self._margin(model)

    def score_saved(self, model: Any) -> None:
        """Score the weights of the file, as float32 numbers. Under FSDP every process must call this."""
        if self.starting_margin is not None:
            self.saved_margin = self._margin(model)

    def add(self, name: str, trained: Tensor, saved: Tensor, master: Tensor | None = None) -> None:
        """Add one weight.

        Args:
            name: of the parameter. A weight that is not in the starting policy's files is left out.
            trained: the weight that training computed with, before rounding.
            saved: the weight in the file.
            master: the optimizer's float32 copy, if that is another one.
        """
        start = self.start.get(name)
        if start is None or start.shape != trained.shape:
            return
        start, trained = start.to(trained.device), trained.detach()
        self.rounded += update_sums(start, trained, saved)
        if master is not None:
            self.seen += update_sums(start, master.to(trained.device), trained)
        elif name in self.nearest:
            self.seen += update_sums(start, trained, trained.to(_dtype(self.plan.precision.compute)))
        else:
            self.seen += update_sums(start, trained, trained)

    def result(self, dtype: Any) -> Survival | None:
        """What survived; None if no weight could be compared.

        Args:
            dtype: the torch dtype of the saved weights.
        """
        if not self.rounded.weights:
            return None
        share = change = None
        start, trained, saved = self.starting_margin, self.trained_margin, self.saved_margin
        if start is not None and trained is not None and saved is not None:
            change = trained - start
            if abs(change) >= SMALLEST_CHANGE:
                share = (saved - start) / change
        name = str(dtype).removeprefix("torch.")
        exact = name in (self.plan.precision.weights, "float32")
        return Survival(
            dtype=name,
            rounding="none" if exact else self.plan.section.rounding,
            update=self.rounded.surviving,
            cosine=self.rounded.cosine,
            moved=self.rounded.moved_saved / self.rounded.weights,
            moved_in_training=self.rounded.moved / self.rounded.weights,
            seen=self.seen.surviving,
            margin=share,
            margin_change=change,
            pairs=len(_sample(self.plan)) if share is not None else 0,
        )

    def _margin(self, model: Any) -> float:
        """The mean margin of the sample of the run's pairs."""
        plan = self.plan
        return mean_margin(model, _sample(plan), share=plan.share, rejected=plan.objective.rejected, device=self.device)


def mean_margin(model: Any, pairs: Sequence[EncodedPair], *, share: bool, rejected: bool, device: Any = None) -> float:
    """The mean of log pi(y+ | x) - log pi(y- | x), in nats. The products have the precision of the model's weights.

    Args:
        model: prepared by ``core.forward.logps.install``.
        pairs: one forward pass each.
        share: whether common prefixes are computed once.
        rejected: False leaves log pi(y- | x) out, for objectives that do not use it.
        device: of the forward passes; by default that of the weights.
    """
    import torch

    from spotcli.core.forward.packing import pack

    device = device or next(model.parameters()).device
    model.eval()
    total = 0.0
    with torch.no_grad():
        for pair in pairs:
            batch = pack([pair], share=share, rejected=rejected).to(device)
            chosen_B, rejected_B = batch.sequence_logps(model(**batch.model_inputs()))
            total += float(chosen_B[0]) - (float(rejected_B[0]) if rejected else 0.0)
    return total / len(pairs)


def _sample(plan: TrainPlan) -> list[EncodedPair]:
    """The pairs that are scored; rows without y- only where there are no others."""
    pairs = list(plan.pairs)
    if plan.unpaired:
        pairs = [pair for pair in pairs if pair.rejected_ids] or pairs
    return random.Random(plan.recipe.seed).sample(pairs, min(SAMPLE, len(pairs)))


def show_survival(survival: Survival, learning_rate: float, *, zero: bool = False) -> None:
    """Show what survived, and warn if it is little.

    Args:
        survival: of the run.
        learning_rate: the largest one.
        zero: whether DeepSpeed divided the run.
    """
    kept = f"{survival.update:.0%} of the update"
    if survival.margin is not None:
        kept += f" and {survival.margin:.0%} of its effect on the margin ({survival.margin_change:+.2f} nats)"
    how = "without rounding" if survival.rounding == "none" else f"rounding {survival.rounding}"
    say(f"saved in {survival.dtype}, {how}: the file has {kept}")
    if survival.seen < ENOUGH:
        deepspeed = "set train.fsdp, or train.zero to 0: DeepSpeed computes with the nearest bfloat16 numbers"
        warn(
            f"training computed with {survival.seen:.0%} of the update, and rewards and tether are those of these "
            f"weights: at learning_rate {learning_rate:g} most updates are smaller than the spacing of bfloat16 "
            f"numbers; {deepspeed if zero else 'set train.rounding to stochastic, or train.dtype to float32'}"
        )
    elif survival.smallest < ENOUGH:
        cure = "set train.rounding to stochastic, or " if survival.rounding == "nearest" else "set "
        warn(
            f"saving in {survival.dtype} lost {1 - survival.smallest:.0%} of the training: at learning_rate "
            f"{learning_rate:g} most updates are smaller than the spacing of {survival.dtype} numbers; "
            f"{cure}train.save_dtype to float32"
        )


def nearest_weights(model: Any, plan: TrainPlan) -> frozenset[str]:
    """The names of the weights that the forward pass rounds to the nearest numbers of its products.

    Their float32 values can be ahead of what training has seen. These are the weights of matrix products under
    autocast, except those of linear layers with stochastic rounding (``core.forward.rounded_weights``), and except the
    output layer of a CPU (``core.forward.logps``).
    """
    import torch

    if not plan.precision.autocast or plan.precision.weights != "float32":
        return frozenset()
    on_cpu = next(model.parameters()).device.type == "cpu"
    exact = {id(model.get_output_embeddings().weight)} if on_cpu else set()
    for module in model.modules():
        if isinstance(module, torch.nn.Embedding) or (
            isinstance(module, torch.nn.Linear) and plan.section.rounding == "stochastic"
        ):
            exact.add(id(module.weight))
    return frozenset(name for name, weight in model.named_parameters() if weight.ndim > 1 and id(weight) not in exact)


def _dtype(name: str) -> Any:
    import torch

    return getattr(torch, name)
