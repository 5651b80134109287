"""The numbers of a training step: sums over micro-batches and processes, and the metrics made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

LOGP_CHANGES = ("logp_change_kept", "logp_change_chosen_edited", "logp_change_rejected_edited")
"""Changes of the log-probabilities since the start, in nats per token: on the tokens of y+ that y- has too, on the
tokens that only y+ has, on the tokens that only y- has. All tokens of a row without y- are kept."""

KEPT_KL = "kl_kept"
"""Mean of the estimated KL divergence from the reference on kept tokens, in nats per token."""

KEPT = "rewards_kept"
"""The metric about the rows without y-. The other metrics of an objective with rewards are about pairs."""

FIRST = "first_loss"
"""The sum of the loss if the policy equals the reference; of the first training step."""


@dataclass(frozen=True)
class Totals:
    """Named sums in one float64 tensor, so that they are reduced over the processes in one call."""

    names: tuple[str, ...]
    values_K: Tensor
    """One sum per name, [K]."""

    @classmethod
    def of(cls, sums: Mapping[str, float | Tensor], device: torch.device | str = "cpu") -> Totals:
        """From numbers and scalar tensors; tensors stay on their device."""
        import torch

        values = [
            # `torch.tensor` would wait for the work of a GPU.
            value if isinstance(value, torch.Tensor) else torch.full((), value, dtype=torch.float64, device=device)
            for value in sums.values()
        ]
        return cls(tuple(sums), torch.stack(values).double())

    def __add__(self, other: Totals) -> Totals:
        assert self.names == other.names
        return replace(self, values_K=self.values_K + other.values_K)

    def as_dict(self) -> dict[str, float]:
        """The sums as numbers; waits for the device."""
        return dict(zip(self.names, self.values_K.tolist(), strict=True))


@dataclass(frozen=True)
class StepSize:
    """The size of a whole training step, over all micro-batches and processes."""

    pairs: float
    """Rows, with y- or without."""
    tokens: float
    """Tokens of the chosen answers."""
    unpaired: float = 0.0
    """Rows without y-, if the objective runs y-."""
    weight: float = 0.0
    """Weights of the tokens of the chosen answers, summed up; ``tokens`` if every token has weight 1."""

    @property
    def paired(self) -> float:
        """Rows that the metrics of the objective are about, except ``KEPT``."""
        return self.pairs - self.unpaired

    def rows_of(self, name: str) -> float:
        """The rows that a metric of the objective is about."""
        return self.unpaired if name == KEPT else self.paired


SIZES = tuple(field.name for field in fields(StepSize))
"""The sums that make a ``StepSize``."""


@dataclass
class StepMetrics:
    """The metrics of one training step, over all micro-batches and processes."""

    loss: float
    means: dict[str, float]
    """The objective's metrics, as means over the rows that they are about; those about no row are left out."""
    size: StepSize
    tokens_run: float
    """Tokens that went through the model."""
    logp_changes: dict[str, float]
    """By the names in ``LOGP_CHANGES``, which objectives without a reference lack, and ``KEPT_KL`` of a tether."""
    shift: float | None
    """The reward shift of this step; None for objectives without one."""
    first_loss: float | None = None
    """The loss if the policy equals the reference; None after the first step, and for objectives without a reference.
    """
    seconds: float = 0.0

    @classmethod
    def of(cls, sums: Mapping[str, float], size: StepSize, shift: float | None) -> StepMetrics:
        """From the sums of a step: ``loss``, ``tokens_run``, those of ``logp_change_sums``, and the objective's."""
        special = {
            "loss",
            FIRST,
            "tokens_run",
            *LOGP_CHANGES,
            *map(tokens_of, LOGP_CHANGES),
            KEPT_KL,
            tokens_of(KEPT_KL),
        }
        changes = {}
        for name in (*LOGP_CHANGES, KEPT_KL):
            if name in sums:
                tokens = sums[tokens_of(name)]
                changes[name] = sums[name] / tokens if tokens else 0.0
        return cls(
            loss=sums["loss"],
            means={
                name: total / size.rows_of(name)
                for name, total in sums.items()
                if name not in special and size.rows_of(name)
            },
            size=size,
            tokens_run=sums["tokens_run"],
            logp_changes=changes,
            shift=shift,
            first_loss=sums.get(FIRST),
        )

    @property
    def mean_reward(self) -> float | None:
        """The mean of (r+ + r-) / 2 over the pairs, for spot-focal of r+ and r-_E; None without rewards or pairs."""
        if "rewards_chosen" not in self.means:
            return None
        rejected = self.means.get("rewards_error", self.means["rewards_rejected"])
        return (self.means["rewards_chosen"] + rejected) / 2


def logp_change_sums(changes_3: Tensor, tokens_3: Tensor) -> dict[str, float | Tensor]:
    """Named sums of the changes and of the tokens that they are about, in the order of ``LOGP_CHANGES``."""
    return {
        **dict(zip(LOGP_CHANGES, changes_3, strict=True)),
        **dict(zip(map(tokens_of, LOGP_CHANGES), tokens_3, strict=True)),
    }


def tokens_of(name: str) -> str:
    """The name of the number of tokens that a metric is a mean over."""
    return f"tokens of {name}"


def metrics_row(steps: Sequence[StepMetrics]) -> dict[str, float]:
    """The row of metrics.jsonl for the training steps since the last row: sums, and means over their pairs."""
    pairs = sum(step.size.pairs for step in steps)

    def mean(values: Sequence[float]) -> float:
        return sum(value * step.size.pairs for value, step in zip(values, steps, strict=True)) / pairs

    def row_mean(name: str) -> float:
        known = [(step.means[name], step.size.rows_of(name)) for step in steps if name in step.means]
        return sum(value * rows for value, rows in known) / sum(rows for _, rows in known)

    last = steps[-1]
    row = {"loss": sum(step.loss for step in steps) / len(steps)}
    row |= {name: row_mean(name) for name in dict.fromkeys(name for step in steps for name in step.means)}
    row |= {"pairs": pairs, "tokens": sum(step.size.tokens for step in steps)}
    if unpaired := sum(step.size.unpaired for step in steps):
        row["unpaired"] = unpaired
    row |= {name: mean([step.logp_changes[name] for step in steps]) for name in last.logp_changes}
    if last.shift is not None:
        row["shift"] = mean([step.shift or 0.0 for step in steps])
    row["seconds"] = sum(step.seconds for step in steps)
    row["pairs_per_second"] = pairs / max(row["seconds"], 1e-9)
    row["tokens_per_second"] = sum(step.tokens_run for step in steps) / max(row["seconds"], 1e-9)
    return row
