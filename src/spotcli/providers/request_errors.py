"""From an exception of litellm's to its consequence: a reply, a ``RequestFailed``, or an error that stops the run.

No key leaves this file: ``redact`` removes keys from every message of a provider.
"""

from __future__ import annotations

import json
import math
import re
import time
from email.utils import mktime_tz, parsedate_tz
from typing import Any

from spotcli.errors import UserError
from spotcli.providers.permanent_errors import Failure, RequestSettings, permanent_error
from spotcli.providers.replies import Reply, RequestFailed
from spotcli.redaction import redact

_FILTERED = re.compile(
    r"content[_ ]policy|content management policy|content[_ ]filter|ResponsibleAI|requires moderation", re.IGNORECASE
)
_NOT_READABLE = re.compile(r"Error converting to valid response block")
"""litellm's words for a successful response that it could not read, reported as a rejected request."""
_TOO_LONG = re.compile(
    r"context[_ ](?:length|window|size)|(?:prompt|input) is too long|input token count|maximum prompt length"
    r"|range of input length|`inputs` (?:tokens \+|must have less than)|input length \(\d{1,12} tokens\) exceeds",
    re.IGNORECASE,
)

PROMPT_TOO_LONG = "too long for the model"
"""The reason of a request whose prompt does not fit into the model's context."""

_REJECTED = {400, 403, 413, 422}
"""HTTP states of a request that the provider rejects for what it contains."""
_BROKEN_CONNECTION = {"OSError", "ClientError", "TransportError"}
"""Exceptions of a connection that broke; by name, since litellm uses httpx or aiohttp."""
_NO_CONNECTION = {"ConnectionRefusedError", "ClientConnectorError", "ConnectError", "gaierror"}
"""Exceptions of a connection that was never made."""
_TRY_AGAIN = {409, 425}
"""HTTP states below 500 that another try can get through; 408 is a time-out."""

_PREFIX = re.compile(
    r"(?:litellm\.)?(?:Timeout(?: Error)?|\w+(?:Error|Exception)\b(?: [\w ]{1,40})?)(?::| -)\s+", re.ASCII
)
"""What litellm writes before the provider's message, once or more."""
_ONLY_STATUS = re.compile(r"Error code: \d{3}")
"""What OpenAI's package says of an error whose body is not an object with a message."""
_LONGEST_BODY = 20_000
"""Characters of an error's text that are searched; a page of HTML can be megabytes."""
_LONGEST_MESSAGE = 500


def read_error(error: Exception, litellm: Any, settings: RequestSettings, *, replied: bool = False) -> Reply:
    """The reply that an exception amounts to: the provider filtered the request, or it is too long for the model.

    Args:
        error: what ``litellm.acompletion`` raised.
        litellm: the module, which the caller imports when it needs it.
        settings: what errors name.
        replied: the provider has replied before, so the address is right.

    Raises:
        RequestFailed: the request got no reply, and another try can succeed.
        UserError: no request can succeed.
    """
    failure = describe(error, litellm)
    rejected = failure.status in _REJECTED
    if isinstance(error, litellm.ContextWindowExceededError) or (rejected and _TOO_LONG.search(failure.details)):
        return Reply(finish_reason="declined", reason=PROMPT_TOO_LONG)
    if isinstance(error, litellm.ContentPolicyViolationError) or (rejected and _FILTERED.search(failure.details)):
        return Reply(finish_reason="filtered", text=failure.message)
    raise error_of(failure, litellm, settings, replied=replied) from None


def error_of(
    failure: Failure, litellm: Any, settings: RequestSettings, *, replied: bool = False
) -> UserError | RequestFailed:
    """The error for a request that got no reply: a ``RequestFailed`` if another try can succeed."""
    permanent = permanent_error(failure, settings, replied=replied)
    if permanent is not None:
        return permanent
    plain = not replied and (settings.base_url or "").startswith("http://")
    return _temporary(failure, litellm, plain=plain)


