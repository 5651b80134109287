"""Batches of OpenAI's API: requests in an uploaded file, results in two files.

https://platform.openai.com/docs/guides/batch; Azure's and those of compatible servers are the same. The calls are those
of OpenAI's package. litellm's do the same with it, but open a connection per call that nobody can close.
"""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Sequence
from functools import cached_property
from typing import Any

from spotcli.providers.batches.anthropic import with_id
from spotcli.providers.batches.api import BatchRow, BatchState, Found, Limits, Sought, as_count
from spotcli.providers.batches.http import (
    MOST_PAGES,
    BatchCalls,
    as_object,
    listed,
    objects_in,
    public_message,
    read_at_most,
    seconds_of,
)
from spotcli.providers.replies import RequestFailed
from spotcli.providers.settings import ProviderSettings

AZURE_VERSION = "2024-10-21"
"""The API version if the environment names none."""
METADATA = "spot"
"""The key of a batch's metadata with our own name of it."""
PAGE = 100
SKEW = 86_400.0
"""Seconds by which the provider's clock may differ from ours; generous, since the name of a batch decides."""
MB = 1_000_000
FULL = "token_limit_exceeded"
"""The error of a batch with more tokens than may wait at the provider."""
ENDED = ("completed", "expired", "cancelled")
FAILURES = {"batch_expired": "expired", "batch_cancelled": "cancelled"}
"""Code of a request that was not worked on -> its failure."""


class FileBatches(BatchCalls):
    """The batch API of OpenAI, Azure, and servers that have the same.

    Args:
        provider: by litellm's name.
    """

    loses_names = False

    def __init__(self, model: str, settings: ProviderSettings, provider: str) -> None:
        super().__init__(model, settings)
        self._provider = provider
        self.keys = (provider.upper(), "OPENAI")
        self.limits = Limits(50_000, 200 * MB - 4096)

    @property
    def _endpoint(self) -> str:
        return "/chat/completions" if self._provider == "azure" else "/v1/chat/completions"

    @cached_property
    def _sdk(self) -> Any:
        """A client without retries of its own, which could create a batch twice."""
        import openai

        name = self._provider.upper()
        _, _, key, base = self.litellm.get_llm_provider(model=self.model)
        base = self.settings.base_url or base or _environment(f"{name}_BASE_URL", f"{name}_API_BASE")
        key = key or _environment(f"{name}_API_KEY")
        common: dict[str, Any] = {
            "timeout": self.settings.timeout,
            "max_retries": 0,
            "default_headers": self.headers or None,
            # A redirection could lead to another host, which must get neither a key nor the requests.
            "http_client": openai.DefaultAsyncHttpxClient(follow_redirects=False),
        }
        if self._provider == "azure":
            return openai.AsyncAzureOpenAI(
                api_key=key,
                azure_ad_token=_environment("AZURE_AD_TOKEN"),
                azure_endpoint=base or "",
                api_version=_environment("AZURE_API_VERSION") or AZURE_VERSION,
                **common,
            )
        return openai.AsyncOpenAI(api_key=key or "none", base_url=base, **common)

    def line(self, custom_id: str, body: bytes) -> bytes:
        names = json.dumps({"custom_id": custom_id, "method": "POST", "url": self._endpoint})
        return b'%s, "body": %s}' % (names[:-1].encode(), body)

    async def upload(self, key: str, lines: Sequence[bytes]) -> str | None:
        content = b"\n".join(lines) + b"\n"
        work = self._sdk.files.create(file=(f"{key}.jsonl", content, "application/jsonl"), purpose="batch")
        return str((await self.call(self._created(work), of_api=True))["id"])

    async def create(self, key: str, file: str | None, lines: Sequence[bytes]) -> BatchState:
        work = self._sdk.batches.create(
            completion_window="24h", endpoint=self._endpoint, input_file_id=file, metadata={METADATA: key}
        )
        return _state(await self.call(self._created(work)))

    async def _created(self, work: Awaitable[Any]) -> dict[str, Any]:
        return with_id(_fields(await work))

    async def find(self, sought: Sought) -> Found:
        after: dict[str, str] = {}
        for _ in range(MOST_PAGES):
            page, more = await self.call(self._page(after))
            for batch in page:
                if as_object(batch.get("metadata")).get(METADATA) == sought.key:
                    return Found(_state(batch))
            oldest = seconds_of(page[-1].get("created_at")) if page else None
            if not page or not more or (oldest or sought.at) < sought.at - SKEW:
                break
            after = {"after": str(page[-1].get("id"))}
        return Found()

    async def _page(self, after: dict[str, str]) -> tuple[list[dict[str, Any]], bool]:
        """A page of the list of batches, newest first, and whether there are more."""
        page = await self._sdk.batches.list(limit=PAGE, **after)
        batches = page.data if isinstance(page.data, list) else None
        return listed(batches and [_fields(batch) for batch in batches]), bool(page.has_more)

    async def retrieve(self, batch: str, most_bytes: int) -> BatchState:
        return _state(_fields(await self.call(self._sdk.batches.retrieve(batch), of_batch=True)))

    async def rows(self, state: BatchState, custom_ids: Sequence[str], most_bytes: int) -> list[BatchRow]:
        rows: list[BatchRow] = []
        known = set(custom_ids)
        for file in state.results:
            content = await self.call(self._content(file, most_bytes), of_batch=True)
            found = [_row(row) for row in objects_in(content)]
            if content and not any(row.custom_id in known for row in found):
                raise RequestFailed("unreadable", f"file {file} has no result of this batch", maybe_billed=True)
            rows += found
        return rows

    async def _content(self, file: str, most_bytes: int) -> bytes:
        async with self._sdk.files.with_streaming_response.content(file) as response:
            return await read_at_most(response.iter_bytes(), most_bytes)

    async def close(self) -> None:
        if sdk := self.__dict__.pop("_sdk", None):
            await sdk.close()
        await super().close()


