"""What a request really contained: litellm renames, converts and drops parameters, and the record must not differ."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from spotcli.redaction import public_value

_TEXTS = {"messages", "contents", "prompt", "input", "system", "systeminstruction", "model", "stream", "images"}
"""Parts of a body that are no parameters, in the spelling of ``_spelled``."""
_CONTAINERS = ("extra_body", "additionalModelRequestFields")
"""litellm's name for parameters beside the known ones, which become keys of the body."""
_OTHER_NAMES = {
    "max_tokens": {"maxcompletiontokens", "maxoutputtokens", "maxnewtokens", "numpredict"},
    "max_completion_tokens": {"maxtokens", "maxoutputtokens", "maxnewtokens", "numpredict"},
    "seed": {"randomseed"},
    "stop": {"stopsequences"},
}
"""Parameter -> providers' names for it beside its own."""
_LONGEST = 1000
"""Characters of a value that is recorded."""


def sent_parameters(body: Any) -> dict[str, Any]:
    """The parameters in the body of a request, by the provider's names; nested ones as ``generationConfig.topP``.

    Args:
        body: as litellm logs it: a mapping, or JSON. Anything else has no parameters.
    """
    if isinstance(body, str | bytes):
        try:
            body = json.loads(body)
        except (ValueError, RecursionError):
            return {}
    if not isinstance(body, Mapping):
        return {}
    kept = {str(name): value for name, value in body.items() if _spelled(str(name)) not in _TEXTS}
    parameters: dict[str, Any] = {}
    _flatten(kept, "", parameters)
    return {name: public_value(value, name) for name, value in parameters.items()}


def _flatten(values: Mapping[str, Any], parent: str, into: dict[str, Any]) -> None:
    for name, value in values.items():
        path = parent if name in _CONTAINERS else f"{parent}{name}"
        if isinstance(value, Mapping) and path.count(".") < 4:
            _flatten(value, f"{path}." if path and name not in _CONTAINERS else path, into)
        elif value is not None and len(shown := json.dumps(value, default=str)) <= _LONGEST:
            into[path] = json.loads(shown)


def value_sent(sent: Mapping[str, Any], name: str) -> Any:
    """The value of a parameter under any provider's name for it; None if it was not sent."""
    names = {_spelled(name), *_OTHER_NAMES.get(name, ())}
    return next((value for path, value in sent.items() if _spelled(path.rpartition(".")[2]) in names), None)


def changed_parameters(asked: Mapping[str, Any], sent: Mapping[str, Any]) -> list[str]:
    """What was sent otherwise than it was asked for, as sentences."""
    changes = []
    for name, value in asked.items():
        if value is None or isinstance(value, Mapping | list | tuple):
            continue
        actual = value_sent(sent, name)
        if actual is None:
            changes.append(f"'{name}' is not sent to this provider")
        elif isinstance(value, int | float) and isinstance(actual, int | float) and actual != value:
            changes.append(f"'{name}' is sent as {actual} and not as {value}")
    return changes


def _spelled(name: str) -> str:
    return name.replace("_", "").lower()
