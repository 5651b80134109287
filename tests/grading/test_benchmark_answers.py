"""Agreement with published test cases and real answers.

The data is not part of the repository; the tests are skipped where it is missing.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from spotcli.grading import grade_many

SHARED = Path(os.environ.get("SPOT_SHARED") or Path(__file__).resolve().parents[3] / "shared")


def rows(name: str) -> list[dict[str, Any]]:
    path = SHARED / "data" / f"{name}.jsonl"
    if not path.exists():
        pytest.skip(f"no {path.name} in SPOT_SHARED or ../shared")
    with open(path, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def test_published_cases() -> None:
    cases = rows("grader_cases")
    grades = grade_many([(c["pred"], c["gold"]) for c in cases])
    core = [(g.verdict == "right") == c["expected"] for c, g in zip(cases, grades, strict=True) if c["core"]]
    assert sum(core) / len(core) >= 0.97
    false_right = [
        c["id"] for c, g in zip(cases, grades, strict=True) if c["core"] and g.verdict == "right" and not c["expected"]
    ]
    false_wrong = [
        c["id"] for c, g in zip(cases, grades, strict=True) if c["core"] and g.verdict == "wrong" and c["expected"]
    ]
    assert (false_right, false_wrong) == ([], [])


def test_real_answers() -> None:
    math, gsm = rows("real_solutions_math_qwen_graded"), rows("real_solutions_gsm8k_graded")
    labelled = [(r["response"], r["gold"], r["upstream_correct"]) for r in math]
    labelled += [(r["solution"], r["gold"], r["upstream_correct"]) for r in gsm]
    grades = grade_many([(response, gold) for response, gold, _ in labelled])
    counts = Counter((g.verdict, correct) for g, (_, _, correct) in zip(grades, labelled, strict=True))
    assert counts["wrong", True] == counts["undecided", True] == 0
    # The upstream grader rejects 10000 for 10{,}000, and "4:30 \\text{ p.m.}" for "\\text{4:30 p.m.}".
    rejected = {r["gold"] for r in math} & {
        gold for g, (_, gold, correct) in zip(grades, labelled, strict=True) if g.verdict == "right" and not correct
    }
    assert rejected <= {"10{,}000", "\\text{4:30 p.m.}"}
    assert counts["undecided", False] <= 2


def test_pairs_of_wrong_and_right_answers() -> None:
    pairs = rows("real_solutions_gsm8k_pairs")
    assert {g.verdict for g in grade_many([(p["corrected"], p["gold"]) for p in pairs])} == {"right"}
    assert "right" not in {g.verdict for g in grade_many([(p["wrong"], p["gold"]) for p in pairs])}


@pytest.mark.parametrize(
    ("name", "field"), [("math500", "answer"), ("olympiadbench", "final_answer"), ("aime25", "answer")]
)
def test_references_match_themselves_and_not_the_next_reference(name: str, field: str) -> None:
    golds = [g[0] if isinstance(g := r[field], list) else str(g) for r in rows(name)]
    own = grade_many([(f"So \\boxed{{{g}}}.", g) for g in golds])
    assert [g for g, o in zip(golds, own, strict=True) if o.verdict != "right"] == []
    following = golds[1:] + golds[:1]
    other = grade_many([(f"So \\boxed{{{f}}}.", g) for g, f in zip(golds, following, strict=True)])
    same = [
        (g, f)
        for g, f, o in zip(golds, following, other, strict=True)
        if o.verdict == "right" and g.strip("$") != f.strip("$")
    ]
    assert len(same) <= 1  # in MATH-500, x=5 follows 5


def test_another_notation_of_a_reference_is_never_wrong() -> None:
    golds = [r["answer"] for r in rows("math500")]
    golds += [r["final_answer"][0].strip("$") for r in rows("olympiadbench") if r["final_answer"][0].count("$") <= 2]
    variants = [
        (changed, gold)
        for gold in golds
        for changed in (
            gold.replace("\\frac", "\\dfrac"),
            gold.replace("-", "\u2212"),
            gold.replace(" ", ""),
            gold.replace("+", " + ").replace("=", " = "),
            f"\\displaystyle {gold}.",
            f"\\;{{{gold}}}\\,",
        )
    ]
    grades = grade_many([(f"\\boxed{{{changed}}}", gold) for changed, gold in variants])
    assert [variant for variant, g in zip(variants, grades, strict=True) if g.verdict == "wrong"] == []
