"""Each key of the application alone: what is not yet so before the key is pressed is so after it.

A key that is bound and not in ``CASES`` fails the audit below.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
from textual import events
from textual.binding import Binding, BindingType
from textual.pilot import Pilot
from textual.widgets import Input

from spotcli.decisions import REASONS, review_path
from spotcli.inspection.app import dialogs
from spotcli.inspection.app.application import InspectApp
from spotcli.inspection.app.dialogs import HELP, ConfirmScreen, Line, LineScreen, ReasonScreen, TextScreen
from tests.conftest import ROOT
from tests.inspection.app.test_application import drive, editor, press, rows, screen, settle, states
from tests.inspection.app.test_application import events as decided
from tests.inspection.example_pairs import write_rows

COUNT = 6
"""Pairs of the file."""


@dataclass(frozen=True)
class Seen:
    """The application and its file, at one moment."""

    app: InspectApp
    path: Path

    @property
    def text(self) -> str:
        return screen(self.app)

    @property
    def row(self) -> int | None:
        """The row under the cursor."""
        return self.app.list.current

    @property
    def states(self) -> list[str | None]:
        return states(self.path)

    @property
    def last(self) -> dict[str, Any]:
        """The last event on disk."""
        return decided(self.path)[-1] if review_path(self.path).exists() else {}

    @property
    def is_main(self) -> bool:
        """Whether no dialog is open."""
        return self.app.screen is self.app.screen_stack[0]

    @property
    def scrolled(self) -> bool:
        return self.app.view.scroll_y > 0


@dataclass(frozen=True)
class Case:
    """A key, and what it changes."""

    screen: type[Any]
    """Where the key is bound."""
    key: str
    changed: Callable[[Seen], bool]
    """Whether the key has had its effect."""
    before: tuple[str, ...] = ()
    """Keys that are pressed first."""

    def __str__(self) -> str:
        return "-".join((self.screen.__name__, *self.before, self.key))


def dialog(kind: type[Any], text: str = "") -> Callable[[Seen], bool]:
    """Whether a dialog is open that shows a text."""
    return lambda seen: isinstance(seen.app.screen, kind) and text in seen.text


def line(text: str) -> Callable[[Seen], bool]:
    """Whether a line of input has a text."""
    return lambda seen: seen.app.screen.query_one(Input).value.strip() == text


def at(row: int) -> Callable[[Seen], bool]:
    return lambda seen: seen.row == row


def rejected(reason: str) -> Callable[[Seen], bool]:
    """Whether the last event is a rejection with a reason."""
    return lambda seen: seen.last.get("reason") == reason


def closed(seen: Seen) -> bool:
    """Whether no dialog is open, and nothing was decided."""
    return seen.is_main and not seen.last


def ended(seen: Seen) -> bool:
    return seen.app.return_code is not None


APP = [
    Case(InspectApp, "a", lambda seen: seen.states == ["accept", *[None] * 5]),
    Case(InspectApp, "r", dialog(ReasonScreen, "false step")),
    Case(InspectApp, "x", lambda seen: seen.last.get("chosen") == "by hand" and seen.states[0] == "edited"),
    Case(InspectApp, "u", lambda seen: seen.states == [None] * COUNT and seen.last["event"] == "undo", ("a",)),
    Case(InspectApp, "u", lambda seen: seen.states == [None] * COUNT, ("R", "y")),
    Case(InspectApp, "A", dialog(ConfirmScreen, "Accept 6 pairs?")),
    Case(InspectApp, "R", dialog(ConfirmScreen, "Reject 6 pairs?")),
    Case(InspectApp, "right_square_bracket", at(2), ("a", "j", "a", "k")),
    Case(InspectApp, "n", lambda seen: seen.app.view.edit == 1 and "> line 35" in seen.text),
    Case(InspectApp, "N", lambda seen: seen.app.view.edit == 0 and "> line 5 " in seen.text, ("n",)),
    Case(InspectApp, "slash", dialog(LineScreen, "search")),
    Case(InspectApp, "f", dialog(LineScreen, "filter")),
    Case(InspectApp, "s", lambda seen: " │ " in seen.text),
    Case(InspectApp, "z", lambda seen: "lines without edits" not in seen.text),
    Case(InspectApp, "o", dialog(TextScreen, "median 0.250")),
    Case(InspectApp, "question_mark", dialog(TextScreen, "accept the pair")),
    # The file names no policy; tests/inspection/app/test_token_keys.py shows tokens and computes a surprise.
    *(Case(InspectApp, key, lambda seen: "the policy is not known" in seen.text) for key in ("t", "T")),
    Case(InspectApp, "S", lambda seen: list(seen.app.list.rows) != list(range(COUNT)) or "by " in seen.text[:80]),
    *(Case(InspectApp, key, at(1)) for key in ("down", "j")),
    *(Case(InspectApp, key, at(4), ("G",)) for key in ("up", "k")),
    *(Case(InspectApp, key, at(0), ("j", "j")) for key in ("g", "home")),
    *(Case(InspectApp, key, at(5)) for key in ("G", "end")),
    *(Case(InspectApp, key, lambda seen: seen.scrolled, ("z",)) for key in ("space", "pagedown")),
    *(Case(InspectApp, key, lambda seen: not seen.scrolled, ("z", "space")) for key in ("b", "pageup")),
    *(Case(InspectApp, key, ended) for key in ("q", "ctrl+c", "ctrl+q")),
]

DIALOGS = [
    *(Case(ReasonScreen, str(number), rejected(reason), ("r",)) for number, reason in enumerate(REASONS, 1)),
    *(Case(ReasonScreen, key, lambda seen: seen.states[0] == "reject", ("r",)) for key in ("enter", "r")),
    *(Case(ReasonScreen, key, closed, ("r",)) for key in ("escape", "q")),
    Case(ConfirmScreen, "y", lambda seen: seen.states == ["accept"] * COUNT, ("A",)),
    Case(ConfirmScreen, "y", lambda seen: seen.states == ["reject"] * COUNT, ("R",)),
    *(Case(ConfirmScreen, key, closed, ("R",)) for key in ("n", "escape", "q")),
    *(Case(TextScreen, key, closed, ("question_mark",)) for key in ("escape", "q", "o", "question_mark", "enter")),
    *(Case(LineScreen, "escape", closed, (key,)) for key in ("slash", "f")),
    Case(LineScreen, "enter", at(4), ("slash", "?", "backspace", *"question", "space", "4")),
    Case(LineScreen, "enter", lambda seen: list(seen.app.list.rows) == [4, 5], ("f", *"ratio>.35")),
    Case(Line, "tab", line("ratio>"), ("f", *"rat")),
    Case(Line, "up", line("id~p"), ("f", *"id~p", "enter", "f", *"first>0")),
    Case(Line, "down", line("first>0"), ("f", *"id~p", "enter", "f", *"first>0", "up")),
    # Ctrl-C ends the application also from a dialog.
    *(Case(InspectApp, "ctrl+c", ended, (key,)) for key in ("r", "A", "o", "f")),
]

CASES = APP + DIALOGS


def bound(screen: type[Any]) -> set[str]:
    """The keys that we bind on a screen; not those of Textual's own classes."""
    classes = [kind for kind in screen.__mro__ if not kind.__module__.startswith("textual.")]
    bindings: Iterable[BindingType] = (binding for kind in classes for binding in vars(kind).get("BINDINGS", ()))
    keys = (binding.key if isinstance(binding, Binding) else binding[0] for binding in bindings)
    return {key.strip() for names in keys for key in names.split(",")}


