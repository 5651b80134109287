"""Files and recipes that nobody expects, through the commands: each gives a result or one clear message."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spotcli import cli, jsonl
from spotcli.errors import UserError
from spotcli.problems.sources import iter_problems
from spotcli.records import Sample

Run = Callable[..., tuple[int, str, str]]

ROW: dict[str, Any] = {
    "id": "a",
    "prompt": "1 + 1?",
    "answer": "2",
    "rejected": "1 + 1 = 3\n\\boxed{3}",
    "chosen": "1 + 1 = 2\n\\boxed{2}",
    "change_ratio": 0.1,
    "verdict": "right",
}
HEAD = b'{"id": "a", "prompt": "p", "answer": "5", "rejected": "x y", "chosen": "x z", '


def lines(*rows: Any) -> bytes:
    return b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows)


ODD = {
    "a cost beyond every float": lines(ROW | {"oracle": {"name": "x", "cost": 10**400}}),
    "300 levels": lines(HEAD + b'"extra": ' + b"[" * 300 + b"]" * 300 + b"}"),
    "240 levels": lines(HEAD + b'"extra": ' + b"[" * 240 + b"]" * 240 + b"}"),
    "190 levels": lines(HEAD + b'"extra": ' + b"[" * 190 + b"]" * 190 + b"}"),
    "100,000 levels": lines(HEAD + b'"extra": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "not a number": lines(HEAD + b'"extra": NaN, "change_ratio": Infinity}'),
    "an infinite number": lines(HEAD + b'"extra": 1e999}'),
    "5,000 digits": lines(HEAD + b'"extra": ' + b"9" * 5000 + b"}"),
    "a huge trial": lines(HEAD + b'"trial": ' + b"9" * 400 + b"}"),
    "duplicate keys": lines(b'{"id": "a", "id": "b", "prompt": "p", "rejected": "x y", "chosen": "x z"}'),
    "lone surrogates": lines(b'{"id": "a\\ud800", "prompt": "p\\udfff", "rejected": "x\\ud800", "chosen": "y\\ud83d"}'),
    "bytes that are no text": lines(b'{"id": "a", "prompt": "p\xff\xfe", "rejected": "x y", "chosen": "x z"}'),
    "a byte order mark": b"\xef\xbb\xbf" + lines(ROW),
    "Windows line ends": lines(ROW, ROW | {"id": "b"}).replace(b"\n", b"\r\n"),
    "old Mac line ends": lines(ROW, ROW | {"id": "b"}).replace(b"\n", b"\r"),
    "a block of zeros": lines(ROW, b"\0" * 4096),
    "a zero in a text": lines(ROW | {"id": "a\0b"}),
    "names of Python's and pydantic's own": lines(
        ROW
        | {"__class__": "x", "__dict__": {"a": 1}, "__pydantic_extra__": {"z": 1}, "__pydantic_fields_set__": [1]}
        | {"model_dump": "x", "key": ["a"], "messages": [1], "model_fields": 1, "json_line": 2, "original": "o"}
    ),
    "a long id": lines(ROW | {"id": "x" * 300_000}),
    "hostile ids": lines(
        *(ROW | {"id": text} for text in ("../../etc/passwd", "a\nb", "\x1b]52;c;QQ\x07", "[red]x[/]", " "))
    ),
    "an incomplete line in the middle": lines(ROW, b'{"id": "b", "promp', ROW | {"id": "c"}),
    "tool calls in a message": lines(ROW | {"prompt": [{"role": "user", "content": "x", "tool_calls": [{"a": 1}]}]}),
    "an empty correction": lines(ROW | {"chosen": ""}),
    "an unknown review": lines(ROW | {"review": "\x1b[2J"}),
    "an oracle of another shape": lines(ROW | {"oracle": {"name": {"x": ["\x1b]0;x\x07"]}}}),
    "a cost that is no number": lines(ROW | {"oracle": {"name": "x", "cost": True}}),
    "rows that are no objects": lines([1, 2], "x"),
    "an empty file": b"",
    "a web page": b"<!DOCTYPE html>\n<html></html>\n",
    "a git-lfs pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
    "a ZIP archive": b"PK\x03\x04\x14\x00",
    "UTF-16 without a mark": lines(ROW).decode().encode("utf-16-le"),
    "a table": b"prompt,answer\n1 + 1?,2\n",
    "gzip": gzip.compress(lines(ROW)),
}
"""Name -> content of a file."""


@pytest.fixture
def spot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process: exit code, stdout, stderr; any other exception fails the test."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["spot", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return run


def commands(model: Path) -> dict[str, list[str]]:
    Path("recipe.yaml").write_text(f"model: {model}\ntrain: {{data: odd.jsonl, batch_size: 1, num_train_epochs: 1}}\n")
    sampling = ["--model", str(model), "--limit", "1", "--max-new-tokens", "1"]
    return {
        "sample": ["sample", "odd.jsonl", *sampling, "-o", "samples.jsonl"],
        "grade": ["sample", "--grade", "odd.jsonl", "-o", "graded.jsonl"],
        "rectify": ["rectify", "odd.jsonl", "--oracle", "symbolic", "-o", "pairs.jsonl"],
        "inspect": ["inspect", "odd.jsonl"],
        "train": ["train", "recipe.yaml", "--dry-run"],
    }


@pytest.mark.parametrize("content", ODD.values(), ids=ODD)
def test_an_odd_file_gives_a_result_or_one_message(spot: Run, content: bytes, tiny_model: Path) -> None:
    Path("odd.jsonl").write_bytes(content)
    for name, command in commands(tiny_model).items():
        code, out, err = spot(*command)
        assert code in (0, 2), (name, err)
        assert "\x1b]" not in out + err
        if code:
            *_, error, cure = [line for line in err.splitlines() if not line.startswith("  in ")]
            assert error.startswith("odd.jsonl"), (name, err)
            assert cure.startswith("  cure: "), (name, err)
    # What sampling kept, the next stage can read.
    if Path("samples.jsonl").exists():
        assert len(list(jsonl.read(Path("samples.jsonl"), Sample))) == 1
        assert spot("rectify", "samples.jsonl", "--oracle", "symbolic", "-o", "next.jsonl")[0] == 0


def test_an_odd_answer_is_corrected_and_its_fields_are_kept(spot: Run) -> None:
    sample = {"id": "a", "prompt": "1 + 1?", "answer": "2", "response": "1 + 1 = 3\n\\boxed{3}", "verdict": "wrong"}
    deep: Any = 1
    for _ in range(150):
        deep = [deep]
    Path("samples.jsonl").write_text(json.dumps(sample | {"extra": deep, "big": 10**400}) + "\n")
    assert spot("rectify", "--oracle", "symbolic")[0] == 0
    (row,) = jsonl.rows(Path("data.jsonl"))
    assert (row["extra"], row["big"]) == (deep, 10**400)


SAMPLE = {"id": "a", "prompt": "1 + 1?", "answer": "2", "response": "It is 3.", "verdict": "wrong"}
SCORE = SAMPLE | {"split": "eval", "task": "arithmetic", "finish_reason": "stop", "trial": 0}
KINDS: dict[str, dict[str, Any]] = {
    "problems": {"prompt": "1 + 1?", "answer": "2"},
    "answers": {"prompt": "1 + 1?", "answer": "2", "response": "It is 3."},
    "samples": SAMPLE,
    "pairs": SAMPLE | {"rejected": "It is 3.", "chosen": "It is 2.", "verdict": "right", "oracle": {"name": "x"}},
    "scores": SCORE,
}


@pytest.mark.parametrize(
    ("command", "kind", "message"),
    [
        ("rectify", "problems", "expected samples, got problems"),
        ("rectify", "answers", "expected samples, got answers"),
        ("rectify", "pairs", "expected samples, got pairs"),
        ("rectify", "scores", "belongs to an evaluation"),
        ("inspect", "problems", "expected pairs, got problems"),
        ("train", "problems", "expected pairs, got problems"),
        ("train", "answers", "expected pairs, got answers"),
        ("train", "samples", "expected pairs, got samples"),
        ("train", "scores", "belongs to an evaluation"),
        ("grade", "problems", "expected answers, got problems"),
        ("grade", "pairs", "expected answers, got pairs"),
        ("grade", "scores", "belongs to an evaluation"),
        ("sample", "scores", "belong to an evaluation"),
    ],
)
def test_a_file_of_another_kind_is_named(spot: Run, tiny_model: Path, command: str, kind: str, message: str) -> None:
    Path("odd.jsonl").write_bytes(lines(KINDS[kind]))
    code, _, err = spot(*commands(tiny_model)[command])
    assert code == 2
    assert message in err
    assert "  cure: " in err
    assert not [path for path in Path().iterdir() if path.name not in ("odd.jsonl", "recipe.yaml")]


@pytest.mark.parametrize(
    ("command", "kind", "third"),
    [
        ("grade", "answers", 5),
        ("grade", "answers", {"prompt": "?", "response": 7}),
        ("rectify", "samples", "x"),
        ("rectify", "samples", SAMPLE),
        ("train", "pairs", [1]),
    ],
)
def test_an_error_in_an_array_names_the_element(
    spot: Run, tiny_model: Path, command: str, kind: str, third: Any
) -> None:
    rows = [KINDS[kind], KINDS[kind] | {"id": "b"}, third]
    Path("odd.jsonl").write_text(json.dumps(rows, indent=2))
    strict = ["-s", "train.max_bad_rows=0"] if command == "train" else []
    code, _, err = spot(*commands(tiny_model)[command], *strict)
    assert code == 2
    assert [line for line in err.splitlines() if "odd.jsonl: element 3: " in line], err
    assert ("first in element 1" in err) == (third == SAMPLE)


@pytest.mark.parametrize("ending", ["csv", "tsv"])
@pytest.mark.parametrize("compression", ["gz", "bz2", "xz"])
def test_a_compressed_table_is_read(ending: str, compression: str, tmp_path: Path) -> None:
    compressors: dict[str, Callable[[bytes], bytes]] = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}
    compress = compressors[compression]
    separator = {"csv": ",", "tsv": "\t"}[ending]
    table = f'prompt{separator}answer\n1 + 1?{separator}2\n"2 +\n2?"{separator}4\n'
    path = tmp_path / f"odd.{ending}.{compression}"
    path.write_bytes(compress(b"\xef\xbb\xbf" + table.encode()))
    problems = list(iter_problems(path.name, folder=tmp_path, seed=0, limit=None))
    assert [(problem.prompt, problem.answer) for problem in problems] == [("1 + 1?", "2"), ("2 +\n2?", "4")]
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match="failed to decompress the file"):
        list(iter_problems(path.name, folder=tmp_path, seed=0, limit=None))


@pytest.mark.parametrize("command", ["train", "run"])
def test_a_dataset_instead_of_a_recipe_is_named(spot: Run, command: str) -> None:
    for name in ("data.jsonl", "data.txt"):
        Path(name).write_bytes(lines(ROW))
        code, _, err = spot(command, name)
        assert (code, f"{name}: expected a recipe (YAML), got a dataset" in err) == (2, True)


@pytest.mark.parametrize("name", ["../../../../x", "a/b", "/tmp/x", "..", "", " ", "a\\b", "a\x1b[2Jb", "é" * 101])
def test_the_folder_of_a_run_stays_inside_runs(spot: Run, name: str, tmp_path: Path) -> None:
    Path("r.yaml").write_text(f"name: {json.dumps(name)}\nmodel: x\n")
    code, _, err = spot("run", "r.yaml")
    assert code == 2
    assert err.startswith("r.yaml:1: name: expected ")
    assert [path.name for path in tmp_path.iterdir()] == ["r.yaml"]


def test_standard_input_is_read(spot: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def given(*rows: dict[str, Any]) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines(*rows))))

    given(SAMPLE | {"response": "1 + 1 = 3\n\\boxed{3}"})
    assert spot("rectify", "-", "--oracle", "symbolic")[0] == 0
    given(*jsonl.rows(Path("data.jsonl")))
    code, out, _ = spot("inspect", "-")
    assert (code, "1 pair\n" in out) == (0, True)
    for _ in range(2):  # the second time it resumes
        given(KINDS["answers"])
        assert spot("sample", "--grade", "-", "-o", "graded.jsonl")[0] == 0
    assert [row["response"] for row in jsonl.rows(Path("graded.jsonl"))] == ["It is 3."]


@pytest.mark.parametrize("name", ["symbolc", "humna", "gtp-4o"])
def test_a_misspelled_oracle_is_suggested_before_a_file_exists(spot: Run, name: str) -> None:
    Path("samples.jsonl").write_bytes(lines(SAMPLE))
    code, _, err = spot("rectify", "--oracle", name)
    near = {"symbolc": "symbolic", "humna": "human", "gtp-4o": "gpt-4o"}[name]
    assert (code, f"did you mean '{near}'?" in err) == (2, True)
    assert [path.name for path in Path().iterdir()] == ["samples.jsonl"]


def test_a_misspelled_model_folder_asks_no_hub(spot: Run, tiny_model: Path) -> None:
    Path("policy").symlink_to(tiny_model)
    for name in ("./polcy", "polcy"):
        code, _, err = spot("sample", "builtin:arithmetic", "--model", name)
        assert code == 2
        assert len(err.splitlines()) == 2
        assert "did you mean the folder 'policy'?" in err
    assert [path.name for path in Path().iterdir()] == ["policy"]


BLOCK = """
import importlib.abc, os, sys
class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == os.environ["BLOCKED"]:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Blocked())
"""


@pytest.mark.parametrize(
    ("package", "command"),
    [
        ("torch", ["sample", "builtin:arithmetic", "--model", "MODEL"]),
        ("vllm", ["sample", "builtin:arithmetic", "--model", "MODEL", "--engine", "vllm"]),
        ("litellm", ["sample", "builtin:arithmetic", "--model", "m", "--base-url", "http://127.0.0.1:9/v1"]),
        ("torch", ["eval", "MODEL"]),
        ("transformers", ["train", "RECIPE"]),
        ("peft", ["train", "RECIPE", "-s", "train.lora={r: 2}"]),
        ("deepspeed", ["train", "RECIPE", "-s", "train.processes=2"]),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_an_absent_package_is_reported_before_anything_is_written(
    tmp_path: Path, tiny_model: Path, package: str, command: list[str]
) -> None:
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(BLOCK)
    work = tmp_path / "work"
    work.mkdir()
    recipe = tmp_path / "r.yaml"
    data = tmp_path / "data.jsonl"
    data.write_bytes(lines(ROW))
    recipe.write_text(f"model: {tiny_model}\ntrain: {{data: {data}, output: {work}/checkpoint}}\n")
    names = {"MODEL": str(tiny_model), "RECIPE": str(recipe)}
    path = f"{tmp_path / 'hook'}:{os.environ.get('PYTHONPATH', '')}"
    done = subprocess.run(
        [sys.executable, "-m", "spotcli", *(names.get(part, part) for part in command)],
        cwd=work,
        env=os.environ | {"PYTHONPATH": path, "BLOCKED": package, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    problem, cure = done.stderr.splitlines()
    assert "not installed" in problem
    assert cure.startswith("  cure: pip install")
    assert list(work.iterdir()) == []


@pytest.mark.parametrize("command", ["sample", "grade", "rectify", "self", "export", "inspect", "train", "eval", "run"])
def test_an_output_below_a_file_is_one_message(spot: Run, tiny_model: Path, command: str) -> None:
    Path("file").write_text("kept")
    Path("samples.jsonl").write_bytes(lines(SAMPLE))
    Path("data.jsonl").write_bytes(lines(ROW))
    Path("recipe.yaml").write_text(f"model: {tiny_model}\ntrain: {{data: data.jsonl, batch_size: 1}}\n")
    model = str(tiny_model)
    out = {
        "sample": ["sample", "builtin:arithmetic", "--model", model, "--limit", "1", "-o", "file/x.jsonl"],
        "grade": ["sample", "--grade", "samples.jsonl", "-o", "file/x.jsonl"],
        "rectify": ["rectify", "--oracle", "symbolic", "-o", "file/x.jsonl"],
        "self": ["rectify", "--mode", "self", "-o", "file/x.jsonl"],
        "export": ["rectify", "--export", "file/x.jsonl"],
        "inspect": ["inspect", "--html", "file/x.html"],
        "train": ["train", "recipe.yaml", "-s", "train.output=file/x"],
        "eval": ["eval", model, "--limit", "1", "-o", "file/x"],
        "run": ["run", "recipe.yaml", "-o", "file/x"],
    }[command]
    code, _, err = spot(*out)
    assert code == 2
    *_, problem, cure = err.splitlines()
    assert problem.startswith("file")
    assert cure.startswith("  cure: ")
    assert Path("file").read_text() == "kept"


@pytest.mark.parametrize("command", ["sample", "grade", "rectify", "self", "export", "inspect", "train", "eval", "run"])
def test_an_output_of_the_wrong_kind_is_one_message(spot: Run, tiny_model: Path, command: str) -> None:
    Path("file").write_text("kept")
    Path("folder").mkdir()
    Path("samples.jsonl").write_bytes(lines(SAMPLE))
    Path("data.jsonl").write_bytes(lines(ROW))
    Path("recipe.yaml").write_text(f"model: {tiny_model}\ntrain: {{data: data.jsonl, batch_size: 1}}\n")
    model = str(tiny_model)
    arguments = {
        "sample": ["sample", "builtin:arithmetic", "--model", model, "--limit", "1", "-o", "folder"],
        "grade": ["sample", "--grade", "samples.jsonl", "-o", "folder"],
        "rectify": ["rectify", "--oracle", "symbolic", "-o", "folder"],
        "self": ["rectify", "--mode", "self", "-o", "folder"],
        "export": ["rectify", "--oracle", "human", "--export", "folder"],
        "inspect": ["inspect", "--html", "folder"],
        "train": ["train", "recipe.yaml", "-s", "train.output=file"],
        "eval": ["eval", model, "--limit", "1", "-o", "file"],
        "run": ["run", "recipe.yaml", "-o", "file"],
    }[command]
    wanted, got = ("folder", "file") if command in ("train", "eval", "run") else ("file", "folder")
    before = {path.name for path in Path().iterdir()}
    code, _, err = spot(*arguments)
    *_, problem, cure = err.splitlines()
    assert (code, problem) == (2, f"{got}: expected a {wanted}, got a {got}")
    assert cure.startswith("  cure: ")
    assert (Path("file").read_text(), list(Path("folder").iterdir())) == ("kept", [])
    assert {path.name for path in Path().iterdir()} - before <= {"data.replies.jsonl", "data.meta.json"}


@pytest.mark.parametrize("size", [0, 300, 2000])
def test_a_full_disk_is_one_message_with_the_file(tmp_path: Path, size: int) -> None:
    (tmp_path / "samples.jsonl").write_bytes(
        lines(*(SAMPLE | {"id": str(number), "response": "1 + 1 = 3\n\\boxed{3}"} for number in range(40)))
    )
    limited = "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
    limited += f"resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size})); "
    limited += "sys.argv = ['spot', 'rectify', '--oracle', 'symbolic']; from spotcli.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-B", "-c", limited], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    *_, problem, cure = done.stderr.splitlines()
    assert (done.returncode, cure.startswith("  cure: ")) == (2, True)
    name, _, message = problem.partition(": ")
    assert message.lower().endswith("file too large")
    assert Path(name).name.lstrip(".").startswith("data.")


def test_a_result_that_cannot_be_printed_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").write_bytes(lines(ROW))
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "spotcli", "inspect", "--json"],
            cwd=tmp_path,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
            check=False,
        )
    assert (done.returncode, done.stderr.splitlines()[0]) == (2, "no space left on device")


def test_a_full_disk_in_training_is_one_message(tmp_path: Path, tiny_model: Path) -> None:
    (tmp_path / "data.jsonl").write_bytes(lines(*(ROW | {"id": str(number)} for number in range(4))))
    (tmp_path / "r.yaml").write_text(
        f"model: {tiny_model}\ntrain: {{data: data.jsonl, batch_size: 4, num_train_epochs: 1, output: checkpoint}}\n"
    )
    limited = "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
    limited += "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)); "
    limited += "sys.argv = ['spot', 'train', 'r.yaml']; from spotcli.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", limited], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 2, done.stderr
    assert "file too large" in done.stderr
    assert "Traceback" not in done.stderr
