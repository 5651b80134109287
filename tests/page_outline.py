"""The outline of an HTML page, and the check that nothing in it comes from outside, runs or is loaded."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

from tests.inspection.example_pairs import CONTROL_CHARACTERS

LOADING_TAGS = {"iframe", "img", "link", "object", "embed", "base", "form", "video", "audio", "image", "use"}
"""Tags that load or send something."""


class Outline(HTMLParser):
    """Tags with their attributes, and the text of the page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.scripts: list[str] = []
        self.styles: list[str] = []
        self._inside: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside.append(tag)

    def handle_data(self, data: str) -> None:
        if self._inside and self._inside[-1] == "script":
            self.scripts.append(data)
        elif self._inside and self._inside[-1] == "style":
            self.styles.append(data)
        else:
            self.text.append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag in self._inside:
            while self._inside.pop() != tag:
                pass

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def check_harmless(text: str) -> Outline:
    """The page has no tag, attribute or character that comes from outside, and only the style and script it names."""
    outline = Outline(text)
    assert not {tag for tag, _ in outline.tags} & LOADING_TAGS
    for tag, attributes in outline.tags:
        assert not [name for name in attributes if name.startswith("on") or name in ("src", "xlink:href", "style")], tag
        assert re.fullmatch("(#row-[0-9a-f]{12}(-[0-9]+)?)?", attributes.get("href") or "")
        # These contain names and values of the data, which are shown as text or compared.
        shown = [name for name in attributes if name in ("title", "aria-label", "content") or name.startswith("data-")]
        values = [value or "" for name, value in attributes.items() if name not in shown]
        assert not any(re.search(r"url\(|https?:|javascript:", value) for value in values)
    assert not re.search(CONTROL_CHARACTERS, text)
    policy = next(item["content"] or "" for item in outline.named("meta") if "http-equiv" in item)
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    [script], [style] = outline.scripts, outline.styles
    for name, content in (("script", script), ("style", style)):
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy
    assert "@import" not in text
    return outline
