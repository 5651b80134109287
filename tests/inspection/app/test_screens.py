"""The four main screens as they were last looked at, in every form of terminal.

A screen is a file of ``__snapshots__``: its lines, then the styles of their columns. After a change on purpose:

    pytest tests/inspection/app/test_screens.py --snapshot-update

Then look at the difference. A screen that is not as recorded is also written as an SVG, beside the file it shows.
"""

from __future__ import annotations

import json
import re
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from rich.segment import Segment
from syrupy.assertion import SnapshotAssertion
from syrupy.extensions.single_file import SingleFileSnapshotExtension, WriteMode
from textual.pilot import Pilot
from textual.strip import Strip

from spotcli.decisions import Event, ReviewFile, text_digest
from spotcli.inspection.app.application import InspectApp
from spotcli.records import Pair
from tests.conftest import ROOT
from tests.inspection.app.test_application import drive, press, screen, settle
from tests.inspection.example_pairs import write_rows

PINNED = (ROOT / "tests" / "constraints.txt").read_text(encoding="utf-8")
DRAWS = [name for name in ("textual", "rich") if f"{name}=={version(name)}\n" not in PINNED]

OLD = r"""Let $x$ be the number of apples. Then $3x + 4 = 19$.

Subtract 4 from both sides: $3x = 14$.

A check of the units: apples on both sides, so the equation is sensible.
Only whole apples are sold, which is a further condition.
We divide by 3, the factor of $x$.
This is allowed, because 3 is not 0.

Divide by 3: $x = \frac{14}{3}$.

The answer is \boxed{\frac{14}{3}}."""
EDITS = [("3x = 14", "3x = 15"), (r"x = \frac{14}{3}", "x = 5"), (r"\boxed{\frac{14}{3}}", r"\boxed{5}")]
NUMBERED = "\n".join(f"{number}. {number} times 7 is {7 * number}." for number in range(1, 31))


def corrected(text: str, edits: list[tuple[str, str]]) -> str:
    for before, after in edits:
        assert before in text
        text = text.replace(before, after)
    return text


