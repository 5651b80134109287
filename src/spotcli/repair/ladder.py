"""The ladder: the oracles in the order in which they are asked, and how each one is asked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from spotcli.console import say
from spotcli.core.oracle_prompts import ReplyMode
from spotcli.errors import UserError
from spotcli.oracles import Oracle
from spotcli.oracles.by_name import BUILTIN, create
from spotcli.oracles.model import ModelOracle
from spotcli.recipe import RectifySection
from spotcli.repair.cases import Case


@dataclass(frozen=True)
class Ladder:
    """The oracles in the order in which they are asked, and how each one is asked."""

    oracles: Sequence[Oracle]
    mode: ReplyMode
    """The form of reply that prompted oracles are asked for."""
    reference: bool
    """Show the reference answer to the oracle."""
    attempts: int
    """Times that each prompted oracle is asked about one answer."""
    max_tokens: int | None
    """Reply tokens per request; None: no limit is sent."""
    repeat_truncated: bool = False
    """Request a truncated reply again if its limit was lower than today's."""

    @classmethod
    def of(cls, settings: RectifySection, oracles: Sequence[Oracle], *, repeat_truncated: bool = False) -> Ladder:
        return cls(
            oracles=oracles,
            mode="solution" if settings.mode == "direct" else settings.reply,
            reference=settings.reference,
            attempts=settings.attempts,
            max_tokens=settings.max_tokens,
            repeat_truncated=repeat_truncated,
        )


def check_first_oracle(oracles: Sequence[Oracle], cases: Iterable[Case]) -> None:
    """Check that the first oracle can be asked, if there is a case for it.

    Raises:
        UserError: an unknown model or provider, a missing package, key or address.
    """
    first = oracles[0]
    if isinstance(first, ModelOracle) and any(case.correctable for case in cases):
        first.check_environment()


def create_oracles(settings: RectifySection, needed: bool, *, by_file: bool) -> list[Oracle]:
    """The oracles in the order in which they are asked; with a file for a person's corrections, a person is the last.

    Raises:
        UserError: the mode ``direct`` with an oracle that cannot solve problems.
    """
    if settings.mode == "direct" and {settings.oracle or "symbolic", *settings.then} & {*BUILTIN}:
        raise UserError(
            "mode `direct` requires a model: `symbolic` and `human` only correct", where="rectify.oracle", cure=_MODEL
        )
    if by_file:
        names = [settings.oracle, *settings.then] if settings.oracle else list(settings.then)
        names += [] if "human" in names else ["human"]
    else:
        if settings.oracle is None and needed:
            say("--oracle is not set: using `symbolic`, which corrects arithmetic and needs no key")
        names = [settings.oracle or "symbolic", *settings.then]
    oracles = [create(name, settings) for name in names]
    for oracle in oracles:
        if settings.mode == "direct" and not oracle.prompted and oracle.name not in BUILTIN:
            raise UserError(
                f"mode `direct` requires a model: `{oracle.name}` only corrects", where="rectify.oracle", cure=_MODEL
            )
    return oracles


_MODEL = "name a model: --oracle gpt-4o"
