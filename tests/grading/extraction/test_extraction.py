"""Which part of a text is graded, and whether a difference from the reference would prove a mistake."""

from __future__ import annotations

import pytest

from spotcli.grading.extraction import NoAnswer
from spotcli.grading.extraction.announcements import split_value
from spotcli.grading.extraction.boxes import all_boxes
from spotcli.grading.extraction.conclusions import conclusion
from spotcli.grading.extraction.sentences import sentences_of
from spotcli.grading.find_answer import find_answer


@pytest.mark.parametrize(
    ("text", "answer", "sure"),
    [
        ("The answer is 42, not 43.", "42", True),
        ("The answer is $x=4$. We need $2x$, so it is $8$.", "8", False),
        ("The answer is 42. Check: 6*7 = 42.", "42", True),
        ("(a) \\boxed{3}\n(b) \\boxed{4}", "3, 4", False),
        ("The maximum is \\boxed{5}, attained at $x=\\boxed{2}$.", "5", False),
        ("\\boxed{3} by \\boxed{4}", "3\\times 4", False),
        ("\\boxed{1} and \\boxed{2}", "1, 2", True),
        ("\\boxed{17}. Correction: the answer is 18.", "18", True),
        ("Therefore, the area is $12\\pi$.", "$12\\pi$", True),
        ("Let $x=3$. Then $y = 2x = 6$.", "y = 2x = 6", False),
        ("He pays 3*4 = $12 in total.", "$12", True),
        ("<answer>7</answer>", "7", True),
        ("**7**", "7", True),
        ("7</s>", "7", True),
    ],
)
def test_the_answer_and_whether_it_is_sure(text: str, answer: str, sure: bool) -> None:
    found = find_answer(text)
    assert (found.text, not found.doubt) == (answer, sure)


@pytest.mark.parametrize(
    "text",
    [
        "\\boxed{17}. Wait, that is wrong.",
        "It cannot be \\boxed{17}.",
        "First \\boxed{6}. Then finally \\boxed{}",
        "\\boxed{6",
        "The answer cannot be 7.",
    ],
)
def test_what_is_withdrawn_or_denied_is_no_answer(text: str) -> None:
    with pytest.raises(NoAnswer):
        find_answer(text)


def test_a_value_ends_where_its_reason_begins() -> None:
    assert split_value("42 cm, as required") == ("42 cm", ", as required")
    assert split_value("$x=3$ and $x=5$, and their product is $15$")[0] == "$x=3$ and $x=5$"
    assert split_value("exactly 42")[0] == "42"
    assert split_value("3 times 14, which is 42")[0] == ""


def test_a_formula_or_an_abbreviation_does_not_end_a_sentence() -> None:
    assert sentences_of("It is 3.5 cm, i.e. $a. b$ wide. Done.") == ["It is 3.5 cm, i.e. $a. b$ wide.", "Done."]


def test_an_equation_keeps_its_right_side() -> None:
    found = conclusion("So $2t = 12\\sqrt5$.")
    assert found is not None
    assert (found.text, found.result) == ("2t = 12\\sqrt5", "12\\sqrt5")


def test_escaped_braces_do_not_end_a_box() -> None:
    closed, unclosed = all_boxes(r"\boxed{\{1, 2\}} and \\boxed{\\frac{1}{2}} and \boxed{3")
    assert [box.content for box in closed] == [r"\{1, 2\}", r"\\frac{1}{2}"]
    assert unclosed is not None
