"""The training objectives: log-probabilities in, one loss and its per-pair metrics out.

Shapes, as suffixes of names:

    B   rows in the micro-batch: pairs, and rows without y-
    T   response tokens of all chosen answers in the micro-batch, concatenated

Terms:

    y+, y-      the chosen (corrected) and the rejected (wrong) answer
    logp(y)     log pi(y | x): the sum over the response tokens, in nats
    r(y)        reward: beta * (logp(y) - reference logp(y))
    d           reward shift, see ``RewardShift``
    s           the sigmoid
    tether      the factor on the gradient of beta * logp(y+): 1 - s(r+ - d), for dpo 1 - s(r+ - r-). It starts at 0.5
                and falls towards 0 as the reward grows, so each pair has its own early stop.

Sources of the formulas:

    spot-bco, spot-bce, reward-sft    "Surgical Post-Training" (arXiv 2603.01683), in the paired form of BCO
                                      (arXiv 2404.04656)
    dpo                               arXiv 2305.18290
    dft                               arXiv 2508.05629

A row without y- is an answer to keep: the policy's own right answer. The terms of y- fall away: spot-bco becomes
-log s(r+ - d), and spot-bce and reward-sft become -log s(r+). dpo compares two answers, so it has no such rows.

A loss is the *share* of this micro-batch in the loss of its training step: the sum over its rows (or tokens), divided
by the number of rows (or tokens) in the whole step. The shares of all micro-batches and ranks add up to the same loss
however the step is divided. This also applies to the last, smaller step of an epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from spotcli.errors import SpotError

ShiftKind = Literal["ema", "running", "none", "constant"]


@dataclass(frozen=True)
class LossInputs:
    """The inputs of an objective. Policy tensors carry gradients; reference tensors do not."""

    policy_chosen_logps_B: Tensor
    """logp(y+) under the policy."""
    policy_rejected_logps_B: Tensor | None = None
    """logp(y-) under the policy; None if the objective does not run the rejected answer."""
    reference_chosen_logps_B: Tensor | None = None
    """logp(y+) under the reference, the frozen starting policy; None if the objective has no reference."""
    reference_rejected_logps_B: Tensor | None = None
    """logp(y-) under the reference; None if the objective has no reference."""
    paired_B: Tensor | None = None
    """1 for rows with y-, 0 for rows without, whose log-probabilities of y- are 0. None: every row has y-."""
    chosen_token_logps_T: Tensor | None = None
    """Log-probability of each response token of y+ under the policy, for the token-level objectives."""
    step_pairs: float | None = None
    """Rows in the whole training step, over all micro-batches and ranks. Default: the rows given here."""
    step_tokens: float | None = None
    """Response tokens of chosen answers in the whole training step. Default: the tokens given here."""


@dataclass(frozen=True)
class LossOutputs:
    """The loss and the metrics of a micro-batch."""

    loss: Tensor
    """The scalar to differentiate."""
    metrics: Mapping[str, Tensor]
    """Detached values, each [B].

    Objectives with rewards: ``rewards_chosen`` (r+), ``rewards_rejected`` (r-), ``margin`` (r+ - r-), ``accuracy`` (1
    if r+ > r-, else 0) and ``tether``; they are about pairs, and 0 for rows without y-. ``rewards_kept`` is r+ of rows
    without y-, and 0 for pairs; it is absent if ``paired_B`` is None. Objectives on tokens: ``logps_chosen``
    (logp(y+)).
    """


@dataclass(frozen=True)
class Coefficients:
    """The numbers of the formulas."""

    beta: float = 0.1
    """Reward per nat; a larger value keeps the policy closer to the reference."""
    shift: float = 0.0
    """d, in units of reward; ignored by objectives without a shift."""


@dataclass(frozen=True)
class Objective:
    """A named loss function and the inputs that it needs."""

    name: str
    formula: Callable[[LossInputs, Coefficients], LossOutputs]
    reference: bool
    """The objective needs reference log-probabilities."""
    rejected: bool
    """The rejected answer is run: for the loss, or to measure how training on y+ alone also raises y- ("pull-up")."""
    contrast: bool
    """The loss has a term of the rejected answer, so training needs rows that have one."""
    keeps: bool = True
    """Rows without y- are trained on too."""
    shifted: bool = False
    """The objective subtracts the reward shift."""

    def __call__(self, inputs: LossInputs, coefficients: Coefficients | None = None) -> LossOutputs:
        """Compute the loss of ``inputs``: sequence and token log-probabilities, in nats.

        Raises:
            SpotError: log-probabilities that this objective needs are missing.
        """
        return self.formula(inputs, coefficients or Coefficients())

    def first_loss(self, inputs: LossInputs, coefficients: Coefficients | None = None) -> Tensor | None:
        """Compute the loss of ``inputs`` if the policy equals the reference; None without a reference."""
        if not self.reference:
            return None
        first = replace(
            inputs,
            policy_chosen_logps_B=_needed(inputs, "reference_chosen_logps_B"),
            policy_rejected_logps_B=_needed(inputs, "reference_rejected_logps_B"),
        )
        return self(first, coefficients).loss


def rewards(inputs: LossInputs, beta: float) -> tuple[Tensor, Tensor]:
    """Compute r+ and r-, each [B].

    Raises:
        SpotError: rejected or reference log-probabilities are missing.
    """
    chosen_B = beta * (inputs.policy_chosen_logps_B - _needed(inputs, "reference_chosen_logps_B"))
    rejected_B = beta * (_needed(inputs, "policy_rejected_logps_B") - _needed(inputs, "reference_rejected_logps_B"))
    return chosen_B, rejected_B


def spot_bco(inputs: LossInputs, coefficients: Coefficients) -> LossOutputs:
    """-log s(r+ - d) - log s(-(r- - d)), mean over the rows of the step (arXiv 2404.04656, 2603.01683)."""
    shift = coefficients.shift
    chosen_B, rejected_B = rewards(inputs, coefficients.beta)
    loss_B = -F.logsigmoid(chosen_B - shift) + _of_pairs(inputs, -F.logsigmoid(-(rejected_B - shift)))
    return _by_row(inputs, loss_B, chosen_B, rejected_B, torch.sigmoid(shift - chosen_B))


def spot_bce(inputs: LossInputs, coefficients: Coefficients) -> LossOutputs:
    """-log s(r+) - log s(-r-), mean over the rows of the step: spot-bco with d = 0 (arXiv 2603.01683)."""
    return spot_bco(inputs, replace(coefficients, shift=0.0))


def dpo(inputs: LossInputs, coefficients: Coefficients) -> LossOutputs:
    """-log s(r+ - r-), mean over the pairs of the step (arXiv 2305.18290)."""
    chosen_B, rejected_B = rewards(inputs, coefficients.beta)
    loss_B = -F.logsigmoid(chosen_B - rejected_B)
    return _by_row(inputs, loss_B, chosen_B, rejected_B, torch.sigmoid(rejected_B - chosen_B))


def reward_sft(inputs: LossInputs, coefficients: Coefficients) -> LossOutputs:
    """-log s(r+), mean over the rows of the step (arXiv 2603.01683). y- is run for the metrics only."""
    chosen_B, rejected_B = rewards(inputs, coefficients.beta)
    return _by_row(inputs, -F.logsigmoid(chosen_B), chosen_B, rejected_B, torch.sigmoid(-chosen_B))


def sft(inputs: LossInputs, coefficients: Coefficients) -> LossOutputs:
    """-log pi(y+ | x), mean over the chosen *tokens* of the step.

    Every token has the same weight, in short and in long answers, as in usual supervised fine-tuning.
    """
    return _by_token(inputs, -_needed(inputs, "chosen_token_logps_T"))


def dft(inputs: LossInputs, coefficients: Coefficients) -> LossOutputs:
    """-sg(p_t) * log p_t, mean over the chosen tokens of the step; sg stops the gradient (arXiv 2508.05629)."""
    logps_T = _needed(inputs, "chosen_token_logps_T")
    return _by_token(inputs, -logps_T.detach().exp() * logps_T)


def _needed(inputs: LossInputs, name: str) -> Tensor:
    value: Tensor | None = getattr(inputs, name)
    if value is None:
        raise SpotError(f"missing {name}: the objective requires it")
    return value


def _of_pairs(inputs: LossInputs, values_B: Tensor) -> Tensor:
    """Return the values with 0 for rows without y-."""
    return values_B if inputs.paired_B is None else values_B * inputs.paired_B


def _by_row(inputs: LossInputs, loss_B: Tensor, chosen_B: Tensor, rejected_B: Tensor, tether_B: Tensor) -> LossOutputs:
    rows = inputs.step_pairs if inputs.step_pairs is not None else len(loss_B)
    metrics = {
        "rewards_chosen": chosen_B,
        "rewards_rejected": rejected_B,
        "margin": chosen_B - rejected_B,
        "accuracy": (chosen_B > rejected_B).to(chosen_B.dtype),
        "tether": tether_B,
    }
    metrics = {name: _of_pairs(inputs, metric_B) for name, metric_B in metrics.items()}
    if inputs.paired_B is not None:
        metrics["rewards_kept"] = chosen_B - metrics["rewards_chosen"]
    return LossOutputs(loss_B.sum() / rows, {name: metric_B.detach() for name, metric_B in metrics.items()})


def _by_token(inputs: LossInputs, loss_T: Tensor) -> LossOutputs:
    tokens = inputs.step_tokens if inputs.step_tokens is not None else len(loss_T)
    return LossOutputs(loss_T.sum() / tokens, {"logps_chosen": inputs.policy_chosen_logps_B.detach()})


OBJECTIVES: Mapping[str, Objective] = MappingProxyType(
    {
        objective.name: objective
        for objective in (
            Objective("spot-bco", spot_bco, reference=True, rejected=True, contrast=True, shifted=True),
            Objective("spot-bce", spot_bce, reference=True, rejected=True, contrast=True),
            Objective("dpo", dpo, reference=True, rejected=True, contrast=True, keeps=False),
            Objective("reward-sft", reward_sft, reference=True, rejected=True, contrast=False),
            Objective("sft", sft, reference=False, rejected=False, contrast=False),
            Objective("dft", dft, reference=False, rejected=False, contrast=False),
        )
    }
)
"""All objectives, by the name in ``train.objective``."""


class RewardShift:
    """The reward shift d of spot-bco, the boundary between high and low rewards (arXiv 2404.04656).

        ema        d <- decay * d + (1 - decay) * m
        running    d <- the mean of m over all steps so far
        constant   d is always ``value``
        none       d is always 0

    m is the mean of (r+ + r-) / 2 over the pairs of the whole training step: all micro-batches, all ranks. Rows without
    y- do not count, because d separates the two answers to one problem; a step without pairs does not change d.

    A step uses the d from the steps *before* it; its own rewards change d afterwards. All micro-batches of a step
    therefore use the same d, and gradient accumulation and the number of ranks do not change the result. d starts at
    0, the exact value: in the first step the policy equals the reference, so every reward is 0. Evaluation does not
    change d. (TRL up to 0.28 updated d with each micro-batch before using it, and in evaluation too.)
    """

    def __init__(self, kind: ShiftKind = "ema", *, value: float = 0.0, decay: float = 0.9) -> None:
        self.kind = kind
        self.decay = decay
        self.value = value if kind == "constant" else 0.0
        self.steps = 0

    @classmethod
    def of(cls, setting: str | float, *, decay: float = 0.9) -> RewardShift:
        """Build the shift from ``train.shift`` of a recipe: the name of a kind, or a number.

        Raises:
            SpotError: the kind is unknown.
        """
        if setting == "ema":
            return cls("ema", decay=decay)
        if setting == "running":
            return cls("running")
        if setting == "none":
            return cls("none")
        if isinstance(setting, str):
            raise SpotError(f"unknown reward shift '{setting}'", cure="use ema, running, none, or a number")
        return cls("constant", value=float(setting))

    def update(self, mean_reward: float) -> None:
        """Update d after a training step.

        Args:
            mean_reward: m, the mean of (r+ + r-) / 2 over the pairs of the step.
        """
        self.steps += 1
        if self.kind == "ema":
            self.value = self.decay * self.value + (1 - self.decay) * mean_reward
        elif self.kind == "running":
            self.value += (mean_reward - self.value) / self.steps

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint, as plain numbers and strings."""
        return {"kind": self.kind, "value": self.value, "decay": self.decay, "steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state of a checkpoint.

        Raises:
            SpotError: the checkpoint has another kind of shift, or another decay.
        """
        if state["kind"] != self.kind or (self.kind == "ema" and state["decay"] != self.decay):
            raise SpotError(
                "the checkpoint has another reward shift: "
                f"expected {_shift_name(self.kind, self.decay)}, got {_shift_name(state['kind'], state['decay'])}"
            )
        self.value = float(state["value"])
        self.steps = int(state["steps"])


def _shift_name(kind: str, decay: float) -> str:
    return f"ema with decay {decay:g}" if kind == "ema" else kind
