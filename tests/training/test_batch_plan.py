"""Batch sizes of a recipe, and the number of training steps."""

from __future__ import annotations

from typing import Any

import pytest

from spotcli.errors import RecipeError
from spotcli.recipe import TrainSection
from spotcli.training.batch_plan import BatchSize, batch_size, total_steps


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        # 32 pairs where nothing is set, 4 per micro-batch.
        ({}, BatchSize(32, 8)),
        ({"processes": 8}, BatchSize(32, 1)),
        ({"batch_size": 6}, BatchSize(6, 3)),
        ({"per_device_train_batch_size": 2, "gradient_accumulation_steps": 3, "processes": 4}, BatchSize(24, 3)),
        ({"batch_size": 16, "gradient_accumulation_steps": 2}, BatchSize(16, 2)),
        ({"tokens_per_micro_batch": 4096}, BatchSize(32, None)),
    ],
)
def test_batch_size_of_a_recipe(section: dict[str, Any], expected: BatchSize) -> None:
    assert batch_size(TrainSection(**section)) == expected


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"batch_size": 30, "processes": 8}, r"`batch_size` 30 does not fit 8 process\(es\)"),
        (
            {"tokens_per_micro_batch": 9, "gradient_accumulation_steps": 2},
            "`tokens_per_micro_batch` and `gradient_accumulation_steps` are mutually exclusive",
        ),
    ],
)
def test_contradicting_sizes_are_errors(section: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        batch_size(TrainSection(**section))


def test_total_steps() -> None:
    # 2 epochs of 3 steps; half an epoch more is 2 steps more; `max_steps` takes precedence.
    assert total_steps(TrainSection(), pairs=21, batch=8) == 6
    assert total_steps(TrainSection.model_validate({"num_train_epochs": 2.5}), pairs=21, batch=8) == 8
    assert total_steps(TrainSection.model_validate({"max_steps": 5}), pairs=21, batch=8) == 5
