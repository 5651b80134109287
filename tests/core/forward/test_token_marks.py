"""Errors of y- and weights of y+, on token ids whose alignment can be read off."""

from __future__ import annotations

import pytest

from spotcli.core.forward.encoding import EncodedPair
from spotcli.core.forward.token_marks import errors, weights


def marked(ids: tuple[int, ...], marks: list[bool]) -> list[int]:
    assert len(ids) == len(marks)
    return [token for token, mark in zip(ids, marks, strict=True) if mark]


@pytest.mark.parametrize(
    ("chosen", "rejected", "first", "every"),
    [
        # One replaced token; two tokens replaced by one.
        ((1, 2, 9, 4), (1, 2, 3, 4), [3], [3]),
        ((1, 9, 4), (1, 2, 3, 4), [2, 3], [2, 3]),
        # Two edits: the second follows from the first.
        ((1, 9, 3, 4, 8, 6), (1, 2, 3, 4, 5, 6), [2], [2, 5]),
        # An insertion, then a replacement: the first edited token of y- is that of the replacement.
        ((1, 7, 2, 3, 9), (1, 2, 3, 4), [4], [4]),
        # Only insertions: the token that follows the first one in y-.
        ((1, 7, 2, 8, 3), (1, 2, 3), [2], [2]),
        ((7, 1, 2), (1, 2), [1], [1]),
        # y- ends where y+ goes on, or has no token at all: no error.
        ((1, 2, 3), (1, 2), [], []),
        ((1, 2, 3), (), [], []),
        # y- goes on where y+ ends.
        ((1, 2), (1, 2, 3, 4), [3, 4], [3, 4]),
        # Nothing is shared.
        ((7, 8), (1, 2, 3), [1, 2, 3], [1, 2, 3]),
    ],
)
def test_errors(chosen: tuple[int, ...], rejected: tuple[int, ...], first: list[int], every: list[int]) -> None:
    pair = EncodedPair((0,), chosen, rejected)
    assert marked(rejected, errors(pair, first=True)) == first
    assert marked(rejected, errors(pair, first=False)) == every


@pytest.mark.parametrize(
    ("chosen", "rejected", "expected"),
    [
        # Before the first edit 0.5, edited 1, kept after it 0.25.
        ((1, 2, 9, 4), (1, 2, 3, 4), [0.5, 0.5, 1, 0.25]),
        ((1, 9, 3, 4, 8, 6), (1, 2, 3, 4, 5, 6), [0.5, 1, 0.25, 0.25, 1, 0.25]),
        ((1, 7, 2), (1, 2), [0.5, 1, 0.25]),
        # Only deletions: the token after the first one.
        ((1, 3, 4), (1, 2, 3, 4), [0.5, 1, 0.25]),
        ((1, 2), (1, 2, 3), [0.5, 0.5]),
        # Without y- nothing is edited.
        ((1, 2, 3), (), [1, 1, 1]),
    ],
)
def test_weights(chosen: tuple[int, ...], rejected: tuple[int, ...], expected: list[float]) -> None:
    assert weights(EncodedPair((0,), chosen, rejected), kept=0.5, suffix=0.25) == expected
