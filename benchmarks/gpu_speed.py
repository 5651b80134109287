"""Speed and memory of training steps: spot with its options, spot without sharing, and TRL's DPOTrainer.

All sides train the same random model on the same token ids with the same number of pairs per micro-batch and the same
loss (spot-bce, TRL's ``bco_pair``). The clock waits for the GPU at the beginning and the end of each step; the first
``WARM`` steps are left out.

    share of peak = operations / seconds / peak rate

``operations`` are those of ``core.costs.training``: 2 per weight and token, 4 * width per query-key pair and layer, the
head on scored positions; backward twice that (once for frozen weights). What is computed a second time does not count,
and neither does the upper half of causal attention. The peak is the data sheet's dense bfloat16 rate of the device.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import gpu_models
from gpu_models import Machine

from spotcli.core import costs
from spotcli.core.forward import compiled_norms
from spotcli.core.forward.encoding import EncodedPair
from spotcli.training import reference, session
from spotcli.training.dry_run import setup_of, shape_of
from spotcli.training.plan import TrainPlan
from spotcli.training.trainer import PairTrainer

WARM = 2
"""Steps at the beginning that are not counted."""

Change = Callable[[Machine, Any], None]
"""Changes a model before it is trained."""


def clock(machine: Machine) -> Any:
    """A callback of transformers' Trainer with the ``seconds`` of each step."""
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        def __init__(self) -> None:
            self.seconds: list[float] = []

        def on_step_begin(self, *given: Any, **more: Any) -> None:
            machine.wait()
            self.started = time.perf_counter()

        def on_step_end(self, *given: Any, **more: Any) -> None:
            machine.wait()
            self.seconds.append(time.perf_counter() - self.started)

    return Clock()


def epoch_work(plan: TrainPlan) -> list[tuple[int, costs.Work]]:
    """Pairs and work of each micro-batch, in the order of the run."""
    from spotcli.core.forward.batches import plan_epoch, sizes

    turns = plan_epoch(sizes(plan.pairs, share=plan.share), layout=plan.layout, seed=plan.recipe.seed, epoch=0)
    batches = [[plan.pairs[index] for index in turn[0].members] for turn in turns]
    return [(len(batch), costs.row_work(batch, share=plan.share)) for batch in batches]


