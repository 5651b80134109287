"""Render chats as token ids: the same code for every engine that takes token ids."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from spotcli.errors import DataError, RecipeError
from spotcli.policies import PromptFacts, Request
from spotcli.policies.chat_template import DATE, dated, end_of_turn, render
from spotcli.policies.models import load_configs, load_tokenizer
from spotcli.records import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Thinking = Literal["auto", "on", "off"]

SWITCHES = ("enable_thinking", "thinking")
"""Parameters of chat templates that turn thinking on or off."""
TAIL = 120
"""Characters of the first prompt that are shown and recorded: enough for an empty think block and the turn's end."""
SAMPLED = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "max_new_tokens",
    "presence_penalty",
    "frequency_penalty",
)
"""Parameters of a model's generation_config.json that the recipe's settings replace."""


class Prompter:
    """A model's tokenizer and chat template, the tokens that end its turn, and the length of its context.

    Raises:
        UserError: the model is not found, or has no tokenizer.
        RecipeError: the chat template has no switch for thinking.
    """

    def __init__(self, model: str, template_kwargs: dict[str, Any], thinking: Thinking = "auto") -> None:
        self.tokenizer: PreTrainedTokenizerBase = load_tokenizer(model)
        config, generation = load_configs(model)
        template = str(self.tokenizer.chat_template or "")
        self.template_kwargs = switch(template, thinking) | template_kwargs
        self.date = DATE.date().isoformat() if dated(template) else None
        ends = generation.get("eos_token_id") or getattr(config.get_text_config(), "eos_token_id", None)
        stops = {*(ends if isinstance(ends, list) else [ends]), self.tokenizer.eos_token_id} - {None}
        self.end = end_of_turn(self.tokenizer, stops, self.template_kwargs)
        self.ends: set[int] = {*stops, *self.end.ids[-1:]}
        """Every token that stops generation: those of the model, and the one that its template ends a turn with."""
        self.context: int | None = getattr(config.get_text_config(), "max_position_embeddings", None)
        self.defaults = {name: generation[name] for name in SAMPLED if generation.get(name) is not None}

    def ids(self, messages: list[Message], tools: list[Any] | None = None) -> list[int]:
        """Token ids of a chat, up to where the answer starts, with at most one BOS.

        Raises:
            UserError: the model has no chat template.
            DataError: the template rejects the messages, or has no place for the tools.
        """
        return render(self.tokenizer, messages, self.template_kwargs, tools)

    def prompt(self, request: Request) -> list[int]:
        """Token ids of a request's chat, or those that it continues.

        Raises:
            UserError: as ``ids``, with the problem's id.
        """
        if request.prefix is not None:
            return list(request.prefix.ids)
        try:
            return self.ids(request.messages, request.tools)
        except DataError as error:
            error.where = f"problem {request.key[0]}"
            raise

    def room(self, prompt: list[int], wanted: int) -> int:
        """Tokens that an answer may have: ``wanted``, or what the context leaves; 0 if the prompt fills it."""
        return wanted if self.context is None else max(0, min(wanted, self.context - len(prompt)))

    def facts(self, messages: list[Message], tools: list[Any] | None = None) -> PromptFacts:
        """How this chat, the first of a run, is rendered."""
        ids = self.ids(messages, tools)
        return PromptFacts(
            prompt_tail=self._tail(ids),
            prompt_bos=sum(token == self.tokenizer.bos_token_id for token in ids[:2]),
            chat_template_kwargs=self.template_kwargs,
            template_date=self.date,
            stop_token_ids=sorted(self.ends),
            context=self.context,
            model_defaults_not_used=self.defaults,
        )

    def _tail(self, ids: list[int]) -> str:
        """The last whole tokens of a prompt with at most ``TAIL`` characters."""
        start = max(0, len(ids) - TAIL)
        while len(text := str(self.tokenizer.decode(ids[start:]))) > TAIL:
            start += 1
        return text


def switch(template: str, thinking: Thinking) -> dict[str, Any]:
    """The template's own parameter that turns thinking on or off.

    Raises:
        RecipeError: ``thinking`` is ``on`` and the template has no known switch.
    """
    if thinking == "auto":
        return {}
    name = next((name for name in SWITCHES if name in template), None)
    if name:
        return {name: thinking == "on"}
    if thinking == "on":
        raise RecipeError(
            "the chat template has no switch for thinking",
            where="thinking",
            cure="use --thinking auto, or set the template's own parameter in chat_template_kwargs",
        )
    return {}
