"""A provider on 127.0.0.1 that speaks OpenAI's format or another one: real HTTP, scripted answers, scripted faults.

    with FakeProvider(answers={"row-3": [{"status": 429, "headers": {"retry-after": "1"}}, {"text": "hi"}]}) as server:
        server.base_url                      # give this to litellm
        server.requests                      # every request as it came
        server.billed_tokens                 # reply tokens of all answers, including those that no client waited for
    python tests/fake_provider.py --port 0 --script script.json --log requests.jsonl    # the same as a process

A request belongs to the first tag of the script that its messages contain. The n-th request of a tag gets the n-th
step, and the last step repeats. The keys of a step:

    correct   {old: new}: the student's answer with these replacements, between the tags that the request asked for
    text      the whole message; "{fence}" is replaced by the random part of the request's tags
    finish    finish_reason, "stop" when absent
    message   more fields of the message; ``choice``: more fields of its choice
    status    an HTTP error with ``body`` (an object or text) and ``headers``
    delay     seconds before the answer
    outcome   an outcome of ``wire_formats.OUTCOMES`` in place of a good reply
    reset     the connection is closed before the first byte
    half      the connection is closed in the middle of the body
    garbage   200 with a body that is not JSON, or with this text as its body
    usage     {"prompt_tokens": ..., "completion_tokens": ...}; by default four characters per token; False: no usage
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiohttp import web

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.wire_formats import FORMATS

FENCE = re.compile(r"<student-([0-9a-f]+)>\n(.*?)\n</student-\1>", re.DOTALL)
PROBLEM = re.compile(r"<problem-([0-9a-f]+)>\n(.*?)\n</problem-\1>", re.DOTALL)
REPLY = "completion_tokens"
USAGE = {
    "prompt_tokens": "prompt_tokens",
    "input_tokens": "prompt_tokens",
    "promptTokenCount": "prompt_tokens",
    "completion_tokens": REPLY,
    "output_tokens": REPLY,
    "candidatesTokenCount": REPLY,
    "total_tokens": "total_tokens",
    "totalTokenCount": "total_tokens",
}
"""The providers' names of token counts -> the names in a step."""
Step = dict[str, Any]


