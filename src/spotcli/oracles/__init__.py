"""Who corrects: a Protocol, and a factory by name.

    litellm     any model that litellm knows, by its name (``gpt-4o``, ``gemini/...``, ``hosted_vllm/...``)
    symbolic    arithmetic repaired line by line; needs no key and no network
    human       ``$EDITOR``, one answer after the other; or all of them in one file (``todo``)

An oracle only proposes. The rectify stage journals what it says, reads it, has it graded and measures the edit.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from spotcli.core.oracle_prompts import Ask
from spotcli.providers.replies import Reply
from spotcli.records import Sample


@dataclass(frozen=True)
class Request:
    """One wrong answer that is to be corrected."""

    sample: Sample
    """The problem, the reference answer (``answer``) and the wrong answer (``response``)."""
    ask: Ask
    """The messages for an oracle that is prompted; for others its ``feedback`` on an earlier attempt."""


Amend = Callable[[Request, Reply], Awaitable[None]]
"""Puts a reply in the place of one that was given earlier."""


class Oracle(Protocol):
    """Corrects one answer at a time; may be asked for many at once."""

    name: str
    """As the user wrote it: ``gpt-4o``, ``symbolic``."""
    version: str
    """Changes when the same request would be answered otherwise; only replies of the same version count."""
    prompted: bool
    """True: reads ``ask.messages`` and replies between fences. False: works on the sample and replies y+ itself."""
    parallel: int | None
    """Requests that make sense at once; None: as many as the user wants. 1 for a human or pure computation."""

    async def correct(self, request: Request) -> Reply:
        """Propose a correction; ``Reply(finish_reason="declined", reason=...)`` where there is none to propose.

        Raises:
            PassingFailure: no reply, and worth another try later.
            UserError: no request can succeed: bad key, unknown model, quota used up; says the cure.
        """
        ...

    async def close(self) -> None:
        """Give connections back."""
        ...


@runtime_checkable
class ProviderOracle(Oracle, Protocol):
    """An oracle that is reached over a network, at a price."""

    def ready(self) -> None:
        """Called before the first request, and only when there will be one.

        Raises:
            UserError: there is no such provider, or the environment lacks its key or address.
        """
        ...

    def count_tokens(self, request: Request) -> tuple[int, int]:
        """Tokens of the prompt, and of the answer that is to be corrected; about."""
        ...

    def price_of(self, prompt_tokens: float, reply_tokens: float) -> float | None:
        """US dollars; None where the price is unknown."""
        ...

    def cost_of(self, usage: Mapping[str, Any], noted: float | None) -> float | None:
        """US dollars of a reply by today's prices; ``noted``: what was known of it when it came."""
        ...

    def worst_cost(self, request: Request) -> float | None:
        """US dollars that the request can cost at most; None where the price is unknown."""
        ...


@runtime_checkable
class AmendingOracle(Oracle, Protocol):
    """An oracle that may think better of an earlier reply of this run."""

    amend: Amend | None
    """Set by whoever keeps the replies."""
