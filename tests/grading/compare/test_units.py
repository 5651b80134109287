"""Units: which words are units, and how they convert."""

from __future__ import annotations

from fractions import Fraction

import pytest

from spotcli.grading.compare.units import conversions, is_unit, read_unit


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("cm", "centimetres"),
        (r"\text{ m}/\text{s}^2", "m/s^2"),
        ("square feet", "feet^2"),
        ("dollars per hour", "dollars/hour"),
    ],
)
def test_two_spellings_of_one_unit(first: str, second: str) -> None:
    one, other = read_unit(first), read_unit(second)
    assert one is not None
    assert other is not None
    assert one.is_same(other)


@pytest.mark.parametrize(("first", "second"), [("cm", "m"), ("m", "m^2"), ("hours", "dollars")])
def test_different_units(first: str, second: str) -> None:
    one, other = read_unit(first), read_unit(second)
    assert one is not None
    assert other is not None
    assert not one.is_same(other)


def test_conversions_of_a_length() -> None:
    metre = read_unit("m")
    assert metre is not None
    # 1 m = 100 cm = 1/1000 km.
    assert {Fraction(100), Fraction(1, 1000)} <= set(conversions(metre))
    square_metre = read_unit("m^2")
    assert square_metre is not None
    assert conversions(square_metre) == []


def test_words_that_are_units() -> None:
    assert is_unit("hours")
    assert not is_unit("apples")
