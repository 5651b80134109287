"""transformers' Trainer, made to train on pairs: its own plan of micro-batches, loss, shift and checkpoints.

What is different from the Trainer:

- A step's loss is normalised over the whole step (all micro-batches, all ranks), so that the accumulation layout and
  the smaller last step of an epoch change nothing.
- The order of the pairs is a function of seed and epoch alone (``core.packing.plan_epoch``), so a resumed run goes on
  with the pair it would have taken.
- A checkpoint counts only with ``spot-state.json`` in it, which is written last and names every other file with its
  size; it also holds the reward shift. Older checkpoints are removed after that, never before.
- The first loss is compared with what policy = reference demands, before the first update.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerCallback

from spotcli.core.forward.batches import Layout, MicroBatch, plan_epoch, sizes
from spotcli.core.forward.encoding import EncodedPair
from spotcli.core.forward.packing import Batch, pack
from spotcli.core.loss import LossInputs, Objective, RewardShift
from spotcli.errors import SpotError
from spotcli.jsonl import read_json, write_json
from spotcli.training import generation_check
from spotcli.training.reference import Logps

STATE = "spot-state.json"
SPANS = ("moved_kept", "moved_chosen", "moved_rejected")
"""How far log-probabilities have moved since the start, in nats a token: on what both answers have (in y+), on what y+
has alone, on what y- has alone."""


@dataclass(frozen=True)
class Task:
    """What is trained, beside the model and the Trainer's own arguments."""

    pairs: Sequence[EncodedPair]
    reference: Sequence[Logps] | None
    """Of each pair, under the starting policy; absent for objectives without one."""
    objective: Objective
    beta: float
    shift: RewardShift
    share: bool
    layout: Layout
    """How a step is cut; it agrees with the Trainer's arguments."""
    precision: Callable[[], AbstractContextManager[Any]]
    """The context of every forward pass; the reference was computed in the same."""
    tolerance: float
    """How far the first loss may be from what policy = reference demands."""
    keep_last: bool
    """Write a checkpoint after the last step too, although the finished model follows at once."""
    check: generation_check.Check | None = None


class _Rounds:
    """The batch sampler of one rank: the micro-batches of the epoch that the trainer is in."""

    def __init__(self, task: Task, rank: int, seed: int) -> None:
        self.sizes = sizes(task.pairs, share=task.share)
        self.layout, self.rank, self.seed = task.layout, rank, seed
        self.epoch: Callable[[], int] = lambda: 0

    def __len__(self) -> int:
        return self.layout.rounds_in_epoch(len(self.sizes))

    def __iter__(self) -> Iterator[list[MicroBatch]]:
        for turn in plan_epoch(self.sizes, layout=self.layout, seed=self.seed, epoch=self.epoch()):
            yield [turn[self.rank]]


class _Packed(torch.utils.data.Dataset[dict[str, Any]]):
    """Micro-batches as tensors, packed when they are asked for."""

    def __init__(self, task: Task) -> None:
        self.task = task

    def __len__(self) -> int:
        return len(self.task.pairs)

    def __getitem__(self, micro: MicroBatch) -> dict[str, Any]:
        members = [self.task.pairs[at] for at in micro.members]
        batch = pack(members, share=self.task.share, rejected=self.task.objective.rejected)
        inputs: dict[str, Any] = {"batch": batch, "idle": micro.idle}
        if self.task.reference is not None:
            # Numbers, not a tensor: under DeepSpeed the Trainer would round a tensor to bf16.
            inputs["reference"] = tuple(self.task.reference[at] for at in micro.members)
        return inputs


class _EachStep(TrainerCallback):
    """Calls back into the trainer at the two moments of a step that it offers no method for."""

    def __init__(self, trainer: PairTrainer) -> None:
        self.trainer = trainer

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer.before_update()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer.after_update()
        if self.trainer.check():
            control.should_log = True


