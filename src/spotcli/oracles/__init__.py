"""Who corrects: a Protocol, and a factory by name.

    litellm     any model that litellm knows, by its name (``gpt-4o``, ``gemini/...``, ``hosted_vllm/...``)
    symbolic    arithmetic repaired line by line; needs no key and no network
    human       ``$EDITOR``, one answer after the other; or all of them in one file (``todo``)

An oracle only proposes. The rectify stage journals what it says, reads it, has it graded and measures the edit.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from spotcli.core.prompts import Ask
from spotcli.records import Sample

if TYPE_CHECKING:
    from spotcli.recipe import RectifySection


@dataclass(frozen=True)
class Request:
    """One wrong answer that is to be corrected."""

    sample: Sample
    """The problem, the reference answer (``answer``) and the wrong answer (``response``)."""
    ask: Ask
    """The messages for an oracle that is prompted; for others its ``feedback`` on an earlier attempt."""


@dataclass(frozen=True)
class Reply:
    """What the oracle said, whole and unread."""

    text: str = ""
    """A prompted oracle's message as it came; any other oracle's corrected answer, the whole of it."""
    finish_reason: str = "stop"
    """``stop``; ``length``: cut; ``filtered`` by the provider; ``refused`` by the model; ``declined``: ``reason``."""
    reason: str | None = None
    """Why an oracle declined: one or two words, since rows are counted by it (``no step found``)."""
    usage: Mapping[str, Any] = field(default_factory=dict)
    """The provider's token counts, as they came."""
    cost: float | None = None
    """US dollars; None where the price is unknown."""
    model: str | None = None
    """The model that the provider says has answered."""
    token_ids: list[int] | None = None
    """The reply's tokens, where the provider tells them."""


class PassingFailure(Exception):
    """No reply this time; the same request can succeed later.

    ``kind`` is what failures are counted by: ``rate limit``, ``time-out``, ``connection``, ``server``, ``unreadable``
    (a body that is no reply), ``bad request``.
    ``retry_after`` is in seconds, where the provider named a time. ``maybe_billed``: the request may have been worked
    on before it failed, so a money limit has to count it as spent. ``retry``: sending it again soon makes sense.
    """

    def __init__(
        self,
        kind: str,
        message: str,
        *,
        retry_after: float | None = None,
        maybe_billed: bool = False,
        retry: bool = True,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.retry_after = retry_after
        self.maybe_billed = maybe_billed
        self.retry = retry


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


def create(name: str, settings: RectifySection) -> Oracle:
    """The oracle of that name: ``symbolic``, ``human``, or a model by litellm's name, which is not looked up yet.

    Raises:
        RecipeError: settings that do not fit together.
    """
    if name == "symbolic":
        from spotcli.oracles.symbolic import SymbolicOracle

        return SymbolicOracle()
    if name == "human":
        from spotcli.oracles.human import HumanOracle

        return HumanOracle()
    from spotcli.oracles.litellm import LitellmOracle

    return LitellmOracle(name, settings)
