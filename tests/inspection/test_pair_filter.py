"""Expected numbers are worked out in the comments."""

from __future__ import annotations

import pickle
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spotcli.errors import UserError
from spotcli.inspection.filter_syntax import FilterError
from spotcli.inspection.pair_filter import Selection, compared_fields, parse
from spotcli.records import Pair, Score
from spotcli.score_changes import ProblemChange

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
        ("colour=red", "the fields are ratio, first, trial, "),
        ("ratio~0.3", "'ratio' is a number, which has no operator ~"),
        ("ratio>high", "expected a number for 'ratio', got 'high'"),
        ("ratio>nan", "expected a number for 'ratio', got 'nan'"),
        ("source>a", "'source' is text, which has no operator >"),
        ("verdict=rihgt", "use one of right, wrong, undecided, none"),
        ("__import__('os').system('id')", "expected FIELD OP VALUE"),
    ],
)
def test_invalid_expression_names_the_problem(expression: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        parse(expression)
    assert message in str(caught.value)
    assert caught.value.where == f"--where {expression!r}"


JOINED = {
    "ratio>0.3 or verdict=right": True,
    "ratio>0.3 or verdict=wrong": False,
    "not ratio>0.3": True,
    "not not ratio>0.3": False,
    "NOT ratio>0.3 AND NOT verdict=wrong": True,
    # `and` and commas bind closer than `or`: the second alternative is ratio>0.3 and id~x.
    "verdict=right or ratio>0.3 and id~x": True,
    "id~x, ratio>0.3 or verdict=right": True,
    "(verdict=right or ratio>0.3) and id~x": False,
    "(verdict=right or ratio>0.3), id~7": True,
    "not (verdict=right and ratio>0.3)": True,
    "not(verdict=right or ratio>0.3)": False,
    "((source~gsm8k))": True,
    "(source~gsm8k)and(id~7)": True,
    "( verdict=right , )": True,
    "not source~math, not (not id~7)": True,
    "review=none or oracle=gpt-4o": True,
    'source="math" or source="gsm8k/train"': True,
    "verdict=wrong or source~a or source~8k": True,
    "cost=none": True,
    "cost!=none": False,
    # No comparison with a missing number holds.
    "cost<1 or cost>=1 or cost!=1": False,
    "not cost<1": True,
}


@pytest.mark.parametrize("expression", JOINED)
def test_terms_are_joined(expression: str) -> None:
    assert parse(expression)(PAIR) is JOINED[expression]


def texts(chosen: str) -> Pair:
    return PAIR.model_copy(update={"chosen": chosen})


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("chosen~yes or no", "yes or no"),
        ("chosen~not so", "not so"),
        ("chosen~f(x)", "f(x)"),
        ("chosen~f(x or y)", "f(x or y)"),
        ("chosen~:)", ":)"),
        ("chosen~(a", "(a"),
        ("(chosen~f(x))", "f(x)"),
        ("(chosen~f(x) or ratio>1)", "f(x)"),
        ("chosen~'a or ratio>1'", "a or ratio>1"),
        ("chosen~'tis or ratio>1", "'tis or ratio>1"),
        ('(chosen~"b)")', "b)"),
        ("chosen~won or lost", "won or lost"),
        ("chosen~android", "android"),
        ("chosen~x orratio>1", "x orratio>1"),
    ],
)
def test_a_text_contains_or_and_parentheses(expression: str, text: str) -> None:
    assert parse(expression)(texts(f"<{text}>"))
    assert not parse(expression)(texts(f"<{text[:-1]}>"))


