"""`train.keep_share`: the rows of each training step, and a run that resumes with the right ones."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from spotcli.core.forward.batches import Layout
from spotcli.core.forward.encoding import EncodedPair
from spotcli.errors import RecipeError
from spotcli.recipe import TrainSection
from spotcli.stages.train import train
from spotcli.training.balance import Balance
from spotcli.training.batch_plan import plan_epoch, plan_layout, total_steps
from tests.stages.test_train import apart, metrics, pair, recipe, write
from tests.training.test_resume import undo

# Rows 0 to 6 are corrections, 7 to 9 are right answers without y-; each answer has its row's number plus one tokens.
ROWS = [EncodedPair((1,), (2,) * (row + 1), (3,) if row < 7 else ()) for row in range(10)]


def balance(share: float = 0.5, step: int = 4, seed: int = 0) -> Balance:
    made = Balance.of(TrainSection(keep_share=share), ROWS, step, seed)
    assert made is not None
    return made


def test_the_rows_of_each_step_worked_out_by_hand() -> None:
    # Steps of 4 with 2 right answers: 7 corrections take 2 + 2 + 2 + 1, with 2 + 2 + 2 + 1 right answers beside them.
    even = balance()
    assert (even.right_per_step, even.draws_per_epoch, even.rows_per_epoch) == (2, 7, 14)
    draws: Counter[int] = Counter()
    for epoch in range(5):
        steps = list(even.steps(epoch))
        assert [(len(step), sum(row >= 7 for row in step)) for step in steps] == [(4, 2), (4, 2), (4, 2), (2, 1)]
        assert sorted(row for step in steps for row in step if row < 7) == [*range(7)]
        draws.update(row for step in steps for row in step if row >= 7)
        # 7 draws per epoch of 3 right answers: each was drawn as often as the others, or once less.
        assert draws.total() == 7 * (epoch + 1)
        assert max(draws.values()) - min(draws.values()) <= 1
    assert total_steps(TrainSection(), even.rows_per_epoch, 4) == 2 * 4
    # 0.3 of 4 is one row (1.2): 3 + 3 + 1 corrections, and 1 + 1 + round(1/3) = 0 right answers.
    third = balance(0.3)
    assert [[row >= 7 for row in step].count(True) for step in third.steps(0)] == [1, 1, 0]
    assert third.rows_per_epoch == 9


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    def order(seed: int, epoch: int) -> list[list[int]]:
        return list(balance(seed=seed).steps(epoch))

    assert order(0, 3) == order(0, 3)
    assert len({str(order(seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4


@pytest.mark.parametrize("layout", [{"micro": 4}, {"micro": 1}, {"micro": 2, "ranks": 2}, {"tokens": 40}])
def test_a_step_has_the_same_rows_in_every_layout(layout: dict[str, int]) -> None:
    made = balance()
    tokens = [pair.shared_tokens for pair in ROWS]
    if "tokens" in layout:
        section = TrainSection(keep_share=0.5, batch_size=4, tokens_per_micro_batch=layout["tokens"])
        plan = plan_layout(section, ROWS, share=True, seed=0)
    else:
        ranks = layout.get("ranks", 1)
        plan = Layout(4, 4 // (layout["micro"] * ranks), ranks)
    for epoch in range(3):
        turns = list(plan_epoch(tokens, layout=plan, balance=made, seed=0, epoch=epoch))
        assert len(turns) == plan.rounds_in_epoch(made.rows_per_epoch)
        for number, step in enumerate(made.steps(epoch)):
            part = turns[number * plan.accumulate : (number + 1) * plan.accumulate]
            micro = [batch.members for turn in part for batch in turn if not batch.idle]
            assert Counter(row for members in micro for row in members) == Counter(step)
            if "tokens" in layout:
                assert all(sum(tokens[row] for row in members) <= layout["tokens"] for members in micro)


@pytest.mark.parametrize(
    ("share", "step", "rows", "message"),
    [
        (0.5, 4, ROWS[:7], "7 corrections and 0 rows without y-"),
        (0.5, 4, ROWS[7:], "0 corrections and 3 rows without y-"),
        (0.1, 4, ROWS, "0.1 of `batch_size` 4 is 0 rows, expected 1 to 3"),
        (0.9, 4, ROWS, "0.9 of `batch_size` 4 is 4 rows, expected 1 to 3"),
    ],
)
def test_what_cannot_be_balanced(share: float, step: int, rows: list[EncodedPair], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        Balance.of(TrainSection(keep_share=share), rows, step, 0)


def right(number: int) -> dict[str, Any]:
    row = pair(number, id=f"r{number}")
    del row["rejected"]
    return row


def test_a_balanced_run_resumes_to_the_same_weights(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, [*(pair(number) for number in range(13)), *(right(number) for number in range(30, 33))])
    settings = recipe(
        tiny_model, objective="spot-bco", keep_share=0.25, save_steps=1, save_total_limit=9, num_train_epochs=3
    )
    summary = train(settings, folder=tmp_path)
    # Steps of 8 with 2 right answers: 13 corrections take 6 + 6 + 1, and 2 + 2 + round(1/3) = 0 right answers.
    assert (summary.pairs, summary.unpaired, summary.rows_per_epoch, summary.steps) == (16, 3, 17, 9)
    assert [row["pairs"] for row in metrics(tmp_path / "checkpoint")] == [8, 8, 1] * 3
    shown = capsys.readouterr().err
    assert "2 of the 8 rows of a training step are right answers without y-; an epoch draws 4 times from 3" in shown
    output = tmp_path / "checkpoint"
    shutil.copytree(output, tmp_path / "whole")
    whole = metrics(output)
    undo(output)
    for step in (6, 7, 8, 9):  # the last whole checkpoint is in the middle of the second epoch
        shutil.rmtree(output / f"checkpoint-{step}")
    assert train(settings, folder=tmp_path).resumed_from == 5
    assert apart(tmp_path / "whole", output) == 0.0
    assert [row["loss"] for row in metrics(output)] == [row["loss"] for row in whole]
    # Without the key, all rows are trained on as often as the others.
    plain = train(recipe(tiny_model, objective="sft", output="plain"), folder=tmp_path, dry_run=True)
    assert (plain.rows_per_epoch, plain.steps) == (16, 4)
