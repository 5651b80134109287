"""A local server that replies in the native wire formats of the providers, one scripted outcome for all requests.

    with WireServer("anthropic", "good", text="hello") as server:
        server.base_url                     # give this to litellm
        server.requests                     # path and body of every request

The bodies follow the providers' published API references. ``OUTCOMES`` says what each outcome means; a format that
cannot express an outcome leaves it out of ``outcomes(name)``.
"""

from __future__ import annotations

import json
import os
import ssl
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

OUTCOMES = {
    "good": "a complete reply",
    "refused": "the model refuses",
    "filtered": "the provider filters the reply",
    "blocked": "the provider blocks the prompt",
    "truncated": "the reply reaches the token limit",
    "empty": "a complete reply without text",
    "reasoning": "reasoning text and no answer",
    "error": "an error in place of a finished reply",
    "unknown": "a finish reason that no documentation names",
    "no usage": "a complete reply without token counts",
    "no choices": "a reply without any choice",
    "two choices": "two complete choices, although one was requested",
}
Body = dict[str, Any]


@dataclass(frozen=True)
class Format:
    """How one provider is reached and how it replies."""

    model: str
    """The model by litellm's name."""
    path: str
    """What the path of a request contains."""
    replies: Callable[[str, str], tuple[int, Body] | None]
    """(outcome, text) -> status and body; None where the format cannot express the outcome."""
    base: str = ""
    """Appended to the server's address."""
    environment: dict[str, str] = field(default_factory=dict)
    """What litellm reads from the environment."""
    service_account: bool = False
    """The provider exchanges a service account's signed request for a token; the server plays both parts."""


def openai(outcome: str, text: str) -> tuple[int, Body] | None:
    message: Body = {"role": "assistant", "content": text, "refusal": None}
    choice: Body = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    usage = {"prompt_tokens": 40, "completion_tokens": 20, "total_tokens": 60}
    body: Body = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "served",
        "choices": [choice],
        "usage": usage,
    }
    match outcome:
        case "refused":
            message |= {"content": None, "refusal": "I can't help with that."}
        case "filtered":
            message["content"] = text[:4]
            choice["finish_reason"] = "content_filter"
        case "blocked":
            error = {"message": "The response was filtered due to the prompt triggering the content management policy.",
                     "type": None, "param": "prompt", "code": "content_filter", "status": 400}  # fmt: skip
            return 400, {"error": error}
        case "truncated":
            message["content"] = text[:4]
            choice["finish_reason"] = "length"
        case "empty":
            message["content"] = ""
        case "reasoning":
            message |= {"content": None, "reasoning_content": "Let me think."}
        case "error":
            message["content"] = text[:4]
            choice["finish_reason"] = "error"
        case "unknown":
            message["content"] = text[:4]
            choice["finish_reason"] = "repetition"
        case "no usage":
            del body["usage"]
        case "no choices":
            body["choices"] = []
        case "two choices":
            body["choices"] = [choice, {**choice, "index": 1, "message": {**message, "content": "other"}}]
    return 200, body


def openrouter(outcome: str, text: str) -> tuple[int, Body] | None:
    reply = openai(outcome, text)
    assert reply is not None
    status, body = reply
    if outcome == "error":
        # An upstream provider failed after the stream began: the error stands inside the choice.
        body["choices"][0]["error"] = {"code": 502, "message": "Upstream error", "metadata": {"provider_name": "P"}}
    if outcome == "blocked":
        status, body = 403, {"error": {"code": 403, "message": "Your chosen model requires moderation",
                                       "metadata": {"reasons": ["violence"], "flagged_input": "..."}}}  # fmt: skip
    if outcome == "reasoning":
        message = body["choices"][0]["message"]
        message["reasoning"] = message.pop("reasoning_content")
    return status, body


def anthropic(outcome: str, text: str) -> tuple[int, Body] | None:
    body: Body = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-served",
        "content": [{"type": "text", "text": text}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 40, "output_tokens": 20},
    }
    match outcome:
        case "refused":
            body |= {"content": [], "stop_reason": "refusal"}
        case "filtered" | "two choices":
            return None
        case "blocked":
            error = {"type": "invalid_request_error", "message": "Output blocked by content filtering policy"}
            return 400, {"type": "error", "error": error}
        case "truncated":
            body |= {"content": [{"type": "text", "text": text[:4]}], "stop_reason": "max_tokens"}
        case "empty" | "no choices":
            body["content"] = []
        case "reasoning":
            body["content"] = [{"type": "thinking", "thinking": "Let me think.", "signature": "c2ln"}]
        case "error":
            return 529, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
        case "unknown":
            body["stop_reason"] = "repetition"
        case "no usage":
            del body["usage"]
    return 200, body


