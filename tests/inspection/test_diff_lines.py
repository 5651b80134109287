"""Spans as lines of a screen: nothing is lost, nothing is wider than its column."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from spotcli.core.edits import diff
from spotcli.inspection.diff_lines import Block, Line, Part, blocks, fold, inline, side_by_side, wrap
from tests.inspection.example_pairs import ATTACKS

LATIN = ["a", "b", "12", "\\frac", "{x}", " ", "  ", "\n", "\t", "é", "e\u0301"]
OTHERS = ["中", "文字", "👍", "👍🏽", "🇩🇪", "שלום", "مرحبا", "\x1b[2J", "\u202e", "\x00"]
TEXT = st.lists(st.sampled_from(LATIN + OTHERS), max_size=40).map("".join)


def joined(items: list[Block], side: str) -> str:
    return "".join(part.text for block in items for part in block.parts if part.kind in ("kept", side))


@given(TEXT, TEXT)
def test_blocks_join_to_both_answers(old: str, new: str) -> None:
    items = blocks(diff(old, new))
    assert (joined(items, "deleted"), joined(items, "inserted")) == (old, new)
    edits = [part.edit for block in items for part in block.parts if part.edit >= 0]
    assert edits == sorted(edits)
    assert set(edits) == set(range(len(set(edits))))  # numbered without gaps


def shown(lines: list[Line]) -> str:
    """All that is displayed, without the blanks at which lines are broken."""
    return "".join("".join(part.text for part in line.parts) for line in lines).replace(" ", "")


@given(TEXT, TEXT, st.integers(2, 120), st.booleans())
def test_no_line_is_wider_than_its_column(old: str, new: str, width: int, marked: bool) -> None:
    items = blocks(diff(old, new))
    lines = inline(items, width, marked=marked)
    for line in lines:
        text = "".join(part.text for part in line.parts)
        assert cell_len(text) <= min(width, 100)
        assert not {"\x1b", "\u202e", "\x00", "\n", "\t"} & set(text)
    assert shown(lines) == shown(inline(items, 10**6, marked=marked))  # the width loses nothing
    both = side_by_side(items, width, marked=marked)
    column = max((width - 3) // 2, 2)
    for line in both:
        for half in (line, line.right or Line()):
            assert cell_len("".join(part.text for part in half.parts)) <= column


def test_edits_are_marked_without_colour() -> None:
    (line,) = inline(blocks(diff("3 * 4 = 13", "3 * 4 = 12")), 80, marked=True)
    assert "".join(part.text for part in line.parts) == "3 * 4 = [-13-]{+12+}"
    (line,) = inline(blocks(diff("3 * 4 = 13", "3 * 4 = 12")), 80, marked=False)
    assert [(part.kind, part.text) for part in line.parts] == [
        ("kept", "3 * 4 = "),
        ("deleted", "13"),
        ("inserted", "12"),
    ]


def test_latex_commands_are_whole_words() -> None:
    (block,) = blocks(diff(r"\frac{1}{2} \cdot x", r"\sqrt{1}{2} \times x"))
    assert [part.text for part in block.parts if part.kind != "kept"] == [r"\frac", r"\sqrt", r"\cdot", r"\times"]


@pytest.mark.parametrize(("edits", "whole"), [(4, False), (5, True)])
def test_a_line_with_many_edits_is_shown_whole(edits: int, whole: bool) -> None:
    kept = "and then the same words"
    old = "\n".join(["before", f" {kept} ".join(str(number) for number in range(edits)), "after"])
    new = "\n".join(["before", f" {kept} ".join(str(number + 50) for number in range(edits)), "after"])
    items = blocks(diff(old, new))
    assert [block.whole for block in items] == [False, whole, False]
    lines = inline(items, 1000, marked=True)
    texts = ["".join(part.text for part in line.parts) for line in lines]
    if whole:
        assert len({part.edit for part in items[1].parts if part.edit >= 0}) == 1
        assert texts[1].startswith("[-0 and then")
        # the line is wrapped at 100 columns
        assert any(text.startswith("{+50 and then") for text in texts)
    else:
        assert texts[1].startswith("[-0-]{+50+} and then")


def test_an_edit_of_blanks_is_visible() -> None:
    lines = inline(blocks(diff("a b", "a  b")), 80, marked=False)
    assert "␣" in shown(lines)
    lines = inline(blocks(diff("a", "a\nb")), 80, marked=True)
    assert ["".join(part.text for part in line.parts) for line in lines] == ["a{+⏎", "b+}"]


def test_long_words_fill_the_line() -> None:
    lines = wrap([Part("kept", "ab " + "x" * 25)], 10)
    assert ["".join(part.text for part in line.parts) for line in lines] == ["ab", "x" * 10, "x" * 10, "x" * 5]
    lines = wrap([Part("kept", "中文字中文字")], 5)
    assert ["".join(part.text for part in line.parts) for line in lines] == ["中文", "字中", "文字"]


def numbered(count: int, *edited: int) -> list[Line]:
    return [
        Line((Part("inserted", str(number), 0) if number in edited else Part("kept", str(number)),))
        for number in range(count)
    ]


def outline(lines: list[Line]) -> list[Any]:
    return [f"({line.hidden})" if line.hidden else line.parts[0].text for line in lines]


def test_kept_stretches_are_folded_around_edits() -> None:
    assert outline(fold(numbered(20, 10))) == ["(8)", "8", "9", "10", "11", "12", "(7)"]
    assert outline(fold(numbered(12, 3, 8))) == ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11"]
    assert outline(fold(numbered(14, 3, 11))) == ["0", "1", "2", "3", "4", "5", "(3)", "9", "10", "11", "12", "13"]
    assert outline(fold(numbered(5))) == ["0", "1", "2", "3", "4"]
    assert fold([]) == []


@pytest.mark.parametrize("name", ATTACKS)
def test_hostile_text_stays_text(name: str) -> None:
    text = shown(inline(blocks(diff("same " + ATTACKS[name], "same")), 80, marked=False))
    assert not any(ord(character) < 32 or 0x7F <= ord(character) < 0xA0 for character in text)
    if name == "markup":
        assert "[boldred]x[/]" in text
