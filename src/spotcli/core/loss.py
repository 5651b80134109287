"""The training objectives: log-probabilities in, one loss and its per-pair metrics out.

Shapes, as suffixes of names:

    B   rows in the micro-batch: pairs, and rows without y-
    T   response tokens of all chosen answers in the micro-batch, concatenated

Terms:

    y+, y-      the chosen (corrected) and the rejected (wrong) answer
    logp(y)     log pi(y | x): the sum over the response tokens, in nats
    r(y)        reward: beta * (logp(y) - reference logp(y))
    d           reward shift, see ``reward_shift``
    s           the sigmoid
    E           the tokens of y- that spot-focal lowers: its first error, or all its edited tokens
                (``core.forward.token_marks``)
    r-_E        reward of y- on the tokens E alone
    tether      the factor on the gradient of beta * logp(y+): 1 - s(r+ - d), for dpo 1 - s(r+ - r-). It starts at 0.5
                and falls towards 0 as the reward grows, so each pair has its own early stop. For nca it is
                1 - 1.5 s(r+), which starts at 0.25 and is 0 at r+ = ln 2.

Sources of the formulas:

    spot-bco, spot-bce, reward-sft    "Surgical Post-Training" (arXiv 2603.01683), in the paired form of BCO
                                      (arXiv 2404.04656)
    dpo                               arXiv 2305.18290
    dft                               arXiv 2508.05629
    spot-focal                        spot-bco with the errors of y- alone, as in Target-DPO (arXiv 2503.02783)
    dpop                              arXiv 2402.13228
    nca                               arXiv 2402.05369, for pairs

A row without y- is an answer to keep: the policy's own right answer. The terms of y- fall away: spot-bco and spot-focal
become -log s(r+ - d), spot-bce and reward-sft -log s(r+), and nca -log s(r+) - 0.5 log s(-r+). dpo and dpop compare two
answers, so they have no such rows.

A loss is the *share* of this micro-batch in the loss of its training step: the sum over its rows (or tokens), divided
by the number of rows (or tokens) in the whole step. The shares of all micro-batches and ranks add up to the same loss
however the step is divided. This also applies to the last, smaller step of an epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor

from spotcli.errors import SpotError


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
    policy_error_logps_B: Tensor | None = None
    """The part of logp(y-) on the tokens E under the policy, for spot-focal; 0 where E is empty."""
    reference_error_logps_B: Tensor | None = None
    """The same under the reference."""
    error_B: Tensor | None = None
    """1 where E has tokens, 0 where it is empty, for spot-focal."""
    chosen_token_logps_T: Tensor | None = None
    """Log-probability of each response token of y+ under the policy, for the token-level objectives."""
    chosen_token_weights_T: Tensor | None = None
    """Weight of each response token of y+ in the token-level objectives. None: every token has weight 1."""
    step_pairs: float | None = None
    """Rows in the whole training step, over all micro-batches and ranks. Default: the rows given here."""
    step_tokens: float | None = None
    """Weights of the response tokens of y+ in the whole training step, summed up. Default: of the tokens given here."""


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
    (logp(y+)). spot-focal: ``rewards_error`` (r-_E) too.
    """


@dataclass(frozen=True)
class Coefficients:
    """The numbers of the formulas."""

    beta: float = 0.1
    """Reward per nat; a larger value keeps the policy closer to the reference."""
    shift: float = 0.0
    """d, in units of reward; ignored by objectives without a shift."""
    focal_weight: float = 1.0
    """w, the weight of the term of y- in spot-focal."""
    dpop_penalty: float = 50.0
    """lambda of dpop."""


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
    errors: bool = False
    """The objective needs the part of logp(y-) on the errors of y-."""
    tokens: bool = False
    """The objective is a mean over tokens, and not over rows."""

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
            policy_error_logps_B=inputs.reference_error_logps_B,
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


def spot_focal(inputs: LossInputs, coefficients: Coefficients) -> LossOutputs:
    """-log s(r+ - d) - w log s(-(r-_E - d)), mean over the rows of the step.

    y- is lowered on the tokens E only: what follows from an error is no error, and what the correction keeps is not
    wrong (compare arXiv 2503.02783). The second term falls away where E is empty.
    """
    shift = coefficients.shift
    chosen_B, rejected_B = rewards(inputs, coefficients.beta)
    changes_B = _needed(inputs, "policy_error_logps_B") - _needed(inputs, "reference_error_logps_B")
    error_B = coefficients.beta * changes_B
    down_B = coefficients.focal_weight * _needed(inputs, "error_B") * -F.logsigmoid(-(error_B - shift))
    loss_B = -F.logsigmoid(chosen_B - shift) + _of_pairs(inputs, down_B)
    outputs = _by_row(inputs, loss_B, chosen_B, rejected_B, torch.sigmoid(shift - chosen_B))
    return replace(outputs, metrics={**outputs.metrics, "rewards_error": _of_pairs(inputs, error_B).detach()})


