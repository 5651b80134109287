"""Batches of OpenAI's API: requests in an uploaded file, results in two files; by litellm's calls.

https://platform.openai.com/docs/guides/batch; Azure's and those of compatible servers are the same.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import Any

from spotcli.providers.batches.anthropic import with_id
from spotcli.providers.batches.api import BatchRow, BatchState, Found, Limits, Sought, as_count
from spotcli.providers.batches.http import BatchCalls, as_object, objects_in, seconds_of

METADATA = "spot"
"""The key of a batch's metadata with our own name of it."""
PAGE = 100
SKEW = 600.0
"""Seconds by which the provider's clock may differ from ours."""
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

    def __init__(self, model: str, settings: Any, provider: str) -> None:
        super().__init__(model, settings)
        self._provider = provider
        self.keys = (provider.upper(), "OPENAI")
        self.limits = Limits(50_000, 200 * MB - 4096)

    @property
    def _endpoint(self) -> str:
        return "/chat/completions" if self._provider == "azure" else "/v1/chat/completions"

    @property
    def _route(self) -> dict[str, Any]:
        base = {"api_base": self.settings.base_url} if self.settings.base_url else {}
        headers = {"extra_headers": self.headers} if self.headers else {}
        # Its own retries could create a batch twice.
        return {
            "custom_llm_provider": self._provider,
            "timeout": self.settings.timeout,
            "max_retries": 0,
            **base,
            **headers,
        }

    def line(self, custom_id: str, body: bytes) -> bytes:
        names = json.dumps({"custom_id": custom_id, "method": "POST", "url": self._endpoint})
        return b'%s, "body": %s}' % (names[:-1].encode(), body)

    async def upload(self, key: str, lines: Sequence[bytes]) -> str | None:
        content = io.BytesIO(b"\n".join(lines) + b"\n")
        content.name = f"{key}.jsonl"
        work = self.litellm.acreate_file(file=content, purpose="batch", **self._route)
        return str(with_id(_fields(await self.call(work)))["id"])

    async def create(self, key: str, file: str | None, lines: Sequence[bytes]) -> BatchState:
        work = self.litellm.acreate_batch(
            completion_window="24h",
            endpoint=self._endpoint,
            input_file_id=file,
            metadata={METADATA: key},
            **self._route,
        )
        return _state(with_id(_fields(await self.call(work))))

    async def find(self, sought: Sought) -> Found:
        after: dict[str, str] = {}
        while True:
            listed = await self.call(self.litellm.alist_batches(limit=PAGE, **after, **self._route))
            page = [_fields(batch) for batch in (getattr(listed, "data", None) or ())]
            for batch in page:
                if as_object(batch.get("metadata")).get(METADATA) == sought.key:
                    return Found(_state(batch))
            oldest = seconds_of(page[-1].get("created_at")) if page else None
            if not page or not getattr(listed, "has_more", False) or (oldest or sought.at) < sought.at - SKEW:
                return Found()
            after = {"after": str(page[-1].get("id"))}

    async def retrieve(self, batch: str) -> BatchState:
        # Otherwise litellm downloads the results of a finished batch to compute their cost.
        quiet = {"litellm_metadata": {"batch_ignore_default_logging": True}}
        work = self.litellm.aretrieve_batch(batch_id=batch, **quiet, **self._route)
        return _state(_fields(await self.call(work, of_batch=True)))

    async def rows(self, state: BatchState, custom_ids: Sequence[str]) -> list[BatchRow]:
        rows: list[BatchRow] = []
        for file in state.results:
            content = await self.call(self.litellm.afile_content(file_id=file, **self._route), of_batch=True)
            rows += [_row(row) for row in objects_in(content.content)]
        return rows


def _fields(value: Any) -> dict[str, Any]:
    """The fields of an object of litellm's."""
    return value if isinstance(value, dict) else as_object(value.model_dump(mode="json"))


def _state(batch: dict[str, Any]) -> BatchState:
    counts, status = as_object(batch.get("request_counts")), batch.get("status")
    errors = [as_object(error) for error in as_object(batch.get("errors")).get("data") or ()]
    return BatchState(
        id=str(batch.get("id")),
        status="ended" if status in ENDED else "rejected" if status == "failed" else "open",
        done=as_count(counts.get("completed")),
        failed=as_count(counts.get("failed")),
        total=as_count(counts.get("total")),
        created=seconds_of(batch.get("created_at")),
        expires=seconds_of(batch.get("expires_at")),
        cancelled=status == "cancelled",
        message="; ".join(str(error.get("message")) for error in errors[:3]),
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
