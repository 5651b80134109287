"""How an unfinished filter goes on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spotcli.inspection.filter_completion import complete
from spotcli.inspection.pair_filter import PAIR_FIELDS, compared_fields, parse


def lines(text: str) -> list[str]:
    completion = complete(text, PAIR_FIELDS)
    return [completion.apply(text, option) for option in completion.options]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rat", ["ratio>"]),
        ("ver", ["verdict="]),
        ("VER", ["VERdict="]),
        ("no", ["not "]),
        ("ratio>0.3 and so", ["ratio>0.3 and source~"]),
        ("ratio>0.3,so", ["ratio>0.3,source~"]),
        ("(so", ["(source~"]),
        ("not (ratio>1 or so", ["not (ratio>1 or source~"]),
        ("verdict=", ["verdict=right", "verdict=wrong", "verdict=undecided", "verdict=none"]),
        ("verdict!= w", ["verdict!= wrong"]),
        ("verdict=right", []),
        ("verdict=right ", ["verdict=right and ", "verdict=right or "]),
        ("verdict=right o", ["verdict=right or "]),
        ("(id~x) a", ["(id~x) and "]),
        ("ratio ", [f"ratio {operator}" for operator in ("=", "!=", "<", "<=", ">", ">=")]),
        ("source ", ["source =", "source !=", "source ~", "source !~"]),
        ("prompt~", []),
        ('prompt~"a and so', []),
        ('prompt~"a and b" and so', ['prompt~"a and b" and source~']),
        ("colour ", ["colour and ", "colour or "]),
    ],
)
def test_completions(text: str, expected: list[str]) -> None:
    assert lines(text) == expected


def test_every_field_is_offered() -> None:
    assert [line.rstrip("=~>") for line in lines("")] == [*PAIR_FIELDS.names, "not "]
    assert not complete("", PAIR_FIELDS).proposed


def test_changes_are_offered_where_scores_are_compared() -> None:
    fields = compared_fields({})
    assert complete("not lo", fields).options == ("lost",)
    assert complete("change=lo", fields).options == ("lost",)
    assert complete("lo", PAIR_FIELDS).options == ()


@given(st.lists(st.integers(0, 30), min_size=4, max_size=30))
def test_an_expression_of_options_is_valid(choices: list[int]) -> None:
    """Options one after another, with a value where none is offered, are an expression."""
    text = ""
    for choice in choices:
        completion = complete(text, PAIR_FIELDS)
        if text and not completion.options:
            text += "0.5" if text.endswith(">") else "x" if text[-1] in "=~" else " "
        else:
            text = completion.apply(text, completion.options[choice % len(completion.options)])
    while text.endswith(("and ", "or ", "not ")) or text[-1] in "=~>":
        text += {">": "1", "=": "none", "~": "x"}.get(text[-1], "id=a")
    parse(text)


@given(st.text(st.sampled_from("ratio verdict=~<>!,()\"'andornot"), max_size=40))
def test_any_text_is_completed_or_left(text: str) -> None:
    assert all(line.startswith(text) and len(line) > len(text) for line in lines(text))
