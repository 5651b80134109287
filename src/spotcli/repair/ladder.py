"""The ladder: the oracles in the order in which they are asked, and how each one is asked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from spotcli import plugins
from spotcli.console import say
from spotcli.core.oracle_prompts import ReplyMode
from spotcli.errors import UserError
from spotcli.oracles import AnyOracle, Oracle
from spotcli.oracles.by_name import BUILTIN, create
from spotcli.oracles.model import ModelOracle
from spotcli.oracles.policy import CONTINUED, PolicyOracle
from spotcli.oracles.policy import NAMES as POLICY_NAMES
from spotcli.providers.batches.by_provider import WITH_BATCHES
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

    def groups(self) -> Iterator[Group]:
        """The oracles in their order, in groups that are asked in the same way."""
        for kind, group in groupby(self.oracles, key=_kind):
            yield Group(kind, list(group))


@dataclass(frozen=True)
class Group:
    """Oracles that follow each other on the ladder."""

    kind: Literal["single", "batch", "policy"]
    """``single``: asked about one answer at a time; ``batch``: by a provider's batch API; ``policy``: about all open
    answers at once."""
    oracles: Sequence[AnyOracle]

    @property
    def single(self) -> list[Oracle]:
        return [oracle for oracle in self.oracles if not isinstance(oracle, PolicyOracle)]

    @property
    def models(self) -> list[ModelOracle]:
        return [oracle for oracle in self.oracles if isinstance(oracle, ModelOracle)]

    @property
    def policies(self) -> list[PolicyOracle]:
        return [oracle for oracle in self.oracles if isinstance(oracle, PolicyOracle)]


def _kind(oracle: AnyOracle) -> Literal["single", "batch", "policy"]:
    if isinstance(oracle, PolicyOracle):
        return "policy"
    return "batch" if isinstance(oracle, ModelOracle) and oracle.batch is not None else "single"


def check_batches(oracles: Sequence[AnyOracle]) -> None:
    """Check that ``--batch`` concerns an oracle of the ladder, and show which ones are asked as usual.

    Raises:
        UserError: no oracle has a batch API, or a model's provider is unknown.
    """
    without = [oracle for oracle in oracles if _kind(oracle) != "batch"]
    if len(without) < len(oracles):
        for oracle in without:
            say(f"'{oracle.name}' has no batch API: it is asked as usual")
        return
    first = without[0]
    if isinstance(first, ModelOracle):
        first.check_environment()
    providers = ", ".join(WITH_BATCHES)
    raise UserError(
        f"--batch is not available for '{first.name}'",
        where="rectify.batch",
        cure=f"remove --batch, or choose a model of one of these providers: {providers}",
    )


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
    if settings.batch and not by_file:
        check_batches(oracles)
    return oracles


def _oracle(name: str, settings: RectifySection, engine: PolicyEngine) -> AnyOracle:
    if name not in POLICY_NAMES:
        return create(name, settings)
    plugins.warn_if_shadowed(plugins.ORACLES, name)
    return engine.oracle(name)


_MODEL = "name a model: --oracle gpt-4o"
