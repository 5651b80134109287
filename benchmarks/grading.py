"""Answers graded per second, beside math-verify alone, on the same real answers in one run.

    python benchmarks/grading.py --data DIR

DIR holds ``real_solutions_math_qwen_graded.jsonl``, ``real_solutions_gsm8k_graded.jsonl`` and
``real_solutions_gsm8k_pairs.jsonl``. math-verify runs in a process of its own, with its own defaults and
time-outs, references wrapped in a box; its import is not counted. Ours is counted twice: cold (with the start
of the workers) and warm. Then follow the verdicts that differ.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

SETS = {
    "math": [("real_solutions_math_qwen_graded", "response", "gold")],
    "gsm8k": [
        ("real_solutions_gsm8k_graded", "solution", "gold"),
        ("real_solutions_gsm8k_pairs", "wrong", "gold"),
        ("real_solutions_gsm8k_pairs", "corrected", "gold"),
    ],
}


def load(data: Path, name: str) -> list[tuple[str, str]]:
    pairs = []
    for file, response, reference in SETS[name]:
        with open(data / f"{file}.jsonl", encoding="utf-8") as lines:
            pairs += [(row[response], str(row[reference])) for row in map(json.loads, lines)]
    return pairs


def math_verify_main() -> None:
    """The peer: reads pairs from standard input, writes seconds and verdicts."""
    import logging

    from math_verify import parse, verify

    logging.disable(logging.CRITICAL)
    pairs = json.load(sys.stdin)
    verify(parse("\\boxed{1+x}"), parse("\\boxed{x+1}"))  # load what is loaded late
    start = time.perf_counter()
    verdicts = [bool(verify(parse(f"\\boxed{{{gold}}}"), parse(response))) for response, gold in pairs]
    json.dump({"seconds": time.perf_counter() - start, "verdicts": verdicts}, sys.stdout)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=Path, required=True)
    arguments.add_argument("--jobs", type=int, default=2)
    arguments.add_argument("--show", type=int, default=20, help="how many differing verdicts to print")
    options = arguments.parse_args()
    from spotcli.grading import grade_many
    from spotcli.grading.algebra import pool

    totals = Counter[str]()
    differences = []
    head = f"{'set':8}{'answers':>9}{'ours cold/s':>13}{'ours warm/s':>13}{'math-verify/s':>15}"
    print(f"{head}{'ratio cold':>12}{'ratio warm':>12}")
    for name in SETS:
        pairs = load(options.data, name)
        pool.close()
        start = time.perf_counter()
        grades = grade_many(pairs, jobs=options.jobs)
        cold = time.perf_counter() - start
        start = time.perf_counter()
        grade_many(pairs, jobs=options.jobs)
        warm = time.perf_counter() - start
        peer = subprocess.run(
            [sys.executable, __file__, "--peer"],
            input=json.dumps(pairs),
            capture_output=True,
            text=True,
            check=True,
        )
        reply = json.loads(peer.stdout)
        totals.update({"answers": len(pairs), "cold": cold, "warm": warm, "peer": reply["seconds"]})  # type: ignore[dict-item]
        report(name, len(pairs), cold, warm, reply["seconds"])
        differences += [
            (name, gold, g, other)
            for (_, gold), g, other in zip(pairs, grades, reply["verdicts"], strict=True)
            if (g.verdict == "right") != other or g.verdict == "undecided"
        ]
    report("mix", totals["answers"], totals["cold"], totals["warm"], totals["peer"])
    print("\nverdicts that differ (ours / math-verify):")
    for (ours, theirs), count in sorted(
        Counter((g.verdict, "right" if o else "wrong") for _, _, g, o in differences).items()
    ):
        print(f"  {ours:10} / {theirs:6} {count:5}")
    for name, gold, g, other in differences[: options.show]:
        extracted = (g.extracted or "")[:60]
        verdicts = f"{g.verdict} / {'right' if other else 'wrong'} {g.reason}"
        print(f"  {name:6} reference {gold[:30]!r:32} graded {extracted!r:40} {verdicts}")


def report(name: str, count: float, cold: float, warm: float, peer: float) -> None:
    rates = f"{count / cold:13.0f}{count / warm:13.0f}{count / peer:15.1f}"
    print(f"{name:8}{count:9.0f}{rates}{peer / cold:11.1f}x{peer / warm:11.1f}x")


if __name__ == "__main__":
    if "--peer" in sys.argv:
        math_verify_main()
    else:
        main()
