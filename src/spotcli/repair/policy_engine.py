"""The engine of the policy, for the oracles ``policy`` and ``policy-prompted``: found, checked and loaded once.

Its keys are those of ``rectify.policy``, else of ``sample`` in the recipe, else what the samples were made with.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spotcli import outputs
from spotcli.answering.engine import Engine, report_facts
from spotcli.core.forward.encoding import response_ids
from spotcli.errors import UserError
from spotcli.oracles.policy import CONTINUED, PolicyOracle
from spotcli.policies import Policy, Request, TokenPrefix
from spotcli.policies.fingerprint import SCORES, fingerprint
from spotcli.policies.models import resolve
from spotcli.recipe import EngineSection, PolicySection, Recipe
from spotcli.records import Message, Sample

if TYPE_CHECKING:
    from spotcli.policies.prompter import Prompter

OWN = ("temperature", "top_p", "top_k", "max_new_tokens", "keep_tokens", "system")
"""Keys of ``rectify.policy`` that ``sample`` does not replace: a prompt of the samples contains its system prompt."""

QUESTION: list[Message] = [{"role": "user", "content": "?"}]
"""The prompt by which an endpoint is tried."""


@dataclass(frozen=True)
class CutAnswer:
    """The prompt and the part of an answer before a cut, at the end of one of the policy's own tokens."""

    prefix: TokenPrefix
    ids: list[int]
    """The kept tokens of the answer."""
    kept: str
    """Their text."""
    removed: int
    """Tokens that were cut off."""


