"""The commands and recipes on the pages: each one is accepted by the command line that it describes."""

from __future__ import annotations

import re
import shlex
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from spotcli.cli import app, main
from spotcli.evaluation.tasks.problem_sets import TaskFile
from spotcli.recipe_yaml import load, load_section
from tests.page_commands import (
    PAGES,
    PROGRAM,
    ROOT,
    SHELLS,
    blocks,
    commands,
    inline_commands,
    page_commands,
)
from tests.page_folder import write_answers
from tests.page_rules import CASES, NOT_RUN, Case, case_of, is_known
from tests.test_cli import parameters_by_command

GENERATED = {"cli.md", "recipe.md"}
COMMANDS = [command for page in PAGES for command in page_commands(page)]


def calls(text: str, program: str) -> Iterator[list[str]]:
    """The arguments of each call of a program in a command."""
    for part in re.split(r" && | \| |; ", text):
        start = re.match(rf"(?:[A-Z_]+=\S+ )*(?:\S*/)?{program} (.*)", part)
        if start:
            yield shlex.split(start[1])


CALLS = [
    pytest.param(call, id=f"{command.place}: {' '.join(call)}"[:120])
    for command in COMMANDS
    for call in calls(command.text, "spot")
]


def test_many_commands_are_found() -> None:
    assert len(CALLS) > 100
    assert {call.values[0][0] for call in CALLS if isinstance(call.values[0], list)} >= {
        *("sample", "rectify", "inspect", "train", "eval", "run", "plan", "init")
    }


def test_every_command_is_executed_or_listed_with_the_reason() -> None:
    # A block of commands has only commands, or `$ ` before each of them.
    assert [command for command in COMMANDS if not PROGRAM.match(command.text)] == []
    assert [command for command in COMMANDS if not is_known(command)] == [], "list them in tests/page_rules.py"


def test_each_reason_is_that_of_a_command() -> None:
    texts = [command.text for command in COMMANDS]
    patterns = [pattern for pattern, _ in (*NOT_RUN, *CASES)]
    assert [pattern for pattern in patterns if not any(re.match(pattern, text) for text in texts)] == []


def test_no_command_is_hidden_below_other_lines() -> None:
    without = [block for page in PAGES for block in blocks(page) if block.language in SHELLS and not commands(block)]
    lines = [line for block in without for line in block.lines if "[OPTIONS]" not in line]
    assert [line for line in lines if re.match(r"(\$ )?spot [a-z]+ ", line)] == []


def test_options_in_the_text_of_the_pages_exist() -> None:
    options = {
        name: {"--help", *(flag for parameter in parameters for flag in (*parameter.opts, *parameter.secondary_opts))}
        for name, parameters in parameters_by_command().items()
    }
    texts = [text for page in PAGES for text in inline_commands(page)]
    assert len(texts) > 20
    unknown = [
        text
        for text in texts
        for word in text.split()[2:]
        if re.match("--?[a-z]", word) and word.partition("=")[0] not in options[text.split()[1]]
    ]
    assert unknown == []


def test_the_commands_of_inspect_show_what_the_page_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those that read pairs and samples; `nox -s newcomer -- pages` executes all commands as processes."""

    def execute(text: str) -> str:
        first, *filters = text.split(" | ")
        monkeypatch.setattr(sys, "argv", shlex.split(first))
        capsys.readouterr()
        interrupt = signal.getsignal(signal.SIGINT)
        try:
            with pytest.raises(SystemExit) as end:
                main()
        finally:
            signal.signal(signal.SIGINT, interrupt)  # a command that fails ignores it until the process ends
        assert end.value.code == expected.code, text
        printed = capsys.readouterr()
        lines = (printed.out or printed.err).splitlines(keepends=True)
        return "".join(lines[-int(filters[0].removeprefix("tail -n ")) :] if filters else lines)

    monkeypatch.setattr("spotcli.interrupts.end_with", lambda code: None)  # this process goes on
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    write_answers(tmp_path / "answers.jsonl")
    expected = Case()
    for text in ("spot sample --grade answers.jsonl", "spot rectify --oracle symbolic"):
        execute(text)
    compared = 0
    for command in page_commands(ROOT / "docs" / "inspect.md"):
        expected = case_of(command)
        readable = re.match(r"spot inspect (data|samples|data\.replies)\.jsonl", command.text)
        if readable and not expected.before and not re.search("--(sample|recipe|sort) ", command.text):
            assert command.missing_from(execute(command.text)) == []
            compared += bool(command.output)
    assert compared >= 3


@pytest.mark.parametrize("call", CALLS)
def test_a_command_on_a_page_is_valid(call: list[str]) -> None:
    group: Any = typer.main.get_command(app)
    name, *arguments = call
    if name.startswith("-"):  # of the program itself
        assert name in {flag for parameter in group.params for flag in parameter.opts}
    else:
        group.commands[name].make_context(name, arguments)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_session_on_a_page_exists(page: Path) -> None:
    sessions = set(re.findall(r"@nox\.session\ndef (\w+)", (ROOT / "noxfile.py").read_text(encoding="utf-8")))
    called = {call[1] for command in page_commands(page) for call in calls(command.text, "nox") if call[0] == "-s"}
    assert called <= sessions


RECIPES = [
    pytest.param(text, id=f"{page.name}-{number}")
    for page in PAGES
    if page.name not in GENERATED
    for number, text in enumerate(re.findall(r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL), 1)
]


@pytest.mark.parametrize("text", RECIPES)
def test_a_recipe_on_a_page_is_valid(text: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    sections = yaml.safe_load(text)
    if "problems" in sections:
        assert load_section(path, TaskFile, "a task file").problems
        return
    assert load(path).sources.keys() >= {key for key, value in sections.items() if not isinstance(value, dict)}
