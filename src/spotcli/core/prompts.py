"""What the oracle is asked, and how its reply is read."""
from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Ask:
    messages: list[dict[str, str]] = field(default_factory=list)
    feedback: str | None = None
