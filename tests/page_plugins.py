"""The packages that a page describes: its Python blocks as modules, and the entry points of its TOML blocks."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from tests.page_commands import Block, blocks


def install(page: Path, folder: Path) -> bool:
    """Write what pip would install from the code on a page; False if the page has no entry points.

    Raises:
        AssertionError: no block on the page defines an entry point.
    """
    code = list(blocks(page))
    groups: dict[str, dict[str, str]] = {}
    for block in code:
        if block.language == "toml":
            groups |= tomllib.loads(block.text).get("project", {}).get("entry-points", {})
    for targets in groups.values():
        for target in targets.values():
            module, name = target.split(":")
            path = folder.joinpath(*module.split(".")).with_suffix(".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(_definition(code, name, page).text, encoding="utf-8")
    metadata = folder / "of_a_page-1.0.dist-info"
    metadata.mkdir(parents=True, exist_ok=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: of-a-page\nVersion: 1.0\n", encoding="utf-8")
    lines = [line for group, targets in groups.items() for line in (f"[{group}]", *map(" = ".join, targets.items()))]
    (metadata / "entry_points.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return bool(groups)


def _definition(code: list[Block], name: str, page: Path) -> Block:
    pattern = re.compile(rf"^(?:class|def) {name}\b|^{name} = ", re.M)
    found = [block for block in code if block.language == "python" and pattern.search(block.text)]
    assert found, f"no block of {page.name} defines {name}"
    return found[0]
