"""`spot rectify --batch`: over HTTP to local servers of three providers' batch APIs, killed at every step."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from spotcli.errors import BudgetReached, Unfinished, UserError
from spotcli.providers import limiter as limits
from spotcli.providers.batches import files as openai_files
from spotcli.providers.batches.api import Limits
from spotcli.recipe_yaml import load
from spotcli.repair import batch_results, batch_rounds
from spotcli.repair.batch_log import BatchLog
from spotcli.repair.terminal import estimate_sentences
from spotcli.stages.rectify import Action, RectifySummary, rectify
from tests.batch_servers import BatchServer, BatchStep, batch_server
from tests.conftest import write_rows
from tests.fake_provider import FakeProvider, Step
from tests.gemini_batches import camel
from tests.stages.test_rectify import good, pairs, replies, script, tag, wrong
from tests.stages.test_rectify import samples as write_samples
from tests.wire_formats import FORMATS

WIRES = ("openai", "anthropic", "gemini")
KEY = "sk-batch-0123456789abcdef"


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    for wire in (*WIRES, "azure"):
        for name, value in FORMATS[wire].environment.items():
            monkeypatch.setenv(name, KEY if name.endswith("_KEY") else value)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(limits, "FIRST_PAUSE", 0.01)


def server(wire: str, answers: dict[str, list[Step]], *batches: BatchStep, later: float = 0.0) -> BatchServer:
    return batch_server(wire, answers, key=KEY, batches=list(batches), later={"latency": later})


def ask(folder: Path, provider: FakeProvider, wire: str, **options: Any) -> RectifySummary:
    selected = {name: options.pop(name) for name in ("dry_run", "replay") if name in options}
    fresh = options.pop("fresh", False)
    values = {"oracle": FORMATS[wire].model, "base_url": provider.base_url, "batch": True, "batch_poll": 0.02}
    recipe = load(None, None, {f"rectify.{name}": value for name, value in (values | options).items()})
    return rectify(recipe, folder=folder, fresh=fresh, action=Action.of(**selected))


def samples(folder: Path, count: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_samples(folder, count)


def log(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "data.batches.jsonl").read_text().splitlines()]


def kinds(folder: Path) -> list[str]:
    return [row["kind"] for row in log(folder)]


def check_once(provider: BatchServer) -> None:
    """Nothing was submitted again that was answered, or that was still open."""
    twice = provider.submissions() - provider.answered() - provider.unanswered
    assert not twice
    assert set(provider.answered().values()) <= {1}


def without_fence(value: Any, folder: Path) -> Any:
    text = json.dumps(value)
    for reply in replies(folder):
        text = text.replace(reply["fence"], "FENCE")
    return json.loads(text)


@pytest.mark.parametrize("wire", [*WIRES, "azure"])
def test_pairs_and_requests_are_those_of_ordinary_requests_at_half_the_price(wire: str, tmp_path: Path) -> None:
    by_batch, ordinary = tmp_path / "batch", tmp_path / "ordinary"
    settings = {"price_in": 1.0, "price_out": 10.0, "temperature": 0.5}
    with server(wire, script(3)) as provider:
        provider.key = None if wire == "azure" else KEY
        samples(by_batch, 3)
        summary = ask(by_batch, provider, wire, **settings)
        assert not provider.requests
        samples(ordinary, 3)
        expected = ask(ordinary, provider, wire, batch=False, **settings)
    assert (summary.pairs, summary.reasons, expected.pairs) == (3, {}, 3)
    assert summary.cost == pytest.approx(expected.cost / 2)
    rows, others = pairs(by_batch), pairs(ordinary)
    for row, other in zip(rows, others, strict=True):
        assert row["oracle"].pop("cost") == pytest.approx(other["oracle"].pop("cost") / 2)
        assert row == other
    # The same bodies, and the same records of them.
    batch = next(iter(provider.batches.values()))
    bodies = {row.tag: without_fence(row.body, by_batch) for row in batch.rows}
    # The server reads Gemini's names in both spellings, as Google does.
    spelled = camel if wire == "gemini" else lambda body: body
    sent = {r["tag"]: spelled(without_fence(r["body"], ordinary)) for r in provider.requests}
    assert bodies == sent
    for entry, other in zip(replies(by_batch), sorted(replies(ordinary), key=lambda row: row["id"]), strict=True):
        assert entry.pop("batch") == log(by_batch)[0]["key"]
        changing = ("fence", "text", "at", "seconds", "cost")
        assert [v for k, v in entry.items() if k not in changing] == [v for k, v in other.items() if k not in changing]
    expected_kinds = ["intent", "submitted", "done"]
    assert kinds(by_batch) == [*expected_kinds[:1], *(["uploaded"] if provider.files else []), *expected_kinds[1:]]
    everything = "".join(file.read_text() for file in by_batch.iterdir())
    assert KEY not in everything
    # A resumed run has nothing to ask.
    calls = len(provider.calls)
    assert ask(by_batch, provider, wire, **settings).pairs == 3
    assert len(provider.calls) == calls


class Killed(BaseException):
    """What stands for kill -9 inside a process: nothing catches it."""


class Killer:
    """Ends the process before or after its n-th step: a line in the log of batches, or replies in the journal."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = 1_000_000
        append, record = BatchLog._append, batch_results.Collector._record

        def batch_line(log: BatchLog, row: Any) -> None:
            self.step()
            append(log, row)
            self.step()

        async def replies_recorded(collector: Any, entries: Any) -> Any:
            self.step()
            rest = await record(collector, entries)
            self.step()
            return rest

        monkeypatch.setattr(BatchLog, "_append", batch_line)
        monkeypatch.setattr(batch_results.Collector, "_record", replies_recorded)
        monkeypatch.setattr(batch_results, "CHUNK", 1)

    def step(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise Killed


@pytest.mark.parametrize("wire", WIRES)
def test_a_run_killed_at_any_step_submits_nothing_twice_and_loses_nothing(
    wire: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killer = Killer(monkeypatch)
    # With OpenAI each of its steps; of the others those around the creation.
    for number in range(1, 14) if wire == "openai" else (2, 3, 4, 5):
        folder = tmp_path / str(number)
        samples(folder, 1)
        with server(wire, script(1)) as provider:
            killer.left = number
            with pytest.raises(Killed) if number < 13 else contextlib.nullcontext():
                ask(folder, provider, wire)
            killer.left = 1_000_000
            summary = ask(folder, provider, wire)
        check_once(provider)
        assert (summary.pairs, len(replies(folder)), len(provider.batches)) == (1, 1, 1)
        assert summary.cost == pytest.approx(sum(reply["cost"] for reply in replies(folder)))
        assert summary.unsettled == 0


def test_a_process_killed_between_creation_and_reply_finds_its_batch(tmp_path: Path) -> None:
    samples(tmp_path, 3)
    with server("openai", script(3), {"latency": 0.3}) as provider:
        command = [sys.executable, "-m", "spotcli", "rectify", "--oracle", "openai/gpt-4o", "--batch"]
        command += ["--base-url", provider.base_url, "-s", "rectify.batch_poll=0.1"]
        process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL, env=os.environ)
        provider.hook = lambda kind: process.kill() if kind == "create" else None
        assert process.wait(60) == -signal.SIGKILL
        provider.hook = lambda kind: None
        assert kinds(tmp_path) == ["intent", "uploaded"]
        assert ask(tmp_path, provider, "openai").pairs == 3
    check_once(provider)
    assert len(provider.batches) == 1


@pytest.mark.parametrize("wire", WIRES)
def test_lost_connections_create_no_batch_twice(wire: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples(tmp_path, 2)
    with server(wire, script(2), {"latency": 0.2, "unlisted": 0.3}) as provider:
        provider.faults = {
            "create": [429, "dropped"],
            "list": [500],
            "poll": ["half", 502],
            "download": ["half"],
        }
        assert ask(tmp_path, provider, wire, batch_poll=0.05).pairs == 2
    check_once(provider)
    assert len(provider.batches) == 1


def test_a_batch_that_the_list_of_anthropic_may_contain_is_waited_for(tmp_path: Path) -> None:
    samples(tmp_path, 2)
    with server("anthropic", script(2), {"latency": 0.3}) as provider:
        provider.faults = {"create": ["dropped"]}
        assert ask(tmp_path, provider, "anthropic").pairs == 2
        assert len(provider.batches) == 1
        # Another batch of the same size, which turns out to be a stranger's.
        samples(tmp_path / "other", 2)
        provider.restart()
        provider.faults = {"create": ["reset"]}
        assert ask(tmp_path / "other", provider, "anthropic").pairs == 2
    assert len(provider.batches) == 2


@pytest.mark.parametrize("wire", WIRES)
def test_requests_without_a_reply_are_asked_again_in_the_next_round(wire: str, tmp_path: Path) -> None:
    samples(tmp_path, 6)
    answers = script(6)
    answers[tag(1)] = [{"status": 500}, good(1)]
    wrong = {"text": "<answer-{fence}>\n\\boxed{7}\n</answer-{fence}>"}
    answers[tag(2)] = [wrong, good(2)]
    answers[tag(3)] = [good(3, outcome="refused" if wire != "gemini" else "filtered")]
    fates: list[BatchStep] = [{"latency": 0, "omit": 0.2, "order": "reversed"}, {"latency": 0, "expire": 1}]
    with server(wire, answers, *fates) as provider:
        summary = ask(tmp_path, provider, wire, attempts=2)
    check = provider.submissions() - provider.answered() - provider.unanswered
    assert not check
    assert summary.pairs == 5
    assert summary.reasons == {"refused" if wire != "gemini" else "filtered": 1}
    assert len(provider.batches) == 3
    # The second round asks only about those without a pair that have an attempt left.
    second = [row[2] for row in provider.submitted if row[0] == list(provider.batches)[1]]
    assert {tag(1), tag(2)} <= set(second)
    assert tag(0) not in second
    assert tag(3) not in second


def test_a_request_that_always_fails_is_left_to_a_later_run(tmp_path: Path) -> None:
    samples(tmp_path, 2)
    with server("openai", script(2) | {tag(1): [{"status": 500}]}) as provider:
        with pytest.raises(Unfinished, match="failed: server 1"):
            ask(tmp_path, provider, "openai", retries=2)
        assert [len(batch.rows) for batch in provider.batches.values()] == [2, 1, 1]
        provider.answers = {tag(number): [{"status": 422}] for number in range(2)}
        with pytest.raises(UserError, match="rejects the requests"):
            ask(tmp_path, provider, "openai", output="bad.jsonl")


def test_a_vanished_batch_is_sent_again_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    samples(tmp_path, 2)
    with server("openai", script(2), {"latency": 5, "vanish": 1}) as provider:
        summary = ask(tmp_path, provider, "openai", price_in=0, price_out=10, max_tokens=100)
    assert summary.pairs == 2
    assert kinds(tmp_path).count("vanished") == 1
    assert summary.unsettled == pytest.approx(2 * 100 * 10 / 1e6 / 2)
    error = capsys.readouterr().err
    assert "no longer has batch batch_0001" in error
    assert "$0.0010 may have been charged" in error
    assert ask(tmp_path, provider, "openai", replay=True).unsettled == summary.unsettled


def test_a_batch_of_another_key_is_not_taken_for_a_vanished_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples(tmp_path, 2)
    with server("openai", script(2), {"latency": 9, "vanish": 1}) as provider:
        with pytest.raises(Unfinished):
            ask(tmp_path, provider, "openai", batch_wait=0)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-another-0123456789")
        provider.key = None
        with pytest.raises(UserError, match="another key or address"):
            ask(tmp_path, provider, "openai")
    assert len(provider.batches) == 1


def test_a_run_that_does_not_wait_ends_and_the_same_command_collects(tmp_path: Path) -> None:
    samples(tmp_path, 2)
    with server("anthropic", script(2), {"latency": 0.5}) as provider:
        with pytest.raises(Unfinished) as caught:
            ask(tmp_path, provider, "anthropic", batch_wait=0)
        assert "batch msgbatch_0001 of 2 requests at anthropic is not finished" in caught.value.message
        assert "same command" in str(caught.value.cure)
        planned = ask(tmp_path, provider, "anthropic", dry_run=True).estimate
        assert planned is not None
        assert (planned.requests, planned.in_batches) == (0, 2)
        # Ordinary requests about the same answers would be paid for twice.
        with pytest.raises(UserError, match="paid for twice"):
            ask(tmp_path, provider, "anthropic", batch=False)
        assert ask(tmp_path, provider, "anthropic", batch_wait=30).pairs == 2
        assert ask(tmp_path, provider, "anthropic", batch=False).pairs == 2
    assert len(provider.batches) == 1
    assert not provider.requests


def test_ctrl_c_while_waiting_leaves_the_batch_to_the_provider(tmp_path: Path) -> None:
    samples(tmp_path, 2)
    with server("openai", script(2), {"latency": 1.0}) as provider:
        provider.hook = lambda kind: os.kill(os.getpid(), signal.SIGTERM) if kind == "poll" else None
        with pytest.raises(Unfinished, match="batch batch_0001 of 2 requests at openai is not finished"):
            ask(tmp_path, provider, "openai", batch_poll=60)
        provider.hook = lambda kind: None
        assert ask(tmp_path, provider, "openai").pairs == 2
    assert len(provider.batches) == 1


@pytest.mark.parametrize(("wire", "call"), [("gemini", "poll"), ("anthropic", "download"), ("openai", "create")])
def test_ctrl_c_does_not_wait_for_a_provider_that_does_not_answer(
    wire: str, call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples(tmp_path, 1)
    monkeypatch.setattr(batch_rounds, "GRACE", 0.2)
    ended, answered = threading.Event(), threading.Event()

    def hang(kind: str) -> None:
        if kind == call:
            os.kill(os.getpid(), signal.SIGINT)
            ended.wait(60)
            answered.set()

    with server(wire, script(1), {"latency": 9 if call == "poll" else 0}) as provider:
        provider.hook = hang
        with pytest.raises(Unfinished, match="is not finished"):
            ask(tmp_path, provider, wire)
        assert not answered.is_set()
        ended.set()
        provider.hook = lambda kind: None
        if call != "poll":
            assert ask(tmp_path, provider, wire).pairs == 1
    assert len(provider.batches) == 1


def test_a_cancelled_batch_is_left_to_the_next_command(tmp_path: Path) -> None:
    samples(tmp_path, 2)
    with server("openai", script(2), {"latency": 60}) as provider:
        provider.hook = lambda kind: provider.cancel(provider.batches["batch_0001"]) if kind == "poll" else None
        with pytest.raises(Unfinished, match="failed: cancelled 2"):
            ask(tmp_path, provider, "openai")
        assert len(provider.batches) == 1
        provider.hook = lambda kind: None
        assert ask(tmp_path, provider, "openai").pairs == 2
    check_once(provider)


def test_the_cost_limit_holds_for_what_a_batch_can_cost_at_most(tmp_path: Path) -> None:
    samples(tmp_path, 4)
    usage = {"prompt_tokens": 40, "completion_tokens": 80}
    money = {"price_in": 0, "price_out": 10.0, "max_tokens": 100}
    half = 100 * 10 / 1e6 / 2
    with server("openai", script(4, usage=usage)) as provider:
        with pytest.raises(BudgetReached, match="2 pairs"):
            ask(tmp_path, provider, "openai", max_cost=2.5 * half, **money)
        # Two fit at first; they cost 80 %, so that a third one does not fit into the rest.
        assert [len(batch.rows) for batch in provider.batches.values()] == [2]
        # A third one fits into what is left; then the rest is too little for the fourth.
        with pytest.raises(BudgetReached, match="3 pairs"):
            ask(tmp_path, provider, "openai", max_cost=3.3 * half, **money)
        assert provider.billed_tokens * 10 / 1e6 / 2 <= 3.3 * half
        assert ask(tmp_path, provider, "openai", max_cost=5 * half, **money).pairs == 4
    check_once(provider)


def test_the_dry_run_shows_half_the_price(tmp_path: Path) -> None:
    samples(tmp_path, 4)
    with server("gemini", script(4)) as provider:
        whole = ask(tmp_path, provider, "gemini", batch=False, dry_run=True).estimate
        half = ask(tmp_path, provider, "gemini", dry_run=True).estimate
        assert half is not None
        assert "Requests in batches cost half." in estimate_sentences(half, None)
        assert not provider.calls
    assert whole is not None
    assert half.likely == pytest.approx((whole.likely or 0) / 2, rel=0.01)  # fences differ
    assert half.max == pytest.approx((whole.max or 0) / 2, rel=0.01)
    assert not (tmp_path / "data.batches.jsonl").exists()


def test_large_batches_are_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples(tmp_path, 5)
    with server("openai", script(5)) as provider:
        assert ask(tmp_path, provider, "openai", batch_size=2).pairs == 5
    assert [len(batch.rows) for batch in provider.batches.values()] == [2, 2, 1]
    size = len(provider.files["file-1"]["content"]) + 200
    init = openai_files.FileBatches.__init__

    def small(api: Any, *values: Any) -> None:
        init(api, *values)
        api.limits = Limits(50_000, size)

    monkeypatch.setattr(openai_files.FileBatches, "__init__", small)
    samples(tmp_path / "bytes", 5)
    with server("openai", script(5)) as provider:
        assert ask(tmp_path / "bytes", provider, "openai").pairs == 5
    assert [len(batch.rows) for batch in provider.batches.values()] == [2, 2, 1]


def test_a_provider_with_too_many_waiting_tokens_gets_smaller_batches_one_by_one(tmp_path: Path) -> None:
    samples(tmp_path, 4)
    with server("openai", script(4), {"latency": 0, "fail": "Enqueued token limit reached"}) as provider:
        assert ask(tmp_path, provider, "openai").pairs == 4
    assert [len(batch.rows) for batch in provider.batches.values()] == [4, 2, 2]


@pytest.mark.parametrize(
    ("status", "message"), [(401, "rejected the key"), (400, "refused the batch"), (404, "no model is served")]
)
def test_a_batch_that_no_try_can_create_stops_the_run(status: int, message: str, tmp_path: Path) -> None:
    samples(tmp_path, 2)
    with server("openai", script(2)) as provider:
        provider.faults = {"create": [status]}
        with pytest.raises(UserError, match=message if status != 404 else "unknown model|no model"):
            ask(tmp_path, provider, "openai")
        assert ask(tmp_path, provider, "openai").pairs == 2
    assert kinds(tmp_path)[:3] == ["intent", "uploaded", "rejected"]


def test_a_server_without_a_batch_api_is_named(tmp_path: Path) -> None:
    samples(tmp_path, 1)
    with FakeProvider(script(1)) as provider, pytest.raises(UserError, match="no batch API at this address"):
        ask(tmp_path, provider, "openai", oracle="hosted_vllm/model")
    assert kinds(tmp_path) == ["intent", "abandoned"]


@pytest.mark.parametrize("oracle", ["symbolic", "human", "openrouter/openai/gpt-4o"])
def test_an_oracle_without_a_batch_api_is_refused(oracle: str, tmp_path: Path) -> None:
    samples(tmp_path, 1)
    with server("openai", {}) as provider:
        os.environ["OPENROUTER_API_KEY"] = KEY
        with pytest.raises(UserError, match="--batch is not available"):
            ask(tmp_path, provider, "openai", oracle=oracle)
    assert not (tmp_path / "data.batches.jsonl").exists()
    with server("openai", {}) as provider, pytest.raises(UserError, match="unknown model"):
        ask(tmp_path, provider, "openai", oracle="gpt-nonsense")


def test_rungs_without_a_batch_api_are_asked_as_usual(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # The symbolic oracle reads bare arithmetic alone.
    rows = [wrong(0) | {"prompt": "10 + 0 + 5"}, wrong(1), wrong(2) | {"prompt": "10 + 2 + 5"}]
    write_rows(tmp_path / "samples.jsonl", rows)
    with server("openai", script(3)) as provider:
        summary = ask(tmp_path, provider, "openai", oracle="symbolic", then=["openai/gpt-4o"], gamma=1.0)
    assert summary.pairs == 3
    assert (summary.oracles["symbolic"]["pairs"], summary.oracles["openai/gpt-4o"]["pairs"]) == (2, 1)
    assert [row[2] for row in provider.submitted] == [tag(1)]
    assert "'symbolic' has no batch API" in capsys.readouterr().err


def test_a_new_start_names_the_batches_that_it_gives_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    samples(tmp_path, 2)
    with server("openai", script(2), {"latency": 60}) as provider:
        with pytest.raises(Unfinished):
            ask(tmp_path, provider, "openai", batch_wait=0)
        assert ask(tmp_path, provider, "openai", fresh=True).pairs == 2
    assert "batch_0001 of 2 requests at openai is given up" in capsys.readouterr().err


def test_a_new_start_and_a_replay_keep_their_meaning(tmp_path: Path) -> None:
    samples(tmp_path, 2)
    with server("openai", script(2), {"latency": 0}, {"latency": 0}) as provider:
        assert ask(tmp_path, provider, "openai").pairs == 2
        assert ask(tmp_path, provider, "openai", gamma=0.0, replay=True).reasons == {"too large": 2}
        assert ask(tmp_path, provider, "openai", fresh=True).pairs == 2
    assert (tmp_path / "data.old-1.batches.jsonl").exists()
    assert len(provider.batches) == 2
