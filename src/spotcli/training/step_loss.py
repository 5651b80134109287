"""The loss of a micro-batch: what it needs beside the packed tokens, its share in the training step, and its sums."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spotcli.core.forward import token_marks
from spotcli.core.forward.encoding import EncodedPair
from spotcli.core.forward.packing import Batch, upload
from spotcli.core.loss import Coefficients, LossInputs, kept_kl
from spotcli.training.plan import TrainPlan
from spotcli.training.reference import PairLogps
from spotcli.training.step_metrics import FIRST, KEPT_KL, StepSize, logp_change_sums, tokens_of


@dataclass(frozen=True)
class LossTargets:
    """The tensors of a micro-batch that only the loss reads.

    A class of its own, because the Trainer would round plain tensors to bfloat16 under DeepSpeed.
    """

    reference_BK: Tensor | None = None
    """``PairLogps.sums`` of each row; None for objectives without a reference."""
    paired_B: Tensor | None = None
    """1 for rows with y-, 0 for rows without; None if every row of the run has y-, or the objective does not run it."""
    errors_R: Tensor | None = None
    """1 for errors, 0 for other tokens of the rejected answers, pair by pair; for spot-focal."""
    reference_error_B: Tensor | None = None
    """The part of logp(y-) on the errors under the reference; for spot-focal."""
    error_B: Tensor | None = None
    """1 for rows with errors, 0 for others; for spot-focal."""
    weights_T: Tensor | None = None
    """Weights of the tokens of the chosen answers, pair by pair; None if all are 1."""
    reference_K: Tensor | None = None
    """Log-probabilities of the kept tokens under the reference, pair by pair; None without a tether on them."""

    def to(self, like: Tensor) -> LossTargets:
        """Return the tensors on the device and in the precision of ``like``."""
        moved = {
            name: None if value is None else upload(value.to(like.dtype), like.device)
            for name, value in vars(self).items()
        }
        return LossTargets(**moved)

    def size(self, batch: Batch) -> dict[str, float]:
        """Return what the micro-batch adds to ``StepSize``."""
        unpaired = 0.0 if self.paired_B is None else batch.pairs - float(self.paired_B.sum())
        tokens = float(batch.chosen_N.sum())
        weight = tokens if self.weights_T is None else float(self.weights_T.sum())
        return {"pairs": float(batch.pairs), "tokens": tokens, "unpaired": unpaired, "weight": weight}


def loss_targets(plan: TrainPlan, pairs: Sequence[EncodedPair], reference: Sequence[PairLogps] | None) -> LossTargets:
    """Return the tensors for the loss of a micro-batch.

    Args:
        plan: the run.
        pairs: the rows of the micro-batch.
        reference: of each row; None if the run needs none.
    """
    section, objective = plan.section, plan.objective
    tensors: dict[str, Tensor] = {}
    if objective.reference and reference is not None:
        tensors["reference_BK"] = torch.tensor([logps.sums for logps in reference], dtype=torch.double)
    if plan.unpaired:
        tensors["paired_B"] = torch.tensor([float(bool(pair.rejected_ids)) for pair in pairs])
    if objective.errors and reference is not None:
        first = section.focal_tokens == "first"
        errors = [token_marks.errors(pair, first=first) for pair in pairs]
        tensors["errors_R"] = torch.tensor([float(mark) for marks in errors for mark in marks])
        tensors["error_B"] = torch.tensor([float(any(marks)) for marks in errors])
        tensors["reference_error_B"] = torch.tensor([logps.error(first=first) for logps in reference]).double()
    if objective.tokens and (section.kept_weight, section.suffix_weight) not in ((1, None), (1, 1)):
        kept = section.kept_weight
        suffix = kept if section.suffix_weight is None else section.suffix_weight
        weights = [weight for pair in pairs for weight in token_marks.weights(pair, kept=kept, suffix=suffix)]
        tensors["weights_T"] = torch.tensor(weights)
    if plan.tethers_kept and reference is not None:
        tokens = b"".join(logps.kept_tokens for logps in reference)
        tensors["reference_K"] = torch.from_numpy(np.frombuffer(tokens, "<f4").astype(np.float32))
    return LossTargets(**tensors)


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
        tokens = self.size.weight or 1.0  # all weights can be 0, and so is the loss then
        chosen_B, rejected_B = batch.sequence_logps(logps_N)
        inputs = LossInputs(
            policy_chosen_logps_B=chosen_B,
            policy_rejected_logps_B=rejected_B if objective.rejected else None,
            reference_chosen_logps_B=None if reference_BK is None else reference_BK[:, 0],
            reference_rejected_logps_B=None if reference_BK is None else reference_BK[:, 1],
            paired_B=targets.paired_B,
            policy_error_logps_B=None if targets.errors_R is None else batch.error_logps(logps_N, targets.errors_R),
            reference_error_logps_B=targets.reference_error_B,
            error_B=targets.error_B,
            chosen_token_logps_T=batch.chosen_token_logps(logps_N) if objective.tokens else None,
            chosen_token_weights_T=targets.weights_T,
            step_pairs=self.size.pairs,
            step_tokens=tokens,
        )
        section = self.plan.section
        coefficients = Coefficients(section.beta, self.shift, section.focal_weight, section.dpop_penalty)
        outputs = objective(inputs, coefficients)
        loss, first_loss = outputs.loss, objective.first_loss(inputs, coefficients) if self.first else None
        sums: dict[str, Any] = {name: metric_B.sum() for name, metric_B in outputs.metrics.items()}
        if reference_BK is not None:
            sums |= _logp_changes(batch, logps_N.detach(), reference_BK)
        if targets.reference_K is not None:
            divergence = kept_kl(batch.kept_token_logps(logps_N), targets.reference_K).sum()
            # Averaged as the objective is: over the rows, or over the tokens.
            tether = section.kept_kl * divergence / (tokens if objective.tokens else self.size.pairs)
            loss = loss + tether
            first_loss = None if first_loss is None else first_loss + tether.detach()
            sums |= {KEPT_KL: divergence.detach(), tokens_of(KEPT_KL): len(targets.reference_K)}
        if first_loss is not None:
            sums[FIRST] = first_loss.detach()
        return loss, sums | {"loss": loss.detach()}


def _logp_changes(batch: Batch, logps_N: Tensor, reference_BK: Tensor) -> dict[str, Any]:
    """Return the sums of the changes of the log-probabilities since the start, and of the tokens they are about."""
    chosen, _, chosen_edited, rejected_edited, _ = reference_BK.double().sum(0)
    before_3 = torch.stack([chosen - chosen_edited, chosen_edited, rejected_edited])
    changes_3 = batch.span_sums(logps_N.double()) - before_3
    return logp_change_sums(changes_3, batch.span_sums(torch.ones_like(logps_N, dtype=torch.double)))


def first_loss_tolerance(plan: TrainPlan) -> float:
    """Return how far the first loss may be from the expected one.

    Rounding errors add up like a random walk over the tokens of an answer.
    """
    noise = 1e-4 if plan.precision.compute == "float32" else 2e-2
    mean_length = sum(max(len(pair.chosen_ids), len(pair.rejected_ids)) for pair in plan.pairs) / len(plan.pairs)
    scale = {"spot-focal": max(1.0, plan.section.focal_weight), "dpop": 1 + plan.section.dpop_penalty}
    beta = plan.section.beta * scale.get(plan.objective.name, 1.0)
    return noise * (0.05 + beta * math.sqrt(mean_length))
