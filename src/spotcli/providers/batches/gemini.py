"""Batches of the Gemini API: https://ai.google.dev/gemini-api/docs/batch-api

Requests are in the body that creates the batch, replies in the operation. litellm's calls take a file of requests in
OpenAI's format instead, cannot list batches, and lose what an ordinary request contains, so the requests are ours.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from spotcli.errors import UserError
from spotcli.providers.batches.anthropic import with_id
from spotcli.providers.batches.api import BatchRow, BatchState, Found, Limits, Sought, as_count
from spotcli.providers.batches.http import (
    MOST_PAGES,
    BatchCalls,
    as_object,
    listed,
    objects_in,
    public_message,
    seconds_of,
)

PATIENCE = 900.0
"""Seconds after the end of a batch within which its results may not be there yet."""
PAGE = 100

STATES = {1: 499, 3: 400, 4: 504, 5: 404, 7: 403, 8: 429, 9: 400, 13: 500, 14: 503, 16: 401}
"""Code of an error in a row, which is gRPC's -> its HTTP state."""
ENDED = ("SUCCEEDED", "CANCELLED", "EXPIRED")
CANCELLED = 499


class GeminiBatches(BatchCalls):
    """The batch API of the Gemini API."""

    limits = Limits(50_000, 19_900_000)
    keys = ("GEMINI", "GOOGLE")
    loses_names = True

    @property
    def _base(self) -> str:
        from litellm.llms.gemini.common_utils import GeminiModelInfo

        base = str(GeminiModelInfo.get_api_base(self.settings.base_url)).rstrip("/")
        return base.removesuffix("/v1beta").removesuffix("/v1")

    @property
    def _auth(self) -> dict[str, str]:
        from litellm.llms.gemini.common_utils import GeminiModelInfo

        key = GeminiModelInfo.get_api_key()
        if not key:
            name = "GEMINI_API_KEY"
            raise UserError(f"'{self.model}' requires {name}", where="environment", cure=f"export {name}=...")
        return {"x-goog-api-key": key, "content-type": "application/json"}

    def line(self, custom_id: str, body: bytes) -> bytes:
        return b'{"request": %s, "metadata": {"key": %s}}' % (body, json.dumps(custom_id).encode())

    async def upload(self, key: str, lines: Sequence[bytes]) -> str | None:
        return None

    async def create(self, key: str, file: str | None, lines: Sequence[bytes]) -> BatchState:
        model = quote(self.model.rpartition("/")[2], safe="")
        name = json.dumps(key).encode()
        body = b'{"batch": {"display_name": %s, "input_config": {"requests": {"requests": [%s]}}}}'
        work = self._created(
            f"{self._base}/v1beta/models/{model}:batchGenerateContent", body % (name, b",\n".join(lines))
        )
        return _state(await self.call(work))

    async def _created(self, url: str, body: bytes) -> dict[str, Any]:
        return with_id(await self.send_json("POST", url, self._auth, body), "name")

    async def find(self, sought: Sought) -> Found:
        token: dict[str, Any] = {}
        for _ in range(MOST_PAGES):
            states, following = await self.call(self._page(token))
            for state in states:
                if state.name == sought.key:
                    return Found(state)
            if not following:
                break
            token = {"pageToken": following}
        return Found()

    async def _page(self, token: dict[str, Any]) -> tuple[list[BatchState], Any]:
        """A page of the list of batches, and the token of the next one."""
        page = await self.send_json("GET", f"{self._base}/v1beta/batches", self._auth, pageSize=PAGE, **token)
        # An empty list is left out.
        return [_state(item) for item in listed(page.get("operations", []))], page.get("nextPageToken")

    async def retrieve(self, batch: str, most_bytes: int) -> BatchState:
        name = quote(batch.removeprefix("batches/"), safe="")
        work = self.send_json("GET", f"{self._base}/v1beta/batches/{name}", self._auth, most_bytes=most_bytes)
        return _state(await self.call(work, of_batch=True))

    async def rows(self, state: BatchState, custom_ids: Sequence[str], most_bytes: int) -> list[BatchRow]:
        items: list[Mapping[str, Any]] = list(state.inline or ())
        for file in state.results:
            name = quote(file.removeprefix("files/"), safe="")
            url = f"{self._base}/download/v1beta/files/{name}:download"
            work = self.send("GET", url, self._auth, most_bytes=most_bytes, alt="media")
            items += objects_in(await self.call(work, of_batch=True))
        keys = [as_object(item.get("metadata")).get("key") or item.get("key") for item in items]
        return [_row(str(key or ""), item) for key, item in zip(keys, items, strict=True)]


def _state(value: dict[str, Any]) -> BatchState:
    details, response, error = (as_object(value.get(name)) for name in ("metadata", "response", "error"))
    state = str(details.get("state") or "").rpartition("STATE_")[2]
    stats = as_object(details.get("batchStats"))
    output = as_object(details.get("output")) | response
    inline = as_object(output.get("inlinedResponses")).get("inlinedResponses")
    ended = state in ENDED
    if state == "SUCCEEDED" and inline is None and "responsesFile" not in output:
        # The results may follow.
        ended = time.time() - (seconds_of(details.get("endTime")) or 0.0) > PATIENCE
    done = as_count(stats.get("successfulRequestCount"))
    return BatchState(
        id=str(value.get("name")),
        status="rejected" if state == "FAILED" else "ended" if ended else "open",
        done=done,
        failed=as_count(stats.get("failedRequestCount")),
        total=as_count(stats.get("requestCount")),
        created=seconds_of(details.get("createTime")),
        expires=_expiry(details),
        cancelled=state == "CANCELLED",
        expired=state == "EXPIRED",
        message=public_message(error.get("message")),
        full=error.get("code") == 8,
        transient=error.get("code") in (4, 13, 14),
        name=str(details.get("displayName") or ""),
        results=(str(output["responsesFile"]),) if output.get("responsesFile") else (),
        inline=[item for item in inline if isinstance(item, dict)] if isinstance(inline, list) else None,
    )


def _expiry(details: dict[str, Any]) -> float | None:
    """A batch that is not done after two days expires."""
    created = seconds_of(details.get("createTime"))
    return None if created is None else created + 2 * 86_400


def _row(custom_id: str, item: Mapping[str, Any]) -> BatchRow:
    if isinstance(item.get("response"), dict):
        return BatchRow(custom_id, body=item["response"])
    error = as_object(item.get("error")) or as_object(item.get("status"))
    code = as_count(error.get("code"))
    status = code if code >= 100 else STATES.get(code, 500)
    if status == CANCELLED:
        return BatchRow(custom_id, failure="cancelled")
    return BatchRow(custom_id, status, {"error": dict(error) | {"code": status}})
