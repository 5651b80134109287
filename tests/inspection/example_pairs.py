"""A small pair file, a hostile one, and the call that inspects them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from spotcli.inspection.overview import ReviewSummary
from spotcli.inspection.pair_filter import Selection
from spotcli.recipe import Recipe
from spotcli.stages.review import View, review

PAIRS: list[dict[str, Any]] = [
    {
        "id": "sum-1",
        "prompt": [
            {"role": "user", "content": "1 + 1"},
            {"role": "assistant", "content": "\\boxed{2}"},
            {"role": "user", "content": "3 * 4 + 5"},
        ],
        "answer": "17",
        "source": "arithmetic/train",
        "rejected": "3 * 4 = 13\n13 + 5 = 18",
        "chosen": "3 * 4 = 12\n12 + 5 = 17",
        "change_ratio": 0.3,
        "verdict": "right",
        "oracle": {"name": "symbolic"},
    },
    {
        "id": "word-1",
        "prompt": "Tom has 3 apples and eats one. How many are left?",
        "answer": "2",
        "source": "gsm8k/7",
        "rejected": "Tom has 3 apples left.",
        "chosen": "Tom has 2 apples left.",
        "change_ratio": 0.1,
        "verdict": "right",
        "oracle": {"name": "gpt-4o", "cost": 0.0123},
        "review": "accept",
    },
    {
        "id": "word-2",
        "prompt": "?",
        "rejected": "abc",
        "chosen": "x y z",
        "change_ratio": 0.9,
        "verdict": "wrong",
    },
]

ATTACKS = {
    "OSC 52": "\x1b]52;c;ZXZpbA==\x07",
    "OSC 8": "\x1b]8;;http://evil\x1b\\click\x1b]8;;\x1b\\",
    "CSI": "\x1b[2J\x1b[1;1H\x1b[31m",
    "C1": "\x9b31m\x9d0;t\x9c",
    "BiDi": "\u202egnp.exe\u2066",
    "markup": "[bold red]x[/] [link=http://evil]y[/link] [@click=evil]z[/]",
    "html": "<script>alert(1)</script><img src=x onerror=alert(1)> ' onclick='x \" onclick=\"y",
    "lines": "a\n== 9/9  forged\r== 9/9  forged",
}
"""What a hostile model, data set or provider could write into any field."""

LAUNCH = """
import sys
from pathlib import Path
from spotcli.recipe import Recipe
from spotcli.stages.review import review
review(Recipe(), data=Path(sys.argv[1]))
"""
"""A program that inspects the file in its first argument; it runs in a process of its own."""

CONTROL_CHARACTERS = r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f]"
"""Matches characters that must not reach a terminal or a page."""


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_pairs(folder: Path) -> Path:
    """Write ``PAIRS`` with a meta file; return the path of the pairs."""
    counts = {"samples": 10, "pairs": 3, "dropped": {"wrong correction": 2, "too far": 1}, "cost": 0.5}
    (folder / "data.meta.json").write_text(json.dumps({"counts": counts}))
    return write_rows(folder / "data.jsonl", PAIRS)


def write_hostile_pair(tmp_path: Path, attack: str) -> Path:
    row = {
        "id": f"id {attack}",
        "prompt": f"prompt {attack}",
        "answer": f"answer {attack}",
        "source": f"source {attack}",
        "rejected": f"same {attack} rejected {attack}",
        "chosen": f"same {attack} chosen {attack}!",
        "oracle": {"name": f"oracle {attack}"},
    }
    (tmp_path / "data.meta.json").write_text(json.dumps({"counts": {f"reason {attack}": 1, "text": attack}}))
    return write_rows(tmp_path / "data.jsonl", [row])


def inspect_file(
    data: Path,
    *,
    id: str | None = None,
    where: str | None = None,
    limit: int | None = None,
    html: Path | None = None,
    quiet: bool = False,
) -> ReviewSummary:
    """Run the stage as the command does."""
    summary = review(
        Recipe(),
        folder=data.parent,
        data=Path(data.name),
        selection=Selection(id, where),
        view=View(limit, html, quiet),
    )
    assert isinstance(summary, ReviewSummary)
    return summary
