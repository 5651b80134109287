"""Prompts with different reference answers in the samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from spotcli.records import Sample
from spotcli.repair.cases import read_samples
from spotcli.repair.contested import contested_samples
from tests.conftest import write_rows

CHAT = [{"role": "user", "content": "1 / 2?"}]


def row(id: str, answer: str | None, **more: Any) -> dict[str, Any]:
    return {"id": id, "prompt": "1 / 2?", "answer": answer, "response": "\\boxed{3}", "verdict": "wrong"} | more


def contested(folder: Path, rows: list[dict[str, Any]], grader: str = "math") -> set[str]:
    write_rows(folder / "samples.jsonl", rows)
    samples: list[Sample] = read_samples(folder / "samples.jsonl", truncated_are_wrong=False)
    keys = contested_samples(samples, folder / "samples.jsonl", grader)
    return {f"{id}{trial or ''}" for id, trial in keys}


def test_all_answers_to_such_a_prompt_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        row("a", "0.5"), row("b", "0.6"), row("c", "0.5", prompt="another?"),
        row("d", "1/2", prompt=CHAT, verdict="right"),
    ]  # fmt: skip
    assert contested(tmp_path, rows) == {"a", "b", "d"}
    assert (
        f"{tmp_path / 'samples.jsonl'}:2: the reference answer '0.6' differs from '0.5' for the same prompt in line 1; "
        "3 answers to 1 such prompts are left out" in " ".join(capsys.readouterr().err.split("\n"))
    )


@pytest.mark.parametrize(
    ("rows", "grader"),
    [
        ([row("a", "0.5"), row("a", "0.5", trial=1), row("a", "0.5", trial=2)], "math"),  # trials
        ([row("a", "0.5"), row("b", "1/2"), row("c", "\\frac{1}{2}"), row("d", " 0.5 ")], "math"),  # notations
        ([row("a", "0.5"), row("b", None), row("c", "nan"), row("d", "")], "math"),  # no reference is no conflict
        ([row("a", "B"), row("b", "(B)")], "choice"),
        ([row("a", "0.5"), row("b", "B", grader="choice")], "math"),  # two questions
        ([row("a", "one word"), row("b", "two words")], "instructions"),  # conditions, not answers
        ([row("a", "1"), row("b", "2", prompt=[{"role": "system", "content": "Round up."}, *CHAT])], "math"),
    ],
)
def test_what_is_no_conflict(tmp_path: Path, rows: list[dict[str, Any]], grader: str) -> None:
    assert contested(tmp_path, rows, grader) == set()


def test_a_chat_of_one_turn_is_the_same_prompt(tmp_path: Path) -> None:
    assert contested(tmp_path, [row("a", "1"), row("b", "2", prompt=CHAT)]) == {"a", "b"}
    assert contested(tmp_path, [row("a", "A"), row("b", "C")], "choice") == {"a", "b"}
    # Trials of one problem whose reference was changed in between.
    assert contested(tmp_path, [row("a", "1"), row("a", "2", trial=1)]) == {"a", "a1"}
