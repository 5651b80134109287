"""Answers that must be graded right, wrong and undecided, and where the answer is found."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import spotcli
from spotcli.grading import grade, grade_many
from spotcli.grading.compare import Undecidable
from spotcli.grading.compare.equality import equal
from spotcli.grading.find_answer import NoAnswer, find_answer, strip_thinking


def boxed(answer: str) -> str:
    return f"Thus $\\boxed{{{answer}}}$."


# Reference and answer, which are equal.
RIGHT = [
    ("5", "x=5"), ("70", "070"), ("27", "27.0"), ("0.5", r"\dfrac12"), ("918.5", r"918\frac{1}{2}"),
    ("1.5", "1 1/2"),
    ("1234", "1,234"), ("1234567", "1.234.567"), ("1000", "1 000"), ("10000", r"10{,}000"), ("2.74", "2,74"),
    ("1.24e-8", r"1.24\times10^{-8}"), ("6.02e23", "6.02x10^23"), (r"\frac13", "0.333333"),
    (r"\frac16", r"0.1\overline{6}"),
    (r"3\sqrt{2}", r"\sqrt{18}"), (r"\frac{\sqrt3}{3}", r"\frac{1}{\sqrt{3}}"), (r"2\pi", "6.283185307"),
    ("1024", "2^{10}"),
    ("0.5", r"50\%"), ("50", r"50\%"), (r"28\%", "28 percent"), (r"\$36", "36"),
    (r"\$5", r"5\text{ dollars}"),
    (r"10\text{ cm}", r"100\text{ mm}"), (r"24\text{ square feet}", r"24\text{ ft}^2"),
    ("12", r"12\text{ apples}"),
    (r"90^\circ", "90"), (r"90^\circ", r"\frac{\pi}{2}"), (r"\tan 45^\circ", "1"),
    ("[0,1)", r"\left[0, 1\right)"),
    (r"(2,\infty)", "x>2"), (r"x \in [-2,7]", r"-2 \le x \le 7"),
    (r"(-\infty,2)\cup(3,\infty)", r"x<2 \text{ or } x>3"),
    (r"\{1,2,3\}", "3, 2, 1"), ("(1,2)", "1,2"), ("1,2", r"1 \text{ and } 2"),
    (r"1\pm\sqrt{19}", r"1-\sqrt{19}, 1+\sqrt{19}"),
    ("p=5,q=2;p=7,q=2", "(5,2),(7,2)"), ("(2,1),(3,1)", "(3,1),(2,1)"), ("3:4", "6:8"),
    (r"\text{east}", "East"),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{bmatrix} 1 & 2 \\ 3 & 4 \end{bmatrix}"),
    ("B", r"\textbf{(B)}\ 42"),
    ("42", r"\textbf{(B)}\ 42"), ("7", r"\text{seven}"), ("204_5", r"204_{\text{five}}"),
    (r"\emptyset", r"\{\}"),
    ("x^2+2x+1", "(x+1)^2"), ("y=2x+3", "y-2x=3"), (r"\sin^2 x+\cos^2 x", "1"), (r"\ln 2", r"\log 2"),
    (r"e^{i\pi}", "-1"),
    ("x<1", "-x>-1"), (r"\frac{3 m}{2}-1", "1.5m-1"), ("10^{10^{10}}", "10^{10^{10}}"),
    (r"\infty", r"\text{infinity}"),
    ("9" * 4301, "9" * 4301),
]  # fmt: skip

# Reference and answer, which are different.
WRONG = [
    ("5", "-5"), ("8", "8.1"), ("1/2004!", "1/2006!"), ("1.24e-8", "2.55e-10"), ("10^{100}", "10^{100}+1"),
    ("200", "2"),
    (r"10\text{ cm}", r"10\text{ m}"), ("12_5", "12_6"), (r"\$5", r"5\text{ euros}"),
    (r"24\text{ ft}^2", r"24\text{ ft}^3"),
    ("0.09", "9"), ("(1,2,3)", "(3,2,1)"), ("[0,1)", "[0,1]"), ("1,2", "1,2,3"), (r"\pm 3", "3"),
    ("12:00", "1:00"),
    ("x^2", "x^3"), ("y=2x+3", "y=2x+4"), ("x>2", r"x\ge 2"), ("A", "C"), (r"\text{odd}", "oddd"),
    ("4", r"4\sqrt{2}"),
    (r"\begin{pmatrix}1&2\end{pmatrix}", r"\begin{pmatrix}1&3\end{pmatrix}"), ("5", "5x"),
    ("22/7", r"\pi"), ("2", "[0,1)"),
    ("x^2+y^2=1", "x^2+y^2=2"), ("7" * 4301, "7" * 4300 + "8"), ("42", "10^{10^{10}}"),
]  # fmt: skip

# Reference and answer, which are neither proved equal nor proved different.
UNDECIDED = [
    ("x=5", "y=5"), ("1111_2", "1111"), ("0.64N", "0.64"), (r"\frac13", "0.333"), (r"\sqrt2", "1.414"),
    ("5", "9**9**9**9"),
    ("50", r"\$0.50"), ("3x+C", "3x+c"), ("(1,2)", r"\{1,2\}"), ("B", "A or B"), ("7 = 11a+c", "11a+c"),
    ("18", r"17\text{ or so, see \dots"),
]  # fmt: skip


@pytest.mark.parametrize(("reference", "answer"), RIGHT)
def test_right(reference: str, answer: str) -> None:
    result = grade(boxed(answer), reference)
    assert result.verdict == "right", result


@pytest.mark.parametrize(("reference", "answer"), WRONG)
def test_wrong(reference: str, answer: str) -> None:
    result = grade(boxed(answer), reference)
    assert result.verdict == "wrong", result


@pytest.mark.parametrize(("reference", "answer"), UNDECIDED)
def test_undecided_with_a_reason(reference: str, answer: str) -> None:
    result = grade(boxed(answer), reference)
    assert result.verdict == "undecided"
    assert result.reason


def test_a_response_that_is_only_an_answer() -> None:
    for response in ("$x=5$", "5", r"\(5\)", " 5.0 ", "$$5$$", "5 units", "The answer is 5."):
        assert grade(response, "5").verdict == "right", response


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (r"first \boxed{3}, and so finally \boxed{\frac{1}{\sqrt{2}}}", r"\frac{1}{\sqrt{2}}"),
        (r"\fbox{7}", "7"),
        (r"<think>\boxed{8}</think> \boxed{7}", "7"),
        (r"thinking that the template opened \boxed{8}</think> \boxed{7}", "7"),
        (r"\boxed{12}. Checking again: \boxed{12}", "12"),
        (r"\boxed{1} and $\boxed{2}$", "1, 2"),
        (r"\boxed{1} papers and \boxed{2} bins", "1, 2"),
        (r"\boxed{1} no no no no no \boxed{2}", "2"),
        ("```latex\n\\boxed{4}\n```", "4"),
        ("It is \\boxed{4}.\n```python\nprint('\\\\boxed{x}')\n```", "4"),
        (r"I will put it in \boxed{}. It is \boxed{6}", "6"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{200} a year. Final Answer: The final answer is $10,455$. I hope it is so.", "$10,455$"),
        ("We add.\nThe final answer is: $\\frac{1}{2}$. I hope it is correct.", r"$\frac{1}{2}$"),
        ("so many eggs\n#### 1,200", "1,200"),
        ("3 + 4 = 7\nA: 7", "7"),
        ("**Answer:** 42", "42"),
    ],
)  # fmt: skip
def test_where_the_answer_is(response: str, expected: str) -> None:
    assert find_answer(response).text == expected


@pytest.mark.parametrize(
    "response",
    [
        "There is no box, but 7 is it, I am sure of that",
        "<think>so it is \\boxed{7}",  # not closed: truncated while thinking
        "it is \\boxed{7",
        "",
        "The answer is 7. " + "Wait, let me think again about all of this. " * 20,  # it may be withdrawn
        "#### Step 3: compute the sum of 3 and 4, which is what was asked for in the question above",
    ],
)
def test_numbers_in_prose_are_not_answers(response: str) -> None:
    assert grade(response, "7").verdict == "undecided"


def test_no_answer_is_an_error_with_a_reason() -> None:
    with pytest.raises(NoAnswer, match="no answer found"):
        find_answer("There is no box, and 1,200 of them are left over in the first of the two cases.")


def test_several_boxes_are_undecided_if_only_the_last_one_matches() -> None:
    result = grade(r"either \boxed{3} or \boxed{4}", "4")
    assert (result.verdict, result.extracted) == ("undecided", "3 or 4")


def test_thinking_blocks() -> None:
    assert strip_thinking("a<think>b</think>c") == "ac"
    assert strip_thinking("b</think>c") == "c"
    assert strip_thinking("a<think>b") == "a"
    assert strip_thinking("a<think>b<think>c</think>d</think>e") == "ae"


def test_the_order_of_a_list_has_no_meaning() -> None:
    assert grade(boxed("2,1"), "1,2").verdict == "right"


def test_decimals_agree_to_the_tolerance() -> None:
    # Relative differences of 1e-7 and 1e-5; the tolerance is 1e-6.
    assert grade(boxed("1.0000001"), "1").verdict == "right"
    assert grade(boxed("1.00001"), "1").verdict == "wrong"


def test_grade_many_keeps_the_order() -> None:
    pairs = [(boxed(f"{n}+x"), f"x+{n % 7}") for n in range(40)]
    assert [g.verdict for g in grade_many(pairs)] == ["right" if n % 7 == n else "wrong" for n in range(40)]


@settings(max_examples=60, deadline=None)
@given(st.fractions(min_value=-1000, max_value=1000, max_denominator=500), st.fractions(max_denominator=500))
def test_fractions_agree_with_python(a: Fraction, b: Fraction) -> None:
    text = f"\\frac{{{a.numerator}}}{{{a.denominator}}}"
    assert grade(boxed(text), str(a)).verdict == "right"
    assert grade(boxed(text), str(b)).verdict == ("right" if a == b else "wrong")


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=80), st.text(max_size=40))
def test_no_text_raises_an_exception(response: str, reference: str) -> None:
    for text in (response, boxed(response)):
        result = grade(text, reference, seconds=2)
        assert result.verdict in ("right", "wrong", "undecided")
        assert result.reason or result.verdict != "undecided"
        assert "internal error" not in result.reason


@settings(max_examples=60, deadline=None)
@given(st.decimals(min_value=-(10**6), max_value=10**6, places=3))
def test_a_shifted_number_is_never_right(number: Decimal) -> None:
    for shifted in (number + 1, number * 10, -number):
        if shifted != number and abs(shifted - number) > abs(number) / 10**5:
            assert grade(boxed(str(shifted)), str(number)).verdict != "right"


@pytest.mark.parametrize(
    "repeated",
    [
        "a(b)",
        "a_{b}",
        "1,",
        "1,234",
        r"\text{m}/",
        "-",
        "2^",
        r"\frac1",
        "x|",
        "=",
        r"1\pm",
        r"(1,2)\cup",
        "1:",
        "(A)",
        "5!",
    ],
)
def test_no_pattern_takes_exponential_time(repeated: str) -> None:
    text = (repeated * 300)[:900]
    for reference in ("42", "y=2x+3", "(1,2)", "a(b)" * 50 + "6"):
        start = time.monotonic()
        with contextlib.suppress(Undecidable):
            equal(reference, text + "5=3")
        assert time.monotonic() - start < 1


def test_grading_without_algebra_loads_no_heavy_module() -> None:
    code = (
        "import sys\n"
        "import spotcli.grading as g\n"
        "assert g.grade(r'\\boxed{\\frac{16}{25}}', '0.64').verdict == 'right'\n"
        "print([m for m in ('sympy', 'math_verify', 'torch', 'latex2sympy2') if m in sys.modules])"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(str(spotcli.__file__)).parents[1])}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
    assert result.stdout.strip() == "[]"
