"""Sets of board cells, in order or with labels."""

from __future__ import annotations

import json

import pytest

from spotcli.grading.coordinates import grade_coordinates, read_coordinates, write_cells

BOARD = json.dumps([[[0, 4], [3, 1]], []])


@pytest.mark.parametrize(
    ("response", "verdict"),
    [
        (r"\boxed{(3,1), (0, 4)} and \boxed{None}", "right"),
        (r"\boxed{(3,1), (0, 4)} ... \boxed{\text{None}}", "right"),
        (r"\boxed{(0,4),(3,1); None}", "right"),
        ("Let me see.\nMy winning moves: (0, 4), (3,1)\nOpponent's winning moves: None", "right"),
        (r"\boxed{(0,4)} \boxed{None}", "wrong"),
        (r"\boxed{None} \boxed{(0,4), (3,1)}", "wrong"),
        (r"\boxed{(0,4), (3,1)}", "undecided"),
        ("no idea", "undecided"),
    ],
)
def test_sets_in_order(response: str, verdict: str) -> None:
    assert grade_coordinates(response, BOARD).verdict == verdict


def test_labelled_sets() -> None:
    reference = "Own: (0, 4), (3, 2)\nOpponent: None"
    assert grade_coordinates("Own: (3,2) and (0,4)\nOpponent: none", reference).verdict == "right"
    assert grade_coordinates("Own: (3,2)\nOpponent: none", reference).verdict == "wrong"
    assert grade_coordinates(r"\boxed{(0, 4), (3, 2)} \boxed{None}", reference).verdict == "undecided"


def test_cells_are_read_from_text() -> None:
    assert read_coordinates("(0, 4), (1,2)") == frozenset({(0, 4), (1, 2)})
    assert read_coordinates("None") == frozenset()
    assert read_coordinates("column 4") is None


def test_cells_are_written_in_order() -> None:
    assert write_cells({(3, 2), (0, 4)}) == "(0, 4), (3, 2)"
    assert write_cells(set()) == "None"