def gemini(outcome: str, text: str) -> tuple[int, Body] | None:
    candidate: Body = {"content": {"role": "model", "parts": [{"text": text}]}, "finishReason": "STOP", "index": 0}
    usage = {"promptTokenCount": 40, "candidatesTokenCount": 20, "totalTokenCount": 60}
    body: Body = {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "gemini-served"}
    match outcome:
        case "refused":
            return None
        case "filtered":
            body["candidates"] = [{"finishReason": "SAFETY", "index": 0}]
        case "blocked":
            body = {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"},
                    "usageMetadata": {"promptTokenCount": 40, "totalTokenCount": 40}}  # fmt: skip
        case "truncated":
            candidate |= {"content": {"role": "model", "parts": [{"text": text[:4]}]}, "finishReason": "MAX_TOKENS"}
        case "empty":
            candidate["content"] = {"role": "model"}
        case "reasoning":
            candidate["content"]["parts"] = [{"text": "Let me think.", "thought": True}]
        case "error":
            return 503, {"error": {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}}
        case "unknown":
            candidate |= {"content": {"role": "model", "parts": [{"text": text[:4]}]}, "finishReason": "REPETITION"}
        case "no usage":
            del body["usageMetadata"]
        case "no choices":
            body["candidates"] = []
        case "two choices":
            body["candidates"] = [candidate, {**candidate, "index": 1}]
    return 200, body


def bedrock(outcome: str, text: str) -> tuple[int, Body] | None:
    message: Body = {"role": "assistant", "content": [{"text": text}]}
    body: Body = {
        "output": {"message": message},
        "stopReason": "end_turn",
        "usage": {"inputTokens": 40, "outputTokens": 20, "totalTokens": 60},
        "metrics": {"latencyMs": 5},
    }
    match outcome:
        case "refused" | "two choices" | "no choices":
            return None
        case "filtered":
            message["content"] = [{"text": text[:4]}]
            body["stopReason"] = "content_filtered"
        case "blocked":
            message["content"] = [{"text": "Sorry, the guardrail blocked this."}]
            body["stopReason"] = "guardrail_intervened"
        case "truncated":
            message["content"] = [{"text": text[:4]}]
            body["stopReason"] = "max_tokens"
        case "empty":
            message["content"] = []
        case "reasoning":
            message["content"] = [{"reasoningContent": {"reasoningText": {"text": "Let me think."}}}]
        case "error":
            return 503, {"message": "Bedrock is unable to process your request."}
        case "unknown":
            message["content"] = [{"text": text[:4]}]
            body["stopReason"] = "repetition"
        case "no usage":
            del body["usage"]
    return 200, body


def ollama_chat(outcome: str, text: str) -> tuple[int, Body] | None:
    message: Body = {"role": "assistant", "content": text}
    body: Body = {
        "model": "llama3",
        "created_at": "2026-01-01T00:00:00Z",
        "message": message,
        "done": True,
        "done_reason": "stop",
        "prompt_eval_count": 40,
        "eval_count": 20,
    }
    match outcome:
        case "refused" | "filtered" | "blocked" | "two choices" | "no choices":
            return None
        case "truncated":
            message["content"] = text[:4]
            body["done_reason"] = "length"
        case "empty":
            message["content"] = ""
        case "reasoning":
            message |= {"content": "", "thinking": "Let me think."}
        case "error":
            return 500, {"error": "llama runner process has terminated"}
        case "unknown":
            message["content"] = text[:4]
            body["done_reason"] = "load"
        case "no usage":
            del body["prompt_eval_count"], body["eval_count"]
    return 200, body


def ollama_generate(outcome: str, text: str) -> tuple[int, Body] | None:
    reply = ollama_chat(outcome, text)
    if reply is None:
        return None
    status, body = reply
    message = body.pop("message", None)
    if message is not None:
        body["response"] = message["content"]
        if "thinking" in message:
            body["thinking"] = message["thinking"]
    return status, body


