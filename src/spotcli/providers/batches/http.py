"""Calls of a batch API, and what their errors mean; the requests of our own clients."""

from __future__ import annotations

import json
import os
import time
from collections.abc import AsyncIterable, Awaitable, Iterable
from datetime import datetime
from email.utils import mktime_tz, parsedate_tz
from functools import cached_property
from typing import Any, TypeVar

import httpx

from spotcli.errors import UserError
from spotcli.providers.batches.api import BatchGone
from spotcli.providers.library import import_litellm
from spotcli.providers.permanent_errors import RequestSettings
from spotcli.providers.replies import RequestFailed
from spotcli.providers.request_errors import describe, error_of
from spotcli.providers.settings import ProviderSettings
from spotcli.redaction import public_value, redact, without_credentials

T = TypeVar("T")

CONNECT_SECONDS = 30.0
LONGEST_MESSAGE = 500
"""Characters of the message of a batch that are kept."""
MOST_PAGES = 1000
"""Pages of a list that are read at most."""
LATEST = 32_503_680_000.0
"""The year 3000, in seconds since 1970: a later moment is an error."""
LONGEST_BODY = 1_000_000
"""Bytes of an error that are read."""
MOST_BYTES = 1 << 30
"""Bytes of any other reply, such as a page of a list, which can contain results."""

# How large the results of a batch can be. A token has about 4 characters, and 6 bytes per character as \uXXXX.
BASE_BYTES = 16 << 20
REQUEST_BYTES = 64 << 10
TOKEN_BYTES = 32
LOGPROB_BYTES = 4096
"""Per token, if the probabilities of tokens are asked for."""
LONGEST_REPLY = 262_144
"""Tokens of a reply that was sent without a limit."""


class HttpError(Exception):
    """An HTTP state of an error, with what ``describe`` looks for in an exception."""

    def __init__(self, response: httpx.Response, text: str) -> None:
        super().__init__(text)
        self.status_code = response.status_code
        self.litellm_response_headers = response.headers


