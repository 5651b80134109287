"""Which value a sentence states, and the words of other formats and languages around answers."""

from __future__ import annotations

import pytest

from spotcli.grading.extraction.markup import without_markup
from spotcli.grading.extraction.statements import several_values, statement
from spotcli.grading.find_answer import find_answer


@pytest.mark.parametrize(
    ("sentence", "value", "others"),
    [
        ("So Nora will have saved $310 after 8 weeks.", "$310", ("8",)),
        ("Therefore, each of the 7 guests gets 3 pies.", "3", ()),
        ("So 6 crates will contain 72 melons.", "72", ()),
        ("Hence the probability is 3/8, or 37.5%.", "3/8", ("37.5%",)),
        ("Thus he ran 12 km in 2 hours.", "12 \\text{km}", ("2",)),
        ("So the ride takes 3 hours and 40 minutes.", "3 hours and 40 minutes", ()),
        ("Therefore, the remainder when 2^100 is divided by 7 is 2.", "2", ()),
        ("In total, they sold 14 + 9 = 23 tickets.", "23", ()),
        ("So the area is 25\u03c0 square feet.", "25\u03c0 \\text{square feet}", ()),
    ],
)
def test_the_stated_value_and_the_circumstances(sentence: str, value: str, others: tuple[str, ...]) -> None:
    stated = statement(sentence)
    assert stated is not None
    assert (stated.text, stated.others, stated.doubt) == (value, others, "")


@pytest.mark.parametrize(
    "sentence",
    [
        "So Ida is 14 and her brother is 7.",
        "So he spends $30, which leaves him with $20.",
        "Thus, twice that is double 21.",
        "So there are 5 or more ways.",
        "So the answer lies between 4 and 5.",
        "So if he buys 4 boxes, he can share them.",
        "So this is not 12.",
        "Therefore we use the formula with 12.",
        "So the length is 5x.",
        "So the value is 12 \u00b1 3 or $12 \\pm 3$.",
        "She has 12 apples.",
    ],
)
def test_a_sentence_that_states_no_single_result(sentence: str) -> None:
    assert statement(sentence) is None


def test_several_stated_values_are_listed() -> None:
    assert several_values("Ida is 14 years old and her brother is 7 years old.") == ("14", "7")
    assert several_values("The sum of 14 and 7 is 21.") == ()


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("x &lt; 5 &amp; y", "x < 5 & y"),
        ("<b>Answer:</b> x<sup>2</sup><br>", "Answer: x^{2}\n"),
        ("a < b and c > d", "a < b and c > d"),
        ("\u7b54\u6848\uff1a36\u3002", "\u7b54\u6848: 36. "),
        ("12 \u5e73\u65b9\u5398\u7c73", "12 square cm"),
        ("$3$ \u6216 $5$", "$3$ or $5$"),
        ("\\text{Answer: } 42", "Answer:  42"),
        ("\\boxed{\\text{Answer: } 42}", "\\boxed{\\text{Answer: } 42}"),
        ("Final Answer\n------\n17", "Final Answer\n17"),
        ("> 17", "17"),
    ],
)
def test_marks_of_other_formats_are_removed(text: str, plain: str) -> None:
    assert without_markup(text) == plain


@pytest.mark.parametrize(
    "text",
    [
        "\u6240\u4ee5\u7b54\u6848\u662f 36\u3002",
        "Die richtige Antwort lautet: **36**",
        "La r\u00e9ponse finale est 36.",
        "La respuesta correcta es 36.",
        "A resposta \u00e9 36.",
        "La risposta \u00e8 36.",
        "\u041e\u0442\u0432\u0435\u0442: 36",
        "\uc815\ub2f5\uc740 36",
        "\u7b54\u3048\u306f 36",
    ],
)
def test_announcements_in_other_languages(text: str) -> None:
    found = find_answer(text)
    assert (found.text, found.doubt) == ("36", "")


def test_a_list_below_the_heading_is_one_answer() -> None:
    assert find_answer("**Final Answer:**\n\n- x = 3\n- y = -1").text == "x = 3, y = -1"
