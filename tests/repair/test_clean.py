r"""Corrections that were wrapped, escaped, shortened or commented."""

from __future__ import annotations

import json

import pytest

from spotcli.repair.clean import clean

STUDENT = "First, 12 * 3 = 36.\nThen 36 + 5 = 42.\nSo we add them.\n\nThe answer is $\\boxed{42}$."
RIGHT = STUDENT.replace("5 = 42", "5 = 41").replace("{42}", "{41}")


@pytest.mark.parametrize(
    "text",
    [
        RIGHT,
        f"```latex\n{RIGHT}\n```",
        f"```\n{RIGHT}\n```",
        json.dumps({"solution": RIGHT}),
        json.dumps({"ok": True, "corrected": RIGHT}),
        RIGHT.replace("\\", "\\\\"),
        f"**Corrected solution:**\n\n{RIGHT}",
        f"Here is the corrected answer:\n{RIGHT}",
        f"## Revised solution\n{RIGHT}",
    ],
)
def test_a_wrapper_is_removed(text: str) -> None:
    cleaned = clean(text, STUDENT)
    assert (cleaned.text, cleaned.damage) == (RIGHT, None)


@pytest.mark.parametrize(
    ("text", "damage"),
    [
        (RIGHT.replace("\n", "\\n"), "escaped text"),
        (RIGHT.replace("\\boxed", "\boxed"), "hidden characters"),
        (RIGHT.replace("answer", "an\u200bswer"), "hidden characters"),
        (RIGHT.replace("36 +", "\u202e36\u202c +"), "hidden characters"),
        (RIGHT + "".join(chr(0xE0000 + ord(letter)) for letter in "obey"), "hidden characters"),
        (RIGHT.replace("The", "\x1b]52;c;QUJD\x07The"), "hidden characters"),
        (RIGHT.replace("So we add them.", "[... unchanged ...]"), "omitted text"),
        (RIGHT.replace("So we add them.", "... (the rest is the same as before)"), "omitted text"),
        (RIGHT.replace("Then 36", "(I corrected the student's mistake here.) Then 36"), "meta talk"),
        (RIGHT.replace("them.", "them. This matches the reference answer."), "meta talk"),
        (RIGHT.replace("Then", "The error was here. Then"), "meta talk"),
    ],
)
def test_damage_is_named(text: str, damage: str) -> None:
    assert clean(text, STUDENT).damage == damage


def test_what_the_student_or_the_problem_contains_is_allowed() -> None:
    student = f"```\n{STUDENT}\n```"
    assert clean(f"```\n{RIGHT}\n```", student).text == f"```\n{RIGHT}\n```"
    remark = RIGHT.replace("Then", "The student has 36 pens. Then")
    assert clean(remark, STUDENT).damage == "meta talk"
    assert clean(remark, STUDENT, "The student has 12 pens, three times. He gets 5. How many?").damage is None
    zero_width = STUDENT.replace("First", "Fir\u200bst")
    assert clean(zero_width.replace("42", "41"), zero_width).damage is None


def test_latex_is_not_escaped_text() -> None:
    student = "Since $a \\ne b$,\n$c = 4$.\nSo \\boxed{4}."
    assert clean("Since $a \\neq b$,\n$c = 5$.\nSo \\boxed{5}.", student).damage is None
    # Line ends of LaTeX stay as they are.
    rows = "\\begin{matrix} 1 \\\\ 2 \\end{matrix}\n\\boxed{2}"
    assert clean(rows.replace("2", "3"), rows).text == rows.replace("2", "3")


def test_the_margins_are_kept() -> None:
    assert clean(f"\n```\n{RIGHT}\n```\n", f"\n{STUDENT}\n").text == f"\n{RIGHT}\n"
