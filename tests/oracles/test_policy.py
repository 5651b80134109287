"""Steps of an answer, and the order in which cuts are tried."""

from __future__ import annotations

import pytest

from spotcli.oracles.policy import PolicyOracle, most_tried, search_cut, step_starts


def steps(text: str) -> list[str]:
    starts = step_starts(text)
    return [text[start:end] for start, end in zip(starts, (*starts[1:], len(text)), strict=True)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12 + 30 = 43\n43 - 7 = 36\n\\boxed{36}", ["12 + 30 = 43\n", "43 - 7 = 36\n", "\\boxed{36}"]),
        ("We add 3.5 and 2. That is 5.5.", ["We add 3.5 and 2. ", "That is 5.5."]),
        ("So \\[ a\n= b. \\] Hence $x=3.$ Done.", ["So \\[ a\n= b. \\] ", "Hence $x=3.$ ", "Done."]),
        # The number of a list is no step of its own, and neither is a bracket.
        ("1. First\n\n2. Then\n**\n", ["1. First\n\n", "2. Then\n**\n"]),
        ("\n\n  42", ["42"]),
        ("42", ["42"]),
        ("e.g. 7", ["e.g. 7"]),
        ("算一算。答案是7。", ["算一算。", "答案是7。"]),
    ],
)
def test_steps_are_lines_and_sentences(text: str, expected: list[str]) -> None:
    assert steps(text) == expected


def test_an_answer_of_blanks_has_one_step() -> None:
    assert step_starts(" \n ") == (0,)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("\n" * 200_000, 1),
        ("- " * 100_000 + "x", 1),
        ("**\n" * 60_000, 1),
        ("\\[ " * 40_000, 1),
        ("\\begin{align} " * 9_000 + "\nx", 2),
        ("1. one\n" * 30_000, 30_000),
    ],
)
def test_a_hostile_text_has_steps_at_once(text: str, count: int) -> None:
    assert len(step_starts(text)) == count


@pytest.mark.parametrize(
    ("search", "latest", "tried"),
    [
        ("sweep", 7, (7,)),
        ("sweep", 5, (7, 6, 5)),
        ("sweep", 0, (7, 6, 5, 4, 3, 2, 1)),
        ("bisect", 7, (4, 6, 7)),
        ("bisect", 5, (4, 6, 5)),
        ("bisect", 3, (4, 2, 3)),
        ("bisect", 0, (4, 2, 1)),
    ],
)
def test_the_latest_cut_that_helps_is_found(search: str, latest: int, tried: tuple[int, ...]) -> None:
    state = search_cut(7, search, lambda step: step <= latest)  # type: ignore[arg-type]  # parametrized
    assert (state.tried, state.next, state.chosen) == (tried, None, latest or None)


def test_a_search_waits_for_the_cut_that_was_not_tried() -> None:
    state = search_cut(7, "bisect", {4: True}.get)
    assert (state.tried, state.next, state.path) == ((4,), 6, (4, 6))


def test_where_help_is_not_monotone_bisection_can_miss_the_latest_cut() -> None:
    # Cuts 2 and 7 help by chance, 4 does not: bisection never tries 7.
    helps = {2, 7}.__contains__
    assert search_cut(7, "sweep", helps).chosen == 7
    assert search_cut(7, "bisect", helps).chosen == 2


@pytest.mark.parametrize("search", ["sweep", "bisect"])
def test_no_search_tries_more_cuts_than_announced(search: str) -> None:
    for count in range(1, 40):
        most = max(
            # The name of the search is parametrized, and mypy has no type for a default of a lambda.
            len(search_cut(count, search, lambda step, latest=latest: step <= latest).tried)  # type: ignore[arg-type, misc]
            for latest in range(count + 1)
        )
        assert most == most_tried(count, search)  # type: ignore[arg-type]  # parametrized


def test_a_continuation_may_have_twice_the_tokens_that_were_cut_off() -> None:
    oracle = PolicyOracle("policy", lambda: "1")
    assert (oracle.limit(100), oracle.limit(3)) == (200, 64)
    assert PolicyOracle("policy", lambda: "1", max_new_tokens=50).limit(100) == 50


def test_the_version_is_read_when_it_is_needed() -> None:
    calls: list[int] = []

    def describe() -> str:
        calls.append(1)
        return "model"

    oracle = PolicyOracle("policy-prompted", describe)
    assert (oracle.prompted, calls) == (True, [])
    assert (oracle.version, oracle.version, len(calls)) == ("model", "model", 1)
