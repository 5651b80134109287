"""Files of every kind in the app, and what it computes in the background."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path

import pytest
from textual.pilot import Pilot

from spotcli import decisions
from spotcli.core import edits
from spotcli.decisions import AppliedDecisions, review_path
from spotcli.errors import DataError
from spotcli.inspection import editing
from spotcli.inspection.app import pair_view
from spotcli.inspection.app.application import InspectApp
from spotcli.inspection.editing import Measured
from spotcli.records import Pair
from spotcli.training.rows import read_pairs
from tests.inspection.app.test_application import colours, drive, editor, events, press, rows, screen, settle
from tests.inspection.example_pairs import ATTACKS, CONTROL_CHARACTERS, PAIRS, write_rows
from tests.inspection.example_rows import preference_rows, reply_rows, sample_rows, score_rows, write_scores

__all__ = ["colours"]  # applies to every test


def test_samples_are_listed_filtered_and_counted(tmp_path: Path) -> None:
    async def steps(app: InspectApp, pilot: Pilot[None]) -> None:
        assert re.search("length +end +verdi +source", screen(app))
        assert "verdict right" in screen(app)
        assert "We add 0 and 1: 1." in screen(app)
        assert "accept" not in screen(app)  # nothing to decide about
        assert "this row is not a pair" in await press(app, pilot, "a")
        await press(app, pilot, "f", *"truncated=yes", "enter")
        assert list(app.list.rows) == [2, 5]
        assert "finish truncated" in screen(app)
        text = await press(app, pilot, "o")
        assert "2 samples" in text
        assert "undecided 2" in text
        await press(app, pilot, "q", "f", *["backspace"] * 13, "enter", "slash", *"and 1: 3", "enter")
        assert app.list.current == 4
        assert "reasno" in await press(app, pilot, "f", *"reasno=none", "enter")
        assert "did you mean 'reason'?" in screen(app)

    drive(write_rows(tmp_path / "samples.jsonl", sample_rows()), steps, size=(130, 24))


def test_replies_are_listed_filtered_and_counted(tmp_path: Path) -> None:
    async def steps(app: InspectApp, pilot: Pilot[None]) -> None:
        assert re.search("cost +end +entry +oracle", screen(app))
        assert re.search(r"\$0\.250 +reply gpt-4o", screen(app))
        assert "<corrected>fixed 0</corrected>" in screen(app)
        assert "declined truncated" in await press(app, pilot, "j")
        assert "was reserved for this request" in await press(app, pilot, "j")
        await press(app, pilot, "f", *"entry=reply", "enter")
        assert list(app.list.rows) == [0, 1]
        assert "$0.5000" in await press(app, pilot, "o")

    drive(write_rows(tmp_path / "data.replies.jsonl", reply_rows()), steps, size=(130, 30))


def test_scores_are_compared_with_the_base_that_their_summary_names(tmp_path: Path) -> None:
    path = write_scores(tmp_path)
    (tmp_path / "base.jsonl").write_text("no json\n" + (tmp_path / "base.jsonl").read_text())

    async def steps(app: InspectApp, pilot: Pilot[None]) -> None:
        assert re.search(r"won .*\n.*lost", screen(app))
        assert "change won" in screen(app)
        assert "base wrong" in screen(app)
        await press(app, pilot, "f", *"lost", "enter")
        assert list(app.list.rows) == [1]
        await press(app, pilot, "z", "G", "space")
        assert "The sum is 299." in screen(app)  # 2 deleted, 99 inserted
        assert app.view.edits == 1
        await press(app, pilot, "z")
        text = await press(app, pilot, "o")
        assert "1 problem, right 0, wrong 1, undecided 0 (0.0% right)" in text
        assert "won 1, lost 1, both 1, neither 1" in text

    drive(path, steps, size=(110, 30))


def test_scores_are_compared_with_a_named_file(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "tuned.jsonl", score_rows("rw"))
    base = write_rows(tmp_path / "other.jsonl", score_rows("wr"))

    async def steps(app: InspectApp, pilot: Pilot[None]) -> None:
        assert list(app.list.rows) == [0]
        assert "change won" in screen(app)

    drive(path, steps, size=(110, 30), against=base, where="won")


def test_a_comparison_that_fails_is_told_and_no_stop(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "tuned.jsonl", score_rows("rw"))
    base = write_rows(tmp_path / "base.jsonl", [{**row, "prompt": "other"} for row in score_rows("wr")])

    async def steps(app: InspectApp, pilot: Pilot[None]) -> None:
        assert "not compared with the base model: problem 'q0' of the task 'sums' has another prompt" in screen(app)
        assert "The sum is 1." in screen(app)
        assert "has another prompt" in await press(app, pilot, "f", *"lost", "enter")

    drive(path, steps, size=(150, 30), against=base)


def test_without_a_base_the_filter_names_the_cure(tmp_path: Path) -> None:
    async def steps(app: InspectApp, pilot: Pilot[None]) -> None:
        text = await press(app, pilot, "f", *"lost", "enter")
        assert "the scores of the base model were not found" in text
        assert "--against" in text

    drive(write_rows(tmp_path / "tuned.jsonl", score_rows("rw")), steps, size=(150, 30))


def test_rows_of_several_kinds_are_shown_as_what_they_are(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "m.jsonl", [*PAIRS, *sample_rows()[:1], *reply_rows()[:1], *score_rows("r")])
    path.write_text(path.read_text() + "no json\n")

    async def steps(app: InspectApp, pilot: Pilot[None]) -> None:
        assert "1 decided, 2 left" in screen(app)  # one pair has a review
        assert "verdict right" in await press(app, pilot, "j", "j", "j")
        assert "mode rewrite" in await press(app, pilot, "j")
        assert "task sums" in await press(app, pilot, "j")
        assert "invalid JSON" in await press(app, pilot, "j")
        text = await press(app, pilot, "o")
        assert "6 rows of 4 kinds" in text
        await press(app, pilot, "o", "A", "y")
        assert [row["key"][0] for row in events(path)] == ["sum-1", "word-1", "word-2"]

    drive(path, steps, size=(120, 40))


def test_decisions_about_preferences_of_other_tools_are_those_of_training(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "train.jsonl", preference_rows())

    async def steps(app: InspectApp, pilot: Pilot[None]) -> None:
        assert "0 decided, 5 left" in screen(app)
        # The first two rows have the same prompt and no id: a decision about one is none about the other.
        text = await press(app, pilot, "a")
        assert "1 decided, 4 left" in text
        assert "stale" not in text
        assert "stale" not in await press(app, pilot, "j")
        await press(app, pilot, "j", "r", "1")

    drive(path, steps, size=(110, 30))

    def invalid(error: DataError) -> None:
        raise error

    applied = AppliedDecisions(decisions.read(path))
    trained = [applied(pair) for _, pair in read_pairs(path, Pair, invalid=invalid)]
    assert [pair.review for pair in trained] == ["accept", None, "reject", None, None]
    assert trained[2].chosen == "Now 4."


def test_a_long_diff_is_computed_in_the_background(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [f"line {number} of a long answer" for number in range(1500)]
    other = [f"{line} is new" if number == 700 else line for number, line in enumerate(lines)]
    long = {**rows(1)[0], "id": "long", "rejected": "\n".join(lines), "chosen": "\n".join(other)}
    path = write_rows(tmp_path / "data.jsonl", [long, rows(2)[1]])
    go, threads = threading.Event(), []
    compute = edits.diff

    def slow(old: str, new: str) -> object:
        threads.append(threading.current_thread() is threading.main_thread())
        if len(old) > pair_view.LONG:
            assert go.wait(60)
        return compute(old, new)

    monkeypatch.setattr(pair_view, "diff", slow)

    async def steps(app: InspectApp, pilot: Pilot[None]) -> None:
        await pilot.press("j")  # the app answers while the diff is computed
        await pilot.pause()
        assert app.list.current == 1
        await pilot.press("k")
        await pilot.pause()
        assert "computing the diff ..." in screen(app)
        go.set()
        await settle(app, pilot)
        assert "line 700 of a long answer is new" in screen(app)
        count = len(threads)
        await press(app, pilot, "a")  # only the head changes
        assert len(threads) == count

    go_later = threading.Timer(20, go.set)  # never leave a thread waiting
    go_later.start()
    try:
        drive_without_settling(path, steps)
    finally:
        go_later.cancel()
    assert threads.count(True) >= 1  # short ones at once
    assert threads.count(False) >= 1


def drive_without_settling(path: Path, steps: object) -> None:
    """As ``drive``, for an app whose work ends only during the steps."""
    import asyncio

    from spotcli.decisions import ReviewFile
    from spotcli.inspection.app.browser import Opened
    from spotcli.inspection.opening import open_entries
    from spotcli.inspection.pair_filter import ALL_PAIRS
    from spotcli.recipe import Recipe

    review = ReviewFile(path)
    with open_entries(path, lambda: review.decisions, against=None, selection=ALL_PAIRS, keep=True) as entries:
        app = InspectApp(Opened(path, Recipe(), entries, review))

        async def run() -> None:
            async with app.run_test(size=(100, 30)) as pilot:
                await pilot.pause(0.1)
                await steps(app, pilot)  # type: ignore[operator]  # parametrized

        try:
            asyncio.run(run())
        finally:
            review.close()


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        # q waits for the verdict; a second q and Ctrl-C do not; a later decision or an undo stands.
        (["q"], [("edited", None), ("edited", "right")]),
        (["q", "q"], [("edited", None)]),
        (["ctrl+c"], [("edited", None)]),
        (["a", "q"], [("edited", None), ("accept", None)]),
        (["u", "q"], [("edited", None), (None, None)]),
    ],
)
def test_an_edit_is_graded_in_the_background(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: list[str], expected: list[tuple[str | None, str | None]]
) -> None:
    path = write_rows(tmp_path / "data.jsonl", rows(3))
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", editor(tmp_path, "text = 'so 4'"))
    go = threading.Event()

    def slow(*_: object) -> Measured:
        assert threading.current_thread() is not threading.main_thread()
        assert go.wait(60)
        return Measured("right", "4", 0.5, "words and signs")

    monkeypatch.setattr(editing, "measure", slow)

    async def steps(app: InspectApp, pilot: Pilot[None]) -> None:
        await pilot.press("x")
        await pilot.pause()
        assert "grading and measuring the edit" in screen(app)
        assert events(path)[0]["chosen"] == "so 4"  # saved before it is graded
        await pilot.press("j")
        await pilot.pause()
        assert app.list.current == 1
        await pilot.press("k", *keys[:1])
        await pilot.pause()
        if keys == ["q"]:
            assert "quitting when the edit is graded" in screen(app)
        threading.Timer(0.3, go.set).start()
        await pilot.press(*keys[1:])
        await pilot.pause(0.6)

    try:
        drive_without_settling(path, steps)
    finally:
        go.set()
    assert [(row.get("decision"), row.get("verdict")) for row in events(path)] == expected


@pytest.mark.parametrize("name", ATTACKS)
def test_hostile_samples_and_replies_are_shown_never_obeyed(tmp_path: Path, name: str) -> None:
    attack = ATTACKS[name]
    texts = ("id", "source", "answer", "response", "reason", "oracle", "model", "text", "key", "prompt")
    all_rows = [
        {key: f"{value} {attack}" if key in texts and value is not None else value for key, value in row.items()}
        for row in [sample_rows()[2], *reply_rows(), *score_rows("r")]
    ]

    async def steps(app: InspectApp, pilot: Pilot[None]) -> None:
        for key in ("j", "j", "j", "j", "j", "j", "z", "o"):
            assert not re.search(CONTROL_CHARACTERS, await press(app, pilot, key))

    drive(write_rows(tmp_path / "mixed.jsonl", all_rows), steps, size=(200, 50))


def test_preferences_in_a_table_are_decided_about(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    path = tmp_path / "train.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(preference_rows()[:1]), path)

    async def steps(app: InspectApp, pilot: Pilot[None]) -> None:
        assert "What is 1 + 1?" in screen(app)
        await press(app, pilot, "a")

    drive(path, steps)
    assert json.loads(review_path(path).read_text())["decision"] == "accept"
