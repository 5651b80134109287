"""The batch APIs of OpenAI (and Azure), Anthropic and Gemini on 127.0.0.1: real HTTP in the providers' own formats.

    with batch_server("anthropic", answers={"row-3": [{"text": "hi"}]}, key="sk-1") as server:
        server.base_url                 # the base URL of ordinary requests, which are answered too
        server.submitted                # every row of every batch that was created, in order
        server.unanswered               # tag -> how often a row of it was expired, failed, omitted or lost
        server.billed_tokens            # reply tokens of all answered rows, at the full price

The replies come from the steps of ``FakeProvider``: an answered row of a batch is one request of its tag. A step with
``status`` is an error of its row. The n-th created batch gets the n-th entry of ``batches``, later ones ``later``:

    latency   seconds until the batch ends, 0.05 when absent
    fail      the whole batch fails with this message (Anthropic, which has no such state: every row is errored)
    expire    the share of rows that are expired when the batch ends (Gemini: all, it has no partial results)
    error     the share of rows with an error of the provider
    omit      the share of rows that are in no result file
    vanish    the batch is in no list and its address is 404, after this many polls
    unlisted  seconds until the batch is in the list
    order     "reversed" or "shuffled" (python-genai issue 1909 reports it of Gemini too, which documents no such thing)
    empty ids   OpenAI: the id of a result file that does not exist is "" in place of null
    unlabelled  Gemini: the responses do not contain the metadata of their requests (python-genai issue 2008)
    no results  Gemini: succeeded for this many polls before the results are there

``faults`` are consumed one per call of a kind ("upload", "create", "poll", "list", "download", "cancel"):

    429       an HTTP error (any status) and no effect
    "reset"   the connection is closed and there is no effect
    "dropped" the call has its effect, and the connection is closed before the reply
    "half"    the call has its effect, and the connection is closed in the middle of the reply
    None      no fault

``hook`` is called with the kind of each call after its effect and before its reply, with "downloading" in the middle of
a download, and with "downloaded" after it: a test kills its client there. The state is in memory, so it outlives a
client.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.fake_provider import FakeProvider, Step, keys_of

Body = dict[str, Any]
BatchStep = dict[str, Any]
Act = Callable[[web.Request], Awaitable[web.Response]]
DAY = 86_400
NOT_ANSWERED = ("expired", "errored", "canceled", "omitted")


@dataclass
class Row:
    """A request of a batch and what became of it."""

    custom_id: str
    body: Body
    tag: str
    end: str = "succeeded"
    status: int = 200
    answer: Body = field(default_factory=dict)
    tokens: int = 0


@dataclass
class Batch:
    """A batch that was created; its rows are answered at once and shown when its latency is over."""

    number: int
    identity: str
    rows: list[Row]
    step: BatchStep
    extra: Body
    """What the format keeps with it, such as metadata."""
    created: float = field(default_factory=time.time)
    polls: int = 0
    cancelled: float = 0.0

    @property
    def latency(self) -> float:
        return float(self.step.get("latency", 0.05))

    @property
    def ended_at(self) -> float:
        return self.cancelled or self.created + self.latency

    @property
    def ended(self) -> bool:
        return time.time() >= self.ended_at

    @property
    def progress(self) -> float:
        return min(1.0, (time.time() - self.created) / max(self.latency, 1e-9))

    @property
    def expires_at(self) -> float:
        return self.ended_at if "expire" in self.step else self.created + DAY

    @property
    def vanished(self) -> bool:
        return "vanish" in self.step and self.polls > self.step["vanish"]

    def count(self, *ends: str) -> int:
        return sum(row.end in ends for row in self.rows)

    def ordered(self) -> list[Row]:
        """The rows in the order of the results, without the omitted ones."""
        rows = [row for row in self.rows if row.end != "omitted"]
        if self.step.get("order") == "shuffled":
            random.Random(self.number).shuffle(rows)
        return rows[::-1] if self.step.get("order") == "reversed" else rows


class BatchServer(FakeProvider):
    """What the batch APIs have in common; ordinary requests are answered as by ``FakeProvider``."""

    def __init__(
        self,
        answers: dict[str, list[Step]] | None = None,
        *,
        wire: str,
        default: Step | None = None,
        key: str | None = None,
        batches: list[BatchStep] | None = None,
        later: BatchStep | None = None,
    ) -> None:
        super().__init__(answers, default=default, key=key, wire=wire)
        self.steps = batches or []
        self.later = later or {}
        self.faults: dict[str, list[int | str | None]] = {}
        self.hook: Callable[[str], None] = lambda kind: None
        self.batches: dict[str, Batch] = {}
        self.files: dict[str, Body] = {}
        self.submitted: list[tuple[str, str, str]] = []
        """Batch, custom id and tag of every row."""
        self.unanswered: Counter[str] = Counter()
        self.calls: list[tuple[str, str]] = []
        """Kind and path of every call."""

    def submissions(self) -> Counter[str]:
        """Tag -> how many rows of batches and ordinary requests were submitted with it."""
        ordinary = Counter(request["tag"] for request in self.requests)
        return Counter(tag for _, _, tag in self.submitted) + ordinary

    def answered(self) -> Counter[str]:
        """Tag -> how many rows and ordinary requests were answered and billed."""
        return Counter(tag for tag, _ in self.bills)

    def call(self, kind: str, act: Act) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """A handler of a call, with the faults and the hook of its kind."""

        async def handler(request: web.Request) -> web.StreamResponse:
            self.calls.append((kind, request.path))
            denial = self.denial(request)
            if denial is not None:
                return denial
            faults = self.faults.get(kind)
            fault = faults.pop(0) if faults else None
            if isinstance(fault, int):
                await request.read()
                return self.error(fault, f"scripted failure; your key is {self.key}", {"retry-after": "0.05"})
            if fault == "reset":
                return self._abort(request)
            response = await act(request)
            self.hook(kind)
            if fault == "dropped":
                return self._abort(request)
            if (fault == "half" or kind == "download") and response.status == 200:
                return await self._halves(request, response, fault)
            return response

        return handler

    @staticmethod
    def _abort(request: web.Request) -> web.Response:
        if request.transport:
            request.transport.abort()
        return web.Response()

    async def _halves(self, request: web.Request, whole: web.Response, fault: object) -> web.StreamResponse:
        """Send the first half of a reply, call the hook, and send the rest."""
        payload = whole.body if isinstance(whole.body, bytes) else b""
        response = web.StreamResponse(headers={"content-length": str(len(payload))})
        response.content_type = whole.content_type
        await response.prepare(request)
        await response.write(payload[: len(payload) // 2])
        await asyncio.sleep(0.01)  # the first half arrives
        self.hook("downloading")
        if fault == "half":
            self._abort(request)
            return response
        await response.write(payload[len(payload) // 2 :])
        await response.write_eof()
        await asyncio.sleep(0.01)  # the second half arrives
        self.hook("downloaded")
        return response

    def denial(self, request: web.Request) -> web.Response | None:
        """The reply to a request without the key."""
        if self.key and self.key not in keys_of(request) | {request.headers.get("api-key", "")}:
            return self.error(401, "Incorrect API key provided.")
        return None

    def error(self, status: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
        """An error in the format of the provider."""
        raise NotImplementedError

    def new_batch(self, identity: str, requests: list[tuple[str, Body]], extra: Body) -> Batch:
        """Create a batch of (custom id, body), and answer its rows in the given order."""
        number = len(self.batches)
        step = self.steps[number] if number < len(self.steps) else self.later
        rows = [Row(custom_id, body, self.tag_of(body)[0]) for custom_id, body in requests]
        batch = Batch(number, identity.format(number=number + 1), rows, step, extra)
        chance = random.Random(number)
        whole = "fail" in step or "vanish" in step
        for row in rows:
            self.submitted.append((batch.identity, row.custom_id, row.tag))
            row.end = "errored" if whole else self._fate(step, chance)
            if row.end == "succeeded":
                self._answer_row(row)
            if row.end in NOT_ANSWERED:
                self.unanswered[row.tag] += 1
        self.batches[batch.identity] = batch
        return batch

    def _fate(self, step: BatchStep, chance: random.Random) -> str:
        expired, errored, omitted = step.get("expire", 0), step.get("error", 0), step.get("omit", 0)
        share = chance.random()
        if share < expired:
            return "expired"
        if share < expired + errored:
            return "errored"
        return "omitted" if share < expired + errored + omitted else "succeeded"

    def _answer_row(self, row: Row) -> None:
        _, step, prompt = self.next_step(row.body)
        if "status" in step:
            row.end, row.status = "errored", step["status"]
            return
        if step.get("garbage"):
            row.answer, row.tokens = {}, 1
        else:
            row.status, row.answer, row.tokens = self.reply(row.body, step, prompt)
        if row.status != 200:
            row.end = "blocked"
        self.billed_tokens += row.tokens
        self.bills.append((row.tag, row.tokens))

    def find(self, identity: str) -> Batch | None:
        """A batch that has not vanished, seen once more."""
        batch = self.batches.get(identity)
        if batch is None:
            return None
        batch.polls += 1
        return None if batch.vanished else batch

    def listed(self) -> list[Batch]:
        """The batches, newest first, without those that vanish or are not listed yet."""
        now = time.time()
        listed = [batch for batch in reversed(self.batches.values()) if "vanish" not in batch.step]
        return [batch for batch in listed if now >= batch.created + batch.step.get("unlisted", 0.0)]

    def cancel(self, batch: Batch) -> None:
        """End a batch now, without a reply to any of its rows; one that has ended stays as it is."""
        if not batch.ended:
            batch.cancelled = time.time()
            for row in batch.rows:
                self._take_back(row)

    def _take_back(self, row: Row) -> None:
        if row.end not in NOT_ANSWERED:
            self.billed_tokens -= row.tokens
            self.bills.remove((row.tag, row.tokens))
            self._asked[row.tag] -= 1
            self.unanswered[row.tag] += 1
        row.end = "canceled"


def page(items: list[Body], after: str | None, limit: int) -> tuple[list[Body], bool]:
    """Items after the one with an id, at most ``limit``; whether there are more."""
    names = [item["id"] for item in items]
    start = names.index(after) + 1 if after in names else 0
    return items[start : start + limit], start + limit < len(items)


def json_lines(content: bytes) -> list[Body]:
    """The objects of a JSONL file."""
    return [json.loads(line) for line in content.splitlines() if line.strip()]


def batch_server(wire: str, answers: dict[str, list[Step]] | None = None, **options: Any) -> BatchServer:
    """A server of a provider's batch API: "openai", "azure", "anthropic" or "gemini"."""
    from tests.batch_formats import AnthropicBatches, OpenAIBatches
    from tests.gemini_batches import GeminiBatches

    servers = {"anthropic": AnthropicBatches, "gemini": GeminiBatches}
    server = servers.get(wire, OpenAIBatches)
    return server(answers, wire=wire, **options)
