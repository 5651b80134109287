"""Responses of many kinds with the verdicts that a careful reader would give, in ``cases.jsonl``.

``expected`` lists the verdicts that count as correct; where it contains ``undecided``, a reader may hesitate as well.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from spotcli.grading import Grade, grade_many
from spotcli.grading.kinds import get_grader

CASES: list[dict[str, Any]] = [
    json.loads(line) for line in Path(__file__).with_name("cases.jsonl").read_text(encoding="utf-8").splitlines()
]
MATH = [case for case in CASES if "grader" not in case]


@pytest.fixture(scope="module")
def grades() -> dict[tuple[str, str], Grade]:
    """The grades of all mathematical cases, by response and reference."""
    pairs = [(case["response"], case["reference"]) for case in MATH]
    return dict(zip(pairs, grade_many(pairs), strict=True))


@pytest.mark.parametrize("kind", sorted({case["kind"] for case in MATH}))
def test_mathematics(kind: str, grades: dict[tuple[str, str], Grade]) -> None:
    disagreements = [
        (case["response"], case["reference"], case["expected"], result)
        for case in MATH
        if case["kind"] == kind
        and (result := grades[case["response"], case["reference"]]).verdict not in case["expected"].split("|")
    ]
    assert disagreements == []


@pytest.mark.parametrize("grader", ["choice", "instructions"])
def test_other_graders(grader: str) -> None:
    if grader == "instructions":
        pytest.importorskip("if_verifiable")
        pytest.importorskip("punkt")
    grade = get_grader(grader)
    cases = [case for case in CASES if case.get("grader") == grader]
    assert len(cases) >= 9
    for case in cases:
        result = grade(case["response"], case["reference"])
        assert result.verdict in case["expected"].split("|"), (case, result)
        assert result.reason or result.verdict != "undecided"
