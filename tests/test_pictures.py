"""The picture in the README: drawn by the script of `nox -s pictures`, up to date, and harmless in a browser."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from xml.etree import ElementTree

import pytest

import spotcli
from tests.browser import CHROMIUM, opened
from tests.conftest import ROOT

PICTURE = ROOT / "docs" / "images" / "inspect.svg"
README = (ROOT / "README.md").read_text(encoding="utf-8")
PINNED = (ROOT / "tests" / "constraints.txt").read_text(encoding="utf-8")
SVG = "{http://www.w3.org/2000/svg}"


def words(picture: str) -> str:
    """The text of a picture."""
    root = ElementTree.fromstring(picture)
    return " ".join(" ".join(root.itertext()).replace("\xa0", " ").split())


def test_the_script_draws_the_picture_of_the_readme(tmp_path: Path) -> None:
    source = str(Path(str(spotcli.__file__)).parents[1])
    command = [sys.executable, str(ROOT / "tests" / "pictures.py"), str(tmp_path)]
    environment = {"PYTHONPATH": source, "NO_COLOR": "1", "COLUMNS": "40", "TERM": "dumb"}
    subprocess.run(command, cwd=tmp_path, env=os.environ | environment, check=True, capture_output=True, timeout=120)
    drawn = (tmp_path / "inspect.svg").read_text(encoding="utf-8")
    text = words(drawn)
    for shown in ("5 decided, 9 left", "a accept", "? help", "1/14", "17 * 6 = 112 102", "1267 1257"):
        assert shown in text
    if all(f"{name}=={version(name)}\n" in PINNED for name in ("textual", "rich")):
        assert drawn == PICTURE.read_text(encoding="utf-8"), "run `nox -s pictures`, and look at the picture"


def test_the_picture_loads_and_runs_nothing() -> None:
    picture = PICTURE.read_text(encoding="utf-8")
    root = ElementTree.fromstring(picture)
    assert {element.tag for element in root.iter() if isinstance(element.tag, str)} == {
        SVG + name for name in ("svg", "style", "defs", "clipPath", "rect", "text", "g", "circle")
    }
    links = [name for element in root.iter() for name in element.attrib if "href" in name or name.startswith("on")]
    assert links == []
    for forbidden in ("@import", "@font-face", "<script", "javascript:", "url(http", "/tmp/", str(Path.home())):
        assert forbidden not in picture
    assert "left" in words(picture)
    assert "? help" in words(picture)


def test_the_readme_shows_the_picture_with_a_description() -> None:
    top = README.partition("## ")[0]
    assert "](docs/images/inspect.svg)" in top
    description = top.partition("![")[2].partition("](docs/images/inspect.svg)")[0]
    assert len(description) > 50
    assert len(README.splitlines()) <= 120


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_a_browser_shows_the_picture_and_requests_nothing_else(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(f'<img src="{PICTURE.as_uri()}">', encoding="utf-8")

    async def look() -> tuple[list[str], list[str], int]:
        async with opened(page) as shown:
            return shown.requested, shown.logged, await shown.script("document.images[0].naturalWidth")

    requested, logged, width = asyncio.run(look())
    assert [url.rpartition("/")[2] for url in requested] == ["page.html", "inspect.svg"]
    assert logged == []
    assert width > 1000
