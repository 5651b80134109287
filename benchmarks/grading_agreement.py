"""How often the grader agrees with readers: on cases by kind, and on real solutions without a box.

    python benchmarks/grading_agreement.py [--cases FILE] [--data DIR]

FILE contains one case per line with ``kind``, ``response``, ``reference`` and ``expected``, the verdicts that count as
correct, separated by ``|``; the default is the file of the tests. DIR contains ``math500.jsonl``,
``real_solutions_math_qwen_graded.jsonl``, ``real_solutions_gsm8k_graded.jsonl`` and ``gsm8k_test.jsonl``; from these
solutions, the boxes and the lines that mark the answer are removed.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from spotcli.grading import Grade, grade_many
from spotcli.grading.extraction.boxes import all_boxes
from spotcli.grading.kinds import get_grader

CASES = Path(__file__).parent.parent / "tests" / "grading" / "cases.jsonl"


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def grade_cases(cases: list[dict[str, Any]]) -> list[Grade]:
    """The grades of cases in their order, each by the grader that it names."""
    math = [case for case in cases if case.get("grader", "math") == "math"]
    grades = iter(grade_many((case["response"], case["reference"]) for case in math))
    return [
        next(grades)
        if case.get("grader", "math") == "math"
        else get_grader(case["grader"])(case["response"], case["reference"])
        for case in cases
    ]


def print_cases(cases: list[dict[str, Any]]) -> None:
    """Agreement by kind, and the cases that disagree."""
    totals: Counter[str] = Counter()
    agreeing: Counter[str] = Counter()
    false: Counter[str] = Counter()
    for case, grade in zip(cases, grade_cases(cases), strict=True):
        expected = case["expected"].split("|")
        totals[case["kind"]] += 1
        agreeing[case["kind"]] += grade.verdict in expected
        if grade.verdict not in expected:
            false[grade.verdict] += 1
            print(f"  {case['response'][-100:]!r} reference {case['reference'][:60]!r} {case['expected']}: {grade}")
    print(f"{'kind':36}{'cases':>8}{'agree':>8}")
    for kind, total in sorted(totals.items()):
        print(f"{kind:36}{total:8}{agreeing[kind]:8}")
    print(f"{'all':36}{totals.total():8}{agreeing.total():8}  {agreeing.total() / totals.total():.1%}")
    print(f"false right {false['right']}, false wrong {false['wrong']}, undecided {false['undecided']}")


def without_boxes(text: str) -> str:
    """The text with each box replaced by its content."""
    parts: list[str] = []
    position = 0
    for box in all_boxes(text)[0]:
        parts += [text[position : box.start], box.content]
        position = box.end
    return "".join([*parts, text[position:]])


def unmarked_solutions(data: Path) -> Iterator[tuple[str, list[tuple[str, str, bool]]]]:
    """For each set its name, and the solutions without marks: text, reference, and whether it is correct."""
    yield (
        "math500, solutions of the data set",
        [(without_boxes(row["solution"]), row["answer"], True) for row in rows(data / "math500.jsonl")],
    )
    yield (
        "math, answers of a model",
        [
            (without_boxes(row["response"]), row["gold"], row["upstream_correct"])
            for row in rows(data / "real_solutions_math_qwen_graded.jsonl")
        ],
    )
    yield (
        "gsm8k, solutions of the data set",
        [
            (re.sub(r"<<.*?>>", "", solution), answer.strip(), True)
            for row in rows(data / "gsm8k_test.jsonl")
            for solution, _, answer in [row["answer"].rpartition("\n####")]
        ],
    )
    yield (
        "gsm8k, answers of models",
        [
            (row["solution"].rpartition("\nA:")[0], str(row["gold"]), row["upstream_correct"])
            for row in rows(data / "real_solutions_gsm8k_graded.jsonl")
        ],
    )


def print_solutions(data: Path) -> None:
    """Verdicts of solutions without a box."""
    print(f"{'set':36}{'solutions':>10}{'undecided':>11}{'false wrong':>13}{'false right':>13}")
    for name, solutions in unmarked_solutions(data):
        grades = grade_many((text, reference) for text, reference, _ in solutions)
        counts = Counter((correct, grade.verdict) for (_, _, correct), grade in zip(solutions, grades, strict=True))
        undecided = (counts[True, "undecided"] + counts[False, "undecided"]) / len(solutions)
        print(f"{name:36}{len(solutions):10}{undecided:11.1%}{counts[True, 'wrong']:13}{counts[False, 'right']:13}")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--cases", type=Path, default=CASES)
    arguments.add_argument("--data", type=Path)
    options = arguments.parse_args()
    print_cases(rows(options.cases))
    if options.data:
        print()
        print_solutions(options.data)


if __name__ == "__main__":
    main()
