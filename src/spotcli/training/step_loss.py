"""The loss of a micro-batch: what it needs beside the packed tokens, its share in the training step, and its sums."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from spotcli.core.forward.encoding import EncodedPair
from spotcli.core.forward.packing import Batch
from spotcli.core.loss import Coefficients, LossInputs
from spotcli.training.plan import TrainPlan
from spotcli.training.reference import PairLogps
from spotcli.training.step_metrics import FIRST, StepSize, logp_change_sums


@dataclass(frozen=True)
class LossTargets:
    """The tensors of a micro-batch that only the loss reads.

    A class of its own, because the Trainer would round plain tensors to bfloat16 under DeepSpeed.
    """

    reference_BK: Tensor | None = None
    """``PairLogps`` of each row; None for objectives without a reference."""
    paired_B: Tensor | None = None
    """1 for rows with y-, 0 for rows without; None if every row of the run has y-, or the objective does not run it."""

    def to(self, like: Tensor) -> LossTargets:
        """Return the tensors on the device and in the precision of ``like``."""
        moved = {name: None if value is None else value.to(like) for name, value in vars(self).items()}
        return LossTargets(**moved)

    def size(self, batch: Batch) -> dict[str, float]:
        """Return what the micro-batch adds to ``StepSize``."""
        unpaired = 0.0 if self.paired_B is None else batch.pairs - float(self.paired_B.sum())
        return {"pairs": float(batch.pairs), "tokens": float(batch.chosen_N.sum()), "unpaired": unpaired}


def loss_targets(plan: TrainPlan, pairs: Sequence[EncodedPair], reference: Sequence[PairLogps] | None) -> LossTargets:
    """Return the tensors for the loss of a micro-batch.

    Args:
        plan: the run.
        pairs: the rows of the micro-batch.
        reference: of each row; None for objectives without one.
    """
    return LossTargets(
        reference_BK=None if reference is None else torch.tensor(reference, dtype=torch.double),
        paired_B=torch.tensor([float(bool(pair.rejected_ids)) for pair in pairs]) if plan.unpaired else None,
    )


@dataclass(frozen=True)
class StepLoss:
    """Computes the shares of micro-batches in the loss of one training step."""

    plan: TrainPlan
    size: StepSize
    shift: float
    first: bool
    """The policy equals the reference: the expected loss is computed too."""

    def __call__(self, batch: Batch, targets: LossTargets, logps_N: Tensor) -> tuple[Tensor, dict[str, Any]]:
        """Return the loss of a micro-batch, and the sums of its metrics by name.

        Args:
            batch: the packed tokens.
            targets: the other tensors.
            logps_N: log-probabilities under the policy.
        """
        objective, reference_BK = self.plan.objective, targets.reference_BK
        chosen_B, rejected_B = batch.sequence_logps(logps_N)
        inputs = LossInputs(
            policy_chosen_logps_B=chosen_B,
            policy_rejected_logps_B=rejected_B if objective.rejected else None,
            reference_chosen_logps_B=None if reference_BK is None else reference_BK[:, 0],
            reference_rejected_logps_B=None if reference_BK is None else reference_BK[:, 1],
            paired_B=targets.paired_B,
            chosen_token_logps_T=batch.chosen_token_logps(logps_N),
            step_pairs=self.size.pairs,
            step_tokens=self.size.tokens,
        )
        coefficients = Coefficients(beta=self.plan.section.beta, shift=self.shift)
        outputs = objective(inputs, coefficients)
        sums: dict[str, Any] = {"loss": outputs.loss.detach()}
        sums |= {name: metric_B.sum() for name, metric_B in outputs.metrics.items()}
        if reference_BK is not None:
            sums |= _logp_changes(batch, logps_N.detach(), reference_BK)
        if self.first and (first_loss := objective.first_loss(inputs, coefficients)) is not None:
            sums[FIRST] = first_loss
        return outputs.loss, sums


def _logp_changes(batch: Batch, logps_N: Tensor, reference_BK: Tensor) -> dict[str, Any]:
    """Return the sums of the changes of the log-probabilities since the start, and of the tokens they are about."""
    chosen, _, chosen_edited, rejected_edited = reference_BK.double().sum(0)
    before_3 = torch.stack([chosen - chosen_edited, chosen_edited, rejected_edited])
    changes_3 = batch.span_sums(logps_N.double()) - before_3
    return logp_change_sums(changes_3, batch.span_sums(torch.ones_like(logps_N, dtype=torch.double)))


def first_loss_tolerance(plan: TrainPlan) -> float:
    """Return how far the first loss may be from the expected one.

    Rounding errors add up like a random walk over the tokens of an answer.
    """
    noise = 1e-4 if plan.precision.compute == "float32" else 2e-2
    mean_length = sum(max(len(pair.chosen_ids), len(pair.rejected_ids)) for pair in plan.pairs) / len(plan.pairs)
    return noise * (0.05 + plan.section.beta * math.sqrt(mean_length))
