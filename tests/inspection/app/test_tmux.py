"""The application as a person uses it, in tmux: what is shown, what is on disk, and what a kill leaves."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import spotcli
from spotcli.decisions import review_path
from tests.inspection.app.test_application import editor, events, rows, states
from tests.inspection.example_pairs import write_rows
from tests.tmux import TMUX, Pane, pane

pytestmark = pytest.mark.skipif(TMUX is None, reason="tmux is not installed")

SOURCE = str(Path(str(spotcli.__file__)).parents[1])
COMMAND = [sys.executable, "-m", "spotcli", "inspect", "data.jsonl"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "data.jsonl", rows())


@pytest.fixture
def terminal() -> Iterator[Pane]:
    with pane() as opened:
        yield opened


def start(terminal: Pane, path: Path, footer: str = "0 decided, 6 left") -> None:
    edit = editor(path.parent, r"text = 'Seen and corrected: \\boxed{4}\n'; print('EDITOR', text)")
    env = {"NO_COLOR": "", "PYTHONPATH": SOURCE, "EDITOR": edit, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    terminal.start(COMMAND, path.parent, (80, 24), env)
    terminal.shows(footer)


def test_open_filter_jump_accept_edit_undo_quit_and_reopen(terminal: Pane, path: Path) -> None:
    start(terminal, path)
    screen = terminal.shows("data.jsonl  1/6", "> line 5 of the answer is new")
    assert [len(line) > 80 for line in screen.splitlines()] == [False] * 24
    terminal.type("n")
    terminal.shows("> line 35 of the answer is new")
    terminal.type("fratio>0.25\n")
    terminal.shows("1/3  filter ratio>0.25", "Question 3?")
    terminal.type("a")
    terminal.shows("1 decided, 5 left")
    assert states(path) == [None, None, None, "accept", None, None]
    terminal.type("]")
    terminal.shows("2/3", "Question 4?")
    terminal.type("r2")
    terminal.shows("reject: false step", "2 decided")
    terminal.type("]x")
    terminal.shows("edited: y+ right", "line 0 of the answer⏎")
    assert states(path)[3:] == ["accept", "reject", "edited"]
    terminal.type("u")
    terminal.shows("undone: the decision about 1 pair", "line 5 of the answer is new")
    terminal.press("Escape")
    terminal.type("?")
    terminal.shows("accept the pair")
    terminal.type("qq")
    # The user's screen is back.
    terminal.until(lambda screen: "spotcli inspect data.jsonl" in screen and "decided" not in screen)
    assert states(path) == [None, None, None, "accept", "reject", None]
    terminal.type("clear; " + " ".join(COMMAND) + "\n")
    screen = terminal.shows("2 decided, 4 left", "1/6")
    assert re.search(r"0\.300 .*right gpt-4o accept", screen)
    terminal.press("C-c")
    terminal.until(lambda screen: "decided" not in screen)


def test_the_mouse(terminal: Pane, path: Path) -> None:
    start(terminal, path)
    terminal.mouse(0, 4, 6)  # the title, the head of the list, rows 0 to 3
    terminal.shows("4/6", "Question 3?")
    terminal.type("z")
    terminal.until(lambda screen: "lines without edits" not in screen)
    before = terminal.screen
    terminal.mouse(65, 60, 12)
    terminal.until(lambda screen: screen != before and "change ratio" not in screen)
    terminal.mouse(64, 60, 12)
    terminal.shows("change ratio")


KEYS = {
    "a": ("a", "1 decided", ["accept", *[None] * 5]),
    "r": ("r2", "1 decided", ["reject", *[None] * 5]),
    "r without a reason": ("r\n", "1 decided", ["reject", *[None] * 5]),
    "x": ("x", "1 decided", ["edited", *[None] * 5]),
    "u": ("aju", "0 decided", [None] * 6),
    "A": ("Ay", "6 decided", ["accept"] * 6),
    "R": ("Ry", "6 decided", ["reject"] * 6),
}
"""Keys, what the footer then shows, and the decisions that must be on disk."""


@pytest.mark.parametrize("name", KEYS)
def test_what_is_shown_is_on_disk_after_a_kill(name: str, terminal: Pane, path: Path) -> None:
    keys, shown, expected = KEYS[name]
    start(terminal, path)
    terminal.type(keys[:-1])
    if len(keys) == 3:
        terminal.shows("1 decided")
    terminal.type(keys[-1])
    terminal.until(lambda screen: shown in screen or "edited" in screen or "undone" in screen)
    terminal.kill()
    assert states(path) == expected
    assert review_path(path).read_bytes().endswith(b"\n")
    if name == "x":
        assert events(path)[0]["chosen"] == r"Seen and corrected: \boxed{4}"
    # The next start has neither a lock nor a damaged line in its way.
    left = sum(state is None for state in expected)
    start(terminal, path, f"{6 - left} decided, {left} left")
    terminal.type("ja")
    terminal.until(lambda screen: states(path)[1] == "accept")
