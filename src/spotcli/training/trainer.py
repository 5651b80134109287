"""transformers' Trainer, adapted to pairs: its own micro-batches, loss, reward shift and checkpoints.

Differences from the Trainer:

- The loss is normalised over the whole training step (all micro-batches, all processes), so that the layout of the
  micro-batches and the smaller last step of an epoch do not change the result.
- The order of the pairs depends on seed and epoch alone (``training.batch_plan.plan_epoch``), so a resumed run
  continues with the right pair.
- A checkpoint is whole only with ``spot-state.json``, which is written last, lists all other files with their sizes and
  digests, and holds the reward shift. Older checkpoints are removed after that, never before.
- The first loss is compared with the expected one (policy equals reference) before the first update.
- A loss, gradient or weight that is not finite stops the run before it reaches the weights or a checkpoint.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerCallback

from spotcli.core.forward.batches import MicroBatch
from spotcli.core.forward.packing import Batch, pack
from spotcli.core.forward.rounded_weights import RoundedWeights
from spotcli.core.loss import Objective
from spotcli.core.reward_shift import RewardShift
from spotcli.errors import SpotError
from spotcli.jsonl import read_json
from spotcli.policies import models
from spotcli.training.displacement import Displacement
from spotcli.training.finite import check_step, diverged, not_finite_weights
from spotcli.training.generation_check import Check, CheckCounts
from spotcli.training.keys import keeps_checkpoints
from spotcli.training.plan import TrainPlan
from spotcli.training.reference import PairLogps
from spotcli.training.run_folder import STATE, checkpoints, seal_checkpoint
from spotcli.training.step_loss import StepLoss, first_loss_tolerance, loss_targets
from spotcli.training.step_metrics import SIZES, StepMetrics, StepSize, Totals, metrics_row


class _Rounds:
    """The batch sampler of one process: its micro-batches of the trainer's current epoch."""

    def __init__(self, plan: TrainPlan) -> None:
        self.plan = plan
        self.epoch: Callable[[], int] = lambda: 0

    def __len__(self) -> int:
        return self.plan.layout.rounds_in_epoch(self.plan.rows_per_epoch)

    def __iter__(self) -> Iterator[list[MicroBatch]]:
        for turn in self.plan.epoch(self.epoch()):
            yield [turn[self.plan.ranks.rank]]


class _Packed(torch.utils.data.Dataset[dict[str, Any]]):
    """Micro-batches as tensors, packed on access."""

    def __init__(self, plan: TrainPlan, reference: Sequence[PairLogps] | None) -> None:
        self.plan, self.reference = plan, reference
        self.rejected = plan.objective.rejected

    def __len__(self) -> int:
        return len(self.plan.pairs)

    def __getitem__(self, micro: MicroBatch) -> dict[str, Any]:
        plan, reference = self.plan, self.reference
        pairs = [plan.pairs[index] for index in micro.members]
        batch = pack(pairs, share=plan.share, rejected=self.rejected)
        known = None if reference is None else [reference[index] for index in micro.members]
        return {"batch": batch, "targets": loss_targets(plan, pairs, known), "idle": micro.idle}


class _StepCallback(TrainerCallback):
    """Calls the trainer at two moments of a training step for which it has no method to override."""

    def __init__(self, trainer: PairTrainer) -> None:
        self.trainer = trainer

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer.before_update()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer.after_update()
        checked, measured = self.trainer.run_check(), self.trainer.measure_displacement()
        if checked or measured:
            control.should_log = True


