"""SPOT_* variables, ``-v`` and ``-q``, and colors: the real application, in this process."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from spotcli import console
from spotcli.cli import app
from spotcli.environment import PREFIX, SHARED, WITHOUT, variable
from spotcli.errors import UserError
from spotcli.recipe_yaml import Environment, load
from tests.conftest import ROOT, write_rows
from tests.test_cli import COMMANDS, parameters_by_command

WRONG = {
    "id": "1",
    "prompt": "What is 17 * 6?",
    "answer": "102",
    "response": "17 * 6 = 112\n\\boxed{112}",
    "verdict": "wrong",
}


@pytest.fixture
def samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with one wrong answer; it is the current folder."""
    monkeypatch.chdir(tmp_path)
    yield write_rows(tmp_path / "samples.jsonl", [WRONG])
    console.set_verbosity("normal")


def invoke(*arguments: str, **variables: str) -> Any:
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "300", **variables})


def sources(folder: Path) -> str:
    return (folder / "data.meta.json").read_text()


# Names


def test_every_option_has_a_variable_of_its_own() -> None:
    names = [
        name
        for command, parameters in parameters_by_command().items()
        for parameter in parameters
        if (name := variable(command, parameter))
    ]
    assert len(names) == len(set(names)) > 100
    assert {"SPOT_RECTIFY_ORACLE", "SPOT_EVAL_TASK", "SPOT_SAMPLE_PROBLEMS", "SPOT_RECTIFY_IMPORT"} <= set(names)
    assert {"SPOT_TRAIN_SET", "SPOT_RUN_JSON", "SPOT_PUSH_YES", "SPOT_EVAL_MODEL", "SPOT_MERGE_QUIET"} <= set(names)
    # Variables with other meanings: in the package, the tests and noxfile.py.
    code = [*(ROOT / "src").rglob("*.py"), *(ROOT / "tests").glob("*.py"), ROOT / "noxfile.py"]
    used = {name for path in code for name in re.findall(r'"(SPOT_[A-Z_]+)"', path.read_text(encoding="utf-8"))}
    own = {"SPOT_CACHE", "SPOT_PARENT", "SPOT_RANKS", "SPOT_VLLM_PYTHON", "SPOT_SLOW", "SPOT_SHARED"}
    assert own <= used
    assert not any(name.startswith(f"{PREFIX}{command.upper()}_") for name in own for command in COMMANDS)
    assert own.isdisjoint({*names, *SHARED.values()})


def test_options_that_replace_the_work_have_no_variable() -> None:
    group: Any = typer.main.get_command(app)
    assert {parameter.name for parameter in group.params} <= WITHOUT
    assert invoke("merge", "--help", SPOT_MERGE_HELP="1", SPOT_VERSION="1.2").exit_code == 0


# Values


def test_a_variable_sets_an_option_and_is_its_recorded_source(samples: Path) -> None:
    done = invoke("rectify", SPOT_RECTIFY_ORACLE="symbolic", SPOT_RECTIFY_CUT="yes", SPOT_RECTIFY_JSON="1")
    assert done.exit_code == 0, done.output
    assert '"pairs": 1' in done.stdout
    # Resumed with the same value from the command line: only values are compared.
    assert invoke("rectify", "--oracle", "symbolic", "--cut").exit_code == 0


