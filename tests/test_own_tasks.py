"""The example of docs/own-tasks.md: its files are written, and its commands print what the page shows."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from spotcli import jsonl
from spotcli.cli import app
from spotcli.grading.kinds import get_grader
from spotcli.records import Sample
from tests.conftest import write_rows

PAGE = (Path(__file__).parent.parent / "docs" / "own-tasks.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    assert found
    return found[1]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files of the page."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "clock", raising=False)
    for name, language in (("problems.jsonl", "json"), ("clock.py", "python"), ("recipe.yaml", "yaml")):
        assert f"`{name}`" in PAGE
        (tmp_path / name).write_text(block(language), encoding="utf-8")
    return tmp_path


def test_the_grader_of_the_page_gives_the_verdicts_that_the_page_shows(folder: Path) -> None:
    problems = [json.loads(line) for line in (folder / "problems.jsonl").read_text().splitlines()]
    said = re.search(r"For the three answers (.*?), the file has", PAGE, re.DOTALL)
    assert said
    texts = [" ".join(text.split()) for text in re.findall(r'"(.*?)"', said[1], re.DOTALL)]
    rows = [problem | {"response": text} for problem, text in zip(problems, texts, strict=True)]
    write_rows(folder / "answers.jsonl", rows)
    done = CliRunner().invoke(app, ["sample", "--recipe", "recipe.yaml", "--grade", "answers.jsonl"])
    assert done.exit_code == 0, done.output
    graded = list(jsonl.read(folder / "samples.jsonl", Sample))
    assert [(row.verdict, row.extracted) for row in graded] == [
        ("right", "11:25"), ("wrong", "22:25"), ("undecided", None),
    ]  # fmt: skip
    shown = CliRunner().invoke(app, ["inspect", "samples.jsonl", "--limit", "0"]).stdout
    expected = re.search(r"```\n(samples\.jsonl  3 samples\n.*?)```", PAGE, re.DOTALL)
    assert expected
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    assert [line for line in expected[1].splitlines() if " ".join(line.split()) not in lines] == []


def test_the_grader_of_the_page_reads_both_clocks(folder: Path) -> None:
    check = get_grader("clock:check")
    right = ("It ends at 7:30 pm.", "19:30", "from 18:00 to 7:30 P.M.")
    assert [check(text, "19:30").verdict for text in right] == ["right"] * 3
    assert [check(text, "0:10").verdict for text in ("12:10 am", "12:10 pm", "at noon")] == [
        "right", "wrong", "undecided",
    ]  # fmt: skip
