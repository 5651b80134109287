"""Whatever a data set or a model writes, grading ends: in a worker, under its clock, and at once on Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import spotcli
from spotcli.errors import UserError
from spotcli.grading import LONG, grade, grade_many
from spotcli.grading.algebra import pool
from spotcli.grading.kinds import NotChecked, check_instructions, get_grader, grade_instructions

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(str(spotcli.__file__)).parents[1])}


def instruction(name: str, **arguments: object) -> str:
    return json.dumps({"prompt": "p", "instruction_id_list": [name], "kwargs": [arguments]})


def test_a_slow_instruction_is_undecided() -> None:
    pytest.importorskip("if_verifiable")
    pytest.importorskip("punkt")
    # The checker's own pattern takes the square of the length here: hours.
    with pytest.raises(NotChecked, match="time-out"):
        check_instructions("<" * 3_000_000, instruction("detectable_format:title"), seconds=0.5)
    title = instruction("detectable_format:title")
    assert grade_instructions("<<Title>> text", title).verdict == "right"


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        (
            "length_constraints:nth_paragraph_first_word",
            {"num_paragraphs": 1, "nth_paragraph": 1, "first_word": "(a+)+$"},
        ),
        ("startend:end_checker", {"end_phrase": "(a+)+$"}),
        ("detectable_content:number_placeholders", {"num_placeholders": 10**400}),
        ("combination:two_responses", {"x": [[["("] * 50]]}),
        ("keywords:frequency", {"keyword": ["("], "relation": {}, "frequency": -1}),
        ("keywords:letter_frequency", {"letter": "(((", "let_frequency": 1, "let_relation": "at least"}),
        ("language:response_language", {"language": "../../etc/passwd"}),
        ("no:such", {}),
        ("__class__", {"__class__": 1}),
    ],
)
def test_odd_instructions_get_a_verdict(name: str, arguments: dict[str, object]) -> None:
    pytest.importorskip("if_verifiable")
    pytest.importorskip("punkt")
    result = grade_instructions("a" * 60 + "!", instruction(name, **arguments))
    assert result.verdict in ("right", "wrong", "undecided")
    assert "time-out" not in result.reason


def test_a_long_answer_gets_the_same_verdict_as_a_short_one() -> None:
    thought = "Let me add x and one. " * (LONG // 20)
    for answer, reference in (
        (r"\boxed{42}", "42"),
        (r"\boxed{41}", "42"),
        (r"\boxed{x+1}", "1+x"),
        ("So the answer is 7.", "42"),
    ):
        short, long = grade(answer, reference), grade(thought + answer, reference)
        assert (long.verdict, long.extracted) == (short.verdict, short.extracted)
    pairs = [(thought + rf"\boxed{{{number}}}", "2") for number in range(4)]
    assert [result.verdict for result in grade_many(pairs)] == ["wrong", "wrong", "right", "wrong"]
    assert get_grader("choice")(thought + "The answer is (C).", "C").verdict == "right"
    cells = get_grader("coordinates")
    assert cells(f"{thought}\nOwn: (1, 2)", "Own: (1, 2)").verdict == "right"


def test_a_long_answer_that_takes_too_long_is_undecided() -> None:
    # Each label of the reference is searched in the whole answer.
    labels = "\n".join(f"a{number}: None" for number in range(20_000))
    result = get_grader("coordinates")(labels, labels)
    assert (result.verdict, result.reason) == ("undecided", "time-out of the grader after 5 s")


@pytest.mark.parametrize("kind", ["math", "long math", "instructions"])
def test_ctrl_c_ends_grading_at_once(kind: str) -> None:
    if kind == "instructions":
        pytest.importorskip("if_verifiable")
        pytest.importorskip("punkt")
    code = (
        "from tests.grading.test_clock import *\n"
        "from spotcli.grading.answers import Completion, grade_answers\n"
        "from spotcli.records import Problem\n"
        f"kind = {kind!r}\n"
        "tower = r'\\boxed{x^{9^{9^{9}}}}'\n"
        "slow = {'math': (tower, 'x+1'), 'long math': (' ' * LONG + tower, 'x+1'),\n"
        "        'instructions': ('<' * 3_000_000, instruction('detectable_format:title'))}[kind]\n"
        "name = 'instructions' if kind == 'instructions' else 'math'\n"
        "grade_many([(r'\\boxed{x+1}', '1+x')])\n"
        "get_grader(name)\n"
        "print('started', flush=True)\n"
        "many = [Completion(Problem(id=str(i), prompt='p', answer=slow[1]), slow[0], 'stop') for i in range(64)]\n"
        "grade_answers(many, name)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env=ENVIRONMENT,
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        # All of it would take 64 times 5 seconds, 2 at a time.
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert "KeyboardInterrupt" in errors


def test_a_worker_that_cannot_load_its_packages_is_an_error_before_inference(monkeypatch: pytest.MonkeyPatch) -> None:
    pool.close_pool()
    get_grader.cache_clear()
    monkeypatch.setattr(pool, "_WORKER", [sys.executable, "-S", *pool._WORKER[1:]])  # without installed packages
    try:
        with pytest.raises(UserError) as error:
            get_grader("instructions")
    finally:
        pool.close_pool()
        get_grader.cache_clear()
    assert "missing package" in error.value.message
    assert "surgical-post-training[eval]" in str(error.value.cure)
