"""Connect Four: which moves win at once, for the player to move and for the opponent.

The boards are generated from a seed, or the published ones are read. Generated boards are positions of two players who
drop pieces at random, before either of them has won. The answer is two sets of moves, and both must be exactly right.
Only one of a board and its mirror image is used. A hash assigns both to the train or the test split, so the splits are
disjoint for any seed.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Iterator
from itertools import islice
from typing import Any, Literal

from spotcli.evaluation.tasks.published import PublishedSet, column_error, load_converted, local_source
from spotcli.evaluation.tasks.task import Task, TaskContext
from spotcli.grading.answers import TRUNCATED
from spotcli.grading.coordinates import labelled_cells, write_cells
from spotcli.records import Problem, Score

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
"""Number of held-out boards that are generated; ``eval.limit`` may ask for more."""

SET = PublishedSet("connect4", ("linius/connect4",), 500)
"""The boards of the paper. They are used only if they are named, so that no result depends on the network."""
COLUMNS_OF_SET = ("state", "answer")
"""Published columns: the board as text, and the winning moves of the player to move and of the opponent."""

_PLACE = re.compile(r"\((\d),\s*(\d)\)\s*:\s*([XO_])")
_PLAYER = re.compile(r"You are player ([XO])")


def problems(context: TaskContext) -> list[Problem]:
    """The held-out boards: published ones from ``context.problems`` or the folder of files, else generated ones.

    Raises:
        UserError: the published set cannot be read, or has another number of boards.
        DataError: an invalid board, or an answer that is not the solver's.
    """
    if context.problems or local_source(context.data_dir, SET.file_names):
        return load_converted(SET, context, published_problem)
    return take(context.seed, "test", context.limit or PROBLEMS)


def published_problem(row: dict[str, Any], /, *, where: str, source: str) -> Problem:
    """A published board as a problem, in the words of the generated ones.

    Raises:
        DataError: the row has no board, or another answer than the solver's.
    """
    state, answer = (_decoded(row.get(column)) for column in COLUMNS_OF_SET)
    pieces = {
        (int(place[0]), int(place[1])): place[2] for place in _PLACE.findall(state if isinstance(state, str) else "")
    }
    columns = tuple(
        "".join(pieces.get((row, column), "") for row in range(ROWS)).rstrip("_") for column in range(COLUMNS)
    )
    if len(pieces) != ROWS * COLUMNS or "_" in "".join(columns):
        raise column_error(SET, COLUMNS_OF_SET, "expected a board of 6 rows and 7 columns in 'state'", where)
    player = _PLAYER.search(state)
    if player and player[1] != to_move(columns)[0]:
        raise column_error(SET, COLUMNS_OF_SET, f"it is not the move of {player[1]}, by the number of pieces", where)
    moves = [winning_moves(columns, side) for side in to_move(columns)]
    try:
        published = [{(int(place[0]), int(place[1])) for place in side} for side in answer]
    except (TypeError, ValueError, IndexError, KeyError):
        raise column_error(SET, COLUMNS_OF_SET, "expected two lists of [row, column] in 'answer'", where) from None
    if published != moves:
        raise column_error(SET, COLUMNS_OF_SET, f"the winning moves are {moves}, got {published} in 'answer'", where)
    return as_problem(columns, source)


def _decoded(value: Any) -> Any:
    """A cell of a CSV file that contains JSON; any other value unchanged."""
    try:
        return json.loads(value) if isinstance(value, str) and value.startswith("[") else value
    except (ValueError, RecursionError):
        return value


def metrics(score: Score) -> dict[str, float]:
    """Whether the moves of each player are exactly right; none of a truncated answer are."""

    def is_right(label: str) -> float:
        if score.reason == TRUNCATED:
            return 0.0
        cells = labelled_cells(score.response, label)
        return float(not isinstance(cells, str) and cells == labelled_cells(score.answer or "", label))

    return {"own": is_right("Own"), "opponent": is_right("Opponent"), "both": float(score.verdict == "right")}


TASK = Task(
    "connect4",
    problems,
    trials=5,
    grader="coordinates",
    group="OOD",
    metrics=metrics,
    constant_response="Own: None\nOpponent: None",
)
