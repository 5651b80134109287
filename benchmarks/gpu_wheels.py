"""The packages that spot and its comparisons need on a machine that has torch, transformers and peft, but no network.

    nox -s gpu -- pack wheels --python 3.12      download them into the folder wheels, less than 60 MB
    nox -s gpu -- pack wheels --missing          list what this machine lacks; nothing is downloaded

On the machine, from a copy of the repository with that folder:

    python3 -m pip install --no-index --no-deps --target site wheels/*.whl
    PYTHONPATH=src:site python3 benchmarks/gpu.py

Wheels are chosen for Linux on x86-64. ``tests/constraints.txt`` fixes their versions where it names them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

NEEDED = {
    "rapidfuzz": "rapidfuzz", "pydantic": "pydantic", "pydantic_core": "pydantic-core",
    "annotated_types": "annotated-types", "typing_inspection": "typing-inspection",
}  # fmt: skip
"""What spot itself imports to train: module -> package. An image that has transformers has the rest."""

COMPARED = {
    "trl": "trl", "datasets": "datasets", "dill": "dill", "multiprocess": "multiprocess", "xxhash": "xxhash",
    "liger_kernel": "liger-kernel",
}  # fmt: skip
"""TRL with what it imports beside pandas and pyarrow, and Liger's kernels. Without them their parts are skipped."""

LIMIT = 60_000_000
"""Bytes of all wheels together."""

PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")


def missing() -> dict[str, list[str]]:
    """The packages that this machine lacks."""
    groups = {"needed": NEEDED, "compared": COMPARED}
    return {
        name: [package for module, package in group.items() if find_spec(module) is None]
        for name, group in groups.items()
    }


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="gpu.py pack", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, nargs="?", default=Path("wheels"))
    parser.add_argument("--python", default="3.12", help="Python of the machine")
    parser.add_argument("--without", nargs="+", default=[], metavar="PACKAGE", help="packages that the machine has")
    parser.add_argument("--missing", action="store_true", help="list what this machine lacks")
    options = parser.parse_args(arguments)
    if options.missing:
        for name, packages in missing().items():
            print(f"{name}: {', '.join(packages) or 'nothing is missing'}")
        return 0
    wanted = [package for package in (NEEDED | COMPARED).values() if package not in options.without]
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:",
        "--python-version", options.python, "--implementation", "cp", "--dest", str(options.folder),
    ]  # fmt: skip
    command += [word for platform in PLATFORMS for word in ("--platform", platform)]
    versions = Path(__file__).parent.parent / "tests" / "constraints.txt"
    subprocess.run([*command, "--constraint", str(versions), *wanted], check=True)
    return show(options.folder)


def show(folder: Path) -> int:
    """List the wheels with their sizes; 1 if they are too large together."""
    sizes = {path.name: path.stat().st_size for path in sorted(folder.glob("*.whl"))}
    for name, size in sizes.items():
        print(f"{size / 1e6:>6.2f} MB  {name}")
    total = sum(sizes.values())
    print(f"{total / 1e6:>6.2f} MB  together")
    if total > LIMIT:
        print(f"more than {LIMIT / 1e6:.0f} MB; leave packages out with --without", file=sys.stderr)
        return 1
    return 0