class PairTrainer(Trainer):
    """Trains a model that ``core.logps.install`` has prepared.

    Args:
        model: the policy; bare, or wrapped by peft.
        args: transformers' TrainingArguments.
        task: the pairs and the objective.
        report: told the numbers of each logged step; on the first rank.

    Raises:
        SpotError: the first loss is not what policy = reference demands; from ``train``.
    """

    # The loss below is normalised over the whole step already.
    loss_is_scaled_for_ga = True

    def __init__(
        self, *, model: Any, args: Any, task: Task, report: Callable[[dict[str, Any]], None] | None = None
    ) -> None:
        self.task = task
        self.report = report
        super().__init__(model=model, args=args, train_dataset=_Packed(task), data_collator=lambda rows: rows[0])
        for noisy in (PrinterCallback, ProgressCallback):
            self.remove_callback(noisy)
        self.add_callback(_EachStep(self))
        self.first_loss: float | None = None
        self._names: list[str] = []
        self._sums: torch.Tensor | None = None
        self._totals = (0.0, 0.0)
        self._row: dict[str, Any] = {}
        self._unlogged: list[dict[str, float]] = []
        self._checked: dict[str, float] = {}
        self._started = time.monotonic()

    # --- data ---------------------------------------------------------------------------------------------------

    def get_train_dataloader(self) -> Any:
        args = self.args
        rounds = _Rounds(self.task, args.process_index, args.seed)
        steps = math.ceil(len(rounds) / args.gradient_accumulation_steps)
        rounds.epoch = lambda: self.state.global_step // steps
        return torch.utils.data.DataLoader(
            _Packed(self.task),
            batch_sampler=rounds,
            collate_fn=self.data_collator,
            num_workers=args.dataloader_num_workers,
            pin_memory=False,
        )

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> tuple[list[Any], None]:
        """A step's micro-batches of this rank; counts the pairs and chosen tokens of the whole step on the way."""
        samples = list(islice(epoch_iterator, num_batches))
        counted = [inputs["batch"] for inputs in samples if not inputs["idle"]]
        mine = [sum(batch.pairs for batch in counted), sum(int(batch.chosen_N.sum()) for batch in counted)]
        pairs, tokens = self._over_ranks(torch.tensor(mine, dtype=torch.float64)).tolist()
        self._totals = (pairs, tokens)
        self._started = time.monotonic()
        return samples, None

    # --- loss ---------------------------------------------------------------------------------------------------

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        batch: Batch = inputs["batch"].to(self.args.device)
        with self.task.precision():
            logps_N = model(**batch.model_inputs())
        chosen_B, rejected_B = batch.sequence_logps(logps_N)
        reference_B4 = None
        if "reference" in inputs:
            reference_B4 = torch.tensor(inputs["reference"], dtype=chosen_B.dtype, device=chosen_B.device)
        outputs = self.task.objective(
            LossInputs(
                policy_chosen_logps_B=chosen_B,
                policy_rejected_logps_B=rejected_B if self.task.objective.rejected else None,
                reference_chosen_logps_B=None if reference_B4 is None else reference_B4[:, 0],
                reference_rejected_logps_B=None if reference_B4 is None else reference_B4[:, 1],
                chosen_token_logps_T=batch.chosen_token_logps(logps_N),
                step_pairs=self._totals[0],
                step_tokens=self._totals[1],
            ),
            beta=self.task.beta,
            shift=self.task.shift.value,
        )
        loss = outputs.loss * (0.0 if inputs["idle"] else 1.0)
        self._names = list(outputs.metrics)
        metrics = [loss.detach(), *(metric_B.sum() for metric_B in outputs.metrics.values())]
        spans = self._spans(batch, logps_N.detach(), reference_B4)
        sums = torch.cat([torch.stack(metrics).double(), spans, spans.new_tensor([batch.ids_RL.numel()])])
        if inputs["idle"]:
            sums.zero_()
        self._sums = sums if self._sums is None else self._sums + sums
        # DDP and DeepSpeed average gradients over ranks; the shares are to be added.
        loss = loss * self.args.world_size
        return (loss, None) if return_outputs else loss

    @staticmethod
    def _spans(batch: Batch, logps_N: torch.Tensor, reference_B4: torch.Tensor | None) -> torch.Tensor:
        """How far the log-probabilities of each span have moved, and tokens of each span, [6]."""
        if reference_B4 is None:
            return logps_N.new_zeros(6, dtype=torch.double)
        before = reference_B4.double().sum(0)
        moved = batch.span_sums(logps_N.double()) - torch.stack([before[0] - before[2], before[2], before[3]])
        return torch.cat([moved, batch.span_sums(torch.ones_like(logps_N, dtype=torch.double))])

    def _over_ranks(self, values: torch.Tensor) -> torch.Tensor:
        if self.args.world_size == 1:
            return values
        summed: torch.Tensor = self.accelerator.reduce(values.to(self.args.device), reduction="sum")
        return summed

    # --- steps --------------------------------------------------------------------------------------------------

    def before_update(self) -> None:
        """Gradients are complete: sum up the step, and at the very first one hold the loss against theory."""
        assert self._sums is not None
        loss, *sums = self._over_ranks(self._sums).tolist()
        *sums, run = sums
        sums, moved, tokens_of = sums[:-6], sums[-6:-3], sums[-3:]
        self._sums = None
        pairs, tokens = self._totals
        self._row = {"loss": loss} | {name: total / pairs for name, total in zip(self._names, sums, strict=True)}
        self._row |= {"pairs": pairs, "tokens": tokens, "tokens_run": run}
        if self.task.reference is not None:
            spans = zip(SPANS, moved, tokens_of, strict=True)
            self._row |= {name: total / number if number else 0.0 for name, total, number in spans}
        if self.task.objective.shifted:
            self._row["shift"] = self.task.shift.value
        if self.state.global_step == 0:
            self.first_loss = loss
            self._check_first(loss)

    def _check_first(self, loss: float) -> None:
        expected = self.task.objective.first_loss
        if expected is None:
            return
        if self.task.shift.value and self.task.objective.shifted:
            # With a constant shift: -log s(-d) - log s(d).
            d = self.task.shift.value
            expected = math.log1p(math.exp(d)) + math.log1p(math.exp(-d))
        if not abs(loss - expected) <= self.task.tolerance:
            raise SpotError(
                f"the first loss is {loss:.6f}, and policy = reference demands {expected:.6f} "
                f"(±{self.task.tolerance:.1e}): the policy is not the model that the reference was computed with",
                cure="look for dropout in the model's configuration; delete reference.jsonl; try share_prefix: off",
            )

    def after_update(self) -> None:
        """The weights have moved: now the shift may, once."""
        if "rewards_chosen" in self._row:
            self.task.shift.update((self._row["rewards_chosen"] + self._row["rewards_rejected"]) / 2)
        self._row["seconds"] = time.monotonic() - self._started
        self._unlogged.append(self._row)

    def check(self) -> bool:
        """Have the policy answer, where it is time to; the numbers stand in the row of this step."""
        check = self.task.check
        if check is None or not check.due(self.state.global_step, self.state.max_steps):
            return False
        sums = self._over_ranks(torch.tensor([*check.counts(), 1.0], dtype=torch.float64))
        self._checked = generation_check.row(sums.tolist())
        return True

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Merge our numbers, averaged over the pairs since the last logged step, into the Trainer's."""
        rows, self._unlogged = self._unlogged, []
        if rows and "loss" in logs:
            weight = sum(row["pairs"] for row in rows)
            for name in rows[-1]:
                if name in ("pairs", "tokens", "tokens_run", "seconds"):
                    logs[name] = sum(row[name] for row in rows)
                elif name != "loss":
                    logs[name] = sum(row[name] * row["pairs"] for row in rows) / weight
            logs["loss"] = sum(row["loss"] for row in rows) / len(rows)
            logs["pairs_per_second"] = weight / max(logs["seconds"], 1e-9)
            logs["tokens_per_second"] = logs.pop("tokens_run") / max(logs["seconds"], 1e-9)
            logs |= self._checked
            self._checked = {}
        super().log(logs, start_time)
        if "loss" in logs and self.report is not None:
            self.report({"step": self.state.global_step, "steps": self.state.max_steps, **logs})

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """6 operations a parameter and token, forward and backward; attention not counted."""
        model: Any = self.model
        parameters = sum(each.numel() for each in model.parameters())
        return int(6 * parameters * inputs["batch"].ids_RL.numel())

    # --- checkpoints --------------------------------------------------------------------------------------------

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        if self.state.global_step >= self.state.max_steps and not self.task.keep_last:
            return
        folder = Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}"
        if self.args.should_save and folder.exists():
            shutil.rmtree(folder)  # what a kill left half-written
        self.accelerator.wait_for_everyone()
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self.args.save_total_limit = limit
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            files = {
                str(path.relative_to(folder)): path.stat().st_size
                for path in sorted(folder.rglob("*"))
                if path.is_file()
            }
            state = {
                "step": self.state.global_step,
                "shift": self.task.shift.state_dict(),
                "first_loss": self.first_loss,
            }
            write_json(folder / STATE, state | {"files": files})
            for old in checkpoints(folder.parent)[: -limit if limit else 0]:
                shutil.rmtree(old)
        self.accelerator.wait_for_everyone()

    def resume(self, checkpoint: Path | None) -> None:
        """Train, from a checkpoint where one is given."""
        if checkpoint is not None:
            state = read_json(checkpoint / STATE)
            self.task.shift.load_state_dict(state["shift"])
            self.first_loss = state["first_loss"]
        self.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)


def step_of(checkpoint: Path) -> int:
    """The step after which a checkpoint was written."""
    return int(checkpoint.name.rpartition("-")[2])


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoint folders of a run, oldest first, whole or not."""
    found = [path for path in folder.glob("checkpoint-*") if path.name.rpartition("-")[2].isdigit()]
    return sorted(found, key=step_of)


def last_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint of a run; one that a kill left half-written is passed over."""
    return next((path for path in reversed(checkpoints(folder)) if _whole(path)), None)


def _whole(checkpoint: Path) -> bool:
    try:
        files = read_json(checkpoint / STATE)["files"]
        return all((checkpoint / name).stat().st_size == size for name, size in files.items())
    except (SpotError, KeyError, OSError):
        return False