class BatchCalls:
    """Calls of one provider's batch API.

    Args:
        model: by litellm's name.
        settings: address, time-out and further headers.
    """

    keys: tuple[str, ...] = ()
    """Names of environment variables with a key, without ``_API_KEY``; the first one that is set counts."""

    def __init__(self, model: str, settings: ProviderSettings) -> None:
        self.model = model
        self.settings = settings
        self.headers: dict[str, str] = {
            str(name): str(value) for name, value in (settings.params.get("extra_headers") or {}).items()
        }
        self._replied = False
        self.skew = 0.0
        """Seconds by which the provider's clock is ahead of ours, by its last reply."""

    @property
    def account(self) -> str:
        """Identifies address and key, without showing the key: batches of another account cannot be found."""
        names = [f"{name}_API_KEY" for name in self.keys]
        key = next((value for name in names if (value := os.environ.get(name, "").strip())), "")
        return f"{without_credentials(self.settings.base_url) or 'public'} {public_value(key, 'api_key')}"

    @cached_property
    def litellm(self) -> Any:
        return import_litellm()

    @cached_property
    def _http(self) -> httpx.AsyncClient:
        timeout = httpx.Timeout(self.settings.timeout, connect=min(CONNECT_SECONDS, self.settings.timeout))
        return httpx.AsyncClient(timeout=timeout)

    def most_bytes(self, limits: Iterable[int | None]) -> int:
        """How large the results of requests with these limits of reply tokens can be at most."""
        with_logprobs = "logprobs" in str(self.settings.params).lower()
        token = TOKEN_BYTES + LOGPROB_BYTES * with_logprobs
        return BASE_BYTES + sum(REQUEST_BYTES + token * (limit or LONGEST_REPLY) for limit in limits)

    async def call(self, work: Awaitable[T], *, of_batch: bool = False, of_api: bool = False) -> T:
        """The result of a call.

        Args:
            of_batch: about a batch that was created: 404 means that it is gone.
            of_api: to an address that each batch API has: 404 means that there is none.

        Raises:
            RequestFailed: another try can succeed.
            UserError: no try can.
            BatchGone: the batch or its results are gone.
        """
        try:
            result = await work
        except RequestFailed:
            raise
        except Exception as error:
            response = getattr(error, "response", None)
            if response is not None and getattr(error, "litellm_response_headers", None) is None:
                error.litellm_response_headers = response.headers  # type: ignore[attr-defined]  # for `describe`
            failure = describe(error, self.litellm)
            if of_batch and failure.status in (404, 410):
                raise BatchGone(failure.message) from None
            if of_api and failure.status in (404, 405, 501):
                message = f"no batch API at this address: {failure.message}"
                raise UserError(message, where=self.model, cure="check --base-url, or remove --batch") from None
            settings = RequestSettings(self.model, self.settings.section, self.settings.base_url)
            raise error_of(failure, self.litellm, settings, replied=self._replied) from None
        self._replied = True
        return result

    async def send(
        self,
        method: str,
        url: str,
        headers: dict[str, str],
        body: bytes | None = None,
        *,
        most_bytes: int = MOST_BYTES,
        **query: Any,
    ) -> bytes:
        """The body of a successful reply.

        Raises:
            HttpError: the state is that of an error.
            RequestFailed: it is larger than ``most_bytes``.
        """
        # A redirection is not followed: it could lead to another host, which must not get the key.
        request = self._http.stream(method, url, headers=self.headers | headers, content=body, params=query or None)
        async with request as response:
            if not response.is_success:
                text = await _beginning(response.aiter_bytes(), LONGEST_BODY)
                raise HttpError(response, text.decode(errors="replace"))
            date = parsedate_tz(response.headers.get("date", ""))
            self.skew = mktime_tz(date) - time.time() if date else 0.0
            return await read_at_most(response.aiter_bytes(), most_bytes)

    async def send_json(
        self,
        method: str,
        url: str,
        headers: dict[str, str],
        body: bytes | None = None,
        *,
        most_bytes: int = MOST_BYTES,
        **query: Any,
    ) -> dict[str, Any]:
        """The JSON object of a successful reply.

        Raises:
            HttpError: the state is that of an error.
            ValueError: the reply is no JSON object.
            RequestFailed: it is larger than ``most_bytes``.
        """
        value = json.loads(await self.send(method, url, headers, body, most_bytes=most_bytes, **query))
        if not isinstance(value, dict):
            raise ValueError("the reply is no JSON object")
        return value

    async def close(self) -> None:
        """Close the connections."""
        client = self.__dict__.pop("_http", None)
        if client is not None:
            await client.aclose()


async def read_at_most(chunks: AsyncIterable[bytes], most: int) -> bytes:
    """The body of a reply as it arrives: one without an end must not fill the memory.

    Raises:
        RequestFailed: it is larger than ``most`` bytes.
    """
    content = await _beginning(chunks, most + 1)
    if len(content) > most:
        message = f"the reply is larger than {most:,} bytes, and was not read to its end"
        raise RequestFailed("unreadable", message, maybe_billed=True)
    return content


async def _beginning(chunks: AsyncIterable[bytes], most: int) -> bytes:
    """The first ``most`` bytes at most."""
    content = bytearray()
    async for chunk in chunks:
        content += chunk[: most - len(content)]
        if len(content) >= most:
            break
    return bytes(content)


def objects_in(content: bytes) -> list[dict[str, Any]]:
    """The JSON objects in a file of results; a line that is none is left out, and its request counts as missing."""
    rows = []
    for line in content.splitlines():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


def as_object(value: Any) -> dict[str, Any]:
    """A JSON object; an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def public_message(value: Any) -> str:
    """An error's text without keys, shortened."""
    return redact(str(value or "")[: 4 * LONGEST_MESSAGE])[:LONGEST_MESSAGE]


def listed(value: Any) -> list[dict[str, Any]]:
    """The objects in a list of batches.

    Raises:
        ValueError: it is no list, so nobody knows what the provider has.
    """
    if not isinstance(value, list):
        raise ValueError("the reply has no list of batches")
    return [item for item in value if isinstance(item, dict)]


def seconds_of(value: Any) -> float | None:
    """Seconds since 1970 of a number or of a date in ISO 8601; None for anything else."""
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            seconds = float(value)
        else:
            seconds = datetime.fromisoformat(str(value)).timestamp()
    except (ValueError, OverflowError):
        return None
    return seconds if 0.0 <= seconds <= LATEST else None
