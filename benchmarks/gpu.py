"""spot on one GPU: is it right there, how fast is it, and how much memory does it take.

    nox -s gpu                                  everything, in at most 8 minutes on an H100 or H200
    nox -s gpu -- --device cpu --tiny           the same code with small models on a CPU
    nox -s gpu -- pack                          the packages that a machine without a network lacks, as wheels

No network and no weights are used: models are random, from the configurations of transformers. docs/gpu.md has the
command for a machine without a network, what is expected, and the goals.

The parts run in the order of their importance until the time is over. Each measurement is a row of ``rows.jsonl`` as
soon as it is finished, and ``gpu.json`` and ``gpu.md`` are written again, so that an interrupted run leaves all that it
measured. A part runs in a second process: if it fails, hangs or breaks the GPU's context, it is recorded as failed and
the other parts go on. The exit code is 0 if every part ran, 1 if one failed, 3 if the time was not enough for all.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gpu_report

MINUTES = 8.0
"""Time of a whole run."""

BROKEN = 70
"""Exit code of a worker whose GPU context cannot be used any more."""

PATIENCE = 3.0
"""A part is ended after so many times its share."""

Row = dict[str, Any]


class Results:
    """The rows of a run, and the tables made of them.

    Args:
        folder: the folder of all files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "rows.jsonl"

    def rows(self) -> list[Row]:
        """All rows so far; a torn last line is left out."""
        if not self.path.exists():
            return []
        lines = self.path.read_text(encoding="utf-8").split("\n")[:-1]
        return [json.loads(line) for line in lines]

    def add(self, row: Row) -> None:
        """Append a row, and write the tables again."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())
        gpu_report.write(self.folder, self.rows())
        told = {name: value for name, value in row.items() if not isinstance(value, dict | list)}
        print(json.dumps(told), flush=True)


def work(results: Results, machine: Any, names: Sequence[str], deadline: float) -> None:
    """Run parts in this process.

    Args:
        results: get a row with ``status: started`` before each part, its measurements, and one with its end.
        machine: where.
        names: of the parts, in order.
        deadline: seconds since the epoch.
    """
    from gpu_parts import PARTS, Missing

    for part in (part for part in PARTS if part.name in names):
        if deadline - time.time() < part.seconds:
            results.add({"part": part.name, "status": "not run", "reason": "the time was over"})
            continue
        started = time.time()
        results.add({"part": part.name, "status": "started", "at": started, "limit": PATIENCE * part.seconds})
        end: Row = {"part": part.name, "status": "done"}
        try:
            for row in part.rows(machine):
                results.add({"part": part.name, **row})
        except Missing as error:
            end |= {"status": "not run", "reason": str(error)}
        except Exception as error:
            traceback.print_exc()
            end |= {"status": "failed", "reason": f"{type(error).__name__}: {error}"[:500]}
        results.add(end | {"seconds": round(time.time() - started, 1)})
        if end["status"] == "failed" and not usable(machine):
            raise SystemExit(BROKEN)
        machine.clear()


def usable(machine: Any) -> bool:
    """Whether the GPU still answers after an error."""
    try:
        machine.wait()
    except Exception:
        return False
    return True


def supervise(
    results: Results, names: Sequence[str], deadline: float, command: Callable[[Sequence[str]], list[str]]
) -> None:
    """Run parts in worker processes; after a worker that crashes or hangs, a new one continues with the next part.

    Args:
        results: of the run.
        names: of the parts, in order.
        deadline: seconds since the epoch.
        command: starts a worker for the given parts.
    """
    while remaining := [name for name in names if name not in ended(results)]:
        if time.time() >= deadline:
            for name in remaining:
                results.add({"part": name, "status": "not run", "reason": "the time was over"})
            return
        with subprocess.Popen(command(remaining)) as worker:
            reason = watch(worker, results, deadline)
        open_part = next((name for name in remaining if name in begun(results) - ended(results)), None)
        if open_part is not None:
            results.add({"part": open_part, "status": "failed", "reason": reason})
        elif worker.returncode not in (0, BROKEN):
            results.add({"part": remaining[0], "status": "failed", "reason": f"the worker did not start: {reason}"})


def watch(worker: subprocess.Popen[bytes], results: Results, deadline: float) -> str:
    """Wait for a worker, and end it when its part or the run is out of time; why it ended."""
    while worker.poll() is None:
        time.sleep(0.2)
        last = next((row for row in reversed(results.rows()) if row.get("status") == "started"), None)
        over = last is not None and last["part"] not in ended(results) and time.time() > last["at"] + last["limit"]
        if over or time.time() > deadline + 5:
            worker.kill()
            worker.wait()
            return "it took too long" if over else "the time was over"
    return f"the process ended with exit code {worker.returncode}"


def begun(results: Results) -> set[str]:
    return {row["part"] for row in results.rows() if row.get("status") == "started"}


def ended(results: Results) -> set[str]:
    return {row["part"] for row in results.rows() if row.get("status") in ("done", "failed", "not run")}


def exit_code(rows: Sequence[Row]) -> int:
    """0 if all parts ran or lack only a package, 1 if one failed, 3 if the time was over."""
    ends = [row for row in rows if row.get("status") in ("failed", "not run")]
    if any(row["status"] == "failed" for row in ends):
        return 1
    return 3 if any(row["reason"] == "the time was over" for row in ends) else 0


def machine_of(options: argparse.Namespace) -> Any:
    if options.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    from gpu_models import Machine

    scratch = options.folder / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    return Machine(options.device, options.tiny, scratch)


def main(arguments: Sequence[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments and arguments[0] == "pack":
        import gpu_wheels

        return gpu_wheels.main(arguments[1:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="small models and short pairs; checks the code, not speed")
    parser.add_argument("--folder", type=Path, default=Path("gpu-results"), help="a new folder for the results")
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--only", nargs="+", default=[], metavar="PART", help="parts whose names contain one of these")
    parser.add_argument("--list", action="store_true", help="list the parts with their shares of the time, and exit")
    parser.add_argument("--worker", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--deadline", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    results = Results(options.folder)
    if options.worker:
        work(results, machine_of(options), options.worker, options.deadline)
        return 0
    from gpu_parts import PARTS

    chosen = [part for part in PARTS if not options.only or any(text in part.name for text in options.only)]
    if options.list:
        for part in chosen:
            print(f"{part.seconds:>5.0f} s  {part.name}")
        return 0
    if results.rows():
        parser.error(f"{options.folder} has the results of another run; choose another --folder")
    deadline = time.time() + 60 * options.minutes

    def command(names: Sequence[str]) -> list[str]:
        own = ["--device", options.device, "--folder", str(options.folder), "--deadline", str(deadline)]
        return [sys.executable, __file__, *own, *(["--tiny"] if options.tiny else []), "--worker", *names]

    supervise(results, [part.name for part in chosen], deadline, command)
    print(f"\n{(options.folder / 'gpu.md').read_text(encoding='utf-8')}")
    return exit_code(results.rows())


if __name__ == "__main__":
    sys.exit(main())