def train_ours(
    machine: Machine, name: str, pairs: Sequence[EncodedPair], train: dict[str, Any], *,
    share: bool = True, change: Change | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Train one epoch with spot's own trainer; speed, share of peak, and memory beside the estimate.

    Args:
        machine: where.
        name: the sizes of the model.
        pairs: one training step has ``batch_size`` of them.
        train: the train section of the recipe.
        share: compute common prefixes once.
        change: applied to the model before it is prepared for training.
    """
    plan = gpu_models.make_plan(machine, name, pairs, {"objective": "spot-bce", **train}, share=share)
    arguments = session.training_arguments(plan)
    machine.clear()
    prepared = gpu_models.prepare(machine, plan)
    logps = [reference.score(plan, prepared.model, [pair])[0].logps for pair in pairs]
    prepared = gpu_models.with_adapters(plan, prepared)
    if change is not None:
        change(machine, prepared.model)
    trainer = PairTrainer(model=prepared.model, args=arguments, plan=plan, reference=logps)
    trainer.rounded = prepared.rounded
    ticks = clock(machine)
    trainer.add_callback(ticks)
    trainer.resume(None)  # compares the first loss with the one that policy = reference requires
    batches = epoch_work(plan)[WARM * plan.layout.accumulate :]
    shape, setup = shape_of(plan.model, plan.section), setup_of(plan.section, plan.sharding)
    work = sum((work for _, work in batches), costs.Work(0, 0, 0))
    operations = costs.training(shape, work, checkpointing=False)
    largest = max((work for _, work in epoch_work(plan)), key=lambda work: costs.activations(shape, work, setup))
    estimate = costs.memory(shape, largest, setup)
    return {
        "first_loss": trainer.first_loss,
        "estimate_gib": sum(estimate.values()) - estimate["reserve"],
        "operations": sum(operations.values()) - operations["recompute"],
        **rates(machine, ticks.seconds, sum(count for count, _ in batches), work.tokens),
    }


def train_trl(machine: Machine, name: str, pairs: Sequence[EncodedPair], train: dict[str, Any]) -> dict[str, Any]:
    """Train one epoch with TRL's DPOTrainer: ``bco_pair``, precomputed reference, fused optimizer."""
    from datasets import Dataset
    from transformers import AutoConfig
    from trl import DPOConfig, DPOTrainer  # type: ignore[attr-defined]  # exported lazily

    class Tokenized(DPOTrainer):  # the same token ids on both sides
        def _prepare_dataset(self, dataset: Any, *others: Any) -> Any:
            return dataset

    plan = gpu_models.make_plan(machine, name, pairs, train, share=False)
    machine.clear()
    model = gpu_models.random_model(machine, AutoConfig.from_pretrained(plan.model), plan.precision.weights)
    lora = plan.section.lora
    if lora is not None:
        model = session.add_adapters(model, lora, 0)
    columns = ("prompt_ids", "chosen_ids", "rejected_ids")
    data = Dataset.from_list([{column: list(getattr(pair, column)) for column in columns} for pair in pairs])
    arguments = DPOConfig(
        str(machine.scratch / "trl"), loss_type=["bco_pair"], beta=0.1, precompute_ref_log_probs=True, max_length=None,
        bf16=plan.precision.compute == "bfloat16", use_cpu=not machine.is_gpu, optim="adamw_torch_fused",
        gradient_checkpointing=bool(train.get("gradient_checkpointing")), learning_rate=1e-6,
        per_device_train_batch_size=plan.layout.micro, gradient_accumulation_steps=plan.layout.accumulate,
        num_train_epochs=1, save_strategy="no", report_to="none", disable_tqdm=True, dataloader_pin_memory=False,
    )  # fmt: skip
    ticks = clock(machine)
    trainer = Tokenized(
        model, args=arguments, train_dataset=data, processing_class=empty_tokenizer(), callbacks=[ticks]
    )
    trainer.train()
    counted = pairs[WARM * plan.layout.step :]
    tokens = 2 * sum(pair.longest for pair in counted)
    return rates(machine, ticks.seconds, len(counted), tokens)


def empty_tokenizer() -> Any:
    """A tokenizer that TRL only asks for its padding token."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    load: Any = PreTrainedTokenizerFast  # its constructor has no annotations
    return load(
        tokenizer_object=Tokenizer(models.WordLevel({"<pad>": 0, "<eos>": 1}, unk_token="<pad>")),
        pad_token="<pad>", eos_token="<eos>",
    )  # fmt: skip


def rates(machine: Machine, seconds: Sequence[float], pairs: int, tokens: int) -> dict[str, Any]:
    """The figures of a run from the seconds of all its steps, and pairs and tokens of the steps after ``WARM``."""
    counted = sum(seconds[WARM:])
    return {
        "seconds": counted,
        "pairs_per_second": pairs / counted,
        "tokens_per_second": tokens / counted,
        "peak_gib": machine.peak_gib(),
    }


# --- options that spot does not set ---------------------------------------------------------------------------------


def liger_parts(machine: Machine, model: Any) -> None:
    """Liger's fused norm, rotary embedding and feed-forward block; spot's output layer stays."""
    from liger_kernel.transformers import apply_liger_kernel_to_qwen3

    bare = model.get_base_model() if hasattr(model, "get_base_model") else model
    apply_liger_kernel_to_qwen3(
        rope=True, cross_entropy=False, fused_linear_cross_entropy=False, rms_norm=True, swiglu=True, model=bare
    )


def compiled_norms_of(machine: Machine, model: Any) -> None:
    """``train.compile_norms``; a CPU traces the norms and compiles nothing."""
    compiled_norms.install(model, backend="inductor" if machine.is_gpu else "eager")


@contextmanager
def restored_qwen3() -> Iterator[None]:
    """Undo what Liger replaces in transformers' module of Qwen3."""
    from transformers.models.qwen3 import modeling_qwen3

    before = dict(vars(modeling_qwen3))
    try:
        yield
    finally:
        vars(modeling_qwen3).update(before)
