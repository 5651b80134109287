"""Which engine answers for a model, and with which parameters."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spotcli.console import say
from spotcli.policies import NO_LIMIT, EngineFacts, Policy, Sampling
from spotcli.policies.by_name import check_endpoint, check_engine, load_policy
from spotcli.policies.engine_choice import EngineChoice, choose_engine
from spotcli.policies.models import resolve
from spotcli.recipe import EngineSection
from spotcli.redaction import public_value


class Engine:
    """The engine that a section of the recipe chooses for a model; nothing is loaded before ``load``.

    Args:
        settings: the section.
        model: a name or a folder.
        is_local: the model is known to be in a local folder, so that an endpoint does not have it by this name.
        policy: use this policy instead.
    """

    def __init__(
        self, settings: EngineSection, model: str, *, is_local: bool = False, policy: Policy | None = None
    ) -> None:
        self._settings = settings
        self._policy = policy
        self.model = model
        """What the engine loads; of a local engine, a folder or a hub id once it is checked."""
        by_caller = EngineChoice(policy.engine, "passed by the caller") if policy else None
        self._choice = by_caller or choose_engine(settings, is_local=is_local)
        sampling = Sampling(settings.max_new_tokens or NO_LIMIT, settings.temperature, settings.top_p, settings.top_k)
        self.sampling = sampling if self.name == "api" else sampling.without_gaps()

    @property
    def name(self) -> str:
        return self._choice.name

    def check(self) -> None:
        """Check that the packages of the engine are installed, and find the model.

        Raises:
            UserError: a package is missing, or the model is not found.
        """
        if self._policy:
            return
        check_engine(self.name, self._settings)
        if self.name in ("vllm", "transformers"):
            self.model = resolve(self.model)

    def check_endpoint(self) -> None:
        """Check, without a request, that an endpoint can be asked; other engines have none.

        Raises:
            UserError: an unknown provider, a missing key or a missing address.
        """
        if not self._policy:
            check_endpoint(self.name, self.model, self.sampling, self._settings)

    def load(self, *, log: Path) -> Policy:
        """Load the policy, and show which engine it is.

        Args:
            log: the output; logs of workers are written next to it.

        Raises:
            UserError: the engine is not installed, or the model is not found.
        """
        say(f"engine {self.name}: {self._choice.reason}")
        return self._policy or load_policy(self.name, self.model, self.sampling, self._settings, log=log)

    def entry(self, facts: EngineFacts) -> dict[str, Any]:
        """The ``engine`` entry of the meta file."""
        choice = {"name": self.name, "why": self._choice.reason}
        return choice | {"requested": self.sampling.as_dict(), **facts.as_dict()}


def recorded_parameters(params: Mapping[str, Any]) -> dict[str, Any]:
    """``params`` as settings that answers depend on, without those with a secret: another key changes no answer."""
    return {name: value for name, value in params.items() if public_value(value, name) == value}


def report_facts(sampling: Sampling, facts: EngineFacts) -> None:
    """Show how prompts are rendered, and which parameters of the model are not used."""
    prompts = facts.prompts
    if prompts is None:
        return
    say(f"prompts end with: {prompts.prompt_tail!r}")
    if prompts.template_date:
        say(f"the chat template asks for today's date; it gets {prompts.template_date} on every day")
    requested = sampling.as_dict()
    ignored = [
        f"{name} {value}" + (f" (using {requested[name]})" if name in requested else "")
        for name, value in prompts.model_defaults_not_used.items()
    ]
    if ignored:
        say(f"ignored defaults of the model: {', '.join(ignored)}")
