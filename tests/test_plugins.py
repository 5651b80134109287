"""Oracles and engines of installed packages: the examples of docs/plugins.md, and packages that misbehave."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.conftest import write_rows
from tests.test_cli import complete, spot

DOC = (Path(__file__).parent.parent / "docs" / "plugins.md").read_text(encoding="utf-8")
CODE = re.findall(r"```python\n(.*?)```", DOC, re.DOTALL)
SHOUTER, ECHO = CODE
WRONG = [
    {"id": str(n), "prompt": f"{n} + 1", "answer": str(n + 1), "response": f"I say that it is {n}", "verdict": "wrong"}
    for n in range(3)
]
BAD = """
import asyncio, time
from spotcli.errors import UserError
from spotcli.policies import Answer
from spotcli.providers.replies import Reply

class Bad:
    def __init__(self, settings):
        self.kind = settings.params.get("kind", "raise")
        self.version = "1"

    async def correct(self, request):
        if request.sample.id != "1":
            return Reply(text=f"I say that it is {request.sample.answer}")
        if self.kind == "raise":
            raise ValueError("\\x1b[31mno idea\\nsecond line")
        if self.kind == "type":
            return "just a text"
        if self.kind == "field":
            return Reply(text=7)
        if self.kind == "cost":
            return Reply(text="a", cost=float("nan"))
        if self.kind == "finish":
            return Reply(text="a", finish_reason="excellent")
        if self.kind == "exit":
            raise SystemExit(0)
        time.sleep(60)

class Engine:
    def __init__(self, model, sampling, settings, *, log):
        pass

    def answers(self, requests):
        for request in requests:
            if request.key[0] == "1":
                raise KeyError("one row")
            if request.key[0] == "2":
                yield "nonsense"
                continue
            yield Answer(request, "It is \\\\boxed{1}", "stop", None, 3, 100)
