"""Every row of the paper's table can be trained from files that `spot rectify` makes of the same samples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from spotcli.errors import DataError
from spotcli.recipe import Recipe
from spotcli.stages.rectify import rectify
from spotcli.stages.train import train
from tests.conftest import write_rows
from tests.fake_provider import FakeProvider

# Two wrong answers and one right one.
SAMPLES: list[dict[str, Any]] = [
    {"id": "row-a", "prompt": "row-a: 12 + 30 - 7", "answer": "35", "verdict": "wrong",
     "response": "12 + 30 = 43\n43 - 7 = 36\nThe answer is \\boxed{36}."},
    {"id": "row-b", "prompt": "row-b: 5 + 6 - 1", "answer": "10", "verdict": "wrong",
     "response": "5 + 6 = 12\n12 - 1 = 11\nThe answer is \\boxed{11}."},
    {"id": "row-c", "prompt": "row-c: 2 + 2 - 1", "answer": "3", "verdict": "right",
     "response": "2 + 2 = 4\n4 - 1 = 3\nThe answer is \\boxed{3}."},
]  # fmt: skip
OWN = {"row-a": "Taking all together, \\boxed{35}.", "row-b": "Taking all together, \\boxed{10}."}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with surgery.jsonl, direct.jsonl and self.jsonl."""
    folder = tmp_path_factory.mktemp("baselines")
    write_rows(folder / "samples.jsonl", SAMPLES)
    solutions = {name: [{"text": f"<answer-{{fence}}>\n{text}\n</answer-{{fence}}>"}] for name, text in OWN.items()}
    with FakeProvider(solutions, key="sk-baselines-0123456789") as provider, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_API_KEY", "sk-baselines-0123456789")
        patch.setenv("NO_PROXY", "127.0.0.1")
        for mode, oracle in (("surgery", "symbolic"), ("direct", "gpt-4o"), ("self", None)):
            section = {"mode": mode, "oracle": oracle, "output": f"{mode}.jsonl", "base_url": provider.base_url}
            rectify(Recipe.model_validate({"rectify": section}), folder=folder)
    return folder


def chosen(folder: Path, mode: str) -> list[str]:
    return [json.loads(line)["chosen"] for line in (folder / f"{mode}.jsonl").read_text().splitlines()]


def test_each_mode_makes_its_own_positives(made: Path) -> None:
    assert chosen(made, "direct") == list(OWN.values())
    assert chosen(made, "self") == [SAMPLES[2]["response"]]
    assert chosen(made, "surgery") == [
        "12 + 30 = 42\n42 - 7 = 35\nThe answer is \\boxed{35}.",
        "5 + 6 = 11\n11 - 1 = 10\nThe answer is \\boxed{10}.",
    ]


@pytest.mark.parametrize(
    ("name", "mode", "objective", "pairs"),
    [
        ("SFT", "direct", "sft", 2),
        ("RFT", "self", "sft", 1),
        ("SFT+", "surgery", "sft", 2),
        ("DFT", "surgery", "dft", 2),
        ("Reward-SFT", "surgery", "reward-sft", 2),
        ("DPO", "surgery", "dpo", 2),
        ("SPoT-BCE", "surgery", "spot-bce", 2),
        ("SPoT-BCO", "surgery", "spot-bco", 2),
    ],
)
def test_every_baseline_trains(
    made: Path, tiny_model: Path, tmp_path: Path, name: str, mode: str, objective: str, pairs: int
) -> None:
    section = {
        "data": str(made / f"{mode}.jsonl"), "output": "checkpoint", "objective": objective, "batch_size": 2,
        "num_train_epochs": 1, "dtype": "float32",
    }  # fmt: skip
    recipe = Recipe.model_validate({"model": str(tiny_model), "train": section})
    planned = train(recipe, folder=tmp_path, dry_run=True)
    assert (planned.objective, planned.pairs, planned.dropped) == (objective, pairs, {}), name
    assert not (tmp_path / "checkpoint").exists()
    if mode != "surgery":
        assert train(recipe, folder=tmp_path).pairs == pairs
        assert (tmp_path / "checkpoint" / "model.safetensors").exists()


def test_right_answers_alone_cannot_be_compared(made: Path, tiny_model: Path, tmp_path: Path) -> None:
    section = {"data": str(made / "self.jsonl"), "objective": "spot-bco"}
    with pytest.raises(DataError, match="rejected"):
        train(Recipe.model_validate({"model": str(tiny_model), "train": section}), folder=tmp_path, dry_run=True)