class FakeProvider:
    """The server, on its own thread; ``answers`` may be changed while it runs."""

    def __init__(
        self,
        answers: dict[str, list[Step]] | None = None,
        *,
        default: Step | None = None,
        key: str | None = None,
        log: Path | None = None,
        port: int = 0,
        wire: str = "openai",
    ) -> None:
        self.answers = answers or {}
        self.default = default or {"text": "I have no script for this."}
        self.key = key
        self.port = port
        self.format = FORMATS[wire]
        self.requests: list[dict[str, Any]] = []
        self.in_flight = 0
        self.most_in_flight = 0
        self.billed_tokens = 0
        self.bills: list[tuple[str, int]] = []
        """Tag and reply tokens of every answer that was sent whole."""
        self._log = log
        self._asked: Counter[str] = Counter()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._ready = threading.Event()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}{self.format.base}"

    def restart(self) -> None:
        """Forget all requests: every tag gets its first step again."""
        self.requests, self.bills, self.billed_tokens = [], [], 0
        self._asked.clear()

    def count(self, tag: str) -> int:
        """The number of requests with a tag."""
        return self._asked[tag]

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def _serve(self) -> None:
        self._loop.run_until_complete(self.run())
        self._loop.close()

    async def run(self) -> None:
        self._stop = asyncio.Event()
        app = web.Application(client_max_size=64 << 20)
        self.add_routes(app.router)
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", self.port)
        await site.start()
        self.port = runner.addresses[0][1]
        self._ready.set()
        await self._stop.wait()
        await runner.cleanup()

    def add_routes(self, router: web.UrlDispatcher) -> None:
        router.add_post("/{path:.*}", self._answer)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if self.format.path not in request.path:
            return web.json_response({"error": {"message": f"no such path {request.path}"}}, status=404)
        body = await request.json()
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            return await self._play(request, body)
        finally:
            self.in_flight -= 1

    async def _play(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        tag, step, prompt = self.next_step(body)
        fault = {name: value for name, value in step.items() if name in ("status", "reset", "half")}
        sent = {
            "tag": tag,
            "step": fault,
            "model": body.get("model"),
            "body": body,
            "authorization": request.headers.get("Authorization"),
        }
        self.requests.append(sent)
        if self._log:
            with self._log.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"tag": tag, **fault}) + "\n")
        if self.key and self.key not in keys_of(request):
            return web.json_response(
                {"error": {"message": "Incorrect API key provided.", "type": "invalid_request_error",
                           "code": "invalid_api_key"}},
                status=401,
            )  # fmt: skip
        await asyncio.sleep(step.get("delay", 0))
        if step.get("reset"):
            assert request.transport
            request.transport.abort()
            return web.Response()
        if "status" in step:
            content = step.get("body", {"error": {"message": "scripted failure", "type": "server_error"}})
            text = content if isinstance(content, str) else json.dumps(content)
            return web.Response(
                text=text, status=step["status"], headers=step.get("headers"), content_type="application/json"
            )
        if step.get("garbage"):
            self.billed_tokens += 1
            body_text = step["garbage"] if isinstance(step["garbage"], str) else "<html>not JSON</html>"
            return web.Response(text=body_text, content_type="application/json")
        status, answer, tokens = self.reply(body, step, prompt)
        self.billed_tokens += tokens
        payload = json.dumps(answer)
        if step.get("half"):
            response = web.StreamResponse(headers={"content-length": str(len(payload))})
            response.content_type = "application/json"
            await response.prepare(request)
            await response.write(payload[: len(payload) // 2].encode())
            assert request.transport
            request.transport.close()
            return response
        self.bills.append((tag, tokens))
        return web.Response(text=payload, status=status, content_type="application/json")

    def tag_of(self, body: dict[str, Any]) -> tuple[str, str]:
        """The tag of a request and its texts."""
        prompt = "\n".join(texts(body))
        return next((tag for tag in self.answers if tag in prompt), ""), prompt

    def next_step(self, body: dict[str, Any]) -> tuple[str, Step, str]:
        """The tag of a request, its next step, and its texts."""
        tag, prompt = self.tag_of(body)
        steps = self.answers.get(tag) or [self.default]
        step = steps[min(self._asked[tag], len(steps) - 1)]
        self._asked[tag] += 1
        return tag, step, prompt

    def reply(self, body: dict[str, Any], step: Step, prompt: str) -> tuple[int, dict[str, Any], int]:
        """Status, body and reply tokens of an answer."""
        answer = completion(body, step, prompt)
        usage, status = answer["usage"], 200
        tokens: int = usage["completion_tokens"]
        if self.format is not FORMATS["openai"] or "outcome" in step:
            text = answer["choices"][0]["message"]["content"] or ""
            native = self.format.replies(step.get("outcome", "good"), text)
            assert native is not None, step
            status, answer = native
            counts = answer.get("usage") or answer.get("usageMetadata") or {}
            counts |= {name: usage[field] for name, field in USAGE.items() if name in counts}
            # A blocked prompt has no reply.
            tokens = max(
                (counts[name] for name, field in USAGE.items() if name in counts and field == REPLY), default=0
            )
        if step.get("usage") is False:
            answer.pop("usage", None)
            answer.pop("usageMetadata", None)
        return status, answer, tokens


def texts(value: Any) -> Iterator[str]:
    """Every text in the body of a request, in any provider's format."""
    if isinstance(value, dict):
        for name, item in value.items():
            if name in ("text", "content") and isinstance(item, str):
                yield item
            else:
                yield from texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from texts(item)


def keys_of(request: web.Request) -> set[str]:
    """The keys that a request was sent with, in any provider's way."""
    names = ("Authorization", "x-api-key", "x-goog-api-key")
    sent = {request.headers.get(name, "").removeprefix("Bearer ") for name in names}
    return sent | {request.query.get("key", "")}


def completion(body: dict[str, Any], step: Step, prompt: str) -> dict[str, Any]:
    """The body of a successful answer."""
    match = FENCE.search(prompt) or PROBLEM.search(prompt)
    fence, student = match.groups() if match else ("", "")
    if "correct" in step:
        for old, new in step["correct"].items():
            student = student.replace(old, new)
        text: str | None = f"<answer-{fence}>\n{student}\n</answer-{fence}>"
    else:
        text = step.get("text")
        text = text.replace("{fence}", fence) if text else text
    usage = step.get("usage") or {"prompt_tokens": len(prompt) // 4, "completion_tokens": len(text or "") // 4}
    message = {"role": "assistant", "content": text} | step.get("message", {})
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": f"{body.get('model')}-as-served",
        "choices": [
            {"index": 0, "message": message, "finish_reason": step.get("finish", "stop")} | step.get("choice", {})
        ],
        "usage": usage | {"total_tokens": usage["prompt_tokens"] + usage["completion_tokens"]},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="a scripted provider; prints its base URL")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--script", type=Path, required=True, help='{"answers": {tag: [step, ...]}, "default": step}')
    parser.add_argument("--log", type=Path, help="one line per request")
    parser.add_argument("--key", help="the only accepted key")
    options = parser.parse_args()
    script = json.loads(options.script.read_text())
    provider = FakeProvider(
        script.get("answers"), default=script.get("default"), key=options.key, log=options.log, port=options.port
    )

    async def serve() -> None:
        running = asyncio.create_task(provider.run())
        while not provider._ready.is_set():
            await asyncio.sleep(0.01)
        print(provider.base_url, flush=True)
        await running

    asyncio.run(serve())


if __name__ == "__main__":
    main()
