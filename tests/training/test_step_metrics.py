"""Sums of a training step and the row of metrics made of them, worked out by hand."""

from __future__ import annotations

import pytest
import torch

from spotcli.training.step_metrics import StepMetrics, StepSize, Totals, logp_change_sums, metrics_row


def step(loss: float, margin: float, pairs: float, seconds: float = 1.0) -> StepMetrics:
    sums = {
        "loss": loss,
        "margin": margin * pairs,
        # Kept: 4 tokens, changed by 1 nat together; edited in y+: 2 tokens by 3; edited in y-: no token.
        **Totals.of(logp_change_sums(torch.tensor([1.0, 3.0, 0.0]), torch.tensor([4.0, 2.0, 0.0]))).as_dict(),
        "tokens_run": 100.0,
    }
    metrics = StepMetrics.of(sums, StepSize(pairs, tokens=10 * pairs), shift=0.5)
    metrics.seconds = seconds
    return metrics


def test_totals_add_up_by_name_in_one_tensor() -> None:
    total = Totals.of({"loss": torch.tensor(0.25), "tokens_run": 7}) + Totals.of({"loss": 0.5, "tokens_run": 3})
    assert total.values_K.dtype == torch.float64
    assert total.as_dict() == {"loss": 0.75, "tokens_run": 10.0}


def test_step_metrics_are_means_over_pairs_and_tokens() -> None:
    metrics = step(loss=1.5, margin=2.0, pairs=8)
    assert (metrics.loss, metrics.means, metrics.tokens_run) == (1.5, {"margin": 2.0}, 100.0)
    assert metrics.logp_changes == {
        "logp_change_kept": 0.25, "logp_change_chosen_edited": 1.5, "logp_change_rejected_edited": 0.0,
    }  # fmt: skip


def test_row_of_metrics_weighs_steps_by_their_pairs() -> None:
    row = metrics_row([step(loss=1.0, margin=1.0, pairs=8), step(loss=2.0, margin=4.0, pairs=4, seconds=3.0)])
    # The loss is the mean of the two steps, the margin the mean over 12 pairs: (8 * 1 + 4 * 4) / 12.
    assert (row["loss"], row["margin"]) == (1.5, 2.0)
    assert (row["pairs"], row["tokens"], row["seconds"], row["shift"]) == (12, 120, 4.0, 0.5)
    assert (row["pairs_per_second"], row["tokens_per_second"]) == (3.0, 50.0)
    assert row["logp_change_chosen_edited"] == pytest.approx(1.5)


def test_rows_without_a_rejected_answer_have_their_own_mean() -> None:
    # Step 1: 3 pairs and a row without y-; step 2: 2 rows without; step 3: a pair.
    sums = [
        {"loss": 1.0, "margin": 6.0, "rewards_chosen": 3.0, "rewards_rejected": -3.0, "rewards_kept": 0.5},
        {"loss": 2.0, "margin": 0.0, "rewards_chosen": 0.0, "rewards_rejected": 0.0, "rewards_kept": 4.0},
        {"loss": 3.0, "margin": 4.0, "rewards_chosen": 1.0, "rewards_rejected": -3.0, "rewards_kept": 0.0},
    ]
    sizes = [StepSize(4, 40, 1), StepSize(2, 20, 2), StepSize(1, 10, 0)]
    steps = [
        StepMetrics.of({**sum, "tokens_run": 10.0}, size, shift=0.0) for sum, size in zip(sums, sizes, strict=True)
    ]
    assert steps[0].means == {"margin": 2.0, "rewards_chosen": 1.0, "rewards_rejected": -1.0, "rewards_kept": 0.5}
    assert steps[1].means == {"rewards_kept": 2.0}
    # m of the shift: the mean over pairs; a step without pairs has none.
    assert [step.mean_reward for step in steps] == [0.0, None, -1.0]
    row = metrics_row(steps)
    assert (row["pairs"], row["unpaired"]) == (7, 3)
    # (6 + 4) / 4 pairs, and (0.5 + 4) / 3 rows without y-.
    assert (row["margin"], row["rewards_kept"]) == (2.5, 1.5)


def test_row_without_a_reference_has_no_changes_and_no_shift() -> None:
    size = StepSize(2, 20)
    metrics = StepMetrics.of({"loss": 1.0, "logps_chosen": -6.0, "tokens_run": 30.0}, size, shift=None)
    metrics.seconds = 2.0
    assert list(metrics_row([metrics])) == [
        "loss", "logps_chosen", "pairs", "tokens", "seconds", "pairs_per_second", "tokens_per_second",
    ]  # fmt: skip
