"""pairs -> checkpoint: train the policy on its corrected answers.

    spot train recipes/qwen3-8b.yaml

Reads the pairs, tokenises them, computes the log-probabilities of the starting policy once, trains with transformers'
``Trainer`` (``training.trainer``), and saves the model for transformers and vLLM. The output folder holds

    config.json, *.safetensors, tokenizer ...    the trained model, in the precision of its source (or a LoRA adapter)
    README.md                                    the model card
    recipe.yaml                                  the resolved recipe
    spot-train.json                              settings, inputs, versions and summary of the run
    metrics.jsonl                                the metrics of every logged training step
    checkpoint-N/                                the state that an interrupted run resumes from

A rerun with the same settings resumes from the last whole checkpoint, and does nothing if the run is complete. With
other settings it stops and names the differences. Evaluation during training is left to ``spot eval``;
``training.generation_check`` only checks whether the policy still answers.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import ExitStack, closing, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from spotcli import recipe_yaml
from spotcli.console import progress, say
from spotcli.errors import RecipeError, SpotError, Unfinished
from spotcli.recipe import Recipe
from spotcli.training import cluster, keys, settings
from spotcli.training.batch_plan import batch_size, plan_layout
from spotcli.training.data import decide_sharing, load_data
from spotcli.training.displacement import Displacement, check_samples_file, load_displacement
from spotcli.training.dry_run import estimate_cost, show_estimate
from spotcli.training.model_card import card
from spotcli.training.plan import TrainPlan, show_plan
from spotcli.training.progress import Metrics, Report, counter
from spotcli.training.rank import Ranks, phase, run_as_rank
from spotcli.training.run_folder import RunFolder, RunMeta, step_of
from spotcli.training.similarity import check_similarity, similarity_quantiles, write_similarity
from spotcli.training.starting_model import inspect_model
from spotcli.training.summary import TrainSummary
from spotcli.training.survival import show_survival

if TYPE_CHECKING:
    from rich.progress import Progress

    from spotcli.training.reference import ReferenceRow
    from spotcli.training.session import PreparedModel

__all__ = ["TrainSummary", "train"]


def train(
    recipe: Recipe,
    *,
    folder: Path,
    fresh: bool = False,
    dry_run: bool = False,
    device: str = "h800",
    utilisation: float = 0.4,
) -> TrainSummary:
    """Train ``recipe.model`` on ``recipe.train.data``.

    Args:
        recipe: paths of its train section are relative to ``folder``.
        folder: the run's folder.
        fresh: rename an existing output folder and restart.
        dry_run: show what would be trained and its estimated cost; load no weights, write nothing.
        device: the GPU of a dry run; a name in ``core.costs.DEVICES``.
        utilisation: the share of the GPU's peak that a dry run assumes.

    Raises:
        RecipeError: the model is missing, a key is unknown or reserved, or settings contradict each other.
        DataError: a row is invalid, or no pair is left to train on.
        SettingsChanged: the output folder holds a run with other settings.
        UserError: the model cannot be trained, its files are damaged, or the run diverged.
        SpotError: the first loss differs from the expected one, or training failed.
    """
    started = time.monotonic()
    with recipe_yaml.located(recipe):
        recipe = _checked(recipe, launching=not dry_run)
        check_samples_file(recipe.train, folder)
        start = inspect_model(recipe.model or "", recipe.train)
        data = load_data(recipe, folder / recipe.train.data, rough=dry_run, start=start)
        sharing = decide_sharing(recipe.train, recipe.model or "", data.pairs)
        layout = plan_layout(recipe.train, data.pairs, share=sharing.on, seed=recipe.seed)
    plan = TrainPlan(recipe, folder, start, data, sharing, layout, Ranks.of(os.environ))
    summary = plan.summary()
    if plan.ranks.is_main:
        show_plan(plan, summary)
    if dry_run:
        estimate = estimate_cost(plan, device=device, utilisation=utilisation)
        show_estimate(estimate)
        return replace(summary, estimate=estimate)
    run = RunFolder(plan.output)
    # Launched processes and further machines work for the command that has the lock.
    leads = not plan.ranks.launched and not plan.section.node
    with run.lock() if leads else nullcontext():
        if fresh:
            run.set_aside()
        if (complete := run.finished(plan.identity)) is not None:
            say(f"{run.path}: already trained with these settings; nothing to do")
            return complete
        if leads:
            run.remove_damaged()
        if plan.needs_launch:
            return _launch(plan, run, summary, started)
        return _train(plan, run, summary, started)


def _checked(recipe: Recipe, *, launching: bool) -> Recipe:
    """The recipe with Slurm's settings, after the checks that need neither data nor weights."""
    if recipe.model is None:
        raise RecipeError("the model is missing", where="model", cure="set `model:` in the recipe")
    settings.quiet_libraries()
    section = cluster.with_slurm(recipe.train, os.environ)
    cluster.check_quantize(section)
    check_similarity(section)
    if launching:
        cluster.check_launch(section)
    keys.check_keys(section.training_arguments)
    batch_size(section)  # raises here, before the data is read
    return recipe.model_copy(update={"train": section})


