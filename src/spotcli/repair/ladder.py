"""The ladder: the oracles in the order in which they are asked, and how each one is asked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from spotcli import plugins
from spotcli.console import say
from spotcli.core.oracle_prompts import ReplyMode
from spotcli.errors import UserError
from spotcli.oracles import AnyOracle, Oracle
from spotcli.oracles.by_name import BUILTIN, create
from spotcli.oracles.model import ModelOracle
from spotcli.oracles.policy import CONTINUED, PolicyOracle
from spotcli.oracles.policy import NAMES as POLICY_NAMES
from spotcli.recipe import RectifySection
from spotcli.repair.cases import Case
from spotcli.repair.policy_engine import PolicyEngine


@dataclass(frozen=True)
class Ladder:
    """The oracles in the order in which they are asked, and how each one is asked."""

    oracles: Sequence[AnyOracle]
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
    def of(cls, settings: RectifySection, oracles: Sequence[AnyOracle], *, repeat_truncated: bool = False) -> Ladder:
        return cls(
            oracles=oracles,
            mode="solution" if settings.mode == "direct" else settings.reply,
            reference=settings.reference,
            attempts=settings.attempts,
            max_tokens=settings.max_tokens,
            repeat_truncated=repeat_truncated,
        )

    def groups(self) -> Iterator[tuple[list[Oracle], list[PolicyOracle]]]:
        """The oracles in their order, in groups: those that are asked about one answer at a time, or the policy, which
        gets all open answers at once; the other list is empty."""
        for _, group in groupby(self.oracles, key=lambda oracle: isinstance(oracle, PolicyOracle)):
            single: list[Oracle] = []
            policies: list[PolicyOracle] = []
            for oracle in group:
                if isinstance(oracle, PolicyOracle):
                    policies.append(oracle)
                else:
                    single.append(oracle)
            yield single, policies


def check_first_oracle(oracles: Sequence[AnyOracle], cases: Iterable[Case], engine: PolicyEngine) -> None:
    """Check that the first oracle can be asked, if there is a case for it.

    Raises:
        UserError: an unknown model or provider, a missing package, key or address; a policy that is not found, or whose
            endpoint cannot continue an answer.
    """
    first = oracles[0]
    if not any(case.correctable for case in cases):
        return
    if isinstance(first, ModelOracle):
        first.check_environment()
    elif isinstance(first, PolicyOracle):
        engine.check(continues=not first.prompted)


def create_oracles(settings: RectifySection, needed: bool, *, by_file: bool, engine: PolicyEngine) -> list[AnyOracle]:
    """The oracles in the order in which they are asked; with a file for a person's corrections, a person is the last.

    Args:
        engine: of the policy, for the oracles that are the policy itself.

    Raises:
        UserError: the mode ``direct`` with an oracle that cannot solve problems.
    """
    if settings.mode == "direct" and {settings.oracle or "symbolic", *settings.then} & {"symbolic", "human", CONTINUED}:
        raise UserError(
            "mode `direct` requires a model: `symbolic`, `human` and `policy` only correct",
            where="rectify.oracle",
            cure=_MODEL,
        )
    if by_file:
        names = [settings.oracle, *settings.then] if settings.oracle else list(settings.then)
        names += [] if "human" in names else ["human"]
    else:
        if settings.oracle is None and needed:
            say("--oracle is not set: using `symbolic`, which corrects arithmetic and needs no key")
        names = [settings.oracle or "symbolic", *settings.then]
    oracles = [_oracle(name, settings, engine) for name in names]
    for oracle in oracles:
        if settings.mode == "direct" and not oracle.prompted and oracle.name not in BUILTIN:
            raise UserError(
                f"mode `direct` requires a model: `{oracle.name}` only corrects", where="rectify.oracle", cure=_MODEL
            )
    return oracles


def _oracle(name: str, settings: RectifySection, engine: PolicyEngine) -> AnyOracle:
    if name not in POLICY_NAMES:
        return create(name, settings)
    plugins.warn_if_shadowed(plugins.ORACLES, name)
    return engine.oracle(name)


_MODEL = "name a model: --oracle gpt-4o"
