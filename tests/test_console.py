"""Whatever a model, a dataset or a provider wrote is shown and never obeyed."""

from __future__ import annotations

import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spotcli.console import safe

OBEYED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 but line feed and tab, delete, C1
    "\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff"  # direction, joining, invisible signs
    "\ud800-\udfff\U000e0000-\U000e007f]"  # halves of a character, tags
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
    ],
)
def test_what_a_terminal_obeys_is_made_visible(text: str, shown: str) -> None:
    assert safe(text) == shown


def test_ordinary_text_stays() -> None:
    text = "Zeile 1\n\tЖ 咖啡 é \\frac{1}{2} [bold red]not markup[/] 😀"
    assert safe(text) == text


@given(st.text(st.characters(categories=None)))
def test_nothing_obeyed_is_left(text: str) -> None:
    assert not OBEYED.search(safe(text))
    assert safe(safe(text)) == safe(text)


@given(st.text(st.characters(categories=None)))
def test_safe_text_reaches_a_terminal_as_it_is(text: str) -> None:
    from rich.console import Console
    from rich.text import Text

    written = io.StringIO()
    console = Console(file=written, force_terminal=True, color_system="truecolor", width=200, emoji=False)
    console.print(Text(safe(text)), soft_wrap=True)
    # Rich itself adds no style here, so there is no escape sequence at all.
    assert "\x1b" not in written.getvalue()
