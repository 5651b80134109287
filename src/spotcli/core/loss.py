"""The objectives: sequence log-probabilities in, one loss and its per-pair metrics out.

Shapes, as suffixes of names:

    B   pairs in the micro-batch
    T   response tokens of the chosen answers in the micro-batch, one after the other

Terms:

    y+, y-      the chosen (corrected) and the rejected (wrong) answer
    logp(y)     log pi(y | x): the sum over the response tokens, in nats
    r(y)        reward: beta * (logp(y) - reference logp(y))
    d           reward shift, see ``RewardShift``
    s           the sigmoid
    tether      what the gradient on beta * logp(y+) is scaled by: 1 - s(r+ - d), for dpo 1 - s(r+ - r-). It is 0.5 at
                the start and falls towards 0 as the reward grows: an early stop for each pair by itself.

Formulas: "Surgical Post-Training" (arXiv 2603.01683) for spot-bco, spot-bce and reward-sft, which take the paired
form of BCO (arXiv 2404.04656); dpo is arXiv 2305.18290; dft is arXiv 2508.05629.

A loss is this micro-batch's *share* of the loss of its optimiser step: a sum over the pairs (or tokens) here, divided
by the number of pairs (or tokens) in the whole step. The shares of a step's micro-batches and ranks add up to the same
number however the step is cut, the last and smaller step of an epoch included.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from spotcli.errors import SpotError

ShiftKind = Literal["ema", "running", "none", "constant"]


@dataclass(frozen=True)
class LossInputs:
    """What an objective may look at. Policy tensors carry gradients; reference tensors do not."""

    policy_chosen_logps_B: Tensor
    """logp(y+) under the policy, summed over response tokens."""
    policy_rejected_logps_B: Tensor | None = None
    """logp(y-) under the policy; absent where the objective does not need it."""
    reference_chosen_logps_B: Tensor | None = None
    """logp(y+) under the frozen starting policy."""
    reference_rejected_logps_B: Tensor | None = None
    """logp(y-) under the frozen starting policy."""
    chosen_token_logps_T: Tensor | None = None
    """log-probability of each response token of y+ under the policy, for the token-level objectives."""
    step_pairs: float | None = None
    """Pairs in the whole optimiser step, over all micro-batches and ranks; those given here when absent."""
    step_tokens: float | None = None
    """Chosen response tokens in the whole optimiser step; those given here when absent."""


@dataclass(frozen=True)
class LossOutputs:
    """The scalar to differentiate, and detached metrics, one value a pair."""

    loss: Tensor
    metrics: Mapping[str, Tensor]


@dataclass(frozen=True)
class Objective:
    """A loss by name; called with its inputs, ``beta`` and the reward shift ``shift``."""

    name: str
    formula: Callable[[LossInputs, float, float], LossOutputs]
    reference: bool
    """Needs reference log-probabilities."""
    rejected: bool
    """Runs the rejected answer, for its loss or for the "pull-up" of y- that positives alone bring about."""
    shifted: bool = False
    """Subtracts the reward shift."""
    first_loss: float | None = None
    """The loss where policy = reference and d = 0, in nats."""

    def __call__(self, inputs: LossInputs, *, beta: float = 0.1, shift: float = 0.0) -> LossOutputs:
        """The loss of ``inputs``.

        Args:
            inputs: sequence and token log-probabilities, in nats.
            beta: how tightly rewards tie the policy to the reference.
            shift: d, in units of reward; ignored by objectives that have none.

        Raises:
            SpotError: log-probabilities that this objective needs are absent.
        """
        return self.formula(inputs, beta, shift)


def rewards(inputs: LossInputs, beta: float) -> tuple[Tensor, Tensor]:
    """r+ and r-, each [B].

    Raises:
        SpotError: rejected or reference log-probabilities are absent.
    """
    chosen_B = beta * (inputs.policy_chosen_logps_B - _needed(inputs, "reference_chosen_logps_B"))
    rejected_B = beta * (_needed(inputs, "policy_rejected_logps_B") - _needed(inputs, "reference_rejected_logps_B"))
    return chosen_B, rejected_B


def spot_bco(inputs: LossInputs, beta: float, shift: float) -> LossOutputs:
    """-log s(r+ - d) - log s(-(r- - d)), mean over the step's pairs."""
    chosen_B, rejected_B = rewards(inputs, beta)
    loss_B = -F.logsigmoid(chosen_B - shift) - F.logsigmoid(-(rejected_B - shift))
    return _by_pair(inputs, loss_B, chosen_B, rejected_B, torch.sigmoid(shift - chosen_B))


def spot_bce(inputs: LossInputs, beta: float, shift: float) -> LossOutputs:
    """-log s(r+) - log s(-r-), mean over the step's pairs: spot-bco with d = 0."""
    return spot_bco(inputs, beta, 0.0)


def dpo(inputs: LossInputs, beta: float, shift: float) -> LossOutputs:
    """-log s(r+ - r-), mean over the step's pairs."""
    chosen_B, rejected_B = rewards(inputs, beta)
    loss_B = -F.logsigmoid(chosen_B - rejected_B)
    return _by_pair(inputs, loss_B, chosen_B, rejected_B, torch.sigmoid(rejected_B - chosen_B))