SCREENS = [
    InspectApp,
    *(kind for kind in vars(dialogs).values() if isinstance(kind, type) and kind.__module__ == dialogs.__name__),
]


def untested(screen: type[Any]) -> set[str]:
    """The keys of a screen without a case."""
    return bound(screen) - {case.key for case in CASES if issubclass(screen, case.screen)}


@pytest.mark.parametrize("screen", SCREENS)
def test_every_key_has_a_case(screen: type[Any]) -> None:
    assert untested(screen) == set()


def test_a_key_without_a_case_is_found() -> None:
    class Another(InspectApp):
        BINDINGS: ClassVar[list[BindingType]] = [Binding("q,ctrl+y", "quit"), ("é", "quit", "")]

    assert untested(Another) == {"ctrl+y", "é"}


ALIASES = {"home", "end", "pagedown", "pageup", "ctrl+c", "ctrl+q"}
"""Keys that need no explanation."""
SIGNS = {"slash": "/", "question_mark": "?", "right_square_bracket": "]", "down": "↓", "up": "↑", "space": "Space"}


def test_help_and_docs_name_every_key() -> None:
    keys = {SIGNS.get(key, key) for key in bound(InspectApp) - ALIASES}
    first_columns = re.findall(r"(?m)^(\S.*?)(?:  | \(|$)", HELP)
    assert keys <= set(re.split(r"[\s,]+", " ".join(first_columns)))
    table = re.findall(r"(?m)^\| ([^|]+) \|", (ROOT / "docs" / "inspect.md").read_text(encoding="utf-8"))
    assert keys <= set(re.split(r"[\s,]+", " ".join(table).replace("`", "")))


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", editor(tmp_path, "text = 'by hand\\n'"))
    return write_rows(tmp_path / "data.jsonl", rows(COUNT))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_key(case: Case, path: Path) -> None:
    async def steps(app: InspectApp, pilot: Pilot[None]) -> None:
        if case.before:
            await press(app, pilot, *case.before)
        seen = Seen(app, path)
        assert not case.changed(seen)
        await pilot.press(case.key)
        for _ in range(100):
            if case.changed(seen):
                return
            await pilot.pause(0.02)
            await app.workers.wait_for_complete()
        raise AssertionError(screen(app))

    drive(path, steps)