class PairTrainer(Trainer):
    """Trains a model that ``core.forward.logps.install`` has prepared.

    Args:
        model: the policy, with or without peft's wrapper.
        args: transformers' ``TrainingArguments``.
        plan: the run.
        reference: the reference of each pair; None for objectives without one.
        check: the generation checks, if there are any.
        report: called with the metrics of each logged step; on the main process.

    Raises:
        SpotError: the first loss differs from the expected one; from ``train``.
    """

    loss_is_scaled_for_ga = True
    """The loss is normalised over the whole training step already."""
    rounded: RoundedWeights | None = None
    """The weights of the products, if they are rounded stochastically."""
    displacement: Displacement | None = None
    """The meter of right answers to other problems, if there are any."""

    def __init__(
        self,
        *,
        model: Any,
        args: Any,
        plan: TrainPlan,
        reference: Sequence[PairLogps] | None,
        check: Check | None = None,
        report: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        section = plan.section
        self.plan, self.reference, self.check = plan, reference, check
        self.report = report
        self.objective: Objective = plan.objective
        self.shift = RewardShift.of(section.shift if self.objective.shifted else "none", decay=section.shift_decay)
        super().__init__(
            model=model, args=args, train_dataset=_Packed(plan, reference), data_collator=lambda rows: rows[0]
        )
        for callback in (PrinterCallback, ProgressCallback):
            self.remove_callback(callback)
        self.add_callback(_StepCallback(self))
        self.first_loss: float | None = None
        self._size = StepSize(0.0, 0.0)
        self._totals: Totals | None = None
        self._step: StepMetrics | None = None
        self._unlogged: list[StepMetrics] = []
        self._checked: dict[str, float] = {}
        self._grad_norm: float | None = None
        self._started = time.monotonic()

    def create_accelerator_and_postprocess(self) -> None:
        super().create_accelerator_and_postprocess()
        if self.plan.sharding == "fsdp" and not self.is_fsdp_enabled and torch.distributed.is_initialized():
            # accelerate divides weights on GPUs only; on CPUs it would train with DDP without a message.
            from accelerate.state import PartialState
            from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

            state = self.accelerator.state
            state.fsdp_plugin = FullyShardedDataParallelPlugin(cpu_offload=False)  # the weights are there already
            # Each new state object takes the type from the second one.
            state.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP
            self.is_fsdp_enabled = True

    # --- data ---------------------------------------------------------------------------------------------------

    def get_train_dataloader(self) -> Any:
        args = self.args
        rounds = _Rounds(self.plan)
        steps = math.ceil(len(rounds) / args.gradient_accumulation_steps)
        rounds.epoch = lambda: self.state.global_step // steps
        return torch.utils.data.DataLoader(
            _Packed(self.plan, self.reference),
            batch_sampler=rounds,
            collate_fn=self.data_collator,
            num_workers=args.dataloader_num_workers,
            pin_memory=False,
        )

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> tuple[list[Any], None]:
        """A training step's micro-batches of this process; also sets the size of the whole step."""
        samples = list(islice(epoch_iterator, num_batches))
        counts = [inputs["targets"].size(inputs["batch"]) for inputs in samples if not inputs["idle"]]
        totals = {name: sum(count[name] for count in counts) for name in SIZES}
        self._size = StepSize(**self._sum_over_ranks(Totals.of(totals)))
        self._started = time.monotonic()
        return samples, None

    # --- loss ---------------------------------------------------------------------------------------------------

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        batch: Batch = inputs["batch"].to(self.args.device)
        if self.rounded is not None:
            self.rounded.step = self.state.global_step
        with self.plan.precision():
            logps_N = model(**batch.model_inputs())
        step_loss = StepLoss(self.plan, self._size, self.shift.value, first=self.state.global_step == 0)
        loss, sums = step_loss(batch, inputs["targets"].to(logps_N), logps_N)
        loss = loss * (0.0 if inputs["idle"] else 1.0)
        totals = Totals.of({**sums, "tokens_run": batch.ids_RL.numel()}, logps_N.device)
        if inputs["idle"]:
            totals.values_K.zero_()
        self._totals = totals if self._totals is None else self._totals + totals
        # DDP and DeepSpeed average the gradients over the processes, but the loss of a step is the sum of its shares.
        loss = loss * self.args.world_size
        return (loss, None) if return_outputs else loss

    def _sum_over_ranks(self, totals: Totals) -> dict[str, float]:
        """The totals of all processes together."""
        if self.args.world_size > 1:
            values_K = self.accelerator.reduce(totals.values_K.to(self.args.device), reduction="sum")
            totals = Totals(totals.names, values_K)
        return totals.as_dict()

    # --- steps --------------------------------------------------------------------------------------------------

    def _get_grad_norm(self, *args: Any, **kwargs: Any) -> Any:
        norm = super()._get_grad_norm(*args, **kwargs)  # type: ignore[no-untyped-call]
        self._grad_norm = None if norm is None else float(norm.item() if hasattr(norm, "item") else norm)
        return norm

    def before_update(self) -> None:
        """Sum up the training step when its gradients are complete; check the loss of the first one.

        Raises:
            UserError: the loss or the gradients are not finite.
            SpotError: the first loss differs from the expected one.
        """
        assert self._totals is not None
        shift = self.shift.value if self.objective.shifted else None
        self._step = StepMetrics.of(self._sum_over_ranks(self._totals), self._size, shift)
        self._totals = None
        check_step(self.plan, self.model, self.state.global_step + 1, self._step.loss, self._grad_norm)
        if self.state.global_step == 0:
            self.first_loss = self._step.loss
            self._check_first_loss(self._step.loss, self._step.first_loss)

    def _check_weights(self) -> None:
        """Check that every weight is finite, before weights are saved.

        Raises:
            UserError: one is not, on any process.
        """
        names = not_finite_weights(self.model)
        if self._sum_over_ranks(Totals.of({"count": len(names)}))["count"]:
            what = f"a weight is not finite ({names[0]})" if names else "a weight is not finite"
            raise diverged(self.plan, what, self.state.global_step)

    def _check_first_loss(self, loss: float, expected: float | None) -> None:
        tolerance = first_loss_tolerance(self.plan)
        if expected is not None and not abs(loss - expected) <= tolerance:
            raise SpotError(
                f"the first loss is {loss:.6f}, expected {expected:.6f} ± {tolerance:.1e} (policy equals reference): "
                "the policy differs from the model that computed the reference",
                cure="check the model's configuration for dropout; delete reference.jsonl; try share_prefix: off",
            )

    def after_update(self) -> None:
        """Update the reward shift, once per training step and only after the weights."""
        assert self._step is not None
        if (mean_reward := self._step.mean_reward) is not None:
            self.shift.update(mean_reward)
        self._step.seconds = time.monotonic() - self._started
        self._unlogged.append(self._step)

    def run_check(self) -> bool:
        """Run a generation check if it is due after this step; its metrics go into the row of this step."""
        check = self.check
        if check is None or not check.due(self.state.global_step, self.state.max_steps):
            return False
        if self.rounded is not None:
            self.rounded.step = self.state.global_step
        counts = CheckCounts(**self._sum_over_ranks(Totals.of(check.counts().as_dict())))
        self._checked = counts.metrics(ranks=self.args.world_size)
        return True

    def measure_displacement(self) -> bool:
        """Score right answers to other problems if that is due after this step; the metrics go into its row."""
        meter = self.displacement
        if meter is None or not meter.due(self.state.global_step, self.state.max_steps):
            return False
        if self.rounded is not None:
            self.rounded.step = self.state.global_step
        self._checked |= meter.metrics(self._sum_over_ranks(Totals.of(meter.sums(self.model))))
        return True

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add our metrics of the training steps since the last logged one."""
        steps, self._unlogged = self._unlogged, []
        if steps and "loss" in logs:
            logs |= metrics_row(steps) | self._checked
            self._checked = {}
        super().log(logs, start_time)
        if "loss" in logs and self.report is not None:
            self.report({"step": self.state.global_step, "steps": self.state.max_steps, **logs})

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """6 operations per parameter and token, forward and backward; without attention."""
        model: Any = self.model
        parameters = sum(parameter.numel() for parameter in model.parameters())
        return int(6 * parameters * inputs["batch"].ids_RL.numel())

    # --- checkpoints --------------------------------------------------------------------------------------------

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        # The finished model follows the last step, so its checkpoint is only written if checkpoints are kept.
        if self.state.global_step >= self.state.max_steps and not keeps_checkpoints(self.plan.section):
            return
        self._check_weights()
        folder = Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}"
        if self.args.should_save and folder.exists():
            shutil.rmtree(folder)  # not whole: a kill interrupted it
        self.accelerator.wait_for_everyone()
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self.args.save_total_limit = limit
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            models.load_tokenizer(self.plan.model).save_pretrained(folder)  # `spot eval` loads any checkpoint
            shift = self.shift.state_dict()
            seal_checkpoint(folder, {"step": self.state.global_step, "shift": shift, "first_loss": self.first_loss})
            for old in checkpoints(folder.parent)[: -limit if limit else 0]:
                shutil.rmtree(old)
        self.accelerator.wait_for_everyone()

    def resume(self, checkpoint: Path | None) -> None:
        """Train, from a checkpoint if there is one.

        Raises:
            UserError: the loss, the gradients or the weights are not finite.
            SpotError: the first loss differs from the expected one.
        """
        if checkpoint is not None:
            state = read_json(checkpoint / STATE)
            self.shift.load_state_dict(state["shift"])
            self.first_loss = state["first_loss"]
        self.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        self._check_weights()
