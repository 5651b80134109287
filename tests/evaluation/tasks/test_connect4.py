"""Connect Four: boards, winning moves and grading; expected numbers are derived in the comments."""

from __future__ import annotations

import json
import os
import random
import re
from itertools import islice
from pathlib import Path

import pytest

from spotcli.errors import DataError
from spotcli.evaluation.tasks import TaskContext, connect4, load_tasks
from spotcli.evaluation.tasks.connect4 import (
    Columns,
    boards,
    drawn,
    split_of,
    take,
    to_move,
    winning_moves,
)
from spotcli.grading.coordinates import grade_coordinates as grade
from spotcli.recipe import TaskSettings
from spotcli.records import Problem, Score
from tests.conftest import write_rows
from tests.evaluation.tasks import published_rows

SHARED = Path(os.environ.get("SPOT_SHARED") or Path(__file__).resolve().parents[4] / "shared")

# Every way to place four in a line: 6 * 4 across, 3 * 7 up, 3 * 4 on each diagonal: 24 + 21 + 12 + 12 = 69.
LINES = [
    [(row + step * up, column + step * right) for step in range(4)]
    for up, right in ((0, 1), (1, 0), (1, 1), (-1, 1))
    for row in range(6)
    for column in range(7)
    if 0 <= row + 3 * up < 6 and column + 3 * right < 7
]


def problems(seed: int, limit: int | None = None) -> list[Problem]:
    return connect4.problems(TaskContext(seed=seed, limit=limit))


def textbook_moves(columns: Columns, player: str) -> set[tuple[int, int]]:
    """Drop a piece into each column and check all 69 lines."""
    moves = set()
    for column, pieces in enumerate(columns):
        after = [*columns[:column], pieces + player, *columns[column + 1 :]]
        if len(pieces) < 6 and any(all(after[c][r : r + 1] == player for r, c in line) for line in LINES):
            moves.add((len(pieces), column))
    return moves


def test_winning_moves_by_hand() -> None:
    # X holds (0,1) (0,2) (0,3): both ends of the row are open. O holds a column of three: the fourth is (3,5).
    columns = ("", "X", "X", "X", "", "OOO", "")
    assert winning_moves(columns, "X") == {(0, 0), (0, 4)}
    assert winning_moves(columns, "O") == {(3, 5)}
    # A gap in the row: X at 0, 1 and 3 lacks only (0,2).
    assert winning_moves(("X", "X", "", "X", "", "", ""), "X") == {(0, 2)}
    # Diagonal: X at (0,0) (1,1) (2,2); (3,3) can be reached only when three pieces are in column 3.
    assert winning_moves(("X", "OX", "OOX", "OO", "", "", ""), "X") == set()
    assert winning_moves(("X", "OX", "OOX", "OXO", "", "", ""), "X") == {(3, 3)}
    # A full column with three X at its top: row 6 does not exist.
    assert winning_moves(("OOOXXX", "", "", "", "", "", ""), "X") == set()


def test_winning_moves_agree_with_a_search_of_all_lines() -> None:
    assert len(LINES) == 69
    r = random.Random(0)
    compared = 0
    while compared < 300:
        columns = connect4._played(r)
        if columns is not None:
            assert all(winning_moves(columns, player) == textbook_moves(columns, player) for player in "XO")
            compared += 1


