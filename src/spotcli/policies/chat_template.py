"""Render chats with a model's chat template, with a fixed date where the template asks for today's.

A template is a program that comes with a model. Transformers runs it in jinja's sandbox, which has no clock: an endless
loop or a text without end stops here.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

from spotcli.errors import UserError
from spotcli.records import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DATE = datetime(2024, 7, 26)
"""The date that chat templates get: the one that Llama's templates write where no clock is available. With today's
date, a prompt sampled yesterday would be a different prompt in training, without a cached reference."""

SECONDS = 20.0
"""Time for one chat; templates need less than a millisecond."""

MOST_ADDED = 1_000_000
"""Characters that a template may add to the texts of a chat; the longest known ones add some thousands."""

_FORMAT_CODES = (*"aAbBcdfHIjmMpSUwWxXyY", "-d", "-m")
"""Format codes of ``strftime``."""


def render(
    tokenizer: PreTrainedTokenizerBase, messages: list[Message], chat_template_kwargs: dict[str, Any] | None = None
) -> list[int]:
    """Token ids of a chat, up to where the policy's answer starts.

    The template writes the special tokens itself, so the tokenizer adds none and the prompt has at most one BOS.

    Raises:
        UserError: the model has no chat template, or it fails.
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
    """Whether the template renders a chat with its answer so that it starts with the prompt of the answer.

    Raises:
        UserError: the template fails.
    """
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
    try:
        with _clock():
            text = tokenizer.apply_chat_template(
                cast(list[dict[str, str]], messages),
                chat_template=template,
                tokenize=False,
                add_generation_prompt=generation_prompt,
                **(chat_template_kwargs or {}),
            )
    except _TookTooLong:
        raise _template_error(tokenizer, f"took longer than {SECONDS:g} s") from None
    except (Exception, MemoryError) as error:  # a template can raise whatever Python raises, and messages of its own
        reason = (str(error) or type(error).__name__).strip().splitlines()[0][:300]
        raise _template_error(tokenizer, f"failed: {reason}") from None
    if len(text) > MOST_ADDED + sum(len(message["content"]) for message in messages):
        raise _template_error(tokenizer, f"added more than {MOST_ADDED:,} characters to a chat")
    return cast(str, text)


def _template_error(tokenizer: PreTrainedTokenizerBase, problem: str) -> UserError:
    return UserError(
        f"the chat template {problem}",
        where=tokenizer.name_or_path,
        cure="use another model, or correct its chat template (chat_template.jinja or tokenizer_config.json)",
    )


class _TookTooLong(BaseException):
    """Raised inside of a template that does not end; a BaseException, so that the template does not catch it."""


@contextmanager
def _clock() -> Iterator[None]:
    """Raise ``_TookTooLong`` in this thread after ``SECONDS``. A signal would reach the main thread only."""
    thread, lock = ctypes.c_ulong(threading.get_ident()), threading.Lock()
    ended = False

    def interrupt() -> None:
        with lock:
            if not ended:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(_TookTooLong))

    timer = threading.Timer(SECONDS, interrupt)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        with lock:
            ended = True
        timer.cancel()
        ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, None)  # one that was not delivered yet
