"""The change ratio, words, alignment and diff. Expected numbers are derived in the comments."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spotcli.core import edits
from spotcli.core.edits import Span, align, change_ratio, diff, measure, shared_prefix, text_change_ratio, words

# A small alphabet makes long common subsequences and many ways to align them.
ids = st.lists(st.integers(0, 3), max_size=40)
tokens = st.lists(st.sampled_from(["a", "b", "ab", " ", "\n", "\\frac", "1"]), max_size=30)
texts = st.text(st.sampled_from("ab 1.,\\{}$^_+=\n\t'é\u0301中") | st.characters(), max_size=60)


def textbook_lcs(left: list[int], right: list[int]) -> int:
    row = [0] * (len(right) + 1)
    for item in left:
        above = row[:]
        for place, other in enumerate(right, 1):
            row[place] = above[place - 1] + 1 if item == other else max(above[place], row[place - 1])
    return row[-1]


def rejected_of(spans: list[Span]) -> str:
    return "".join(span.text for span in spans if span.kind != "inserted")


def chosen_of(spans: list[Span]) -> str:
    return "".join(span.text for span in spans if span.kind != "deleted")


@pytest.mark.parametrize(
    ("rejected", "chosen", "expected"),
    [
        ([1, 2, 3, 4, 5], [1, 2, 9, 4, 5], 0.2),  # LCS 1 2 4 5 is 4 of 5
        ([1, 2, 3], [1, 2, 3], 0.0),
        ([1, 2, 3], [4, 5], 1.0),
        ([1, 2, 3], [1, 3], 0.0),  # only a deletion: LCS 1 3 is all of y+
        ([1, 2], [1, 2, 3, 4], 0.5),  # LCS 2 of 4
        ([1, 2, 3, 4], [4, 3, 2, 1], 0.75),  # LCS is any one of them
        ([], [], 0.0),
        ([], [1, 2], 1.0),
        ([1, 2], [], 1.0),
    ],
)
def test_change_ratio(rejected: list[int], chosen: list[int], expected: float) -> None:
    assert change_ratio(rejected, chosen) == expected


@given(ids, ids)
def test_change_ratio_equals_the_textbook_algorithm(rejected: list[int], chosen: list[int]) -> None:
    if chosen:
        assert change_ratio(rejected, chosen) == pytest.approx(1 - textbook_lcs(rejected, chosen) / len(chosen))


@pytest.mark.parametrize("share", [0.02, 0.1, 0.15, 0.2, 0.7])
def test_change_ratio_of_long_pairs_equals_the_textbook_algorithm(share: float) -> None:
    # Shares above and below CLOSE; lengths above the 64 tokens that fit in a machine word.
    generator = random.Random(share)
    for length in (70, 150, 300):
        rejected = [generator.randrange(20) for _ in range(length)]
        chosen = [generator.randrange(20) if generator.random() < share else token for token in rejected]
        start = generator.randrange(length)
        del chosen[start : start + int(share * 20)]
        lcs = textbook_lcs(rejected, chosen)
        assert change_ratio(rejected, chosen) == (len(chosen) - lcs) / len(chosen)
        assert change_ratio(chosen, rejected) == (len(rejected) - lcs) / len(rejected)


def test_change_ratio_is_exact_at_gamma() -> None:
    # |LCS| = 2 of 5, so R is 0.6, the default gamma; 1 - 2 / 5 would be 0.6 and 1 - 7 / 10 is 0.30000000000000004.
    assert change_ratio([1, 2, 0, 0, 0], [1, 2, 3, 4, 5]) == 0.6
    assert change_ratio(list(range(7)), list(range(10))) == 0.3


def test_text_change_ratio_counts_words_and_symbols() -> None:
    # y+ is 12 * 3 = 36: five pieces without white space; only the last one is new.
    assert text_change_ratio("12 * 3 = 35", "12 * 3 = 36") == 0.2
    assert text_change_ratio("a  b", "a b") == 0.0
    assert text_change_ratio("a", "") == 1.0


@given(texts)
def test_words_join_to_the_text(text: str) -> None:
    pieces = words(text)
    assert "".join(pieces) == text
    assert all(pieces)


def test_words_numbers_and_latex_commands_stay_whole() -> None:
    assert words(r"\frac{12}{3.5} \\ \{x\}") == [
        *["\\frac", "{", "12", "}", "{", "3.5", "}", " ", "\\\\", " ", "\\{", "x", "\\}"]
    ]
    assert words("It's 1,234,567.89 (3,4)!") == ["It's", " ", "1,234,567.89", " ", "(", "3", ",", "4", ")", "!"]
    assert words("a<=b, **so** x_1\n\n  y") == [
        *["a", "<=", "b", ",", " ", "**", "so", "**", " ", "x", "_", "1", "\n", "\n", "  ", "y"]
    ]
    assert words("cafe\u0301 = 咖啡") == ["cafe\u0301", " ", "=", " ", "咖", "啡"]
    assert words("\\") == ["\\"]
    assert words("\\\n") == ["\\", "\n"]
    assert words("") == []


@given(tokens, tokens)
def test_spans_join_to_both_texts(rejected: list[str], chosen: list[str]) -> None:
    spans = align(rejected, chosen)
    assert [piece for span in spans if span.kind != "inserted" for piece in span.pieces] == rejected
    assert [piece for span in spans if span.kind != "deleted" for piece in span.pieces] == chosen
    assert all(span.pieces for span in spans)
    kinds = [span.kind for span in spans]
    assert all(kind != following for kind, following in pairwise(kinds))
    assert ("inserted", "deleted") not in list(pairwise(kinds))


@given(tokens, tokens)
def test_spans_keep_the_longest_common_subsequence(rejected: list[str], chosen: list[str]) -> None:
    kept = sum(len(span.pieces) for span in align(rejected, chosen) if span.kind == "kept")
    number = {token: place for place, token in enumerate({*rejected, *chosen})}
    assert kept == textbook_lcs([number[t] for t in rejected], [number[t] for t in chosen])


@given(texts, texts)
def test_a_diff_joins_to_both_texts(rejected: str, chosen: str) -> None:
    spans = diff(rejected, chosen)
    assert rejected_of(spans) == rejected
    assert chosen_of(spans) == chosen


@given(texts, texts, texts, texts)
def test_a_diff_with_a_common_beginning_and_end_joins_to_both_texts(head: str, old: str, new: str, tail: str) -> None:
    spans = diff(head + old + tail, head + new + tail)
    assert rejected_of(spans) == head + old + tail
    assert chosen_of(spans) == head + new + tail


@given(texts, texts)
def test_a_diff_starts_with_text_that_both_sides_share(rejected: str, chosen: str) -> None:
    spans = diff(rejected, chosen)
    kept = len(spans[0].text) if spans and spans[0].kind == "kept" else 0
    # A word is replaced as a whole, so the texts may also share the beginning of the first replaced word.
    assert kept <= shared_prefix(rejected, chosen)


def test_diff_of_one_mistake() -> None:
    assert diff("3*4 = 11, so 11", "3*4 = 12, so 12") == [
        Span("kept", ("3", "*", "4", " ", "=", " ")),
        Span("deleted", ("11",)),
        Span("inserted", ("12",)),
        Span("kept", (",", " ", "so", " ")),
        Span("deleted", ("11",)),
        Span("inserted", ("12",)),
    ]


def test_white_space_between_two_replacements_is_replaced_with_them() -> None:
    assert diff("red fox", "blue cat") == [
        Span("deleted", ("red", " ", "fox")),
        Span("inserted", ("blue", " ", "cat")),
    ]
    # Between two deletions it is kept: nothing replaces it.
    assert [span.kind for span in diff("a b c d", "b d")] == ["deleted", "kept", "deleted", "kept"]
    # A line break is structure and is kept.
    assert "kept" in [span.kind for span in diff("red\nfox", "blue\ncat")]


def test_accidental_matches_in_a_rewritten_passage_are_replaced() -> None:
    # One kept "the" between edits of three words each: 3 * 1 is not greater than 3.
    assert [span.kind for span in diff("a b c the d e f", "u v w the x y z")] == ["deleted", "inserted"]
    # Between edits of two words it is kept, as is an operator between two wrong numbers.
    assert [span.kind for span in diff("a b the c d", "u v the x y")].count("kept") == 1
    assert [span.text for span in diff("3 + 4", "5 + 6") if span.kind == "kept"] == [" + "]


def test_spans_of_texts_too_large_to_align_still_join(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edits, "MAX_CELLS", 3)
    # Between the shared "p" and "s" are 2 and 2 tokens: 4 cells, more than 3.
    assert align(list("pxys"), list("pyzs")) == [
        Span("kept", ("p",)),
        Span("deleted", ("x", "y")),
        Span("inserted", ("y", "z")),
        Span("kept", ("s",)),
    ]


@given(ids, ids, ids)
def test_shared_prefix(head: list[int], left: list[int], right: list[int]) -> None:
    rejected, chosen = head + left, head + right
    length = shared_prefix(rejected, chosen)
    assert rejected[:length] == chosen[:length]
    assert length >= len(head)
    assert length == min(len(rejected), len(chosen)) or rejected[length] != chosen[length]


def test_words_with_equal_hashes_differ() -> None:
    # The hashes of -1 and -2 are equal in CPython, and rapidfuzz compares hashes.
    assert change_ratio([1, 2], [2, 1]) == 0.5
    assert diff("-1", "-2") == [Span("kept", ("-",)), Span("deleted", ("1",)), Span("inserted", ("2",))]


# All characters that decide where a piece ends: white space, line ends, backslashes, groups of digits, marks.
CUTS = st.text(alphabet=st.sampled_from("ab1,0.\\ \t\n\r\x0b\x1c\x85\u2028\u3000'’\u0301漢*<=->!$é"), max_size=40)


@given(CUTS, CUTS)
def test_text_change_ratio_is_the_change_ratio_of_words_without_white_space(rejected: str, chosen: str) -> None:
    numbers: dict[str, int] = {}
    sides = [
        [numbers.setdefault(word, len(numbers)) for word in words(text) if not word.isspace()]
        for text in (rejected, chosen)
    ]
    assert text_change_ratio(rejected, chosen) == change_ratio(*sides)


def test_deletions_are_measured_beside_the_change_ratio() -> None:
    # LCS 1 2: nothing of y+ is new, and 2 of the 4 tokens of y- are gone.
    changes = measure([1, 2, 3, 4], [1, 2])
    assert (changes.ratio, changes.deleted) == (0.0, 0.5)
    # LCS 2 3: 1 of 3 is new, 1 of 3 is gone.
    changes = measure([1, 2, 3], [2, 3, 4])
    assert (changes.ratio, changes.deleted) == (1 / 3, 1 / 3)
    assert [(pair.ratio, pair.deleted) for pair in (measure([1], []), measure([], [1]), measure([], []))] == [
        (1.0, 1.0),
        (1.0, 0.0),
        (0.0, 0.0),
    ]


def test_texts_too_long_to_compare_count_as_new_between_their_common_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    rejected, chosen = [1, 2, 3, 4, 5, 9], [1, 7, 3, 8, 6, 9]
    # The common subsequence is 1, 3, 9: three of six are kept.
    exact = edits.measure(rejected, chosen)
    assert (exact.ratio, exact.deleted) == (0.5, 0.5)
    # Without the ends there are 4 x 4 pairs of positions.
    monkeypatch.setattr(edits, "MAX_COUNTED", 16)
    assert edits.measure(rejected, chosen) == exact
    monkeypatch.setattr(edits, "MAX_COUNTED", 15)
    assert edits.measure(rejected, chosen).ratio == pytest.approx(4 / 6)  # only the 1 and the 9 are kept