@pytest.mark.skipif(not (SHARED / "data" / "connect4.jsonl").exists(), reason="the published boards are not available")
def test_the_published_boards_have_these_answers() -> None:
    compared = 0
    with (SHARED / "data" / "connect4.jsonl").open(encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            pieces = {(int(r), int(c)): piece for r, c, piece in re.findall(r"\((\d),(\d)\):([XO])", row["state"])}
            columns = tuple("".join(pieces.get((r, c), "") for r in range(6)) for c in range(7))
            player = re.search(r"You are player ([XO])", row["state"])
            assert player
            assert player[1] == to_move(columns)[0]
            theirs = [{tuple(move) for move in side} for side in row["answer"]]
            assert [winning_moves(columns, side) for side in to_move(columns)] == theirs
            compared += 1
    assert compared == 500


def published_file(folder: Path, row: dict[str, object], number: int = 500) -> Path:
    """A file of ``number`` different boards, the first of them with the fields of ``row``."""
    rows = [published_rows.connect4(columns) for columns in islice(boards(0, "train"), number)]
    rows[0] |= row
    return write_rows(folder / "connect4.jsonl", rows)


def test_published_boards_are_asked_in_the_same_words(tmp_path: Path) -> None:
    published_file(tmp_path, {"state": published_rows.BOARD, "answer": [[[0, 4], [0, 0]], [[3, 5]]]})
    loaded = load_tasks(["connect4"], TaskContext(data_dir=tmp_path))["connect4"]
    assert len(loaded.problems) == 500
    first = loaded.problems[0]
    assert first.answer == "Own: (0, 0), (0, 4)\nOpponent: (3, 5)"
    assert first == connect4.as_problem(("", "X", "X", "X", "", "OOO", ""), "connect4.jsonl#1")
    named = load_tasks(
        ["connect4"], TaskContext(tmp_path, settings={"connect4": TaskSettings(problems="connect4.jsonl")})
    )
    assert named["connect4"].problems == loaded.problems
    # Without a file, boards are generated, and the hub is not asked.
    assert load_tasks(["connect4"], TaskContext(seed=3))["connect4"].problems == problems(3)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"answer": [[[0, 4]], [[3, 5]]]}, "the winning moves are "),
        ({"answer": None}, "expected two lists of [row, column] in 'answer'"),
        ({"state": published_rows.BOARD.replace("(0,6):_", "(0,6):X")}, "it is not the move of X"),
        ({"state": published_rows.BOARD.replace("(0,1):X", "(0,1):_")}, "it is not the move of X"),
        ({"state": published_rows.BOARD.replace("(1,0):_", "(1,0):O")}, "expected a board of 6 rows and 7 columns"),
        ({"state": "no board"}, "expected a board of 6 rows and 7 columns in 'state'"),
        ({"state": None}, "expected a board of 6 rows and 7 columns in 'state'"),
    ],
)
def test_invalid_published_boards(tmp_path: Path, row: dict[str, object], message: str) -> None:
    row = {"state": published_rows.BOARD, "answer": [[[0, 4], [0, 0]], [[3, 5]]]} | row
    path = published_file(tmp_path, row)
    with pytest.raises(DataError) as caught:
        load_tasks(["connect4"], TaskContext(data_dir=tmp_path))
    assert str(caught.value).startswith(f"{path}:1: {message}")


def test_own_opponent_and_both(tmp_path: Path) -> None:
    def numbers(response: str, verdict: str = "wrong", reason: str | None = None) -> list[float]:
        fields = {"task": "connect4", "prompt": "p", "answer": REFERENCE, "finish_reason": "stop"}
        score = Score.model_validate(fields | {"response": response, "verdict": verdict, "reason": reason})
        return list(connect4.metrics(score).values())

    assert numbers(REFERENCE, "right") == [1, 1, 1]
    assert numbers("Own: None\nOpponent: None") == [0, 1, 0]
    assert numbers("Own: (3, 2), (0, 4)", "undecided") == [1, 0, 0]
    assert numbers("Own: (3, 2), (0, 4)\nOpp", "undecided", "truncated") == [0, 0, 0]


def test_the_score_of_answering_none_is_known_beforehand() -> None:
    task = load_tasks(["connect4"], TaskContext(seed=3))["connect4"].task
    answers = [problem.answer or "" for problem in problems(3)]
    assert task.chance == {
        "score": sum(answer == "Own: None\nOpponent: None" for answer in answers) / 500,
        "own": sum(answer.startswith("Own: None") for answer in answers) / 500,
        "opponent": sum(answer.endswith("Opponent: None") for answer in answers) / 500,
        "both": task.chance["score"],
    }
    assert 0 < task.chance["both"] <= 0.2 < task.chance["own"] < 1


def test_boards_are_positions_of_unfinished_games() -> None:
    for columns in islice(boards(0, "test"), 500):
        assert len(columns) == 7
        assert max(map(len, columns)) <= 6
        pieces = "".join(columns)
        assert pieces.count("X") - pieces.count("O") in (0, 1)
        assert not any(all(columns[c][r : r + 1] == player for r, c in line) for line in LINES for player in "XO"), (
            columns
        )


def test_at_most_a_fifth_of_the_boards_has_no_winning_move() -> None:
    empty = 0
    for number, problem in enumerate(problems(3), 1):
        empty += problem.answer == "Own: None\nOpponent: None"
        assert empty <= number / 5
    assert number == 500
    assert empty > 0


def test_problems_depend_only_on_the_seed_and_do_not_repeat() -> None:
    first, second = take(0, "test", 200), take(1, "test", 200)
    assert first == take(0, "test", 200)
    assert first[:50] == problems(0, 50)
    assert first != second
    assert len({problem.id for problem in first}) == 200
    seen = {tuple(problem.id.removeprefix("connect4-").split(".")) for problem in first}
    assert not any(columns != columns[::-1] and columns[::-1] in seen for columns in seen)


