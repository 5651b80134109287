"""The command line as its users meet it: real processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from spotcli import __version__
from spotcli.cli import app
from tests.conftest import write_rows

COMMANDS = ("sample", "rectify", "inspect", "train", "eval", "run")


def spot(*arguments: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")}
    environment |= {"OMP_NUM_THREADS": "1", "COLUMNS": "100", "NO_COLOR": "1", **env}
    command = [sys.executable, "-m", "spotcli", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    probe = (
        "import sys; sys.argv = ['spot', '--help']\n"
        "from spotcli.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'litellm', 'transformers', 'datasets', 'vllm', 'pydantic', 'sympy'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    for command in COMMANDS:
        assert command in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_teaches_by_example(command: str, tmp_path: Path) -> None:
    done = spot(command, "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert f"spot {command} " in done.stdout.partition("Options")[2]


def test_the_list_of_options_is_frozen() -> None:
    # A new option is a promise: it is added here on purpose, and none is ever taken away in passing.
    common = {"--json", "--recipe"}
    frozen = {
        "sample": common
        | {"--model", "--output", "--engine", "--trials", "--limit", "--temperature", "--max-new-tokens"}
        | {"--thinking", "--keep-tokens", "--base-url", "--concurrency", "--workers", "--python"}
        | {"--decontaminate", "--shard", "--merge", "--set", "--seed", "--fresh"},
        "rectify": common
        | {
            "--oracle",
            "--output",
            "--mode",
            "--gamma",
            "--reply",
            "--reference",
            "--max-cost",
            "--target",
            "--concurrency",
        }
        | {
            "--then",
            "--cut",
            "--attempts",
            "--rpm",
            "--tpm",
            "--max-tokens",
            "--temperature",
            "--price-in",
            "--price-out",
        }
        | {"--replay", "--export", "--import", "--base-url", "--tokenizer", "--dry-run", "--set", "--seed", "--fresh"},
        "inspect": common | {"--id", "--where", "--html", "--limit"},
        "train": {"--json", "--set", "--dry-run", "--device", "--mfu", "--seed", "--fresh"},
        "eval": common | {"--task", "--against", "--trials", "--limit", "--output", "--set", "--seed", "--fresh"},
        "run": {"--json", "--set", "--output", "--seed", "--fresh"},
    }
    group = typer.main.get_command(app)
    seen = {
        name: {
            next(option for option in parameter.opts if option.startswith("--"))
            for parameter in command.params
            if parameter.param_type_name == "option" and "--help" not in parameter.opts
        }
        for name, command in group.commands.items()
    }
    assert seen == frozen


def test_version(tmp_path: Path) -> None:
    assert spot("--version", cwd=tmp_path).stdout.strip() == __version__


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("rectify", "--oracle", "symbolic"), "samples.jsonl: there is no such file"),
        (("inspect", "nowhere.jsonl"), "nowhere.jsonl: there is no such file"),
        (("train", "nowhere.yaml"), "nowhere.yaml: there is no such recipe"),
        (("sample",), "a model is required"),
        (("sample", "builtin:arithmetic", "--model", "./nowhere"), "model folder not found"),
        (("sample", "builtin:algebra", "--model", "./nowhere"), "unknown built-in problem set 'builtin:algebra'"),
        (("eval", "./nowhere", "--task", "arithmetik"), "did you mean 'arithmetic'?"),
        (("sample", "-s", "sample.temprature=1"), "did you mean 'temperature'?"),
    ],
)
def test_a_users_mistake_is_one_clear_message_and_exit_code_2(
    arguments: tuple[str, ...], says: str, tmp_path: Path
) -> None:
    done = spot(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert says in done.stderr
    assert "cure:" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_a_missing_key_is_named_before_any_request(tmp_path: Path) -> None:
    row = {"id": "1", "prompt": "1 + 1", "answer": "2", "response": "\\boxed{3}", "verdict": "wrong"}
    write_rows(tmp_path / "samples.jsonl", [row])
    done = spot("rectify", "--oracle", "gpt-4o", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "OPENAI_API_KEY" in done.stderr
    assert "Traceback" not in done.stderr


def test_json_is_one_object_on_stdout(tiny_model: Path, tmp_path: Path) -> None:
    done = spot(
        *(
            "sample",
            "builtin:arithmetic",
            "--model",
            str(tiny_model),
            "--limit",
            "3",
            "--max-new-tokens",
            "4",
            "--json",
        ),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["answers"] == summary["right"] + summary["wrong"] + summary["undecided"] == 3


def test_what_others_print_is_not_mixed_into_the_result(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "noisy.py").write_text("print('loading')\ndef check(response, reference):\n    print('checking')\n")
    done = spot(
        *("sample", "builtin:arithmetic", "--model", str(tiny_model), "--limit", "2", "--max-new-tokens", "4"),
        *("-s", "grader=noisy:check", "--json"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["answers"] == 2
    assert "loading" in done.stderr
