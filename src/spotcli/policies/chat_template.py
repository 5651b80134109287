"""Render chats with a model's chat template, with a fixed date where the template asks for today's.

A template is a program that comes with a model. Transformers runs it in jinja's sandbox, which has no clock: an endless
loop or a text without end stops here.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import takewhile
from typing import TYPE_CHECKING, Any, cast

from spotcli.errors import DataError, UserError
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

_PROBE = "spot7probe"
"""An answer that is rendered to see what the template writes after an answer; it is in no template."""

TOOLS_IGNORED = "the chat template has no place for tools, so the policy would not see them"
"""Why a row with tools is refused."""


def render(
    tokenizer: PreTrainedTokenizerBase,
    messages: list[Message],
    chat_template_kwargs: dict[str, Any] | None = None,
    tools: list[Any] | None = None,
) -> list[int]:
    """Token ids of a chat, up to where the policy's answer starts.

    The template writes the special tokens itself, so the tokenizer adds none and the prompt has at most one BOS.

    Args:
        tokenizer: the model's tokenizer.
        messages: the chat.
        chat_template_kwargs: arguments for the template.
        tools: the JSON schemas of the tools that the policy may call.

    Raises:
        UserError: the model has no chat template, or it fails, does not end or adds too much.
        DataError: the template rejects the messages, or has no place for the tools.
    """
    text = _rendered(tokenizer, messages, chat_template_kwargs, tools=tools, generation_prompt=True)
    if tools and text == _rendered(tokenizer, messages, chat_template_kwargs, generation_prompt=True):
        raise DataError(TOOLS_IGNORED, cure="use a model whose chat template renders tools, or remove `tools`")
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def follows(
    tokenizer: PreTrainedTokenizerBase,
    messages: list[Message],
    answer: str,
    chat_template_kwargs: dict[str, Any] | None = None,
    tools: list[Any] | None = None,
) -> bool:
    """Whether the template renders a chat with its answer so that it starts with the prompt of the answer.

    Raises:
        UserError: the model has no chat template, or it fails, does not end or adds too much.
        DataError: the template rejects the messages.
    """
    prompt = _rendered(tokenizer, messages, chat_template_kwargs, tools=tools, generation_prompt=True)
    answered: list[Message] = [*messages, {"role": "assistant", "content": answer}]
    text = _rendered(tokenizer, answered, chat_template_kwargs, tools=tools, generation_prompt=False)
    return text.startswith(prompt)


@dataclass(frozen=True)
class EndOfTurn:
    """The tokens that end the policy's turn."""

    ids: tuple[int, ...]
    """The tokens after an answer; the last one stops generation. Empty if neither template nor tokenizer has one."""
    text: str
    """The same as text."""
    note: str | None = None
    """Why it is not what the template writes; None if it is."""


def end_of_turn(
    tokenizer: PreTrainedTokenizerBase, stops: Collection[int], chat_template_kwargs: dict[str, Any] | None = None
) -> EndOfTurn:
    """What closes the policy's turn, as the chat template writes it.

    The template renders an answer; the special tokens right after it close the turn, up to the first one that stops
    generation. If it writes none there (GLM-4 opens the next turn instead), the token that follows in a longer chat
    counts if it stops generation; otherwise the tokenizer's EOS token.

    Args:
        tokenizer: the model's tokenizer.
        stops: the tokens that stop generation: those of generation_config.json and the tokenizer's EOS token.
        chat_template_kwargs: arguments for the template.

    Raises:
        UserError: the template fails, does not end or adds too much.
    """
    chat: list[Message] = [{"role": "user", "content": "?"}, {"role": "assistant", "content": _PROBE}]
    tail = _text_after_probe(tokenizer, chat, chat_template_kwargs)
    closing = _special_run(tokenizer, tail, stops)
    if not closing:
        longer = _text_after_probe(tokenizer, [*chat, {"role": "user", "content": "?"}], chat_template_kwargs)
        closing = [token for token in _special_run(tokenizer, longer, stops)[:1] if token in stops]
    if closing:
        return EndOfTurn(tuple(closing), str(tokenizer.decode(closing)))
    eos = tokenizer.eos_token_id
    if eos is None:
        return EndOfTurn((), "")
    written = tail.strip().split("\n", 1)[0]
    note = f"the chat template ends a turn with {written[:40]!r}, which is not a token" if written else None
    return EndOfTurn((eos,), str(tokenizer.decode([eos])), note)


