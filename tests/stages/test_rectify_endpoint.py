"""The policy continues its answers at an endpoint: a real HTTP server in the format of ``/v1/completions``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from spotcli.errors import Unfinished, UserError
from spotcli.policies.models import load_tokenizer
from spotcli.providers import limiter as limits
from spotcli.recipe_yaml import load
from spotcli.stages.rectify import RectifySummary, rectify
from tests.conftest import write_rows
from tests.wire_formats import Body, Format, WireServer

WRONG = "12 + 30 = 43\n43 - 7 = 36\n\\boxed{36}"
RIGHT = "12 + 30 = 42\n42 - 7 = 35\n\\boxed{35}"
REJECTED = "rejected"


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(limits, "FIRST_PAUSE", 0.01)


def completion(outcome: str, text: str) -> tuple[int, Body]:
    """vLLM's body of a completion."""
    if text == REJECTED:
        return 400, {"error": {"message": "prompt must be a string", "type": "BadRequestError", "code": 400}}
    choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": "stop", "stop_reason": None}
    usage = {"prompt_tokens": 40, "completion_tokens": len(text), "total_tokens": 40 + len(text)}
    return 200, {
        "id": "cmpl-1",
        "object": "text_completion",
        "created": 1_700_000_000,
        "model": "m",
        "choices": [choice],
        "usage": usage,
    }


@contextmanager
def completions(model: Path, *, takes_ids: bool = True, path: str = "/v1/completions") -> Iterator[WireServer]:
    """A server of the policy, which is right from the first step on."""
    tokenizer: Any = load_tokenizer(str(model))

    def text(body: Body) -> str:
        prompt = body.get("prompt")
        if isinstance(prompt, list):
            if not takes_ids:
                return REJECTED
            prompt = tokenizer.decode(prompt)
        start = str(prompt).rpartition("assistant\n")[2]
        return WRONG[len(start) :] if start else RIGHT

    with WireServer("vllm", "good", text) as server:
        server.format = Format("hosted_vllm/m", path, completion, "/v1")
        server.reply_with(completion)
        yield server


def samples(folder: Path, server: WireServer, model: str = "m") -> None:
    row = {"id": "a", "prompt": "12 + 30 - 7", "answer": "35", "response": WRONG}
    rows = [row | {"id": f"p{number}", "verdict": "wrong", "finish_reason": "stop"} for number in range(2)]
    write_rows(folder / "samples.jsonl", rows)
    meta = {"settings": {"model": model}, "engine": {"name": "api", "base_url": server.base_url}}
    (folder / "samples.meta.json").write_text(json.dumps(meta))


def ask(folder: Path, model: Path, *overrides: str, oracle: str = "policy") -> RectifySummary:
    keys = {"rectify.oracle": oracle, "rectify.tokenizer": str(model), "rectify.policy.continuations": 2}
    keys["rectify.policy.search"] = "sweep"
    return rectify(load(None, ["rectify.policy.retries=0", *overrides], keys), folder=folder)


def written(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "data.replies.jsonl").read_text().splitlines()]


def prompts(server: WireServer) -> list[Any]:
    """Of the requests after the trial."""
    return [body["prompt"] for _, body in server.requests if body["max_tokens"] > 1]


def test_the_endpoint_gets_token_ids(tiny_model: Path, tmp_path: Path) -> None:
    with completions(tiny_model) as server:
        samples(tmp_path, server)
        summary = ask(tmp_path, tiny_model, "rectify.policy.top_k=5")
    assert (summary.pairs, summary.cost) == (2, 0.0)
    tokenizer: Any = load_tokenizer(str(tiny_model))
    decoded = sorted({tokenizer.decode(prompt) for prompt in prompts(server)}, key=len)
    chat = "<|im_start|>user\n12 + 30 - 7<|im_end|>\n<|im_start|>assistant\n"
    assert decoded == [chat, f"{chat}12 + 30 = 43\n", f"{chat}12 + 30 = 43\n43 - 7 = 36\n"]
    assert len(prompts(server)) == 2 * 2 * 3
    bodies = [body for _, body in server.requests if body["max_tokens"] > 1]
    assert {(body["model"], body["temperature"], body["top_p"], body["top_k"]) for body in bodies} == {
        ("m", 1.0, 1.0, 5)
    }
    assert len({body["seed"] for body in bodies}) == len(bodies)
    entry = written(tmp_path)[0]
    assert entry["sent"] == {"temperature": 1.0, "top_p": 1.0, "top_k": 5, "seed": entry["seed"], "prompt": "token ids"}
    row = json.loads((tmp_path / "data.jsonl").read_text().splitlines()[0])
    assert (row["chosen"], row["oracle"]["cut"]["step"], row["oracle"]["model"]) == (RIGHT, 1, "m")


def test_an_endpoint_without_token_ids_gets_the_text(tiny_model: Path, tmp_path: Path) -> None:
    with completions(tiny_model, takes_ids=False) as server:
        samples(tmp_path, server)
        assert ask(tmp_path, tiny_model).pairs == 2
    assert all(prompt.startswith("<|im_start|>user\n12 + 30 - 7<|im_end|>\n") for prompt in prompts(server))
    assert {entry["sent"]["prompt"] for entry in written(tmp_path)} == {"text"}


def test_an_endpoint_with_chats_only_is_named_before_anything_starts(tiny_model: Path, tmp_path: Path) -> None:
    with completions(tiny_model, path="/v1/chat/completions") as server:
        samples(tmp_path, server)
        with pytest.raises(UserError, match="cannot continue an answer") as caught:
            ask(tmp_path, tiny_model)
    assert "policy-prompted" in str(caught.value.cure)
    assert "\n" not in caught.value.message
    assert {path.name for path in tmp_path.iterdir()} == {"samples.jsonl", "samples.meta.json"}


def test_a_provider_with_chats_only_is_not_asked(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-12345678")
    with completions(tiny_model) as server:
        samples(tmp_path, server, "anthropic/claude-sonnet-4-5")
        with pytest.raises(UserError, match="has only chats"):
            ask(tmp_path, tiny_model)
    assert server.requests == []


def test_an_endpoint_that_is_down_is_tried_later(tiny_model: Path, tmp_path: Path) -> None:
    with completions(tiny_model) as server:
        samples(tmp_path, server)
    with pytest.raises(Unfinished, match="the endpoint cannot be asked"):
        ask(tmp_path, tiny_model)
    with completions(tiny_model) as server:
        assert ask(tmp_path, tiny_model, f"rectify.policy.base_url={server.base_url}").pairs == 2


def test_the_tokenizer_of_an_endpoint_must_be_known(tiny_model: Path, tmp_path: Path) -> None:
    with completions(tiny_model) as server:
        samples(tmp_path, server, "./nothing")
        with pytest.raises(UserError, match="requires the policy's tokenizer") as caught:
            rectify(load(None, [], {"rectify.oracle": "policy"}), folder=tmp_path)
    assert "--tokenizer" in str(caught.value.cure)


def test_an_endpoint_with_chats_only_can_be_prompted(tiny_model: Path, tmp_path: Path) -> None:
    def text(body: Body) -> str:
        fence = body["messages"][1]["content"].partition("<student-")[2].partition(">")[0]
        return f"<answer-{fence}>\n{RIGHT}\n</answer-{fence}>"

    with WireServer("vllm", "good", text) as server:
        samples(tmp_path, server)
        assert ask(tmp_path, tiny_model, oracle="policy-prompted").pairs == 2
    assert {path for path, _ in server.requests} == {"/v1/chat/completions"}
