"""Losses and gradients against TRL, on the same batches with the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from spotcli.core.forward import logps, shared_attention
from spotcli.core.forward.encoding import EncodedPair
from spotcli.core.forward.packing import pack
from spotcli.core.loss import OBJECTIVES, Coefficients, LossInputs

# TRL and its dependencies emit warnings that this package cannot fix.
pytestmark = pytest.mark.filterwarnings("default")

BETA = 0.3
PROMPT, SHARED = (5, 9, 4, 31, 7), (12, 13, 14, 15)
# Surgical pairs, a pair without a common beginning, and a pair with one answer as a prefix of the other.
PAIRS = [
    EncodedPair(PROMPT, (*SHARED, 20, 21, 1), (*SHARED, 30, 1)),
    EncodedPair((5, 9, 8), (*SHARED, 20, 1), (*SHARED, 30, 31, 32, 33, 1)),
    EncodedPair((6, 9, 8, 2), (40, 41, 42, 1), (50, 51, 1)),
    EncodedPair((5, 9, 8, 2, 3, 4), (60, 61, 62, 1), (60, 61)),
]


def trl_loss(model: Any, tokenizer: Any, loss_type: str, folder: Path) -> tuple[float, dict[str, torch.Tensor], Any]:
    """Return loss and gradients of TRL, and its reference log-probabilities from before the policy changed."""
    from datasets import Dataset
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer

    class Tokenized(DPOTrainer):  # trains on the given token ids
        def _prepare_dataset(self, dataset: Any, *others: Any) -> Any:
            return dataset

    columns = ("prompt_ids", "chosen_ids", "rejected_ids")
    rows = Dataset.from_list([{name: list(getattr(pair, name)) for name in columns} for pair in PAIRS])
    arguments = DPOConfig(
        str(folder), loss_type=[loss_type], beta=BETA, precompute_ref_log_probs=True, bf16=False, use_cpu=True,
        gradient_checkpointing=False, report_to="none", disable_tqdm=True, per_device_train_batch_size=len(PAIRS),
    )  # fmt: skip
    trainer = Tokenized(model, args=arguments, train_dataset=rows, processing_class=tokenizer)
    reference: Any = trainer.train_dataset
    change(model)
    batch = trainer.data_collator([reference[index] for index in range(len(PAIRS))])
    compute_loss: Any = trainer.compute_loss
    loss = compute_loss(model, batch)
    loss.backward()
    return loss.item(), gradients(model), reference


def change(model: Any) -> None:
    """Change the policy as some training steps would, so that rewards are far from 0."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.05 * torch.randn(weight.shape, generator=generator)


def gradients(model: Any) -> dict[str, torch.Tensor]:
    return {name: weight.grad.clone() for name, weight in model.named_parameters()}


@pytest.mark.parametrize(
    ("objective", "loss_type"), [("spot-bce", "bco_pair"), ("dpo", "sigmoid"), ("nca", "nca_pair"), ("sft", "sft")]
)
@pytest.mark.parametrize("share", [True, False])
def test_loss_and_gradients_equal_trl(
    tiny_model: Path, tmp_path: Path, objective: str, loss_type: str, share: bool
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    peer = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    theirs, their_gradients, reference = trl_loss(peer, tokenizer, loss_type, tmp_path)

    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    logps.install(model)
    if share:
        shared_attention.register()
        model.set_attn_implementation(shared_attention.NAME)
    batch = pack(PAIRS, share=share)
    with torch.no_grad():
        before = batch.sequence_logps(model(**batch.model_inputs()))
    for ours, name in zip(before, ("ref_chosen_logps", "ref_rejected_logps"), strict=True):
        assert ours.tolist() == pytest.approx(list(reference[name]), rel=1e-4)
    change(model)
    logps_N = model(**batch.model_inputs())
    chosen_B, rejected_B = batch.sequence_logps(logps_N)
    inputs = LossInputs(chosen_B, rejected_B, *before, chosen_token_logps_T=batch.chosen_token_logps(logps_N))
    out = OBJECTIVES[objective](inputs, Coefficients(BETA))
    torch.autograd.backward(out.loss)
    first_loss = OBJECTIVES[objective].first_loss(inputs)
    # Far from where training starts.
    assert theirs > 1 if first_loss is None else abs(theirs - first_loss.item()) > 0.01
    assert out.loss.item() == pytest.approx(theirs, rel=1e-4)
    for name, gradient in gradients(model).items():
        expected = their_gradients[name]
        assert (gradient - expected).norm() <= 1e-4 * expected.norm(), name
