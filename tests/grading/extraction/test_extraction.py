"""Which part of a text is graded, and whether a difference from the reference would prove a mistake."""

from __future__ import annotations

import re

import pytest

from spotcli.grading.extraction import NoAnswer
from spotcli.grading.extraction.announcements import split_value
from spotcli.grading.extraction.boxes import all_boxes
from spotcli.grading.extraction.conclusions import conclusion
from spotcli.grading.extraction.sentences import lowered, sentences_of
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


def test_braces_before_the_first_box_do_not_change_it() -> None:
    closed, unclosed = all_boxes(r"} { \{ \ \\\boxed{\frac{1}{2}} } { \fbox{3} {")
    assert [box.content for box in closed] == [r"\frac{1}{2}", "3"]
    assert unclosed is None
    assert all_boxes("{}{" * 3) == ([], None)


def test_lower_case_keeps_positions_and_is_what_ignorecase_compares() -> None:
    characters = [chr(code) for code in range(0xD800)]
    letter = re.compile("[a-z]")
    ignoring_case = re.compile("[a-z]", re.IGNORECASE)
    assert all(len(lowered(character)) == 1 for character in characters)
    assert [c for c in characters if letter.match(lowered(c))] == [c for c in characters if ignoring_case.match(c)]
    assert find_answer("THEREFORE, THE ANSWER IS 42.").text == "42"


def test_the_last_sentences_are_those_of_the_whole_text() -> None:
    text = "One. Two.\n\nThree is $3.$ Four.\n\n\n(Five.) Six"
    assert sentences_of(text)[-4:] == sentences_of(text, last=3)
    assert sentences_of(text, last=99) == sentences_of(text)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("It is 5.\nuser\n<|user|> What is 2?", "5"),
        ("It is 5.\nHuman:\nWhat is 2? It is 2.", "5"),
        ("The answer is 5.\n\n## Question: What is 2? The answer is 2.", "5"),
        ("\nQuestion: What is 2?\nThe answer is 2.", "2"),
    ],
)
def test_another_question_after_the_answer_is_cut_off(text: str, answer: str) -> None:
    assert find_answer(text).text == answer
