"""What commands record and show of an endpoint: costs, parameters, pauses and odd errors; with real servers."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import write_rows
from tests.fake_provider import FakeProvider, Step
from tests.stages.test_stopping import serving
from tests.stages.test_stopping import start as start_stage
from tests.terminals import Terminal
from tests.wire_formats import FORMATS, WireServer

USAGE = {"prompt_tokens": 100, "completion_tokens": 50}
PAUSE: Step = {"status": 429, "headers": {"retry-after": "400"}}


def arguments(folder: Path, stage: str, base_url: str, *options: str, model: str = "openai/gpt-4o") -> list[str]:
    write_rows(folder / "problems.jsonl", [{"id": "p0", "prompt": "1 + 2?", "answer": "3"}])
    row = {"id": "p0", "prompt": "1 + 2?", "answer": "3", "response": "1 + 2 = 4\n\\boxed{4}", "verdict": "wrong"}
    write_rows(folder / "wrong.jsonl", [row])
    first = {
        "sample": ["sample", "problems.jsonl", "--model", model],
        "rectify": ["rectify", "wrong.jsonl", "--oracle", model, "--gamma", "1"],
    }[stage]
    return [sys.executable, "-m", "spotcli", *first, "--base-url", base_url, *options]


ENVIRONMENT = {"OPENAI_API_KEY": "sk-test-12345678", "NO_PROXY": "127.0.0.1"}


def run(folder: Path, command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    variables = os.environ | ENVIRONMENT | environment
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False, timeout=120)


def meta(folder: Path, name: str) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((folder / f"{name}.meta.json").read_text())
    return values


def test_the_cost_of_incomplete_replies_is_in_the_summary(tmp_path: Path) -> None:
    steps: list[Step] = [
        {"text": "half", "finish": "error", "usage": USAGE},
        {"text": "\\boxed{3}", "usage": USAGE},
    ]
    with FakeProvider({"1 + 2": steps}) as provider:
        done = run(tmp_path, arguments(tmp_path, "sample", provider.base_url, "--json"))
        assert len(provider.requests) == 2
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    # gpt-4o: 2.50 dollars per million prompt tokens, 10 per million reply tokens; two replies.
    assert summary["cost"] == pytest.approx(2 * (100 * 2.5e-6 + 50 * 10e-6))
    assert (summary["answers"], summary["right"], summary["failed"]) == (1, 1, 0)


@pytest.mark.parametrize("sent", [True, False])
def test_the_seed_is_sent_or_left_out_and_recorded_so(sent: bool, tmp_path: Path) -> None:
    with FakeProvider(default={"text": "\\boxed{3}"}) as provider:
        options = ["-s", f"sample.send_seed={str(sent).lower()}"]
        done = run(tmp_path, arguments(tmp_path, "sample", provider.base_url, *options))
        (request,) = provider.requests
    assert done.returncode == 0, done.stderr
    row = json.loads((tmp_path / "samples.jsonl").read_text())
    assert ("seed" in request["body"]) is sent
    assert row["sampling"]["seed"] == request["body"].get("seed")


@pytest.mark.parametrize(
    "options",
    [
        ["--max-new-tokens", "none", "--temperature", "none"],
        ["-s", "sample.max_new_tokens=null", "-s", "sample.temperature=null"],
    ],
)
def test_limit_and_temperature_can_be_left_to_the_endpoint(options: list[str], tmp_path: Path) -> None:
    with FakeProvider(default={"text": "\\boxed{3}"}) as provider:
        done = run(tmp_path, arguments(tmp_path, "sample", provider.base_url, *options))
        (request,) = provider.requests
    assert done.returncode == 0, done.stderr
    assert {"max_tokens", "max_completion_tokens", "temperature"}.isdisjoint(request["body"])
    row = json.loads((tmp_path / "samples.jsonl").read_text())
    assert (row["sampling"]["max_new_tokens"], row["sampling"]["temperature"]) == (None, None)
    assert row["sampling"]["top_p"] == request["body"]["top_p"] == 0.8
    assert meta(tmp_path, "samples")["settings"]["max_new_tokens"] is None


def test_rectify_without_a_token_limit_and_what_it_sent_is_recorded(tmp_path: Path) -> None:
    correct: Step = {"correct": {"4": "3"}}
    with FakeProvider(default=correct) as provider:
        options = ["--max-tokens", "none", "--max-cost", "1", "--temperature", "0.25"]
        done = run(tmp_path, arguments(tmp_path, "rectify", provider.base_url, *options))
        (request,) = provider.requests
    assert done.returncode == 0, done.stderr
    assert {"max_tokens", "max_completion_tokens"}.isdisjoint(request["body"])
    entries = [json.loads(line) for line in (tmp_path / "data.replies.jsonl").read_text().splitlines()]
    reserved, reply = entries
    # The reservation is for as many tokens as gpt-4o writes at most: 16384 at 10 dollars per million.
    assert reserved["reserved"] == pytest.approx(16384 * 10e-6, rel=0.1)
    assert reply["max_tokens"] == 0
    assert reply["sent"] == {"temperature": 0.25} == meta(tmp_path, "data")["sent"]["openai/gpt-4o"]


def test_a_cost_limit_without_a_token_limit_requires_a_model_with_a_known_one(tmp_path: Path) -> None:
    options = ["--max-tokens", "none", "--max-cost", "1", "--price-in", "1", "--price-out", "2"]
    with FakeProvider() as provider:
        done = run(tmp_path, arguments(tmp_path, "rectify", provider.base_url, *options, model="openai/of-my-own"))
        assert provider.requests == []
    assert done.returncode == 2, done.stderr
    assert "rectify.max_tokens: --max-cost requires a limit of reply tokens" in done.stderr
    assert "cure: set it: --max-tokens 16384" in done.stderr


@pytest.mark.parametrize("stage", ["sample", "rectify"])
def test_a_pause_is_one_line_without_a_terminal(stage: str, tmp_path: Path) -> None:
    with FakeProvider(default=PAUSE) as provider:
        command = arguments(tmp_path, stage, provider.base_url)
        with subprocess.Popen(
            command, cwd=tmp_path, env=os.environ | ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            text=True,
        ) as process:  # fmt: skip
            assert process.stderr is not None
            lines = []
            for line in process.stderr:
                lines.append(line)
                if "waiting" in line:
                    time.sleep(1)
                    process.send_signal(signal.SIGTERM)
        assert process.returncode == 3
        assert len(provider.requests) == 1
    (pause,) = [line for line in lines if "waiting" in line and "stopping" not in line]
    assert pause.startswith("openai/gpt-4o: rate limit: waiting 4"), pause  # 400 s, and up to a quarter more


def test_a_pause_is_the_note_of_the_bar_on_a_terminal(tmp_path: Path) -> None:
    with FakeProvider(default=PAUSE) as provider:
        command = arguments(tmp_path, "sample", provider.base_url)
        terminal = Terminal(command, tmp_path, tmp_path / "shown.txt", ENVIRONMENT)
        deadline = time.monotonic() + 60
        while "waiting" not in terminal.text():
            assert terminal.poll() is None, terminal.text()
            assert time.monotonic() < deadline
        os.kill(terminal.pid, signal.SIGTERM)
        assert terminal.wait(60) == 3
    # The words are in the line of the bar, cut off where a narrow terminal ends.
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.text())
    assert re.search(r"sample .*0/1.*waiting", shown), shown


@pytest.mark.parametrize("stage", ["sample", "rectify"])
@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/json", "image/png"])
def test_an_error_body_that_is_no_text_is_one_line(stage: str, kind: str, tmp_path: Path) -> None:
    body = b"\xff\xfe{\x80\x1b[31m\x00"
    head = (
        f"HTTP/1.1 400 Bad Request\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    with serving(head.encode() + body) as server:
        process = start_stage(tmp_path, stage, server.port)
        _, errors = process.communicate(timeout=120)
    assert process.returncode in (2, 3), errors
    assert "Traceback" not in errors
    assert "\x1b" not in errors
    assert sum(line.lstrip().startswith("cure:") for line in errors.splitlines()) == 1, errors


@pytest.mark.parametrize(
    "value",
    [
        "Mon, 01 Jan 99999999999999 00:00:00 GMT",
        "Mon, 01 Jan 2020 00:00:00 +" + "9" * 400,
        "Mon, 99 Foo 0000 99:99:99",
        "Mon, 01 Jan 2020 99999999999999999999999:00:00 GMT",
        "9" * 5000,
        "nan",
        "-1e999",
    ],
)
def test_a_hostile_time_to_wait_is_no_error_of_ours(value: str, tmp_path: Path) -> None:
    head = "HTTP/1.1 429 Too Many Requests\r\ncontent-length: 2\r\nconnection: close\r\nretry-after: "
    with serving(f"{head}{value}\r\n\r\n{{}}".encode()) as server:
        process = start_stage(tmp_path, "sample", server.port, "-s", "sample.retries=0", "-s", "sample.limit=1")
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 3, errors
    assert "Traceback" not in errors
    assert "rate limit" in errors


def test_a_missing_package_of_google_is_one_line_with_the_cure(tmp_path: Path) -> None:
    (tmp_path / "shadow").mkdir()
    (tmp_path / "shadow" / "sitecustomize.py").write_text(
        "import sys\n"
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] == 'google' and name.startswith('google.auth'):\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Missing())\n"
    )
    path = os.pathsep.join([str(tmp_path / "shadow"), os.environ.get("PYTHONPATH", "")])
    with WireServer("vertex_ai", "good") as server:
        command = arguments(tmp_path, "rectify", server.base_url, model=server.format.model)
        done = run(tmp_path, command, PYTHONPATH=path, **FORMATS["vertex_ai"].environment)
        assert server.requests == []
    assert done.returncode == 2, done.stderr
    assert "cure: pip install google-auth" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("stage", ["sample", "rectify"])
def test_a_vertex_model_is_asked_by_the_command(stage: str, tmp_path: Path) -> None:
    def reply(body: dict[str, Any]) -> str:
        text = json.dumps(body)
        if stage == "sample":
            return "\\boxed{3}"
        fence = text.partition("<answer-")[2].partition(">")[0]
        return f"<answer-{fence}>\n1 + 2 = 3\n\\boxed{{3}}\n</answer-{fence}>"

    with WireServer("vertex_ai", "good", text=reply) as server:
        options = ["--engine", "api"] if stage == "sample" else []
        command = arguments(tmp_path, stage, server.base_url, *options, model=server.format.model)
        done = run(tmp_path, command, **FORMATS["vertex_ai"].environment)
        assert len(server.requests) == 1
    assert done.returncode == 0, done.stderr
    (line,) = (tmp_path / {"sample": "samples.jsonl", "rectify": "data.jsonl"}[stage]).read_text().splitlines()
    assert json.loads(line)["verdict"] == "right"


def test_a_missing_key_is_named_before_the_output_is_opened(tmp_path: Path) -> None:
    command = arguments(tmp_path, "sample", "http://127.0.0.1:9/v1", model="gemini/gemini-2.5-pro")
    done = run(tmp_path, [*command, "--engine", "api"], GEMINI_API_KEY="", GOOGLE_API_KEY="")
    assert done.returncode == 2, done.stderr
    assert "requires GEMINI_API_KEY" in done.stderr
    assert not list(tmp_path.glob("*samples*"))
    old = '{"id": "p0"}\n'
    (tmp_path / "samples.jsonl").write_text(old)
    again = run(tmp_path, [*command, "--engine", "api", "--fresh"], GEMINI_API_KEY="", GOOGLE_API_KEY="")
    assert again.returncode == 2
    assert (tmp_path / "samples.jsonl").read_text() == old