@pytest.mark.parametrize(
    ("expression", "position", "message", "cure"),
    [
        ("ratio>0.3 and ratoi>1", 15, "unknown field 'ratoi'", "did you mean 'ratio'?"),
        (
            "ratio>0.3 or verdict>wrong",
            21,
            "'verdict' is text, which has no operator >",
            "use =, !=, ~ (contains) or !~",
        ),
        ("not (ratio>0.3", 5, "parenthesis without an end", "close its group with )"),
        ("ratio>0.3) or ratio<0.1", 10, "closing parenthesis without an opening one", "remove it"),
        ("ratio>0.3 or", 13, "expected FIELD OP VALUE, got the end", "join terms by and, or, not"),
        ("ratio>0.3 and or verdict=right", 15, "expected FIELD OP VALUE, got 'or verdict=right'", "join terms by"),
        ("verdict=right or wrong", 18, "expected FIELD OP VALUE, got 'wrong'", "repeat the field: verdict=wrong"),
        (
            "id~x, ratio 0.3",
            7,
            "expected FIELD OP VALUE, got 'ratio 0.3'",
            "'ratio' requires one of the operators",
        ),
        ("Verdict", 1, "expected FIELD OP VALUE, got 'Verdict'", "'verdict' requires one of the operators = != ~ !~"),
        ("not ratoi", 5, "expected FIELD OP VALUE, got 'ratoi'", "did you mean 'ratio'?"),
        ("verdict=wrong or rihgt=1", 18, "unknown field 'rihgt'", "the fields are ratio, first"),
        ("(ratio>0.3) verdict=right", 13, "expected and, or, or the end, got 'verdict=right'", "join terms by and, or"),
        ("()", 2, "expected FIELD OP VALUE, got ')'", "join terms by"),
        ("  verdict=rihgt", 11, "invalid value 'rihgt' for 'verdict'", "use one of right, wrong, undecided, none"),
        ("ratio<none", 7, "expected a number for 'ratio', got 'none'", "such as ratio>0.3, or ratio=none"),
        ("ratio>0.3 or lost", 14, "'lost' selects scores that are compared with a base", "with --against"),
        ("not lost", 5, "'lost' selects scores that are compared with a base", "with --against"),
    ],
)
def test_an_error_points_at_its_place(expression: str, position: int, message: str, cure: str) -> None:
    with pytest.raises(FilterError) as caught:
        parse(expression)
    assert caught.value.message.startswith(message)
    assert caught.value.message.endswith(f" at character {position}")
    assert caught.value.position == position - 1
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.position) == (str(caught.value), position - 1)
    assert (caught.value.cure or "").startswith(cure) or cure in (caught.value.cure or "")


def test_words_for_changes_are_terms() -> None:
    shown = {"trials": 2, "base_right": 1, "tuned_right": 0, "base_trial": 0, "tuned_trial": 1}
    change = ProblemChange("m", "a", "lost", **shown)
    fields = compared_fields({("m", "a"): change})
    facts = {"id": "a", "trial": 1, "task": "m", "answer": "2", "response": "3", "verdict": "wrong"}
    row = Score.model_validate({**facts, "prompt": "?", "finish_reason": "stop", "split": "eval"})
    for expression, matches in {
        "lost": True,
        "won": False,
        "won or lost": True,
        "not won": True,
        "not (won or lost)": False,
        "lost, task=m": True,
        "lost and not task=m": False,
        "verdict=right or lost": True,
        'task="x" or lost': True,
        "(lost)": True,
        "change=won or both": False,
    }.items():
        assert parse(expression, fields)(row) is matches, expression
    with pytest.raises(FilterError) as caught:
        parse("won or lsot", fields)
    assert caught.value.cure == "did you mean 'lost'?"
    assert Selection(where="verdict=wrong and (length>1 or not lost)").needs_base
    assert not Selection(where="prompt~won or lost").needs_base


def test_deep_and_long_expressions_are_refused() -> None:
    for opened, closed in (("(", ")"), ("not ", ""), ("not(", ")"), ("(not(", "))")):
        assert parse(opened * 16 + "id~7" + closed * 16)(PAIR)
        with pytest.raises(FilterError, match="nested too deeply"):
            parse(opened * 2000 + "id~7" + closed * 2000)
        with pytest.raises(FilterError, match="nested too deeply"):
            parse(opened * 20_000)
    with pytest.raises(FilterError, match="longer than 100,000 characters") as caught:
        parse("id~" + "x" * 100_000)
    assert len(str(caught.value)) < 500
    with pytest.raises(FilterError) as caught:
        parse("id~x or " * 2_000 + "ratoi>1")
    assert "ratoi>1'" in (caught.value.where or "")
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "piece",
    [*(" ", " and ", " or ", "or ", "(", ")", ",", "not ", "id~ ", "id=a or "), *('"', "a", "and", "or (", "or not(")],
)
def test_a_long_expression_is_read_once(piece: str) -> None:
    """Time grows with the length and not with its square: 100,000 characters would take minutes."""
    for begin in ("", "id~x ", "ratio>1 ", 'id~"'):
        with suppress(FilterError):
            parse(begin + piece * (90_000 // len(piece)) + "!")


def test_patterns_are_text() -> None:
    assert not parse("chosen~(a+)+$")(texts("aaaa"))
    assert parse("chosen~.*")(texts("a .* b"))


TOKENS = [
    *("ratio", "verdict", "source", "chosen", "lost", "(", ")", " and ", " or ", "not ", ",", "=", "~", "!=", ">"),
    *(" ", '"', "'", "0.3", "right", "none", "a"),
]


@given(st.one_of(st.text(max_size=60), st.lists(st.sampled_from(TOKENS), max_size=30).map("".join)))
def test_any_text_is_a_predicate_or_a_user_error(expression: str) -> None:
    position = None
    try:
        matches = parse(expression)
    except FilterError as error:
        position = error.position or 0
    if position is None:
        assert matches(PAIR) in (True, False)
    else:
        assert 0 <= position <= len(expression)
