r"""Reading and comparing numbers without sympy."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest

from spotcli.grading.compare.exact_numbers import NotANumber, TooLarge, read_number
from spotcli.grading.compare.number_equality import same_number


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("42", Fraction(42)),
        ("-0.125", Fraction(-1, 8)),
        (r"\frac{16}{25}", Fraction(16, 25)),
        # 3 + 1/2
        ("3 1/2", Fraction(7, 2)),
        # 0.1666... = 1/6: 0.1 + 6/90
        (r"0.1\overline{6}", Fraction(1, 6)),
        (r"1.24\times10^{-2}", Fraction(124, 10_000)),
        # 5! / 2^3 = 120 / 8
        ("5!/2^3", Fraction(15)),
        # 4 choose 2
        (r"\binom{4}{2}", Fraction(6)),
        # The root of a square is exact.
        (r"\sqrt{\frac{4}{9}}", Fraction(2, 3)),
    ],
)
def test_rational_results_are_exact(text: str, value: Fraction) -> None:
    assert read_number(text).value == value


def test_an_irrational_result_has_120_digits() -> None:
    # sqrt(2) = 1.41421356237309504880168872420969807856967187537694...
    value = read_number(r"\sqrt{2}").value
    assert isinstance(value, Decimal)
    assert str(value).startswith("1.41421356237309504880168872420969807856967187537694")
    assert len(value.as_tuple().digits) == 120


def test_a_plain_decimal_keeps_its_places() -> None:
    number = read_number("3.140")
    assert (number.rounded, number.places) == (True, 3)
    assert (read_number("22/7").rounded, read_number("22/7").places) == (False, None)


@pytest.mark.parametrize("text", ["x + 1", r"\sin 1", "", "1 +", "three", "__import__('os')"])
def test_other_text_is_not_a_number(text: str) -> None:
    with pytest.raises(NotANumber):
        read_number(text)


def test_a_number_of_any_size_is_refused_quickly() -> None:
    with pytest.raises(TooLarge):
        read_number("9^{9^{9^{9}}}")


@pytest.mark.parametrize(
    ("gold", "answer", "same"),
    [
        ("1/2", "0.5", True),
        ("1/3", "1/3", True),
        ("1/3", "2/6", True),
        # Two exact numbers differ, however close they are.
        ("1000000/1000001", "1", False),
        ("2", "3", False),
    ],
)
def test_numbers_are_compared_by_value(gold: str, answer: str, same: bool) -> None:
    assert same_number(read_number(gold), read_number(answer)) is same
