"""Rows in the columns of published sets, made up for tests."""

from __future__ import annotations

from typing import Any

from spotcli.evaluation.tasks.connect4 import Columns, to_move, winning_moves


def aime24(number: int) -> list[dict[str, Any]]:
    return [
        {
            "id": 60 + index,
            "problem": f"Find the number of cows on meadow {index}.",
            "solution": "...",
            "answer": f"{index:03d}",
        }
        for index in range(number)
    ]


def amc23(number: int) -> list[dict[str, Any]]:
    return [
        {"id": index, "problem": f"How many miles is walk {index}?", "answer": float(index), "url": "https://x.test"}
        for index in range(number)
    ]


def minerva(number: int) -> list[dict[str, Any]]:
    return [
        {
            "problem": f"What is the mass of star {index}?",
            "solution": f"First, \\boxed{{0}} is wrong.\n\\[ m=\\boxed{{{index}e33}} \\mathrm{{~g}} \\]",
            "type": "Astronomy",
            "idx": index,
        }
        for index in range(1, number + 1)
    ]


def olympiadbench(number: int) -> list[dict[str, Any]]:
    return [
        {
            "id": 1600 + index,
            "context": None,
            "question": f"Find all solutions of equation {index}.",
            "final_answer": [f"${index}$,${index + 1}$"],
            "answer_type": "Numerical",
            "is_multiple_answer": True,
            "unit": "km" if index % 2 else None,
            "error": None,
        }
        for index in range(number)
    ]


def gpqa(number: int) -> list[dict[str, Any]]:
    return [
        {
            "Pre-Revision Question": "",
            "Question": f"Which particle has the charge of sample {index}?\n",
            "Correct Answer": f"proton {index}\n",
            "Incorrect Answer 1": f"neutron {index}",
            "Incorrect Answer 2": f"photon {index}",
            "Incorrect Answer 3": f" muon {index}",
            "Explanation": "Because of the charge.",
            "High-level domain": "Physics",
            "Record ID": f"rec{index:04d}",
        }
        for index in range(number)
    ]


def ifeval(number: int) -> list[dict[str, Any]]:
    """As in the Parquet file of the hub, where each instruction has the arguments of all instructions."""
    return [
        {
            "key": 1000 + index,
            "prompt": f"Write about town {index} in lower case, without commas.",
            "instruction_id_list": ["punctuation:no_comma", "change_case:english_lowercase"],
            "kwargs": [{"num_words": None, "relation": None}, {"num_words": None, "relation": None}],
        }
        for index in range(number)
    ]


BOARD = """
Current Game Board:
(5,0):_ (5,1):_ (5,2):_ (5,3):_ (5,4):_ (5,5):_ (5,6):_
(4,0):_ (4,1):_ (4,2):_ (4,3):_ (4,4):_ (4,5):_ (4,6):_
(3,0):_ (3,1):_ (3,2):_ (3,3):_ (3,4):_ (3,5):_ (3,6):_
(2,0):_ (2,1):_ (2,2):_ (2,3):_ (2,4):_ (2,5):O (2,6):_
(1,0):_ (1,1):_ (1,2):_ (1,3):_ (1,4):_ (1,5):O (1,6):_
(0,0):_ (0,1):X (0,2):X (0,3):X (0,4):_ (0,5):O (0,6):_

Current valid moves for player X: ['(0,0)', '(0,4)']
You are player X, please choose the best move considering the current board state.
"""
"""X wins at (0, 0) and (0, 4), O on top of its column at (3, 5)."""


def connect4(columns: Columns) -> dict[str, Any]:
    """A board in the published form."""
    player, opponent = to_move(columns)
    places = (
        " ".join(f"({row},{column}):{columns[column][row : row + 1] or '_'}" for column in range(7))
        for row in reversed(range(6))
    )
    state = "\nCurrent Game Board: \n" + " \n".join(places) + f" \n\nYou are player {player}, please choose.\n"
    return {"state": state, "answer": [sorted(map(list, winning_moves(columns, side))) for side in (player, opponent)]}