def describe(error: Exception, litellm: Any) -> Failure:
    """What is known about an exception of litellm's."""
    # The body has codes that the message may leave out.
    details = f"{str(error)[:_LONGEST_BODY]} {str(getattr(error, 'body', None) or '')[:_LONGEST_BODY]}"
    status = getattr(error, "status_code", None)
    return Failure(
        error=error,
        status=status if isinstance(status, int) else None,
        message=_message(error),
        details=details,
        retry_after=_retry_after(error, details),
        unsupported=isinstance(error, litellm.UnsupportedParamsError),
    )


def _temporary(failure: Failure, litellm: Any, *, plain: bool) -> RequestFailed:
    """The error for a request that another try can get through.

    Args:
        plain: the address has no TLS, and the provider has not replied yet.
    """
    error, status, message = failure.error, failure.status, failure.message
    headers = getattr(error, "litellm_response_headers", None)
    if status == 429:
        return RequestFailed("rate limit", message, retry_after=failure.retry_after)
    if isinstance(error, litellm.Timeout):
        return RequestFailed("time-out", message, maybe_billed=headers is None)
    if _NOT_READABLE.search(failure.details):
        return RequestFailed("unreadable", message, maybe_billed=True)
    if status is not None and 400 <= status < 500 and status not in _TRY_AGAIN:
        return RequestFailed("bad request", message, retryable=False)
    if failure.is_caused_by(*_BROKEN_CONNECTION):
        never_sent = failure.is_caused_by(*_NO_CONNECTION)
        hint = "; if the server expects TLS, use https:// in --base-url" if plain and not never_sent else ""
        return RequestFailed("connection", f"{failure.cause}{hint}", maybe_billed=not never_sent)
    if status == 200 or headers is None:
        # The provider answered, and litellm could not read the answer: it may have been charged for.
        return RequestFailed("unreadable", message, maybe_billed=True)
    return RequestFailed("server", message, retry_after=failure.retry_after)


def _message(error: Exception) -> str:
    """The provider's own message in one line, without keys."""
    text = str(error)[:_LONGEST_BODY].strip()
    # litellm adds the trace of an error of its own.
    text = text.partition("Traceback (most recent call last):")[0].strip() or text
    while (prefix := _PREFIX.match(text)) and prefix.end() < len(text):
        text = text[prefix.end() :]
    lines = [" ".join(line.split()) for line in _unwrapped(text).splitlines()]
    line = next((line for line in lines if any(map(str.isalnum, line))), type(error).__name__)
    body = getattr(error, "body", None)
    if _ONLY_STATUS.fullmatch(line) and isinstance(body, str) and body.strip():
        line = " ".join(body[:_LONGEST_BODY].split())
    return redact(line[: 2 * _LONGEST_MESSAGE])[:_LONGEST_MESSAGE]


def _unwrapped(text: str) -> str:
    """The message in a JSON object of an error; the text itself if it is not such an object."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    for name in ("error", "message", "detail", "Message"):
        inner = value.get(name) if isinstance(value, dict) else None
        if isinstance(inner, dict):
            inner = inner.get("message")
        if isinstance(inner, str) and inner.strip():
            return inner
    return text


def _retry_after(error: Exception, details: str) -> float | None:
    """Seconds that the provider asks to wait: a header with seconds or a date, or Google's ``retryDelay``.

    None for a value that is no time, such as ``inf``.
    """
    headers = getattr(error, "litellm_response_headers", None)
    value = headers.get("retry-after") if headers is not None and hasattr(headers, "get") else None
    seconds = _seconds(str(value)) if value else None
    if seconds is None and (delay := re.search(r'retryDelay"?:\s*"?(\d{1,9}(?:\.\d{1,9})?)s', details)):
        seconds = float(delay[1])
    return seconds


def _seconds(value: str) -> float | None:
    try:
        seconds = float(value)
    except ValueError:
        try:
            date = parsedate_tz(value)
            seconds = mktime_tz(date) - time.time() if date else math.nan
        except (ValueError, OverflowError, TypeError, IndexError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None
