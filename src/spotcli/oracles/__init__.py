"""Oracles correct wrong answers: the protocol that all of them follow.

    model       any model that litellm supports, by its name (``gpt-4o``, ``gemini/...``, ``hosted_vllm/...``)
    symbolic    repairs arithmetic line by line; needs no key and no network
    human       a person with ``$EDITOR``, one answer at a time; or with all answers in one file (``worksheet``)
    policy      the policy itself: it continues its own answers, or is prompted for a correction (``PolicyOracle``)
    plugin      of an installed package, by the name of its entry point; docs/plugins.md has an example

An oracle only proposes. The rectify stage journals the reply, parses it, grades the correction and measures the edit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from spotcli.core.oracle_prompts import OraclePrompt
from spotcli.oracles.policy import PolicyOracle
from spotcli.providers.replies import Reply
from spotcli.records import Sample


@dataclass(frozen=True)
class CorrectionRequest:
    """One wrong answer that is to be corrected."""

    sample: Sample
    """The problem, the reference answer (``answer``) and the wrong answer (``response``)."""
    prompt: OraclePrompt
    """The messages for an oracle that is prompted; for others its ``feedback`` on an earlier attempt."""
    max_tokens_factor: int = 1
    """Multiplies the limit of reply tokens; 2 after a truncated reply."""


class Oracle(Protocol):
    """Corrects one answer per request; many requests may be in flight."""

    name: str
    """As the user wrote it: ``gpt-4o``, ``symbolic``."""
    version: str
    """Identifies everything that shapes a reply; only replies of the same version count."""
    prompted: bool
    """True: reads ``prompt.messages``, and replies between tags. False: reads the sample, and replies with y+."""
    parallel: int | None
    """Requests in flight at most; None: as many as the user wants. 1 for a person or pure computation."""

    async def correct(self, request: CorrectionRequest) -> Reply:
        """Propose a correction; ``Reply(finish_reason="declined", reason=...)`` without one.

        Raises:
            RequestFailed: no reply came, and another try can succeed.
            UserError: no request can succeed: invalid key, unknown model, exhausted quota.
        """
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...


AnyOracle = Oracle | PolicyOracle
"""An oracle that is asked about one answer at a time, or one that is given all open answers together."""
