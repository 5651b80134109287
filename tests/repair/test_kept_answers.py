"""`rectify.keep`: which right answers become rows beside the corrections, and how they are counted."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from spotcli import decisions, outputs
from spotcli.cli import app
from spotcli.decisions import Event, ReviewFile, text_digest
from spotcli.errors import RecipeError
from spotcli.inspection.row_kinds import read_row
from spotcli.publishing.card import card
from spotcli.publishing.selection import select_pairs
from spotcli.recipe_yaml import load
from spotcli.records import Pair
from spotcli.repair.action import ASK
from spotcli.repair.kept_answers import row_count
from spotcli.stages.rectify import Action, RectifySummary, rectify
from tests.conftest import write_rows


def answer(name: str, trial: int, verdict: str, *, prompt: str = "", ending: str = "") -> dict[str, Any]:
    """An answer to 12 + 30 - 7, or what `prompt` says instead; a wrong one can be repaired line by line."""
    first = 42 if verdict == "right" else 43
    return {
        "id": name, "trial": trial, "prompt": prompt or f"{name}: what is 12 + 30 - 7?", "answer": "35",
        "response": f"{ending}12 + 30 = {first}\n{first} - 7 = {first - 7}\nThe answer is \\boxed{{{first - 7}}}.",
        "verdict": verdict,
    }  # fmt: skip


SAMPLES = [
    answer("far", 0, "right", prompt="name the capital of a distant country"),
    answer("near", 0, "right", prompt="near: what is 55 + 21 - 3?"),
    answer("fixed", 0, "wrong"),
    answer("fixed", 1, "right"),
    answer("fixed", 2, "right", ending="So:\n"),
    answer("fixed", 3, "right"),  # the text of trial 1
    answer("unfixed", 0, "wrong") | {"response": "No idea. The answer is \\boxed{1}."},
    answer("unfixed", 1, "right"),
    answer("empty", 0, "right") | {"response": " "},
    answer("open", 0, "undecided"),
    answer("clash", 0, "right", prompt="a question with two references"),
    answer("clash-2", 0, "wrong", prompt="a question with two references") | {"answer": "36"},
]
RIGHT = 8
LEFT_OUT = {"conflicting references": 1, "empty answer": 1, "same answer": 1}


def run(folder: Path, keep: str | int | None, *, action: Action = ASK, seed: int = 0, **keys: Any) -> RectifySummary:
    values = {"rectify.oracle": "symbolic", "rectify.keep": keep, "seed": seed}
    values |= {f"rectify.{name}": value for name, value in keys.items()}
    return rectify(load(None, None, values), folder=folder, action=action)


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "data.jsonl").read_text().splitlines()]


def keys(folder: Path) -> list[tuple[str, int]]:
    return [(row["id"], row["trial"]) for row in rows(folder)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_rows(tmp_path / "samples.jsonl", SAMPLES)
    return tmp_path


def test_the_nearest_right_answers_are_rows_beside_the_corrections(folder: Path) -> None:
    summary = run(folder, 3)
    # One answer per problem: the corrected one, the one with a wrong answer, and the most similar of the others.
    assert keys(folder) == [("near", 0), ("fixed", 0), ("fixed", keys(folder)[2][1]), ("unfixed", 1)]
    assert (summary.pairs, summary.wrong, summary.right, summary.undecided) == (1, 3, RIGHT, 1)
    assert (summary.kept, summary.not_kept) == (3, LEFT_OUT | {"not needed": 2})
    assert summary.cost == 0.0
    made = {row["id"]: row for row in rows(folder) if "rejected" not in row}
    assert [made[name]["oracle"]["kept_for"] for name in ("fixed", "unfixed", "near")] == [
        "corrected problem", "problem with wrong answers", "similar problem",
    ]  # fmt: skip
    assert all(row["chosen"] == row["response"] and row["oracle"]["name"] == "self" for row in made.values())
    meta = outputs.read_meta(folder / "data.jsonl")
    assert (meta["counts"]["kept"], meta["counts"]["not_kept"], meta["filters"]["keep"]) == (3, summary.not_kept, "3")
    # A rerun, another number and a replay need no request, and pairs stay as they are.
    pair = rows(folder)[1]
    assert run(folder, 3).kept == 3
    assert run(folder, 4, action=Action.of(replay=True)).kept == 4
    # The second answer to a problem comes after the first ones to all.
    assert Counter(name for name, _ in keys(folder)) == {"far": 1, "near": 1, "fixed": 2, "unfixed": 1}
    everything = run(folder, 1000)
    assert (everything.kept, everything.not_kept) == (5, LEFT_OUT)
    assert run(folder, None).not_kept is None
    assert rows(folder) == [pair]


def test_the_seed_decides_between_equals_and_nothing_else(folder: Path) -> None:
    # Of the two answers to the corrected problem, the seed chooses one; the pair and the order of the file stay.
    chosen = set()
    for seed in range(6):
        run(folder, 1, seed=seed)
        first, kept = rows(folder)
        assert (first["trial"], kept["id"]) == (0, "fixed")
        chosen.add(kept["trial"])
    assert chosen == {1, 2}


def test_groups_are_kept_as_often_as_they_are_corrected(tmp_path: Path) -> None:
    # Three corrections of family a and one of b: of four answers, three are of a; the fifth to eighth are 3 + 1 again.
    right = [answer(f"right-{number}", 0, "right") | {"family": "abc"[number % 3]} for number in range(24)]
    asked = "what is 12 + 30 - 7?"
    wrong = [answer(f"wrong-{number}", 0, "wrong", prompt=asked) | {"family": "aaab"[number]} for number in range(4)]
    write_rows(tmp_path / "samples.jsonl", right + wrong)
    for keep, counts in ((4, {"a": 3, "b": 1}), (8, {"a": 6, "b": 2}), (18, {"a": 8, "b": 8, "c": 2})):
        assert run(tmp_path, keep).pairs == 4
        assert Counter(row["family"] for row in rows(tmp_path) if "rejected" not in row) == counts


def test_a_share_is_that_of_the_pairs(folder: Path) -> None:
    # One pair: 200 % are 2 rows, 50 % are half a row, which is rounded up.
    assert run(folder, "200%").kept == 2
    assert run(folder, "50%").kept == 1
    assert run(folder, "40%").kept == 0
    assert run(folder, "200%", gamma=0.0).kept == 0  # no pair
    assert [row_count("12.5%", pairs=pairs) for pairs in (3, 4, 8)] == [0, 1, 1]


def test_reviewed_answers_stay(folder: Path) -> None:
    run(folder, 5)
    far = next(row for row in rows(folder) if row["id"] == "far")
    review = ReviewFile(folder / "data.jsonl")
    digest = text_digest(Pair.model_validate(far))
    event = Event(time=decisions.now(), action="a", key=("far", 0), decision="accept", digest=digest)
    review.append([event])
    review.close()
    # It would be the last of them, and is the only one that remains.
    run(folder, 1)
    assert keys(folder) == [("far", 0), ("fixed", 0)]
    assert rows(folder)[0] == far


@pytest.mark.parametrize("keep", ["half", "-3", "1.5", "%", True, "1e9"])
def test_other_values_are_refused(keep: Any, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"a number of rows such as 200, or a share .* such as 50%"):
        run(tmp_path, keep)


def test_the_mode_self_keeps_all_of_them_already(folder: Path) -> None:
    with pytest.raises(RecipeError, match="mutually exclusive"):
        run(folder, 3, mode="self")


def test_the_card_of_a_dataset_counts_them(folder: Path) -> None:
    run(folder, 3)
    selection = select_pairs(folder / "data.jsonl")
    text = card("org/name", selection, None, None)
    assert "- data.jsonl: 4 rows" in text
    assert "- of these, right answers of the model itself, without `rejected`: 3" in text
    assert "| right answers kept | 3 |" in text


def test_the_command_shows_what_was_kept_and_inspect_finds_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "200")
    command = CliRunner()
    dry = command.invoke(app, ["rectify", "--oracle", "symbolic", "--keep", "50%", "--dry-run"])
    assert "--keep 50% adds right answers of the policy, at no cost." in dry.stdout
    done = command.invoke(app, ["rectify", "--oracle", "symbolic", "--keep", "3"])
    assert done.exit_code == 0, done.output
    assert f"3 of {RIGHT}, at no cost; left out: conflicting references 1, empty answer 1" in done.stdout
    assert "1 pair and 3 right answers in data.jsonl" in done.stdout
    for where, count in (("kind=right", 3), ("kind=correction", 1), ("ratio=none", 3), ("oracle=self", 3)):
        found = command.invoke(app, ["inspect", "data.jsonl", "--json", "--where", where])
        assert json.loads(found.stdout)["matching"] == count
    # An edited one is still a row without y-, and no answer to a problem of a set of preferences.
    edited = rows(folder)[0] | {"chosen": "42 - 7 = 35"}
    assert isinstance(read_row(edited, "data.jsonl:1", {}), Pair)
    # The file is one of pairs, also where its first row has no y-.
    again = command.invoke(app, ["rectify", "data.jsonl", "-o", "other.jsonl", "--oracle", "symbolic"])
    assert "expected samples, got pairs" in str(again.exception)
