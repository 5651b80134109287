"""The plan of a run: everything that is decided before weights are loaded."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spotcli import jsonl
from spotcli.console import note_renamed_fields, say, warn
from spotcli.core.forward.encoding import EncodedPair
from spotcli.decisions import STALE
from spotcli.policies import models
from spotcli.policies.fingerprint import fingerprint
from spotcli.policies.pair_encoder import CHOSEN_ONLY
from spotcli.recipe import Recipe, TrainSection
from spotcli.training import cluster, keys, settings
from spotcli.training.balance import Balance
from spotcli.training.batch_plan import epochs, plan_epoch, total_steps
from spotcli.training.data import PrefixSharing, TrainingData
from spotcli.training.rank import Ranks
from spotcli.training.run_folder import RunIdentity
from spotcli.training.starting_model import StartingModel
from spotcli.training.summary import TrainSummary

if TYPE_CHECKING:
    from spotcli.core.forward.batches import Layout, MicroBatch
    from spotcli.core.loss import Objective

_NOT_IDENTITY = {
    "data", "output", "processes", "nodes", "node", "main_address", "zero", "fsdp", "batch_size", "check_every",
    "check_problems", "max_bad_rows", "compile_norms", "displacement_every", "displacement_answers",
    "displacement_samples", "similarity",
}  # fmt: skip
"""Keys of the train section that do not change the weights, or that the identity holds in another form."""


@dataclass(frozen=True)
class TrainPlan:
    """What is trained on what, how each training step is cut, and how the processes share the work."""

    recipe: Recipe
    folder: Path
    """The folder that the paths of the recipe are relative to."""
    start: StartingModel
    data: TrainingData
    sharing: PrefixSharing
    layout: Layout
    """How a training step is cut into micro-batches."""
    ranks: Ranks

    @property
    def section(self) -> TrainSection:
        return self.recipe.train

    @property
    def model(self) -> str:
        """The name of the starting policy."""
        return self.recipe.model or ""

    @property
    def pairs(self) -> Sequence[EncodedPair]:
        return self.data.pairs

    @property
    def share(self) -> bool:
        """Whether common prefixes are computed once."""
        return self.sharing.on

    @property
    def steps(self) -> int:
        """Training steps of the whole run."""
        return total_steps(self.section, self.rows_per_epoch, self.layout.step)

    @cached_property
    def balance(self) -> Balance | None:
        """The rows of each training step; None: all rows in a random order."""
        return Balance.of(self.section, self.pairs, self.layout.step, self.recipe.seed)

    @property
    def rows_per_epoch(self) -> int:
        """Rows that an epoch trains on; with a balance, some of them several times or not at all."""
        return len(self.pairs) if self.balance is None else self.balance.rows_per_epoch

    def epoch(self, number: int) -> Iterator[tuple[MicroBatch, ...]]:
        """The micro-batches of an epoch, counted from 0, as tuples with one micro-batch per process."""
        return plan_epoch(self._sizes, layout=self.layout, balance=self.balance, seed=self.recipe.seed, epoch=number)

    @cached_property
    def _sizes(self) -> list[int]:
        """Tokens of each row."""
        from spotcli.core.forward.batches import sizes

        return sizes(self.pairs, share=self.share)

    @property
    def sharding(self) -> cluster.Sharding:
        """What divides memory among the processes."""
        return cluster.sharding(self.section)

    @cached_property
    def precision(self) -> settings.Precision:
        """The precision of the policy and of its reference."""
        return settings.precision(self.section)

    @property
    def data_file(self) -> Path:
        return self.folder / self.section.data

    @property
    def output(self) -> Path:
        """The folder of the trained model."""
        return self.folder / self.section.output

    @property
    def objective(self) -> Objective:
        from spotcli.core.loss import OBJECTIVES

        return OBJECTIVES[self.section.objective]

    @property
    def tethers_kept(self) -> bool:
        """Whether the loss has a tether on kept tokens."""
        return self.section.kept_kl > 0

    @property
    def needs_reference(self) -> bool:
        """Whether reference log-probabilities are computed."""
        return self.objective.reference or self.tethers_kept

    @cached_property
    def unpaired(self) -> bool:
        """Whether some rows have no y-, and the objective runs y-."""
        return self.objective.rejected and self.data.encoded.unpaired > 0

    @property
    def divided(self) -> bool:
        """Whether no process has whole weights between two training steps."""
        return self.sharding in cluster.DIVIDED

    @property
    def needs_launch(self) -> bool:
        """Whether the run needs processes of its own, and this is not one of them."""
        return (self.section.ranks > 1 or self.section.offload != "none") and not self.ranks.launched

    @cached_property
    def weights_digest(self) -> str:
        """Fingerprint of the starting policy's weights; reads them on first use."""
        own = fingerprint(models.resolve(self.model))
        if self.start.base is None:
            return own
        return f"{own} on {fingerprint(models.resolve(self.start.base))}"

    @cached_property
    def identity(self) -> RunIdentity:
        """Everything that the trained weights depend on; reads the data and the model's files on first use."""
        section, layout = self.section, self.layout
        shaping = section.model_dump(mode="json", include=set(TrainSection.model_fields) - _NOT_IDENTITY)
        arguments = keys.DEFAULTS | section.training_arguments
        arguments |= {"per_device_train_batch_size": layout.micro, "gradient_accumulation_steps": layout.accumulate}
        shaping |= {name: value for name, value in arguments.items() if not name.startswith(keys.FREE)}
        shaping |= {"seed": self.recipe.seed, "processes": section.ranks, "batch_size": layout.step}
        shaping["sharding"] = self.sharding
        inputs = {
            "data": jsonl.digest(self.data_file),
            "model": models.plain_name(self.model),
            "model weights": self.weights_digest,
        }
        if review := self.data.reviewed.digest:
            inputs["review"] = review
        # Values are compared with those of a JSON file, where tuples are lists.
        values: dict[str, Any] = json.loads(json.dumps({"settings": shaping, "inputs": inputs}))
        return RunIdentity(**values)

    def summary(self) -> TrainSummary:
        """The summary of the run before it starts."""
        encoded, section = self.data.encoded, self.section
        tokens, shared_tokens = self._tokens()
        return TrainSummary(
            checkpoint=str(self.output),
            objective=section.objective,
            pairs=len(encoded.pairs),
            rows=encoded.read,
            dropped=dict(encoded.dropped),
            emitted=encoded.emitted,
            unpaired=encoded.unpaired,
            epochs=epochs(section, self.rows_per_epoch, self.layout.step),
            batch_size=self.layout.step,
            steps=self.steps,
            tokens=tokens,
            shared_tokens=shared_tokens,
            shares_prefix=self.share,
            reviewed=dict(self.data.reviewed.counts),
            audit=self._audit(),
            rows_per_epoch=self.rows_per_epoch,
        )

    def _audit(self) -> dict[str, Any] | None:
        """The last audit of the data, and whether the data is still the same."""
        audit = self.data.reviewed.decisions.audit
        if audit is None:
            return None
        return {**audit.model_dump(), "text": str(audit), "current": audit.data == jsonl.digest(self.data_file)}

    def _tokens(self) -> tuple[int, int]:
        """Tokens of the first epoch: as separate rows, and as rows whose common beginnings are counted once."""
        from spotcli.core.forward.encoding import row_tokens

        rejected = self.section.objective not in CHOSEN_ONLY
        epoch = self.epoch(0)
        rows = [[self.pairs[index] for index in batch.members] for turn in epoch for batch in turn if not batch.idle]
        whole = sum(
            pair.whole_tokens if rejected else len(pair.prompt_ids) + len(pair.chosen_ids)
            for row in rows
            for pair in row
        )
        return whole, sum(row_tokens(row, rejected=rejected) for row in rows)


