"""Time of ``spot --help`` compared with an empty Typer program with the same number of commands.

python benchmarks/help.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BARE = """
import typer
app = typer.Typer()
for name in ("sample", "rectify", "inspect", "train", "eval", "run"):
    app.command(name)(lambda: None)
app()
"""
REPEATS = 15


def seconds(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - started


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        bare = Path(folder) / "bare.py"
        bare.write_text(BARE)
        commands = {
            "spot --help": [sys.executable, "-m", "spotcli", "--help"],
            "bare Typer --help": [sys.executable, str(bare), "--help"],
        }
        times: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(REPEATS):  # interleaved, so that both run under the same load
            for name, command in commands.items():
                times[name].append(seconds(command))
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, value in medians.items():
        print(f"{name:20} {1000 * value:6.0f} ms")
    print(f"{'ratio':20} {medians['spot --help'] / medians['bare Typer --help']:6.2f}")


if __name__ == "__main__":
    main()
