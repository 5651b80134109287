"""Expected numbers are worked out in the comments."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from spotcli.errors import UserError
from tests.inspection.example_pairs import ATTACKS, CONTROL_CHARACTERS, inspect_file, write_hostile_pair


def test_page_contains_the_selected_pairs(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inspect_file(data, html=Path("page.html"))
    captured = capsys.readouterr()
    page = (data.parent / "page.html").read_text(encoding="utf-8")
    assert page.count("<article") == 3
    assert "Tom has </span><del>3</del><ins>2</ins> apples left." in page
    assert "<tr><td>dropped: wrong correction</td><td>2</td></tr>" in page
    assert "== " not in captured.out
    assert [file.name for file in data.parent.glob(".page*")] == []
    # Written again, the page contains the selected pairs only.
    inspect_file(data, html=Path("page.html"), where="verdict=wrong")
    assert (data.parent / "page.html").read_text(encoding="utf-8").count("<article") == 1


class TagCollector(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes.update(name for name, _ in attrs)


@pytest.mark.parametrize("name", ATTACKS)
def test_hostile_text_is_harmless_on_a_page(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inspect_file(write_hostile_pair(tmp_path, ATTACKS[name]), html=Path("page.html"))
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    parser = TagCollector()
    parser.feed(page)
    assert not parser.tags & {"script", "img", "iframe", "link", "object", "embed", "base", "form"}
    assert not any(attribute.startswith("on") or attribute == "src" for attribute in parser.attributes)
    assert "default-src 'none'" in page
    assert not re.search(CONTROL_CHARACTERS, page)
    assert "page written to " in capsys.readouterr().out


def test_page_in_a_missing_folder_raises_user_error(data: Path) -> None:
    with pytest.raises(UserError, match="failed to write the page"):
        inspect_file(data, html=Path("no/such/folder/page.html"))
