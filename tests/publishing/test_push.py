"""``spot push`` and ``spot rectify --push-to-hub`` against a server that speaks the hub's protocol: look up, create,
preupload, commit."""

from __future__ import annotations

import base64
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from typer.testing import CliRunner

from spotcli import decisions, jsonl
from spotcli.cli import app
from spotcli.decisions import Event
from spotcli.errors import SpotError
from spotcli.records import Pair
from tests.conftest import write_rows
from tests.terminals import Terminal

TOKEN = "hf_" + "aBcDeF0123456789" * 2
PAIRS = [
    {
        "id": str(n),
        "prompt": f"{n} + 1?",
        "answer": str(n + 1),
        "rejected": f"It is {n}",
        "chosen": f"It is {n + 1}",
        "oracle": {"name": "gpt-4o", "cost": 0.01},
        "source": f"mine.jsonl#{n}",
    }
    for n in range(4)
]


class Hub:
    """Datasets in memory."""

    def __init__(self) -> None:
        self.private: dict[str, bool] = {}
        self.commits: list[dict[str, bytes]] = []
        self.requests: list[str] = []
        self.refusals: dict[str, int] = {}
        """Part of a path -> status of the answer."""
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._serve(b"")

            def do_POST(self) -> None:
                self._serve(self.rfile.read(int(self.headers.get("Content-Length", 0))))

            def _serve(self, body: bytes) -> None:
                hub.requests.append(f"{self.command} {self.path}")
                authorised = self.headers.get("Authorization") == f"Bearer {TOKEN}"
                status = next((code for part, code in hub.refusals.items() if part in self.path), None)
                if status or not authorised:
                    self._send(status or 401, {"error": f"refused: {TOKEN}"})
                else:
                    self._send(*hub.answer(self.path, body))

            def _send(self, status: int, value: Any) -> None:
                text = json.dumps(value).encode()
                self.send_response(status)
                if status == 404:
                    self.send_header("X-Error-Code", "RepoNotFound")
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: Any) -> None:
                """Silent."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, path: str, body: bytes) -> tuple[int, Any]:
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            assert asked["type"] == "dataset"
            self.private[name] = asked["visibility"] == "private"
            return 200, {"url": f"{self.url}/datasets/{name}", "id": name}
        if path == "/api/validate-yaml":
            assert json.loads(body)["repoType"] == "dataset"
            return 200, {"errors": [], "warnings": []}
        name = "/".join(path.split("/")[3:5])
        if name not in self.private:
            return 404, {"error": "Repository not found"}
        if "/preupload/" in path:
            return 200, {
                "files": [
                    {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                    for file in json.loads(body)["files"]
                ]
            }
        if "/commit/" in path:
            lines = [json.loads(line) for line in body.splitlines()]
            assert lines[0]["key"] == "header"
            self.commits.append(
                {line["value"]["path"]: base64.b64decode(line["value"]["content"]) for line in lines[1:]}
            )
            return 200, {"commitUrl": f"{self.url}/datasets/{name}/commit/{'a' * 40}", "commitOid": "a" * 40}
        return 200, {"id": name, "private": self.private[name], "sha": "b" * 40}


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub()
    thread = threading.Thread(target=hub.server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield hub
    hub.server.shutdown()
    hub.server.server_close()
    thread.join()


@dataclass
class Ended:
    """A command that ran in this process."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture(autouse=True)