def dpo(inputs: LossInputs, coefficients: Coefficients) -> LossOutputs:
    """-log s(r+ - r-), mean over the pairs of the step (arXiv 2305.18290)."""
    chosen_B, rejected_B = rewards(inputs, coefficients.beta)
    loss_B = -F.logsigmoid(chosen_B - rejected_B)
    return _by_row(inputs, loss_B, chosen_B, rejected_B, torch.sigmoid(rejected_B - chosen_B))


def dpop(inputs: LossInputs, coefficients: Coefficients) -> LossOutputs:
    """-log s(r+ - r- - lambda * max(0, -r+)), mean over the pairs of the step (DPO-Positive, arXiv 2402.13228).

    The penalty is for answers y+ that become less likely than under the reference, as they can in dpo if y+ and y-
    differ in few tokens.
    """
    chosen_B, rejected_B = rewards(inputs, coefficients.beta)
    margin_B = chosen_B - rejected_B - coefficients.dpop_penalty * F.relu(-chosen_B)
    return _by_row(inputs, -F.logsigmoid(margin_B), chosen_B, rejected_B, torch.sigmoid(-margin_B))


def nca(inputs: LossInputs, coefficients: Coefficients) -> LossOutputs:
    """-log s(r+) - 0.5 log s(-r+) - 0.5 log s(-r-), mean over the rows of the step (arXiv 2402.05369, for pairs)."""
    chosen_B, rejected_B = rewards(inputs, coefficients.beta)
    loss_B = -F.logsigmoid(chosen_B) - 0.5 * F.logsigmoid(-chosen_B)
    loss_B = loss_B + _of_pairs(inputs, -0.5 * F.logsigmoid(-rejected_B))
    return _by_row(inputs, loss_B, chosen_B, rejected_B, 1 - 1.5 * torch.sigmoid(chosen_B))


def reward_sft(inputs: LossInputs, coefficients: Coefficients) -> LossOutputs:
    """-log s(r+), mean over the rows of the step (arXiv 2603.01683). y- is run for the metrics only."""
    chosen_B, rejected_B = rewards(inputs, coefficients.beta)
    return _by_row(inputs, -F.logsigmoid(chosen_B), chosen_B, rejected_B, torch.sigmoid(-chosen_B))


def sft(inputs: LossInputs, coefficients: Coefficients) -> LossOutputs:
    """-w_t log p_t, summed over the chosen *tokens* of the step and divided by the sum of their weights w_t.

    Without weights, every token counts the same, in short and in long answers, as in usual supervised fine-tuning.
    """
    return _by_token(inputs, -_needed(inputs, "chosen_token_logps_T"))


def dft(inputs: LossInputs, coefficients: Coefficients) -> LossOutputs:
    """-w_t sg(p_t) log p_t, averaged as in sft; sg stops the gradient (arXiv 2508.05629)."""
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
    weights_T = inputs.chosen_token_weights_T
    own: float | Tensor = len(loss_T)
    if weights_T is not None:
        loss_T, own = loss_T * weights_T, weights_T.sum()
    tokens = inputs.step_tokens if inputs.step_tokens is not None else own
    return LossOutputs(loss_T.sum() / tokens, {"logps_chosen": inputs.policy_chosen_logps_B.detach()})


OBJECTIVES: Mapping[str, Objective] = MappingProxyType(
    {
        objective.name: objective
        for objective in (
            Objective("spot-bco", spot_bco, reference=True, rejected=True, contrast=True, shifted=True),
            Objective("spot-bce", spot_bce, reference=True, rejected=True, contrast=True),
            Objective(
                "spot-focal", spot_focal, reference=True, rejected=True, contrast=True, shifted=True, errors=True
            ),
            Objective("dpo", dpo, reference=True, rejected=True, contrast=True, keeps=False),
            Objective("dpop", dpop, reference=True, rejected=True, contrast=True, keeps=False),
            Objective("nca", nca, reference=True, rejected=True, contrast=True),
            Objective("reward-sft", reward_sft, reference=True, rejected=True, contrast=False),
            Objective("sft", sft, reference=False, rejected=False, contrast=False, tokens=True),
            Objective("dft", dft, reference=False, rejected=False, contrast=False, tokens=True),
        )
    }
)
"""All objectives, by the name in ``train.objective``."""


def kept_kl(policy_K: Tensor, reference_K: Tensor) -> Tensor:
    """Estimate KL(pi || pi_ref) on each of K kept tokens: exp(q - p) - (q - p) - 1, in nats.

    p is the token's log-probability under the policy, q under the reference. This is the estimator k3 of John Schulman,
    "Approximating KL Divergence" (joschu.net/blog/kl-approx.html): never negative, and exact on average over tokens
    that are drawn from the policy. Kept tokens were drawn from the starting policy, so it is a penalty of the same
    shape rather than the divergence itself: (p - q)^2 / 2 near the reference. Its gradient for p is 1 - exp(q - p): at
    most 1 for a token that becomes more likely, and without bound for one that becomes less likely.

    Args:
        policy_K: p, with gradients.
        reference_K: q.
    """
    change_K = reference_K - policy_K
    return torch.expm1(change_K) - change_K
