"""From an exception of litellm's to its consequence: a reply, a ``RequestFailed``, or an error that stops the run.

No key leaves this file: ``redact`` removes keys from every message of a provider.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from email.utils import mktime_tz, parsedate_tz
from typing import Any

from spotcli.errors import UserError
from spotcli.providers.replies import Reply, RequestFailed
from spotcli.redaction import redact

_QUOTA_EXHAUSTED = re.compile(
    r"insufficient_quota|insufficient credit|credit balance|billing_hard_limit|out of credits|PerDay|per day",
    re.IGNORECASE,
)
_FILTERED = re.compile(
    r"content[_ ]policy|content management policy|content[_ ]filter|ResponsibleAI|requires moderation", re.IGNORECASE
)
_NOT_READABLE = re.compile(r"Error converting to valid response block")
"""litellm's words for a successful response that it could not read, reported as a rejected request."""
_TOO_LONG = re.compile(r"context[_ ]length|context[_ ]window|prompt is too long|input token count", re.IGNORECASE)

PROMPT_TOO_LONG = "too long for the model"
"""The reason of a request whose prompt does not fit into the model's context."""

_CONTEXT = re.compile(
    r"maximum context length (?:is|of) (\d+)|context (?:window|length) (?:is|of) (\d+)", re.IGNORECASE
)
_PROMPT_TOKENS = re.compile(
    r"(\d+) input tokens|\((\d+) in the messages|(\d+) prompt tokens|prompt contains (?:at least )?(\d+)", re.IGNORECASE
)
_SUM_OVER_CONTEXT = re.compile(r"exceed context limit: (\d+) \+ \d+ > (\d+)")
_OUTPUT_LIMITS = (
    re.compile(r"supports at most (\d+) completion tokens"),
    re.compile(r"max_tokens: \d+ > (\d+)"),
    re.compile(r"supported range is from 1 \(inclusive\) to (\d+) \(inclusive\)"),
    re.compile(r"max_tokens[^.]{0,60}(?:less than or equal to|at most|maximum of) `?(\d+)", re.IGNORECASE),
)
_EXCLUSIVE_OUTPUT_LIMIT = re.compile(r"supported range is from 1 \(inclusive\) to (\d+) \(exclusive\)")

_BROKEN_CONNECTION = {"OSError", "ClientError", "TransportError"}
"""Exceptions of a connection that broke; by name, since litellm uses httpx or aiohttp."""
_NO_CONNECTION = {"ConnectionRefusedError", "ClientConnectorError", "ConnectError", "gaierror"}
"""Exceptions of a connection that was never made."""


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
    details = _details(error)
    for pattern in _OUTPUT_LIMITS:
        if limit := pattern.search(details):
            return _lower(int(limit[1]), max_tokens, of_model=True)
    if limit := _EXCLUSIVE_OUTPUT_LIMIT.search(details):
        return _lower(int(limit[1]) - 1, max_tokens, of_model=True)
    if total := _SUM_OVER_CONTEXT.search(details):
        return _lower(int(total[2]) - int(total[1]), max_tokens, of_model=False)
    context, prompt = _CONTEXT.search(details), _PROMPT_TOKENS.search(details)
    if context and prompt:
        tokens = int(context[1]) - int(next(filter(None, prompt.groups())))
        return _lower(tokens, max_tokens, of_model=False)
    return None


def _details(error: Exception) -> str:
    """The start of the message and the body, which has codes that the message may leave out.

    It is short enough for patterns, and for numbers that Python converts: at most 4300 digits.
    """
    return f"{str(error)[:2000]} {str(getattr(error, 'body', None) or '')[:2000]}"


def _lower(tokens: int, max_tokens: int, *, of_model: bool) -> TokenLimit | None:
    return TokenLimit(tokens, of_model) if 0 < tokens < max_tokens else None