def surroundings(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub and its token, also for commands in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name, value in environment_of(hub, tmp_path).items():
        monkeypatch.setenv(name, value)


def push(*arguments: str) -> Ended:
    return run("push", "data.jsonl", "--to", "org/pairs", *arguments)


def run(*arguments: str) -> Ended:
    """Run a command as ``cli.main`` does."""
    result = CliRunner().invoke(app, arguments)
    code, stderr = result.exit_code, result.stderr
    if isinstance(result.exception, SpotError):
        code, stderr = result.exception.exit_code, f"{stderr}\n{result.exception}"
    elif not isinstance(result.exception, SystemExit | None):
        raise result.exception
    assert TOKEN not in result.stdout + stderr
    return Ended(code, result.stdout, stderr)


def environment_of(hub: Hub, folder: Path) -> dict[str, str]:
    return {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "0", "HF_HOME": str(folder / "hf")}


def write_pairs(folder: Path, rows: list[dict[str, Any]] = PAIRS) -> None:
    write_rows(folder / "data.jsonl", rows)
    counts = {"samples": 9, "wrong": 6, "pairs": 4, "cost": 0.04, "reasons": {"too large": 2}}
    meta = {"counts": counts, "filters": {"gamma": 0.6}, "versions": {"litellm": "1.100"}}
    jsonl.write_json(folder / "data.meta.json", meta)


def test_pairs_are_uploaded_in_one_commit_with_a_card(hub: Hub, tmp_path: Path) -> None:
    write_pairs(tmp_path)
    sample = {"id": "1", "prompt": "a", "response": "b", "verdict": "wrong"}
    write_rows(tmp_path / "samples.jsonl", [sample])
    pairs = [Pair.model_validate(row) for row in PAIRS]
    now, digests = decisions.now(), [decisions.text_digest(pair) for pair in pairs]
    events = [
        Event(time=now, key=("0", 0), decision="reject", digest=digests[0]),
        Event(time=now, key=("1", 0), decision="edited", digest=digests[1], chosen="2!"),
    ]
    write_rows(tmp_path / "data.review.jsonl", [event.row() for event in events])
    done = push("--yes", "--json", "--samples", "samples.jsonl", "--license", "mit")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["left_out"], summary["edited"], summary["visibility"]) == (1, 1, "private")
    assert summary["url"] == f"{hub.url}/datasets/org/pairs"
    assert hub.private == {"org/pairs": True}
    (files,) = hub.commits
    assert set(files) == {"README.md", "data.jsonl", "samples.jsonl"}
    rows = [json.loads(line) for line in files["data.jsonl"].splitlines()]
    assert [(row["id"], row["chosen"]) for row in rows] == [("1", "2!"), ("2", "It is 3"), ("3", "It is 4")]
    card = files["README.md"].decode()
    for text in ('license: "mit"', "data.jsonl: 3 pairs", "reviewer rejected them: 1", "gpt-4o 3", "| 0.04 |",
                 "too large: 2", "litellm 1.100", "| gamma (largest change ratio) | 0.6 |"):  # fmt: skip
        assert text in card
    again = push("--yes")
    assert again.returncode == 0, again.stderr
    assert sum("repos/create" in request for request in hub.requests) == 1


def test_a_dry_run_writes_the_card_and_asks_no_hub(hub: Hub, tmp_path: Path) -> None:
    write_pairs(tmp_path)
    done = push("--dry-run")
    assert done.returncode == 0, done.stderr
    assert "4 rows" in done.stdout
    assert 'license: "unknown"' in (tmp_path / "data.card.md").read_text()
    assert hub.requests == []


def test_without_a_terminal_yes_is_required_and_what_would_be_uploaded_is_shown(hub: Hub, tmp_path: Path) -> None:
    write_pairs(tmp_path)
    done = push()
    assert done.returncode == 2
    assert "--yes: uploading asks first" in done.stderr
    for text in ("org/pairs", "private", "4 rows"):
        assert text in done.stdout + done.stderr
    assert hub.requests == []


def test_a_public_dataset_gets_no_pairs_without_public(hub: Hub, tmp_path: Path) -> None:
    write_pairs(tmp_path)
    hub.private["org/pairs"] = False
    done = push("--yes")
    assert done.returncode == 2
    assert "org/pairs: the dataset is public" in done.stderr
    assert hub.commits == []
    assert push("--yes", "--public").returncode == 0


