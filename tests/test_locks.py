"""One writer per output: real processes that hold locks, are killed, leave children, or have no flock."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from spotcli.appender import Appender
from spotcli.errors import UserError
from spotcli.locks import Lock, check_free
from spotcli.recipe_yaml import load
from spotcli.run import run
from spotcli.stages.evaluate import evaluate
from spotcli.stages.rectify import rectify
from spotcli.stages.sample import grade_file, sample
from spotcli.training.run_folder import RunFolder

WITHOUT_FLOCK = """
import fcntl, os, sys
def refuse(*arguments): raise OSError(int(sys.argv[2]), os.strerror(int(sys.argv[2])))
fcntl.flock = refuse
"""
WRITER = """
import os, sys, time
from pathlib import Path
from spotcli.appender import Appender
from spotcli.errors import UserError
try:
    with Appender(Path(sys.argv[1])) as file:
        file.append([{"id": str(os.getpid())}])
        print("open", flush=True)
        sys.stdin.read()
except UserError as error:
    print(str(error).replace("\\n", " "), flush=True)
"""
FORKED = """
import os, sys, time
from pathlib import Path
from spotcli.appender import Appender
with Appender(Path(sys.argv[1])):
    if os.fork() == 0:
        print(os.getpid(), flush=True)
        time.sleep(120)
    time.sleep(120)
"""


@contextmanager
def started(code: str, *arguments: object) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process that runs some code, and its first line; killed in the end."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            yield process, process.stdout.readline()
        finally:
            process.kill()


def test_a_killed_writer_whose_child_lives_blocks_nobody(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    with started(FORKED, path) as (writer, line):
        with pytest.raises(UserError, match=rf"process {writer.pid}"):
            Lock(path)
        writer.kill()
        writer.wait()
        try:
            os.kill(int(line), 0)  # the child lives, with a copy of its parent's memory
            with Appender(path) as file:
                file.append([{"id": "a"}])
        finally:
            os.kill(int(line), signal.SIGKILL)
    assert path.read_text() == '{"id": "a"}\n'
    assert [item.name for item in tmp_path.iterdir()] == ["x.jsonl"]


@pytest.mark.parametrize("number", [37, 38, 95, 5], ids=["ENOLCK", "ENOSYS", "EOPNOTSUPP", "EIO"])
def test_without_flock_the_lock_file_is_the_lock(tmp_path: Path, number: int) -> None:
    path, code = tmp_path / "x.jsonl", WITHOUT_FLOCK + WRITER
    with started(code, path, number) as (first, line):
        assert line == "open\n"
        with started(code, path, number) as (_, refusal):
            assert f"another process is writing this file (process {first.pid})" in refusal
        with pytest.raises(UserError, match=str(first.pid)):  # nor does one with flock write beside it
            Lock(path)
        first.kill()
        first.wait()
        assert (tmp_path / ".x.jsonl.lock").exists()
        with started(code, path, number) as (second, line):
            assert line == "open\n"
            assert second.stdin
            second.stdin.close()
            assert second.wait() == 0
    assert len(path.read_text().splitlines()) == 2
    assert not (tmp_path / ".x.jsonl.lock").exists()


def test_the_lock_of_another_machine_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.jsonl"
    lock = tmp_path / ".x.jsonl.lock"
    lock.write_text(json.dumps({"pid": 7, "host": "node-7", "born": "1", "parent": 0, "flock": False}))
    with pytest.raises(UserError, match=r"process 7 on node-7") as caught:
        Lock(path)
    assert caught.value.cure is not None
    assert f"if it has ended, remove {lock}" in caught.value.cure
    monkeypatch.setattr(socket, "gethostname", lambda: "node-7")
    check_free(path)  # on that machine, the process is known to have ended


@pytest.mark.parametrize(
    "content", ["", "x", "[]", "{}", '{"pid": "1", "host": 1, "born": 1, "parent": "", "flock": 1}', "\0" * 9]
)
def test_a_damaged_lock_file_without_an_owner_blocks_nobody(tmp_path: Path, content: str) -> None:
    (tmp_path / ".x.jsonl.lock").write_text(content)
    Lock(tmp_path / "x.jsonl").release()
    assert not list(tmp_path.iterdir())


SAMPLE = '{"id": "a", "trial": 0, "prompt": "1+1?", "answer": "2", "response": "3", "verdict": "wrong"}\n'


def _stages(folder: Path) -> dict[str, Callable[[], object]]:
    recipe = load(None, None, {"model": "m", "eval.tasks": ["arithmetic"], "rectify.oracle": "symbolic"})
    return {
        "samples.jsonl": lambda: sample(recipe, folder=folder),
        "./samples.jsonl": lambda: grade_file(recipe, "in.jsonl", folder=folder),
        "data.jsonl": lambda: rectify(recipe, folder=folder),
        f"{recipe.eval.output}/m.summary.json": lambda: evaluate(recipe, model="m", against=None, folder=folder),
        "runs": lambda: run(recipe, folder=folder / "runs"),
        "checkpoint": lambda: RunFolder(folder / "checkpoint").lock(),
    }


@pytest.mark.parametrize("name", _stages(Path()))
def test_every_stage_is_refused_at_once(name: str, tmp_path: Path) -> None:
    for file in ("samples.jsonl", "in.jsonl"):
        (tmp_path / file).write_text(SAMPLE)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    code = "import sys, time; from pathlib import Path; from spotcli.locks import Lock\n"
    code += "with Lock(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    with started(code, tmp_path / name) as (holder, line):
        assert line == "held\n"
        with pytest.raises(UserError, match=rf"another process is writing .*\(process {holder.pid}\)") as caught:
            _stages(tmp_path)[name]()
        assert caught.value.exit_code == 2
        assert Path(str(caught.value.where)) == tmp_path / name
    assert {path: path.read_bytes() for path in before} == before