def test_the_command_line_precedes_variables_and_those_the_recipe(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text("rectify: {gamma: 0.1, attempts: 1, oracle: human, target: 1}\nseed: 1\n")
    environment = Environment(
        {"rectify.gamma": "SPOT_RECTIFY_GAMMA", "rectify.attempts": "SPOT_RECTIFY_ATTEMPTS"},
        ["rectify.oracle=symbolic", "rectify.attempts=4", "rectify.target=7"],
        "SPOT_RECTIFY_SET",
    )
    options = {"rectify.gamma": 0.2, "rectify.attempts": 5, "rectify.cut": True}
    recipe = load(file, ["rectify.gamma=0.3", "rectify.oracle=policy"], options, environment)
    rectify = recipe.rectify
    assert (rectify.gamma, rectify.attempts, rectify.oracle, rectify.target, rectify.cut) == (0.3, 5, "policy", 7, True)
    assert recipe.sources == {
        "rectify": f"{file}:1",
        "rectify.gamma": "-s rectify.gamma=0.3",
        "rectify.attempts": "$SPOT_RECTIFY_ATTEMPTS",
        "rectify.oracle": "-s rectify.oracle=policy",
        "rectify.target": "$SPOT_RECTIFY_SET rectify.target=7",
        "rectify.cut": "--cut",
        "seed": f"{file}:2",
    }


def test_all_layers_together(samples: Path) -> None:
    Path("r.yaml").write_text("rectify: {gamma: 0.1, oracle: human}\n")
    done = invoke(
        *("rectify", "--recipe", "r.yaml", "-v", "-s", "rectify.attempts=2", "--seed", "3"),
        SPOT_RECTIFY_ORACLE="symbolic",
        SPOT_RECTIFY_SET='rectify.attempts=9 "rectify.params={reasoning_effort: low}"',
        SPOT_RECTIFY_SEED="8",
    )
    assert done.exit_code == 0, done.output
    for line in (
        "rectify.gamma: r.yaml:1",
        "rectify.oracle: $SPOT_RECTIFY_ORACLE",
        "rectify.attempts: -s rectify.attempts=2",
        "rectify.params.reasoning_effort: $SPOT_RECTIFY_SET rectify.params",
        "seed: --seed",
    ):
        assert line in done.stderr.splitlines()


def test_values_of_a_repeatable_option_are_split_as_by_a_shell(samples: Path) -> None:
    write_rows(samples.with_name("two words.jsonl"), [{"prompt": "1 + 1", "answer": "2"}])
    done = invoke("init", "--yes", SPOT_INIT_TASK="arithmetic 'two words.jsonl'")
    assert done.exit_code == 0, done.output
    assert load(Path("recipe.yaml")).eval.tasks == ["arithmetic", "two words.jsonl"]


def test_an_empty_variable_is_not_set(samples: Path) -> None:
    done = invoke("rectify", "--oracle", "symbolic", SPOT_RECTIFY_GAMMA="", SPOT_RECTIFY_THEN="", SPOT_RECTIFY_SET="")
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("SPOT_RECTIFY_CONCURRENCY", "many", "valid integer"),
        ("SPOT_RECTIFY_MODE", "exact", "'surgery', 'direct', 'self'"),
        ("SPOT_RECTIFY_CUT", "maybe", "valid boolean"),
        ("SPOT_RECTIFY_SET", "'a=1", "No closing quotation"),
        ("SPOT_RECTIFY_THEN", '"human', "No closing quotation"),
        ("SPOT_QUIET", "perhaps", "valid boolean"),
    ],
)
def test_an_invalid_value_is_reported_with_its_variable(samples: Path, name: str, value: str, message: str) -> None:
    done = invoke("rectify", **{name: value})
    assert done.exit_code == 2
    assert f"the environment variable {name}: " in done.stderr
    assert message in done.stderr


@pytest.mark.parametrize(
    ("name", "value", "where"),
    [
        ("SPOT_RECTIFY_GAMMA", "2", "$SPOT_RECTIFY_GAMMA"),
        ("SPOT_RECTIFY_SET", "rectify.gama=1", "$SPOT_RECTIFY_SET rectify.gama=1"),
        ("SPOT_RECTIFY_SET", "rectify.gamma=[1", "$SPOT_RECTIFY_SET rectify.gamma=[1"),
    ],
)
def test_a_value_that_the_recipe_refuses_is_reported_with_its_variable(
    samples: Path, name: str, value: str, where: str
) -> None:
    done = invoke("rectify", **{name: value})
    assert isinstance(done.exception, UserError)
    assert done.exception.where == where


