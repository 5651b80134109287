"""The api policy against a real HTTP server."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from spotcli.errors import RecipeError, Unfinished, UserError
from spotcli.policies import Answer, Failure, Request, Sampling
from spotcli.policies.api import HOPELESS, TOOLS_NOT_SENT, ApiPolicy
from spotcli.providers import limiter
from spotcli.recipe import SampleSection
from spotcli.recipe_yaml import load
from spotcli.stages.sample import sample
from tests.conftest import write_rows
from tests.fake_provider import FakeProvider, Step

KEY = "sk-test-0123456789abcdef"


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(limiter, "FIRST_PAUSE", 0.02)


def requests(number: int) -> Iterator[Request]:
    for index in range(number):
        yield Request((f"r{index}", 0), [{"role": "user", "content": f"row-{index:03d}: how much?"}], seed=1000 + index)


def policy(provider: FakeProvider, model: str = "mine", sampling: Sampling | None = None, **keys: Any) -> ApiPolicy:
    return ApiPolicy(model, sampling or Sampling(100), SampleSection(base_url=provider.base_url, **keys))


def ask(policy: ApiPolicy, number: int = 1) -> list[Answer | Failure]:
    """The answers and failures, in the order of the requests."""
    try:
        groups = policy.answers(requests(number), number, lambda request: False)
        received = {item.request.key: item for group in groups for item in group}
    finally:
        policy.close()
    assert len(received) == number
    return [received[request.key] for request in requests(number)]


def one(step: Step, **keys: Any) -> Answer | Failure:
    with FakeProvider(default=step) as provider:
        return ask(policy(provider, retries=0, **keys))[0]


def test_every_parameter_reaches_the_endpoint() -> None:
    with FakeProvider(default={"text": "4", "choice": {"token_ids": [7, 8, 2]}}) as provider:
        sampling = Sampling(77, temperature=0.3, top_p=0.9, top_k=20)
        keys: dict[str, Any] = {"thinking": "off", "chat_template_kwargs": {"tools": []}, "keep_tokens": True}
        (answer,) = ask(policy(provider, sampling=sampling, params={"presence_penalty": 1.5}, **keys))
    body = provider.requests[0]["body"]
    assert body["model"] == "mine"
    assert body["messages"] == [{"role": "user", "content": "row-000: how much?"}]
    assert (body["temperature"], body["top_p"], body["top_k"], body["max_tokens"]) == (0.3, 0.9, 20, 77)
    assert (body["seed"], body["presence_penalty"]) == (1000, 1.5)
    # Templates use one of the two names of the switch, and ignore the other.
    assert body["chat_template_kwargs"] == {"enable_thinking": False, "thinking": False, "tools": []}
    assert body["return_token_ids"] is True
    assert isinstance(answer, Answer)
    assert answer.token_ids == [7, 8, 2]


def test_only_what_is_set_is_sent() -> None:
    with FakeProvider(default={"text": "4"}) as provider:
        ask(policy(provider))
    body = provider.requests[0]["body"]
    assert not {"top_k", "chat_template_kwargs", "return_token_ids"} & body.keys()


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 429, "headers": {"retry-after": "0.3"}},
        {"status": 429},
        {"status": 500},
        {"status": 503, "body": "<html>overloaded</html>"},
        {"reset": True},
        {"half": True},
        {"garbage": True},
    ],
)
def test_a_temporary_failure_is_retried(fault: Step, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limiter, "JITTER", 0.0)
    good = {"text": "4", "usage": {"prompt_tokens": 9, "completion_tokens": 3}}
    with FakeProvider({f"row-{index:03d}": [fault, good] for index in range(5)}) as provider:
        started = time.monotonic()
        answers = ask(policy(provider), 5)
    assert [(answer.response, answer.tokens) for answer in answers if isinstance(answer, Answer)] == [("4", 3)] * 5
    assert len(provider.requests) == 10
    assert "retry-after" not in fault.get("headers", {}) or time.monotonic() - started >= 0.3


def test_slow_answers_arrive_together() -> None:
    with FakeProvider(default={"text": "4", "delay": 0.5}) as provider:
        started = time.monotonic()
        ask(policy(provider, concurrency=20), 20)
    # In sequence they would take 10 s.
    assert provider.most_in_flight == 20
    assert time.monotonic() - started < 8


def test_an_answer_at_the_limit_is_truncated_and_so_is_one_that_filled_the_context() -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 100}
    answer = one({"text": "4 +", "finish": "length", "usage": usage})
    assert isinstance(answer, Answer)
    assert (answer.finish_reason, answer.max_new_tokens) == ("length", 100)
    answer = one({"text": "4 +", "finish": "length", "usage": usage | {"completion_tokens": 40}})
    assert isinstance(answer, Answer)
    assert (answer.finish_reason, answer.max_new_tokens, answer.tokens) == ("length", 40, 40)


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        ({"text": "", "finish": "content_filter"}, "filtered"),
        ({"status": 400, "body": {"error": {"message": "maximum context length is 4096"}}}, "too long for the model"),
        ({"status": 400, "body": {"error": {"message": "no such thing"}}}, "bad request"),
        ({"status": 500}, "server"),
        ({"reset": True}, "connection"),
        ({"text": "late", "delay": 5}, "time-out"),
    ],
)
def test_a_request_without_an_answer_is_a_failure_with_its_reason(step: Step, reason: str) -> None:
    received = one(step, timeout=1)
    assert isinstance(received, Failure)
    assert received.reason == reason


@pytest.mark.parametrize(
    ("step", "message", "cure"),
    [
        ({"status": 401, "body": {"error": {"message": f"bad key {KEY}"}}}, "rejected the key", "check the key"),
        ({"status": 404, "body": {"error": {"message": "no such model"}}}, "unknown model", "base-url"),
        ({"status": 429, "body": {"error": {"message": "insufficient_quota"}}}, "quota is exhausted", "add credit"),
    ],
)
def test_a_permanent_error_stops_at_once(step: Step, message: str, cure: str) -> None:
    with FakeProvider({"row-005": [step]}, default={"text": "4"}) as provider:
        api = policy(provider, concurrency=2)
        received: list[Answer | Failure] = []
        with pytest.raises(UserError, match=message) as caught:
            received.extend(item for group in api.answers(requests(500), 500, lambda request: False) for item in group)
        api.close()
    assert cure in str(caught.value.cure)
    assert KEY not in str(caught.value)
    # The five before it, and those in flight with it.
    assert {f"r{index}" for index in range(5)} <= {item.request.key[0] for item in received}
    assert len(provider.requests) <= 5 + 1 + 2


def test_only_the_fields_of_a_message_that_endpoints_know_are_sent() -> None:
    known = {"role": "assistant", "content": "", "tool_calls": [{"id": "1", "type": "function"}]}
    with FakeProvider(default={"text": "4"}) as provider:
        asking = policy(provider)
        message: Any = {**known, "weight": 1, "notes": {"source": "x"}}
        request = replace(next(requests(1)), messages=[message])
        assert len([item for group in asking.answers([request], 1, lambda request: False) for item in group]) == 1
        asking.close()
    assert provider.requests[0]["body"]["messages"] == [known]


def test_a_prompt_with_tools_is_a_failure_and_is_not_sent() -> None:
    with FakeProvider(default={"text": "4"}) as provider:
        asking = policy(provider)
        request = replace(next(requests(1)), tools=[{"name": "add"}])
        (failure,) = [item for group in asking.answers([request], 1, lambda request: False) for item in group]
        asking.close()
    assert isinstance(failure, Failure)
    assert failure.reason == TOOLS_NOT_SENT
    assert provider.requests == []


def test_an_endpoint_that_always_fails_is_given_up_and_answers_in_flight_are_kept() -> None:
    slow: Step = {"text": "4", "delay": 1.5}
    with FakeProvider({"row-000": [slow]}, default={"status": 500}) as provider:
        api = policy(provider, concurrency=4, retries=1)
        received: list[Answer | Failure] = []
        with pytest.raises(Unfinished, match=f"{HOPELESS} requests in a row failed") as caught:
            received.extend(item for group in api.answers(requests(500), 500, lambda request: False) for item in group)
        api.close()
    assert caught.value.exit_code == 3
    assert [item.request.key[0] for item in received if isinstance(item, Answer)] == ["r0"]
    assert HOPELESS <= len(received) - 1 <= HOPELESS + 4


def test_stopping_waits_for_requests_in_flight_and_sends_no_more() -> None:
    with FakeProvider(default={"text": "4", "delay": 0.5}) as provider:
        api = policy(provider, concurrency=3)
        groups = api.answers(requests(500), 500, lambda request: False)
        received = next(groups)
        api.stop()
        received += [item for group in groups for item in group]
        api.close()
    assert len(received) == len(provider.requests) <= 9


def test_stopping_ends_the_pause_before_a_retry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limiter, "FIRST_PAUSE", 60.0)
    with FakeProvider(default={"status": 500}) as provider:
        api = policy(provider, concurrency=3)
        started = time.monotonic()
        threading.Timer(1, api.stop).start()
        assert [item for group in api.answers(requests(9), 9, lambda request: False) for item in group] == []
        api.close()
    assert time.monotonic() - started < 30


def test_closing_drops_requests_in_flight() -> None:
    with FakeProvider({"row-000": [{"text": "4"}]}, default={"text": "4", "delay": 60}) as provider:
        api = policy(provider, concurrency=3)
        next(api.answers(requests(9), 9, lambda request: False))
        started = time.monotonic()
        api.close()
    assert time.monotonic() - started < 10


def test_an_error_in_the_stream_of_requests_is_raised() -> None:
    def broken() -> Iterator[Request]:
        yield from requests(3)
        raise ValueError("a bug")

    with FakeProvider(default={"text": "4"}) as provider:
        api = policy(provider)
        with pytest.raises(ValueError, match="a bug"):
            list(api.answers(broken(), 50, lambda request: False))
        api.close()


def test_missing_tokens_are_the_users_error() -> None:
    with pytest.raises(UserError, match="does not return the tokens") as caught:
        one({"text": "4"}, keep_tokens=True)
    assert caught.value.cure


def test_a_reserved_parameter_is_rejected() -> None:
    with pytest.raises(RecipeError, match=r"sample\.params: 'max_tokens' cannot be set here"):
        ApiPolicy("mine", Sampling(10), SampleSection(params={"max_tokens": 3}))


def test_costs_are_kept_and_no_file_contains_the_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(
        tmp_path / "problems.jsonl",
        [{"id": f"p{index}", "prompt": f"row-{index}?", "answer": "4"} for index in range(4)],
    )
    usage = {"prompt_tokens": 1000, "completion_tokens": 200}
    good: Step = {"text": "\\boxed{4}", "usage": usage}
    leaky: Step = {"status": 500, "body": {"error": {"message": f"your key is {KEY}"}}}
    answers = {"row-0": [good], "row-1": [leaky, good], "row-2": [good | {"finish": "length"}], "row-3": [leaky] * 9}
    with FakeProvider(answers, key=KEY) as provider:
        keys = {"engine": "api", "base_url": provider.base_url, "retries": 1}
        recipe = load(
            None, None, {"model": "openai/gpt-4o", **{f"sample.{name}": value for name, value in keys.items()}}
        )
        with pytest.raises(Unfinished, match=r"1 requests failed \(server 1\)"):
            sample(recipe, folder=tmp_path)
    rows = {row["id"]: row for row in map(json.loads, (tmp_path / "samples.jsonl").read_text().splitlines())}
    assert {name: row["verdict"] for name, row in rows.items()} == {"p0": "right", "p1": "right", "p2": "undecided"}
    assert rows["p2"]["reason"] == "truncated"
    # litellm's table: 2.50 and 10 US dollars a million: 0.0025 + 0.0020
    assert [row["sampling"]["cost"] for row in rows.values()] == pytest.approx([0.0045] * 3)
    output = capsys.readouterr()
    for text in (output.out, output.err, *(file.read_text() for file in tmp_path.iterdir())):
        assert KEY not in text


@pytest.mark.parametrize("reason", ["abort", "error", "tool_calls", "repetition"])
def test_an_incomplete_answer_is_retried_and_never_graded(reason: str) -> None:
    steps: list[Step] = [{"text": "Let me check \\boxed{36}", "finish": reason}, {"text": "\\boxed{41}"}]
    with FakeProvider({"row-000": steps}) as provider:
        (answer,) = ask(policy(provider))
    assert isinstance(answer, Answer)
    assert answer.response == "\\boxed{41}"
    failure = one(steps[0])
    assert isinstance(failure, Failure)
    assert failure.reason == reason


def test_answers_that_are_all_reasoning_are_kept_and_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_rows(tmp_path / "problems.jsonl", [{"id": "a", "prompt": "6 * 7?", "answer": "42"}])
    step: Step = {"text": None, "message": {"reasoning_content": "so \\boxed{42}"}}
    with FakeProvider(default=step) as provider:
        recipe = load(None, None, {"model": "mine", "sample.base_url": provider.base_url})
        summary = sample(recipe, folder=tmp_path)
    row = json.loads((tmp_path / "samples.jsonl").read_text())
    assert (row["response"], row["reasoning"], row["verdict"]) == ("", "so \\boxed{42}", "undecided")
    assert summary.only_reasoning == 1
    assert "1 of 1 answers are empty: the endpoint returned all text as reasoning" in capsys.readouterr().err


def test_a_pause_of_an_hour_is_not_waited_for() -> None:
    step: Step = {"status": 429, "body": {"error": {"message": "slow down"}}, "headers": {"retry-after": "3600"}}
    with FakeProvider(default=step) as provider:
        started = time.monotonic()
        with pytest.raises(Unfinished, match="asks to wait 3600 s"):
            ask(policy(provider, concurrency=2), 4)
        assert time.monotonic() - started < 20


def test_placeholders_for_a_missing_reference_are_undecided(tmp_path: Path) -> None:
    (tmp_path / "problems.csv").write_text("prompt,answer\nA?,nan\nB?,NaN\nC?,null\nD?,None\nE?,41\n")
    with FakeProvider(default={"text": "So \\boxed{41}."}) as provider:
        keys = {"model": "mine", "sample.base_url": provider.base_url, "sample.problems": "problems.csv"}
        summary = sample(load(None, None, keys), folder=tmp_path)
    assert (summary.right, summary.wrong, summary.undecided) == (1, 0, 4)
