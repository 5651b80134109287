"""Connect Four, generated from a seed: which moves win at once, for the player to move and for the opponent.

The boards are positions of two players who drop pieces at random, before either of them has won. The answer is two sets
of moves, and both must be exactly right. Only one of a board and its mirror image is used. A hash assigns both to the
train or the test split, so the splits are disjoint for any seed.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from itertools import islice
from typing import Literal

from spotcli.evaluation.tasks.task import Task, TaskContext
from spotcli.grading.coordinates import write_cells
from spotcli.records import Problem

Split = Literal["train", "test"]
Move = tuple[int, int]
"""Row from the bottom and column from the left, both from 0."""
Columns = tuple[str, ...]
"""The board: the pieces of each column, the lowest first."""

ROWS, COLUMNS, LINE = 6, 7, 4
TEST_SHARE = 0.25
EMPTY_SHARE = 0.2
"""Maximum share of the boards without a winning move for either player."""

_DIRECTIONS = ((0, 1), (1, 0), (1, 1), (1, -1))

_QUESTION = """\
Connect Four is played on a board of 6 rows and 7 columns. A place on it is written (row, column). Row 0 is the lowest \
row and row 5 the highest; column 0 is the leftmost column and column 6 the rightmost. A piece dropped into a column \
falls to the lowest place of that column that is still empty. Four pieces of one player in an unbroken straight line, \
along a row, a column or a diagonal, win the game.

This is the board, its highest row first. X and O are pieces, _ is an empty place.

{board}

You play {player}, and it is your move. Answer two questions:
1. Own: with which moves do you ({player}) win at once?
2. Opponent: if {opponent} were to move instead of you on this same board, with which moves would {opponent} win?

Work it out first. Then end with exactly two lines, each with all the winning moves in any order, or with None where \
there is no such move, as in this example:
Own: (row, column), (row, column)
Opponent: None"""


def winning_moves(columns: Columns, player: str) -> set[Move]:
    """The moves with which ``player`` would win at once."""
    drops = [(len(pieces), column) for column, pieces in enumerate(columns) if len(pieces) < ROWS]
    return {drop for drop in drops if _wins(columns, drop, player)}


def _wins(columns: Columns, place: Move, player: str) -> bool:
    """Whether a piece of the player at ``place`` would complete a line of four."""
    for up, right in _DIRECTIONS:
        length = 1
        for sign in (1, -1):
            row, column = place[0] + sign * up, place[1] + sign * right
            while 0 <= column < COLUMNS and 0 <= row < len(columns[column]) and columns[column][row] == player:
                length += 1
                row, column = row + sign * up, column + sign * right
        if length >= LINE:
            return True
    return False


def to_move(columns: Columns) -> tuple[str, str]:
    """The player to move and the opponent; X starts."""
    pieces = "".join(columns)
    return ("X", "O") if pieces.count("X") == pieces.count("O") else ("O", "X")


def drawn(columns: Columns) -> str:
    """The board as text: every place with its coordinates, the highest row first."""
    return "\n".join(
        " ".join(f"({row}, {column}): {columns[column][row : row + 1] or '_'}" for column in range(COLUMNS))
        for row in reversed(range(ROWS))
    )


def _canonical(columns: Columns) -> Columns:
    """The same for a board and its mirror image."""
    return min(columns, columns[::-1])


def split_of(columns: Columns) -> Split:
    """The split of a board; the same for every seed."""
    digest = hashlib.sha256("|".join(_canonical(columns)).encode()).digest()
    return "test" if int.from_bytes(digest[:8]) / 2**64 < TEST_SHARE else "train"


def _played(r: random.Random) -> Columns | None:
    """A position after a random number of random moves; None if a player won before."""
    columns: Columns = ("",) * COLUMNS
    for _ in range(r.randint(5, ROWS * COLUMNS - 2)):
        player, _opponent = to_move(columns)
        chosen = r.choice([column for column in range(COLUMNS) if len(columns[column]) < ROWS])
        if _wins(columns, (len(columns[chosen]), chosen), player):
            return None
        columns = (*columns[:chosen], columns[chosen] + player, *columns[chosen + 1 :])
    return columns


def boards(seed: int, split: Split) -> Iterator[Columns]:
    """Distinct boards of a split; the supply is practically unlimited.

    At any point, at most ``EMPTY_SHARE`` of the boards so far have no winning move for either player.
    """
    r = random.Random(f"connect4:{split}:{seed}")
    seen: set[Columns] = set()
    empty = 0
    while True:
        columns = _played(r)
        if columns is None or _canonical(columns) in seen or split_of(columns) != split:
            continue
        if not any(winning_moves(columns, player) for player in "XO"):
            if empty + 1 > EMPTY_SHARE * (len(seen) + 1):
                continue
            empty += 1
        seen.add(_canonical(columns))
        yield columns


def as_problem(columns: Columns, source: str) -> Problem:
    """The question about a board, with its answer in the requested form."""
    player, opponent = to_move(columns)
    answers = {"Own": winning_moves(columns, player), "Opponent": winning_moves(columns, opponent)}
    return Problem(
        id=f"connect4-{'.'.join(columns)}",
        prompt=_QUESTION.format(board=drawn(columns), player=player, opponent=opponent),
        answer="\n".join(f"{name}: {write_cells(moves)}" for name, moves in answers.items()),
        source=source,
    )


def take(seed: int, split: Split, number: int) -> list[Problem]:
    """The first ``number`` problems of a split."""
    return [as_problem(columns, f"builtin:connect4/{split}") for columns in islice(boards(seed, split), number)]


PROBLEMS = 500
"""Number of held-out boards; ``eval.limit`` may ask for more."""


def problems(context: TaskContext) -> list[Problem]:
    """The held-out boards."""
    return take(context.seed, "test", context.limit or PROBLEMS)


TASK = Task(
    "connect4",
    problems,
    trials=5,
    max_new_tokens=8192,
    grader="coordinates",
    group="OOD",
    constant_response="Own: None\nOpponent: None",
)