async def wheel(pilot: Pilot[None], kind: type[events.MouseEvent], place: str) -> None:
    """Turn the wheel of the mouse over a widget."""
    await pilot._post_mouse_events([kind], widget=place, offset=(3, 3), button=0)


def test_the_mouse(path: Path) -> None:
    write_rows(path, rows(40))

    async def steps(app: InspectApp, pilot: Pilot[None]) -> None:
        await press(app, pilot, "z")
        await pilot.click("#rows", offset=(3, 4))  # the head, then the rows 0 to 3
        await settle(app, pilot)
        assert app.list.current == 3
        await pilot.click("#rows", offset=(3, 0))  # the head is no row
        await pilot.click("#pair", offset=(3, 5))
        await settle(app, pilot)
        assert app.list.current == 3
        for place, widget in (("#pair", app.view), ("#rows", app.list)):
            assert widget.scroll_y == 0
            await wheel(pilot, events.MouseScrollDown, place)
            await settle(app, pilot)
            down = widget.scroll_y
            assert down > 0
            await wheel(pilot, events.MouseScrollUp, place)
            await settle(app, pilot)
            assert widget.scroll_y < down
        # A click into a scrolled list, and the keys of the application after clicks.
        await wheel(pilot, events.MouseScrollDown, "#rows")
        await settle(app, pilot)
        top = round(app.list.scroll_y)
        await pilot.click("#rows", offset=(3, 2))
        await settle(app, pilot)
        assert app.list.current == top + 1
        await press(app, pilot, "end")
        assert app.list.current == 39

    drive(path, steps)


def test_keys_of_the_line_are_text(path: Path) -> None:
    """What is bound in the application is typed into a line of input."""

    async def steps(app: InspectApp, pilot: Pilot[None]) -> None:
        await press(app, pilot, "f", *"arxuq]AR?/", "space", "G")
        assert app.screen.query_one(Input).value == "arxuq]AR?/ G"
        assert (app.return_code, review_path(path).exists(), app.list.current) == (None, False, 0)

    drive(path, steps)
