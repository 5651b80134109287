"""Time of ``spot --help`` and of completion compared with an empty Typer program with the same number of commands.

python benchmarks/help.py
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BARE = """
import typer
app = typer.Typer()
for name in ("init", "sample", "rectify", "inspect", "train", "eval", "merge", "push", "run"):
    app.command(name)(lambda: None)
app()
"""
REPEATS = 15
SPOT = "import sys; sys.argv[0] = 'spot'; from spotcli.cli import main; main()"


def seconds(command: list[str], words: str | None) -> float:
    """The time of a command, or of the completion of the last of its words."""
    shell = (
        {"_SPOT_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))} if words else {}
    )
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env=os.environ | shell)
    return time.perf_counter() - started


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        bare = Path(folder) / "bare.py"
        bare.write_text(BARE)
        spot = [sys.executable, "-c", SPOT]
        commands: dict[str, tuple[list[str], str | None]] = {
            "spot --help": ([*spot, "--help"], None),
            "bare Typer --help": ([sys.executable, str(bare), "--help"], None),
            "spot r<Tab>": (spot, "spot r"),
            "--engine <Tab>": (spot, "spot sample --engine "),
            "--oracle gpt<Tab>": (spot, "spot rectify --oracle gpt"),
            "-s train.o<Tab>": (spot, "spot train r.yaml -s train.o"),
        }
        times: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(REPEATS):  # interleaved, so that all run under the same load
            for name, (command, words) in commands.items():
                times[name].append(seconds(command, words))
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, value in medians.items():
        print(f"{name:20} {1000 * value:6.0f} ms")
    print(f"{'ratio':20} {medians['spot --help'] / medians['bare Typer --help']:6.2f}")


if __name__ == "__main__":
    main()
