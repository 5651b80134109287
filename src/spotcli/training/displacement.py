"""Displacement: do right answers to other problems become less likely while the policy trains?

A fixed sample of the policy's right answers to problems that are not trained on is scored before training, and again
every few training steps, in a forward pass without gradients. The samples file of the pairs has such answers. Nothing
random is drawn, so the trained weights are the same with and without the meter.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from spotcli import jsonl, outputs
from spotcli.console import counted
from spotcli.core.forward.encoding import Encoded, EncodedPair
from spotcli.errors import RecipeError, UserError
from spotcli.policies.pair_encoder import pair_encoder, pair_prompter
from spotcli.recipe import TrainSection
from spotcli.records import EVALUATION, Pair, Sample, key_hash
from spotcli.training.plan import TrainPlan
from spotcli.training.rank import phase
from spotcli.training.reference import reference_logps
from spotcli.training.rows import read_pairs

COST = 0.02
"""Largest share of the work of training that the measurements take, where the recipe sets no interval."""

FEWEST = 8
"""Answers that are measured at least, also where a run is so short that they cost more."""

MOST_ROWS = 20_000
"""Rows of the samples that are read: some seconds of work also for long answers."""

FORWARD = 1 / 3
"""The work of a forward pass, as a share of that of a training step on the same tokens."""


@dataclass(frozen=True)
class Displacement:
    """Scores one process's part of the answers."""

    plan: TrainPlan
    every: int
    """Training steps between two measurements."""
    answers: Sequence[EncodedPair]
    starting_logps: Sequence[float]
    """log pi(answer) of the starting policy, in nats."""

    def due(self, step: int, steps: int) -> bool:
        """Whether a measurement follows a training step; the last step always has one."""
        return step % self.every == 0 or step == steps

    def sums(self, model: Any) -> dict[str, float]:
        """Sums over the answers: change of the log-probabilities in nats, tokens, answers, and less likely answers."""
        changes = [now - start for now, start in zip(self._logps(model), self.starting_logps, strict=True)]
        return {
            "change": math.fsum(changes),
            "tokens": sum(len(pair.chosen_ids) for pair in self.answers),
            "answers": len(self.answers),
            "lower": sum(change < 0 for change in changes),
        }

    @staticmethod
    def metrics(sums: dict[str, float]) -> dict[str, float]:
        """The metrics for metrics.jsonl, from the sums of all processes."""
        return {"displacement": sums["change"] / sums["tokens"], "displaced": sums["lower"] / sums["answers"]}

    def _logps(self, model: Any) -> list[float]:
        import torch

        from spotcli.core.forward.batches import micro_batches, sizes
        from spotcli.core.forward.packing import pack

        plan, training = self.plan, model.training
        device = next(model.parameters()).device
        order = sorted(range(len(self.answers)), key=lambda index: -self.answers[index].longest)
        logps = dict.fromkeys(order, 0.0)
        model.eval()
        try:
            with torch.no_grad(), plan.precision():
                for members in micro_batches(order, sizes(self.answers, share=plan.share), plan.layout):
                    batch = pack([self.answers[index] for index in members], share=plan.share, rejected=False)
                    batch = batch.to(device)
                    chosen_B, _ = batch.sequence_logps(model(**batch.model_inputs()))
                    logps |= dict(zip(members, chosen_B.tolist(), strict=True))
        finally:
            model.train(training)
        return [logps[index] for index in range(len(self.answers))]


def load_displacement(plan: TrainPlan, model: Any) -> Displacement | None:
    """Choose the answers, and score them with the starting policy; None if there are none, or the recipe wants none.

    Args:
        plan: the run.
        model: the starting policy, prepared by ``core.forward.logps.install``.

    Raises:
        RecipeError: ``train.displacement_samples`` has no right answer to another problem.
    """
    section = plan.section
    if section.displacement_every == "never" or plan.divided:
        return None
    source = _samples_file(plan)
    answers = [] if source is None else _encoded(plan, _chosen_rows(plan, source, 2 * section.displacement_answers))
    if not answers:
        if section.displacement_samples is not None:
            raise RecipeError(
                f"{source}: no right answer to a problem that is not trained on",
                where="train.displacement_samples",
                cure="use a file of `spot sample` with other problems, or set train.displacement_every to never",
            )
        if source is not None:
            phase(f"displacement is not measured: {source} has no right answer to a problem that is not trained on")
        return None
    step_tokens = sum(map(_tokens, plan.pairs)) / len(plan.pairs) * plan.layout.step
    automatic = isinstance(section.displacement_every, str)
    if automatic:
        answers = _affordable(answers, plan.steps * step_tokens)
    tokens = sum(map(_tokens, answers))
    each = tokens * FORWARD / step_tokens
    every = max(1, math.ceil(each / COST)) if automatic else int(section.displacement_every)
    count = plan.steps // every + (plan.steps % every > 0)
    cost = (1 + count) * each / plan.steps
    phase(
        f"displacement is measured on {counted(len(answers), 'right answer')} to other problems of {source}, every "
        f"{counted(every, 'training step')}: about {100 * cost:.1f} % more work"
    )
    starting = [row.logps.chosen for row in reference_logps(plan, model, lambda done: None, pairs=answers)]
    return Displacement(plan, every, plan.ranks.part(answers), plan.ranks.part(starting))


