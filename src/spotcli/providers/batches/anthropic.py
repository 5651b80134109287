"""Anthropic's Message Batches: https://docs.anthropic.com/en/api/creating-message-batches

litellm's calls only retrieve such a batch, so the requests are ours; addresses and keys are litellm's. A batch has no
name and no metadata: whether it is ours, only the ids in its results show.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from spotcli.errors import UserError
from spotcli.providers.batches.api import BatchGone, BatchRow, BatchState, Found, Limits, Sought, as_count
from spotcli.providers.batches.http import MOST_PAGES, BatchCalls, as_object, listed, objects_in, seconds_of
from spotcli.providers.replies import RequestFailed

MiB = 1 << 20
SKEW = 600.0
"""Seconds by which the provider's clock may differ from ours."""
LONGEST_CREATION = 3600.0
"""Seconds from the intent to create a batch to its creation, at most: the time-out of the request, and some."""
PAGE = 100

STATES = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "timeout_error": 504,
    "overloaded_error": 529,
}
"""Type of an error -> its HTTP state; 500 for others."""


class AnthropicBatches(BatchCalls):
    """The batch API of Anthropic."""

    limits = Limits(100_000, 256 * MiB - 4096)
    keys = ("ANTHROPIC",)
    loses_names = False

    @cached_property
    def _config(self) -> Any:
        from litellm.llms.anthropic.batches.transformation import AnthropicBatchesConfig

        return AnthropicBatchesConfig()  # type: ignore[no-untyped-call]

    @property
    def _url(self) -> str:
        return str(
            self._config.get_complete_batch_url(
                api_base=self.settings.base_url, api_key=None, model="", optional_params={}, litellm_params={}, data={}
            )
        )

    @property
    def _auth(self) -> dict[str, str]:
        try:
            headers: dict[str, str] = self._config.validate_environment(
                headers=self.headers,
                model="",
                messages=[],
                optional_params={},
                litellm_params={},
                api_base=self.settings.base_url,
            )
        except ValueError:
            key = "ANTHROPIC_API_KEY"
            raise UserError(f"'{self.model}' requires {key}", where="environment", cure=f"export {key}=...") from None
        return headers

    def line(self, custom_id: str, body: bytes) -> bytes:
        return b'{"custom_id": %s, "params": %s}' % (json.dumps(custom_id).encode(), body)

    async def upload(self, key: str, lines: Sequence[bytes]) -> str | None:
        return None

    async def create(self, key: str, file: str | None, lines: Sequence[bytes]) -> BatchState:
        body = b'{"requests": [%s]}' % b",\n".join(lines)
        return _state(await self.call(self._created(body)))

    async def _created(self, body: bytes) -> dict[str, Any]:
        return with_id(await self.send_json("POST", self._url, self._auth, body))

    async def find(self, sought: Sought) -> Found:
        possible = []
        for state in await self._listed(sought.at - SKEW):
            late = (state.created or 0.0) > sought.at + self.skew + LONGEST_CREATION + SKEW
            if state.total != sought.requests or state.id in sought.known or late:
                continue
            if state.status == "open":
                possible.append(state.id)
            elif await self._has_results_of(state, sought.key):
                return Found(state)
        return Found(None, possible)

    async def _has_results_of(self, state: BatchState, key: str) -> bool:
        try:
            rows = await self.rows(state, (), self.most_bytes([None] * state.total))
        except BatchGone:
            return False
        return any(row.custom_id.startswith(f"{key}-") for row in rows[:1])

    async def _listed(self, moment: float) -> list[BatchState]:
        """The batches that were created after a moment by our clock; the list begins with the newest."""
        states: list[BatchState] = []
        after: dict[str, Any] = {}
        for _ in range(MOST_PAGES):
            data, more = await self.call(self._page(after))
            since = moment + self.skew
            states += [state for state in data if (state.created or since) >= since]
            if not more or not data or (data[-1].created or since) < since:
                break
            after = {"after_id": data[-1].id}
        return states

    async def _page(self, after: dict[str, Any]) -> tuple[list[BatchState], bool]:
        """A page of the list of batches, and whether there are more."""
        page = await self.send_json("GET", self._url, self._auth, limit=PAGE, **after)
        return [_state(item) for item in listed(page.get("data"))], bool(page.get("has_more"))

    async def retrieve(self, batch: str, most_bytes: int) -> BatchState:
        url = self._config.get_retrieve_batch_url(self.settings.base_url, batch, {}, {})
        return _state(await self.call(self.send_json("GET", url, self._auth), of_batch=True))

    async def rows(self, state: BatchState, custom_ids: Sequence[str], most_bytes: int) -> list[BatchRow]:
        # `results_url` is not used: it comes from outside, and the key must not go to another host.
        url = self._config.get_retrieve_batch_url(self.settings.base_url, state.id, {}, {}) + "/results"
        content = await self.call(self.send("GET", url, self._auth, most_bytes=most_bytes), of_batch=True)
        rows = [_row(row) for row in objects_in(content)]
        if content and not rows:
            raise RequestFailed("unreadable", f"the results of {state.id} are no JSON lines", maybe_billed=True)
        return rows


def with_id(value: dict[str, Any], name: str = "id") -> dict[str, Any]:
    """A batch as it was created.

    Raises:
        ValueError: it has no id.
    """
    if not isinstance(value.get(name), str) or not value[name]:
        raise ValueError(f"the reply has no '{name}'")
    return value


def _state(value: dict[str, Any]) -> BatchState:
    counts = {name: as_count(count) for name, count in as_object(value.get("request_counts")).items()}
    return BatchState(
        id=str(value.get("id")),
        status="ended" if value.get("processing_status") == "ended" else "open",
        done=counts.get("succeeded", 0),
        failed=counts.get("errored", 0) + counts.get("canceled", 0) + counts.get("expired", 0),
        total=sum(counts.values()),
        created=seconds_of(value.get("created_at")),
        expires=seconds_of(value.get("expires_at")),
        cancelled=value.get("cancel_initiated_at") is not None,
    )


def _row(row: dict[str, Any]) -> BatchRow:
    custom_id, result = str(row.get("custom_id")), as_object(row.get("result"))
    kind = result.get("type")
    if kind == "succeeded":
        return BatchRow(custom_id, body=as_object(result.get("message")))
    if kind in ("expired", "canceled"):
        return BatchRow(custom_id, failure={"canceled": "cancelled"}.get(kind, kind))
    error = as_object(result.get("error"))
    error = error if "error" in error else {"type": "error", "error": error}
    return BatchRow(custom_id, STATES.get(str(as_object(error["error"]).get("type")), 500), error)
