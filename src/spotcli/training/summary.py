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
    seconds: float = 0.0
    """Duration of this start, including loading and reference."""
    pairs_per_second: float | None = None
    """Pairs per second over the training steps of this start."""
    first_loss: float | None = None
    final: dict[str, float] = field(default_factory=dict)
    """Metrics of the last training step."""
    resumed_from: int | None = None
    """The training step after which this start resumed."""
    estimate: CostEstimate | None = None
    """Estimated cost; of a dry run."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainSummary:
        """From the summary in spot-train.json; names of earlier versions are accepted."""
        known = {RENAMED.get(name, name): value for name, value in values.items()}
        known["final"] = with_new_names(known.get("final", {}))
        return cls(**known)


def with_new_names(row: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics under their names of this version."""
    return {RENAMED_METRICS.get(name, name): value for name, value in row.items()}