def show_plan(plan: TrainPlan, summary: TrainSummary) -> None:
    """Show what will be trained."""
    data = plan.data
    if data.template_date:
        say(f"the chat template asks for today's date and gets {data.template_date}, as in sampling")
    note_renamed_fields(plan.data_file, data.renamed)
    for error in data.invalid.first:
        warn(f"left out: {error.where}: {error.message}")
    dropped = ", ".join(f"{count} {reason}" for reason, count in sorted(summary.dropped.items()))
    unpaired = f", {summary.unpaired} of them without a rejected answer" if summary.unpaired else ""
    emitted = f", {summary.emitted} of them with the emitted token ids" if summary.emitted else ""
    end = f"; answers end with {data.end.text!r}" if data.end else ""
    left_out = f"; left out: {dropped}" if dropped else ""
    say(f"{summary.pairs} of {summary.rows} pairs{unpaired}{emitted}{end}{left_out}")
    if reviewed := summary.reviewed:
        names = {"accept": "accepted", "reject": "rejected and left out", "edited": "edited", "stale": "stale"}
        say("decisions of reviewers: " + ", ".join(f"{reviewed[key]} {names[key]}" for key in names if key in reviewed))
        if STALE in reviewed:
            warn("stale decisions have no effect: the text of these pairs has changed since")
    if data.end and data.end.note:
        warn(f"{data.end.note}; answers end with the tokenizer's {data.end.text!r}")
    epochs = "epoch" if summary.epochs == 1 else "epochs"
    shared = (
        f", or {summary.shared_tokens:,} with common beginnings counted once "
        f"({summary.tokens / summary.shared_tokens:.2f} times fewer)"
    )
    say(
        f"{summary.steps} training steps of {summary.batch_size} pairs, {summary.epochs:g} {epochs}; tokens per epoch: "
        f"{summary.tokens:,}{shared if plan.share else ''}"
    )
    if (balance := plan.balance) is not None:
        share = f"{balance.right_per_step} of the {balance.step} rows of a training step are right answers without y-"
        say(f"{share}; an epoch draws {balance.draws_per_epoch} times from {len(balance.right)}")
    if plan.sharing.reason:
        say(f"prompt and common beginning are computed twice: {plan.sharing.reason}")
    if plan.start.dropouts:
        values = ", ".join(f"{name} {value:g}" for name, value in plan.start.dropouts.items())
        say(f"dropout is switched off while training ({values}): it would make the policy differ from its reference")
    if plan.start.unnamed_dtype is not None:
        say(f"config.json names no number format; the weights are read as {plan.start.unnamed_dtype} and saved so")
    if plan.start.base is not None:
        how = "is trained on" if plan.section.lora is not None else "is merged into it, and all weights are trained"
        say(f"the model is an adapter of {plan.start.base}; it {how}")
    if plan.section.check_every and plan.divided:
        say("generation checks are off: with ZeRO-3 and FSDP no process has the whole weights to answer with")
