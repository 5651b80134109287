"""What is trained of a pair: the ids and the mask of the trainer's own batches, as text."""

from __future__ import annotations

import json
import re
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from spotcli import jsonl
from spotcli.core.forward.batches import MicroBatch
from spotcli.errors import UserError
from spotcli.inspection.token_lines import token_parts
from spotcli.inspection.trained_tokens import PairEncoder, PairTokens, token_texts
from spotcli.recipe import Recipe
from spotcli.records import Pair
from spotcli.stages.review import TokenOptions, View, review
from spotcli.training.batch_plan import plan_layout
from spotcli.training.data import decide_sharing, load_data
from spotcli.training.plan import TrainPlan
from spotcli.training.rank import Ranks
from spotcli.training.starting_model import inspect_model
from spotcli.training.trainer import _Packed
from tests.inspection.example_pairs import ATTACKS, CONTROL_CHARACTERS, write_hostile_pair, write_rows

SUM = {"id": "sum", "prompt": "Q", "rejected": "3 + 4 = 8", "chosen": "3 + 4 = 7"}
"""One digit differs. The tokenizer of the tiny model has one token per byte."""

ROWS: list[dict[str, Any]] = [
    SUM,
    {
        "id": "chat",
        "prompt": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Größe?"},
            {"role": "assistant", "content": "2 🙂"},
            {"role": "user", "content": "And now?"},
        ],
        "rejected": "Zwei\n\n  Äpfel 🙂🙂 und 數",
        "chosen": "Drei\n\n  Äpfel 🙂🙃 und 數學",
    },
    {"id": "control", "prompt": "Q", "rejected": "a <|im_end|> b", "chosen": "a <|im_start|> b"},
    {"id": "cut", "prompt": "Q", "rejected": "It goes on and", "chosen": "It ends.", "finish_reason": "length"},
    {"id": "emitted", "prompt": "Q", "rejected": "no", "chosen": "yes", "response_ids": [79, 80, 1]},
    {"id": "prefix", "prompt": "Q", "rejected": "one", "chosen": "one two"},
]


def recipe(model: Path | None, **section: Any) -> Recipe:
    return Recipe.model_validate({"model": None if model is None else str(model), "train": section})


def trainer_plan(settings: Recipe, folder: Path) -> TrainPlan:
    """The plan of a training run on data.jsonl."""
    start = inspect_model(settings.model or "", settings.train)
    data = load_data(settings, folder / "data.jsonl", rough=False, start=start)
    sharing = decide_sharing(settings.train, settings.model or "", data.pairs)
    layout = plan_layout(settings.train, data.pairs, share=sharing.on, seed=0)
    return TrainPlan(settings, folder, start, data, sharing, layout, Ranks())


def tokens_of(settings: Recipe, path: Path) -> list[PairTokens]:
    encoder = PairEncoder.load(settings, path)
    tokens = [encoder.tokens(pair) for pair in jsonl.read(path, Pair)]
    assert not any(isinstance(pair, str) for pair in tokens)
    return [pair for pair in tokens if isinstance(pair, PairTokens)]


def shown(tokens: PairTokens | str, **options: Any) -> list[str]:
    given = {"marked": True, "width": None, "folded": False} | options
    return [line.plain for line in token_parts(tokens, None, **given)]


@pytest.mark.parametrize("objective", ["spot-bco", "sft"])
def test_ids_and_mask_are_those_of_the_batches_of_training(tiny_model: Path, tmp_path: Path, objective: str) -> None:
    path = write_rows(tmp_path / "data.jsonl", ROWS)
    made = json.loads(json.dumps(ROWS))
    ids = PairEncoder.load(recipe(tiny_model), path).encoder.tokenizer("no", add_special_tokens=False)["input_ids"]
    made[4]["response_ids"] = [*ids, 1]
    write_rows(path, made)
    for share in (True, False):
        settings = recipe(tiny_model, objective=objective, share_prefix=share)
        plan, packed = trainer_plan(settings, tmp_path), tokens_of(settings, path)
        batches = _Packed(plan, None)
        assert len(packed) == len(plan.pairs) == len(ROWS)
        for index, (pair, encoded) in enumerate(zip(packed, plan.pairs, strict=True)):
            assert tuple(token.id for token in pair.prompt) == encoded.prompt_ids
            assert tuple(token.id for token in pair.chosen) == encoded.chosen_ids
            assert tuple(token.id for token in pair.rejected) == encoded.rejected_ids
            batch = batches[MicroBatch((index,))]["batch"]
            for mask_N, answer in ((batch.chosen_N, pair.chosen), (batch.rejected_N, pair.rejected)):
                trained = [token.id for token in chain(pair.prompt, answer) if token.trained]
                assert trained == batch.targets_N[mask_N].tolist()
            new, old = encoded.edited()
            edited = [token.span == "edited" for token in pair.chosen if token.span != "end"]
            assert edited == new[: len(edited)]
            edited = [token.span == "edited" for token in pair.rejected if token.span != "end"]
            assert edited == old[: len(edited)]


def test_texts_of_tokens_join_to_the_text(tiny_model: Path, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "data.jsonl", ROWS[:4])
    encoder = PairEncoder.load(recipe(tiny_model), path)
    for row, pair in zip(ROWS, tokens_of(recipe(tiny_model), path), strict=False):
        for side, answer in (("chosen", pair.chosen), ("rejected", pair.rejected)):
            assert "".join(token.text for token in answer if token.span != "end") == row[side]
        ids = [token.id for token in pair.prompt]
        assert "".join(token.text for token in pair.prompt) == encoder.encoder.tokenizer.decode(ids)
    # Bytes that are no character are shown too.
    ids = encoder.encoder.tokenizer("🙂", add_special_tokens=False)["input_ids"]
    assert token_texts(encoder.encoder.tokenizer, ids) == ["", "", "", "🙂"]
    assert len(token_texts(encoder.encoder.tokenizer, ids[:2] * 4)) == 8


