"""Time to the first screen of `spot inspect` on a large file, and its memory.

    python benchmarks/open_large.py --rows 100000

Writes a file of pairs with answers of some 1,500 characters and opens it in a terminal of 80 x 24 characters: first
without an index, then with the one that the first start kept. Each start is a process of its own, from its beginning to
the first screen with the list and the pair, and to the footer that counts all decisions, which needs all rows. Jumping
to the last row and filtering are timed from the key to the screen. The last column is the largest resident memory.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import spotcli
from spotcli.inspection.row_index import index_path

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.terminals import Terminal

PATIENCE = 600.0
"""Seconds after which a screen counts as missing."""


def write_pairs(path: Path, rows: int) -> None:
    """Write pairs with one or two edits each."""
    draw = random.Random(0)
    words = [f"w{number}" for number in range(3000)]
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            text = draw.choices(words, k=280)
            rejected = "\n".join(" ".join(text[place : place + 14]) for place in range(0, 280, 14))
            edit = draw.randrange(20, 260)
            text[edit : edit + draw.randint(1, 4)] = ["corrected"]
            chosen = "\n".join(" ".join(text[place : place + 14]) for place in range(0, len(text), 14))
            row = {
                "id": f"p{number}",
                "prompt": f"Question {number}: {' '.join(text[:30])}?",
                "answer": "4",
                "rejected": rejected,
                "chosen": chosen,
                "change_ratio": round(draw.random() / 5, 4),
                "verdict": "right",
                "oracle": {"name": "benchmark", "cost": 0.001},
            }
            file.write(json.dumps(row) + "\n")


class Opened:
    """A start of the application."""

    def __init__(self, path: Path) -> None:
        command = [sys.executable, "-m", "spotcli", "inspect", path.name]
        source = str(Path(str(spotcli.__file__)).parents[1])
        self.began = time.perf_counter()
        self.terminal = Terminal(command, path.parent, path.parent / "screen", {"PYTHONPATH": source})

    def until(self, condition: Callable[[str], object]) -> float:
        """Seconds until what was written satisfies a condition."""
        while not condition(self.terminal.text()):
            if self.terminal.poll() is not None or time.perf_counter() - self.began > PATIENCE:
                raise SystemExit(self.terminal.text()[-2000:])
        return time.perf_counter() - self.began

    def press(self, keys: str, condition: Callable[[str], object]) -> float:
        """Seconds from keys to a screen."""
        written, self.began = len(self.terminal.text()), time.perf_counter()
        self.terminal.press(keys)
        return self.until(lambda text: condition(text[written:]))

    @property
    def memory(self) -> float:
        """The largest resident memory until now, in MB."""
        status = Path(f"/proc/{self.terminal.pid}/status").read_text()
        return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) / 1000


def measure(path: Path, rows: int, name: str) -> None:
    """Open the file once, and print a line."""
    opened = Opened(path)
    first = opened.until(lambda text: "ratio first" in text and "Question 0:" in text)
    memory = opened.memory
    end = opened.press("G", lambda text: f"Question {rows - 1}:" in text)
    opened.began -= first + end  # all times of the count are from the start
    counted = opened.until(lambda text: f"{rows:,} left" in text)
    found = opened.press("fratio>0.19999\r", lambda text: "filter" in text and re.search(r"1/\d+ ", text))
    peak = opened.memory
    opened.terminal.press("q")
    opened.terminal.wait(30)
    print(f"{name:<14} {first:>12.2f} {end:>10.2f} {counted:>10.1f} {found:>10.1f} {memory:>10.0f} {peak:>10.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, help="keep the file here")
    options = parser.parse_args()
    os.environ.pop("NO_COLOR", None)
    with tempfile.TemporaryDirectory() as name:
        folder = options.folder or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "data.jsonl"
        write_pairs(path, options.rows)
        index_path(path).unlink(missing_ok=True)
        print(f"{options.rows:,} rows, {path.stat().st_size / 1e6:.0f} MB")
        names = ("first screen", "last row", "counted", "filter", "MB first", "MB end")
        print(f"{'':<14} {names[0]:>12}", *(f"{column:>10}" for column in names[1:]))
        for start in ("without index", "with index"):
            measure(path, options.rows, start)


if __name__ == "__main__":
    main()
