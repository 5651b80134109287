"""Rows of the preference and SFT formats that TRL reads, with the fields of a pair.

prompt, chosen, rejected          strings, or lists of chat messages; answers may repeat the prompt's messages
chosen, rejected                  whole chats (lists of messages, or text with "Human:" and "Assistant:") that share
                                  the prompt
messages                          a chat whose last message is the answer
prompt, completion                without a rejected answer
"""

from __future__ import annotations

import re
from itertools import takewhile
from typing import Any

from spotcli.errors import DataError
from spotcli.problems.sources import as_text
from spotcli.records import CHAT

_UNUSED = ("source", "verdict", "oracle", "change_ratio")
"""Fields of a pair that training does not need; other tools use the names for other things."""

_TURN = re.compile(r"\n\n(Human|Assistant):")
"""Start of a turn in a chat that is written as one text."""


def with_pair_fields(row: dict[str, Any], renamed: dict[str, str]) -> dict[str, Any]:
    """The row with ``prompt``, ``chosen`` and ``rejected`` as a pair has them.

    Raises:
        DataError: the row has a format that is not a pair, or answers that are not text.
    """
    # Data frames write NaN, the only value that differs from itself, for a missing value.
    row = {name: value for name, value in row.items() if value == value and value is not None}
    row |= {name: as_text(row[name]) for name in ("id", "answer", "ground_truth") if name in row}
    texts = ("answer", "grader")
    row = {
        name: value
        for name, value in row.items()
        if name not in _UNUSED and (name not in texts or isinstance(value, str))
    }
    if "completion" in row and "chosen" not in row:
        if "label" in row:
            raise DataError(
                "one `completion` with a `label` (the format of KTO), expected a pair",
                cure="write two completions of one prompt as `chosen` and `rejected`; for sft or dft, write the good "
                "ones as `chosen`",
            )
        row["chosen"] = row.pop("completion")
        renamed["completion"] = "chosen"
    if "messages" in row and "chosen" not in row:
        row["chosen"] = row.pop("messages")
        row.pop("prompt", None)
        renamed["messages"] = "prompt and chosen"
    elif "prompt" not in row and isinstance(row.get("chosen"), str) and row["chosen"].lstrip("\n").startswith("Human:"):
        row |= {name: _turns(row[name]) for name in ("chosen", "rejected") if isinstance(row.get(name), str)}
    if any(isinstance(row.get(name), list) for name in ("chosen", "rejected")):
        row = _split_chats(row)
    prompt = row.get("prompt")
    if isinstance(prompt, list):
        row["prompt"] = [_without_nulls(message) for message in prompt]
        if any(isinstance(message, dict) and message.get("content", "") is None for message in row["prompt"]):
            row[CHAT] = row["prompt"]
    return row


def _without_nulls(message: Any) -> Any:
    """A message without null fields: in Parquet, every message has every field that any message has."""
    if not isinstance(message, dict):
        return message
    return {name: value for name, value in message.items() if value is not None or name == "content"}


def _turns(text: str) -> list[dict[str, str]]:
    """A chat that is written as one text, as messages."""
    _, *parts = _TURN.split("\n\n" + text.lstrip("\n"))
    roles = {"Human": "user", "Assistant": "assistant"}
    return [
        {"role": roles[name], "content": content.strip()} for name, content in zip(parts[::2], parts[1::2], strict=True)
    ]


def _split_chats(row: dict[str, Any]) -> dict[str, Any]:
    """The row with the messages that its answers share moved into the prompt, and the answers as text.

    Raises:
        DataError: an answer is not one message of text after the shared ones.
    """
    chats = {name: _chat(row[name], name) for name in ("chosen", "rejected") if row.get(name) is not None}
    columns = zip(*chats.values(), strict=False)
    shared = sum(1 for _ in takewhile(lambda column: all(message == column[0] for message in column), columns))
    shared = max(0, min(shared, *(len(chat) - 1 for chat in chats.values())))
    common = next(iter(chats.values()))[:shared]
    answers = {name: _answer(chat[shared:], name) for name, chat in chats.items()}
    return row | {"prompt": _joined(row.get("prompt"), common)} | answers


def _chat(value: Any, name: str) -> list[Any]:
    if isinstance(value, str):
        return [{"role": "assistant", "content": value}]
    if not isinstance(value, list) or not value:
        raise DataError(f"the field '{name}': expected an answer, got {value!r:.40}", cure="correct the field")
    return [_without_nulls(message) for message in value]


def _joined(prompt: Any, common: list[Any]) -> Any:
    """The prompt of a row and the messages that its answers share, which may repeat it.

    Raises:
        DataError: there is neither.
    """
    if not common:
        if not prompt:
            raise DataError("the field 'prompt' is missing", cure="a pair requires prompt, chosen")
        return prompt
    if isinstance(prompt, list):
        own = [_without_nulls(message) for message in prompt]
        return common if common[: len(own)] == own else own + common
    if isinstance(prompt, str) and not any(_is_user(message, prompt) for message in common):
        return [{"role": "user", "content": prompt}, *common]
    return common


def _is_user(message: Any, text: str) -> bool:
    return (
        isinstance(message, dict)
        and message.get("role") == "user"
        and str(message.get("content")).strip() == text.strip()
    )


def _answer(rest: list[Any], name: str) -> str:
    """The text of the one message that remains of a chat.

    Raises:
        DataError: there are several, or it is not the assistant's, or not text.
    """
    message = rest[0]
    if len(rest) != 1:
        raise DataError(
            f"the field '{name}': expected one message after those that both answers share, got {len(rest)}",
            cure="let the answers differ in the last message only",
        )
    if not isinstance(message, dict) or message.get("role") != "assistant":
        role = message.get("role") if isinstance(message, dict) else None
        raise DataError(
            f"the field '{name}': expected a message of the assistant, got one of {role!r}",
            cure="end the chat with the assistant's answer",
        )
    content = message.get("content")
    if isinstance(content, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in content):
        content = "".join(str(part.get("text", "")) for part in content)
    if not isinstance(content, str) or message.get("tool_calls"):
        raise DataError(
            f"the field '{name}': expected an answer of text"
            + (", got tool calls" if message.get("tool_calls") else ""),
            cure="only answers of text can be trained on",
        )
    return content