class PolicyEngine:
    """The policy of the samples; nothing is read or loaded before it is needed.

    Args:
        source: the samples.
        policy: use this policy instead of the engine of the recipe.
    """

    def __init__(self, recipe: Recipe, source: Path, *, policy: Policy | None = None) -> None:
        self._recipe = recipe
        self._source = source
        self._policy = policy
        self.seed = recipe.seed
        self._answers: tuple[Sample, list[int]] | None = None

    @cached_property
    def _meta(self) -> dict[str, Any]:
        return outputs.read_meta(self._source)

    @cached_property
    def settings(self) -> PolicySection:
        """The keys in force."""
        sources, made_with = self._recipe.sources, self._meta.get("settings", {})
        engine = self._meta.get("engine", {})
        recorded = {
            "engine": engine.get("name"),
            "base_url": engine.get("base_url"),
            "thinking": made_with.get("thinking"),
            "chat_template_kwargs": made_with.get("chat_template_kwargs"),
        }
        values: dict[str, Any] = {}
        for name in EngineSection.model_fields:
            if name in OWN or any(key.startswith(f"rectify.policy.{name}") for key in sources):
                continue
            if any(key.startswith(f"sample.{name}") for key in sources):
                values[name] = getattr(self._recipe.sample, name)
            elif recorded.get(name):
                values[name] = recorded[name]
        return PolicySection.model_validate(self._recipe.rectify.policy.model_dump() | values)

    @cached_property
    def model(self) -> str:
        """The policy's name.

        Raises:
            UserError: neither the recipe nor the samples name it.
        """
        recorded = self._meta.get("settings", {}).get("model")
        name = self._recipe.rectify.policy.model or recorded or self._recipe.model
        if not isinstance(name, str):
            raise UserError(
                "the policy of the samples is unknown",
                where=str(outputs.meta_path(self._source)),
                cure="name its model: -s rectify.policy.model=MODEL",
            )
        return name

    @cached_property
    def engine(self) -> Engine:
        """Which engine answers."""
        return Engine(self.settings, self.model, policy=self._policy)

    def oracle(self, name: str) -> PolicyOracle:
        """The oracle ``policy`` or ``policy-prompted``."""
        own = self._recipe.rectify.policy
        return PolicyOracle(name, lambda: self._describe(name), own.continuations, own.search, own.max_new_tokens)

    def _describe(self, name: str) -> str:
        """What shapes the policy's replies; not the engine, nor how many continuations there are."""
        local = self.engine.name != "api"
        sampling = self.engine.sampling
        facts: dict[str, Any] = {
            "model": f"{self.model}@{fingerprint(resolve(self.model), SCORES)}" if local else self.model,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "seed": self.seed,
        }
        if local or name == CONTINUED:
            facts["template"] = self._template
        return ", ".join(f"{key}={value}" for key, value in facts.items())

    @cached_property
    def _template(self) -> str:
        parts = [self.prompter.tokenizer.chat_template, self.prompter.template_kwargs]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:8]

    @cached_property
    def prompter(self) -> Prompter:
        """The policy's tokenizer and chat template.

        Raises:
            UserError: they cannot be loaded.
        """
        from spotcli.policies.prompter import Prompter

        if self.engine.name != "api":
            return Prompter(self.model, self.settings.chat_template_kwargs, self.settings.thinking)
        name = self._recipe.rectify.tokenizer or self.model
        try:
            return Prompter(name, self.settings.chat_template_kwargs, self.settings.thinking)
        except UserError as error:
            cure = "name a folder or a hub model with the policy's tokenizer: --tokenizer MODEL"
            problem = f"continuing an answer requires the policy's tokenizer ({error.message})"
            raise UserError(problem, where=name, cure=cure) from None

    def check(self, *, continues: bool) -> None:
        """Check that the policy can be asked, before a file is written.

        Args:
            continues: it has to continue answers.

        Raises:
            UserError: a package is missing, the model is not found, or its endpoint cannot continue an answer.
        """
        self.engine.check()
        self.engine.check_endpoint()
        if continues:
            self._check_continuing(self.engine)

    def load(self, *, log: Path, continues: bool) -> Policy:
        """Load the policy, and show how its prompts are rendered.

        Args:
            log: the output; logs of workers are written next to it.
            continues: it has to continue answers.

        Raises:
            UserError: the engine is not installed, the model is not found, or its endpoint cannot continue an answer.
        """
        self.engine.check()
        policy = self.engine.load(log=log)
        if continues:
            self._check_continuing(policy)
        report_facts(self.engine.sampling, policy.facts(Request((), QUESTION, 0)))
        return policy

    def _check_continuing(self, target: Engine | Policy) -> None:
        """Have an endpoint continue a short prompt; other engines take token ids."""
        from spotcli.policies.api import ApiPolicy

        prefix = self._prefix(self.prompter.ids(QUESTION))
        if isinstance(target, Engine) and target.name == "api" and self._policy is None:
            target = ApiPolicy(self.model, target.sampling, self.settings)
        if isinstance(target, ApiPolicy):
            target.check_continuing(prefix)

    def cut(self, sample: Sample, start: int) -> CutAnswer:
        """The prompt and the answer up to the last token that ends at ``start`` or before, in characters."""
        ids, tokenizer = self._ids_of(sample), self.prompter.tokenizer

        def text(count: int) -> str:
            return str(tokenizer.decode(ids[:count], skip_special_tokens=True))

        low, high = 0, len(ids)
        while low < high:
            middle = (low + high + 1) // 2
            # A character that is not complete yet is decoded as U+FFFD.
            low, high = (middle, high) if len(text(middle).rstrip("\ufffd")) <= start else (low, middle - 1)
        while low and not sample.response.startswith(text(low)):
            low -= 1
        prompt = self.prompter.prompt(Request(sample.key, sample.messages, 0, tools=sample.tools))
        return CutAnswer(self._prefix([*prompt, *ids[:low]]), ids[:low], text(low), len(ids) - low)

    def _ids_of(self, sample: Sample) -> list[int]:
        """The tokens that the policy emitted, if the row has them, without the end of its turn; else its own tokens for
        the text, as in training."""
        if self._answers is not None and self._answers[0] is sample:
            return self._answers[1]
        tokenizer = self.prompter.tokenizer
        ids = (sample.model_extra or {}).get("response_ids")
        if isinstance(ids, list) and ids and all(type(token) is int and 0 <= token < len(tokenizer) for token in ids):
            while ids and ids[-1] in self.prompter.ends:
                ids = ids[:-1]
            if str(tokenizer.decode(ids, skip_special_tokens=True)) != sample.response:
                ids = None
        else:
            ids = None
        self._answers = sample, response_ids(tokenizer, sample.response) if ids is None else ids
        return self._answers[1]

    def _prefix(self, ids: list[int]) -> TokenPrefix:
        if self.engine.name != "api":
            return TokenPrefix(tuple(ids), "")
        tokenizer: Any = self.prompter.tokenizer
        text = str(tokenizer.decode(ids, skip_special_tokens=False))
        # A server adds the BOS token to a text itself.
        bos = tokenizer.bos_token or ""
        if bos and text.startswith(bos) and tokenizer(text.removeprefix(bos))["input_ids"] == ids:
            text = text.removeprefix(bos)
        return TokenPrefix(tuple(ids), text)

    def text_after(self, cut: CutAnswer, token_ids: list[int] | None, text: str) -> str:
        """What follows the kept text: the generated tokens decoded behind the kept ones, else the engine's text."""
        if not token_ids:
            return text
        ended = token_ids[-1] in self.prompter.ends
        ids = [*cut.ids, *(token_ids[:-1] if ended else token_ids)]
        whole = str(self.prompter.tokenizer.decode(ids, skip_special_tokens=True))
        return whole[len(cut.kept) :] if whole.startswith(cut.kept) else text
