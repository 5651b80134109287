r"""False calculations in a correction."""

from __future__ import annotations

import pytest

from spotcli.repair.steps import false_steps


@pytest.mark.parametrize(
    ("text", "false"),
    [
        ("10 + 4 = 15\n15 + 5 = 19", ["10 + 4 = 15", "15 + 5 = 19"]),
        ("Then 36 + 5 = 42.", ["36 + 5 = 42"]),
        ("$12 \\times 3 = 37$", ["12 \\times 3 = 37"]),
        ("so \\(2 + 3 \\cdot 4 = 20\\)", ["2 + 3 \\cdot 4 = 20"]),  # 14
        ("8 - 3 - 2 = 7", ["8 - 3 - 2 = 7"]),  # 3
        ("1,000 + 24 = 1,025", ["1,000 + 24 = 1,025"]),
        ("0.1 + 0.2 = 0.5", ["0.1 + 0.2 = 0.5"]),
        ("10 / 4 = 3.5", ["10 / 4 = 3.5"]),
        # True ones, and rounded ones.
        ("12 * 3 = 36 and 36 + 5 = 41", []),
        ("1,000 + 24 = 1,024; 2 + 3 * 4 = 14; 8 - 3 - 2 = 3; 0.1 + 0.2 = 0.3", []),
        ("10 / 3 = 3.33\n10 / 3 = 3\n7 / 2 = 4", []),
        ("1.5 * 1.5 = 2.2", []),
        # What is not a calculation of its own.
        ("x + 3 + 4 = 8", []),
        ("2^3 + 1 = 5", []),
        ("so 3 + 4 = 7 * 2 = 14", []),
        ("20% of 50 + 5 = 15", []),
        ("1 and 1/2 + 1 = 2.5", []),
        ("45 + 30 = 1 hour 15", []),
        ("5 + 3 = 8 apples", []),
        ("-3 + 5 = 8", []),
        ("1 + 2 = 4?", []),
        ("Suppose 1 + 2 = 4.", []),
        ("1 / 0 = 5", []),
        ("at 10:30 + 5 = 11", []),
        (f"{'9' * 50} + 1 = 2", []),
    ],
)
def test_certainly_false_calculations_are_found(text: str, false: list[str]) -> None:
    assert false_steps(text) == false


@pytest.mark.parametrize(
    "problem",
    ["Compute in base 5.", "What is 3 + 4 mod 5?", "It is 11 o'clock; 4 hours later?", "Let a * b = 2a + b."],
)
def test_other_arithmetic_is_left_out(problem: str) -> None:
    known = problem if "*" not in problem else f"{problem} The operation is defined so."
    assert false_steps("3 + 4 = 2", known) == []