def _tokens(pair: EncodedPair) -> int:
    return pair.shared_tokens if pair.rejected_ids else len(pair.prompt_ids) + len(pair.chosen_ids)


def _affordable(answers: list[EncodedPair], run_tokens: float) -> list[EncodedPair]:
    """The first answers whose starting and final scores cost at most ``COST`` of a run, and ``FEWEST`` in any case."""
    kept, tokens = 0, 0
    for answer in answers:
        tokens += _tokens(answer)
        if kept >= FEWEST and 2 * tokens * FORWARD > COST * run_tokens:
            break
        kept += 1
    return answers[:kept]


def check_samples_file(section: TrainSection, folder: Path) -> None:
    """Check that ``train.displacement_samples`` exists, before anything is loaded.

    Args:
        section: the train section.
        folder: what its paths are relative to.

    Raises:
        RecipeError: it does not.
    """
    given = section.displacement_samples
    if given is not None and not (folder / given).is_file():
        raise RecipeError(f"{given}: the file does not exist", where="train.displacement_samples")


def _samples_file(plan: TrainPlan) -> Path | None:
    """The samples that the recipe names, or those of the pairs; None if there is no such file."""
    given = plan.section.displacement_samples
    if given is not None:
        return plan.folder / given
    noted = outputs.read_meta(plan.data_file).get("samples")
    path = noted.get("path") if isinstance(noted, dict) else None
    names = [path] if isinstance(path, str) else [plan.recipe.rectify.samples]
    places = (folder / name for name in names for folder in (plan.folder, plan.data_file.parent))
    return next((place for place in places if place.is_file()), None)


def _chosen_rows(plan: TrainPlan, source: Path, limit: int) -> list[Pair]:
    """Right answers to problems that are not trained on, one per problem; the seed decides which.

    Only ``limit`` rows are in memory. The choice does not depend on the order of the rows that are read.
    """
    trained = _trained_problems(plan)
    seed = plan.recipe.seed
    chosen: dict[str, tuple[int, int, Pair]] = {}
    for row in _right_rows(source):
        if {row.id, _problem(row)} & trained:
            continue
        order = key_hash(seed, "displacement", row.id), key_hash(seed, "displacement", *row.key)
        known = chosen.get(row.id)
        if known is not None and known[:2] <= order:
            continue
        chosen[row.id] = (*order, row)
        if len(chosen) > limit:
            del chosen[max(chosen, key=lambda name: chosen[name][0])]
    return [row for _, _, row in sorted(chosen.values(), key=lambda item: item[:2])]


def _trained_problems(plan: TrainPlan) -> set[str | int]:
    """Ids and prompts of all rows of the data, whether they are trained on or left out."""
    pairs = read_pairs(plan.data_file, Pair, invalid=lambda error: None)
    return {name for _, pair in pairs for name in (pair.id, _problem(pair))}


def _problem(row: Pair) -> int:
    return key_hash([(message["role"], message["content"].strip()) for message in row.messages])


def _right_rows(source: Path) -> Iterator[Pair]:
    """The right answers among the first rows of a file, as rows without y-; rows that are no samples are left out."""
    for where, _, row in islice(jsonl.placed(source, invalid=lambda error: None), MOST_ROWS):
        if row.get("verdict") != "right" or row.get("split") == EVALUATION:
            continue
        try:
            sample = jsonl.as_record(row, Sample, where=where)
            if sample.response.strip():
                yield Pair.model_validate({**sample.model_dump(exclude_unset=True), "chosen": sample.response})
        except UserError:
            continue


def _encoded(plan: TrainPlan, rows: Sequence[Pair]) -> list[EncodedPair]:
    """The answers as tokens, at most ``train.displacement_answers``; those that cannot be encoded are left out."""
    # This objective trains on rows without y-.
    section = plan.section.model_copy(update={"objective": "sft"})
    encoder = pair_encoder(pair_prompter(plan.recipe), section, plan.start)
    encoded = Encoded()
    for row in rows:
        try:
            encoder.add(row, encoded)
        except UserError:
            continue
        if len(encoded.pairs) == plan.section.displacement_answers:
            break
    trained = {pair.prompt_ids for pair in plan.pairs}
    return [pair for pair in encoded.pairs if pair.prompt_ids not in trained]