ROWS: list[dict[str, Any]] = [
    {
        "id": "algebra-12",
        "prompt": "Three bags of apples and 4 apples are 19 apples. How many apples are in a bag?",
        "answer": "5",
        "source": "algebra/train",
        "rejected": OLD,
        "chosen": corrected(OLD, EDITS),
        "change_ratio": 0.061,
        "verdict": "right",
        "oracle": {"name": "gpt-4o", "cost": 0.0021},
    },
    {
        "id": "table-3",
        "prompt": [
            {"role": "user", "content": "Say it in Japanese."},
            {"role": "assistant", "content": "はい。"},
            {"role": "user", "content": "Write the table of 7."},
        ],
        "answer": "210",
        "rejected": corrected(NUMBERED, [("is 84.", "is 82."), ("is 182.", "is 192.")]),
        "chosen": NUMBERED,
        "change_ratio": 0.013,
        "verdict": "right",
        "oracle": {"name": "symbolic"},
    },
    {
        "id": "japanese-1",
        "prompt": "東京の人口は？",
        "rejected": "東京の人口は約1300万人です。👍🏽",
        "chosen": "東京の人口は約1400万人です。👍🏽",
        "change_ratio": 0.2,
        "verdict": "undecided",
        "oracle": {"name": "claude-sonnet-4-5"},
    },
    {"id": "far", "prompt": "?", "rejected": "No idea.", "chosen": "It is 4.", "change_ratio": 1.0, "verdict": "wrong"},
    {"id": "algebra-12", "prompt": "?", "rejected": "1", "chosen": "2", "verdict": "right"},
]
"""The last two lines of the file are damaged and a duplicate."""


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with decisions, by its relative name: the overview shows it."""
    monkeypatch.chdir(tmp_path)
    path = write_rows(Path("data.jsonl"), ROWS)
    with path.open("a", encoding="utf-8") as file:
        file.write('{"id": "damaged", "prompt": "\n')
    counts = {"samples": 24, "right": 14, "undecided": 2, "wrong": 8, "pairs": 5, "cost": 0.0042}
    Path("data.meta.json").write_text(json.dumps({"counts": counts}), encoding="utf-8")
    decisions = [("reject", "changes too much"), ("accept", None)]
    review = ReviewFile(path)
    for row, (decision, reason) in zip(ROWS, decisions, strict=False):
        pair = Pair.model_validate(row)
        values = {"time": "2026-01-02T03:04:05+00:00", "who": "ann", "action": row["id"], "key": pair.key}
        review.append(
            [Event.model_validate({**values, "decision": decision, "reason": reason, "digest": text_digest(pair)})]
        )
    review.close()
    return path


class Screens(SingleFileSnapshotExtension):
    """One text file a screen."""

    file_extension = "txt"
    _write_mode = WriteMode.TEXT


def recorded(strips: list[Strip]) -> str:
    """A screen as text: its lines without blanks at their ends, then the styles of its columns from 0."""
    lines = ["".join(segment.text for segment in strip).rstrip() for strip in strips]
    styles = [f"{number}: {runs}" for number, strip in enumerate(strips) if (runs := _runs(strip))]
    return "\n".join([*lines, "-" * 20, *styles, ""])


def _runs(strip: Strip) -> str:
    """The columns of a line that have a style."""
    runs, column = [], 0
    for style, segments in groupby(strip, key=_style):
        first, column = column, column + Segment.get_line_length(list(segments))
        if style:
            runs.append(f"{first}-{column - 1} {style}")
    return ", ".join(runs)


def _style(segment: Segment) -> str:
    if "#" in str(segment.style):  # a scroll bar, in Textual's colours; all of ours are the terminal's
        return ""
    style = re.sub(r"\b(on )?(ansi_)?default\b|\bnot \w+", "", str(segment.style or ""))
    return " ".join(style.replace("none", "").split())


SCREENS = {"pair": (), "side by side": ("s",), "overview": ("o",), "help": ("question_mark",)}
FORMS = {"80x24": (80, 24), "200x50": (200, 50), "no colour": (80, 24), "narrow": (60, 20)}


@pytest.mark.skipif(bool(DRAWS), reason=f"the screens were recorded with another version of {DRAWS}")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", SCREENS)
def test_screen(name: str, form: str, path: Path, snapshot: SnapshotAssertion, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    if form == "no colour":
        monkeypatch.setenv("NO_COLOR", "1")
    shown: list[str] = []

    async def steps(app: InspectApp, pilot: Pilot[None]) -> None:
        await press(app, pilot, *SCREENS[name])
        shown.append(recorded(app.screen._compositor.render_strips()))
        app.save_screenshot(f"{name}, {form}.svg")

    drive(path, steps, size=FORMS[form])
    assert shown[0] == snapshot(extension_class=Screens), f"see {path.resolve().parent}"


@pytest.mark.parametrize("width", [60, 79, 80, 81, 140])
def test_no_column_is_lost_before_the_scroll_bar_is_shown(width: int, path: Path) -> None:
    words = [f"{'w' * (1 + number % 7)}{number}." for number in range(60)]
    write_rows(path, [{**ROWS[0], "prompt": " ".join(words), "rejected": NUMBERED, "chosen": "\n" + "new\n" * 60}])

    async def steps(app: InspectApp, pilot: Pilot[None]) -> None:
        text = screen(app)
        assert app.view.show_vertical_scrollbar
        assert [word for word in words if not re.search(rf"(?<!\w){re.escape(word)}", text)] == []

    drive(path, steps, size=(width, 50))


def test_another_size_of_the_terminal_is_another_layout(path: Path) -> None:
    write_rows(path, [{**ROWS[0], "chosen": NUMBERED}])

    async def steps(app: InspectApp, pilot: Pilot[None]) -> None:
        for size in ((60, 20), (140, 40), (80, 24)):
            await pilot.resize_terminal(*size)
            await press(app, pilot, "s", "s")
            after = screen(app)
            assert re.search(r"edits \d+\s+\(−\d+\s+\+\d+\s+words\)", after), after  # wrapped, not cut
            shown.setdefault(size, after)
            await pilot.resize_terminal(100, 30)
            await pilot.resize_terminal(*size)
            await settle(app, pilot)
            assert screen(app) == after  # without a key

    shown: dict[tuple[int, int], str] = {}
    drive(path, steps, size=(100, 30))
    assert "────" in shown[60, 20]
