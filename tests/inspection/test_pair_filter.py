from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spotcli.errors import UserError
from spotcli.inspection.pair_filter import parse
from spotcli.records import Pair

PAIR = Pair(
    id="gsm8k-7",
    prompt=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Tom and Ann, 3 each?"}],
    answer="6",
    source="GSM8K/train",
    rejected="3 + 3 = 5",
    chosen="3 + 3 = 6",
    change_ratio=0.2,
    verdict="right",
    oracle={"name": "gpt-4o"},
)


@pytest.mark.parametrize(
    "expression",
    [
        "ratio=0.2",
        "change_ratio<=0.2",
        "ratio > 0.1, ratio < 0.3",
        "verdict=right and source~gsm8k",
        "VERDICT==Right AND source!~math",
        'prompt~"tom and ann, 3"',
        "prompt~'Be brief'",
        "id=gsm8k-7,oracle=gpt-4o",
        "review=none",
        "review!=accept",
        "trial=0",
        "length=9",
        "first>0.88,first<0.9",  # the texts part at the ninth of nine characters: 8 / 9 = 0.889
        "chosen~= 6",
        "ratio<inf",
        "verdict=right,",
    ],
)
def test_terms_that_hold(expression: str) -> None:
    assert parse(expression)(PAIR)


@pytest.mark.parametrize(
    "expression",
    [
        "ratio>0.2",
        "ratio!=0.2",
        "verdict=wrong",
        "verdict=right, source~math",
        "source=gsm8k",
        "review=accept",
        "prompt!~tom",
        "rejected~6",
    ],
)
def test_terms_that_do_not_hold(expression: str) -> None:
    assert not parse(expression)(PAIR)


def test_what_is_not_there() -> None:
    bare = Pair(prompt="?", rejected="a b", chosen="a c")
    assert parse("verdict=none, source=none, oracle=none")(bare)
    assert not parse("source~none")(bare)
    # Without a ratio in the row it is measured in words and signs: one of two is new.
    assert parse("ratio=0.5")(bare)


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("", "it is empty"),
        ("ratio", "can't read 'ratio'"),
        ("ratio>", "can't read 'ratio>'"),
        (">0.3", "can't read '>0.3'"),
        ("ratio>0.3,,verdict=right", "can't read ',verdict=right'"),
        ("ratoi>0.3", "did you mean 'ratio'?"),
        ("colour=red", "the fields are ratio, first, trial, length, id, "),
        ("ratio~0.3", "'ratio' is a number, which ~ does not compare"),
        ("ratio>high", "'ratio' is a number, and 'high' is none"),
        ("ratio>nan", "'ratio' is a number, and 'nan' is none"),
        ("source>a", "'source' is text, which > does not compare"),
        ("verdict=rihgt", "it is one of right, wrong, undecided, none"),
        ("__import__('os').system('id')", "can't read"),
        ("ratio>0.3 or ratio<0.1", "'0.3 or ratio<0.1' is none"),
    ],
)
def test_what_cannot_be_read_is_said(expression: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        parse(expression)
    assert message in str(caught.value)
    assert caught.value.where == f"--where {expression!r}"


@given(st.text(max_size=60))
def test_any_text_is_a_test_or_an_error_of_the_user(expression: str) -> None:
    try:
        test = parse(expression)
    except UserError:
        return
    assert test(PAIR) in (True, False)
