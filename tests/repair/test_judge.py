"""From a reply to a pair, or to the one reason why it is not a pair."""

from __future__ import annotations

from typing import Any

import pytest

from spotcli.core.edits import measure_text
from spotcli.core.oracle_prompts import ReplyMode
from spotcli.records import Sample
from spotcli.repair.judge import Correction, Criteria, feedback_on, judge, only_answer_changed
from spotcli.reply_entries import ReplyEntry

WRONG = "12 + 30 = 43\n43 - 7 = 36\nThe answer is \\boxed{36}."
RIGHT = "12 + 30 = 42\n42 - 7 = 35\nThe answer is \\boxed{35}."
SAMPLE = Sample(id="a", prompt="12 + 30 - 7", answer="35", response=WRONG, verdict="wrong")


def reply_of(
    text: str, *, finish_reason: str = "stop", reason: str | None = None, mode: ReplyMode = "plain"
) -> ReplyEntry:
    return ReplyEntry(
        key="k", id="a", trial=0, sample="digest", attempt=0, oracle="gpt-4o", version="", prompt="2", mode=mode,
        fence="0123456789ab", text=text, finish_reason=finish_reason, reason=reason,
    )  # fmt: skip


def correction(
    text: str,
    *,
    finish_reason: str = "stop",
    reason: str | None = None,
    mode: ReplyMode = "plain",
    gamma: float = 0.6,
    max_deleted: float = 0.8,
    answer_only: bool = False,
) -> Correction:
    reply = reply_of(text, finish_reason=finish_reason, reason=reason, mode=mode)
    return judge(SAMPLE, reply, Criteria(measure_text, gamma, max_deleted, answer_only))


def reason_of(text: str, **changes: Any) -> str:
    return correction(text, **changes).reason


def test_a_right_and_close_correction_is_accepted() -> None:
    assert reason_of(RIGHT) == "accepted"


@pytest.mark.parametrize(
    ("text", "changes", "reason"),
    [
        ("", {"finish_reason": "declined", "reason": "no step found"}, "declined: no step found"),
        (RIGHT, {"finish_reason": "length"}, "length"),
        (RIGHT, {"finish_reason": "filtered"}, "filtered"),
        ("", {}, "empty"),
        (WRONG, {}, "unchanged"),
        (WRONG.replace("\n", " \n"), {}, "unchanged"),  # white space alone is not a correction
        (WRONG.replace("36", "37"), {}, "wrong"),
        ("It comes out at some thirty.", {}, "undecided"),  # without a final answer
        (WRONG.replace("{36}", "{35}"), {}, "answer only"),
        (WRONG.replace("{36}", "{35}"), {"answer_only": True}, "accepted"),
        (RIGHT, {"gamma": 0.1}, "too large"),
        (RIGHT, {"mode": "rewrite"}, "unfenced"),
    ],
)
def test_each_rejected_reply_has_its_reason(text: str, changes: dict[str, Any], reason: str) -> None:
    assert reason_of(text, **changes) == reason


def test_the_ratio_at_gamma_is_accepted() -> None:
    # 20 words and signs in y+ (12 + 30 = 42 | 42 - 7 = 35 | The answer is \boxed { 35 } .), blanks not counted, with
    # 42, 42, 35, 35 and the line breaks: the LCS lacks the four numbers.
    total = 5 + 5 + 8
    assert reason_of(RIGHT, gamma=4 / total) == "accepted"
    assert reason_of(RIGHT, gamma=3.9 / total) == "too large"


