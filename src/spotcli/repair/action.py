"""What a run of ``spot rectify`` does with the wrong answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Action:
    """What a run does with the wrong answers; only ``ask`` sends requests."""

    kind: Literal["ask", "replay", "dry run", "export", "import"] = "ask"
    """``replay``: make the pairs from the replies so far; ``dry run``: estimate the cost, write nothing; ``export``:
    write the answers whose next oracle is a person; ``import``: read them back, and make the pairs."""
    file: Path = Path()
    """Written by ``export``, read by ``import``."""
    any_version: bool = False
    """Replies to another version of the prompt count too."""

    @classmethod
    def of(
        cls, *, dry_run: bool = False, replay: bool = False, export: Path | None = None, import_: Path | None = None
    ) -> Action:
        """The action that these options select."""
        if export:
            return cls("export", export)
        if dry_run:
            return cls("dry run")
        if import_:
            return cls("import", import_, any_version=replay)
        return cls("replay", any_version=True) if replay else cls()


ASK = Action()
"""Send the requests that have no reply yet."""
