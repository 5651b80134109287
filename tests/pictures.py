"""Draw the pictures of the docs: `nox -s pictures`.

    python tests/pictures.py [FOLDER]

The application shows the pairs of ``tests/picture_samples.jsonl``: answers with slips, which the symbolic oracle
corrects when the picture is drawn. Nothing in the picture depends on the machine or the time.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from textual.pilot import Pilot

from spotcli.decisions import ReviewFile
from spotcli.inspection.app.application import InspectApp
from spotcli.inspection.app.browser import Opened
from spotcli.inspection.opening import open_entries
from spotcli.inspection.pair_filter import ALL_PAIRS
from spotcli.recipe import Recipe, RectifySection
from spotcli.stages.rectify import rectify

SAMPLES = Path(__file__).with_name("picture_samples.jsonl")
IMAGES = Path(__file__).parent.parent / "docs" / "images"
SIZE = (100, 30)

KEYS = ("j", "a", "j", "a", "j", "r", "2", "j", "j", "a", "j", "j", "a", "g", "z", "n", "n")
"""Some decisions, then the whole first pair at its third edit; it has no decision, which would show its time."""


def draw(target: Path) -> None:
    """Draw the application as an SVG."""
    with tempfile.TemporaryDirectory() as name, _environment():
        folder = Path(name)
        shutil.copy(SAMPLES, folder / "samples.jsonl")
        rectify(Recipe(rectify=RectifySection(oracle="symbolic")), folder=folder)
        picture = asyncio.run(_screenshot(folder / "data.jsonl"))
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(readable(picture), encoding="utf-8")


async def _screenshot(path: Path) -> str:
    review = ReviewFile(path)
    with open_entries(path, lambda: review.decisions, against=None, selection=ALL_PAIRS, keep=False) as entries:
        app = InspectApp(Opened(path, Recipe(), entries, review))
        async with app.run_test(size=SIZE) as pilot:
            await _settle(app, pilot)
            for key in KEYS:
                await pilot.press(key)
                await _settle(app, pilot)
            picture = app.export_screenshot(title="spot inspect data.jsonl")
    review.close()
    return picture


async def _settle(app: InspectApp, pilot: Pilot[None]) -> None:
    for _ in range(3):
        await pilot.pause(0.05)
        await app.workers.wait_for_complete()


@contextmanager
def _environment() -> Iterator[None]:
    """A terminal with colours."""
    before = dict(os.environ)
    os.environ.pop("NO_COLOR", None)
    os.environ["TERM"] = "xterm-256color"
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def readable(picture: str) -> str:
    """A picture that looks the same everywhere: with a size, black text, and no fonts of the network.

    A page on GitHub may not load fonts, so the reader's own are used. Each stretch of text has the length of its cells,
    so the columns are right in any font.
    """
    picture = re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL)
    fonts = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
    picture = re.sub(r"Fira Code[^;]*;", f"{fonts};", picture)
    picture = picture.replace("font-family: arial;", "font-family: system-ui, sans-serif;")
    picture = picture.replace("#4b4e55", "#000000")  # the black of Rich's theme is grey
    picture = re.sub(r"\bterminal-\d+-", "spot-", picture)
    picture = re.sub(r'viewBox="0 0 ([0-9.]+) ([0-9.]+)"', r'width="\1" height="\2" \g<0>', picture, count=1)
    return textwrap.dedent(picture).strip() + "\n"


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else IMAGES
    draw(folder / "inspect.svg")
