"""Pairs as the policy's token ids: what ``spot train`` trains on and ``spot inspect --tokens`` shows."""

from __future__ import annotations

from typing import Any

from spotcli.core.forward.encoding import Encoder
from spotcli.errors import UserError
from spotcli.policies import chat_template
from spotcli.policies.empty_model import TokenLimits
from spotcli.policies.prompter import Prompter
from spotcli.recipe import Recipe, TrainSection
from spotcli.records import CHAT, Message, Pair

CHOSEN_ONLY = ("sft", "dft")
"""Objectives that do not use the rejected answer."""

PAIRS_ONLY = ("dpo", "dpop")
"""Objectives that compare two answers, so that rows without a rejected one are left out."""

CONTRASTING = ("spot-bco", "spot-bce", "spot-focal", "nca", *PAIRS_ONLY)
"""Objectives whose loss has a term of the rejected answer: at least one row must have one."""


def pair_prompter(recipe: Recipe) -> Prompter:
    """The tokenizer and the chat template that a recipe trains with.

    Raises:
        UserError: the model is not found, or has no tokenizer.
        RecipeError: ``sample.thinking`` is on, and the chat template has no switch for it.
    """
    template_kwargs = recipe.sample.chat_template_kwargs | recipe.train.chat_template_kwargs
    return Prompter(recipe.model or "", template_kwargs, recipe.sample.thinking)


def pair_encoder(prompter: Prompter, section: TrainSection, limits: TokenLimits) -> Encoder:
    """The encoder of a run: prompts as in sampling, answers with the end of turn of the chat template.

    Raises:
        UserError: the model has no chat template, or nothing that ends a turn.
    """
    tokenizer = prompter.tokenizer
    chat_template.require_template(tokenizer)
    if not prompter.end.ids:
        raise UserError(
            "the policy's turn has no end: the chat template writes no end-of-turn token, and the tokenizer has none",
            where=tokenizer.name_or_path,
            cure="set eos_token in tokenizer_config.json",
        )

    def given(pair: Pair) -> tuple[list[Message], dict[str, Any], list[Any] | None]:
        """Messages, arguments for the template, and tools of a row."""
        extra = pair.model_extra or {}
        own = extra.get("chat_template_kwargs")
        kwargs = prompter.template_kwargs | (own if isinstance(own, dict) else {})
        return extra.get(CHAT) or pair.messages, kwargs, pair.tools

    def follows(pair: Pair, answer: str) -> bool:
        messages, kwargs, tools = given(pair)
        return chat_template.follows(tokenizer, messages, answer, kwargs, tools)

    return Encoder(
        tokenizer=tokenizer,
        render=lambda pair: chat_template.render(tokenizer, *given(pair)),
        follows=follows,
        end_ids=prompter.end.ids,
        stop_ids=prompter.ends,
        max_length=min(section.max_length, limits.positions or section.max_length),
        vocabulary=limits.vocabulary,
        rejected=section.objective not in CHOSEN_ONLY,
        keeps=section.objective not in PAIRS_ONLY,
    )