@pytest.mark.parametrize(
    ("rejected", "chosen", "expected"),
    [
        (WRONG, WRONG.replace("{36}", "{35}"), True),
        # The last line is not a calculation, however it is worded, nor is `x = 5`.
        (WRONG, WRONG.replace("The answer is \\boxed{36}", "Hence it must be \\boxed{35}"), True),
        (WRONG, WRONG.replace("The answer is \\boxed{36}", "So $x = \\boxed{35}$"), True),
        (WRONG + "\n\nThat was easy.", WRONG.replace("{36}", "{35}") + "\nThat was easy.", True),
        # The student gave no answer, and one was appended.
        ("12 + 30 = 43\n43 - 7 = 36\n", "12 + 30 = 43\n43 - 7 = 36\n\\boxed{35}", True),
        # Without a box.
        ("12 + 30 = 43\n43 - 7 = 36\n#### 36", "12 + 30 = 43\n43 - 7 = 36\n#### 35", True),
        # The derivation already leads to 35: the student only copied it wrongly.
        (RIGHT.replace("{35}", "{36}"), RIGHT, False),
        # The line of the box is itself a calculation.
        ("12 + 30 = 42\n42 - 7 = \\boxed{36}", "12 + 30 = 42\n42 - 7 = \\boxed{35}", False),
        ("\\boxed{36}", "\\boxed{35}", False),
        (WRONG, RIGHT, False),
        # A step was added, and one was changed together with the lines after it.
        (WRONG, WRONG.replace("The answer is \\boxed{36}", "No, 42 - 7 is 35.\nIt is \\boxed{35}"), False),
        ("It is odd.\nIt is 36, or not.\nYes, \\boxed{36}", "It is odd.\nIt is 35, or so.\nYes, \\boxed{36}", False),
        # 350 does not contain 35.
        ("It is 350.\n\\boxed{36}", "It is 350.\n\\boxed{35}", True),
    ],
)
def test_a_pasted_answer_is_detected(rejected: str, chosen: str, expected: bool) -> None:
    assert only_answer_changed(rejected, chosen, "35") is expected


def test_a_pasted_fraction_is_detected() -> None:
    assert only_answer_changed("half\n\\boxed{\\frac{1}{3}}", "half\n\\boxed{\\frac{1}{2}}", "\\frac{1}{2}")


def complaint(text: str, *, reference: bool = True, gamma: float = 0.6, finish_reason: str = "stop") -> str | None:
    judged = correction(text, gamma=gamma, finish_reason=finish_reason)
    feedback = feedback_on(
        judged, SAMPLE, reply_of(text, finish_reason=finish_reason), reference=reference, gamma=gamma
    )
    return feedback.complaint if feedback else None


def test_feedback_names_the_error() -> None:
    assert complaint(WRONG.replace("36", "37")) == (
        "Its final answer, 37, is not right; the right one is 35. Its largest change: '36' became '37'."
    )
    # 4 of 18 are new, as in test_the_ratio_at_gamma_is_accepted.
    large = complaint(RIGHT, gamma=0.1)
    assert large is not None
    assert large.startswith("It changes 22% of the solution; at most 10% may be new.")
    assert "became" in large
    assert complaint("", finish_reason="declined") is None


def test_feedback_does_not_reveal_a_hidden_reference() -> None:
    assert complaint(WRONG.replace("36", "37"), reference=False) == (
        "Its final answer, 37, is not right. Its largest change: '36' became '37'."
    )


def test_a_correction_that_deletes_the_derivation_is_refused() -> None:
    steps = "".join(f"Step {number}: {number} + {number} = {2 * number}.\n" for number in range(30))
    sample = SAMPLE.model_copy(update={"response": f"{steps}The answer is \\boxed{{36}}."})
    reply = reply_of("The answer is \\boxed{35}.")
    criteria = Criteria(measure_text, gamma=0.6, max_deleted=0.8)
    # One of the 8 words and signs of y+ is new, but 30 of 31 lines of y- are gone.
    assert judge(sample, reply, criteria).reason == "too much deleted"
    assert judge(sample, reply, Criteria(measure_text, gamma=0.6)).reason == "accepted"
    # A correction may shorten: half of the steps are gone.
    half = "".join(f"Step {number}: {number} + {number} = {2 * number}.\n" for number in range(15))
    assert judge(sample, reply_of(f"{half}The answer is \\boxed{{35}}."), criteria).reason == "accepted"


def test_a_correction_within_the_tolerance_of_the_problem_is_right() -> None:
    # A row of OlympiadBench: the answer 4.2, right within 0.1.
    row = {"id": "a", "prompt": "2.1 * 2", "answer": "4.2", "error": "1e-1", "answer_type": "Numerical"}
    sample = Sample.model_validate(row | {"response": "2.1 * 2 = 5.2, so \\boxed{5.2}.", "verdict": "wrong"})

    def verdict(number: str) -> str | None:
        text = f"2.1 * 2 = 4.2, so \\boxed{{{number}}}."
        return judge(sample, reply_of(text), Criteria(measure_text, gamma=1.0)).verdict

    assert [verdict(number) for number in ("4.2", "4.25", "4.31")] == ["right", "right", "wrong"]
