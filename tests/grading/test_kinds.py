"""Graders for choices and instructions, and a user's own checker."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from spotcli.errors import SpotError
from spotcli.grading import Grade
from spotcli.grading.kinds import check_instructions, get_grader, grade_choice, grade_instructions


@pytest.mark.parametrize(
    ("response", "reference", "verdict"),
    [
        ("The answer is (C).", "C", "right"),
        ("so the answer is B.", "C", "wrong"),
        (r"\boxed{\text{(D)}}", "D", "right"),
        ("**Answer: C**", "C", "right"),
        ("D. it can't be A or B", "D", "right"),
        ("The answer: D, it makes no sense for it to be A or B", "D", "right"),
        (r"\boxed{A \text{ or } B}", "A", "undecided"),
        ("A rectangle has four sides.", "A", "undecided"),
        ("Solution: Choice_B (None)", "B", "right"),
        (r"\boxed{C}", "(C) Cecile", "right"),
    ],
)
def test_choice(response: str, reference: str, verdict: str) -> None:
    assert grade_choice(response, reference).verdict == verdict


def test_a_users_checker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_checker_module.py").write_text(
        "def check(response, reference):\n    return {'a': True, 'b': 'wrong', 'c': None}[response]\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    grader = get_grader("my_checker_module:check")
    assert [grader(response, "").verdict for response in "abcd"] == ["right", "wrong", "undecided", "undecided"]
    assert "KeyError" in grader("d", "").reason
    with pytest.raises(SpotError):
        get_grader("my_checker_module:missing")
    with pytest.raises(SpotError):
        get_grader("mathematics")
    assert isinstance(get_grader("math")(r"\boxed{1}", "1"), Grade)


def test_missing_packages_are_named_before_inference() -> None:
    try:
        import if_verifiable  # noqa: F401 (only whether it is installed)
        import punkt  # noqa: F401 (only whether it is installed)
    except ImportError:
        with pytest.raises(SpotError) as error:
            get_grader("instructions")
        assert "surgical-post-training[eval]" in str(error.value.cure)
    else:
        get_grader("instructions")


def test_instructions_without_and_with_commas() -> None:
    pytest.importorskip("if_verifiable", exc_type=ImportError)
    pytest.importorskip("punkt", exc_type=ImportError)
    reference = json.dumps({"prompt": "No commas.", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]})
    grader = get_grader("instructions")
    assert grader("No commas here.", reference).verdict == "right"
    assert grader("Well, one comma.", reference).verdict == "wrong"
    assert grader("<think>a, b</think>No commas here.", reference).verdict == "right"


def test_an_invalid_reference_is_undecided() -> None:
    pytest.importorskip("if_verifiable", exc_type=ImportError)
    pytest.importorskip("punkt", exc_type=ImportError)
    grader = get_grader("instructions")
    instructions = '["change_case:english_lowercase", "punctuation:no_comma"]'
    for kwargs in ("[5, null]", "null", "{", "[{}]"):
        reference = f'{{"prompt": "", "instruction_id_list": {instructions}, "kwargs": {kwargs}}}'
        result = grader("a, b", reference)
        assert (result.verdict, result.reason.startswith("invalid reference")) == ("undecided", True)


def test_instruction_checkers_agree_with_the_published_verdicts() -> None:
    pytest.importorskip("if_verifiable", exc_type=ImportError)
    pytest.importorskip("punkt", exc_type=ImportError)
    shared = Path(os.environ.get("SPOT_SHARED") or Path(__file__).resolve().parents[3] / "shared") / "data"
    if not shared.exists():
        pytest.skip("no data in SPOT_SHARED or ../shared")
    rows = map(json.loads, (shared / "ifeval.jsonl").read_text(encoding="utf-8").splitlines())
    prompts = {row["key"]: row for row in rows}
    for line in (shared / "ifeval_real_responses.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        results = check_instructions(row["response"], json.dumps(prompts[row["key"]]))
        assert (results.strict, results.loose) == (row["strict"], row["loose"]), row["key"]


@pytest.mark.parametrize(
    ("instruction", "arguments"),
    [
        ("keywords:existence", {"keywords": ["(a+)+$"]}),
        ("keywords:frequency", {"keyword": "(a+)+$", "relation": "at least", "frequency": 1}),
        ("keywords:forbidden_words", {"forbidden_words": ["(a+)+$"]}),
        ("detectable_format:multiple_sections", {"section_spliter": "(a+)+$", "num_sections": 2}),
        ("detectable_content:postscript", {"postscript_marker": "(a+)+$"}),
    ],
)
def test_a_keyword_is_text_and_never_a_pattern(instruction: str, arguments: dict[str, Any]) -> None:
    pytest.importorskip("if_verifiable")
    row = {"prompt": "p", "instruction_id_list": [instruction], "kwargs": [arguments]}
    # As a pattern, it takes exponential time on this response, which would be a time-out.
    assert "time-out" not in grade_instructions("a" * 60 + "!", json.dumps(row)).reason
    if instruction == "keywords:existence":
        assert grade_instructions("so (a+)+$ it is", json.dumps(row)).verdict == "right"
