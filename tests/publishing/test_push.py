"""``spot push`` against a server that speaks the hub's protocol: look up, create, preupload, commit."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from spotcli import decisions, jsonl
from spotcli.decisions import Event
from spotcli.records import Pair
from tests.conftest import write_rows
from tests.test_cli import spot

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


def push(hub: Hub, folder: Path, *arguments: str, **environment: str) -> Any:
    environment = {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "0", "HF_HOME": str(folder / "hf")} | (
        environment
    )
    done = spot("push", "data.jsonl", "--to", "org/pairs", *arguments, cwd=folder, **environment)
    assert TOKEN not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


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
    done = push(hub, tmp_path, "--yes", "--json", "--samples", "samples.jsonl", "--license", "mit")
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
    again = push(hub, tmp_path, "--yes")
    assert again.returncode == 0, again.stderr
    assert sum("repos/create" in request for request in hub.requests) == 1


def test_a_dry_run_writes_the_card_and_asks_no_hub(hub: Hub, tmp_path: Path) -> None:
    write_pairs(tmp_path)
    done = push(hub, tmp_path, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "4 rows" in done.stdout
    assert 'license: "unknown"' in (tmp_path / "data.card.md").read_text()
    assert hub.requests == []


def test_without_a_terminal_yes_is_required_and_what_would_be_uploaded_is_shown(hub: Hub, tmp_path: Path) -> None:
    write_pairs(tmp_path)
    done = push(hub, tmp_path)
    assert done.returncode == 2
    assert "--yes: uploading asks first" in done.stderr
    for text in ("org/pairs", "private", "4 rows"):
        assert text in done.stdout + done.stderr
    assert hub.requests == []


def test_a_public_dataset_gets_no_pairs_without_public(hub: Hub, tmp_path: Path) -> None:
    write_pairs(tmp_path)
    hub.private["org/pairs"] = False
    done = push(hub, tmp_path, "--yes")
    assert done.returncode == 2
    assert "org/pairs: the dataset is public" in done.stderr
    assert hub.commits == []
    assert push(hub, tmp_path, "--yes", "--public").returncode == 0


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
    done = push(hub, tmp_path, "--yes")
    assert done.returncode == 2, done.stderr
    assert f"the hub refuses the upload ({status}" in done.stderr
    assert cure in done.stderr
    assert hub.commits == []


def test_a_hub_that_cannot_be_reached_and_a_missing_token(hub: Hub, tmp_path: Path) -> None:
    write_pairs(tmp_path)
    done = push(hub, tmp_path, "--yes", HF_ENDPOINT="http://127.0.0.1:9")
    assert done.returncode == 3, done.stderr
    assert "the hub cannot be reached" in done.stderr
    done = push(hub, tmp_path, "--yes", HF_TOKEN="")
    assert done.returncode == 2
    assert "uploading requires a token" in done.stderr


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
    done = push(hub, tmp_path, "--yes")
    assert done.returncode == 2, done.stderr
    assert f"data.jsonl: rows that must not be published: {reason} (first: id '1')" in done.stderr
    assert hub.requests == []


@pytest.mark.parametrize("name", ["pairs", "org/pairs/more", "../pairs", "org/a b", "org/-x"])
def test_an_invalid_name_is_refused(name: str, tmp_path: Path) -> None:
    write_pairs(tmp_path)
    done = spot("push", "data.jsonl", "--to", name, "--yes", cwd=tmp_path)
    assert done.returncode == 2
    assert f"--to: expected ORG/NAME, got '{name}'" in done.stderr