def test_one_pair_by_hand(tiny_model: Path, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "data.jsonl", [SUM])
    (pair,) = tokens_of(recipe(tiny_model), path)
    # Prompt: start, "user\n", "Q", end, "\n", start, "assistant\n" have 1 + 5 + 1 + 1 + 1 + 1 + 10 tokens.
    assert shown(pair) == [
        "y- 30 tokens: prompt 20, shared 8, edited 1, end of turn 1; 10 with loss",
        "y+ 30 tokens: prompt 20, shared 8, edited 1, end of turn 1; 10 with loss",
        "",
        "prompt, 20 tokens, no loss",
        "│<|im_start|>│u│s│e│r│⏎│",
        "│Q│<|im_end|>│⏎│",
        "│<|im_start|>│a│s│s│i│s│t│a│n│t│⏎│",
        "",
        "shared prefix, 8 tokens, with loss for y+ and y-",
        "│3│·│+│·│4│·│=│·│",
        "",
        "y- after the shared prefix, 2 tokens, with loss",
        "│[-8-]│<|im_end|>│",
        "",
        "y+ after the shared prefix, 2 tokens, with loss",
        "│{+7+}│<|im_end|>│",
    ]


def test_control_tokens_in_a_text_are_not_control_tokens(tiny_model: Path, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "data.jsonl", [ROWS[2]])
    (pair,) = tokens_of(recipe(tiny_model), path)
    assert [token.text for token in pair.rejected if token.special] == ["<|im_end|>"]
    assert pair.rejected[-1].special
    assert "│<│|│i│m│_│" in "\n".join(shown(pair))


@pytest.mark.parametrize(
    ("changes", "section", "note"),
    [
        ({"finish_reason": "length"}, {}, "y- was truncated: it has no end of turn"),
        ({"review": "reject"}, {}, "rejected in review: training leaves this pair out"),
        (
            {},
            {"max_length": 29},
            "30 tokens, more than train.max_length allows (29): training leaves this pair out and truncates nothing",
        ),
        ({}, {"objective": "sft"}, "train.objective sft does not train on y-"),
        ({"chosen": SUM["rejected"]}, {}, "training leaves this pair out: chosen and rejected are the same"),
    ],
)
def test_what_training_leaves_out_is_noted(
    tiny_model: Path, tmp_path: Path, changes: dict[str, Any], section: dict[str, Any], note: str
) -> None:
    encoder = PairEncoder.load(recipe(tiny_model, **section), tmp_path / "data.jsonl")
    tokens = encoder.tokens(Pair.model_validate(SUM | changes))
    assert shown(tokens)[0] == note


def test_lines_fit_and_are_folded(tiny_model: Path, tmp_path: Path) -> None:
    row = SUM | {"prompt": "word " * 60, "rejected": "many words " * 30 + "8", "chosen": "many words " * 30 + "7"}
    (pair,) = tokens_of(recipe(tiny_model), write_rows(tmp_path / "data.jsonl", [row]))
    lines = token_parts(pair, None, marked=True, width=40, folded=False)
    tokens = [line for line in lines if line.plain.startswith("│")]
    assert max(line.cell_len for line in tokens) <= 40
    assert sum(line.plain.count("│") - 1 for line in tokens) == len(pair.prompt) + len(pair.chosen) + 2
    folded = shown(pair, width=40, folded=True)
    assert len([line for line in folded if line.startswith("⋯")]) == 2
    assert len(folded) < 30


def test_policy_of_the_meta_file_and_no_policy(tiny_model: Path, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "data.jsonl", [SUM])
    with pytest.raises(UserError, match="the policy is not known") as error:
        PairEncoder.load(Recipe(), path)
    assert error.value.cure == "pass --recipe FILE"
    (tmp_path / "data.meta.json").write_text(json.dumps({"filters": {"ratio_unit": f"tokens of {tiny_model}"}}))
    assert len(tokens_of(Recipe(), path)) == 1


def test_printed_tokens(tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(tmp_path / "data.jsonl", [*ROWS, {"id": "none", "prompt": "Q", "chosen": "x", "rejected": "x"}])
    view = View(tokens=TokenOptions(tokens=True, order="length"))
    review(recipe(tiny_model), folder=tmp_path, data=Path("data.jsonl"), view=view)
    printed = capsys.readouterr().out
    assert "  │[-8-]│<|im_end|>│\n" in printed
    longest = sorted([*ROWS, {"id": "none", "chosen": "x"}], key=lambda row: -len(row["chosen"]))
    assert re.findall(r"^== \d/7  (\w+)$", printed, re.MULTILINE) == [row["id"] for row in longest]
    assert "  training leaves this pair out: chosen and rejected are the same\n" in printed


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
def test_hostile_text_is_shown_and_never_obeyed(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], attack: str
) -> None:
    write_hostile_pair(tmp_path, attack)
    view = View(tokens=TokenOptions(tokens=True))
    review(recipe(tiny_model), folder=tmp_path, data=Path("data.jsonl"), view=view)
    printed = capsys.readouterr().out
    assert not re.search(CONTROL_CHARACTERS, printed)
    assert len(re.findall(r"^== ", printed, re.MULTILINE)) == 1
