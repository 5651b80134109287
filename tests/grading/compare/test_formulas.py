"""Formulas that look alike: braces, exponents, names and orders change them."""

from __future__ import annotations

import pytest

from spotcli.grading import grade_many

DIFFERENT = [
    ("2^{n-1}", "2^n-1"),
    ("\\frac{ab}{c}", "\\frac{a}{bc}"),
    ("x^{2y}", "x^2y"),
    ("\\sqrt{2x}", "\\sqrt{2}x"),
    ("a_{n+1}", "a_n+1"),
    ("e^(2x)", "e^2x"),
    ("f(x) = 2x, g(x) = x-1", "f(x) = x-1, g(x) = 2x"),
    ("2\\,\\text{H}_2\\text{O}", "2H_2"),
    ("\\text{Ann: } 12, \\text{ Ben: } 8", "8, 12"),
    ("\\text{5 red and 3 blue}", "3, 5"),
    ("f(x) = n", "f(n) = n"),
    ("ACB", "ABC"),
    ("-i", "i"),
]
"""Pairs that no reader takes for the same."""

SAME = [
    ("A^TA", "A^T A"),
    ("xyz", "zyx"),
    ("\\frac{GMm}{r^2}", "G\\frac{Mm}{r^2}"),
    ("e^(-x)(x+1)", "(x+1)e^{-x}"),
    ("v_0\\sin\\theta", "\\sin\\theta\\, v_0"),
    ("\\{x \\mid x > 0\\}", "(0,\\infty)"),
    ("|x - 3| < 2", "(1,5)"),
    ("x > 1, x \\ne 3", "(1,3) \\cup (3,\\infty)"),
    ("x \\ne 0", "(-\\infty,0)\\cup(0,\\infty)"),
    ("\\text{all real numbers except } 2", "(-\\infty,2)\\cup(2,\\infty)"),
    ("x = \\pm 2, \\pm 3", "2,-2,3,-3"),
    ("\\sum_{k=1}^n k^2", "\\frac{n(n+1)(2n+1)}{6}"),
    ("\\binom n2", "\\frac{n(n-1)}{2}"),
    ("\\text{III and I only}", "\\text{I and III}"),
    ("6\\text{ ft}^2", "864\\text{ in}^2"),
    ("5\\text{ ft } 3\\text{ in.}", "63\\text{ in}"),
    ("\\text{two and a half}", "2.5"),
    ("x = 3, y = -2", "(3,-2)"),
    (
        "f(x)=\\begin{cases} -x & x<0 \\\\ x & x\\ge 0\\end{cases}",
        "\\begin{cases} x & x\\ge 0\\\\ -x & x<0\\end{cases}",
    ),
    ("3\\hat{i} - 4\\hat{j}", "3\\mathbf{i}-4\\mathbf{j}"),
]
"""Pairs that every reader takes for the same."""


@pytest.fixture(scope="module")
def verdicts() -> dict[tuple[str, str], str]:
    pairs = DIFFERENT + SAME
    grades = grade_many([(f"\\boxed{{{answer}}}", reference) for answer, reference in pairs])
    return {pair: result.verdict for pair, result in zip(pairs, grades, strict=True)}


@pytest.mark.parametrize("pair", DIFFERENT)
def test_different_formulas_are_never_right(pair: tuple[str, str], verdicts: dict[tuple[str, str], str]) -> None:
    assert verdicts[pair] != "right"


@pytest.mark.parametrize("pair", SAME)
def test_notations_of_one_formula_are_right(pair: tuple[str, str], verdicts: dict[tuple[str, str], str]) -> None:
    assert verdicts[pair] == "right"


def test_a_product_after_an_argument_has_two_readings() -> None:
    """``\\sin\\theta v_0`` may be the sine of a product, so it is not wrong as a product with the sine."""
    grades = grade_many(
        [("\\boxed{\\sin\\theta v_0}", "v_0\\sin\\theta"), ("\\boxed{\\sin\\omega t}", "\\sin(\\omega t)")]
    )
    assert [result.verdict for result in grades] == ["undecided", "right"]


def test_an_open_bound_of_an_integer_is_undecided() -> None:
    grades = grade_many([("\\boxed{n \\ge 7}", "n > 6"), ("\\boxed{x \\ge 7}", "x > 6")])
    assert [result.verdict for result in grades] == ["undecided", "wrong"]
