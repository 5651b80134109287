"""The diff as HTML: both answers can be read from it, and kept stretches are folded. Expected markup by hand."""

from __future__ import annotations

import random
import re
from html.parser import HTMLParser

import pytest

from spotcli.core.edits import diff
from spotcli.inspection.page.diff_markup import LONG, answer_markup, diff_markup


class Answers(HTMLParser):
    """y- and y+ as a reader gets them from the markup."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.old = self.new = ""
        self._inside: list[str] = []
        self.feed(markup)
        assert self._inside == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside.append(f"{tag}.line" if ("class", "line") in attrs else tag)

    def handle_endtag(self, tag: str) -> None:
        opened = self._inside.pop()
        assert opened.removesuffix(".line") == tag
        if opened == "del.line":
            self.old += "\n"
        elif opened == "ins.line":
            self.new += "\n"

    def handle_data(self, data: str) -> None:
        tags = {tag.partition(".")[0] for tag in self._inside}
        if tags & {"i", "summary"}:
            return
        if "ins" not in tags:
            self.old += data
        if "del" not in tags:
            self.new += data


def markup(old: str, new: str) -> str:
    return str(diff_markup(diff(old, new)))


def test_markup_by_hand() -> None:
    expected = '<span class="prefix">a </span><del><i>[-</i>b<i>-]</i></del><ins><i>{+</i>x<i>+}</i></ins> c'
    assert markup("a b c", "a x c") == expected
    # A line end that is inserted is visible.
    assert '<ins><i>{+</i>x<i class="end">⏎</i>\n<i>+}</i></ins>' in markup("a\nb", "a\nx\nb")
    # Without an edit there is nothing to fold around.
    assert markup("a\n" * 50, "a\n" * 50) == "a\n" * 50


def test_a_line_with_five_edits_is_the_old_and_the_new_line() -> None:
    four = markup("a 1 b 2 c 3 d 4 e 5 f", "a 6 b 7 c 8 d 9 e 5 f")
    assert "line" not in four
    five = markup("a 1 b 2 c 3 d 4 e 5 f\nend", "a 6 b 7 c 8 d 9 e 0 f\nend")
    assert five == (
        '<del class="line"><i>[-</i>a 1 b 2 c 3 d 4 e 5 f<i>-]</i></del>'
        '<ins class="line"><i>{+</i>a 6 b 7 c 8 d 9 e 0 f<i>+}</i></ins>end'
    )


def test_kept_lines_far_from_edits_are_folded() -> None:
    lines = [f"line {number}" for number in range(20)]
    old, new = "\n".join([*lines, "so 1", *lines]), "\n".join([*lines, "so 2", *lines])
    text = markup(old, new)
    # Two lines before and after the edit are shown; 18 of 20 are folded on each side.
    assert text.count("<summary>18 kept lines</summary>line") == 2
    assert re.search(r"line 17\n</details>line 18\nline 19\n</span>", text)
    assert re.search(r"line 0\nline 1\n<details", text)
    # One hidden line would save nothing.
    assert "details" not in markup("a\nb\nc\nso 1", "a\nb\nc\nso 2")


@pytest.mark.parametrize("side", ["kept", "deleted", "inserted"])
def test_a_long_text_without_line_ends_is_folded_and_whole(side: str) -> None:
    long = "x" * 50_000
    old = f"{long if side != 'inserted' else 'a'} 1"
    new = f"{long if side != 'deleted' else 'a'} 2"
    text = markup(old, new)
    answers = Answers(text)
    assert (answers.old, answers.new) == (old, new)
    shown = re.sub(r"<details.*?</details>", "", text, flags=re.DOTALL)
    assert len(shown) < LONG + 500


def test_the_middle_of_a_long_answer_is_folded_at_line_ends() -> None:
    lines = "".join(f"line {number}\n" for number in range(1000))
    text = str(answer_markup(lines))
    head, inside, tail = re.split(r"<details class=\"kept\"><summary>[\d,]+ characters</summary>|</details>", text)
    assert head + inside + tail == lines
    assert head.endswith("\n")
    assert inside.endswith("\n")
    assert len(head + tail) <= LONG
    assert str(answer_markup("short")) == "short"


def test_both_answers_can_be_read_from_the_markup() -> None:
    draw = random.Random(8)
    pieces = [
        "a",
        "b",
        "3",
        "\\frac",
        "\n",
        "\n\n",
        " ",
        "  ",
        "<b>",
        "&amp;",
        "'",
        '"',
        "汉",
        "é",
        "[-",
        "+}",
        "x = 1.",
        "\t",
    ]
    for _ in range(300):
        old = draw.choices(pieces, k=draw.randint(1, 120))
        new = [piece if draw.random() < 0.8 else draw.choice(pieces) for piece in old]
        texts = "".join(old), "".join(new)
        answers = Answers(markup(*texts))
        # The line end after an old and a new line is that of the block.
        assert (answers.old.rstrip("\n"), answers.new.rstrip("\n")) == tuple(text.rstrip("\n") for text in texts)
