"""The largest limit of reply tokens that a provider accepts, from its own message."""

from __future__ import annotations

import re
from dataclasses import dataclass

_WANTED_NAME = re.compile(r"\buse\W{1,3}(max_completion_tokens|max_tokens)\b", re.IGNORECASE)
_CONTEXT = re.compile(
    r"maximum context length (?:is|of) (\d{1,12})|context (?:window|length) (?:is|of) (\d{1,12})", re.IGNORECASE
)
_PROMPT_TOKENS = re.compile(
    r"(\d{1,12}) input tokens|\((\d{1,12}) in the messages|\((\d{1,12}) of text input"
    r"|(\d{1,12}) tokens from the input|(\d{1,12}) prompt tokens|prompt contains (?:at least )?(\d{1,12})",
    re.IGNORECASE,
)
_SUM_OVER_CONTEXT = (
    re.compile(r"exceed context limit: (?P<prompt>\d{1,12}) \+ \d+ > (?P<context>\d{1,12})"),
    re.compile(r"`max_new_tokens` must be <= (?P<context>\d{1,12})\. Given: (?P<prompt>\d{1,12}) `inputs` tokens"),
)
_OUTPUT_LIMITS = (
    re.compile(r"supports at most (\d{1,12}) completion tokens"),
    re.compile(r"max_tokens: \d+ > (\d{1,12})"),
    re.compile(r"supported range is from 1 \(inclusive\) to (\d{1,12}) \(inclusive\)"),
    re.compile(r"max[_ ]tokens[^.]{0,60}(?:less than or equal to|at most|maximum of) `?(\d{1,12})", re.IGNORECASE),
    re.compile(r"range of max_tokens (?:is|should be) \[1, ?(\d{1,12})\]", re.IGNORECASE),
    re.compile(r"maximum tokens you requested exceeds the model limit of (\d{1,12})"),
)
_EXCLUSIVE_OUTPUT_LIMIT = re.compile(r"supported range is from 1 \(inclusive\) to (\d{1,12}) \(exclusive\)")


@dataclass(frozen=True)
class TokenLimit:
    """A limit of reply tokens that the provider would accept."""

    tokens: int
    of_model: bool
    """Whether it holds for every request to the model; otherwise only for prompts of this length."""


def accepted_limit(error: Exception, max_tokens: int) -> TokenLimit | None:
    """The largest limit that fits, if the provider rejected a request only because ``max_tokens`` is too large.

    None for every other error, and if the prompt alone does not fit into the model's context.
    """
    if getattr(error, "status_code", None) not in (400, 413, 422):
        return None
    details = f"{str(error)[:2000]} {str(getattr(error, 'body', None) or '')[:2000]}"
    for pattern in _OUTPUT_LIMITS:
        if limit := pattern.search(details):
            return _lower(int(limit[1]), max_tokens, of_model=True)
    if limit := _EXCLUSIVE_OUTPUT_LIMIT.search(details):
        return _lower(int(limit[1]) - 1, max_tokens, of_model=True)
    for pattern in _SUM_OVER_CONTEXT:
        if total := pattern.search(details):
            return _lower(int(total["context"]) - int(total["prompt"]), max_tokens, of_model=False)
    context, prompt = _CONTEXT.search(details), _PROMPT_TOKENS.search(details)
    if context and prompt:
        tokens = int(context[1]) - int(next(filter(None, prompt.groups())))
        return _lower(tokens, max_tokens, of_model=False)
    return None


def other_limit_name(error: Exception, name: str) -> str | None:
    """The provider's name for the token limit, if it rejected a request only because of the name."""
    if getattr(error, "status_code", None) not in (400, 422):
        return None
    details = f"{str(error)[:2000]} {str(getattr(error, 'body', None) or '')[:2000]}"
    other = "max_completion_tokens" if name == "max_tokens" else "max_tokens"
    wanted = _WANTED_NAME.search(details)
    return other if wanted and wanted[1].lower() == other and name in details else None


def _lower(tokens: int, max_tokens: int, *, of_model: bool) -> TokenLimit | None:
    return TokenLimit(tokens, of_model) if 0 < tokens < max_tokens else None