def _environment(*names: str) -> str | None:
    """The first of these variables that is set."""
    return next((value for name in names if (value := os.environ.get(name, "").strip())), None)


def _fields(value: Any) -> dict[str, Any]:
    """The fields of an object of the SDK; what is no such object has none."""
    return (
        as_object(value.model_dump(mode="json", warnings=False)) if hasattr(value, "model_dump") else as_object(value)
    )


def _state(batch: dict[str, Any]) -> BatchState:
    counts, status = as_object(batch.get("request_counts")), batch.get("status")
    errors = as_object(batch.get("errors")).get("data")
    errors = [as_object(error) for error in errors] if isinstance(errors, list) else []
    return BatchState(
        id=str(batch.get("id")),
        status="ended" if status in ENDED else "rejected" if status == "failed" else "open",
        done=as_count(counts.get("completed")),
        failed=as_count(counts.get("failed")),
        total=as_count(counts.get("total")),
        created=seconds_of(batch.get("created_at")),
        expires=seconds_of(batch.get("expires_at")),
        cancelled=status == "cancelled",
        expired=status == "expired",
        message=public_message("; ".join(str(error.get("message")) for error in errors[:3])),
        full=any(error.get("code") == FULL for error in errors),
        name=str(as_object(batch.get("metadata")).get(METADATA) or ""),
        results=tuple(str(batch[name]) for name in ("output_file_id", "error_file_id") if batch.get(name)),
    )


def _row(row: dict[str, Any]) -> BatchRow:
    custom_id, response, error = str(row.get("custom_id")), as_object(row.get("response")), as_object(row.get("error"))
    if response:
        status = as_count(response.get("status_code")) or 200
        return BatchRow(custom_id, status, as_object(response.get("body")))
    if failure := FAILURES.get(str(error.get("code"))):
        return BatchRow(custom_id, failure=failure)
    return BatchRow(custom_id, 500, {"error": error or {"message": "no response"}})
