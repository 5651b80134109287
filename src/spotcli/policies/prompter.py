"""What a model reads: a chat as token ids, rendered once and by one piece of code for every engine that takes ids."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from spotcli.errors import RecipeError
from spotcli.policies.chat_template import DATE, dated, render
from spotcli.policies.models import load_configs, load_tokenizer
from spotcli.records import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Thinking = Literal["auto", "on", "off"]

# What chat templates call the switch.
SWITCHES = ("enable_thinking", "thinking")
# Characters of the first prompt that are shown and kept: enough for an empty think block and the turn's end.
TAIL = 120
# Parameters that a model's generation_config.json may hold, and that ours take the place of.
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


class Prompter:
    """A model's tokenizer and template, the tokens that end its turn, and how much it can read.

    Raises:
        UserError: the model is not there, or has no chat template.
        RecipeError: its template has no switch for thinking.
    """

    def __init__(self, model: str, template_kwargs: dict[str, Any], thinking: Thinking = "auto") -> None:
        self.tokenizer: PreTrainedTokenizerBase = load_tokenizer(model)
        config, generation = load_configs(model)
        template = str(self.tokenizer.chat_template or "")
        self.template_kwargs = switch(template, thinking) | template_kwargs
        self.date = DATE.date().isoformat() if dated(template) else None
        ends = generation.get("eos_token_id")
        self.ends: set[int] = {*(ends if isinstance(ends, list) else [ends]), self.tokenizer.eos_token_id} - {None}
        self.context: int | None = getattr(config.get_text_config(), "max_position_embeddings", None)
        self.defaults = {name: generation[name] for name in SAMPLED if generation.get(name) is not None}

    def ids(self, messages: list[Message]) -> list[int]:
        """Token ids of a chat, ending where the answer starts; at most one BOS."""
        return render(self.tokenizer, messages, self.template_kwargs)

    def room(self, prompt: list[int], wanted: int) -> int:
        """Tokens that an answer may have: ``wanted``, or what the context leaves; 0 where the prompt fills it."""
        return wanted if self.context is None else max(0, min(wanted, self.context - len(prompt)))

    def facts(self, messages: list[Message]) -> dict[str, Any]:
        """For the meta file: how prompts end, and what of the model's own defaults is not used."""
        ids = self.ids(messages)
        return {
            "prompt_tail": str(self.tokenizer.decode(ids))[-TAIL:],
            "prompt_bos": sum(token == self.tokenizer.bos_token_id for token in ids[:2]),
            "chat_template_kwargs": self.template_kwargs,
            **({"template_date": self.date} if self.date else {}),
            "stop_token_ids": sorted(self.ends),
            "context": self.context,
            "model_defaults_not_used": self.defaults,
        }


def switch(template: str, thinking: Thinking) -> dict[str, Any]:
    """The template's own parameter that turns thinking on or off.

    Raises:
        RecipeError: thinking is wanted, and the template has no switch that we know.
    """
    if thinking == "auto":
        return {}
    name = next((name for name in SWITCHES if name in template), None)
    if name:
        return {name: thinking == "on"}
    if thinking == "on":
        raise RecipeError(
            "the model's chat template has no switch for thinking",
            where="sample.thinking",
            cure="leave it at auto, or set the template's own parameter in sample.chat_template_kwargs",
        )
    return {}
