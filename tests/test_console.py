"""Text from models, datasets and providers is shown without executing anything in the terminal."""

from __future__ import annotations

import io
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spotcli.console import progress, safe, show_error, warn
from spotcli.errors import UserError

CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 but line feed and tab, delete, C1
    "\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff"  # direction, joining and invisible characters
    "\ud800-\udfff\U000e0000-\U000e007f]"  # surrogates, tags
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]52;c;ZXZpbA==\x07", "␛]52;c;ZXZpbA==␇"),  # OSC 52 writes the clipboard
        ("\x1b]8;;http://evil\x1b\\click\x1b]8;;\x1b\\", "␛]8;;http://evil␛\\click␛]8;;␛\\"),  # OSC 8 forges a link
        ("\x1b[2J\x1b[1;1H", "␛[2J␛[1;1H"),  # CSI clears the screen
        ("\x9b31m", "⟨U+009B⟩31m"),  # CSI in one C1 character
        ("\x9d0;title\x9c", "⟨U+009D⟩0;title⟨U+009C⟩"),
        ("a\rb", "a␍b"),  # overwrites the line
        ("a\x08b\x7f", "a␈b␡"),
        ("\u202egnp.exe", "⟨RIGHT-TO-LEFT OVERRIDE⟩gnp.exe"),
        ("\u2066x\u2069", "⟨LEFT-TO-RIGHT ISOLATE⟩x⟨POP DIRECTIONAL ISOLATE⟩"),
        ("1\u200b0", "1⟨ZERO WIDTH SPACE⟩0"),
        ("\U000e0041", "⟨TAG LATIN CAPITAL LETTER A⟩"),
        ("\ud800", "⟨U+D800⟩"),
        ("a\ufe01b", "a⟨VARIATION SELECTOR-2⟩b"),
        ("\U000e0101", "⟨VARIATION SELECTOR-18⟩"),
        ("\U0001bca0", "⟨SHORTHAND FORMAT LETTER OVERLAP⟩"),
    ],
)
def test_control_characters_are_made_visible(text: str, shown: str) -> None:
    assert safe(text) == shown


def test_ordinary_text_is_unchanged() -> None:
    text = "Zeile 1\n\tЖ 咖啡 é \\frac{1}{2} [bold red]not markup[/] 😀"
    assert safe(text) == text


@given(st.text(st.characters(categories=None)))
def test_no_control_character_remains(text: str) -> None:
    assert not CONTROLS.search(safe(text))
    assert safe(safe(text)) == safe(text)


@given(st.text(st.characters(categories=None)))
def test_safe_text_writes_no_escape_sequence(text: str) -> None:
    from rich.console import Console
    from rich.text import Text

    written = io.StringIO()
    terminal = Console(file=written, force_terminal=True, color_system="truecolor", width=200, emoji=False)
    terminal.print(Text(safe(text)), soft_wrap=True)
    # Rich adds no style here, so any escape sequence would come from the text.
    assert "\x1b" not in written.getvalue()


def test_progress_is_written_as_lines_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    with progress("answers") as display:
        task = display.add_task("sample", total=100, note="")
        for second in range(100):
            clock[0] = float(second)
            display.update(task, advance=1, note=f"right {second}")
    lines = capsys.readouterr().err.splitlines()
    # At 10, 20, ... 90 of 100 answers, and at the last one.
    assert [line.partition(",")[0] for line in lines] == [
        f"sample: {count} of 100 answers" for count in range(10, 101, 10)
    ]
    # After 9 s: 10 answers, so 90 more take 81 s.
    assert lines[0].endswith("1.1/s, 0:01:21 remaining; right 9")


def test_answers_that_arrive_together_have_the_rate_of_the_time_since_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = [0.0]
    monkeypatch.setattr("spotcli.console.work_time", lambda: clock[0])
    with progress("answers") as display:
        task = display.add_task("sample", total=400, completed=100, note="")
        for minute in (1, 2):
            for _ in range(60):
                clock[0] = 60.0 * minute
                display.update(task, advance=1)
            # 60 answers per minute, without those of an earlier start.
            assert display.tasks[0].speed == 1.0
        assert display.tasks[0].time_remaining == 180.0


def test_slow_progress_is_written_every_minute(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr("spotcli.console.work_time", lambda: clock[0])
    with progress("answers") as display:
        task = display.add_task("sample", total=1000, note="")
        for second in range(0, 181, 30):
            clock[0] = float(second)
            display.advance(task)
    # The first line comes 60 s after the first answer, then one every 60 s.
    assert len(capsys.readouterr().err.splitlines()) == 3


def test_short_work_writes_no_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("answers") as display:
        task = display.add_task("sample", total=10, note="")
        for _ in range(10):
            display.advance(task)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", ["spot-bce", "arithmetic, builtin:smollm2-135m"])
@pytest.mark.parametrize("width", [80, 120])
def test_only_the_note_gives_way_on_a_narrow_terminal(width: int, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    terminal = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)
    monkeypatch.setattr("spotcli.console.err", lambda: terminal)
    with progress("pairs") as display:
        display.add_task(name, total=532, completed=120, note="loss 0.4779, " + "rewards +2.506 " * 20)
        shown = io.StringIO()
        Console(file=shown, width=width, color_system=None).print(display.get_renderable())
    (line,) = shown.getvalue().splitlines()
    for part in (name[:12], "━", "120/532", "pairs/s", "remaining" if width >= 100 else "ETA"):
        assert part in line
    assert "loss 0" in line
    # The terminal echoes ^C at the end; if that began a new line, the old one would remain.
    assert len(line) <= width - len("^C^C")


def test_messages_of_libraries_are_safe() -> None:
    code = (
        "import logging, warnings\nfrom spotcli.console import escape_library_messages\nescape_library_messages()\n"
        "logging.getLogger('library').warning('%s is 50%% odd', '\\x1b[2J\\u202e')\n"
        "warnings.warn('\\x1b[2J is old')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "␛[2J⟨RIGHT-TO-LEFT OVERRIDE⟩ is 50% odd" in done.stderr
    assert "␛[2J is old" in done.stderr
    assert "\x1b" not in done.stderr


def test_a_message_stays_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    warn("a field\n! another warning\ttab")
    show_error(UserError("unknown name 'a\nb'", where="x\ny.jsonl:1", cure="rename\nit"))
    assert capsys.readouterr().err.splitlines() == [
        "! a field␊! another warning␉tab",
        "x␊y.jsonl:1: unknown name 'a␊b'",
        "  cure: rename␊it",
    ]


def test_names_and_notes_of_progress_are_safe(monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    screen = io.StringIO()
    terminal = Console(file=screen, force_terminal=True, width=120, height=10)
    monkeypatch.setattr("spotcli.console.err", lambda: terminal)
    with progress("answers") as display:
        display.add_task("\x1b]0;t\x07[red]x", total=2, note="\u202e[bold]\n")
    assert "␛]0;t␇[red]x" in screen.getvalue()
    assert "⟨RIGHT-TO-LEFT OVERRIDE⟩[bold]␊" in screen.getvalue()
    assert "\x1b]" not in screen.getvalue()


def test_a_message_is_written_above_the_progress_line(monkeypatch: pytest.MonkeyPatch) -> None:
    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Screen()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    with progress("pairs") as display:
        display.add_task("train", total=10, note="")
        display.refresh()
        warn("the message")
    before, _, after = screen.getvalue().partition("! the message")
    # The line is erased, the message takes its place, and the line follows.
    assert before.removesuffix("\x1b[33m").endswith("\r\x1b[2K")
    assert "train" in after
