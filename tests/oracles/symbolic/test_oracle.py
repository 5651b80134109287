"""Repairs of worked calculations: given cases, reasons to decline, random problems, and hostile text."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spotcli.core.oracle_prompts import OraclePrompt
from spotcli.oracles import CorrectionRequest
from spotcli.oracles.by_name import create
from spotcli.oracles.symbolic import REASONS, Declined, Repaired, SymbolicOracle, repair_calculation
from spotcli.recipe import RectifySection
from spotcli.records import Sample

# (problem, answer, reference, repaired answer)
REPAIRED = {
    "a wrong result that later steps use": (
        "12 + 30 - 7",
        "12 + 30 = 43\n43 - 7 = 36\n\\boxed{36}",
        "35",
        "12 + 30 = 42\n42 - 7 = 35\n\\boxed{35}",
    ),
    "a wrong result that no later step uses": (
        "12 + 30 - 7",
        "12 + 30 = 43\n42 - 7 = 35\n\\boxed{36}",
        "35",
        "12 + 30 = 42\n42 - 7 = 35\n\\boxed{35}",
    ),
    "a wrong last result": (
        "3 * 4 + 5",
        "3 * 4 = 12\n12 + 5 = 18\n\\boxed{18}",
        "17",
        "3 * 4 = 12\n12 + 5 = 17\n\\boxed{17}",
    ),
    "an operand miscopied from the problem": (
        "36 + 32 - 1",
        "36 + 32 = 68\n68 - 11 = 59\n\\boxed{59}",
        "67",
        "36 + 32 = 68\n68 - 1 = 67\n\\boxed{67}",
    ),
    "an operand miscopied from the step before": (
        "30 + 9 - 27",
        "30 + 9 = 39\n27 - 27 = 1\n\\boxed{1}",
        "12",
        "30 + 9 = 39\n39 - 27 = 12\n\\boxed{12}",
    ),
    "one operand twice": (
        "12 + 30 - 7",
        "12 + 12 = 24\n24 - 7 = 17\n\\boxed{17}",
        "35",
        "12 + 30 = 42\n42 - 7 = 35\n\\boxed{35}",
    ),
    "a miscopied sign": (
        "What is 6 * 7 - 5?",
        "6 * 7 = 42\n42 + 5 = 47\n\\boxed{47}",
        None,
        "6 * 7 = 42\n42 - 5 = 37\n\\boxed{37}",
    ),
    "a sign as the answer writes it": (
        "6 * 7 - 5 * 2",
        "$6 \\times 7 = 42$\n$5 + 2 = 7$\n$42 - 7 = 35$\n$\\boxed{35}$",
        "32",
        "$6 \\times 7 = 42$\n$5 \\times 2 = 10$\n$42 - 10 = 32$\n$\\boxed{32}$",
    ),
    "a box that does not repeat the result": (
        "12 + 30 - 7",
        "12 + 30 = 42\n42 - 7 = 35\n\\boxed{36}",
        "35",
        "12 + 30 = 42\n42 - 7 = 35\n\\boxed{35}",
    ),
    "three slips": (
        "23 + 33 - 24",
        "23 + 32 = 66\n66 + 24 = 32\n\\boxed{30}",
        "32",
        "23 + 33 = 56\n56 - 24 = 32\n\\boxed{32}",
    ),
    "prose around the equations": (
        "12 + 30 - 7",
        "First, 12 + 30 = 43. So we have 43.\nThen 43 - 7 = 36, which is 36.\n\nThe answer is \\boxed{36}.",
        "35",
        "First, 12 + 30 = 42. So we have 42.\nThen 42 - 7 = 35, which is 35.\n\nThe answer is \\boxed{35}.",
    ),
    "equations in parentheses and after words": (
        "12 + 30 - 7",
        "Adding (12 + 30 = 43), we subtract 7: 43 - 7 = 36, so x = 36. \\boxed{36}",
        "35",
        "Adding (12 + 30 = 42), we subtract 7: 42 - 7 = 35, so x = 35. \\boxed{35}",
    ),
    "numbered lines": (
        "12 + 30 - 7",
        "1. 12 + 30 = 43\n2. 43 - 7 = 36\n3. The answer is \\boxed{36}",
        "35",
        "1. 12 + 30 = 42\n2. 42 - 7 = 35\n3. The answer is \\boxed{35}",
    ),
    "bold steps": (
        "12 + 30 - 7",
        "**Step 1:** 12 + 30 = 43\n**Step 2:** **43 - 7 = 36**\n\n- **Answer:** \\boxed{36}",
        "35",
        "**Step 1:** 12 + 30 = 42\n**Step 2:** **42 - 7 = 35**\n\n- **Answer:** \\boxed{35}",
    ),
    "the problem repeated with a slip": (
        "12 + 30 - 7",
        "12 + 40 - 7 = ?\n12 + 40 = 52\n52 - 7 = 45\n\\boxed{45}",
        "35",
        "12 + 30 - 7 = ?\n12 + 30 = 42\n42 - 7 = 35\n\\boxed{35}",
    ),
    "the box inside the last equation": (
        "12 + 30 - 7",
        "12 + 30 = 43, so 43 - 7 = \\boxed{36}",
        "35",
        "12 + 30 = 42, so 42 - 7 = \\boxed{35}",
    ),
    "a chain": ("3*4+5", "3*4+5 = 12+5 = 18\n\\boxed{18}", "17", "3*4+5 = 12+5 = 17\n\\boxed{17}"),
    "a chain over lines": (
        "3*4+5",
        "  3*4+5\n= 11+5\n= 16\n\\boxed{16}",
        "17",
        "  3*4+5\n= 12+5\n= 17\n\\boxed{17}",
    ),
    "a chain in LaTeX": (
        r"3 \times 4 + 5",
        "$$3 \\cdot 4 + 5 \\\\\n&= 12 + 6 \\\\\n&= 18$$\n\\boxed{18}",
        "17",
        "$$3 \\cdot 4 + 5 \\\\\n&= 12 + 5 \\\\\n&= 17$$\n\\boxed{17}",
    ),
    "all in one step": ("8 - 3 - 2", "8 - 3 - 2 = 7\n\\boxed{7}", "3", "8 - 3 - 2 = 3\n\\boxed{3}"),
    "parentheses": (
        "((2 + 3) * (4 - 1)) / 5",
        "2 + 3 = 5\n4 - 1 = 3\n5 * 3 = 16\n16 / 5 = 3.2\n\\boxed{3.2}",
        "3",
        "2 + 3 = 5\n4 - 1 = 3\n5 * 3 = 15\n15 / 5 = 3\n\\boxed{3}",
    ),
    "parentheses in a chain": (
        "((2 + 3) * (4 - 1)) / 5",
        "((2 + 3) * (4 - 1)) / 5 = (5 * 3) / 5 = 16 / 5 = 3.2\n\\boxed{3.2}",
        "3",
        "((2 + 3) * (4 - 1)) / 5 = (5 * 3) / 5 = 15 / 5 = 3\n\\boxed{3}",
    ),
    "products first, in the order of the answer": (
        "5 + 3 - 10 * 2",
        "10 * 2 = 20\n5 + 3 = 8\n8 - 20 = 12\n\\boxed{12}",
        "-12",
        "10 * 2 = 20\n5 + 3 = 8\n8 - 20 = -12\n\\boxed{-12}",
    ),
    "the second sign first, as a + (b - c)": (
        "12 + 30 - 7",
        "30 - 7 = 24\n12 + 24 = 36\n\\boxed{36}",
        "35",
        "30 - 7 = 23\n12 + 23 = 35\n\\boxed{35}",
    ),
    "a sum the other way round": (
        "12 + 30 - 7",
        "30 + 12 = 43\n43 - 7 = 36\n\\boxed{36}",
        "35",
        "30 + 12 = 42\n42 - 7 = 35\n\\boxed{35}",
    ),
    "a negative result": (
        "20 + (3 - 10)",
        "3 - 10 = 7\n20 + 7 = 27\n\\boxed{27}",
        "13",
        "3 - 10 = -7\n20 + (-7) = 13\n\\boxed{13}",
    ),
    "a negative operand": (
        "-3 + 5 * 2",
        "5 * 2 = 10\n-3 + 10 = 13\n\\boxed{13}",
        "7",
        "5 * 2 = 10\n-3 + 10 = 7\n\\boxed{7}",
    ),
    "thousands as the answer writes them": (
        "12 × 100 + 5",
        "12 × 90 = 1,080\n1,080 + 5 = 1,085\nSo \\boxed{1,085}",
        "1205",
        "12 × 100 = 1,200\n1,200 + 5 = 1,205\nSo \\boxed{1,205}",
    ),
    "thousands in LaTeX": (
        "12 ÷ 3 * 1000",
        "12 ÷ 3 = 3\n3 * 1000 = 3{,}000\n\\boxed{3{,}000}",
        "4,000",
        "12 ÷ 3 = 4\n4 * 1000 = 4{,}000\n\\boxed{4{,}000}",
    ),
    "no separator of thousands if the answer has none": (
        "12 * 100 + 5",
        "12 * 100 = 120\n120 + 5 = 125\n\\boxed{125}",
        "1205",
        "12 * 100 = 1200\n1200 + 5 = 1205\n\\boxed{1205}",
    ),
    "decimals": (
        "2.5 + 1.75 - 0.25",
        "2.5 + 1.75 = 4.5\n4.5 - 0.25 = 4.25\n\\boxed{4.25}",
        "4",
        "2.5 + 1.75 = 4.25\n4.25 - 0.25 = 4\n\\boxed{4}",
    ),
    "decimals with their zeros": (
        "2.50 + 1.75 - 0.25",
        "2.50 + 1.75 = 4.15\n4.15 - 0.25 = 3.90\n\\boxed{3.90}",
        "4",
        "2.50 + 1.75 = 4.25\n4.25 - 0.25 = 4.00\n\\boxed{4.00}",
    ),
    "an integer that has to become a decimal": (
        "7 / 2 + 1",
        "7 / 2 = 3\n3 + 1 = 4\n\\boxed{4}",
        "4.5",
        "7 / 2 = 3.5\n3.5 + 1 = 4.5\n\\boxed{4.5}",
    ),
    "a slash that divides": ("12/4 + 1", "12/4 = 4\n4 + 1 = 5\n\\boxed{5}", "4", "12/4 = 3\n3 + 1 = 4\n\\boxed{4}"),
    "a slash that makes a fraction": (
        "1/2 + 1/3 - 1/6",
        "1/2 + 1/3 = 2/5\n2/5 - 1/6 = 7/30\n\\boxed{\\frac{7}{30}}",
        "2/3",
        "1/2 + 1/3 = 5/6\n5/6 - 1/6 = 2/3\n\\boxed{\\frac{2}{3}}",
    ),
    "a slash whose meaning the reference answer decides": (
        "6 / 3/4",
        "6 / 3 = 2\n2 / 4 = 0.6\n\\boxed{0.6}",
        "0.5",
        "6 / 3 = 2\n2 / 4 = 0.5\n\\boxed{0.5}",
    ),
    "a common denominator": (
        r"\frac{1}{2} + \frac{1}{3}",
        "$\\frac{1}{2} + \\frac{1}{3} = \\frac{3}{6} + \\frac{2}{6} = \\frac{4}{6}$\n$\\boxed{\\frac{4}{6}}$",
        r"\frac{5}{6}",
        "$\\frac{1}{2} + \\frac{1}{3} = \\frac{3}{6} + \\frac{2}{6} = \\frac{5}{6}$\n$\\boxed{\\frac{5}{6}}$",
    ),
    "x for times": ("3 x 4 + 5", "3 x 4 = 13\n13 + 5 = 18\n\\boxed{18}", "17", "3 x 4 = 12\n12 + 5 = 17\n\\boxed{17}"),
    "an instruction in the problem": (
        "Work out 3 * 4 + 5 step by step and put the result in \\boxed{}.",
        "3 * 4 = 13\n13 + 5 = 18\n\\boxed{18}",
        None,
        "3 * 4 = 12\n12 + 5 = 17\n\\boxed{17}",
    ),
    "the text's other characters": (
        "12 + 30 - 7",
        "\t12 +  30=43 …\r\n43-7 = 36\u2028\n\\boxed{ 36 } \U0001f600\ud800",
        "35",
        "\t12 +  30=42 …\r\n42-7 = 35\u2028\n\\boxed{ 35 } \U0001f600\ud800",
    ),
}


@pytest.mark.parametrize(("problem", "response", "reference", "expected"), REPAIRED.values(), ids=REPAIRED)
def test_only_the_slips_are_repaired(problem: str, response: str, reference: str | None, expected: str) -> None:
    result = repair_calculation(problem, response, reference)
    assert isinstance(result, Repaired), result
    assert result.text == expected


BOX = "\n\\boxed{36}"
DECLINED = {
    "missing step": ("12 + 30 - 7", "12 + 30 = 43\n\\boxed{43}", "35"),
    "missing step, with the box before the steps": ("12 + 30 - 7", "\\boxed{36}\n12 + 30 = 42\n42 - 7 = 36", "35"),
    "extra step": ("12 + 30 - 7", "12 + 30 = 42\n42 - 7 = 36\n36 + 1 = 37\n\\boxed{37}", "35"),
    "no equation": ("12 + 30 - 7", "It is \\boxed{36}.", "35"),
    "no equation in an empty answer": ("12 + 30 - 7", "", "35"),
    "unreadable equation: truncated": ("12 + 30 - 7", "12 + 30 = 42\n42 - 7 =", "35"),
    "unreadable equation: units": ("12 + 30 - 7", "12 apples + 30 apples = 42\n42 - 7 = 36" + BOX, "35"),
    "unreadable equation: result first": ("12 + 30 - 7", "42 = 12 + 30\n42 - 7 = 36" + BOX, "35"),
    "unreadable equation: parentheses": ("12 + 30 - 7", "12 + (30 = 42\n42 - 7 = 36" + BOX, "35"),
    "unreadable equation: approximate": ("10 / 4 + 1", "10 / 4 ≈ 2\n2 + 1 = 3\n\\boxed{3}", "3.5"),
    "unreadable equation: percent": ("12 + 30 - 7", "12% + 30 = 42\n42 - 7 = 36" + BOX, "35"),
    "unreadable equation: a root": ("9 + 7", "\\sqrt{9} + 7 = 10\n\\boxed{10}", "16"),
    "unreadable text: a number in a word": ("12 + 30 - 7", "x2 + 30 = 42\n42 - 7 = 36" + BOX, "35"),
    "unreadable text: a decimal comma": ("12 + 30 - 7", "12,5 + 30 = 42\n42 - 7 = 36" + BOX, "35"),
    "unreadable text: a superscript": ("12 + 30 - 7", "12² + 30 = 42\n42 - 7 = 36" + BOX, "35"),
    "unreadable text: a null byte": ("12 + 30 - 7", "12 + 30 = 43\n43 - 7 = 36\n\0\\boxed{36}", "35"),
    "no boxed answer": ("12 + 30 - 7", "12 + 30 = 43\n43 - 7 = 36", "35"),
    "no boxed answer after the last step": ("12 + 30 - 7", "12 + 30 = \\boxed{43}\n43 - 7 = 36", "35"),
    "unreadable box": ("12 + 30 - 7", "12 + 30 = 43\n43 - 7 = 36\n\\boxed{about 36}", "35"),
    "unreadable box: truncated": ("12 + 30 - 7", "12 + 30 = 43\n43 - 7 = 36\n\\boxed{36", "35"),
    "step not recognised": ("7 * 2 + 23", "7 * 2 = 14\n2 * 2 = 4\n\\boxed{4}", "37"),
    "step not recognised: wrong precedence": ("2 + 3 * 4", "2 + 3 = 5\n5 * 4 = 20\n\\boxed{20}", "14"),
    "step not recognised: wrong association": ("10 - 4 + 3", "4 + 3 = 7\n10 - 7 = 3\n\\boxed{3}", "9"),
    "step not recognised: other problem": ("2 + 3 * 4", "12 + 30 = 42\n42 - 7 = 35\n\\boxed{35}", "14"),
    "missing step: a run-on equation": ("12 + 30 - 7", "12 + 30 = 42 - 7 = 36\n\\boxed{36}", "35"),
    # Either product may be the miscopied one.
    "ambiguous": ("5 * 3 + 5 * 4", "5 * 4 = 20\n5 * 4 = 20\n20 + 20 = 40\n\\boxed{40}", "35"),
    # The second 30 may be the number of the problem or the wrong result.
    "ambiguous: in prose": ("12 + 30 - 7", "12 + 30 = 30\nSo 30.\n30 - 7 = 23\n\\boxed{23}", "35"),
    # 6 / 3 / 4 or 6 / (3/4): no reference answer decides.
    "ambiguous: fractions": ("6 / 3/4", "6 / 3 = 2\n2 / 4 = 0.6\n\\boxed{0.6}", None),
    "unexplained number": ("12 + 30 - 7", "In all 99. 12 + 30 = 43\n43 - 7 = 36" + BOX, "35"),
    "not exact": ("10 / 3 + 1", "10 / 3 = 3.33\n3.33 + 1 = 4.33\n\\boxed{4.33}", "13/3"),
    "nothing wrong": ("12 + 30 - 7", "12 + 30 = 42\n42 - 7 = 35\n\\boxed{35}", "35"),
    "reference differs": ("12 + 30 - 7", "12 + 30 = 43\n43 - 7 = 36" + BOX, "34"),
    "unreadable reference": ("12 + 30 - 7", "12 + 30 = 43\n43 - 7 = 36" + BOX, "thirty-five"),
    "no expression": ("How many apples has Ann?", "12 + 30 = 43\n43 - 7 = 36" + BOX, "35"),
    "no expression: a variable": ("12 + y - 7", "12 + 30 = 43\n43 - 7 = 36" + BOX, "35"),
    "no expression: more is asked": ("Round 12 / 8 + 1", "12 / 8 = 1.4\n1.4 + 1 = 2.4\n\\boxed{2.4}", None),
    "no expression: more is asked in another language": (
        "Удвойте 3 * 4 + 5",
        "3 * 4 = 13\n13 + 5 = 18\n\\boxed{18}",
        None,
    ),
    "no expression: more numbers": ("12 / 8 + 1 to 1 place", "12 / 8 = 1.4\n1.4 + 1 = 2.4\n\\boxed{2.4}", None),
    "no expression: a power": ("2^3 + 1", "2^3 = 6\n6 + 1 = 7\n\\boxed{7}", None),
    "no expression: a tower": ("9**9**9", "9**9**9 = 5\n\\boxed{5}", None),
    "several expressions": ("12 + 30 or 30 - 7", "12 + 30 = 43\n\\boxed{43}", "42"),
    "division by zero": ("4 / (2 - 2)", "2 - 2 = 0\n4 / 0 = 0\n\\boxed{0}", None),
    "too long: digits": ("12 + 30 - 7", f"12 + 30 = {'9' * 30}\n42 - 7 = 36" + BOX, "35"),
    "too complex": ("1" + " + 1" * 9, "1 + 1 = 3\n\\boxed{10}", "10"),
}


@pytest.mark.parametrize(("problem", "response", "reference"), DECLINED.values(), ids=DECLINED)
def test_declines_with_the_reason(
    request: pytest.FixtureRequest, problem: str, response: str, reference: str | None
) -> None:
    result = repair_calculation(problem, response, reference)
    assert isinstance(result, Declined), result
    assert request.node.callspec.id.startswith(result.reason)


def test_the_cases_cover_every_reason() -> None:
    results = [repair_calculation(*case) for case in DECLINED.values()]
    assert {result.reason for result in results if isinstance(result, Declined)} == set(REASONS)


def test_a_repair_lists_its_edits() -> None:
    result = repair_calculation("36 + 32 - 1", "36 + 32 = 68\n68 - 11 = 59\n\\boxed{59}", "67")
    assert isinstance(result, Repaired)
    assert [(edit.start, edit.end, edit.old, edit.new) for edit in result.edits] == [
        (18, 20, "11", "1"),
        (23, 25, "59", "67"),
        (33, 35, "59", "67"),
    ]
    # The operand was miscopied, and 68 - 11 is 57: two slips.
    assert (result.first_step, result.slips, result.value) == (2, 2, Fraction(67))


# --- random problems ---


@dataclass(frozen=True)
class Node:
    sign: str
    left: Node | Fraction
    right: Node | Fraction


def random_tree(r: Random, operations: int) -> Node | Fraction:
    if not operations:
        return Fraction(r.randint(1, 40))
    left = r.randrange(operations)
    return Node(r.choice("++--**/"), random_tree(r, left), random_tree(r, operations - 1 - left))


def work(sign: str, left: Fraction, right: Fraction) -> Fraction:
    quotient = left / right if right else Fraction(1, 7)  # not an integer, so `solve` returns None
    return {"+": left + right, "-": left - right, "*": left * right, "/": quotient}[sign]


def number(value: Fraction, second: bool = False) -> str:
    return f"({value})" if second and value < 0 else str(value)


def show(tree: Node | Fraction) -> str:
    """The expression with only the necessary parentheses."""
    if isinstance(tree, Fraction):
        return str(tree)
    left, right = show(tree.left), show(tree.right)
    if isinstance(tree.left, Node) and tree.sign in "*/" and tree.left.sign in "+-":
        left = f"({left})"
    if isinstance(tree.right, Node) and (tree.sign in "*/" or (tree.sign == "-" and tree.right.sign in "+-")):
        right = f"({right})"
    return f"{left} {tree.sign} {right}"


def solve(r: Random, tree: Node | Fraction) -> list[str] | None:
    """A worked solution in a random valid order; None if an intermediate result is not an integer."""
    steps: list[str] = []

    def ready(tree: Node | Fraction, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
        if isinstance(tree, Fraction):
            return []
        if isinstance(tree.left, Fraction) and isinstance(tree.right, Fraction):
            return [path]
        return ready(tree.left, (*path, "left")) + ready(tree.right, (*path, "right"))

    def reduce(tree: Node | Fraction, path: tuple[str, ...]) -> Node | Fraction:
        assert isinstance(tree, Node)
        if path:
            left = reduce(tree.left, path[1:]) if path[0] == "left" else tree.left
            right = reduce(tree.right, path[1:]) if path[0] == "right" else tree.right
            return Node(tree.sign, left, right)
        assert isinstance(tree.left, Fraction)
        assert isinstance(tree.right, Fraction)
        value = work(tree.sign, tree.left, tree.right)
        steps.append(f"{number(tree.left)} {tree.sign} {number(tree.right, second=True)} = {value}")
        return value

    while isinstance(tree, Node):
        tree = reduce(tree, r.choice(ready(tree)))
        if isinstance(tree, Node) and any("/" in part for part in steps[-1].split(" = ")[1:]):
            return None
    if tree.denominator != 1 or any("/" in step.split(" = ")[1] for step in steps):
        return None
    return [*steps, f"\\boxed{{{tree}}}"]


TOKEN = re.compile(r"(?<![0-9)] )-?[0-9]+|[0-9]+|(?<= )[-+*/](?= )")


def corrupt(r: Random, text: str, slips: int) -> str:
    for _ in range(slips):
        token = r.choice(list(TOKEN.finditer(text)))
        if token[0] in "+-*/":
            new = r.choice([sign for sign in "+-*/" if sign != token[0]])
        else:
            old, elsewhere = int(token[0]), map(int, re.findall("[0-9]+", text))
            new = str(r.choice([old + 1, old + 10, abs(old - 1), r.randint(0, 60), *elsewhere]))
        text = text[: token.start()] + new + text[token.end() :]
    return text


def is_right(problem: str, answer: str, truth: Fraction) -> bool:
    """Every step is true and uses numbers that remain, and at the end only the value remains."""
    remaining = Counter(map(Fraction, re.findall("[0-9]+", problem)))
    *steps, box = answer.splitlines()
    for step in steps:
        equation = re.fullmatch(r"\(?(-?[0-9]+)\)? (.) \(?(-?[0-9]+)\)? = (-?[0-9]+)", step)
        assert equation
        first, sign, second, result = equation.groups()
        for operand in (first, second):
            remaining[Fraction(operand)] -= 1
        if min(remaining.values()) < 0 or work(sign, Fraction(first), Fraction(second)) != int(result):
            return False
        remaining[Fraction(result)] += 1
    return +remaining == Counter([truth]) and box == f"\\boxed{{{truth}}}"


def tokens_changed(one: str, other: str) -> int:
    tokens = r"-?[0-9]+|[-+*/]"
    return sum(a != b for a, b in zip(re.findall(tokens, one), re.findall(tokens, other), strict=True))


def worked(seed: int) -> tuple[Random, str, str, Fraction]:
    """A random problem, its solution and its value."""
    r = Random(seed)
    while True:
        tree = random_tree(r, r.randint(2, 4))
        if steps := solve(r, tree):
            return r, show(tree), "\n".join(steps), Fraction(steps[-1][7:-1])


@given(seed=st.integers(0, 2**32))
@settings(max_examples=150, deadline=None)
def test_a_right_solution_is_not_changed(seed: int) -> None:
    _, problem, solution, truth = worked(seed)
    assert is_right(problem, solution, truth)
    assert repair_calculation(problem, solution, str(truth)) == Declined("nothing wrong")


@given(seed=st.integers(0, 2**32), slips=st.integers(1, 2))
@settings(max_examples=600, deadline=None)
def test_a_corrupted_solution_is_repaired_or_declined(seed: int, slips: int) -> None:
    r, problem, solution, truth = worked(seed)
    answer = corrupt(r, solution, slips)
    result = repair_calculation(problem, answer, str(truth))
    if isinstance(result, Repaired) and result.text != solution:
        # Two slips can lead closer to another right solution, such as one with a sum the other way round.
        assert is_right(problem, result.text, truth)
        assert tokens_changed(answer, result.text) <= tokens_changed(answer, solution)


def test_most_corrupted_solutions_are_repaired() -> None:
    results = Counter[bool]()
    for seed in range(300):
        r, problem, solution, truth = worked(seed)
        answer = corrupt(r, solution, 1)
        if answer != solution:
            result = repair_calculation(problem, answer, str(truth))
            results[isinstance(result, Repaired) and result.text == solution] += 1
    # The others are ambiguous: one of two equal products was miscopied.
    assert results[True] / results.total() > 0.98


@given(problem=st.text(max_size=60), answer=st.text(max_size=300))
@settings(max_examples=150, deadline=None)
def test_any_text_is_read_without_an_exception(problem: str, answer: str) -> None:
    assert isinstance(repair_calculation(problem, answer), Declined)


@given(answer=st.lists(st.sampled_from([*"123()=+-*/x,.$\n {}", "12 + 30", " = ", "42", "- 7", "\\boxed{", "35", "}"])))
@settings(max_examples=300, deadline=None)
def test_any_mathematical_text_is_read_without_an_exception(answer: list[str]) -> None:
    text = "".join(answer)
    result = repair_calculation("12 + 30 - 7", text, "35")
    if isinstance(result, Repaired):
        assert repair_calculation("12 + 30 - 7", result.text, "35") == Declined("nothing wrong")


HOSTILE = {
    "a megabyte of brackets": "(" * 1_000_000,
    "brackets": "(" * 19_000,
    "braces": "{" * 19_000,
    "nested": "(" * 9_000 + "1+1" + ")" * 9_000 + "=2",
    "null bytes": "\0" * 19_000,
    "digits": "9" * 19_000,
    "equals signs": "=" * 19_000,
    "a long sum": "1+" * 9_000 + "1=1",
    "a long fraction": "1/" * 9_000 + "1=1",
    "boxes": "\\boxed{" * 2_700,
    "fractions": "\\frac{1}" * 2_400,
    "minus signs": "-" * 19_000 + "1",
    "bullets": "- " * 9_500,
    "lines": "\n" * 19_000,
    "blanks": " " * 19_000 + "=",
    "words": "a-" * 9_000,
    "powers": "9" + "**9" * 5_000,
    "steps": "1+1=2\n" * 3_000 + "\\boxed{2}",
    "restatements": "5+5\n" * 30 + "5+5=10\n\\boxed{5}",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_text_is_declined_quickly(text: str) -> None:
    for problem, answer in (("12 + 30 - 7", text), ("5+5+5+5+5+5+5+5+5", text), (text, "12 + 30 = 42\n\\boxed{42}")):
        start = time.process_time()
        assert isinstance(repair_calculation(problem, answer), Declined)
        # It takes milliseconds of processor time.
        assert time.process_time() - start < 1.0


# --- the oracle ---


def oracle_request(response: str, *, answer: str | None = "35") -> CorrectionRequest:
    turns = [
        {"role": "user", "content": "1 + 1 + 1"},
        {"role": "assistant", "content": "1 + 1 = 2\n2 + 1 = 3\n\\boxed{3}"},
        {"role": "user", "content": "12 + 30 - 7"},
    ]
    sample = Sample.model_validate({"prompt": turns, "answer": answer, "response": response, "verdict": "wrong"})
    return CorrectionRequest(sample=sample, prompt=OraclePrompt())


def test_the_oracle_reads_the_last_user_turn() -> None:
    oracle = create("symbolic", RectifySection())
    assert isinstance(oracle, SymbolicOracle)
    assert (oracle.name, oracle.prompted, oracle.parallel) == ("symbolic", False, 1)
    reply = asyncio.run(oracle.correct(oracle_request("12 + 30 = 43\n43 - 7 = 36\n\\boxed{36}")))
    assert reply.text == "12 + 30 = 42\n42 - 7 = 35\n\\boxed{35}"
    assert (reply.finish_reason, reply.cost, reply.model) == ("stop", 0.0, "symbolic")
    asyncio.run(oracle.close())


def test_the_oracle_declines_with_a_reason() -> None:
    reply = asyncio.run(SymbolicOracle().correct(oracle_request("12 + 30 = 43\n\\boxed{43}")))
    assert (reply.finish_reason, reply.reason, reply.text, reply.cost) == ("declined", "missing step", "", 0.0)
