r"""Corrections that were wrapped, escaped or retyped: undone where that is certain."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spotcli.repair.clean import clean, unwrapped

STUDENT = "First, 12 * 3 = 36.\nThen 36 + 5 = 42.\nSo we add them.\n\nThe answer is $\\boxed{42}$."
RIGHT = STUDENT.replace("5 = 42", "5 = 41").replace("{42}", "{41}")


@pytest.mark.parametrize(
    "text",
    [
        RIGHT,
        f"```latex\n{RIGHT}\n```",
        f"```\n{RIGHT}\n```",
        f"~~~\n{RIGHT}\n~~~",
        json.dumps({"solution": RIGHT}),
        json.dumps({"ok": True, "corrected": RIGHT}),
        json.dumps({"explanation": "The sum was off.", "corrected_solution": RIGHT}),
        json.dumps(RIGHT),
        json.dumps([RIGHT]),
        f"```json\n{json.dumps({'solution': RIGHT})}\n```",
        '{"solution": "' + RIGHT + '"}',  # with line ends as they are and single backslashes: not quite JSON
        f"<solution>\n{RIGHT}\n</solution>",
        RIGHT.replace("\\", "\\\\"),
        RIGHT.replace("\n", "\\n"),
        RIGHT.replace("\\", "\\\\").replace("\n", "\\n"),
        RIGHT.replace("\\boxed", "\boxed"),  # the b of \boxed was read as an escape
        f"**Corrected solution:**\n\n{RIGHT}",
        f"Here is the corrected answer:\n{RIGHT}",
        f"## Revised solution\n{RIGHT}",
        "\n".join(f"> {line}" for line in RIGHT.split("\n")),
        RIGHT.replace(" ", "\u00a0"),
        RIGHT.replace("\n", "\r\n"),
        RIGHT.replace(".\n", ".  \n"),
    ],
)
def test_a_wrapper_is_removed(text: str) -> None:
    cleaned = clean(text, STUDENT)
    assert (cleaned.text, cleaned.damage) == (RIGHT, None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\x0crac{1}{2} \x08ar{x} \x0bec{v} \x07lpha", r"\frac{1}{2} \bar{x} \vec{v} \alpha"),
        ("2 \times 3, \text{so} \tau", r"2 \times 3, \text{so} \tau"),
        ("\\left( x \right), \rho", r"\left( x \right), \rho"),
        ("a \neq b and \nabla f", r"a \neq b and \nabla f"),
        ("a\tb and\nnext", "a\tb and\nnext"),  # white space that begins no command
        (r"x \\frac{1}{2} \\boxed{3}", r"x \frac{1}{2} \boxed{3}"),
        (r"1 & 2 \\ 3 & 4 \\[2pt] \\\hline", r"1 & 2 \\ 3 & 4 \\[2pt] \\\hline"),  # line ends of LaTeX
    ],
)
def test_escapes_are_undone(text: str, expected: str) -> None:
    assert unwrapped(text, r"The sum is \frac{1}{3}.") == expected


@pytest.mark.parametrize(
    ("text", "replaced"),
    [
        ("```\nx = 2\n```", "```\nx = 1\n```"),
        ('{"x": "2"}', '{"x": "1"}'),
        ("`x = 2`", "`x = 1`"),
        ("> 2", "> 1"),
        ("<answer>2</answer>", "<answer>1</answer>"),
        ('printf("a\\n");', 'printf("b\\n");\nreturn 0;'),
        ("{1, 2}", "1, 2"),  # a set
        ('["a", "b"]', "a"),
        ("a\u00a0b", "b\u00a0a"),
    ],
)
def test_what_the_student_wrote_so_is_kept(text: str, replaced: str) -> None:
    assert unwrapped(text, replaced) == text


def test_lines_that_the_student_wrote_are_his_own() -> None:
    student = "It\u2019s 36 \u2212 5,  \nthat is 30.\nThe answer is 30.\n"
    retyped = "It's 36 - 5,\nthat is 31.\nThe answer is 31.\n"
    assert clean(retyped, student).text == "It\u2019s 36 \u2212 5,  \nthat is 31.\nThe answer is 31.\n"
    # Line ends too.
    windows = student.replace("\n", "\r\n")
    assert clean(retyped, windows).text == "It\u2019s 36 \u2212 5,  \r\nthat is 31.\r\nThe answer is 31.\r\n"
    # Blanks inside a line can be what was corrected, and two lines can differ in their quotes alone.
    assert clean("if x:\n    y = 1", "if x:\ny = 1").text == "if x:\n    y = 1"
    assert clean("a \u2212 b\na - b\na \u2013 b", "a \u2212 b\na - b").text == "a \u2212 b\na - b\na \u2013 b"


@given(st.text(max_size=200), st.text(max_size=200))
def test_a_students_answer_is_never_changed(student: str, other: str) -> None:
    text = student.replace("\r\n", "\n")
    assert clean(text, text, other).damage is None
    assert unwrapped(text, text) == text
    clean(other, text)  # any text is cleaned, or named


def test_latex_is_not_escaped_text() -> None:
    student = "Since $a \\ne b$,\n$c = 4$.\nSo \\boxed{4}."
    assert clean("Since $a \\neq b$,\n$c = 5$.\nSo \\boxed{5}.", student).damage is None
    # Line ends of LaTeX stay as they are.
    rows = "\\begin{matrix} 1 \\\\ 2 \\end{matrix}\n\\boxed{2}"
    assert clean(rows.replace("2", "3"), rows).text == rows.replace("2", "3")


def test_the_margins_are_kept() -> None:
    assert clean(f"\n```\n{RIGHT}\n```\n", f"\n{STUDENT}\n").text == f"\n{RIGHT}\n"


@pytest.mark.parametrize(
    "text",
    ["```\n" + " " * 100_000, "\\" * 100_000, "<b" * 50_000, "[" * 100_000, " \n" * 50_000, "a" * 100_000 + "\u0430",
     "a-" * 50_000, "~~" * 50_000, "wait " * 20_000, "ά" * 100_000, "1 + 1 = " * 12_000, "{\"a\": \"" * 10_000],
)  # fmt: skip
def test_hostile_replies_end(text: str) -> None:
    # Each of these is quadratic for a pattern that starts again at every character.
    clean(text, STUDENT)
    clean(text, text[: len(text) // 2])
