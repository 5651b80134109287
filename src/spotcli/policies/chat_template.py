"""TODO."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

from spotcli.errors import UserError
from spotcli.records import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DATE = datetime(2024, 7, 26)
"""What chat templates are told when they ask for today: the one that Llama's write where they have no clock. With the
real one, a prompt that was sampled yesterday would be trained on as another, under a reference of its own."""


_SIGNS = (*"aAbBcdfHIjmMpSUwWxXyY", "-d", "-m")
"""Of ``strftime``."""


def render(
    tokenizer: PreTrainedTokenizerBase, messages: list[Message], chat_template_kwargs: dict[str, Any] | None = None
) -> list[int]:
    """Token ids of a chat, ending where the policy's answer starts.

    The template writes the special tokens itself, so none are added and there is at most one BOS.

    Raises:
        UserError: the model has no chat template.
    """
    if not tokenizer.chat_template:
        raise UserError(
            "this model has no chat template", where=tokenizer.name_or_path, cure="take an instruction-tuned model"
        )
    text = _written(tokenizer, messages, chat_template_kwargs, asking=True)
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def follows(
    tokenizer: PreTrainedTokenizerBase,
    messages: list[Message],
    answer: str,
    chat_template_kwargs: dict[str, Any] | None = None,
) -> bool:
    """Whether a chat with its answer, as the template writes it, begins with the prompt that asks for the answer."""
    prompt = _written(tokenizer, messages, chat_template_kwargs, asking=True)
    answered: list[Message] = [*messages, {"role": "assistant", "content": answer}]
    return _written(tokenizer, answered, chat_template_kwargs, asking=False).startswith(prompt)


def dated(template: str) -> bool:
    """Whether a chat template asks for today's date, and gets ``DATE``."""
    return "strftime_now" in template


def _written(
    tokenizer: PreTrainedTokenizerBase, messages: list[Message], given: dict[str, Any] | None, *, asking: bool
) -> str:
    template = tokenizer.get_chat_template()
    if dated(template):
        # Values that a template is handed become plain data, so that a function can only come inside it. The line feed
        # belongs to the block, so the template starts on a line of its own as before.
        told = "".join(f" | replace('%{sign}', '{DATE.strftime('%' + sign)}')" for sign in _SIGNS)
        template = f"{{% macro strftime_now(format) %}}{{{{ format{told} }}}}{{% endmacro %}}\n{template}"
    text = tokenizer.apply_chat_template(
        cast(list[dict[str, str]], messages),
        chat_template=template,
        tokenize=False,
        add_generation_prompt=asking,
        **(given or {}),
    )
    return cast(str, text)