def read_error(error: Exception, litellm: Any, model: str) -> Reply:
    """The reply that an exception amounts to: the provider filtered the request, or it is too long for the model.

    Args:
        error: what ``litellm.acompletion`` raised.
        litellm: the module, which the caller imports when it needs it.
        model: named in errors.

    Raises:
        RequestFailed: the request got no reply, and another try can succeed.
        UserError: no request can succeed.
    """
    status = getattr(error, "status_code", None)
    details = _details(error)
    rejected = status in (400, 403)
    if isinstance(error, litellm.ContextWindowExceededError) or (rejected and _TOO_LONG.search(details)):
        return Reply(finish_reason="declined", reason=PROMPT_TOO_LONG)
    if isinstance(error, litellm.ContentPolicyViolationError) or (rejected and _FILTERED.search(details)):
        return Reply(finish_reason="filtered", text=redact(_first_line(error)))
    _raise_if_permanent(error, details, litellm, model)
    raise _temporary(error, details, litellm) from None


def _raise_if_permanent(error: Exception, details: str, litellm: Any, model: str) -> None:
    """Raise the ``UserError`` for an exception that every request would get."""
    status = getattr(error, "status_code", None)
    message = redact(_first_line(error))
    if isinstance(error, litellm.UnsupportedParamsError):
        raise UserError(message, where=model, cure="remove that parameter, or choose another model") from None
    if isinstance(error, ImportError):
        raise UserError(message, where=model, cure=f"pip install {error.name or 'the package'}") from None
    if status in (401, 403):
        raise UserError(
            f"the provider rejected the key: {message}",
            where=model,
            cure="check the key in the environment, and that it may use this model",
        ) from None
    if status == 404:
        raise UserError(
            f"unknown model at this provider: {message}",
            where=model,
            cure="check the model's name (--oracle, --model) and --base-url",
        ) from None
    if status == 402 or (status == 429 and _is_quota_exhausted(details, _retry_after(error, details))):
        raise UserError(
            f"the provider's quota is exhausted: {message}",
            where=model,
            cure="add credit or raise the quota at the provider, then run the same command again; all replies are kept",
        ) from None


def _temporary(error: Exception, details: str, litellm: Any) -> RequestFailed:
    """The error for a request that another try can get through."""
    status = getattr(error, "status_code", None)
    headers = getattr(error, "litellm_response_headers", None)
    message = redact(_first_line(error))
    if status == 429:
        return RequestFailed("rate limit", message, retry_after=_retry_after(error, details))
    if isinstance(error, litellm.Timeout):
        return RequestFailed("time-out", message, maybe_billed=headers is None)
    if _NOT_READABLE.search(details):
        return RequestFailed("unreadable", message, maybe_billed=True)
    if status is not None and 400 <= status < 500:
        return RequestFailed("bad request", message, retryable=False)
    if _is_caused_by(error, _BROKEN_CONNECTION):
        return RequestFailed("connection", message, maybe_billed=not _is_caused_by(error, _NO_CONNECTION))
    if status == 200 or headers is None:
        # The provider answered, and litellm could not read the answer: it may have been charged for.
        return RequestFailed("unreadable", message, maybe_billed=True)
    return RequestFailed("server", message, retry_after=_retry_after(error, details))


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:500]


def _retry_after(error: Exception, details: str) -> float | None:
    """Seconds that the provider asks to wait: a header with seconds or a date, or Google's ``retryDelay``."""
    headers = getattr(error, "litellm_response_headers", None)
    value = headers.get("retry-after") if headers is not None else None
    if value:
        try:
            return max(0.0, float(value))
        except ValueError:
            date = parsedate_tz(value)
            if date:
                return max(0.0, mktime_tz(date) - time.time())
    delay = re.search(r'retryDelay"?:\s*"?(\d+(?:\.\d+)?)s', details)
    return float(delay[1]) if delay else None


def _is_quota_exhausted(details: str, retry_after: float | None) -> bool:
    # Google writes "exceeded your current quota" for a limit per minute too, but then names the time to wait.
    return bool(_QUOTA_EXHAUSTED.search(details)) or ("exceeded your current quota" in details and retry_after is None)


def _is_caused_by(error: BaseException | None, names: set[str]) -> bool:
    while error is not None:
        if not names.isdisjoint(kind.__name__ for kind in type(error).__mro__):
            return True
        error = error.__cause__ or error.__context__
    return False