@pytest.mark.parametrize(
    ("part", "status", "cure"),
    [
        ("/api/datasets/", 401, "hf auth login"),
        ("/api/repos/create", 403, "a token with write access"),
        ("/commit/", 409, "the dataset changed meanwhile"),
    ],
)
def test_a_refusal_of_the_hub_is_one_line_with_a_cure(
    part: str, status: int, cure: str, hub: Hub, tmp_path: Path
) -> None:
    write_pairs(tmp_path)
    hub.refusals[part] = status
    done = push("--yes")
    assert done.returncode == 2, done.stderr
    assert f"the hub refuses the upload ({status}" in done.stderr
    assert cure in done.stderr
    assert hub.commits == []


def test_a_hub_that_cannot_be_reached_and_a_missing_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pairs(tmp_path)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    done = push("--yes")
    assert done.returncode == 3, done.stderr
    assert "the hub cannot be reached" in done.stderr
    monkeypatch.setenv("HF_TOKEN", "")
    done = push("--yes")
    assert done.returncode == 2
    assert "uploading requires an access token" in done.stderr


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"source": "hf:Idavidrein/gpqa:gpqa_diamond#4"}, "1 of a gated benchmark (gpqa)"),
        ({"source": "gpqa_diamond.csv#4"}, "1 of a gated benchmark (gpqa)"),
        ({"Canary String": "x"}, "1 of a gated benchmark (gpqa)"),
        ({"split": "eval"}, "1 of an evaluation (split: eval)"),
        ({"note": f"token {TOKEN}"}, "1 with a key of this environment"),
    ],
)
def test_rows_that_must_not_be_published_stop_everything(
    fields: dict[str, str], reason: str, hub: Hub, tmp_path: Path
) -> None:
    write_pairs(tmp_path, [PAIRS[0], PAIRS[1] | fields])
    done = push("--yes")
    assert done.returncode == 2, done.stderr
    assert f"data.jsonl: rows that must not be published: {reason} (first: id '1')" in done.stderr
    assert hub.requests == []


@pytest.mark.parametrize("name", ["pairs", "org/pairs/more", "../pairs", "org/a b", "org/-x"])
def test_an_invalid_name_is_refused(name: str, tmp_path: Path) -> None:
    write_pairs(tmp_path)
    done = run("push", "data.jsonl", "--to", name, "--yes")
    assert done.returncode == 2
    assert f"--to: expected ORG/NAME, got '{name}'" in done.stderr


@pytest.fixture
def samples(tmp_path: Path) -> dict[str, Any]:
    """One wrong answer, in samples.jsonl, that the symbolic oracle corrects."""
    row = {
        "id": "a",
        "prompt": "10 + 2 + 5?",
        "answer": "17",
        "source": "mine.jsonl#1",
        "response": "10 + 2 = 13\n13 + 5 = 18\nThe answer is \\boxed{18}.",
        "finish_reason": "stop",
        "verdict": "wrong",
    }
    write_rows(tmp_path / "samples.jsonl", [row])
    return row


RECTIFY = ("rectify", "--oracle", "symbolic", "--push-to-hub", "org/pairs")


