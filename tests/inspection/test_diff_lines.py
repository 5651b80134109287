"""Spans as lines of a screen: nothing is lost, nothing is wider than its column."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from spotcli.console import safe
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


ANSWERS = [
    (
        "Step 1: Janet has $16 - 7 = 9$ eggs.\n\nStep 2: She makes \\(9 \\times 2 = 19\\) dollars.\n\\[\\boxed{19}\\]",
        "Step 1: Janet has $16 - 7 = 9$ eggs.\n\nStep 2: She makes \\(9 \\times 2 = 18\\) dollars.\n\\[\\boxed{18}\\]",
    ),
    (
        "**Solution.** We have $\\frac{dx}{dy} = \\sqrt[3]{x^2}$, so\n| x | y |\n|---|---|\n| 1,000 | 2.50 |\n- done",
        "**Solution.** We have $\\frac{dy}{dx} = \\sqrt{x}$,\nso\n| x | y |\n|---|---|\n| 10,000 | 2.5 |\n- done!\n",
    ),
    (
        "def f(n):\n\treturn n*f(n-1)\n\n\nprint(f(5))  # 120\r\n",
        "def f(n):\n    if n <= 1:\n        return 1\n    return n * f(n - 1)\n\nprint(f(5))  # 120\n",
    ),
    ("答案是十二。所以 x = 12，证毕。", "答案是十三。所以 x = 13，证毕。"),
    ("La réponse n’est pas 3, c’est 4 😀.", "La re\u0301ponse n'est pas 4 ; c’est 5 😀!"),
    ("<think>\nSo 2+2=5\n</think>\nThe answer is 5.", "The answer is 4."),
]
"""Answers as models write them, and corrections."""


@pytest.mark.parametrize(
    ("old", "new"), [*ANSWERS, *((new, old) for old, new in ANSWERS), (ANSWERS[0][0], ANSWERS[3][1])]
)
def test_spans_of_answers_join_to_their_texts(old: str, new: str) -> None:
    spans = diff(old, new)
    assert "".join(span.text for span in spans if span.kind != "inserted") == old
    assert "".join(span.text for span in spans if span.kind != "deleted") == new
    items = blocks(spans)
    assert (joined(items, "deleted"), joined(items, "inserted")) == (old, new)


def test_spans_of_real_answers_join_to_their_texts(shared: Path) -> None:
    rows = [json.loads(line) for line in (shared / "real_solutions_mrben.jsonl").read_text().splitlines()]
    before = ""
    for row in rows:
        wrong, corrected = row["wrong_prefix"] or "", row["corrected_prefix"] or ""
        for old, new in ((wrong, corrected), (before, wrong)):
            items = blocks(diff(old, new))
            assert (joined(items, "deleted"), joined(items, "inserted")) == (old, new)
        before = wrong


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


COLUMNS = {
    "中文字": 6,
    "ｶﾅ": 2,
    "한국": 4,
    "\u1112\u1161\u11ab": 2,
    "e\u0301a\u0308": 2,
    "z\u0300\u0301\u0302": 1,
    "שָׁלוֹם": 4,
    "مَرْحَبًا": 5,
    "👍": 2,
    "🇩🇪": 2,
    "𝐀𝟏": 2,
    "∑√∞±×→": 6,
}
"""Texts and their columns in tmux, read with the escape sequence for the place of the cursor."""


@pytest.mark.parametrize("text", COLUMNS)
def test_columns_are_those_of_a_terminal(text: str) -> None:
    (line,) = wrap([Part("kept", text)], 80)
    assert line.cells == COLUMNS[text]


def test_right_to_left_text_keeps_its_columns() -> None:
    old, new = "התשובה היא 13 ולכן", "התשובה היא 12 ולכן"
    (line,) = inline(blocks(diff(old, new)), 80, marked=True)
    assert "".join(part.text for part in line.parts) == "התשובה היא [-13-]{+12+} ולכן"
    assert line.cells == len(old) + len("[--]{+12+}")
    (line,) = side_by_side(blocks(diff(old, new)), 83, marked=True)
    # The order is that of the text, and nothing that directs a terminal is added: no isolates and no marks.
    right = line.right
    assert right is not None
    assert (line.cells, right.cells) == (40, len(new) + len("{++}"))
    shown_text = "".join(part.text for part in (*line.parts, *right.parts))
    assert not any(unicodedata.bidirectional(character) in BIDIRECTIONAL_CONTROLS for character in shown_text)


BIDIRECTIONAL_CONTROLS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


@pytest.mark.parametrize("text", ["👍🏽", "❤\ufe0f", "👨\u200d👩"])
def test_what_joins_emoji_is_shown(text: str) -> None:
    """Terminals disagree on the columns of joined emoji."""
    (line,) = wrap([Part("kept", safe(text))], 80)
    shown_text = "".join(part.text for part in line.parts)
    assert "⟨" in shown_text
    assert line.cells == cell_len(text[0]) + cell_len(shown_text[1:])


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
