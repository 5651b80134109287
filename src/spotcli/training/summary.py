"""What a run returns: its summary, and the estimate of a dry run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

RENAMED = {"read": "rows"}
"""Fields of a summary under the names of earlier versions, each with its name now."""

RENAMED_METRICS = {
    "moved_kept": "logp_change_kept",
    "moved_chosen": "logp_change_chosen_edited",
    "moved_rejected": "logp_change_rejected_edited",
    "check_cut": "check_truncated",
}
"""Metrics under the names of earlier versions, each with its name now."""


@dataclass(frozen=True)
class UpdateEstimate:
    """How large the updates of a run can be, compared with bfloat16's spacing around the weights of the policy.

    AdamW moves a weight by at most about the learning rate in a training step.
    """

    step: float
    """The largest learning rate of the schedule."""
    run: float
    """The sum of the learning rates of all training steps."""
    step_share: float
    """Share of the weights where ``step`` is above half the spacing, so that rounding to nearest can keep it."""
    run_share: float
    """The same share for ``run``."""


@dataclass(frozen=True)
class CostEstimate:
    """The estimated cost of a run."""

    parameters: int
    trained: int
    """Parameters that are trained."""
    quantized: int
    """Parameters with 4 bits per weight."""
    operations: dict[str, float]
    """Floating-point operations of the whole run, by part; ``reference`` is the reference's one forward pass."""
    device: str
    devices: int
    utilisation: float
    """Share of the device's peak that is reached."""
    minutes: float
    """Training and reference; without loading, saving and generation checks."""
    memory: dict[str, float]
    """GiB per device, by content."""
    memory_total: float
    """GiB per device."""
    memory_available: float
    """GiB of the device."""
    memory_loading: float
    """GiB per device while it has the whole weights: when they are loaded, and for the reference."""
    disk: dict[str, float]
    """GiB on disk when the model is saved, by content; the folder needs the sum."""
    loading_seconds: float
    """Reading the weights, at ``core.costs.DISK_RATE``; a rough number."""
    saving_seconds: float
    """Writing all checkpoints and the model, at the same rate."""
    updates: UpdateEstimate | None = None
    """None if the weights are not on this machine, or adapters are trained."""


@dataclass(frozen=True)
class Survival:
    """What the format of the saved file left of the training; shares are 1 if nothing was lost."""

    dtype: str
    """Format of the saved weights."""
    rounding: str
    """``train.rounding``, or ``none`` where the weights had this format already."""
    update: float
    """Share of the update: the length of saved - start along trained - start."""
    cosine: float
    """Cosine of the angle between saved - start and trained - start."""
    moved: float
    """Share of the saved weights that differ from the starting policy's."""
    moved_in_training: float
    """The same share before rounding."""
    seen: float
    """Share of the update that the last forward passes of training were computed with."""
    margin: float | None = None
    """Share of the change of the mean log-probability margin; None if it was not measured, or did not change."""
    margin_change: float | None = None
    """The change of the margin before rounding, in nats."""
    pairs: int = 0
    """Pairs that the margin was measured on."""

    @property
    def smallest(self) -> float:
        """The smaller one of the two shares."""
        return self.update if self.margin is None else min(self.update, self.margin)


@dataclass(frozen=True)
class TrainSummary:
    """The data, the size and the result of a run."""

    checkpoint: str
    """The folder of the trained model."""
    objective: str
    pairs: int
    """Pairs that are trained on."""
    rows: int
    """Rows of the data: ``pairs`` and everything in ``dropped``."""
    dropped: dict[str, int]
    """Rows left out, by reason."""
    emitted: int
    """Pairs that are trained on the token ids that the policy emitted (``sample.keep_tokens``)."""
    epochs: float
    batch_size: int
    """Pairs per training step."""
    steps: int
    tokens: int
    """Tokens per epoch, each answer with its whole prompt."""
    shared_tokens: int
    """Tokens per epoch if the common beginnings of a micro-batch are counted once, as with ``shares_prefix``."""
    shares_prefix: bool
    unpaired: int = 0
    """How many of ``pairs`` have no rejected answer: right answers to keep."""
    seconds: float = 0.0
    """Duration of this start, including loading and reference."""
    pairs_per_second: float | None = None
    """Pairs per second over the training steps of this start."""
    first_loss: float | None = None
    final: dict[str, float] = field(default_factory=dict)
    """Metrics of the last training step."""
    resumed_from: int | None = None
    """The training step after which this start resumed."""
    saved: Survival | None = None
    """What saving left of the training; None for adapters, which are saved as they were trained."""
    estimate: CostEstimate | None = None
    """Estimated cost; of a dry run."""
    reviewed: dict[str, int] = field(default_factory=dict)
    """Rows by the decision of a reviewer: ``accept``, ``reject``, ``edited``; ``stale`` decisions have no effect."""
    audit: dict[str, Any] | None = None
    """The last audit of the data (``spot inspect --sample``); ``current``: the data has not changed since."""
    similarity: dict[str, float] | None = None
    """Quantiles of the pairs' normalized CHES (``p10``, ``p50``, ``p90``), with ``train.similarity``."""
    rows_per_epoch: int | None = None
    """Rows that an epoch trains on; with ``train.keep_share`` not always ``pairs``. None: unknown."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainSummary:
        """From the summary in spot-train.json; names of earlier versions are accepted."""
        known = {RENAMED.get(name, name): value for name, value in values.items()}
        known["final"] = with_new_names(known.get("final", {}))
        if known.get("saved") is not None:
            known["saved"] = Survival(**known["saved"])
        return cls(**known)


def with_new_names(row: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics under their names of this version."""
    return {RENAMED_METRICS.get(name, name): value for name, value in row.items()}