def _train(plan: TrainPlan, run: RunFolder, summary: TrainSummary, started: float) -> TrainSummary:
    """Train in this process, alone or as one of several."""
    import torch

    from spotcli.training import session
    from spotcli.training.generation_check import load_check
    from spotcli.training.saving import Saver
    from spotcli.training.trainer import PairTrainer

    arguments = session.training_arguments(plan)
    checkpoint = run.last_checkpoint()
    resumed_from = step_of(checkpoint) if checkpoint else 0
    with ExitStack() as stack:
        metrics = display = meta = report = None
        if plan.ranks.is_main:
            metrics = stack.enter_context(closing(Metrics(run.metrics)))
            display = stack.enter_context(progress("pairs", lines=False))
            meta = _start(plan, run, metrics, resumed_from)
        prepared, reference, displacement = _prepare(plan, display)
        saver = Saver.of(plan, prepared.model, prepared.saved)
        check = load_check(plan, prepared.model, prepared)
        if display is not None:
            report = Report(display, summary, resumed_from, metrics)
        if plan.ranks.launched:
            phase("training")
        logps = None if reference is None else [row.logps for row in reference]
        trainer = PairTrainer(
            model=prepared.model, args=arguments, plan=plan, reference=logps, check=check, report=report
        )
        trainer.rounded, trainer.displacement = prepared.rounded, displacement
        try:
            trainer.resume(checkpoint)
        except KeyboardInterrupt:
            raise _interrupted(plan, run) from None
        except (torch.OutOfMemoryError, MemoryError) as error:
            first_line = str(error).splitlines()[0]
            raise SpotError(f"out of memory: {first_line}", cure=settings.MEMORY_CURE) from error
        survival = saver.save(trainer)
        if report is None or meta is None:
            return summary
        if not keys.keeps_checkpoints(plan.section):
            run.remove_checkpoints()
        summary = replace(
            summary,
            seconds=round(time.monotonic() - started, 1),
            pairs_per_second=report.pairs_per_second,
            first_loss=trainer.first_loss,
            final=report.final,
            resumed_from=resumed_from or None,
            saved=survival,
            similarity=similarity_quantiles(reference),
        )
        meta = meta.completed(summary)
        run.finish(meta, card(meta, lora=plan.section.lora is not None))
        return summary


def _prepare(
    plan: TrainPlan, display: Progress | None
) -> tuple[PreparedModel, list[ReferenceRow] | None, Displacement | None]:
    """Load the starting policy, with its adapters; what it gives the pairs and right answers to other problems."""
    from spotcli.training import session
    from spotcli.training.reference import reference_logps

    phase(f"loading {plan.model}")
    prepared = session.load_model(plan)
    reference = None
    if plan.needs_reference:
        phase(f"computing the reference of {len(plan.pairs)} pairs")
        reference = reference_logps(plan, prepared.model, counter(display, "reference", len(plan.pairs)))
        if plan.ranks.is_main:
            write_similarity(plan, reference)
    displacement = load_displacement(plan, prepared.model)
    if plan.section.lora is not None:
        model = session.add_adapters(prepared.model, plan.section.lora, plan.recipe.seed)
        prepared = replace(prepared, model=model)
    return prepared, reference, displacement


def _start(plan: TrainPlan, run: RunFolder, metrics: Metrics, resumed_from: int) -> RunMeta:
    """Write the settings of the run, and remove what an interrupted start wrote after its last checkpoint."""
    meta = run.start(plan.identity, recipe_yaml.dump(plan.recipe))
    metrics.keep_until(resumed_from)
    run.remove_checkpoints(after=resumed_from)
    if resumed_from:
        phase(f"resuming after step {resumed_from} of {plan.steps}")
    return meta


def _launch(plan: TrainPlan, run: RunFolder, summary: TrainSummary, started: float) -> TrainSummary:
    """Train in the processes of the plan, while this one shows their progress."""
    from spotcli.training.launcher import launch

    section = plan.section
    kind = {"none": "plain data parallel", "zero2": "ZeRO-2", "zero3": "ZeRO-3", "fsdp": "FSDP"}[plan.sharding]
    machine = f", machine {section.node} of {section.nodes}" if (section.nodes or 1) > 1 else ""
    say(f"{section.ranks} processes, {kind}{machine}")
    with progress("pairs", lines=False) as display:
        try:
            launch(plan, metrics=run.metrics, on_row=Report(display, summary, run.last_step()), on_phase=say)
        except KeyboardInterrupt:
            raise _interrupted(plan, run) from None
    complete = run.finished(plan.identity)
    if complete is not None:
        if complete.saved is not None:  # the output of the processes is in a log, which is not shown
            rate = float(keys.argument(section, "learning_rate"))
            show_survival(complete.saved, rate, zero=plan.sharding.startswith("zero"))
        return replace(complete, seconds=round(time.monotonic() - started, 1))
    if section.node:
        return summary  # machine 0 saves the model, perhaps to a folder that this machine cannot see
    raise SpotError("training ended without a result and without an error")


def _interrupted(plan: TrainPlan, run: RunFolder) -> Unfinished:
    return Unfinished(
        f"stopped; the last checkpoint is that of step {run.last_step()} of {plan.steps}",
        where=str(run.path),
        cure="run the same command again to resume there (train.save_steps sets how often checkpoints are written)",
    )


if __name__ == "__main__":
    # One process of a launched run: python -m spotcli.stages.train RECIPE FOLDER
    from spotcli.training.launcher import load_launched

    run_as_rank(lambda: train(load_launched(Path(sys.argv[1])), folder=Path(sys.argv[2])))
