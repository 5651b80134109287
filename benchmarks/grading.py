"""Graded answers per second, compared with math-verify alone on the same real answers.

    python benchmarks/grading.py --data DIR

DIR contains ``real_solutions_math_qwen_graded.jsonl``, ``real_solutions_gsm8k_graded.jsonl``,
``real_solutions_gsm8k_pairs.jsonl`` and ``math500.jsonl``. math-verify runs in its own process with its default options
and time-outs, and references are wrapped in a box; its import is not measured. ``spotcli.grading`` is measured twice:
cold, which includes the start of the workers, and warm. Below the table are the answers that are found per second of
processor time, in boxes and without them, and the verdicts that differ.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spotcli.grading import Grade

SETS = {
    "math": [("real_solutions_math_qwen_graded", "response", "gold")],
    "gsm8k": [
        ("real_solutions_gsm8k_graded", "solution", "gold"),
        ("real_solutions_gsm8k_pairs", "wrong", "gold"),
        ("real_solutions_gsm8k_pairs", "corrected", "gold"),
    ],
}
"""For each set the files, and the columns of the response and the reference."""


@dataclass(frozen=True)
class Timing:
    """Seconds for a number of answers."""

    answers: int
    cold: float
    warm: float
    math_verify: float


@dataclass(frozen=True)
class Difference:
    """An answer on which math-verify disagrees, or which is undecided."""

    name: str
    reference: str
    grade: Grade
    math_verify: str


def load(data: Path, name: str) -> list[tuple[str, str]]:
    """Pairs of response and reference."""
    pairs = []
    for file, response, reference in SETS[name]:
        with open(data / f"{file}.jsonl", encoding="utf-8") as lines:
            pairs += [(row[response], str(row[reference])) for row in map(json.loads, lines)]
    return pairs


def math_verify_main() -> None:
    """Read pairs from standard input and write the seconds and the verdicts of math-verify."""
    import logging

    from math_verify import parse, verify

    logging.disable(logging.CRITICAL)
    pairs = json.load(sys.stdin)
    verify(parse("\\boxed{1+x}"), parse("\\boxed{x+1}"))  # load lazy imports before the measurement
    start = time.perf_counter()
    verdicts = [bool(verify(parse(f"\\boxed{{{reference}}}"), parse(response))) for response, reference in pairs]
    json.dump({"seconds": time.perf_counter() - start, "verdicts": verdicts}, sys.stdout)


def measure(name: str, pairs: list[tuple[str, str]], jobs: int) -> tuple[Timing, list[Difference]]:
    from spotcli.grading import grade_many
    from spotcli.grading.algebra.pool import close_pool

    close_pool()
    start = time.perf_counter()
    grades = grade_many(pairs, jobs=jobs)
    cold = time.perf_counter() - start
    start = time.perf_counter()
    grade_many(pairs, jobs=jobs)
    warm = time.perf_counter() - start
    peer = subprocess.run(
        [sys.executable, __file__, "--math-verify"], input=json.dumps(pairs), capture_output=True, text=True, check=True
    )
    reply = json.loads(peer.stdout)
    differences = [
        Difference(name, reference, grade, "right" if equal else "wrong")
        for (_, reference), grade, equal in zip(pairs, grades, reply["verdicts"], strict=True)
        if (grade.verdict == "right") != equal or grade.verdict == "undecided"
    ]
    return Timing(len(pairs), cold, warm, reply["seconds"]), differences


def print_rates(name: str, timing: Timing) -> None:
    """Answers per second, and how many times faster than math-verify."""
    rates = (
        f"{timing.answers / timing.cold:13.0f}{timing.answers / timing.warm:13.0f}"
        f"{timing.answers / timing.math_verify:15.1f}"
    )
    ratios = f"{timing.math_verify / timing.cold:11.1f}x{timing.math_verify / timing.warm:11.1f}x"
    print(f"{name:8}{timing.answers:9}{rates}{ratios}")


def print_finding(data: Path) -> None:
    """Answers found per second of processor time, the best of five runs."""
    from spotcli.grading.find_answer import NoAnswer, find_answer

    with open(data / "math500.jsonl", encoding="utf-8") as lines:
        solutions = [str(json.loads(line)["solution"]) for line in lines]
    print("\nanswers found per second of processor time (solutions of math500):")
    for name, texts in (("boxed", solutions), ("without a box", [text.replace("\\boxed", "") for text in solutions])):
        best = float("inf")
        for _ in range(5):
            start = time.process_time()
            for text in texts:
                with suppress(NoAnswer):
                    find_answer(text)
            best = min(best, time.process_time() - start)
        print(f"  {name:14}{len(texts) / best:8.0f}")


def print_differences(differences: list[Difference], limit: int) -> None:
    print("\nverdicts that differ (spotcli / math-verify):")
    counts = Counter((difference.grade.verdict, difference.math_verify) for difference in differences)
    for (verdict, peer_verdict), count in sorted(counts.items()):
        print(f"  {verdict:10} / {peer_verdict:6} {count:5}")
    for difference in differences[:limit]:
        grade = difference.grade
        extracted = (grade.extracted or "")[:60]
        verdicts = f"{grade.verdict} / {difference.math_verify} {grade.reason}"
        print(f"  {difference.name:6} reference {difference.reference[:30]!r:32} graded {extracted!r:40} {verdicts}")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=Path, required=True)
    arguments.add_argument("--jobs", type=int, default=2)
    arguments.add_argument("--show", type=int, default=20, help="number of differing verdicts to print")
    options = arguments.parse_args()
    head = f"{'set':8}{'answers':>9}{'cold/s':>13}{'warm/s':>13}{'math-verify/s':>15}"
    print(f"{head}{'ratio cold':>12}{'ratio warm':>12}")
    timings = []
    differences = []
    for name in SETS:
        timing, different = measure(name, load(options.data, name), options.jobs)
        print_rates(name, timing)
        timings.append(timing)
        differences += different
    total = Timing(
        sum(timing.answers for timing in timings),
        sum(timing.cold for timing in timings),
        sum(timing.warm for timing in timings),
        sum(timing.math_verify for timing in timings),
    )
    print_rates("all", total)
    print_finding(options.data)
    print_differences(differences, options.show)


if __name__ == "__main__":
    if "--math-verify" in sys.argv:
        math_verify_main()
    else:
        main()
