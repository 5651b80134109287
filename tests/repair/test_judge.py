"""From a reply to a pair, or to the one reason why it is none."""

from __future__ import annotations

import pytest

from spotcli.core.edits import text_change_ratio
from spotcli.records import Sample
from spotcli.repair.judge import feedback, judge, only_answer_changed

WRONG = "12 + 30 = 43\n43 - 7 = 36\nThe answer is \\boxed{36}."
RIGHT = "12 + 30 = 42\n42 - 7 = 35\nThe answer is \\boxed{35}."
SAMPLE = Sample(id="a", prompt="12 + 30 - 7", answer="35", response=WRONG, verdict="wrong")


def verdict(text: str, **changes: object) -> str:
    settings: dict[str, object] = {
        "finish_reason": "stop",
        "why": None,
        "mode": "plain",
        "fence": "",
        "gamma": 0.6,
        "ratio": text_change_ratio,
        "answer_only": False,
    }
    return judge(SAMPLE, text, **(settings | changes)).reason


def test_a_right_and_close_correction_is_accepted() -> None:
    assert verdict(RIGHT) == "accepted"


@pytest.mark.parametrize(
    ("text", "changes", "reason"),
    [
        ("", {"finish_reason": "declined", "why": "no step found"}, "declined: no step found"),
        (RIGHT, {"finish_reason": "length"}, "length"),
        (RIGHT, {"finish_reason": "filtered"}, "filtered"),
        ("", {}, "empty"),
        (WRONG, {}, "unchanged"),
        (WRONG.replace("\n", " \n"), {}, "unchanged"),  # white space alone is no correction
        (WRONG.replace("36", "37"), {}, "wrong"),
        ("It comes out at some thirty.", {}, "undecided"),  # no answer in it
        (WRONG.replace("{36}", "{35}"), {}, "answer only"),
        (WRONG.replace("{36}", "{35}"), {"answer_only": True}, "accepted"),
        (RIGHT, {"gamma": 0.1}, "too large"),
        (RIGHT, {"mode": "rewrite", "fence": "0123456789ab"}, "unfenced"),
    ],
)
def test_each_refusal_has_its_reason(text: str, changes: dict[str, object], reason: str) -> None:
    assert verdict(text, **changes) == reason


def test_the_ratio_at_gamma_is_accepted() -> None:
    # 20 words and signs in y+ (12 + 30 = 42 | 42 - 7 = 35 | The answer is \boxed { 35 } .), blanks not counted, with
    # 42, 42, 35, 35 and the line breaks: the LCS lacks the four numbers.
    total = 5 + 5 + 8
    assert verdict(RIGHT, gamma=4 / total) == "accepted"
    assert verdict(RIGHT, gamma=3.9 / total) == "too large"


@pytest.mark.parametrize(
    ("rejected", "chosen", "expected"),
    [
        (WRONG, WRONG.replace("{36}", "{35}"), True),
        # The wording of the last line is no step, nor is a line that says the result by a letter.
        (WRONG, WRONG.replace("The answer is \\boxed{36}", "Hence it must be \\boxed{35}"), True),
        (WRONG, WRONG.replace("The answer is \\boxed{36}", "So $x = \\boxed{35}$"), True),
        (WRONG + "\n\nThat was easy.", WRONG.replace("{36}", "{35}") + "\nThat was easy.", True),
        # The student never came to an answer, and one was put behind.
        ("12 + 30 = 43\n43 - 7 = 36\n", "12 + 30 = 43\n43 - 7 = 36\n\\boxed{35}", True),
        # Without a box.
        ("12 + 30 = 43\n43 - 7 = 36\n#### 36", "12 + 30 = 43\n43 - 7 = 36\n#### 35", True),
        # The derivation leads to 35 already: the student only copied it wrongly.
        (RIGHT.replace("{35}", "{36}"), RIGHT, False),
        # The line of the box is the step itself.
        ("12 + 30 = 42\n42 - 7 = \\boxed{36}", "12 + 30 = 42\n42 - 7 = \\boxed{35}", False),
        ("\\boxed{36}", "\\boxed{35}", False),
        (WRONG, RIGHT, False),
        # A step was put in, and one was changed with nothing behind it left as it is.
        (WRONG, WRONG.replace("The answer is \\boxed{36}", "No, 42 - 7 is 35.\nIt is \\boxed{35}"), False),
        ("It is odd.\nIt is 36, or not.\nYes, \\boxed{36}", "It is odd.\nIt is 35, or so.\nYes, \\boxed{36}", False),
        # 350 does not hold 35.
        ("It is 350.\n\\boxed{36}", "It is 350.\n\\boxed{35}", True),
    ],
)
def test_a_pasted_answer_is_recognised(rejected: str, chosen: str, expected: bool) -> None:
    assert only_answer_changed(rejected, chosen, "35") is expected


def test_a_pasted_fraction_is_recognised() -> None:
    assert only_answer_changed("half\n\\boxed{\\frac{1}{3}}", "half\n\\boxed{\\frac{1}{2}}", "\\frac{1}{2}")


def told(text: str, reference: bool = True, gamma: float = 0.6, **changes: object) -> str | None:
    settings: dict[str, object] = {
        "finish_reason": "stop",
        "why": None,
        "mode": "plain",
        "fence": "",
        "gamma": gamma,
        "ratio": text_change_ratio,
        "answer_only": False,
    }
    found = judge(SAMPLE, text, **(settings | changes))
    back = feedback(found, SAMPLE, reference=reference, gamma=gamma)
    return back and back.complaint


def test_feedback_names_what_was_wrong() -> None:
    assert told(WRONG.replace("36", "37")) == (
        "Its final answer, 37, is not right; the right one is 35. Its largest change: '36' became '37'."
    )
    # 4 of 18 are new, as above.
    large = told(RIGHT, gamma=0.1)
    assert large is not None
    assert large.startswith("It changes 22% of the solution; at most 10% may be new.")
    assert "became" in large
    assert told("", finish_reason="declined") is None


def test_feedback_keeps_a_hidden_reference_hidden() -> None:
    assert told(WRONG.replace("36", "37"), reference=False) == (
        "Its final answer, 37, is not right. Its largest change: '36' became '37'."
    )
