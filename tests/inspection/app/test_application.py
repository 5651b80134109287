"""Every key of the app, pressed by Textual's pilot on real files."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from spotcli import decisions
from spotcli.decisions import ReviewFile, review_path
from spotcli.errors import UserError
from spotcli.inspection.app.application import InspectApp
from spotcli.inspection.app.browser import Opened, has_colour
from spotcli.inspection.audit import SampleSize, report_audit
from spotcli.inspection.opening import open_entries
from spotcli.inspection.pair_filter import Selection
from spotcli.recipe import Recipe
from spotcli.records import Pair
from tests.inspection.example_pairs import ATTACKS, write_hostile_pair, write_rows

Steps = Callable[[InspectApp, Pilot[None]], Awaitable[None]]


def rows(count: int = 6) -> list[dict[str, Any]]:
    """Pairs with growing change ratios; the answer has 40 lines, of which the lines 5 and 35 differ."""
    lines = [f"line {number} of the answer" for number in range(40)]
    changed = [f"{line} is new" if number in (5, 35) else line for number, line in enumerate(lines)]
    return [
        {
            "id": f"p{number}",
            "prompt": f"Question {number}?",
            "answer": "4",
            "rejected": "\n".join(lines),
            "chosen": "\n".join(changed),
            "change_ratio": number / 10,
            "verdict": "right",
            "oracle": {"name": "gpt-4o"},
        }
        for number in range(count)
    ]


@pytest.fixture(autouse=True)
def colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "data.jsonl", rows())


def drive(path: Path, steps: Steps, *, size: tuple[int, int] = (80, 24), **options: Any) -> InspectApp:
    """Open a file, press keys, and close it."""
    review = ReviewFile(path)
    selection = Selection(where=options.get("where"))
    against = options.pop("against", None)
    with open_entries(path, lambda: review.decisions, against=against, selection=selection, keep=True) as entries:
        app = InspectApp(Opened(path, options.pop("recipe", Recipe()), entries, review, **options))

        async def run() -> None:
            async with app.run_test(size=size) as pilot:
                await settle(app, pilot)
                await steps(app, pilot)

        try:
            asyncio.run(run())
        finally:
            review.close()
    return app


async def settle(app: InspectApp, pilot: Pilot[None]) -> None:
    """Wait until the work is done and the screen does not change any more."""
    before = None
    for _ in range(100):
        await pilot.pause(0.02)
        await app.workers.wait_for_complete()
        await pilot.pause()
        if before == (before := screen(app)):
            return


async def press(app: InspectApp, pilot: Pilot[None], *keys: str) -> str:
    """Press keys; the text of the screen after it."""
    await pilot.press(*keys)
    await settle(app, pilot)
    return screen(app)


def screen(app: InspectApp) -> str:
    strips = app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in strip) for strip in strips)


def states(path: Path) -> list[str | None]:
    known = decisions.read(path)
    return [known.state(Pair.model_validate(json.loads(line))) for line in path.read_text().splitlines()]


def events(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in review_path(path).read_text().splitlines()]


def test_accept_reject_next_undecided_and_undo(path: Path) -> None:
    async def steps(app: InspectApp, pilot: Pilot[None]) -> None:
        assert "0 decided, 6 left" in screen(app)
        assert "1 decided, 5 left" in await press(app, pilot, "a")
        assert states(path)[0] == "accept"  # on disk at once
        await press(app, pilot, "right_square_bracket")
        assert app.list.current == 1
        assert "false step" in await press(app, pilot, "r")
        assert "reject: false step" in await press(app, pilot, "2")
        await press(app, pilot, "j", "r", "enter")
        await press(app, pilot, "j", "r", "escape")  # cancelled
        assert states(path) == ["accept", "reject", "reject", None, None, None]
        assert "undone" in await press(app, pilot, "u")
        assert app.list.current == 2
        await press(app, pilot, "u", "u")
        assert "no decision to undo" in await press(app, pilot, "u")
        assert states(path) == [None] * 6

    drive(path, steps)
    kinds = [(row["event"], row.get("decision"), row.get("reason")) for row in events(path)]
    assert kinds == [
        ("decision", "accept", None),
        ("decision", "reject", "false step"),
        ("decision", "reject", None),
        ("undo", None, None),
        ("undo", None, None),
        ("undo", None, None),
    ]


def test_decisions_are_there_after_reopening_and_can_be_undone(path: Path) -> None:
    async def decide(app: InspectApp, pilot: Pilot[None]) -> None:
        await press(app, pilot, "j", "a")

    async def reopen(app: InspectApp, pilot: Pilot[None]) -> None:
        assert "1 decided, 5 left" in screen(app)
        assert re.search(r"0\.100 .* accept", screen(app))
        await press(app, pilot, "u")

    drive(path, decide)
    drive(path, reopen)
    assert states(path) == [None] * 6


def test_all_that_match_are_decided_with_one_undo(path: Path) -> None:
    async def steps(app: InspectApp, pilot: Pilot[None]) -> None:
        await press(app, pilot, "f", *"ratio>", "0", ".", "2", "5", "enter")
        assert list(app.list.rows) == [3, 4, 5]
        assert "Reject 3 pairs?" in await press(app, pilot, "R")
        await press(app, pilot, "n")
        assert not review_path(path).exists()
        await press(app, pilot, "R", "y")
        assert states(path) == [None] * 3 + ["reject"] * 3
        await press(app, pilot, "u")
        assert states(path) == [None] * 6
        assert "Accept 3 pairs?" in await press(app, pilot, "A")
        await press(app, pilot, "y")
        await press(app, pilot, "f", *["backspace"] * 12, "enter")  # an empty filter shows all rows
        assert len(app.list.rows) == 6

    drive(path, steps)
    assert states(path) == [None] * 3 + ["accept"] * 3


def test_the_filter_knows_decisions_and_names_the_nearest_field(path: Path) -> None:
    async def steps(app: InspectApp, pilot: Pilot[None]) -> None:
        await press(app, pilot, "a", "f", *"decision", "=", *"none", "enter")
        assert list(app.list.rows) == [1, 2, 3, 4, 5]
        await press(app, pilot, "f", *["backspace"] * 13, *"ratoi", "=", "1", "enter")
        assert "did you mean 'ratio'?" in screen(app)
        assert list(app.list.rows) == [1, 2, 3, 4, 5]

    drive(path, steps)


def test_search_goes_to_the_next_row_with_the_text(path: Path) -> None:
    async def steps(app: InspectApp, pilot: Pilot[None]) -> None:
        await press(app, pilot, "slash", *"QUESTION", "space", "4", "enter")
        assert app.list.current == 4
        await press(app, pilot, "slash", *["backspace"] * 10, *"question", "enter")
        assert app.list.current == 5
        await press(app, pilot, "slash", "enter")  # the same text again, from the top
        assert app.list.current == 0
        # Typing replaces the text.
        assert "no row contains xy" in await press(app, pilot, "slash", "x", "y", "enter")
        await press(app, pilot, "slash", "escape")

    drive(path, steps)


def test_edits_are_visited_and_kept_lines_folded(path: Path) -> None:
    async def steps(app: InspectApp, pilot: Pilot[None]) -> None:
        assert "lines without edits" in screen(app)
        assert "line 20 of" not in screen(app)
        assert app.view.edits == 2
        assert re.search(r"> line 5 of the answer is new", screen(app))
        assert re.search(r"> line 35 of the answer is new", await press(app, pilot, "n"))
        assert app.view.edit == 1
        await press(app, pilot, "n")
        assert app.view.edit == 0
        await press(app, pilot, "N")
        assert app.view.edit == 1
        await press(app, pilot, "z", "space")
        assert "line 20 of" in screen(app)
        await press(app, pilot, "b")
        assert "line 20 of" not in screen(app)

    drive(path, steps)


def test_shared_worked_examples_are_one_line(tmp_path: Path) -> None:
    examples = "\n".join(f"Q: What is {number} + 1?\nA: {number + 1}" for number in range(4))
    path = write_rows(
        tmp_path / "data.jsonl", [{**row, "prompt": f"{examples}\n{row['prompt']}\nA:"} for row in rows()]
    )

    async def steps(app: InspectApp, pilot: Pilot[None]) -> None:
        text = screen(app)
        assert "⋯ 8 lines that the prompts of all rows begin with" in text
        assert "Question 0?" in text
        assert "What is 2 + 1?" not in text
        assert "What is 2 + 1?" in await press(app, pilot, "z")

    drive(path, steps, size=(120, 30))


def test_both_answers_are_shown_side_by_side(path: Path) -> None:
    async def steps(app: InspectApp, pilot: Pilot[None]) -> None:
        text = await press(app, pilot, "s")
        assert re.search(r"line 5 of the answer +│ line 5 of the answer is new", text)

    drive(path, steps, size=(160, 24))


def test_overview_and_help(path: Path) -> None:
    async def steps(app: InspectApp, pilot: Pilot[None]) -> None:
        assert "median 0.250" in await press(app, pilot, "o")
        assert "accept the pair" in await press(app, pilot, "o", "question_mark")
        await press(app, pilot, "question_mark")
        assert app.screen is app.screen_stack[0]

    drive(path, steps)


def test_moving_and_the_mouse(path: Path) -> None:
    async def steps(app: InspectApp, pilot: Pilot[None]) -> None:
        await press(app, pilot, "G")
        assert app.list.current == 5
        await press(app, pilot, "g", "down", "down", "up")
        assert app.list.current == 1
        await pilot.click("#rows", offset=(3, 4))  # the head, then the rows 0 to 3
        await settle(app, pilot)
        assert app.list.current == 3
        assert "p3" in screen(app)

    drive(path, steps)


def editor(folder: Path, code: str) -> str:
    """An editor that changes the file by a line of Python, in which ``text`` is its content."""
    program = folder / "editor.py"
    program.write_text(
        "import sys\nname = sys.argv[1]\ntext = open(name, newline='').read()\n"
        f"{code}\nopen(name, 'w', newline='').write(text)\n"
    )
    return f"{sys.executable} {program}"


def test_an_edit_is_journalled_graded_and_measured(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", editor(path.parent, r"text = 'one two three \\boxed{4}\n'"))

    async def steps(app: InspectApp, pilot: Pilot[None]) -> None:
        assert "edited: y+ right, change ratio 0.857 in words and signs" in await press(app, pilot, "x")
        assert re.search("0.857 .* edited", screen(app))
        monkeypatch.setenv("EDITOR", editor(path.parent, "pass"))
        assert "y+ was not changed" in await press(app, pilot, "x")
        monkeypatch.setenv("EDITOR", editor(path.parent, "text = ' '"))
        assert "empty y+" in await press(app, pilot, "x")
        monkeypatch.setenv("EDITOR", "false")
        assert "exit code 1" in await press(app, pilot, "x")
        monkeypatch.setenv("EDITOR", "/nowhere/editor")
        assert "failed to start the editor" in await press(app, pilot, "x")

    drive(path, steps)
    first, second = events(path)
    assert (first["decision"], first["chosen"], "verdict" in first) == ("edited", r"one two three \boxed{4}", False)
    # Of the 7 pieces one two three \\boxed { 4 }, only the 4 is in y-.
    assert (second["verdict"], second["extracted"], second["change_ratio"]) == ("right", "4", 6 / 7)
    assert (second["ratio_unit"], second["action"]) == ("words and signs", first["action"])
    edited = decisions.read(path).applied(Pair.model_validate(rows()[0]))
    assert (edited.chosen, edited.verdict) == (r"one two three \boxed{4}", "right")

    async def undo(app: InspectApp, pilot: Pilot[None]) -> None:
        await press(app, pilot, "u")  # takes back both lines

    drive(path, undo)
    assert states(path) == [None] * 6


def test_a_changed_text_makes_a_decision_stale(path: Path) -> None:
    async def accept(app: InspectApp, pilot: Pilot[None]) -> None:
        await press(app, pilot, "a")

    drive(path, accept)
    write_rows(path, [{**rows()[0], "chosen": "other"}, *rows()[1:]])

    async def look(app: InspectApp, pilot: Pilot[None]) -> None:
        assert "stale: the text has changed" in screen(app)
        assert "0 decided, 6 left" in screen(app)

    drive(path, look, size=(120, 30))


def test_damaged_and_duplicate_rows_are_entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("data.jsonl")  # a long path would be wrapped on the screen
    lines = [json.dumps(row) for row in rows(2)]
    path.write_text("\n".join([lines[0], "no json \x1b[2J", '{"prompt": "?"}', lines[0], lines[1][:-9]]) + "\n")

    async def steps(app: InspectApp, pilot: Pilot[None]) -> None:
        assert re.search("duplic", screen(app))
        text = await press(app, pilot, "j")
        assert "data.jsonl:2" in text
        assert "invalid JSON" in text
        assert "no json ␛[2J" in text
        assert "decisions are about pairs" in await press(app, pilot, "a")
        assert "expected a pair, a sample, a reply or a score" in await press(app, pilot, "j")
        assert "duplicate key: first in line 1" in await press(app, pilot, "j")
        await press(app, pilot, "o")

    drive(path, steps, size=(140, 30))


@pytest.mark.parametrize("count", [0, 1])
def test_files_with_few_rows(tmp_path: Path, count: int) -> None:
    async def steps(app: InspectApp, pilot: Pilot[None]) -> None:
        for key in ("j", "k", "n", "N", "right_square_bracket", "s", "z", "g", "G", "space", "b", "u"):
            await press(app, pilot, key)
        await press(app, pilot, "A", "n", "o")
        assert ("no rows" in screen(app)) is (count == 0)

    drive(write_rows(tmp_path / "data.jsonl", rows(count)), steps)


@pytest.mark.parametrize("name", ATTACKS)
def test_hostile_text_is_shown_never_obeyed(tmp_path: Path, name: str) -> None:
    async def steps(app: InspectApp, pilot: Pilot[None]) -> None:
        for key in ("s", "z", "o"):
            text = await press(app, pilot, key)
            assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f]", text)

    app = drive(write_hostile_pair(tmp_path, ATTACKS[name]), steps, size=(200, 50))
    assert app.return_code in (0, None)


@pytest.mark.parametrize(("variable", "value"), [("NO_COLOR", "1"), ("TERM", "vt100")])
def test_without_colour_edits_are_marked(
    path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    assert not has_colour()

    async def steps(app: InspectApp, pilot: Pilot[None]) -> None:
        assert "line 5 of the answer{+ is new+}" in screen(app)

    drive(path, steps)


@pytest.mark.parametrize("size", [(80, 24), (200, 50), (40, 15), (12, 6)])
def test_every_size_is_filled(path: Path, size: tuple[int, int]) -> None:
    async def steps(app: InspectApp, pilot: Pilot[None]) -> None:
        lines = screen(app).split("\n")
        assert (len(lines[0]), len(lines)) == size
        await press(app, pilot, "a", "s", "n")

    drive(path, steps, size=size)
    assert states(path)[0] == "accept"


def test_another_writer_is_named_and_nothing_is_decided(path: Path) -> None:
    other = ReviewFile(path)
    other.open()

    async def steps(app: InspectApp, pilot: Pilot[None]) -> None:
        assert "another process is writing this file" in await press(app, pilot, "a")
        assert "0 decided" in await press(app, pilot, "j")

    try:
        drive(path, steps, size=(140, 24))
    finally:
        other.close()


def test_scores_are_shown_without_decisions(tmp_path: Path) -> None:
    row = {"prompt": "1 + 1?", "answer": "2", "task": "sums", "finish_reason": "stop", "split": "eval"}
    path = write_rows(tmp_path / "m.jsonl", [{**row, "id": "a", "response": "It is 2.", "verdict": "right"}])

    async def steps(app: InspectApp, pilot: Pilot[None]) -> None:
        assert "It is 2." in screen(app)
        assert "this row is not a pair" in await press(app, pilot, "a")
        assert "1 problem, right 1" in await press(app, pilot, "o")

    drive(path, steps)


def audited(path: Path, keys: str, capsys: pytest.CaptureFixture[str], wanted: SampleSize) -> Iterator[str]:
    async def steps(app: InspectApp, pilot: Pilot[None]) -> None:
        for key in keys:
            await press(app, pilot, *{"]": ("right_square_bracket",), "r": ("r", "1")}.get(key, (key,)))

    app = drive(path, steps, sample=wanted)
    assert app.sample is not None
    review = ReviewFile(path)
    found = [review.decisions.state(Pair.model_validate(rows()[row])) for row in app.sample]
    report_audit(found, wanted, review, None)
    yield str(app.sample)
    captured = capsys.readouterr()
    yield captured.out + captured.err


def test_an_audit_ends_with_the_error_rate(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = SampleSize(4, seed=3)
    first, report = audited(path, "r]a]", capsys, wanted)
    assert "the audit requires a decision about all 4 pairs; 2 are undecided" in report
    again, report = audited(path, "]a]a", capsys, wanted)
    assert again == first  # the same sample
    # The exact interval of 1 of 4.
    assert report == "1 of 4 rejected: 0.6 to 80.6 % (exact 95 % interval)\n"
    audit = decisions.read(path).audit
    assert audit is not None
    assert (audit.sample, audit.rejected, audit.seed) == (4, 1, 3)
    _, report = audited(path, "", capsys, wanted)
    assert [row["event"] for row in events(path)].count("audit") == 1  # unchanged, so not written again


def test_a_sample_larger_than_the_file_is_an_error(path: Path) -> None:
    async def steps(app: InspectApp, pilot: Pilot[None]) -> None:
        pass

    app = drive(path, steps, sample=SampleSize(7))
    assert isinstance(app.failed, UserError)
    assert "the sample of 7 is larger than the 6 pairs" in app.failed.message


def test_an_invalid_filter_is_corrected_in_its_line(path: Path) -> None:
    async def steps(app: InspectApp, pilot: Pilot[None]) -> None:
        text = await press(app, pilot, "f", *"verdict=right and ratoi>0.25", "enter")
        assert "unknown field 'ratoi' at character 19: did you mean 'ratio'?" in text
        assert len(app.list.rows) == 6
        # The cursor is at the field: five letters are replaced.
        await press(app, pilot, *["delete"] * 5, *"ratio")
        assert "unknown field" not in screen(app)
        await press(app, pilot, "enter")
        assert list(app.list.rows) == [3, 4, 5]
        await press(app, pilot, "f", "end", *" or (id=p0", "enter")
        assert "parenthesis without an end at character 33: close its group with )" in screen(app)
        assert list(app.list.rows) == [3, 4, 5]
        await press(app, pilot, "end", ")", "enter")
        assert list(app.list.rows) == [0, 3, 4, 5]
        await press(app, pilot, "f", *"cost=9e999x", "enter", "escape")  # cancelled: the filter is the same
        assert list(app.list.rows) == [0, 3, 4, 5]
        assert app.screen is app.screen_stack[0]

    drive(path, steps)


def test_the_filter_is_completed_and_brought_back(path: Path) -> None:
    async def steps(app: InspectApp, pilot: Pilot[None]) -> None:
        text = await press(app, pilot, "f")
        assert "ratio>  first>  trial>" in text
        text = await press(app, pilot, *"ver")
        assert re.search(r"verdict= +\n", text)  # proposed in the line
        assert "first>" not in text
        # Tab takes the field, then its first value.
        text = await press(app, pilot, "tab")
        assert "right  wrong  undecided  none" in text
        await press(app, pilot, "tab", *" a", "right", *"not d", "tab", *"ac", "tab")
        assert line(app) == "verdict=right and not decision=accept"
        await press(app, pilot, "enter")
        assert len(app.list.rows) == 6
        await press(app, pilot, "f", *"id=p1", "enter")
        assert list(app.list.rows) == [1]
        await press(app, pilot, "f", *"i", "up")
        assert line(app) == "id=p1"
        await press(app, pilot, "up", "up", "up")
        assert line(app) == "verdict=right and not decision=accept"
        await press(app, pilot, "down", "down", "down")
        assert line(app) == "i"
        await press(app, pilot, "up", "up", "enter")
        assert len(app.list.rows) == 6
        await press(app, pilot, "slash", *"question", "enter", "slash", *"p3", "enter")
        assert app.list.current == 3
        await press(app, pilot, "slash", "up")
        assert line(app) == "question"
        # Nothing is completed in a search.
        await press(app, pilot, "backspace", "tab")
        assert line(app) == "questio"

    drive(path, steps)


def line(app: InspectApp) -> str:
    return app.screen.query_one(Input).value