"""


def install(folder: Path, module: str, code: str, entries: str) -> str:
    """Put a package into a folder as ``pip install --target`` does; the search path that finds it."""
    metadata = folder / f"{module}-1.0.dist-info"
    metadata.mkdir(parents=True)
    (folder / f"{module}.py").write_text(code)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module.replace('_', '-')}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(entries)
    source = Path(__file__).parent.parent / "src"
    return f"{folder}:{source}"


def entries_of_doc(group: str) -> str:
    """The table of entry points as docs/plugins.md shows it, in the format of the installed metadata."""
    table = re.search(rf'\[project.entry-points."({re.escape(group)})"\]\n(\w+) = "(.+)"', DOC)
    assert table
    return f"[{table[1]}]\n{table[2]} = {table[3]}\n"


def test_the_oracle_of_the_docs_makes_pairs(tmp_path: Path) -> None:
    path = install(tmp_path / "site", "spot_shouter", SHOUTER, entries_of_doc("spotcli.oracles"))
    assert len(SHOUTER.splitlines()) <= 22
    write_rows(tmp_path / "samples.jsonl", WRONG)
    done = spot("rectify", "--oracle", "shouter", "--json", cwd=tmp_path, PYTHONPATH=path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["pairs"] == 3
    assert "oracle 'shouter' of the package spot-shouter" in done.stderr
    rows = [json.loads(line) for line in (tmp_path / "data.jsonl").read_text().splitlines()]
    assert [row["chosen"] for row in rows] == [f"I say that it is \\boxed{{{n + 1}}}" for n in range(3)]
    assert {row["oracle"]["name"] for row in rows} == {"shouter"}
    again = spot("rectify", "--oracle", "shouter", "--json", cwd=tmp_path, PYTHONPATH=path)
    assert json.loads(again.stdout)["pairs"] == 3
    assert len((tmp_path / "data.replies.jsonl").read_text().splitlines()) == 3


def test_the_engine_of_the_docs_answers_and_completes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = install(tmp_path / "site", "spot_echo", ECHO, entries_of_doc("spotcli.engines"))
    rows = [{"id": str(n), "prompt": f"\\boxed{{{n}}}", "answer": "1"} for n in range(3)]
    write_rows(tmp_path / "problems.jsonl", rows)
    done = spot("sample", "--engine", "echo", "--model", "any", "--json", cwd=tmp_path, PYTHONPATH=path)
    assert done.returncode == 0, done.stderr
    assert {name: json.loads(done.stdout)[name] for name in ("right", "wrong")} == {"right": 1, "wrong": 2}
    monkeypatch.setenv("PYTHONPATH", path)
    assert complete("sample", "--engine", "", cwd=tmp_path) == ["auto", "vllm", "transformers", "api", "echo"]


def test_one_bad_answer_of_an_engine_is_one_failed_request(tmp_path: Path) -> None:
    path = install(tmp_path / "site", "bad_engine", BAD, "[spotcli.engines]\nbad = bad_engine:Engine\n")
    write_rows(tmp_path / "problems.jsonl", [{"id": str(n), "prompt": str(n), "answer": "1"} for n in range(5)])
    done = spot("sample", "--engine", "bad", "--model", "any", cwd=tmp_path, PYTHONPATH=path)
    assert done.returncode == 3, done.stderr
    assert "the plug-in raised KeyError" in done.stderr
    assert "the plug-in gave no answer" in done.stderr
    ids = [json.loads(line)["id"] for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    assert ids == ["0", "3", "4"]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("raise", "plug-in: ValueError: ␛[31mno idea␊second line"),
        ("type", "expected a spotcli.providers.replies.Reply, got str"),
        ("field", "invalid value of `text` in the reply"),
        ("cost", "invalid value of `cost` in the reply"),
        ("finish", "unknown finish_reason 'excellent'"),
        ("exit", "it tried to end the program (0)"),
        ("hang", "no reply within 1 s"),
    ],
)
def test_one_bad_reply_of_an_oracle_is_one_failed_row(kind: str, message: str, tmp_path: Path) -> None:
    path = install(tmp_path / "site", "bad_oracle", BAD, "[spotcli.oracles]\nbad = bad_oracle:Bad\n")
    write_rows(tmp_path / "samples.jsonl", WRONG)
    options = ("-s", f"rectify.params={{kind: {kind}}}", "-s", "rectify.timeout=1")
    done = spot("rectify", "--oracle", "bad", *options, cwd=tmp_path, PYTHONPATH=path)
    assert done.returncode == 3, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    pairs = len((tmp_path / "data.jsonl").read_text().splitlines())
    assert pairs == 2 if kind != "hang" else pairs >= 1


def test_a_package_that_cannot_be_imported_is_one_message_and_affects_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = "[spotcli.oracles]\nbroken = broken_oracle:Nothing\nsymbolic = broken_oracle:Nothing\n"
    entries += "[spotcli.engines]\nbroken = broken_oracle:Nothing\n[spotcli.tasks]\nbroken = broken_oracle:Nothing\n"
    path = install(tmp_path / "site", "broken_oracle", "import a_package_that_is_missing\n", entries)
    row = {"id": "1", "prompt": "1 + 1", "answer": "2", "response": "1 + 1 = 3\n\\boxed{3}", "verdict": "wrong"}
    write_rows(tmp_path / "samples.jsonl", [row])
    write_rows(tmp_path / "problems.jsonl", [row])
    for arguments in (
        ("rectify", "--oracle", "broken"),
        ("sample", "--engine", "broken", "--model", "any"),
        ("eval", "any", "--task", "broken"),
    ):
        done = spot(*arguments, cwd=tmp_path, PYTHONPATH=path)
        assert done.returncode == 2, done.stderr
        assert "'broken' of the package broken-oracle: failed to load broken_oracle:Nothing" in done.stderr
        assert "No module named 'a_package_that_is_missing'" in done.stderr
        assert "cure: update the package, or uninstall it" in done.stderr
        assert "Traceback" not in done.stderr
    unknown = spot("rectify", "--oracle", "brokn", cwd=tmp_path, PYTHONPATH=path)
    assert unknown.returncode == 2
    assert "did you mean 'broken'?" in unknown.stderr
    assert "`symbolic`, `human`, `policy`, `policy-prompted`, `broken`\n" in unknown.stderr
    assert spot("rectify", "--help", cwd=tmp_path, PYTHONPATH=path).returncode == 0
    built_in = spot("rectify", "--oracle", "symbolic", "--json", cwd=tmp_path, PYTHONPATH=path)
    assert json.loads(built_in.stdout)["pairs"] == 1
    assert "oracle 'symbolic' of the package broken-oracle is not used: the name is built in" in built_in.stderr
    monkeypatch.setenv("PYTHONPATH", path)
    assert "broken" in complete("sample", "--engine", "", cwd=tmp_path)


def test_an_oracle_without_a_prompt_solves_no_problems(tmp_path: Path) -> None:
    path = install(tmp_path / "site", "spot_shouter", SHOUTER, entries_of_doc("spotcli.oracles"))
    write_rows(tmp_path / "samples.jsonl", WRONG)
    done = spot("rectify", "--oracle", "shouter", "--mode", "direct", cwd=tmp_path, PYTHONPATH=path)
    assert done.returncode == 2
    assert "mode `direct` requires a model: `shouter` only corrects" in done.stderr
