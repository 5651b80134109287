"""Rows of chats as problems: ``messages``, ShareGPT (``conversations``) and Alpaca (``instruction``, ``output``).

The last reply of a chat is no part of the problem: it is the worked solution of a problem, and the response of an
answer that is to be graded.
"""

from __future__ import annotations

from typing import Any

from spotcli.errors import DataError
from spotcli.records import text_content

ROLES = {
    **dict.fromkeys(("human", "user"), "user"),
    **dict.fromkeys(("gpt", "assistant", "chatgpt", "bard", "bing", "model"), "assistant"),
    "system": "system",
}
"""Roles of ShareGPT -> roles of chat messages."""
CHATS = {"messages", "conversations", "instruction"}
"""Fields that contain a chat."""
_PROMPTS = ("prompt", "question", "problem")
LAST_REPLY = "last reply"


def as_problem_row(row: dict[str, Any], reply: str, where: str, renamed: dict[str, str]) -> dict[str, Any]:
    """The row with ``prompt``, and its last reply in another field; a row that has a prompt is unchanged.

    Args:
        row: the row as it was read.
        reply: the field for the last reply: ``solution`` or ``response``.
        where: file and line, for errors.
        renamed: collects the fields that were read under another name.

    Raises:
        DataError: a message is invalid, or the chat has no question.
    """
    if any(row.get(name) for name in _PROMPTS):
        return row
    if isinstance(row.get("messages"), list):
        field, used, messages = "messages", ["messages"], [_message(item, where) for item in row["messages"]]
    elif isinstance(row.get("conversations"), list):
        field, used = "conversations", ["conversations", "system"]
        messages = _with_system(row, [_turn(item, where) for item in row["conversations"]])
    elif isinstance(row.get("instruction"), str) and row["instruction"].strip():
        field, used = "instruction", ["instruction", "input", "output", "system", "history"]
        messages = _alpaca(row, where, renamed)
    else:
        return row
    row = {name: value for name, value in row.items() if name not in used}
    renamed[field] = "prompt"
    if messages and messages[-1]["role"] == "assistant":
        text = messages.pop()["content"]
        if isinstance(text, str) and text.strip() and not row.get(reply):
            row[reply] = text
            renamed["output" if field == "instruction" else LAST_REPLY] = reply
    if not any(message["role"] == "user" for message in messages):
        raise DataError(
            f"the chat in '{field}' has no question of a user", where=where, cure="correct or remove the row"
        )
    is_plain = len(messages) == 1 and messages[0].keys() == {"role", "content"}
    row["prompt"] = messages[0]["content"] if is_plain else messages
    return row


def _message(item: Any, where: str) -> dict[str, Any]:
    """A chat message; in Parquet, every message has every field that any message has."""
    if not isinstance(item, dict) or not isinstance(item.get("role"), str):
        raise DataError('expected messages like {"role": "user", "content": "..."}', where=where, cure=_CURE)
    message = {name: value for name, value in item.items() if value is not None or name == "content"}
    return _checked(message, where)


def _turn(item: Any, where: str) -> dict[str, Any]:
    """A turn of ShareGPT as a chat message."""
    if isinstance(item, dict) and "role" in item:
        return _message(item, where)
    if not isinstance(item, dict) or not isinstance(item.get("from"), str) or "value" not in item:
        raise DataError('expected turns like {"from": "human", "value": "..."}', where=where, cure=_CURE)
    role = ROLES.get(item["from"].lower())
    if role is None:
        known = ", ".join(ROLES)
        raise DataError(f"unknown speaker {item['from'][:40]!r}; known: {known}", where=where, cure=_CURE)
    return _checked({"role": role, "content": item["value"]}, where)


def _checked(message: dict[str, Any], where: str) -> dict[str, Any]:
    try:
        message = text_content(message)
    except ValueError as error:
        raise DataError(str(error), where=where, cure=_CURE) from None
    if not isinstance(message.get("content"), str):
        raise DataError("expected the text of a message, got another value", where=where, cure=_CURE)
    return message


def _alpaca(row: dict[str, Any], where: str, renamed: dict[str, str]) -> list[dict[str, Any]]:
    """The chat of an instruction, with the system prompt and the earlier turns that LLaMA-Factory's rows can have."""
    texts = [text for name in ("instruction", "input") if isinstance(text := row.get(name), str) and text.strip()]
    if len(texts) > 1:
        renamed["input"] = "prompt"
    turns: list[dict[str, Any]] = []
    history = row.get("history") or []
    for pair in history if isinstance(history, list) else [history]:
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) for text in pair)):
            raise DataError("expected 'history' to be a list of [question, reply]", where=where, cure=_CURE)
        turns += [{"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1]}]
    turns.append({"role": "user", "content": "\n\n".join(texts)})
    if isinstance(row.get("output"), str):
        turns.append({"role": "assistant", "content": row["output"]})
    return _with_system(row, turns)


def _with_system(row: dict[str, Any], messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    system = row.get("system")
    if isinstance(system, str) and system.strip() and (not messages or messages[0]["role"] != "system"):
        return [{"role": "system", "content": system}, *messages]
    return messages


_CURE = "correct or remove the row"
