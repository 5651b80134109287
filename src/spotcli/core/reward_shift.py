"""The reward shift d of spot-bco and spot-focal, which follows the rewards of earlier training steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from spotcli.errors import SpotError

ShiftKind = Literal["ema", "running", "none", "constant"]


class RewardShift:
    """The reward shift d of spot-bco and spot-focal, the boundary between high and low rewards (arXiv 2404.04656).

        ema        d <- decay * d + (1 - decay) * m
        running    d <- the mean of m over all steps so far
        constant   d is always ``value``
        none       d is always 0

    m is the mean of (r+ + r-) / 2 over the pairs of the whole training step: all micro-batches, all ranks. For
    spot-focal it is the mean of (r+ + r-_E) / 2. Rows without y- do not count, because d separates the two answers to
    one problem; a step without pairs does not change d.

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
