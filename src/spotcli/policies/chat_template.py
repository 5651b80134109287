"""Render chats with a model's chat template, with a fixed date where the template asks for today's."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

from spotcli.errors import UserError
from spotcli.records import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DATE = datetime(2024, 7, 26)
"""The date that chat templates get: the one that Llama's templates write where no clock is available. With today's
date, a prompt sampled yesterday would be a different prompt in training, without a cached reference."""

_FORMAT_CODES = (*"aAbBcdfHIjmMpSUwWxXyY", "-d", "-m")
"""Format codes of ``strftime``."""


def render(
    tokenizer: PreTrainedTokenizerBase, messages: list[Message], chat_template_kwargs: dict[str, Any] | None = None
) -> list[int]:
    """Token ids of a chat, up to where the policy's answer starts.

    The template writes the special tokens itself, so the tokenizer adds none and the prompt has at most one BOS.

    Raises:
        UserError: the model has no chat template.
    """
    if not tokenizer.chat_template:
        raise UserError(
            "the model has no chat template", where=tokenizer.name_or_path, cure="use an instruction-tuned model"
        )
    text = _rendered(tokenizer, messages, chat_template_kwargs, generation_prompt=True)
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def follows(
    tokenizer: PreTrainedTokenizerBase,
    messages: list[Message],
    answer: str,
    chat_template_kwargs: dict[str, Any] | None = None,
) -> bool:
    """Whether the template renders a chat with its answer so that it starts with the prompt of the answer."""
    prompt = _rendered(tokenizer, messages, chat_template_kwargs, generation_prompt=True)
    answered: list[Message] = [*messages, {"role": "assistant", "content": answer}]
    return _rendered(tokenizer, answered, chat_template_kwargs, generation_prompt=False).startswith(prompt)


def dated(template: str) -> bool:
    """Whether a chat template asks for today's date, and gets ``DATE`` instead."""
    return "strftime_now" in template


def _rendered(
    tokenizer: PreTrainedTokenizerBase,
    messages: list[Message],
    chat_template_kwargs: dict[str, Any] | None,
    *,
    generation_prompt: bool,
) -> str:
    template = tokenizer.get_chat_template()
    if dated(template):
        # Transformers passes only plain data to a template, so the function has to be defined inside it as a macro.
        # The line feed belongs to the macro's block: the template still starts on its own line.
        replaced = "".join(f" | replace('%{code}', '{DATE.strftime('%' + code)}')" for code in _FORMAT_CODES)
        template = f"{{% macro strftime_now(format) %}}{{{{ format{replaced} }}}}{{% endmacro %}}\n{template}"
    text = tokenizer.apply_chat_template(
        cast(list[dict[str, str]], messages),
        chat_template=template,
        tokenize=False,
        add_generation_prompt=generation_prompt,
        **(chat_template_kwargs or {}),
    )
    return cast(str, text)