def _text_after_probe(
    tokenizer: PreTrainedTokenizerBase, chat: list[Message], chat_template_kwargs: dict[str, Any] | None
) -> str:
    """What the template writes after the answer ``_PROBE``; empty if it rejects the chat or does not write it.

    Raises:
        UserError: the template fails, does not end or adds too much.
    """
    if not tokenizer.chat_template:
        return ""
    try:
        text = _rendered(tokenizer, chat, chat_template_kwargs, generation_prompt=False)
    except DataError:
        return ""
    return text.rpartition(_PROBE)[2] if _PROBE in text else ""


def _special_run(tokenizer: PreTrainedTokenizerBase, text: str, stops: Collection[int]) -> list[int]:
    """The special tokens at the start of a text, up to the first stop; the first one if none of them stops."""
    ids: list[int] = tokenizer(text.lstrip(), add_special_tokens=False)["input_ids"]
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder, *stops}
    run = list(takewhile(special.__contains__, ids))
    last = next((index for index, token in enumerate(run) if token in stops), 0)
    return run[: last + 1]


def dated(template: str) -> bool:
    """Whether a chat template asks for today's date, and gets ``DATE`` instead."""
    return "strftime_now" in template


def require_template(tokenizer: PreTrainedTokenizerBase) -> None:
    """Check that a tokenizer has a chat template.

    Raises:
        UserError: it has none.
    """
    if not tokenizer.chat_template:
        raise UserError(
            "the model has no chat template",
            where=tokenizer.name_or_path,
            cure="use an instruction-tuned model, or add a chat_template.jinja to the model's folder",
        )


def _rendered(
    tokenizer: PreTrainedTokenizerBase,
    messages: list[Message],
    chat_template_kwargs: dict[str, Any] | None,
    *,
    tools: list[Any] | None = None,
    generation_prompt: bool,
) -> str:
    """A chat as text.

    Raises:
        UserError: the model has no chat template, or it fails, does not end or adds too much.
        DataError: the template rejects the messages.
    """
    from jinja2.exceptions import SecurityError, TemplateSyntaxError

    require_template(tokenizer)
    try:
        template = tokenizer.get_chat_template(tools=cast(Any, tools))
        if dated(template):
            # Transformers passes only plain data to a template, so the function has to be defined inside it as a
            # macro. The line feed belongs to the macro's block: the template still starts on its own line.
            replaced = "".join(f" | replace('%{code}', '{DATE.strftime('%' + code)}')" for code in _FORMAT_CODES)
            template = f"{{% macro strftime_now(format) %}}{{{{ format{replaced} }}}}{{% endmacro %}}\n{template}"
        with _clock():
            text = tokenizer.apply_chat_template(
                cast(list[dict[str, str]], messages),
                chat_template=template,
                tools=cast(Any, tools),
                tokenize=False,
                add_generation_prompt=generation_prompt,
                **(chat_template_kwargs or {}),
            )
    except _TookTooLong:
        raise _template_error(tokenizer, f"took longer than {SECONDS:g} s") from None
    except (TemplateSyntaxError, SecurityError, MemoryError, OverflowError) as error:
        raise _template_error(tokenizer, f"failed: {_line(error)}") from None
    except Exception as error:
        # A template is code of the model: it can fail in any way on messages that it does not expect.
        raise DataError(
            f"the chat template rejects the messages: {_line(error)}",
            cure="change the roles or contents of the prompt to what the model's chat template accepts",
        ) from None
    if len(text) > MOST_ADDED + len(str(messages)) + len(str(tools)):
        raise _template_error(tokenizer, f"added more than {MOST_ADDED:,} characters to a chat")
    return cast(str, text)


def _line(error: BaseException) -> str:
    """The message of an error in one line."""
    return (" ".join(str(error).split()) or type(error).__name__)[:200]


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
    ended = raised = False

    def interrupt() -> None:
        nonlocal raised
        with lock:
            if not ended:
                raised = True
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
        # Remove one that was not delivered yet. Without one this call must not be made: CPython 3.11 then checks for
        # exceptions at each call of a function until the process ends, and never returns from one under a profiler.
        if raised:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, None)
