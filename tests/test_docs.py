"""The commands and recipes on the pages: each one is accepted by the command line that it describes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from spotcli.cli import app
from spotcli.evaluation.tasks.problem_sets import TaskFile
from spotcli.recipe_yaml import load, load_section

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
GENERATED = {"cli.md", "recipe.md"}


def code_lines(text: str) -> Iterator[str]:
    """Lines of the indented and fenced blocks."""
    fenced = False
    for line in text.splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    "):
            yield line.strip()


def commands(text: str, program: str) -> Iterator[list[str]]:
    """The arguments of each call of a program in code; what follows a comment or an arrow is left out."""
    for line in code_lines(text):
        for part in re.split(r" && | \| |; ", re.split(r"\s+#|\s{2,}", line)[0]):
            start = re.match(rf"(?:[A-Z_]+=\S+ )*(?:\S*/bin/)?{program} (.*)", part)
            if start and not re.search(r"\.\.\.|\[OPTIONS\]", part):
                yield shlex.split(start[1])


CALLS = [
    pytest.param(call, id=f"{page.name}: {' '.join(call)}"[:120])
    for page in PAGES
    for call in commands(page.read_text(encoding="utf-8"), "spot")
]


def test_many_commands_are_found() -> None:
    assert len(CALLS) > 100
    assert {call.values[0][0] for call in CALLS if isinstance(call.values[0], list)} >= {
        *("sample", "rectify", "inspect", "train", "eval", "run", "plan", "init")
    }


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
    called = {call[1] for call in commands(page.read_text(encoding="utf-8"), "nox") if call[0] == "-s"}
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