def reward_sft(inputs: LossInputs, beta: float, shift: float) -> LossOutputs:
    """-log s(r+), mean over the step's pairs: positives only, with the tether. y- is run to be watched."""
    chosen_B, rejected_B = rewards(inputs, beta)
    return _by_pair(inputs, -F.logsigmoid(chosen_B), chosen_B, rejected_B, torch.sigmoid(-chosen_B))


def sft(inputs: LossInputs, beta: float, shift: float) -> LossOutputs:
    """-log pi(y+ | x), mean over the chosen *tokens* of the step.

    A token weighs the same in a short answer and in a long one, as in the usual supervised fine-tuning.
    """
    return _by_token(inputs, -_needed(inputs, "chosen_token_logps_T"))


def dft(inputs: LossInputs, beta: float, shift: float) -> LossOutputs:
    """SFT with each token's loss weighted by its own probability, detached: -sg(p_t) * log p_t, mean over tokens."""
    logps_T = _needed(inputs, "chosen_token_logps_T")
    return _by_token(inputs, -logps_T.detach().exp() * logps_T)


def _needed(inputs: LossInputs, name: str) -> Tensor:
    value: Tensor | None = getattr(inputs, name)
    if value is None:
        raise SpotError(f"the objective needs {name}")
    return value


def _by_pair(inputs: LossInputs, loss_B: Tensor, chosen_B: Tensor, rejected_B: Tensor, tether_B: Tensor) -> LossOutputs:
    pairs = inputs.step_pairs if inputs.step_pairs is not None else len(loss_B)
    metrics = {
        "rewards_chosen": chosen_B,
        "rewards_rejected": rejected_B,
        "margin": chosen_B - rejected_B,
        "accuracy": (chosen_B > rejected_B).to(chosen_B.dtype),
        "tether": tether_B,
    }
    return LossOutputs(loss_B.sum() / pairs, {name: metric_B.detach() for name, metric_B in metrics.items()})


def _by_token(inputs: LossInputs, loss_T: Tensor) -> LossOutputs:
    tokens = inputs.step_tokens if inputs.step_tokens is not None else len(loss_T)
    return LossOutputs(loss_T.sum() / tokens, {"logps_chosen": inputs.policy_chosen_logps_B.detach()})


_LN2 = 0.6931471805599453

OBJECTIVES: Mapping[str, Objective] = MappingProxyType(
    {
        each.name: each
        for each in (
            Objective("spot-bco", spot_bco, reference=True, rejected=True, shifted=True, first_loss=2 * _LN2),
            Objective("spot-bce", spot_bce, reference=True, rejected=True, first_loss=2 * _LN2),
            Objective("dpo", dpo, reference=True, rejected=True, first_loss=_LN2),
            Objective("reward-sft", reward_sft, reference=True, rejected=True, first_loss=_LN2),
            Objective("sft", sft, reference=False, rejected=False),
            Objective("dft", dft, reference=False, rejected=False),
        )
    }
)


class RewardShift:
    """The reward shift d of spot-bco: what counts as a middling reward.

        ema        d <- decay * d + (1 - decay) * m
        running    d <- the mean of m over all steps so far
        constant   d stays at ``value``
        none       d stays at 0

    m is the mean of (r+ + r-) / 2 over the whole optimiser step: all pairs, all micro-batches, all ranks.

    A step uses the d that the steps *before* it left behind; its own rewards move d only afterwards. So all
    micro-batches of a step see one d, and gradient accumulation and the number of ranks cannot change what is learned.
    d starts at 0, which is no guess: at the first step policy = reference, hence every reward is 0. Evaluation never
    moves it. (TRL up to 0.28 moved d with each micro-batch before using it, in evaluation too.)
    """

    def __init__(self, kind: ShiftKind = "ema", *, value: float = 0.0, decay: float = 0.9) -> None:
        self.kind = kind
        self.decay = decay
        self.value = value if kind == "constant" else 0.0
        self.steps = 0

    @classmethod
    def of(cls, setting: str | float, *, decay: float = 0.9) -> RewardShift:
        """From a recipe's ``shift``: the name of a kind, or a number.

        Raises:
            SpotError: there is no such kind.
        """
        if setting == "ema":
            return cls("ema", decay=decay)
        if setting == "running":
            return cls("running")
        if setting == "none":
            return cls("none")
        if isinstance(setting, str):
            raise SpotError(f"there is no reward shift '{setting}'", cure="ema, running, none, or a number")
        return cls("constant", value=float(setting))

    def update(self, mean_reward: float) -> None:
        """Take in one optimiser step.

        Args:
            mean_reward: m, the mean of (r+ + r-) / 2 over the whole step.
        """
        self.steps += 1
        if self.kind == "ema":
            self.value = self.decay * self.value + (1 - self.decay) * mean_reward
        elif self.kind == "running":
            self.value += (mean_reward - self.value) / self.steps

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds; plain numbers and strings."""
        return {"kind": self.kind, "value": self.value, "decay": self.decay, "steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint.

        Raises:
            SpotError: the checkpoint was made with another kind of shift.
        """
        if state["kind"] != self.kind or (self.kind == "ema" and state["decay"] != self.decay):
            raise SpotError(f"the checkpoint holds a reward shift of another kind: {state['kind']}, not {self.kind}")
        self.value = float(state["value"])
        self.steps = int(state["steps"])