def test_a_misspelled_variable_is_reported(samples: Path) -> None:
    done = invoke("rectify", "--oracle", "symbolic", SPOT_RECTIFY_ORCALE="human", SPOT_RECTIFY_XYZ="1", SPOT_CACHE="/x")
    assert (
        "SPOT_RECTIFY_ORCALE is set, but spot rectify has no such option; did you mean SPOT_RECTIFY_ORACLE?"
        in done.stderr
    )
    assert "SPOT_RECTIFY_XYZ is set, but spot rectify has no such option\n" in done.stderr
    assert "SPOT_CACHE" not in done.stderr


# How much is printed


def test_quiet_prints_results_and_errors_only(samples: Path) -> None:
    loud = invoke("rectify", "--oracle", "symbolic")
    assert "change ratios count words" in loud.stderr
    for arguments, variables in ((["-q"], {}), ([], {"SPOT_QUIET": "1"}), ([], {"SPOT_RECTIFY_QUIET": "1"})):
        quiet = invoke("rectify", "--oracle", "symbolic", "--fresh", *arguments, **variables)
        assert quiet.stderr == ""
        assert "Pairs" in quiet.stdout
    failed = invoke("rectify", "nowhere.jsonl", "--oracle", "symbolic", "-q")
    assert isinstance(failed.exception, UserError)


def test_verbose_prints_sources_and_files(samples: Path) -> None:
    plain, verbose = invoke("rectify", "--oracle", "symbolic"), invoke("rectify", "--oracle", "symbolic", "-v")
    assert "--oracle" not in plain.stderr
    assert "rectify.oracle: --oracle" in verbose.stderr
    assert "data.jsonl: resumed" in verbose.stderr
    # The next command of the same process is not verbose any more.
    assert "--oracle" not in invoke("rectify", "--oracle", "symbolic").stderr


def test_verbose_and_quiet_are_exclusive_unless_one_is_a_variable(samples: Path) -> None:
    both = invoke("rectify", "--oracle", "symbolic", "-v", "-q")
    assert both.exit_code == 2
    assert "mutually exclusive" in both.stderr
    assert invoke("rectify", "--oracle", "symbolic", "-q", SPOT_VERBOSE="1").stderr == ""
    assert "rectify.oracle" in invoke("rectify", "--oracle", "symbolic", "-v", SPOT_QUIET="1").stderr


def test_every_command_has_both(samples: Path) -> None:
    for command, parameters in parameters_by_command().items():
        assert {"--verbose", "--quiet"} <= {flag for parameter in parameters for flag in parameter.opts}, command


# Colors


def test_colors_follow_the_environment(samples: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variables, escapes, colors in (
        ({}, False, False),
        ({"FORCE_COLOR": "1"}, True, True),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, True, False),
        ({"FORCE_COLOR": "1", "TERM": "dumb"}, False, False),
        ({"NO_COLOR": "1"}, False, False),
    ):
        for name in ("FORCE_COLOR", "NO_COLOR", "TERM"):
            monkeypatch.delenv(name, raising=False)
        printed = invoke("rectify", "--oracle", "symbolic", "--fresh", **{"TERM": "xterm-256color", **variables})
        assert ("\x1b[" in printed.stderr) is escapes, variables
        assert bool(re.search(r"\x1b\[[\d;]*3\dm", printed.stderr)) is colors, variables
        assert "\x1b[" not in invoke("rectify", "--oracle", "symbolic", "--json", **variables).stdout


@pytest.mark.parametrize("variables", [{"FORCE_COLOR": "1"}, {"TERM": "dumb"}])
def test_progress_is_written_as_lines_where_it_cannot_be_redrawn(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(console, "LINE_PAUSE", 0.0)
    if "TERM" in variables:  # a terminal
        monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with console.progress("answers") as display:
        task = display.add_task("sample", total=10, note="")
        for _ in range(10):
            display.advance(task)
    written = capsys.readouterr().err
    assert "sample: 10 of 10 answers" in written
    assert not re.search(r"\x1b\[(\d*[A-HJK]|\?25)", written)  # no cursor movement