@pytest.mark.usefixtures("samples")
def test_a_complete_run_of_rectify_uploads_its_pairs_and_a_failed_upload_loses_nothing(
    hub: Hub, tmp_path: Path
) -> None:
    hub.refusals["/commit/"] = 503
    failed = run(*RECTIFY, "--yes", "--json")
    assert failed.returncode == 3, failed.stderr
    assert "the hub refuses the upload (503" in failed.stderr
    assert "upload them with `spot push data.jsonl --to org/pairs`" in failed.stderr
    summary = json.loads(failed.stdout)
    assert (summary["pairs"], summary["dataset"]) == (1, None)
    assert len((tmp_path / "data.jsonl").read_text().splitlines()) == 1

    hub.refusals.clear()
    done = run(*RECTIFY, "--yes", "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["pairs"], summary["dataset"]["url"]) == (1, f"{hub.url}/datasets/org/pairs")
    assert hub.private == {"org/pairs": True}
    (files,) = hub.commits
    assert json.loads(files["data.jsonl"])["chosen"].startswith("10 + 2 = 12")
    assert "- oracles: symbolic 1" in files["README.md"].decode()


def test_rectify_refuses_before_it_asks_an_oracle_what_could_not_be_uploaded(
    hub: Hub, tmp_path: Path, samples: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for arguments, reason in (
        ([], "--yes: uploading asks first, and there is no terminal"),
        (["--yes", "--push-to-hub", "pairs"], "--push-to-hub: expected ORG/NAME, got 'pairs'"),
        (["--yes", "--replay"], "--push-to-hub: only a run that asks the oracles uploads its pairs"),
    ):
        done = run(*RECTIFY, *arguments)
        assert done.returncode == 2, done.stderr
        assert reason in done.stderr
    with monkeypatch.context() as changed:
        changed.setenv("HF_TOKEN", "")
        for option in ("--yes", "--dry-run"):
            assert "uploading requires an access token" in run(*RECTIFY, option).stderr
    write_rows(tmp_path / "samples.jsonl", [samples, samples | {"id": "b", "source": "gpqa_diamond.csv#4"}])
    done = run(*RECTIFY, "--yes")
    assert done.returncode == 2, done.stderr
    assert "rows that must not be published: 1 of a gated benchmark (gpqa) (first: id 'b')" in done.stderr
    assert not list(tmp_path.glob("data*"))
    assert hub.requests == []


@pytest.mark.usefixtures("samples")
def test_a_dry_run_of_rectify_checks_the_upload_and_asks_nothing(hub: Hub, tmp_path: Path) -> None:
    done = run(*RECTIFY, "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    assert "org/pairs: a dry run uploads nothing; the name, the token and the samples were checked" in done.stderr
    assert json.loads(done.stdout)["dataset"] is None
    assert not list(tmp_path.glob("data*"))
    assert hub.requests == []


@pytest.mark.usefixtures("samples")
@pytest.mark.parametrize(
    ("reply", "code", "said"),
    [
        ("y\r", 0, "/datasets/org/pairs"),
        ("\r", 2, "nothing was uploaded"),
        ("\x03", 3, "interrupted; nothing was uploaded"),
        ("\x04", 3, "interrupted; nothing was uploaded"),
        (signal.SIGTERM, 3, "interrupted; nothing was uploaded"),
    ],
    ids=["yes", "no by default", "Ctrl-C", "Ctrl-D", "SIGTERM"],
)
def test_the_question_at_a_terminal(
    reply: str | signal.Signals, code: int, said: str, hub: Hub, tmp_path: Path
) -> None:
    """One command of each kind is asked; what is uploaded is on the screen before the question."""
    pushes = reply in ("\x03", "y\r")
    if pushes:
        write_pairs(tmp_path)
    words = ["push", "--to", "org/pairs"] if pushes else [*RECTIFY]
    environment = environment_of(hub, tmp_path) | {"NO_COLOR": "1", "OMP_NUM_THREADS": "1"}
    terminal = Terminal([sys.executable, "-m", "spotcli", *words], tmp_path, tmp_path / "shown.txt", environment)
    question, deadline = "Upload to org/pairs (private)? [y/N]:", time.monotonic() + 60
    while question not in terminal.text():
        assert terminal.poll() is None, terminal.text()
        assert time.monotonic() < deadline, terminal.text()
    assert "rows, " in terminal.text().partition(question)[0]
    assert hub.requests == []
    if isinstance(reply, signal.Signals):
        os.kill(terminal.pid, reply)
    else:
        terminal.press(reply)
    assert terminal.wait(60) == code, terminal.text()
    shown = " ".join(terminal.text().split())
    assert said in shown
    assert "Traceback" not in shown
    assert "Aborted" not in shown
    assert len(hub.commits) == (code == 0)
    assert (tmp_path / "data.jsonl").stat().st_size > 0
    assert ("upload them with `spot push data.jsonl" in shown) == (not pushes)
