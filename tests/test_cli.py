"""The command line, run as real processes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from spotcli import __version__, recipe
from spotcli.cli import app, main
from spotcli.options import PANELS, help_text
from spotcli.recipe_yaml import load
from tests.conftest import write_rows

COMMANDS = (
    *("init", "sample", "rectify", "inspect", "train", "eval", "merge", "push", "run", "plan", "status"),
    *("export", "trace", "why", "diff"),
)


def spot(*arguments: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")}
    environment |= {"OMP_NUM_THREADS": "1", "COLUMNS": "100", "NO_COLOR": "1", **env}
    command = [sys.executable, "-m", "spotcli", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=False)


def parameters_by_command() -> dict[str, list[Any]]:
    group: Any = typer.main.get_command(app)
    return {name: command.get_params(typer.Context(command)) for name, command in group.commands.items()}


def complete(*words: str, cwd: Path) -> list[str]:
    """Return what the shell offers for the last word of ``spot WORDS``."""
    probe = [sys.executable, "-c", "import sys; sys.argv = ['spot']; from spotcli.cli import main; main()"]
    environment = os.environ | {
        "_SPOT_COMPLETE": "complete_bash",
        "COMP_WORDS": " ".join(("spot", *words)),
        "COMP_CWORD": str(len(words)),
    }
    done = subprocess.run(probe, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=False)
    return done.stdout.split()


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    probe = (
        "import sys; sys.argv = ['spot', '--help']\n"
        "from spotcli.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "names = {'torch', 'litellm', 'transformers', 'datasets', 'vllm', 'pydantic', 'sympy', 'textual'}\n"
        "heavy = names & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    for command in COMMANDS:
        assert command in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_has_an_example(command: str, tmp_path: Path) -> None:
    done = spot(command, "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert f"spot {command} " in done.stdout.partition("Arguments")[2]


def test_the_list_of_options_is_frozen() -> None:
    # Options are public: add new ones here deliberately; none may disappear by accident.
    every = {"--json", "--verbose", "--quiet"}
    common = every | {"--recipe"}
    frozen = {
        "init": every
        | {"--template", "--list", "--schema", "--model", "--problems", "--oracle", "--task", "--base-url"}
        | {"--gpus", "--gpu-memory", "--yes", "--force"},
        "sample": common
        | {"--model", "--output", "--engine", "--trials", "--limit", "--temperature", "--max-new-tokens"}
        | {"--thinking", "--keep-tokens", "--base-url", "--concurrency", "--workers", "--python"}
        | {"--decontaminate", "--shard", "--merge", "--grade", "--set", "--seed", "--fresh"},
        "rectify": common
        | {
            "--oracle",
            "--output",
            "--mode",
            "--gamma",
            "--keep",
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
            "--continuations",
            "--search",
            "--push-to-hub",
            "--yes",
        }
        | {"--batch", "--batch-size", "--batch-wait"}
        | {"--replay", "--export", "--import", "--base-url", "--tokenizer", "--dry-run", "--set", "--seed", "--fresh"},
        "inspect": common
        | {
            "--against",
            "--id",
            "--where",
            "--html",
            "--limit",
            "--sample",
            "--seed",
            "--sort",
            "--tokens",
            "--surprise",
        },
        "train": every | {"--set", "--dry-run", "--device", "--mfu", "--seed", "--fresh"},
        "eval": common
        | {"--task", "--data-dir", "--against", "--trials", "--limit", "--output", "--set", "--seed", "--fresh"}
        | {"--also", "--rescore", "--dry-run", "--margin", "--engine", "--base-url", "--concurrency", "--python"}
        | {
            "--workers",
            "--temperature",
            "--max-new-tokens",
            "--thinking",
            "--keep-tokens",
            "--inspect-log",
            "--published",
        },
        "merge": every | {"--output", "--dtype"},
        "push": every | {"--to", "--samples", "--public", "--license", "--dry-run", "--yes"},
        "run": every | {"--set", "--output", "--seed", "--fresh", "--from", "--until", "--max-hours", "--max-cost"},
        "plan": every | {"--set", "--output", "--seed", "--no-probe", "--device", "--max-hours", "--max-cost"},
        "status": every,
        "export": every | {"--for", "--model", "--output", "--grader", "--limit"},
        "trace": every | {"--in", "--full"},
        "why": every,
        "diff": every,
    }
    seen = {
        name: {
            next(flag for flag in parameter.opts if flag.startswith("--"))
            for parameter in parameters
            if parameter.param_type_name == "option" and "--help" not in parameter.opts
        }
        for name, parameters in parameters_by_command().items()
    }
    assert seen == frozen


def test_windows_is_refused_with_one_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert "cure: run it in WSL 2" in capsys.readouterr().err


def test_version(tmp_path: Path) -> None:
    assert spot("--version", cwd=tmp_path).stdout.strip() == __version__


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("rectify", "--oracle", "symbolic"), "samples.jsonl: file not found"),
        (("inspect", "nowhere.jsonl"), "nowhere.jsonl: file not found"),
        (("train", "nowhere.yaml"), "nowhere.yaml: recipe not found"),
        (("sample",), "a model is required"),
        (("sample", "builtin:arithmetic", "--model", "./nowhere"), "model folder not found"),
        (("sample", "builtin:algebra", "--model", "./nowhere"), "unknown built-in problem set 'builtin:algebra'"),
        (("eval", "./nowhere", "--task", "arithmetik"), "did you mean 'arithmetic'?"),
        (("sample", "-s", "sample.temprature=1"), "did you mean 'temperature'?"),
        (("rectify", "--recipe", "nowhere.yaml"), "nowhere.yaml: recipe not found"),
    ],
)
def test_a_user_error_is_one_message_and_exit_code_2(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    done = spot(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "cure:" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_a_missing_api_key_is_reported_before_any_request(tmp_path: Path) -> None:
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


def test_output_of_other_libraries_is_not_mixed_into_the_result(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "noisy.py").write_text("print('loading')\ndef check(response, reference):\n    print('checking')\n")
    done = spot(
        *("sample", "builtin:arithmetic", "--model", str(tiny_model), "--limit", "2", "--max-new-tokens", "4"),
        *("-s", "grader=noisy:check", "--json"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["answers"] == 2
    assert "loading" in done.stderr


def test_an_invalid_choice_is_refused_with_the_valid_ones(tmp_path: Path) -> None:
    done = spot("sample", "--engine", "gpu", cwd=tmp_path)
    assert done.returncode == 2
    for choice in ("auto", "vllm", "transformers", "api"):
        assert repr(choice) in done.stderr


def test_a_value_out_of_bounds_is_refused_with_its_flag(tmp_path: Path) -> None:
    done = spot("rectify", "--gamma", "2", cwd=tmp_path)
    assert done.returncode == 2
    assert "--gamma: input should be less than or equal to 1, got 2.0" in done.stderr


def test_commands_flags_and_choices_complete_in_the_shell(tmp_path: Path) -> None:
    assert complete("re", cwd=tmp_path) == ["rectify"]
    assert complete("sample", "--keep", cwd=tmp_path) == ["--keep-tokens"]
    assert complete("sample", "--engine", "", cwd=tmp_path) == ["auto", "vllm", "transformers", "api"]
    assert complete("rectify", "--mode", "d", cwd=tmp_path) == ["direct"]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_has_80_columns_and_room_for_the_text(command: str, tmp_path: Path) -> None:
    done = spot(command, "--help", cwd=tmp_path, COLUMNS="80")
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "╭─ Options" not in done.stdout  # every option is under a heading
    for line in done.stdout.splitlines():
        if line.startswith("│ --") and "--no-" not in line:
            # The widest name and placeholder leave more than half of the line to the help text.
            names = re.match(r"│ --[\w-]+ +(-\w +)?(\S+( \[\S+\])?  +)?", line)
            assert names
            assert names.end() <= 40


def test_every_option_of_the_recipe_shows_its_default() -> None:
    fields = {
        name: field
        for keys in ("sample", "rectify", "eval", "model", "seed")
        for name, field in recipe.options(keys).items()
    }
    assert len(fields) == 57
    for name, field in fields.items():
        option = recipe.option_of(field)
        assert option is not None
        assert field.default is False or re.search(r"default: [^;\]]+\]$", help_text(field, option)), name
        assert option.panel in PANELS


def test_an_option_is_recorded_as_the_source_of_its_value(tmp_path: Path) -> None:
    settings = load(None, ["sample.trials=2"], {"sample.trials": 3, "eval.tasks": ["arithmetic"]})
    assert settings.sources == {"sample.trials": "--trials", "eval.tasks": "--task"}
