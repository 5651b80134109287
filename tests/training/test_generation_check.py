"""Generation checks: counts, messages, and no effect on the trained weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from spotcli.grading import grade
from spotcli.policies import Answer, Failure, Request, Sampling
from spotcli.policies.transformers import TransformersPolicy
from spotcli.stages.train import train
from spotcli.training.generation_check import Check, CheckCounts
from spotcli.training.progress import Report
from tests.stages.test_train import apart, metrics, pair, recipe, summary_of, write

COUNTED = ("check_right", "check_wrong", "check_undecided", "check_failed")


def solved(number: int) -> dict[str, Any]:
    """A pair whose reference answer, always 4, even a tiny model learns."""
    return {
        "id": f"p{number}", "prompt": f"{number + 4} - {number}", "answer": "4",
        "chosen": "\\boxed{4}", "rejected": "\\boxed{5}",
    }  # fmt: skip


LEARNS: dict[str, Any] = {"objective": "sft", "learning_rate": 1e-2, "num_train_epochs": 20, "warmup_steps": 0}


def test_checks_show_that_the_policy_learns(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, [solved(number) for number in range(12)])
    answers_of_checks: list[Answer | Failure] = []
    outcome = Check.outcome

    def recorded(self: Check, answer: Answer | Failure) -> dict[str, int]:
        answers_of_checks.append(answer)
        return outcome(self, answer)

    monkeypatch.setattr(Check, "outcome", recorded)
    # 12 pairs in steps of 8, 20 epochs: 40 steps. Logged are every 15th step and those with a check.
    settings = recipe(tiny_model, check_every=16, check_problems=5, logging_steps=15, **LEARNS)
    summary = train(settings, folder=tmp_path)
    rows = metrics(tmp_path / "checkpoint")
    assert [row["step"] for row in rows] == [15, 16, 30, 32, 40]
    checked = [row for row in rows if "check_right" in row]
    assert [row["step"] for row in checked] == [16, 32, 40]
    assert [sum(row[name] for name in COUNTED) for row in checked] == [5, 5, 5]
    assert checked[-1]["check_right"] == 5
    assert (summary.final["check_right"], summary.final["check_truncated"]) == (5, 0)
    # One token per character, and the end of the turn.
    assert checked[-1]["check_tokens"] == len("\\boxed{4}") + 1
    stderr = capsys.readouterr().err
    assert "check after step 40: 5 right, 0 wrong, 0 undecided (0 truncated, 0 empty); 10 tokens per answer" in stderr
    assert "| check_right | 5 |" in (tmp_path / "checkpoint" / "README.md").read_text()
    # The saved model gives the same answers as the model in the last check.
    alone = TransformersPolicy.load(
        str(tmp_path / "checkpoint"), Sampling(20, temperature=0.0), batch_size=64, dtype="float32"
    )
    last: dict[Any, Any] = {answer.request.messages[0]["content"]: answer for answer in answers_of_checks[-5:]}
    assert len(last) == 5
    requests = [Request((content,), [{"role": "user", "content": content}], 0) for content in last]
    for group in alone.answers(requests, 5, lambda request: False):
        for answer in group:
            assert isinstance(answer, Answer)
            assert answer.response == last[answer.request.key[0]].response
            assert grade(answer.response, "4").verdict == "right"


@pytest.mark.parametrize(
    "section",
    [
        {},
        {"share_prefix": False, "dtype": "bfloat16"},
        # Dropout draws random numbers in each step; a check must not change them.
        {"lora": {"r": 4, "alpha": 8, "dropout": 0.1}, "gradient_checkpointing": True, "objective": "sft"},
    ],
    ids=["shared", "bfloat16", "lora"],
)
def test_checks_do_not_change_the_weights(tiny_model: Path, tmp_path: Path, section: dict[str, Any]) -> None:
    from safetensors.torch import load_file

    write(tmp_path, [pair(number, answer="1") for number in range(20)])
    train(recipe(tiny_model, output="silent", **section), folder=tmp_path)
    train(recipe(tiny_model, output="checked", check_every=1, check_problems=3, **section), folder=tmp_path)
    name = "adapter_model.safetensors" if "lora" in section else "model.safetensors"
    silent, checked = (load_file(tmp_path / each / name) for each in ("silent", "checked"))
    assert silent.keys() == checked.keys()
    assert all((silent[each] == checked[each]).all() for each in silent)
    one, two = metrics(tmp_path / "silent"), metrics(tmp_path / "checked")
    assert [row["loss"] for row in one] == [row["loss"] for row in two]
    assert all(sum(row[name] for name in COUNTED) == 3 for row in two)


def test_run_with_checks_resumes_exactly_with_and_without_them(tiny_model: Path, tmp_path: Path) -> None:
    write(tmp_path, [pair(number) for number in range(20)])
    settings = {"save_steps": 2, "save_total_limit": 3}
    train(recipe(tiny_model, check_every=2, check_problems=2, **settings), folder=tmp_path)
    output, whole = tmp_path / "checkpoint", tmp_path / "whole"
    shutil.copytree(output, whole)
    for checks in ({"check_every": 2, "check_problems": 2}, {}):
        meta = json.loads((output / "spot-train.json").read_text())
        (output / "spot-train.json").write_text(json.dumps(meta | {"complete": False}))
        (output / "model.safetensors").unlink()
        shutil.rmtree(output / "checkpoint-6")
        assert train(recipe(tiny_model, **checks, **settings), folder=tmp_path).resumed_from == 4
        assert apart(output, whole) == 0.0
        steps = [row["step"] for row in metrics(output) if "check_right" in row]
        assert steps == ([2, 4, 6] if checks else [2, 4])
    assert [row["loss"] for row in metrics(output)] == [row["loss"] for row in metrics(whole)]


def test_checks_prefer_problems_with_a_reference_and_ask_each_once(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    counts = Check.counts

    def recorded(self: Check) -> CheckCounts:
        asked.extend(str(problem.prompt) for problem in self.problems)
        return counts(self)

    monkeypatch.setattr(Check, "counts", recorded)
    rows = [pair(number) for number in range(6)]
    rows += [pair(20, id="twice", trial=trial, answer="1") for trial in range(2)]
    rows += [pair(21, answer="1", review="reject"), pair(22, answer="1", chosen="x" * 300)]
    write(tmp_path, rows)
    train(recipe(tiny_model, check_every=9, check_problems=3, num_train_epochs=1, max_length=200), folder=tmp_path)
    # One problem of the training pairs has a reference, in two rows; rows that were left out are not asked.
    assert len(asked) == len(set(asked)) == 3
    assert asked[0] == pair(20)["prompt"]
    assert set(asked[1:]) < {str(pair(number)["prompt"]) for number in range(6)}
    # Undecided: no reference, and a random model never ends its answers.
    row = metrics(tmp_path / "checkpoint")[-1]
    assert (row["check_undecided"], row["check_truncated"]) == (3, 3)


def test_warnings_of_checks(capsys: pytest.CaptureFixture[str]) -> None:
    from spotcli.console import progress

    row = {"loss": 0.5, "pairs": 8, "seconds": 1.0, "pairs_per_second": 8.0, "tokens_per_second": 80.0, "steps": 20,
           "check_failed": 0, "check_tokens": 12.0}  # fmt: skip

    def check(right: int, wrong: int, cut: int, empty: int) -> str:
        report({**row, "step": 1, "check_right": right, "check_wrong": wrong, "check_undecided": cut + empty,
                "check_truncated": cut, "check_empty": empty})  # fmt: skip
        return capsys.readouterr().err

    with progress("pairs") as display:
        report = Report(display, summary_of("sft"), 0)
        assert "! " not in check(4, 12, 0, 0)
        assert "! " not in check(10, 2, 4, 0)
        # The warning starts at half of the best check: 5 of 10.
        assert "! " not in check(6, 10, 0, 0)
        assert "31% of the check's answers are right, down from 62%" in check(5, 11, 0, 0)
        assert "! " not in check(3, 12, 1, 0)
        assert "13 of 16 are truncated, 3 are empty" in check(0, 0, 13, 3)
        report = Report(display, summary_of("sft"), 0)
        # A difference of two answers is chance.
        assert "! " not in check(2, 14, 0, 0)
        assert "! " not in check(0, 16, 0, 0)