FORMATS = {
    "openai": Format("openai/gpt-4o", "/chat/completions", openai, "/v1", {"OPENAI_API_KEY": "sk-test-12345678"}),
    "azure": Format(
        "azure/deployment",
        "/chat/completions",
        openai,
        environment={"AZURE_API_KEY": "az-test-12345678", "AZURE_API_VERSION": "2024-10-21"},
    ),
    "openrouter": Format(
        "openrouter/google/gemini-2.5-pro",
        "/chat/completions",
        openrouter,
        "/v1",
        {"OPENROUTER_API_KEY": "sk-or-12345678"},
    ),
    "vllm": Format("hosted_vllm/model", "/chat/completions", openai, "/v1"),
    "anthropic": Format(
        "anthropic/claude-sonnet-4-5", "/messages", anthropic, environment={"ANTHROPIC_API_KEY": "sk-ant-12345678"}
    ),
    "gemini": Format(
        "gemini/gemini-2.5-pro", "enerateContent", gemini, environment={"GEMINI_API_KEY": "AIzaTest12345678"}
    ),
    "vertex_ai": Format(
        "vertex_ai/gemini-2.5-pro",
        "/publishers/google/models/gemini-2.5-pro:generateContent",
        gemini,
        environment={"VERTEXAI_PROJECT": "project", "VERTEXAI_LOCATION": "us-central1"},
        service_account=True,
    ),
    "bedrock": Format(
        "bedrock/anthropic.claude-3-5-sonnet-20240620-v1:0",
        "/converse",
        bedrock,
        environment={
            "AWS_ACCESS_KEY_ID": "AKIATEST1234567890AB",
            "AWS_SECRET_ACCESS_KEY": "test" * 10,
            "AWS_REGION_NAME": "us-east-1",
        },
    ),
    "ollama": Format("ollama/llama3", "/api/generate", ollama_generate),
    "ollama_chat": Format("ollama_chat/llama3", "/api/chat", ollama_chat),
}


CREDENTIALS = "GOOGLE_APPLICATION_CREDENTIALS"
TOKEN_PATH = "/token"
TOKEN = "ya29.made-up-token-0123456789"


@cache
def private_key() -> str:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()


def service_account(token_uri: str) -> Body:
    """The key file of a made-up service account of Google Cloud."""
    return {
        "type": "service_account",
        "project_id": "project",
        "private_key_id": "1",
        "private_key": private_key(),
        "client_email": "spot@project.iam.gserviceaccount.com",
        "client_id": "1",
        "token_uri": token_uri,
    }


def outcomes(name: str) -> list[str]:
    """The outcomes that a format can express."""
    return [outcome for outcome in OUTCOMES if FORMATS[name].replies(outcome, "text") is not None]


class WireServer:
    """Replies to every request of one provider with one outcome."""

    def __init__(
        self, name: str, outcome: str, text: str | Callable[[Body], str] = "hello", tls: ssl.SSLContext | None = None
    ) -> None:
        self.format = FORMATS[name]
        self.outcome = outcome
        self.requests: list[tuple[str, Body]] = []
        self._replies = self.format.replies
        wire = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers.get("content-length") or 0))
                if self.path == TOKEN_PATH:
                    self._reply(200, {"access_token": TOKEN, "expires_in": 3600, "token_type": "Bearer"})
                    return
                if wire.format.service_account and self.headers.get("authorization") != f"Bearer {TOKEN}":
                    self._reply(401, {"error": {"code": 401, "message": "no token", "status": "UNAUTHENTICATED"}})
                    return
                sent = json.loads(content or b"{}")
                wire.requests.append((self.path, sent))
                status, body = 404, {"error": {"message": f"no such path {self.path}"}}
                if wire.format.path in self.path:
                    reply = wire._replies(wire.outcome, text if isinstance(text, str) else text(sent))
                    assert reply is not None
                    status, body = reply
                self._reply(status, body)

            def _reply(self, status: int, body: Body) -> None:
                payload = body.encode() if isinstance(body, str) else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._scheme = "https" if tls else "http"
        if tls:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        # The interval bounds how long a shutdown waits.
        serve = partial(self._server.serve_forever, poll_interval=0.01)
        self._thread = threading.Thread(target=serve, daemon=True)

    def reply_with(self, replies: Callable[[str, str], tuple[int, Body] | None]) -> None:
        """Reply in another way than the format's."""
        self._replies = replies

    @property
    def base_url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self._server.server_port}{self.format.base}"

    def __enter__(self) -> Self:
        self._thread.start()
        if self.format.service_account:
            self._folder = tempfile.TemporaryDirectory()
            file = Path(self._folder.name) / "account.json"
            file.write_text(json.dumps(service_account(f"{self.base_url}{TOKEN_PATH}")))
            self._before = os.environ.get(CREDENTIALS)
            os.environ[CREDENTIALS] = str(file)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)
        if self.format.service_account:
            self._folder.cleanup()
            os.environ.pop(CREDENTIALS)
            if self._before is not None:
                os.environ[CREDENTIALS] = self._before
