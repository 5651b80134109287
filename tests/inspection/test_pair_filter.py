"""Expected numbers are worked out in the comments."""

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
        "first>0.88,first<0.9",  # the first edit is the ninth of nine characters: 8 / 9 = 0.889
        "chosen~= 6",
        "ratio<inf",
        "verdict=right,",
    ],
)
def test_expression_matches(expression: str) -> None:
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
def test_expression_does_not_match(expression: str) -> None:
    assert not parse(expression)(PAIR)


def test_missing_values() -> None:
    bare = Pair(prompt="?", rejected="a b", chosen="a c")
    assert parse("verdict=none, source=none, oracle=none")(bare)
    assert not parse("source~none")(bare)
    # A missing ratio is computed on words: one of two is new.
    assert parse("ratio=0.5")(bare)


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("", "the expression is empty"),
        ("ratio", "expected FIELD OP VALUE, got 'ratio'"),
        ("ratio>", "expected FIELD OP VALUE, got 'ratio>'"),
        (">0.3", "expected FIELD OP VALUE, got '>0.3'"),
        ("ratio>0.3,,verdict=right", "expected FIELD OP VALUE, got ',verdict=right'"),
        ("ratoi>0.3", "did you mean 'ratio'?"),
        ("colour=red", "the fields are ratio, first, trial, length, id, "),
        ("ratio~0.3", "'ratio' is a number, which has no operator ~"),
        ("ratio>high", "expected a number for 'ratio', got 'high'"),
        ("ratio>nan", "expected a number for 'ratio', got 'nan'"),
        ("source>a", "'source' is text, which has no operator >"),
        ("verdict=rihgt", "use one of right, wrong, undecided, none"),
        ("__import__('os').system('id')", "expected FIELD OP VALUE"),
        ("ratio>0.3 or ratio<0.1", "terms cannot be joined by `or`, got '0.3 or ratio<0.1'"),
        ("source~a or source~b", "put quotes around a text that contains `or`"),
    ],
)
def test_invalid_expression_names_the_problem(expression: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        parse(expression)
    assert message in str(caught.value)
    assert caught.value.where == f"--where {expression!r}"


@given(st.text(max_size=60))
def test_any_text_is_a_predicate_or_a_user_error(expression: str) -> None:
    try:
        matches = parse(expression)
    except UserError:
        return
    assert matches(PAIR) in (True, False)