def test_the_splits_are_disjoint_for_any_seeds() -> None:
    held_out = {problem.id for seed in range(3) for problem in take(seed, "test", 150)}
    trained = {problem.id for seed in range(3) for problem in take(seed, "train", 150)}
    assert not held_out & trained
    board = ("XO", "X", "", "OX", "", "O", "")
    assert split_of(board) == split_of(board[::-1])


def test_the_prompt_contains_the_board_and_the_answer_format() -> None:
    # X has 3 pieces, O has 2: O is to move.
    columns = ("X", "OX", "", "XO", "", "", "")
    assert drawn(columns).splitlines()[4:] == [
        "(1, 0): _ (1, 1): X (1, 2): _ (1, 3): O (1, 4): _ (1, 5): _ (1, 6): _",
        "(0, 0): X (0, 1): O (0, 2): _ (0, 3): X (0, 4): _ (0, 5): _ (0, 6): _",
    ]
    problem = connect4.as_problem(columns, "test")
    assert drawn(columns) in problem.prompt
    assert "You play O, and it is your move." in problem.prompt
    assert str(problem.prompt).endswith("Own: (row, column), (row, column)\nOpponent: None")
    assert problem.id == "connect4-X.OX..XO..."
    assert problem.answer == "Own: None\nOpponent: None"


REFERENCE = "Own: (0, 4), (3, 2)\nOpponent: None"


@pytest.mark.parametrize(
    "response",
    [
        "Own: (0, 4), (3, 2)\nOpponent: None",
        "Own: (3,2),(0,4)\nOpponent: none.",
        "I see.\n\n**Own:** {( 0 , 4 ), (3, 2)}\n**Opponent:** {}",
        "- Own: `[(3, 2), (0, 4), (0, 4)]`\n- Opponent: []\nDone.",
        "own: (0, 4) and (3, 2).\nopponent: **None**",
        "Own: None\nOpponent: (1, 1)\nNo, I overlooked a line.\nOwn: (0, 4); (3, 2)\nOpponent: None",
        "Opponent: ∅\r\nOwn: $\\{(0, 4), (3, 2)\\}$",
    ],
)
def test_right_answers(response: str) -> None:
    result = grade(response, REFERENCE)
    assert result.verdict == "right"
    assert result.extracted == REFERENCE


@pytest.mark.parametrize(
    "response",
    [
        "Own: (0, 4)\nOpponent: None",  # one is missing
        "Own: (0, 4), (3, 2), (1, 1)\nOpponent: None",  # one too many
        "Own: (4, 0), (2, 3)\nOpponent: None",  # column before row
        "Own: (0, 4), (3, 2)\nOpponent: (9, 9)",  # not on the board, but a move
        "Own: None\nOpponent: (0, 4), (3, 2)",  # own and opponent exchanged
        "Own: (0, 4), (3, 2)\nOpponent: None\nOwn: None\nOpponent: None",  # the last lines count
    ],
)
def test_wrong_answers(response: str) -> None:
    assert grade(response, REFERENCE).verdict == "wrong"


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        ("", "no line begins with 'Own:'"),
        ("X wins at (0, 4) and (3, 2).", "no line begins with 'Own:'"),
        ("Own: (0, 4), (3, 2)", "no line begins with 'Opponent:'"),
        ("Own: (0, 4), (3, 2)\nOpponent:", "the line 'Opponent:' contains something other than cells"),
        ("Own: (0, 4), (3, 2)\nOpponent: no idea", "the line 'Opponent:' contains something other than cells"),
        ("Own: (0, 4) but not (3, 2)\nOpponent: None", "the line 'Own:' contains something other than cells"),
        ("Own: (0, 4) or None\nOpponent: None", "the line 'Own:' contains something other than cells"),
        ("Own: (row, column), (row, column)\nOpponent: None", "the line 'Own:' contains something other than cells"),
        ("My own: (0, 4)\nOpponent: None", "no line begins with 'Own:'"),
    ],
)
def test_undecided_answers(response: str, reason: str) -> None:
    result = grade(response, REFERENCE)
    assert result.verdict == "undecided"
    assert result.reason == reason


def test_every_reference_grades_as_right() -> None:
    assert all(grade(problem.answer or "", problem.answer or "").verdict == "right" for problem in problems(0, 50))


@pytest.mark.parametrize(
    "text", ["Own:" + " and" * 20000, "Own: " + "(0, 4), " * 20000 + "x", "*" * 50000, "Own " * 20000]
)
def test_long_answers_are_graded_quickly(text: str) -> None:
    # A pattern with backtracking would take minutes here, and tests have a time limit.
    assert grade(text, REFERENCE).verdict == "undecided"
